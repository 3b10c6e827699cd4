//! The driver: one task that owns the node's state machine, feeds it, and carries out what it says.
//!
//! It handles control events only - dials, control messages, probes, timers. Data never passes here: the socket reads the
//! routes that the driver leaves in its tables. Between events it sleeps until the node's next timer; an idle endpoint
//! wakes only for its keep-alives.
//!
//! [`Input`] is everything that comes in besides what the data path hands over ([`ToDriver`]). Links wait when the
//! driver lags behind; datagrams are dropped and counted.

mod carry_out;
mod changes;
pub(crate) mod drops;
mod interfaces;
mod link_table;
mod nat64;
mod peer;
mod relay_map;
mod shared;
mod sleep;
mod token;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use byway_core::discovery::{self, GatewayPort, NatReport};
use byway_core::io::{LinkError, LinkId, LinkUp, PeerError, PeerId, PeerTarget, RelayId};
use byway_core::node::Node;
use byway_wire::relay::control::{AdmissionToken, Control};
use byway_wire::{NodeId, RelayUrl, SignedRecord};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::links::Links;
use crate::relay_map::RelayMap;
use crate::relay_token::RelayTokenError;
use crate::socket::{Socket, ToDriver};
use byway_core::counters::Counters;
use changes::{Change, Changes};
use drops::Drops;
use interfaces::Interfaces;
use link_table::LinkTable;
pub(crate) use peer::{Lease, Live, Peer};
pub(crate) use shared::Shared;
use sleep::SleepWatch;

/// Control inputs that may wait before links have to.
pub(crate) const INPUT_QUEUE: usize = 256;
/// Inputs taken at once before timers and output have their turn.
const BATCH: usize = 64;
/// How long a peer without a tunnel is kept: another tunnel to it starts at once, and the last words of the old one
/// still find their way.
const LINGER: Duration = Duration::from_secs(2);
/// How long a client that was let in has to complete its handshake.
const UNUSED: Duration = Duration::from_secs(30);

/// The system lists a host's addresses within a millisecond or two; one that takes longer is not waited for.
const FIRST_ADDRESSES: Duration = Duration::from_millis(50);

/// What comes to the driver.
#[derive(Debug)]
pub(crate) enum Input {
    /// A dial ended.
    Dialed(LinkId, Result<LinkUp, LinkError>),
    /// A control message came.
    Control(LinkId, Control),
    /// An established link ended.
    LinkLost(LinkId, LinkError),
    /// Reach a node; a peer that is still held is used again, but for one that was of no use.
    Connect {
        target: PeerTarget,
        instead_of: Option<PeerId>,
        reply: oneshot::Sender<Lease>,
    },
    /// A peer showed its record inside its tunnel.
    Record(PeerId, SignedRecord),
    /// The gateway holds a port for us, or no longer.
    PortMapping(GatewayPort),
    /// A relay's name was resolved: discovery can ask it before there is a link.
    RelayAddrs(RelayUrl, Vec<SocketAddr>),
    /// The node's relays are these from now on, beside those that are configured.
    RelayMap(RelayMap),
    /// A STUN server's name was resolved.
    StunServer(String, SocketAddr),
    /// How IPv4 is reached from a network that has none, in answer to the question of this number.
    Nat64(u64, discovery::Nat64),
    /// A fresh admission token, or why there is none.
    Token(Result<AdmissionToken, RelayTokenError>),
    /// Run discovery, and answer with the report once it has settled.
    Discover(oneshot::Sender<Arc<NatReport>>),
    /// The endpoint closes: tell the relays, end the links, and say when that is done. The last input.
    Leave(oneshot::Sender<()>),
}

/// The queues into the driver.
#[derive(Debug)]
pub(crate) struct Inputs {
    pub(crate) inputs: mpsc::Receiver<Input>,
    pub(crate) datagrams: mpsc::Receiver<ToDriver>,
}

#[derive(Debug)]
pub(crate) struct Driver {
    node: Node,
    socket: Arc<Socket>,
    shared: Arc<Shared>,
    interfaces: Interfaces,
    sleep: SleepWatch,
    changes: Changes,
    drops: Drops,
    /// What had been dropped and refused at the last turn, by the node and by the socket.
    counted: (Counters, u64),
    /// Counts questions for NAT64; an answer to an older one is of another network.
    nat64_asked: u64,
    links: Links,
    link_table: LinkTable,
    link_tasks: JoinSet<()>,
    /// Dropping the driver's own sender would not matter: peers hold clones.
    release: mpsc::UnboundedSender<PeerId>,
    released: mpsc::UnboundedReceiver<PeerId>,
    /// Peers without a lease, and until when they are kept.
    unused: BTreeMap<PeerId, Instant>,
    /// Who waits for discovery to settle.
    discovering: Vec<oneshot::Sender<Arc<NatReport>>>,
    /// Where admission tokens come from.
    tokens: Option<token::Tokens>,
    /// The names of the relay map's relays.
    map_names: relay_map::MapNames,
    /// Who waits for the end.
    leaving: Option<oneshot::Sender<()>>,
}

impl Driver {
    /// `names` counts the names of servers that were not looked up once.
    pub(crate) fn new(
        node: Node,
        shared: Arc<Shared>,
        links: Links,
        names: Arc<watch::Sender<usize>>,
    ) -> Self {
        let (release, released) = mpsc::unbounded_channel();
        Self {
            node,
            socket: Arc::clone(&links.socket),
            shared,
            interfaces: Interfaces::new(),
            sleep: SleepWatch::new(),
            changes: Changes::new(Instant::now()),
            drops: Drops::default(),
            counted: Default::default(),
            nat64_asked: 0,
            links,
            link_table: LinkTable::default(),
            link_tasks: JoinSet::new(),
            release,
            released,
            unused: BTreeMap::new(),
            discovering: Vec::new(),
            tokens: None,
            map_names: relay_map::MapNames::new(names),
            leaving: None,
        }
    }

    /// A relay to keep a link to.
    pub(crate) fn add_relay(&mut self, url: RelayUrl, addrs: Vec<SocketAddr>) {
        let addrs = self.socket.nat64.canonical(addrs);
        let relay = self.node.add_relay(Instant::now(), url.clone(), addrs);
        self.note_relay(relay, &url);
    }

    /// A STUN server to ask.
    pub(crate) fn add_stun_server(&mut self, label: String, addr: SocketAddr) {
        let addr = self.socket.nat64.inside(addr).unwrap_or(addr);
        self.node.add_stun_server(Instant::now(), label, addr);
    }

    /// Runs until the endpoint drops it.
    pub(crate) async fn run(mut self, mut inputs: Inputs) {
        let timer = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(timer);
        // What is found out before the host's own addresses are known has to be found out again. Loopback's may come alone.
        let first = async { while !self.interfaces.changed().await {} };
        let _ = tokio::time::timeout(FIRST_ADDRESSES, first).await;
        self.learn_nat64_first().await;
        self.socket.nat64.set_asked();
        self.sockets_changed();
        loop {
            self.flows();
            self.drain();
            if let Some(done) = self.leaving.take() {
                return self.leave(inputs, done).await;
            }
            let wake = self.next_wake();
            if let Some((at, why)) = wake {
                tracing::trace!(why, "timer");
                timer.as_mut().reset(at.into());
            }
            let due = wake.map(|(at, _)| at);
            // Unbiased: a relay that never falls silent must not hold up timers and probes.
            tokio::select! {
                Some(input) = inputs.inputs.recv() => {
                    self.input(input);
                    for _ in 0..BATCH {
                        let Ok(input) = inputs.inputs.try_recv() else { break };
                        self.input(input);
                    }
                }
                () = &mut timer, if wake.is_some() => {
                    let now = Instant::now();
                    self.node.handle_timeout(now);
                    self.close_unused(now);
                    match self.changes.take(now) {
                        Some(Change::Network) => self.node.handle_network_change(now),
                        Some(Change::Slept(time)) => self.node.handle_wake(now, time),
                        None => {}
                    }
                }
                Some(peer) = self.released.recv() => self.lease_ended(peer),
                Some(message) = inputs.datagrams.recv() => {
                    self.datagram(message);
                    for _ in 0..BATCH {
                        let Ok(message) = inputs.datagrams.try_recv() else { break };
                        self.datagram(message);
                    }
                }
                () = self.socket.rebound() => {
                    self.sockets_changed();
                    self.network_changed("sockets were bound anew");
                }
                ended = self.socket.extra_ended() => {
                    for socket in ended {
                        self.node.handle_socket_ended(Instant::now(), socket);
                    }
                }
                news = self.interfaces.changed() => if news {
                    self.socket.revive();
                    self.sockets_changed();
                    self.network_changed("the host's addresses changed");
                },
                () = self.sleep.clock_jumps() => {}
                Some(_) = self.link_tasks.join_next() => {}
                else => return,
            }
            if let Some(time) = self.sleep.slept(due) {
                tracing::debug!(?time, "the host slept");
                self.changes.came(Instant::now(), Change::Slept(time));
            }
        }
    }

    fn input(&mut self, input: Input) {
        let now = Instant::now();
        match input {
            Input::Dialed(link, result) => {
                self.dialed(link, result.as_ref());
                self.node.handle_dialed(now, link, result);
            }
            Input::Control(link, message) => {
                tracing::trace!(link = link.0, name = message.name(), "control in");
                self.node.handle_control(now, link, message);
            }
            Input::LinkLost(link, error) => {
                self.link_table.remove(link);
                self.node.handle_link_lost(now, link, error);
            }
            Input::Connect {
                target,
                instead_of,
                reply,
            } => {
                let lease = self.connect(now, target, instead_of);
                // If nobody waits any more, the lease ends here.
                let _ = reply.send(lease);
            }
            Input::Record(peer, record) => self.node.handle_record(now, peer, &record),
            Input::PortMapping(mapping) => self.node.handle_port_mapping(now, mapping),
            Input::RelayAddrs(url, addrs) => self.relay_addrs(url, addrs),
            Input::RelayMap(map) => self.set_relay_map(&map),
            Input::StunServer(label, addr) => self.add_stun_server(label, addr),
            Input::Nat64(asked, found) => self.nat64_found(asked, found),
            Input::Token(token) => self.token_came(token),
            Input::Discover(reply) => {
                self.node.refresh(now);
                self.discovering.push(reply);
            }
            Input::Leave(done) => {
                let ids: Vec<PeerId> = self.shared.peers().keys().copied().collect();
                for id in ids {
                    self.node.close_peer(now, id);
                }
                self.leaving = Some(done);
            }
        }
    }

    /// Everything was said; ends the links as soon as the relays have heard it. The node is not asked any more: it would
    /// dial anew.
    async fn leave(mut self, mut inputs: Inputs, done: oneshot::Sender<()>) {
        let mut left = self.link_table.hang_up_all();
        while !left.is_empty() {
            match inputs.inputs.recv().await {
                Some(Input::LinkLost(link, _)) => {
                    left.remove(&link);
                }
                Some(_) => {}
                None => break,
            }
        }
        // Whoever gave up waiting needs no word.
        let _ = done.send(());
        // The links' last packets are under way.
        while self.link_tasks.join_next().await.is_some() {}
    }

    fn datagram(&mut self, message: ToDriver) {
        let now = Instant::now();
        match message {
            ToDriver::Datagram { way, to, data } => self.node.handle_datagram(now, way, to, &data),
            ToDriver::First { peer, data } => self.node.send_first(now, peer, data),
            ToDriver::FlowActive(peer) => self.flow(now, peer),
        }
    }

    /// A client that connects twice to one node shares the peer: both sides know an instance by one address only.
    /// So there are never two: one that is held makes room first, unless somebody still holds it: a tunnel (of a laptop that
    /// was away for a moment) or another call. They then wait together.
    fn connect(&mut self, now: Instant, target: PeerTarget, instead_of: Option<PeerId>) -> Lease {
        let held = self
            .shared
            .peers()
            .values()
            .find(|peer| peer.dialled && peer.node == target.node && !peer.has_failed())
            .cloned();
        if let Some(peer) = held {
            let is_lost = peer.is_lost();
            if peer.is_leased() || !(is_lost || instead_of == Some(peer.id)) {
                self.unused.remove(&peer.id);
                if is_lost {
                    self.node.reach_again(now, peer.id, target);
                }
                return peer.lease();
            }
            self.unused.remove(&peer.id);
            peer.fail(PeerError::TimedOut);
            self.forget(now, peer.id);
        }
        let node = target.node;
        let id = self.node.connect(now, target);
        self.add_peer(now, id, node, true).lease()
    }

    fn add_peer(&mut self, now: Instant, id: PeerId, node: NodeId, dialled: bool) -> Arc<Peer> {
        let peer = Peer::new(now, id, node, dialled, self.release.clone());
        self.socket.tables.insert_peer(Arc::clone(&peer.route));
        self.shared.peers().insert(id, Arc::clone(&peer));
        peer
    }

    fn lease_ended(&mut self, peer: PeerId) {
        self.unused.insert(peer, Instant::now() + LINGER);
    }

    /// Closes peers that nobody used for their time.
    fn close_unused(&mut self, now: Instant) {
        let due: Vec<PeerId> = self
            .unused
            .iter()
            .filter(|(_, until)| **until <= now)
            .map(|(peer, _)| *peer)
            .collect();
        for id in due {
            self.unused.remove(&id);
            let leased = self.shared.peer(id).is_none_or(|peer| peer.is_leased());
            if !leased {
                self.forget(now, id);
            }
        }
    }

    fn forget(&mut self, now: Instant, id: PeerId) {
        self.shared.peers().remove(&id);
        self.node.close_peer(now, id);
        self.socket.tables.remove_peer(id);
    }

    fn next_wake(&self) -> Option<(Instant, &'static str)> {
        let unused = self
            .unused
            .values()
            .min()
            .map(|until| (*until, "unused peers"));
        let changes = self.changes.due().map(|at| (at, "a change of network"));
        let drops = self.drops.due().map(|at| (at, "drops to tell of"));
        [self.node.poll_timeout(), unused, changes, drops]
            .into_iter()
            .flatten()
            .min_by_key(|(at, _)| *at)
    }

    /// Shows the node the evidence it watches.
    fn flows(&mut self) {
        let now = Instant::now();
        for peer in self.node.watched_flows() {
            self.flow(now, peer);
        }
    }

    fn flow(&mut self, now: Instant, id: PeerId) {
        if let Some(peer) = self.shared.peer(id) {
            self.node.handle_flow(now, id, peer.sample(now));
        }
    }

    fn sockets_changed(&mut self) {
        self.follow_nat64();
        self.show_sockets();
    }

    fn show_sockets(&mut self) {
        let mut sockets = self.interfaces.local_sockets(self.socket.bound());
        self.add_nat64(&mut sockets);
        tracing::debug!(?sockets, "local sockets");
        self.shared.network.send_modify(|changes| *changes += 1);
        self.node.handle_sockets(Instant::now(), sockets);
    }

    fn network_changed(&mut self, why: &'static str) {
        tracing::debug!(why, "the network is another one");
        self.changes.came(Instant::now(), Change::Network);
    }

    /// Carries out everything the node has to say.
    fn drain(&mut self) {
        loop {
            let mut idle = true;
            while let Some(transmit) = self.node.poll_transmit() {
                self.socket.send_control(transmit.way, &transmit.data);
                idle = false;
            }
            while let Some(event) = self.node.poll_event() {
                self.carry_out(event);
                idle = false;
            }
            if idle {
                break;
            }
        }
        self.tell_drops();
        if self.node.is_discovery_settled() {
            for waiting in self.discovering.drain(..) {
                // The report itself, not the word that there is one: a change of the host's addresses may empty the
                // shared one before it is read. Whoever gave up waiting needs neither.
                let _ = waiting.send(Arc::clone(&self.shared.report.borrow()));
            }
        }
        self.show_record();
    }

    /// Shows the node's record, and where it says that the node is found.
    pub(crate) fn show_record(&self) {
        let record = self.node.record();
        if **self.shared.record.borrow() == *record {
            return;
        }
        self.shared.record.send_replace(Arc::new(record.clone()));
        let relays = &record.record().relays;
        self.shared.found_at.send_if_modified(|shown| {
            let news = shown != relays;
            shown.clone_from(relays);
            news
        });
    }

    /// Shows what was dropped and refused.
    fn tell_drops(&mut self) {
        let (node, socket) = (*self.node.counters(), self.socket.counters.total());
        if self.counted != (node, socket) {
            self.counted = (node, socket);
            self.shared.set_counters(node);
            self.drops.rose();
        }
        let all = || drops::all(&self.socket.counters, &node);
        if let Some(news) = self.drops.news(Instant::now(), all) {
            tracing::info!("dropped or refused: {news}");
        }
    }

    fn note_relay(&mut self, relay: RelayId, url: &RelayUrl) {
        if self.link_table.note_relay(relay, url) {
            self.publish_links();
        }
    }

    fn publish_links(&self) {
        self.shared.links.send_replace(self.link_table.statuses());
    }
}
