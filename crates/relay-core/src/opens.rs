//! Opening a channel.
//!
//! The opener chose the id and sent its first datagrams along. If the peer is here it hears `Incoming` and the opener
//! hears `Opened` at once, with the record the relay has: nobody waits for the peer's answer, but until it comes the
//! open is *unanswered* and counts against the opener, so that nobody floods a node with calls. The peer's address it hears
//! with that answer only: whom the peer turns away learns nothing of where it is. If the peer is absent
//! the open waits for it (`awaited`).

use std::time::{Duration, Instant};

use byway_wire::relay::control::{
    CloseReason, Control, Incoming, MAX_FIRST, MAX_FIRST_BYTES, Open, Opened,
};
use byway_wire::{ChannelId, NodeId, NodeInstance};

use crate::awaited::Waiting;
use crate::channels::{Channel, Target};
use crate::io::*;
use crate::relay::Relay;
use crate::timers::Timer;

/// How long a peer may take to answer: several retransmissions of a bad link.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

impl Relay {
    pub(crate) fn open(&mut self, now: Instant, link: LinkId, me: NodeInstance, open: Open) {
        let id = open.channel;
        if let Err(reason) = self.check_open(me, &open) {
            return self.send(
                link,
                Control::Closed {
                    channel: id,
                    reason,
                },
            );
        }
        let Some(opener) = self.make_end(now, id, Side::Opener, me, link) else {
            return;
        };
        let wait = Duration::from_millis(open.wait_ms.into());
        let target = Target::Awaited(Waiting {
            node: open.peer,
            proof: open.proof,
            first: open.first,
            place: None,
        });
        self.channels.insert(id, Channel { opener, target });
        if let Some(session) = self.sessions.get_mut(&me) {
            *session.unanswered.entry(open.peer).or_default() += 1;
        }
        if self.reachable(open.peer).is_some() {
            self.serve(now, id);
        } else {
            self.await_peer(now, id, wait);
        }
    }

    fn check_open(&mut self, me: NodeInstance, open: &Open) -> Result<(), CloseReason> {
        if open.channel == ChannelId::ECHO || self.channels.contains_key(&open.channel) {
            self.counters.open_in_use += 1;
            return Err(CloseReason::ChannelInUse);
        }
        if open.peer == me.node {
            self.counters.open_self += 1;
            return Err(CloseReason::SelfOpen);
        }
        let first_bytes: usize = open.first.iter().map(|d| d.len()).sum();
        if open.first.len() > MAX_FIRST || first_bytes > MAX_FIRST_BYTES {
            self.counters.open_first += 1;
            return Err(CloseReason::Limit);
        }
        let Some(session) = self.sessions.get(&me) else {
            return Err(CloseReason::Limit);
        };
        if session
            .grant
            .as_ref()
            .is_some_and(|g| !g.reaches(open.peer))
        {
            self.counters.open_forbidden += 1;
            return Err(CloseReason::NotAllowed);
        }
        if session.channels.len() >= self.config.max_channels as usize {
            self.counters.open_channels += 1;
            return Err(CloseReason::Limit);
        }
        if session
            .unanswered
            .get(&open.peer)
            .is_some_and(|n| *n >= self.config.max_unanswered)
        {
            self.counters.open_unanswered += 1;
            return Err(CloseReason::Limit);
        }
        Ok(())
    }

    /// The instance of a node that can be called, and the link to call it on.
    fn reachable(&self, node: NodeId) -> Option<(NodeInstance, LinkId)> {
        let id = NodeInstance {
            node,
            instance: *self.agents.get(&node)?,
        };
        Some((id, self.sessions.get(&id)?.main_link()?))
    }

    /// Joins an awaited channel with its target, which is here.
    pub(crate) fn serve(&mut self, now: Instant, id: ChannelId) {
        let Some(peer) = self.channels.get(&id).map(Channel::target_node) else {
            return;
        };
        let Some((target, target_link)) = self.reachable(peer) else {
            return;
        };
        if self.bound_link(id, Side::Opener).is_none() {
            return self.end_channel(id, EndReason::OpenerGone);
        }
        if !self.may_have_channel(id, target) {
            self.counters.open_forbidden += 1;
            return self.give_up(id, CloseReason::NotAllowed);
        }
        let full =
            |s: &crate::links::Session| s.channels.len() >= self.config.max_channels as usize;
        if self.sessions.get(&target).is_some_and(full) {
            self.counters.open_channels += 1;
            return self.give_up(id, CloseReason::Limit);
        }
        let Some(end) = self.make_end(now, id, Side::Target, target, target_link) else {
            return;
        };
        let target_egress = end.egress;
        self.forget_awaited(id);
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        let before = std::mem::replace(
            &mut channel.target,
            Target::Here {
                end,
                answered: false,
            },
        );
        let Target::Awaited(Waiting { proof, first, .. }) = before else {
            return;
        };
        let opener = channel.opener.owner;
        let opener_link = channel.opener.link;
        let opener_egress = channel.opener.egress;
        self.timers.arm(Timer::Open(id), now + ANSWER_WAIT);
        self.counters.opened += 1;
        // The table first: data may follow on the heels of either message.
        self.table(TableUpdate::Insert {
            channel: id,
            opener: opener_egress,
            target: target_egress,
        });
        if let (Some(record), Some(observed)) = (self.record_of(opener), self.observed(opener_link))
        {
            let incoming = Incoming {
                channel: id,
                record,
                observed,
                proof,
                first,
            };
            self.send(target_link, Control::Incoming(incoming));
        }
        // Not where the target is: that is for those whom it lets in.
        if let (Some(link), Some(record)) = (opener_link, self.record_of(target)) {
            let opened = Opened {
                channel: id,
                record,
            };
            self.send(link, Control::Opened(opened));
        }
        self.audit(Audit::Opened {
            channel: id,
            opener: opener.node,
            target: peer,
        });
    }

    fn record_of(&self, who: NodeInstance) -> Option<byway_wire::SignedRecord> {
        self.sessions.get(&who).map(|s| s.record.clone())
    }

    fn observed(&self, link: Option<LinkId>) -> Option<std::net::SocketAddr> {
        self.links.get(&link?).map(|l| l.info.observed)
    }

    /// The target answers an open.
    pub(crate) fn accept(&mut self, link: LinkId, me: NodeInstance, id: ChannelId) {
        match self.owned(id, me) {
            Some(Side::Target) => {
                if self.settle_open(id) {
                    self.tell_moved(id, Side::Target);
                }
            }
            Some(Side::Opener) => self.counters.not_yours += 1,
            // It ended before the answer came: the target must not keep it.
            None => {
                let reason = CloseReason::NoSuchChannel;
                self.send(
                    link,
                    Control::Closed {
                        channel: id,
                        reason,
                    },
                );
            }
        }
    }

    /// The open no longer counts against its opener, and no longer expires. False if that was so before.
    pub(crate) fn settle_open(&mut self, id: ChannelId) -> bool {
        self.timers.disarm(Timer::Open(id));
        let Some(channel) = self.channels.get_mut(&id) else {
            return false;
        };
        let node = channel.target_node();
        let opener = channel.opener.owner;
        match &mut channel.target {
            Target::Here { answered, .. } => {
                if std::mem::replace(answered, true) {
                    return false;
                }
            }
            Target::Awaited(_) => self.forget_awaited(id),
        }
        if let Some(session) = self.sessions.get_mut(&opener)
            && let Some(count) = session.unanswered.get_mut(&node)
        {
            *count -= 1;
            if *count == 0 {
                session.unanswered.remove(&node);
            }
        }
        true
    }

    /// The peer did not come, or came and said nothing.
    pub(crate) fn open_expired(&mut self, id: ChannelId) {
        match self.channels.get(&id).map(|c| &c.target) {
            None => {}
            Some(Target::Awaited(_)) => self.give_up(id, CloseReason::Offline),
            Some(Target::Here { .. }) => {
                self.counters.open_expired += 1;
                if let Some(link) = self.bound_link(id, Side::Target) {
                    let reason = CloseReason::PeerGone;
                    self.send(
                        link,
                        Control::Closed {
                            channel: id,
                            reason,
                        },
                    );
                }
                self.tell_opener_and_end(id, CloseReason::Offline);
            }
        }
    }

    pub(crate) fn give_up(&mut self, id: ChannelId, reason: CloseReason) {
        if reason == CloseReason::Offline {
            self.counters.open_offline += 1;
        }
        self.tell_opener_and_end(id, reason);
    }

    fn tell_opener_and_end(&mut self, id: ChannelId, reason: CloseReason) {
        let link = self.bound_link(id, Side::Opener);
        self.end_channel(id, EndReason::NotAnswered);
        if let Some(link) = link {
            self.send(
                link,
                Control::Closed {
                    channel: id,
                    reason,
                },
            );
        }
    }
}
