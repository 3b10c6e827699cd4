//! The one place where `relay-core` lives: behind a mutex that is locked for control events only.
//!
//! Link tasks call in with what their node said; what comes out is carried out before the lock is given back: messages
//! are put into outboxes (which never block), the forwarding table is changed. So the order of effects is the order in
//! which the state machine decided them. One task sleeps until the state machine's next deadline.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use byway_relay_core::io::{Audit, Egress, Event, LinkId, LinkInfo, Side, TableUpdate};
use byway_relay_core::relay::Load;
use byway_relay_core::{Admission, Config, Relay};
use byway_wire::relay::control::{Control, Role};
use byway_wire::relay::cookie::CookieKey;
use byway_wire::relay::frame::{self, Frame};
use byway_wire::{ChannelId, NodeId, RelayUrl};
use tokio::sync::Notify;

use crate::audit::AuditLog;
use crate::observe::Handshakes;
use crate::outbox::Outbox;
use crate::quota::Quota;
use crate::refusals::Refusals;
use crate::stats::{Counters, bump};
use crate::table::{End, Table, Totals, Way};
use crate::vital::Vitals;

/// How often nodes are looked for that send more than they may, and how often one of them is told.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const TELL_EVERY: Duration = Duration::from_secs(10);

/// A link as its task brings it.
#[derive(Clone, Debug)]
pub(crate) struct NewLink {
    pub(crate) node: NodeId,
    /// The role that was proved with it, on a TLS link.
    pub(crate) role: Option<Role>,
    /// When the connection began.
    pub(crate) began: Instant,
    /// Where the node comes from.
    pub(crate) observed: SocketAddr,
    pub(crate) carrier: Carrier,
    /// TLS is ended between the node and us.
    pub(crate) intercepted: bool,
    pub(crate) outbox: Arc<Outbox>,
}

/// What carries a link, as far as data needs it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Carrier {
    /// Data goes out of this listener, from this of its addresses.
    Udp {
        listener: usize,
        local_ip: Option<IpAddr>,
    },
    /// Data goes the way of control.
    Tls,
}

#[derive(Debug)]
pub(crate) struct Hub {
    core: Mutex<Core>,
    pub(crate) table: Arc<Table>,
    counters: Arc<Counters>,
    next_link: AtomicU64,
    /// Rung when the next deadline may have changed.
    bell: Notify,
    /// Rung when there is something to do that has a second's time: a node sends more than it may, a link has gone whose node may have to
    /// be forgotten, refusals were left out of the log.
    chores: Arc<Notify>,
    /// Rung when a link has gone.
    left: Notify,
    /// New nodes are taken.
    ready: AtomicBool,
    handshakes: Handshakes,
    pub(crate) vitals: Arc<Vitals>,
    refusals: Refusals,
    audit: Option<AuditLog>,
}

/// How a relay is, as whoever balances or watches from outside wants to know it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Health {
    /// New nodes are taken.
    Ready,
    /// It works for those who are here.
    Leaving,
    /// A part of it has failed.
    Failed,
}

#[derive(Debug)]
struct Core {
    relay: Relay,
    links: BTreeMap<LinkId, Held>,
    /// What the nodes that are here may send, all links of each together.
    quotas: HashMap<NodeId, Limited>,
    /// What channels carried that ended in this turn.
    ended: BTreeMap<ChannelId, Totals>,
}

#[derive(Debug)]
struct Held {
    carrier: Carrier,
    outbox: Arc<Outbox>,
    /// The address by which its datagrams are known.
    source: Option<SocketAddr>,
    /// When its connection began.
    began: Instant,
    /// Whose it is, and what it may send.
    node: NodeId,
    quota: Arc<Quota>,
    /// As what its node came; none before it was welcomed.
    role: Option<Role>,
}

impl Held {
    /// What carries it, and as what its node came.
    fn kind(&self) -> (&'static str, &'static str) {
        let carrier = match self.carrier {
            Carrier::Udp { .. } => "udp",
            Carrier::Tls => "tls",
        };
        let role = match self.role {
            Some(Role::Agent) => "agent",
            Some(Role::Client) => "client",
            None => "none",
        };
        (carrier, role)
    }
}

/// What one node may send.
#[derive(Debug)]
struct Limited {
    quota: Arc<Quota>,
    /// Its links.
    links: BTreeSet<LinkId>,
    /// When it was last told that it sends more.
    told: Option<Instant>,
}

/// How many links there are of one kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Links {
    pub(crate) carrier: &'static str,
    pub(crate) role: &'static str,
    pub(crate) count: u64,
}

impl Hub {
    pub(crate) fn new(
        now: Instant,
        config: Config,
        seed: [u8; 32],
        counters: Arc<Counters>,
        audit: Option<AuditLog>,
    ) -> Arc<Self> {
        Arc::new(Self {
            core: Mutex::new(Core {
                relay: Relay::new(now, config, seed),
                links: BTreeMap::new(),
                quotas: HashMap::new(),
                ended: BTreeMap::new(),
            }),
            table: Arc::default(),
            counters,
            next_link: AtomicU64::new(1),
            bell: Notify::new(),
            chores: Arc::default(),
            left: Notify::new(),
            ready: AtomicBool::new(false),
            handshakes: Handshakes::default(),
            vitals: Arc::default(),
            refusals: Refusals::new(now),
            audit,
        })
    }

    /// A node proved its key. The link ends when the returned handle is dropped.
    pub(crate) fn link_up(self: &Arc<Self>, new: NewLink) -> LinkHandle {
        let id = LinkId(self.next_link.fetch_add(1, Ordering::Relaxed));
        let egress = match new.carrier {
            Carrier::Udp { .. } => Egress::Udp(new.observed),
            Carrier::Tls => Egress::Tls(id),
        };
        let info = LinkInfo {
            node: new.node,
            role: new.role,
            began: new.began,
            egress,
            observed: new.observed,
            intercepted: new.intercepted,
        };
        self.with(|core| {
            let limited = core.quotas.entry(new.node).or_insert_with(|| Limited {
                quota: Arc::new(Quota::new(Instant::now(), Arc::clone(&self.chores))),
                links: BTreeSet::new(),
                told: None,
            });
            limited.links.insert(id);
            let held = Held {
                node: new.node,
                quota: Arc::clone(&limited.quota),
                carrier: new.carrier,
                outbox: new.outbox,
                source: None,
                began: new.began,
                role: None,
            };
            core.links.insert(id, held);
            core.relay.handle_link_up(Instant::now(), id, info);
        });
        LinkHandle {
            hub: Arc::clone(self),
            id,
        }
    }

    /// Who may use the relay from now on.
    pub(crate) fn set_admission(&self, admission: Admission) {
        self.with(|core| {
            core.relay.set_admission(Instant::now(), admission);
            for (link, held) in &core.links {
                held.quota.set(core.relay.node_rate(*link));
            }
        });
    }
    /// Everything is in place: nodes may come.
    pub(crate) fn set_ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }
    pub(crate) fn health(&self) -> Health {
        match self.ready.load(Ordering::Relaxed) {
            _ if self.vitals.have_failed() => Health::Failed,
            true => Health::Ready,
            false => Health::Leaving,
        }
    }
    pub(crate) fn is_ready(&self) -> bool {
        self.health() == Health::Ready
    }
    pub(crate) fn handshakes(&self) -> &Handshakes {
        &self.handshakes
    }
    /// How many links there are of every kind, those of which there is none too: a series that comes and goes is no good to whoever
    /// computes with it.
    pub(crate) fn links(&self) -> Vec<Links> {
        let kinds = ["udp", "tls"]
            .into_iter()
            .flat_map(|carrier| ["agent", "client", "none"].map(|role| (carrier, role)));
        let mut counts: BTreeMap<_, u64> = kinds.map(|kind| (kind, 0)).collect();
        // One pass: nobody links while it lasts.
        for held in self.lock().links.values() {
            *counts.entry(held.kind()).or_default() += 1;
        }
        let links = |((carrier, role), count)| Links {
            carrier,
            role,
            count,
        };
        counts.into_iter().map(links).collect()
    }
    /// Tells every node that the relay will stop.
    pub(crate) fn going_away(&self, deadline: Duration, alternates: Vec<RelayUrl>) {
        self.ready.store(false, Ordering::Relaxed);
        self.with(|core| {
            core.relay
                .handle_going_away(Instant::now(), deadline, alternates);
        });
    }
    /// How many links there are of nodes that were welcomed.
    pub(crate) fn welcomed(&self) -> usize {
        let core = self.lock();
        core.links
            .values()
            .filter(|held| held.role.is_some())
            .count()
    }
    /// Waits until every node that was welcomed has left. Who comes while the relay drains, and is refused, does not count.
    pub(crate) async fn left_by_all(&self) {
        loop {
            let mut left = std::pin::pin!(self.left.notified());
            left.as_mut().enable();
            if self.welcomed() == 0 {
                return;
            }
            left.await;
        }
    }
    /// Ends every link.
    pub(crate) fn shutdown(&self) {
        self.with(|core| core.relay.handle_shutdown(Instant::now()));
        self.tell_left_out();
    }
    /// Waits until no task holds a link.
    pub(crate) async fn empty(&self) {
        loop {
            let mut left = std::pin::pin!(self.left.notified());
            left.as_mut().enable();
            if self.lock().links.is_empty() {
                return;
            }
            left.await;
        }
    }
    pub(crate) fn cookie_key(&self) -> CookieKey {
        self.lock().relay.cookie_key()
    }
    pub(crate) fn snapshot(&self) -> (byway_relay_core::Counters, Load) {
        let core = self.lock();
        (*core.relay.counters(), core.relay.load())
    }

    /// Wakes the state machine at its deadlines, for ever.
    pub(crate) async fn run_timers(&self) {
        loop {
            let bell = self.bell.notified();
            let next = self.lock().relay.poll_timeout();
            match next {
                None => bell.await,
                Some((at, _)) => {
                    tokio::select! {
                        () = bell => {}
                        () = tokio::time::sleep_until(at.into()) => {
                            self.with(|core| core.relay.handle_timeout(Instant::now(), unix_time()));
                        }
                    }
                }
            }
        }
    }

    /// Writes how many refusals were not.
    fn tell_left_out(&self) {
        let Some(count) = self.refusals.left_out(Instant::now()) else {
            return;
        };
        tracing::info!(count, "refused as well: so many of nobody's nodes");
        if let Some(file) = &self.audit {
            file.write_suppressed(count);
        }
    }

    /// Tells nodes that send more than they may, and the log what was left out of it, and forgets what nodes may send that have gone; for
    /// ever, and only when there is something to do.
    pub(crate) async fn watch_quotas(&self) {
        let mut leavers = false;
        loop {
            if !leavers {
                self.chores.notified().await;
            }
            tokio::time::sleep(LOOK_EVERY).await;
            let now = Instant::now();
            self.tell_left_out();
            let exceeding = {
                let mut core = self.lock();
                leavers = core.forget_quotas();
                core.exceeding(now)
            };
            for link in exceeding {
                self.with(|core| core.relay.handle_exceeded(now, link));
            }
        }
    }

    /// Lets `input` into the state machine and carries out what comes of it.
    fn with(&self, input: impl FnOnce(&mut Core)) {
        let mut core = self.lock();
        let before = core.relay.poll_timeout();
        input(&mut core);
        let mut audits = Vec::new();
        while let Some(event) = core.relay.poll_event() {
            match event {
                Event::Audit(audit) => {
                    let totals = match &audit {
                        Audit::Ended { channel, .. } => {
                            let ended = core.ended.remove(channel);
                            ended.or_else(|| self.table.totals(*channel))
                        }
                        _ => None,
                    };
                    let mut stranger = false;
                    match &audit {
                        Audit::Linked { link, role, .. } => {
                            if let Some(held) = core.links.get_mut(link) {
                                held.role = Some(*role);
                            }
                        }
                        Audit::Refused { link, .. } => {
                            let held = core.links.get(link);
                            stranger = held.is_none_or(|held| held.role.is_none());
                        }
                        _ => {}
                    }
                    audits.push((audit, totals, stranger));
                }
                event => self.carry_out(&mut core, event),
            }
        }
        if core.relay.poll_timeout() != before {
            self.bell.notify_one();
        }
        drop(core);
        // Without the lock: whoever reads the log slowly must not hold up every node.
        for (audit, totals, stranger) in &audits {
            if *stranger && !self.refusals.write(Instant::now()) {
                self.chores.notify_one();
                continue;
            }
            log(audit);
            if let Some(file) = &self.audit {
                file.write(audit, totals.as_ref());
            }
        }
    }

    fn carry_out(&self, core: &mut Core, event: Event) {
        match event {
            Event::Send { link, message } => {
                if let Some(held) = core.links.get(&link) {
                    if matches!(message, Control::Welcome(_) | Control::TokenTaken { .. }) {
                        held.quota.set(core.relay.node_rate(link));
                    }
                    if matches!(message, Control::Welcome(_)) {
                        let histogram = match held.carrier {
                            Carrier::Udp { .. } => &self.handshakes.udp,
                            Carrier::Tls => &self.handshakes.tls,
                        };
                        histogram.observe(held.began.elapsed().as_secs_f64());
                    }
                    self.post(held, &message);
                }
            }
            Event::Disconnect {
                link,
                reason,
                detail,
            } => {
                if let Some(held) = core.links.get(&link) {
                    self.post(held, &Control::Refused { reason, detail });
                    held.outbox.finish();
                }
            }
            Event::Source { link, addr } => {
                let Some(held) = core.links.get_mut(&link) else {
                    return;
                };
                if let Some(before) = std::mem::replace(&mut held.source, addr) {
                    self.table.remove_source(before);
                }
                if let Some(addr) = addr {
                    self.table.add_source(addr);
                }
            }
            Event::Table(update) => self.update_table(core, update),
            // An event of a later relay-core that this shell does not know yet.
            other => tracing::error!(?other, "unhandled event"),
        }
    }

    fn post(&self, held: &Held, message: &Control) {
        let bytes = match held.carrier {
            Carrier::Udp { .. } => {
                let mut out = BytesMut::new();
                frame::encode_stream(message, &mut out);
                out.freeze()
            }
            Carrier::Tls => Frame::Control(message.clone()).encode(),
        };
        if !held.outbox.control(bytes) {
            bump(&self.counters.stalled);
        }
    }

    fn update_table(&self, core: &mut Core, update: TableUpdate) {
        let end = |channel: ChannelId, side: Side, egress: Egress| {
            let held = core
                .relay
                .bound_link(channel, side)
                .and_then(|link| core.links.get(&link));
            let way = match (egress, held.map(|h| (h.carrier, &h.outbox))) {
                (Egress::Udp(addr), Some((Carrier::Udp { listener, local_ip }, _))) => Way::Udp {
                    addr,
                    listener,
                    local_ip,
                },
                (Egress::Tls(_), Some((Carrier::Tls, outbox))) => Way::Tls(Arc::clone(outbox)),
                _ => Way::Gone,
            };
            // Nothing comes from an end that never had a link.
            let quota = held.map_or_else(
                || Arc::new(Quota::new(Instant::now(), Arc::default())),
                |held| Arc::clone(&held.quota),
            );
            End { egress, way, quota }
        };
        match update {
            TableUpdate::Insert {
                channel,
                opener,
                target,
            } => self.table.insert(
                channel,
                end(channel, Side::Opener, opener),
                end(channel, Side::Target, target),
            ),
            TableUpdate::Bind {
                channel,
                side,
                egress,
            } => self.table.bind(channel, side, end(channel, side, egress)),
            TableUpdate::Remove { channel } => {
                if let Some(totals) = self.table.remove(channel) {
                    core.ended.insert(channel, totals);
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        // A panic inside the state machine is a bug, but taking every other tunnel down with it would be another.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Core {
    fn forget(&mut self, link: LinkId) {
        let Some(held) = self.links.remove(&link) else {
            return;
        };
        if let Some(limited) = self.quotas.get_mut(&held.node) {
            limited.links.remove(&link);
        }
    }

    /// Forgets what nodes may send that have gone, once they owe nothing and no end of a channel counts with it any more: or whoever
    /// hangs up and links again would begin anew. True if some are left whose node has gone.
    fn forget_quotas(&mut self) -> bool {
        self.quotas.retain(|_, limited| {
            !limited.links.is_empty()
                || Arc::strong_count(&limited.quota) > 1
                || !limited.quota.is_paid()
        });
        self.quotas.values().any(|limited| limited.links.is_empty())
    }

    /// Nodes that send more than they may, and were not told lately: a link of each.
    fn exceeding(&mut self, now: Instant) -> Vec<LinkId> {
        let due = |limited: &&mut Limited| {
            limited.told.is_none_or(|at| at + TELL_EVERY <= now) && limited.quota.was_exceeded()
        };
        let exceeding = self.quotas.values_mut().filter(|l| due(l));
        let welcomed = |link: &&LinkId| self.links.get(link).is_some_and(|h| h.role.is_some());
        let told = exceeding.filter_map(|limited| {
            let link = *limited.links.iter().rev().find(welcomed)?;
            limited.told = Some(now);
            Some(link)
        });
        told.collect()
    }
}

/// A live link, held by its task.
#[derive(Debug)]
pub(crate) struct LinkHandle {
    hub: Arc<Hub>,
    id: LinkId,
}

impl LinkHandle {
    pub(crate) fn id(&self) -> LinkId {
        self.id
    }
    /// The node said something.
    pub(crate) fn control(&self, message: Control) {
        self.hub.with(|core| {
            core.relay
                .handle_control(Instant::now(), unix_time(), self.id, message);
        });
    }
    /// The node said something that is no message.
    pub(crate) fn malformed(&self, detail: &str) {
        self.hub
            .with(|core| core.relay.handle_malformed(Instant::now(), self.id, detail));
    }
}

impl Drop for LinkHandle {
    fn drop(&mut self) {
        self.hub.with(|core| {
            core.relay.handle_link_down(Instant::now(), self.id);
        });
        // After the events, which still name the link.
        self.hub.lock().forget(self.id);
        self.hub.chores.notify_one();
        self.hub.left.notify_waiters();
    }
}

fn unix_time() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs())
}

fn log(audit: &Audit) {
    match audit {
        Audit::Linked { link, node, .. } => {
            tracing::info!(link = link.0, node = %node.short(), "linked");
        }
        Audit::Unlinked { link, node, why } => {
            tracing::info!(link = link.0, node = %node.short(), ?why, "unlinked");
        }
        Audit::Refused {
            link,
            node,
            reason,
            detail,
            ..
        } => {
            tracing::info!(link = link.0, node = %node.short(), ?reason, detail, "refused");
        }
        Audit::Opened {
            channel,
            opener,
            target,
        } => tracing::info!(
            channel = format_args!("{:014x}", channel.as_u64()),
            opener = %opener.short(),
            target = %target.short(),
            "channel opened"
        ),
        Audit::Ended { channel, why, .. } => {
            tracing::info!(
                channel = format_args!("{:014x}", channel.as_u64()),
                why = why.name(),
                "channel ended"
            );
        }
        other => tracing::info!(?other, "audit"),
    }
}
