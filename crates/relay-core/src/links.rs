//! Links and sessions: who is here.
//!
//! A link is known from the moment its node proved its key; it becomes part of a session by `Hello`. The first link of
//! a (node, instance) makes the session; it ends when it has neither a link nor an end of a channel.
//!
//! *The newest agent wins.* A restarted agent comes back before anyone noticed that its old process is dead, so of two
//! agent instances of one node the one with the newer record stays (epoch, then seq, then instance, so that every relay
//! decides alike). The older one is told `Replaced`, its channels end, and it backs off.
//!
//! *A process beyond its limit loses its oldest link*, because after roaming the old ones are dead and nobody knows it
//! yet. A node beyond its limit over all processes is refused, or two processes could push each other out for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use byway_wire::relay::control::{
    CloseReason, Control, Hello, RefuseReason, Role, VERSION, Welcome,
};
use byway_wire::{ChannelId, Instance, NodeId, NodeInstance, SignedRecord};

use crate::admission::{AdmissionError, Grant};
use crate::awaited::Waits;
use crate::channels::{LINGER, Target};
use crate::io::*;
use crate::relay::{Ending, Relay};
use crate::timers::Timer;

/// A link whose node proved its key.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) info: LinkInfo,
    /// Whose it is; none before `Hello`.
    pub(crate) session: Option<NodeInstance>,
    /// The ends bound to it.
    pub(crate) ends: BTreeSet<(ChannelId, Side)>,
}

/// A node instance that is here, or may come back.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) role: Role,
    pub(crate) record: SignedRecord,
    pub(crate) links: BTreeSet<LinkId>,
    pub(crate) channels: BTreeSet<ChannelId>,
    /// Its opens without an answer, by target.
    pub(crate) unanswered: BTreeMap<NodeId, u32>,
    /// How many of its opens wait for an absent peer.
    pub(crate) waits: Waits,
    /// A record newer than the one last passed on waits for its turn.
    pub(crate) record_pending: bool,
    /// What its token lets it do; none where no token is asked for.
    pub(crate) grant: Option<Grant>,
}

impl Session {
    /// The link for what the relay has to say: the latest, because a node that makes another one has found a better.
    pub(crate) fn main_link(&self) -> Option<LinkId> {
        self.links.last().copied()
    }
}

impl Relay {
    pub(crate) fn link_up(&mut self, now: Instant, id: LinkId, info: LinkInfo) {
        if self.links.contains_key(&id) {
            return; // Link numbers are the shell's, and it does not use one twice.
        }
        self.counters.links += 1;
        let count = self.links_of.entry(info.node).or_default();
        *count += 1;
        let too_many = *count > self.config.max_links_per_node;
        self.links.insert(
            id,
            Link {
                info,
                session: None,
                ends: BTreeSet::new(),
            },
        );
        if let Egress::Udp(addr) = info.egress {
            self.events.push_back(Event::Source {
                link: id,
                addr: Some(addr),
            });
        }
        let deadline = info.began + self.config.welcome_within;
        self.timers.arm(Timer::Hello(id), deadline);
        if too_many {
            self.counters.refused_links += 1;
            self.refuse(now, id, RefuseReason::Limit, "too many links of this node");
        }
    }

    pub(crate) fn hello(&mut self, now: Instant, unix_time: u64, id: LinkId, hello: Hello) {
        let Some(info) = self.links.get(&id).map(|l| l.info) else {
            return;
        };
        if !hello.versions.contains(&VERSION) {
            self.counters.refused_version += 1;
            let detail = format!("this relay speaks version {VERSION}");
            return self.refuse(now, id, RefuseReason::Version, &detail);
        }
        let me = hello.record.record().id;
        if hello.record.node() != info.node {
            self.counters.refused_identity += 1;
            let detail = "the record is not of the key that connected";
            return self.refuse(now, id, RefuseReason::Identity, detail);
        }
        if info.role.is_some_and(|role| role != hello.role) {
            self.counters.refused_identity += 1;
            let detail = "another role than the proof was signed for";
            return self.refuse(now, id, RefuseReason::Identity, detail);
        }
        let admission = &self.config.admission;
        let grant = match admission.judge(unix_time, info.node, hello.role, hello.token.as_ref()) {
            Ok(grant) => grant,
            Err(error) => {
                self.counters.refused_admission += 1;
                self.tell_if_unknown_key(error);
                // Nothing is wrong with its token: it comes again soon.
                let reason = match error {
                    AdmissionError::NoKeys => RefuseReason::NotReady,
                    _ => RefuseReason::NotAdmitted,
                };
                return self.refuse(now, id, reason, &error.to_string());
            }
        };
        // Only now, for a node that has said nothing yet may have nowhere to hear it, and where else to go is for those who may come in.
        // Who is here and lost its link is no newcomer: its channels wait for it.
        let may_come = match self.ending {
            Ending::No => true,
            Ending::At(..) => self.sessions.contains_key(&me),
            Ending::Now => false,
        };
        if !may_come {
            self.counters.refused_shutdown += 1;
            self.say_farewell(now, id);
            return self.refuse(now, id, RefuseReason::Shutdown, "the relay is going away");
        }
        if self.sessions.get(&me).is_some_and(|s| s.role != hello.role) {
            return self.violation(now, id, "another role than on the first link");
        }
        if hello.role == Role::Agent && !self.take_over(now, me, &hello.record) {
            self.counters.refused_replaced += 1;
            let detail = "a newer instance of this agent is here";
            return self.refuse(now, id, RefuseReason::Replaced, detail);
        }
        self.make_room(now, me);
        self.welcome(unix_time, id, info, me, (hello.role, &hello.record, &grant));
        self.grant(now, unix_time, me, grant);
        self.say_farewell(now, id);
        self.record(now, me, hello.record);
        if hello.role == Role::Agent {
            self.serve_awaited(now, me.node);
        }
    }

    /// Makes way for `me`, if it is the newest instance of its node. False if the one that is here is newer.
    fn take_over(&mut self, now: Instant, me: NodeInstance, record: &SignedRecord) -> bool {
        let before = self.agents.get(&me.node).map(|&instance| NodeInstance {
            node: me.node,
            instance,
        });
        if let Some(before) = before.filter(|b| *b != me) {
            let newer = self
                .sessions
                .get(&before)
                .is_none_or(|s| age(record) > age(&s.record));
            if !newer {
                return false;
            }
            self.replace(now, before);
        }
        true
    }

    /// Sends an older agent instance away and ends its channels.
    fn replace(&mut self, now: Instant, old: NodeInstance) {
        let Some(session) = self.sessions.get(&old) else {
            return;
        };
        let channels: Vec<ChannelId> = session.channels.iter().copied().collect();
        let links: Vec<LinkId> = session.links.iter().copied().collect();
        for channel in channels {
            self.end_channel_for(channel, old, CloseReason::PeerGone, EndReason::Replaced);
        }
        for link in links {
            self.counters.refused_replaced += 1;
            let detail = "a newer instance of this agent took over";
            self.refuse(now, link, RefuseReason::Replaced, detail);
        }
        self.reap(old);
    }

    /// Ends the oldest link of a process that is about to have too many.
    fn make_room(&mut self, now: Instant, me: NodeInstance) {
        while let Some(oldest) = self
            .sessions
            .get(&me)
            .filter(|s| s.links.len() >= self.config.max_links_per_instance as usize)
            .and_then(|s| s.links.first().copied())
        {
            self.counters.refused_links += 1;
            let detail = "too many links of this process; the oldest goes";
            self.refuse(now, oldest, RefuseReason::Limit, detail);
        }
    }

    fn welcome(
        &mut self,
        unix_time: u64,
        id: LinkId,
        info: LinkInfo,
        me: NodeInstance,
        (role, record, grant): (Role, &SignedRecord, &Option<Grant>),
    ) {
        self.timers.disarm(Timer::Hello(id));
        if let Some(link) = self.links.get_mut(&id) {
            link.session = Some(me);
        }
        let session = self.sessions.entry(me).or_insert_with(|| Session {
            role,
            record: record.clone(),
            links: BTreeSet::new(),
            channels: BTreeSet::new(),
            unanswered: BTreeMap::new(),
            waits: Waits::default(),
            record_pending: false,
            grant: None,
        });
        session.links.insert(id);
        if role == Role::Agent {
            self.agents.insert(me.node, me.instance);
        }
        self.counters.welcomed += 1;
        let welcome = Welcome {
            version: VERSION,
            relay: self.config.name.clone(),
            region: self.config.region.clone(),
            session: self.draw_session_number(),
            observed: info.observed,
            max_channels: self.config.max_channels,
            max_datagram: self.config.max_datagram,
            time: unix_time,
            intercepted: info.intercepted,
            admitted_for: grant.as_ref().map(|grant| grant.holds_for(unix_time)),
        };
        self.send(id, Control::Welcome(welcome));
        let of = |what: fn(&Grant) -> &Option<String>| grant.as_ref().and_then(|g| what(g).clone());
        self.audit(Audit::Linked {
            link: id,
            node: info.node,
            role,
            observed: info.observed,
            egress: info.egress,
            workspace: of(|g| &g.workspace),
            owner: of(|g| &g.owner),
        });
    }

    /// The node did not keep to the protocol.
    pub(crate) fn violation(&mut self, now: Instant, link: LinkId, detail: &str) {
        if self.links.contains_key(&link) {
            self.counters.refused_protocol += 1;
            self.refuse(now, link, RefuseReason::Protocol, detail);
        }
    }

    /// Ends a link and tells its node why. The caller counts.
    pub(crate) fn refuse(
        &mut self,
        now: Instant,
        link: LinkId,
        reason: RefuseReason,
        detail: &str,
    ) {
        let Some(info) = self.links.get(&link).map(|l| l.info) else {
            return;
        };
        self.events.push_back(Event::Disconnect {
            link,
            reason,
            detail: detail.to_owned(),
        });
        self.audit(Audit::Refused {
            link,
            node: info.node,
            observed: info.observed,
            reason,
            detail: detail.to_owned(),
        });
        self.link_down(now, link, Some(reason));
    }

    /// `why` the relay ended it, if the relay did.
    pub(crate) fn link_down(&mut self, now: Instant, id: LinkId, why: Option<RefuseReason>) {
        let Some(link) = self.links.remove(&id) else {
            return;
        };
        let node = link.info.node;
        self.timers.disarm(Timer::Hello(id));
        if let Some(count) = self.links_of.get_mut(&node) {
            *count -= 1;
            if *count == 0 {
                self.links_of.remove(&node);
            }
        }
        if matches!(link.info.egress, Egress::Udp(_)) {
            self.events.push_back(Event::Source {
                link: id,
                addr: None,
            });
        }
        for (channel, side) in link.ends {
            // Whoever waits without a link opens anew on its next one.
            if matches!(
                self.channels.get(&channel).map(|c| &c.target),
                Some(Target::Awaited(_))
            ) {
                self.end_channel(channel, EndReason::OpenerGone);
                continue;
            }
            if let Some(end) = self
                .channels
                .get_mut(&channel)
                .and_then(|c| c.end_mut(side))
            {
                end.link = None;
                self.timers.arm(Timer::Linger(channel, side), now + LINGER);
            }
        }
        if let Some(me) = link.session {
            if let Some(session) = self.sessions.get_mut(&me) {
                session.links.remove(&id);
            }
            self.audit(Audit::Unlinked {
                link: id,
                node,
                why,
            });
            self.reap(me);
        }
    }

    /// Forgets a session that has nothing left.
    pub(crate) fn reap(&mut self, me: NodeInstance) {
        let done = self
            .sessions
            .get(&me)
            .is_some_and(|s| s.links.is_empty() && s.channels.is_empty());
        if done {
            if let Some(grant) = self.sessions.remove(&me).and_then(|s| s.grant) {
                self.forget_expiry(grant.until, me);
            }
            self.timers.disarm(Timer::Record(me));
            if self.agents.get(&me.node) == Some(&me.instance) {
                self.agents.remove(&me.node);
            }
        }
    }
}

/// What decides which of two agent instances is newer.
fn age(record: &SignedRecord) -> (u64, u64, Instance) {
    let r = record.record();
    (r.epoch, r.seq, r.id.instance)
}
