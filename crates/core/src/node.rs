//! The node: the one place that composes discovery, links and paths.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use bytes::Bytes;
use byway_wire::relay::control::Control;
use byway_wire::{NodeInstance, RelayUrl, SecretKey};

use crate::io::*;

/// See the crate's documentation for how to drive it.
#[derive(Debug)]
pub struct Node {
    _private: (),
}

/// Why a node starts with what it has: identity and persisted epoch.
#[derive(Debug)]
pub struct Identity {
    /// The node's key.
    pub key: std::sync::Arc<SecretKey>,
    /// max(stored + 1, wall clock in seconds): only ever rises (design section 4).
    pub epoch: u64,
}

impl Node {
    /// A node with no sockets and no relays. All its randomness (instance, probe key, channel ids, nonces) comes from
    /// `seed`: 32 secret random bytes in production, a fixed number in a test.
    pub fn new(now: Instant, config: Config, identity: Identity, seed: [u8; 32]) -> Self {
        let _ = (now, config, identity, seed);
        unimplemented!()
    }
    /// Who this instance is.
    pub fn id(&self) -> NodeInstance {
        unimplemented!()
    }
    /// The node's own signed record, as it stands.
    pub fn record(&self) -> &byway_wire::SignedRecord {
        unimplemented!()
    }

    /// The sockets and addresses of the host, at the start and whenever they change.
    pub fn handle_sockets(&mut self, now: Instant, sockets: Vec<LocalSocket>) {
        let _ = (now, sockets);
        unimplemented!()
    }
    /// Keep a link to this relay (an agent's relays; a client's only while a peer needs them).
    pub fn add_relay(&mut self, now: Instant, url: RelayUrl, addrs: Vec<SocketAddr>) -> RelayId {
        let _ = (now, url, addrs);
        unimplemented!()
    }
    /// Ask this STUN server too (the shell resolves its name).
    pub fn add_stun_server(&mut self, now: Instant, label: String, addr: SocketAddr) {
        let _ = (now, label, addr);
        unimplemented!()
    }
    /// Run discovery again now.
    pub fn refresh(&mut self, now: Instant) {
        let _ = now;
        unimplemented!()
    }
    /// Reach a peer. Its first route, or `Event::PeerFailed`, follows.
    pub fn connect(&mut self, now: Instant, target: PeerTarget) -> PeerId {
        let _ = (now, target);
        unimplemented!()
    }
    /// A datagram of the tunnel's first flight, while the peer's route has no primary. Bounded; more are dropped.
    pub fn send_first(&mut self, now: Instant, peer: PeerId, data: Bytes) {
        let _ = (now, peer, data);
        unimplemented!()
    }
    /// The tunnel ended: forget the peer, close its channels, retire its index.
    pub fn close_peer(&mut self, now: Instant, peer: PeerId) {
        let _ = (now, peer);
        unimplemented!()
    }
    /// A STUN message, probe or rebind cookie that came in. `to` is the local address it was sent to, if known.
    pub fn handle_datagram(&mut self, now: Instant, way: Way, to: Option<IpAddr>, data: &[u8]) {
        let _ = (now, way, to, data);
        unimplemented!()
    }
    /// A dial ended.
    pub fn handle_dialed(&mut self, now: Instant, link: LinkId, result: Result<LinkUp, LinkError>) {
        let _ = (now, link, result);
        unimplemented!()
    }
    /// A control message came in on a link.
    pub fn handle_control(&mut self, now: Instant, link: LinkId, message: Control) {
        let _ = (now, link, message);
        unimplemented!()
    }
    /// An established link ended.
    pub fn handle_link_lost(&mut self, now: Instant, link: LinkId, error: LinkError) {
        let _ = (now, link, error);
        unimplemented!()
    }
    /// What congestion control sees of a peer's tunnel. Called at each wake-up while `poll_timeout` asks for it, and
    /// once at the first activity after `Event::WatchFlow`.
    pub fn handle_flow(&mut self, now: Instant, peer: PeerId, sample: FlowSample) {
        let _ = (now, peer, sample);
        unimplemented!()
    }
    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        let _ = now;
        unimplemented!()
    }
    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        unimplemented!()
    }
    /// The next thing to carry out.
    pub fn poll_event(&mut self) -> Option<Event> {
        unimplemented!()
    }
    /// When to call `handle_timeout`, and why.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        unimplemented!()
    }
    /// Which peers' flows the node wants to see at the next wake-up.
    pub fn watched_flows(&self) -> Vec<PeerId> {
        unimplemented!()
    }
}
