//! The one place where `relay-core` lives: behind a mutex that is locked for control events only.
//!
//! Link tasks call in with what their node said; what comes out is carried out before the lock is given back: messages
//! are put into outboxes (which never block), the forwarding table is changed. So the order of effects is the order in
//! which the state machine decided them. One task sleeps until the state machine's next deadline.

use std::collections::BTreeMap;
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
use tokio::sync::{Notify, watch};

use crate::audit::AuditLog;
use crate::journal::Journal;
use crate::observe::Handshakes;
use crate::outbox::Outbox;
use crate::quota::Quota;
use crate::quotas::Quotas;
use crate::stats::{Counters, bump};
use crate::table::{End, Table, Totals, Way};
use crate::udp::socket::Destination;
use crate::vital::Vitals;

/// How long a chore waits for others.
const CHORES_EVERY: Duration = Duration::from_secs(1);

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
    /// Nobody can be admitted: there is no key yet to check tokens with.
    no_keys: AtomicBool,
    /// How many tokens named keys that nobody knows.
    unknown_keys: watch::Sender<u64>,
    handshakes: Handshakes,
    pub(crate) vitals: Arc<Vitals>,
    journal: Journal,
}

/// How a relay is, as whoever balances or watches from outside wants to know it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Health {
    /// New nodes are taken.
    Ready,
    /// It has no keys yet to check tokens with.
    NoKeys,
    /// It works for those who are here.
    Leaving,
    /// A part of it has failed.
    Failed,
}

#[derive(Debug)]
struct Core {
    relay: Relay,
    links: BTreeMap<LinkId, Held>,
    quotas: Quotas,
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
        let chores = Arc::<Notify>::default();
        let no_keys = AtomicBool::new(has_no_keys(&config.admission));
        Arc::new(Self {
            core: Mutex::new(Core {
                relay: Relay::new(now, config, seed),
                links: BTreeMap::new(),
                quotas: Quotas::new(Arc::clone(&chores)),
                ended: BTreeMap::new(),
            }),
            table: Arc::default(),
            counters,
            next_link: AtomicU64::new(1),
            bell: Notify::new(),
            chores,
            left: Notify::new(),
            ready: AtomicBool::new(false),
            no_keys,
            unknown_keys: watch::Sender::new(0),
            handshakes: Handshakes::default(),
            vitals: Arc::default(),
            journal: Journal::new(now, audit),
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
            let held = Held {
                node: new.node,
                quota: core.quotas.add(Instant::now(), new.node, id),
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
        let no_keys = has_no_keys(&admission);
        self.with(|core| {
            core.relay.set_admission(Instant::now(), admission);
            for (link, held) in &core.links {
                held.quota.set(core.relay.node_rate(*link));
            }
        });
        self.no_keys.store(no_keys, Ordering::Relaxed);
    }
    /// Everything is in place: nodes may come.
    pub(crate) fn set_ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }
    pub(crate) fn health(&self) -> Health {
        match self.ready.load(Ordering::Relaxed) {
            _ if self.vitals.have_failed() => Health::Failed,
            false => Health::Leaving,
            true if self.no_keys.load(Ordering::Relaxed) => Health::NoKeys,
            true => Health::Ready,
        }
    }
    /// Rings when a token names a key that nobody knows.
    pub(crate) fn unknown_keys(&self) -> watch::Receiver<u64> {
        self.unknown_keys.subscribe()
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
        self.journal.tell_left_out(Instant::now());
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

    /// Tells nodes that send more than they may, tells the log what was left out of it, and forgets what nodes may send that have gone; for
    /// ever, and only when there is something to do.
    pub(crate) async fn run_chores(&self) {
        let mut leavers = false;
        loop {
            if !leavers {
                self.chores.notified().await;
            }
            tokio::time::sleep(CHORES_EVERY).await;
            let now = Instant::now();
            self.journal.tell_left_out(now);
            self.with(|core| {
                leavers = core.quotas.forget_paid();
                let links = &core.links;
                let welcomed = |link| links.get(&link).is_some_and(|h| h.role.is_some());
                for link in core.quotas.exceeding(now, welcomed) {
                    core.relay.handle_exceeded(now, link);
                }
            });
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
            if !self.journal.write(audit, totals.as_ref(), *stranger) {
                self.chores.notify_one();
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
            Event::UnknownKey => self.unknown_keys.send_modify(|n| *n = n.wrapping_add(1)),
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
                    to: Destination { addr, local_ip },
                    listener,
                },
                (Egress::Tls(_), Some((Carrier::Tls, outbox))) => Way::Tls(Arc::clone(outbox)),
                _ => Way::Gone,
            };
            // Nothing that counts comes from an end that has no link.
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
        self.quotas.remove(held.node, link);
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

fn has_no_keys(admission: &Admission) -> bool {
    matches!(admission, Admission::Tokens(rules) if rules.keys.is_empty())
}

fn unix_time() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs())
}
