//! The node: the one place that composes discovery, links and paths.
//!
//! # How a tunnel comes up
//!
//! **The client** calls [`Node::connect`]. Relays of the ticket are dialled, the second 300 ms after the first, and so
//! on; a link that is up already is used at once. The tunnel's first datagrams come by [`Node::send_first`] and ride
//! inside `Open`, which leaves behind `Hello` in one flight. `Opened` brings the peer's record: its instance and probe
//! key give the keys, the channel is the first path, candidates go out. If the peer is *offline* at a relay the next one
//! is tried; a refusal by the peer is final.
//!
//! **The agent** gets `Incoming`. It looks at the record and at who is admitted: by key, by the proof of a ticket's
//! secret, or anyone. Whoever is not admitted is told so and leaves nothing behind: no state, no candidates, no probe.
//! Whoever is admitted becomes a peer (the same instance opening again only adds a channel), its first datagrams are
//! delivered, candidates go out.
//!
//! From then on both sides are equal: [`crate::path`] moves the tunnel, [`crate::link`] keeps links, and this module
//! keeps channels: it attaches them to the link that replaces theirs, and where a channel is gone for good the side that
//! dialled opens a new one. The tunnel itself notices none of it.
//!
//! # How it is kept together
//!
//! Each part queues what happened; `Node::settle` drains the queues after every input, links first, then the peers
//! that were touched, until nothing is left. So every input leaves the node in a state from which only time or another
//! input leads on.

mod admission;
mod calls;
mod channels;
mod control;
mod discover;
mod leaving;
mod links;
mod peer;
mod predict;
mod relay_map;
mod reopening;
mod sprays;
#[cfg(test)]
mod tests;
mod waiting;
mod wakeups;
mod waking;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use byway_wire::demux::{Kind, classify};
use byway_wire::probe::{Index, peek_index};
use byway_wire::relay::control::{AdmissionToken, Control};
use byway_wire::relay::cookie::Cookie;
use byway_wire::{ChannelId, Instance, NodeInstance, ProbeSecret, Record, SecretKey, SignedRecord};

use crate::asked::Asked;
use crate::budget::Budget;
use crate::counters::Counters;
use crate::cx::{Cx, cx};
use crate::discovery::GatewayPort;
use crate::io::*;
use crate::link::Links;
use crate::path::Paths;
use crate::path::candidate::LocalCandidates;
use crate::rng::Rng;
use peer::{Peer, Stage};

/// Most relays a record names (its format's limit).
const MAX_RECORD_RELAYS: usize = 8;
/// Rebind cookies echoed in a second. A NAT that moves costs one for each link; beyond that somebody forges a relay's
/// address to have us write to its control stream.
const COOKIES_PER_SECOND: u32 = 8;

/// See the crate's documentation for how to drive it.
#[derive(Debug)]
pub struct Node {
    config: Config,
    key: Arc<SecretKey>,
    probe_secret: Secret,
    id: NodeInstance,
    record: SignedRecord,
    rng: Rng,
    counters: Counters,
    asked: Asked,
    links: Links,
    own: relay_map::OwnRelays,
    discovery: discover::Discoverer,
    local: LocalCandidates,
    /// Counts our candidate lists.
    generation: u64,
    sockets: Vec<LocalSocket>,
    peers: BTreeMap<PeerId, Peer>,
    next_peer: u32,
    /// Peers that dialled us, by who they are.
    incoming: BTreeMap<NodeInstance, PeerId>,
    /// Whom a probe's index means.
    indexes: BTreeMap<Index, PeerId>,
    /// Whose a channel is.
    channels: BTreeMap<(LinkId, ChannelId), PeerId>,
    /// The channel ways the shell was told of.
    known_ways: BTreeSet<Way>,
    /// Peers whose queues or timers may have changed.
    touched: BTreeSet<PeerId>,
    wakeups: wakeups::Wakeups,
    cookies: Budget,
    /// When the shell was last told that a relay throttles us.
    throttled_told: Option<Instant>,
    /// Sprays of the last minutes, and for whom.
    sprayed: Vec<(Instant, byway_wire::NodeId)>,
    began: Instant,
    /// The time of the last input: "now" for `poll_timeout` while output waits.
    now: Instant,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
}

/// Hides the probe secret from `Debug`.
struct Secret(ProbeSecret);
impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ProbeSecret(..)")
    }
}

/// Why a node starts with what it has: identity and persisted epoch.
#[derive(Debug)]
pub struct Identity {
    /// The node's key.
    pub key: Arc<SecretKey>,
    /// max(stored + 1, wall clock in seconds): only ever rises (design section 4).
    pub epoch: u64,
}

impl Node {
    /// A node with no sockets and no relays. All its randomness (instance, probe key, channel ids, nonces) comes from
    /// `seed`: 32 secret random bytes in production, a fixed number in a test.
    pub fn new(now: Instant, config: Config, identity: Identity, seed: [u8; 32]) -> Self {
        let mut rng = Rng::new(seed);
        let probe_secret = ProbeSecret::from_bytes(rng.bytes());
        let id = NodeInstance {
            node: identity.key.node_id(),
            instance: Instance(rng.u64()),
        };
        let record = Record {
            id,
            probe_key: probe_secret.public(),
            epoch: identity.epoch,
            seq: 0,
            relays: Vec::new(),
        };
        let record = SignedRecord::sign(&identity.key, record);
        Self {
            links: Links::new(config.links, config.role, record.clone()),
            own: relay_map::OwnRelays::default(),
            discovery: discover::Discoverer::new(rng.bytes()),
            config,
            key: identity.key,
            probe_secret: Secret(probe_secret),
            id,
            record,
            rng,
            counters: Counters::default(),
            asked: Asked::default(),
            local: LocalCandidates::default(),
            generation: 0,
            sockets: Vec::new(),
            peers: BTreeMap::new(),
            next_peer: 1,
            incoming: BTreeMap::new(),
            indexes: BTreeMap::new(),
            channels: BTreeMap::new(),
            known_ways: BTreeSet::new(),
            touched: BTreeSet::new(),
            wakeups: wakeups::Wakeups::default(),
            cookies: Budget::new(now, COOKIES_PER_SECOND),
            throttled_told: None,
            sprayed: Vec::new(),
            began: now,
            now,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }
    /// Who this instance is.
    pub fn id(&self) -> NodeInstance {
        self.id
    }
    /// The node's own signed record, as it stands.
    pub fn record(&self) -> &SignedRecord {
        &self.record
    }
    /// What was dropped and refused so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The sockets and addresses of the host, at the start and whenever they change.
    pub fn handle_sockets(&mut self, now: Instant, sockets: Vec<LocalSocket>) {
        self.now = now;
        self.discovery.set_sockets(now, &sockets);
        self.sockets = sockets;
        let changed = self.local.set_sockets(&self.sockets);
        for id in self.peer_ids() {
            let sockets = self.sockets.clone();
            self.with_paths(now, id, |paths, cx| paths.set_sockets(cx, sockets));
        }
        if changed {
            self.candidates_changed(now);
        }
        self.discover_if_useful(now);
        self.settle(now);
    }
    /// The host's network is another one than a moment ago. Nothing that was known of links and direct
    /// paths holds until it has been asked again: that is done at once, and with every tunnel's last datagrams. Where
    /// addresses changed, say so by [`Node::handle_sockets`] first.
    pub fn handle_network_change(&mut self, now: Instant) {
        self.network_changed(now, None);
    }
    /// The host slept, or this process was stopped, for at least so long. As [`Node::handle_network_change`]; and what relays
    /// will have given up meanwhile is not waited for.
    pub fn handle_wake(&mut self, now: Instant, slept: Duration) {
        self.give_up_channels(now, slept);
        self.network_changed(now, Some(slept));
    }
    fn network_changed(&mut self, now: Instant, slept: Option<Duration>) {
        self.now = now;
        self.asked.clear();
        let mut cx = cx!(self, now);
        self.links
            .handle_network_change(&mut cx, &self.sockets, slept);
        for id in self.peer_ids() {
            self.with_paths(now, id, Paths::handle_network_change);
        }
        // Peers look for us anew when they hear from us anew.
        self.candidates_changed(now);
        self.discovery.expect_news();
        self.discover_if_useful(now);
        self.settle(now);
    }
    /// Relays that ask for a token admit this node by this one from now on (design section 8). Those that are linked are shown it; one
    /// that had refused the node is dialled again at once.
    pub fn set_token(&mut self, now: Instant, token: Option<AdmissionToken>) {
        self.now = now;
        let mut cx = cx!(self, now);
        self.links.set_token(&mut cx, token);
        self.settle(now);
    }
    /// True if a relay admitted this node by a token that holds yet, by that relay's word: it is shown to relays for as long as a later
    /// one is refused, or cannot be had.
    pub fn token_holds(&self, now: Instant) -> bool {
        self.links.token_holds(now)
    }
    /// Ask this STUN server too (the shell resolves its name).
    pub fn add_stun_server(&mut self, now: Instant, label: String, addr: SocketAddr) {
        self.now = now;
        self.discovery.add_server(now, label, addr);
        self.discover_if_useful(now);
        self.settle(now);
    }
    /// What is known of a port of the gateway's (PCP, NAT-PMP, UPnP).
    pub fn handle_port_mapping(&mut self, now: Instant, mapping: GatewayPort) {
        self.now = now;
        self.take_mapping(now, mapping);
        self.settle(now);
    }
    /// Run discovery again now, and find out what a round alone does not tell: whether the NAT turns datagrams around, and
    /// how large one may be on its way to a relay.
    pub fn refresh(&mut self, now: Instant) {
        self.now = now;
        self.discovery.run_wanted(now);
        self.settle(now);
    }
    /// True unless discovery runs and its answer may still change much.
    pub fn is_discovery_settled(&self) -> bool {
        self.discovery.is_settled()
    }
    /// Reach a peer. Its first route, or `Event::PeerFailed`, follows.
    pub fn connect(&mut self, now: Instant, target: PeerTarget) -> PeerId {
        self.now = now;
        let peer = self.call(now, target);
        self.discover_if_useful(now);
        self.settle(now);
        peer
    }
    /// A peer that was dialled and is silent now is wanted again: it is looked for at once, and through these relays too.
    pub fn reach_again(&mut self, now: Instant, peer: PeerId, target: PeerTarget) {
        self.now = now;
        self.call_again(now, peer, target);
        self.settle(now);
    }
    /// A datagram of the tunnel while the peer's route has no primary. What comes before `Open` leaves rides inside it, what
    /// comes after follows by the channel. Both are bounded; more are dropped: at the beginning the newest, later, when the
    /// peer's ways are gone for a while, the oldest.
    pub fn send_first(&mut self, now: Instant, peer: PeerId, data: Bytes) {
        self.now = now;
        self.add_first(now, peer, data);
        self.settle(now);
    }
    /// The record that the peer showed inside its tunnel, after TLS had proved its key: it overrides any relay's copy. A
    /// peer that we dialled is looked for at the relays it names from now on, too.
    pub fn handle_record(&mut self, now: Instant, peer: PeerId, record: &SignedRecord) {
        self.now = now;
        self.learn_record(now, peer, record);
        self.settle(now);
    }
    /// The tunnel ended: forget the peer, close its channels, retire its index.
    pub fn close_peer(&mut self, now: Instant, peer: PeerId) {
        self.now = now;
        self.forget_peer(peer);
        self.settle(now);
    }
    /// A STUN message, probe or rebind cookie that came in. `to` is the local address it was sent to, if known.
    pub fn handle_datagram(&mut self, now: Instant, way: Way, to: Option<IpAddr>, data: &[u8]) {
        self.now = now;
        match way {
            Way::Channel {
                link,
                channel: ChannelId::ECHO,
                ..
            } => {
                if !self.discovery.handle_echo(link, data) {
                    let mut cx = cx!(self, now);
                    self.links.handle_echo(&mut cx, link, data);
                }
            }
            _ => match (classify(data), way) {
                (Kind::Probe, _) => self.on_probe(now, canonical_way(way), data),
                (Kind::Stun, Way::Direct { socket, remote }) => {
                    if !self.discovery.handle_stun(now, socket, remote, to, data) {
                        self.counters.stun_unexpected += 1;
                    }
                }
                (Kind::RebindCookie, Way::Direct { remote, .. }) => {
                    self.on_cookie(now, remote, data);
                }
                _ => self.counters.datagram_unknown += 1,
            },
        }
        self.settle(now);
    }
    /// A dial ended.
    pub fn handle_dialed(&mut self, now: Instant, link: LinkId, result: Result<LinkUp, LinkError>) {
        self.now = now;
        let mut cx = cx!(self, now);
        self.links.handle_dialed(&mut cx, link, result);
        self.learn_relay_server(now, link);
        self.settle(now);
    }
    /// A control message came in on a link.
    pub fn handle_control(&mut self, now: Instant, link: LinkId, message: Control) {
        self.now = now;
        self.on_control(now, link, message);
        self.settle(now);
    }
    /// An established link ended.
    pub fn handle_link_lost(&mut self, now: Instant, link: LinkId, error: LinkError) {
        self.now = now;
        let mut cx = cx!(self, now);
        self.links.handle_lost(&mut cx, link, error);
        self.settle(now);
    }
    /// What congestion control sees of a peer's tunnel. Called at each wake-up while `poll_timeout` asks for it, and
    /// once at the first activity after `Event::WatchFlow`.
    pub fn handle_flow(&mut self, now: Instant, peer: PeerId, sample: FlowSample) {
        self.now = now;
        if !self.with_paths(now, peer, |paths, cx| paths.handle_flow(cx, sample)) {
            self.counters.stale_input += 1;
        }
        self.settle(now);
    }
    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        let mut cx = cx!(self, now);
        self.links.handle_timeout(&mut cx);
        for id in self.wakeups.due(now) {
            self.with_paths(now, id, Paths::handle_timeout);
            self.touched.insert(id);
        }
        self.discovery.handle_timeout(now, self.needs_mapping());
        self.settle(now);
    }
    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }
    /// The next thing to carry out.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }
    /// When to call `handle_timeout`, and why.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        if !self.transmits.is_empty() || !self.events.is_empty() {
            return Some((self.now, "output is queued"));
        }
        let parts = [
            self.links.poll_timeout(),
            self.wakeups.first(),
            self.discovery.poll_timeout(self.needs_mapping()),
        ];
        parts.into_iter().fold(None, crate::cx::earliest)
    }
    /// Which peers' flows the node wants to see at the next wake-up.
    pub fn watched_flows(&self) -> Vec<PeerId> {
        self.wakeups.watching().iter().copied().collect()
    }

    fn peer_ids(&self) -> Vec<PeerId> {
        self.peers.keys().copied().collect()
    }

    /// Lends the paths of a peer; false if it has none yet.
    fn with_paths(
        &mut self,
        now: Instant,
        peer: PeerId,
        f: impl FnOnce(&mut Paths, &mut Cx<'_>),
    ) -> bool {
        let Some(Stage::Live(live)) = self.peers.get_mut(&peer).map(|p| &mut p.stage) else {
            return false;
        };
        let mut cx = cx!(self, now);
        f(&mut live.paths, &mut cx);
        self.touched.insert(peer);
        true
    }

    /// Carries on until nothing is queued between the parts.
    fn settle(&mut self, now: Instant) {
        loop {
            if let Some(output) = self.links.poll() {
                self.on_link_output(now, output);
            } else if let Some(peer) = self.touched.pop_first() {
                self.settle_peer(now, peer);
            } else if !self.drain_discovery(now) && !self.update_needs(now) && !self.renew_record()
            {
                break;
            }
        }
    }

    /// Which relays peers, or who asked for discovery, need now; true if that changed anything.
    fn update_needs(&mut self, now: Instant) -> bool {
        let mut needed = BTreeSet::new();
        for peer in self.peers.values() {
            peer.needs(&self.links, now, &mut needed);
        }
        if self.discovery.is_wanted(now) {
            needed.extend(self.relays_to_ask());
        }
        if self.links.is_any_leaving() {
            needed.extend(self.relays_in_use());
        }
        let mut cx = cx!(self, now);
        self.links.set_needed(&mut cx, &needed)
    }

    fn on_probe(&mut self, now: Instant, way: Way, data: &[u8]) {
        let Some(&id) = peek_index(data)
            .ok()
            .and_then(|index| self.indexes.get(&index))
        else {
            self.counters.probe_unknown_index += 1;
            return;
        };
        self.with_paths(now, id, |paths, cx| paths.handle_probe(cx, way, data));
    }

    /// A relay asks us to prove that we receive at a new address: the proof goes by the authenticated link.
    fn on_cookie(&mut self, now: Instant, remote: SocketAddr, data: &[u8]) {
        let known = Cookie::decode(data).and_then(|cookie| {
            let link = if cookie.channel == ChannelId::ECHO {
                // For the link as a whole, whether it has channels or not.
                self.links.newest_to(remote)
            } else {
                self.channels.keys().find_map(|&(link, channel)| {
                    (channel == cookie.channel && self.links.leads_to(link, remote)).then_some(link)
                })
            };
            Some((link?, cookie))
        });
        match known {
            Some(_) if !self.cookies.take(now) => self.counters.cookie_limited += 1,
            Some((link, cookie)) => {
                self.links.expect_rebound(link);
                let message = Control::Rebind(byway_wire::relay::control::Rebind { cookie });
                self.events.push_back(Event::Control { link, message });
            }
            None => self.counters.cookie_unknown += 1,
        }
    }
}

/// Addresses are compared in their canonical form.
fn canonical_way(way: Way) -> Way {
    match way {
        Way::Direct { socket, remote } => Way::Direct {
            socket,
            remote: byway_wire::canonical(remote),
        },
        channel => channel,
    }
}

#[cfg(test)]
impl Node {
    /// How much state there is of peers.
    fn sizes(&self) -> [usize; 6] {
        [
            self.peers.len(),
            self.incoming.len(),
            self.indexes.len(),
            self.channels.len(),
            self.known_ways.len(),
            self.touched.len(),
        ]
    }
    /// Offers an arbitrary list to every peer, as a hostile node would.
    fn offer_for_test(&mut self, now: Instant, list: Vec<byway_wire::signal::Candidate>) {
        self.now = now;
        self.generation += 1;
        let (mapping, generation) = (byway_wire::signal::Mapping::Unknown, self.generation);
        for id in self.peer_ids() {
            let list = list.clone();
            self.with_paths(now, id, |paths, cx| {
                paths.offer(cx, list, mapping, generation);
            });
        }
        self.settle(now);
    }
}
