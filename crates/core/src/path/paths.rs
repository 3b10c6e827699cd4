//! All paths to one peer instance: what comes in, and the table it changes.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use byway_wire::ChannelId;
use byway_wire::probe::{ProbeBody, TxId};
use byway_wire::signal::{Candidate, Candidates, Mapping, SignalBody};

use super::addresses::{Deferred, Tried};
use super::candidate::{LocalCandidates, believe};
use super::check::Path;
use super::failover::{Cause, Flow, Suspicion};
use super::measure::{PINGS_PER_SECOND, Pings};
use super::nudge::Nudges;
use super::score::{BestScore, PathId, Policy};
use super::secure::Association;
use super::spray::{Ask, Seen, Spray};
use crate::budget::Budget;
use crate::cx::{Cx, Wake};
use crate::io::{Config, FlowSample, LinkId, LocalSocket, Route, RouteReason, SocketId, Way};

/// The second of an unattested address's three probes leaves 100 ms after the first, and what the peer is told now must open its filter
/// before that; the last, after two seconds, is for what went wrong. A node that is seen from outside only later than this asks once
/// more, once in each network.
const SEEN_LATE: Duration = Duration::from_millis(200);
/// So often addresses are asked anew for each of what our host knows nothing of: that we are seen elsewhere, that an outage is over.
pub(super) const ASK_ANEW: Duration = Duration::from_secs(60);
/// Doubts that relays may raise in a second. Each costs a few probes, and copies of data until the peer has answered.
const QUESTIONS_PER_SECOND: u32 = 1;
/// Moves of the peer that are followed in a second: one for each relay, and one more. Each is answered with our candidates.
const MOVES_PER_SECOND: u32 = 3;

/// What a peer's paths want from the node.
#[derive(Debug)]
pub(crate) enum Output {
    /// Send a sealed probe.
    Send { way: Way, data: Bytes },
    /// Send a sealed signal through the peer's channels.
    Signal(Bytes),
    /// Data goes there from now on.
    Route(Route, RouteReason),
    /// Send the last datagrams again.
    Replay,
    /// Make the tunnel say something that must be answered.
    Nudge,
    /// The evidence timer sleeps until the shell sees activity.
    WatchFlow,
    /// A channel on this link is suspected: does the link carry data at all?
    SuspectLink(LinkId),
    /// The peer's datagrams may come in here.
    WayKnown(Way),
    /// They may no longer.
    WayForgotten(Way),
    /// A hard NAT is to be crossed.
    Spray(Ask),
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Paths {
    pub(super) association: Association,
    /// False: no candidates, and no probes but by channels (`--no-direct`).
    pub(super) direct: bool,
    pub(super) policy: &'static dyn Policy,
    pub(super) sockets: Vec<LocalSocket>,
    pub(super) table: BTreeMap<PathId, Path>,
    pub(super) next_path: u32,
    pub(super) pings: Pings,
    /// Answers to pings.
    budget: Budget,
    /// Doubts raised by relays.
    pub(super) questions: Budget,
    /// Moves of the peer that relays tell of.
    moves: Budget,
    /// The peer's latest list, and its number.
    pub(super) remote: Vec<SocketAddr>,
    generation: Option<u64>,
    /// Addresses a relay says the peer is at, the newest last.
    pub(super) attested: VecDeque<IpAddr>,
    pub(super) tried: BTreeMap<SocketAddr, Tried>,
    pub(super) deferred: Deferred,
    /// When candidates were first offered in this network.
    offered: Option<Instant>,
    /// They came to be seen from outside only later, and addresses were asked once more for it.
    seen_late: bool,
    /// When addresses were last asked anew because we were seen elsewhere, and because an outage was over.
    asked_elsewhere: Option<Instant>,
    asked_after_outage: Option<Instant>,
    pub(super) primary: Option<PathId>,
    pub(super) primary_since: Instant,
    pub(super) epoch: u32,
    pub(super) told: Option<Route>,
    /// Since when the peer counts as lost.
    pub(super) lost_since: Option<Instant>,
    /// A path that would be better, and for how many samples it has been.
    pub(super) challenger: Option<(PathId, u32)>,
    pub(super) doubt: Option<Suspicion>,
    pub(super) peer_suspicion: Option<TxId>,
    pub(super) flow: Flow,
    pub(super) flow_check: Option<Instant>,
    pub(super) nudges: Nudges,
    pub(super) watching: bool,
    pub(super) next_tick: Option<Instant>,
    pub(super) ping_tries: u8,
    pub(super) spray: Spray,
    pub(super) out: VecDeque<Output>,
}

impl Paths {
    pub(crate) fn new(
        now: Instant,
        association: Association,
        config: &Config,
        sockets: Vec<LocalSocket>,
    ) -> Self {
        Self {
            association,
            direct: config.direct,
            policy: &BestScore,
            sockets,
            table: BTreeMap::new(),
            next_path: 0,
            pings: Pings::default(),
            budget: Budget::new(now, PINGS_PER_SECOND),
            questions: Budget::new(now, QUESTIONS_PER_SECOND),
            moves: Budget::new(now, MOVES_PER_SECOND),
            remote: Vec::new(),
            generation: None,
            attested: VecDeque::new(),
            tried: BTreeMap::new(),
            deferred: Deferred::default(),
            offered: None,
            seen_late: false,
            asked_elsewhere: None,
            asked_after_outage: None,
            primary: None,
            primary_since: now,
            epoch: 0,
            told: None,
            lost_since: None,
            challenger: None,
            doubt: None,
            peer_suspicion: None,
            flow: Flow::default(),
            flow_check: None,
            nudges: Nudges::default(),
            watching: false,
            next_tick: None,
            ping_tries: 0,
            spray: Spray::new(config.spray),
            out: VecDeque::new(),
        }
    }

    /// A channel to the peer is open. `attested` is the peer's address as the relay sees it.
    pub(crate) fn add_channel(&mut self, cx: &mut Cx<'_>, way: Way, attested: Option<SocketAddr>) {
        if let Some(addr) = attested {
            self.attest(cx, addr);
        }
        if self.find(way).is_none() {
            self.insert(cx, way, true);
        }
        self.review(cx, false, RouteReason::Better);
    }

    /// A relay says where it sees the other end of a channel now. False: it says so too often.
    pub(crate) fn peer_moved(
        &mut self,
        cx: &mut Cx<'_>,
        (link, channel): (LinkId, ChannelId),
        observed: SocketAddr,
    ) -> bool {
        let fine = self.moves.take(cx.now);
        if fine {
            self.attest(cx, observed);
            // By TLS anything passes, and what passed on the peer's old network may not on its new one.
            let moved = |way| matches!(way, Way::Channel { link: l, channel: c, .. } if (l, c) == (link, channel));
            for path in self.table.values_mut().filter(|p| moved(p.way)) {
                path.size_anew(cx.now);
                self.pings.forget(path.id);
            }
            self.run_checks(cx);
        } else {
            cx.counters.moves_limited += 1;
        }
        fine
    }

    /// A channel moved to another link: one change of the route, not two.
    pub(crate) fn move_channel(&mut self, cx: &mut Cx<'_>, old: Way, new: Way) {
        let reason = if new.kind() < old.kind() {
            RouteReason::Better
        } else {
            RouteReason::LinkLost
        };
        let was_primary = self.find(old).is_some_and(|id| self.primary == Some(id));
        if let Some(id) = self.find(old) {
            self.remove(id);
        }
        let id = self.find(new).or_else(|| self.insert(cx, new, true));
        if was_primary && let Some(id) = id {
            self.set_primary(cx, id, reason);
            self.out.push_back(Output::Replay);
        }
        self.review(cx, false, reason);
    }

    /// Which links lead to relays that stop.
    pub(crate) fn set_leaving(&mut self, cx: &mut Cx<'_>, is_leaving: impl Fn(LinkId) -> bool) {
        let mut changed = false;
        for path in self.table.values_mut() {
            if let Way::Channel { link, .. } = path.way {
                let leaving = is_leaving(link);
                changed |= std::mem::replace(&mut path.leaving, leaving) != leaving;
            }
        }
        if changed {
            self.review(cx, false, RouteReason::Better);
        }
    }

    /// A way is gone: its link was lost, its channel closed.
    pub(crate) fn remove_way(&mut self, cx: &mut Cx<'_>, way: Way) {
        if let Some(id) = self.find(way) {
            self.remove(id);
            self.review(cx, false, RouteReason::LinkLost);
        }
    }

    /// The peer forgot us (and may be calling anew): its index and its side of every direct path are gone. Only the peer
    /// itself can say so; see [`Paths::question`] for what a relay says.
    fn peer_left(&mut self, cx: &mut Cx<'_>) {
        self.generation = None;
        self.remote.clear();
        self.deferred = Deferred::default();
        self.association.forget_peer_index();
        let direct: Vec<PathId> = self
            .table
            .values()
            .filter(|p| p.is_direct())
            .map(|p| p.id)
            .collect();
        for id in direct {
            self.remove(id);
        }
        self.forget_spray();
        self.review(cx, false, RouteReason::LinkLost);
    }

    /// The host's sockets changed.
    pub(crate) fn set_sockets(&mut self, cx: &mut Cx<'_>, sockets: Vec<LocalSocket>) {
        let is_there =
            |id: SocketId| sockets.iter().any(|s| s.id == id) || self.is_spray_socket(id);
        let gone: Vec<PathId> = self
            .table
            .values()
            .filter(|p| matches!(p.way, Way::Direct { socket, .. } if !is_there(socket)))
            .map(|p| p.id)
            .collect();
        self.sockets = sockets;
        for id in gone {
            self.remove(id);
        }
        self.expand(cx);
        self.review(cx, false, RouteReason::LinkLost);
    }

    /// The host's network is another one, or it slept: every path is looked for anew, and the peer is asked at once whether
    /// it hears us by those that data takes.
    pub(crate) fn handle_network_change(&mut self, cx: &mut Cx<'_>) {
        for path in self.table.values_mut() {
            if path.is_direct() {
                path.start_over(cx.now, self.primary == Some(path.id));
            } else {
                path.size_anew(cx.now);
            }
            self.pings.forget(path.id);
        }
        self.ask_anew(cx);
        (self.offered, self.seen_late) = (None, false);
        self.restart_spray(cx.now);
        // A doubt that is older has grown slow.
        self.doubt = None;
        self.suspect(cx, Cause::Network);
        self.run_checks(cx);
    }

    /// A relay that carries the peer was silent, and is heard again. What took its answers may have taken those of addresses that are
    /// asked three times and no more. A peer can bring it about if the relay is its own: it is bounded for that.
    pub(crate) fn handle_outage_over(&mut self, cx: &mut Cx<'_>) {
        let direct = self.primary_path().is_some_and(Path::is_direct);
        if !direct && may_ask_anew(&mut self.asked_after_outage, cx.now) {
            self.ask_anew(cx);
            self.run_checks(cx);
        }
    }

    /// Tells the peer our candidates.
    pub(crate) fn offer(
        &mut self,
        cx: &mut Cx<'_>,
        list: Vec<Candidate>,
        mapping: Mapping,
        generation: u64,
    ) {
        // Without direct paths the list is empty; the index in it is what the channels are probed by.
        let (list, mapping) = if self.direct {
            (list, mapping)
        } else {
            (Vec::new(), Mapping::Unknown)
        };
        let late = *self.offered.get_or_insert(cx.now) + SEEN_LATE <= cx.now;
        let seen = self.note_own_network(&list, mapping);
        let body = SignalBody::Candidates(Candidates {
            index: self.association.own_index(),
            generation,
            list,
            mapping,
        });
        let sealed = self.association.seal_signal(cx.rng, body);
        self.out.push_back(Output::Signal(sealed));
        // Only now does the peer know where to send, and what we sent before met a filter that nothing had opened.
        let anew = match seen {
            Seen::First => late && !std::mem::replace(&mut self.seen_late, true),
            Seen::Elsewhere => late && may_ask_anew(&mut self.asked_elsewhere, cx.now),
            Seen::Alike => false,
        };
        if anew {
            self.ask_anew(cx);
        }
        self.run_spray(cx);
    }

    /// What tells the peer that we forget it.
    pub(crate) fn goodbye(&mut self, cx: &mut Cx<'_>) -> Bytes {
        self.association.seal_signal(cx.rng, SignalBody::Goodbye)
    }

    /// A signal came through one of the peer's channels.
    pub(crate) fn handle_signal(
        &mut self,
        cx: &mut Cx<'_>,
        sealed: &[u8],
        local: &LocalCandidates,
        same_host: bool,
    ) {
        let candidates = match self.association.open_signal(cx.counters, sealed) {
            Some(SignalBody::Candidates(candidates)) => candidates,
            Some(SignalBody::Goodbye) => {
                self.peer_left(cx);
                return;
            }
            _ => return,
        };
        if self
            .association
            .peer_index()
            .is_some_and(|known| known != candidates.index)
        {
            self.peer_left(cx);
        }
        if self
            .generation
            .is_some_and(|known| candidates.generation <= known)
        {
            return;
        }
        self.generation = Some(candidates.generation);
        self.association.set_peer_index(candidates.index);
        self.remote = if self.direct {
            believe(&candidates.list, local, same_host, cx.counters)
        } else {
            Vec::new()
        };
        // What the new list does not name and nobody answered from is given up.
        let gone: Vec<PathId> = self
            .table
            .values()
            .filter(|p| p.last_answer.is_none() && !p.told)
            .filter(
                |p| matches!(p.way, Way::Direct { remote, .. } if !self.remote.contains(&remote)),
            )
            .map(|p| p.id)
            .collect();
        for id in gone {
            self.remove(id);
        }
        let believed = |c: &&Candidate| self.remote.contains(&byway_wire::canonical(c.addr));
        let list: Vec<Candidate> = candidates.list.iter().filter(believed).copied().collect();
        self.note_peer_network(&list, candidates.mapping);
        for path in self.table.values_mut() {
            if matches!(path.way, Way::Direct { remote, .. } if self.remote.contains(&remote)) {
                path.named_again(cx.now);
            }
        }
        self.expand(cx);
        self.run_checks(cx);
        self.run_spray(cx);
    }

    /// A probe with our index for this peer came in.
    pub(crate) fn handle_probe(&mut self, cx: &mut Cx<'_>, way: Way, datagram: &[u8]) {
        let Some(body) = self.association.open_probe(cx.counters, datagram) else {
            return;
        };
        let known = match (self.find(way), way) {
            (Some(id), _) => Some(id),
            // An answer on a way that is forgotten makes none: what is sent for it would be answered again.
            (None, Way::Direct { remote, .. })
                if self.direct && !matches!(body, ProbeBody::Pong { .. }) =>
            {
                self.discover(cx, way, remote)
            }
            _ => None,
        };
        let Some(id) = known else {
            cx.counters.probe_unknown_way += 1;
            return;
        };
        self.tell_known(id);
        match body {
            ProbeBody::Ping { txid } => self.on_ping(cx, id, txid, datagram.len()),
            ProbeBody::Pong { txid, .. } => self.on_pong(cx, id, txid, datagram.len()),
            ProbeBody::Suspect { txid } => self.on_peer_suspects(cx, txid),
        }
    }

    /// What congestion control sees.
    pub(crate) fn handle_flow(&mut self, cx: &mut Cx<'_>, sample: FlowSample) {
        let acked = sample.acked != self.flow.sample.acked;
        self.flow.update(cx.now, sample, self.doubt.is_some());
        self.nudges.observe(&sample);
        if !self.watching {
            // The first datagram after a sleep, perhaps a bare acknowledgement: a tunnel that only receives is in use.
            self.flow.wake(cx.now);
        }
        // Only `run_activity` ends the watch: it is what tells the shell to call again at the next activity.
        self.watching |= self.flow.is_active(cx.now);
        if self.flow.is_active(cx.now) && self.next_tick.is_none() {
            self.next_tick = Some(cx.now);
            self.tick(cx);
        }
        self.weigh_flow(cx, acked);
    }

    pub(crate) fn handle_timeout(&mut self, cx: &mut Cx<'_>) {
        self.ask_again(cx);
        self.run_checks(cx);
        self.run_suspicion(cx);
        self.run_activity(cx);
        self.run_keepalive(cx);
        self.run_spray(cx);
    }

    pub(crate) fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }
    pub(crate) fn poll_timeout(&self) -> Option<Wake> {
        self.next_wake()
    }

    /// The shell is to sample this peer's flow at each wake-up.
    pub(crate) fn is_watching(&self) -> bool {
        self.watching
    }
    pub(crate) fn has_primary(&self) -> bool {
        self.primary.is_some()
    }
    /// Since when nothing was heard of the peer by any path.
    pub(crate) fn lost_since(&self) -> Option<Instant> {
        self.lost_since
    }
    /// Where data goes now.
    pub(crate) fn primary_way(&self) -> Option<Way> {
        self.primary_path().map(|path| path.way)
    }
    pub(crate) fn own_index(&self) -> byway_wire::probe::Index {
        self.association.own_index()
    }
    /// True once the peer can be probed.
    pub(super) fn can_probe(&self) -> bool {
        self.association.peer_index().is_some()
    }
    pub(super) fn find(&self, way: Way) -> Option<PathId> {
        self.table.values().find(|p| p.way == way).map(|p| p.id)
    }
    pub(super) fn primary_path(&self) -> Option<&Path> {
        self.primary.and_then(|id| self.table.get(&id))
    }

    fn on_ping(&mut self, cx: &mut Cx<'_>, id: PathId, txid: TxId, len: usize) {
        if !self.budget.take(cx.now) {
            cx.counters.ping_limited += 1;
            return;
        }
        let Some(path) = self.table.get_mut(&id) else {
            return;
        };
        path.heard_ping(cx.now);
        let way = path.way;
        let observed = match way {
            Way::Direct { remote, .. } => {
                if let Some(tried) = self.tried.get_mut(&remote) {
                    tried.heard = true;
                }
                Some(remote)
            }
            Way::Channel { .. } => None,
        };
        if let Some(data) =
            self.association
                .seal_probe(cx.rng, ProbeBody::Pong { txid, observed }, len)
        {
            self.out.push_back(Output::Send { way, data });
        }
        if let Some(doubt) = &mut self.doubt {
            doubt.heard(cx.now);
            self.run_suspicion(cx);
        }
        if self.can_probe() {
            self.run_checks(cx);
        }
    }

    fn on_pong(&mut self, cx: &mut Cx<'_>, id: PathId, txid: TxId, len: usize) {
        let Some(ping) = self.pings.take(txid, id, len) else {
            cx.counters.pong_unexpected += 1;
            return;
        };
        let Some(path) = self.table.get_mut(&id) else {
            return;
        };
        let first = path.last_answer.is_none();
        path.answered(cx.now, ping.size, ping.round_trip(cx.now));
        let way = path.way;
        if ping.regular {
            path.loss.add(false);
        }
        if self.primary == Some(id) {
            self.ping_tries = 0;
        }
        // No relay's word for an address is better than an answer from there.
        if let Way::Direct { remote, .. } = way
            && first
        {
            cx.asked.answered(remote);
            self.attest(cx, remote);
        }
        self.run_checks(cx);
        self.on_answer(cx, id, ping.sent);
        self.review(cx, false, RouteReason::Better);
        self.run_spray(cx);
    }

    fn tell_known(&mut self, id: PathId) {
        if let Some(path) = self.table.get_mut(&id)
            && path.is_direct()
            && !path.told
        {
            path.told = true;
            self.out.push_back(Output::WayKnown(path.way));
        }
    }

    pub(super) fn remove(&mut self, id: PathId) {
        let Some(path) = self.table.remove(&id) else {
            return;
        };
        self.pings.forget(id);
        if path.told {
            self.out.push_back(Output::WayForgotten(path.way));
        }
        self.release_unused();
        if self.primary == Some(id) {
            self.primary = None;
            self.doubt = None;
        }
        if let Some(doubt) = &mut self.doubt
            && doubt
                .alternative
                .is_some_and(|(alternative, _)| alternative == id)
        {
            doubt.alternative = None;
        }
    }
}

/// Something changed of which our host knows nothing: our NAT moved to another address, or an outage is over. Bounded, for a
/// NAT may have many addresses, and a network many outages; each for itself, for the one comes with the other.
fn may_ask_anew(last: &mut Option<Instant>, now: Instant) -> bool {
    let may = last.is_none_or(|at| at + ASK_ANEW <= now);
    if may {
        *last = Some(now);
    }
    may
}
