//! The shell of a node: what `byway` is around `core` and quinn, in virtual time.
//!
//! It carries the node's events out as `byway`'s `driver/carry_out.rs` does, and applies routes the way the real socket
//! does (primary; duplicates on the standby; the last datagrams kept for a replay; the first flight handed to the node;
//! headers on UDP links; a bounded queue on TLS links). Each file says which file there it follows.

mod carry_out;
mod gateway;
mod receive;
mod send;
mod sockets;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use byway_congestion::{FlowMonitor, LargestMtu, PathAwareFactory};
use byway_core::discovery::{NAT64_HOST, NatReport};
use byway_core::io::{
    Carrier, Config, LinkError, LinkId, LocalSocket, PathKind, PeerError, PeerId, PeerTarget,
    Route, RouteReason, SocketId, Way,
};
use byway_core::node::{Identity, Node};
use byway_core::reassemble::Reassembler;
use byway_core::sleep::SleepWatch;
use byway_wire::{NodeId, RelayUrl, SecretKey, TicketSecret};
use quinn_proto::TransportConfig;

use crate::net::pipe::PipeId;
use crate::net::{Happening, HostId, Network};
use crate::quic::crypto::{Client, Credentials, Server};
use crate::quic::{ConnId, Output, QuicHost, QuicSetup, server_config, tunnel_transport};
use crate::rng::Rng;
use crate::shell::app::{App, Task};
use crate::shell::link::{Links, Said};
use crate::shell::nat64;
use crate::shell::virt::Virtual;

use sockets::Sockets;

/// The port a node's UDP socket is bound to.
pub const NODE_PORT: u16 = 5000;
/// The socket of a node that is always there.
const SOCKET: SocketId = SocketId(0);
/// Peers that one address may belong to (`MAX_OWNERS` in `byway`'s `socket/tables.rs`).
const MAX_OWNERS: usize = 4;
/// A turn that goes on this often without the clock moving does not end.
const SPIN: u32 = 10_000;

/// What a node is made of.
#[derive(Clone, Debug)]
pub struct NodeSetup {
    /// The key, from these bytes.
    pub key: [u8; 32],
    /// The node's settings.
    pub config: Config,
    /// TLS links go through the network's proxy.
    pub proxy: bool,
}

/// Something a test may ask about afterwards.
#[derive(Clone, Debug)]
pub enum Note {
    /// A tunnel's QUIC handshake is complete on this side.
    Connected(PeerId),
    /// A tunnel's connection ended.
    TunnelLost(PeerId, String),
    /// A route changed.
    Route(PeerId, Route, RouteReason),
    /// A peer could not be reached, or is no longer.
    Failed(PeerId, PeerError),
    /// A link was welcomed.
    LinkReady(LinkId, Carrier),
    /// A link ended.
    LinkLost(LinkId, LinkError),
    /// A newer instance of this agent took over.
    Replaced,
}

struct Peer {
    route: Option<Route>,
    conn: Option<ConnId>,
    monitor: Arc<FlowMonitor>,
    /// What QUIC takes for its MTU, as the route knows it (`PeerRoute::mtu` in `socket/route.rs`).
    mtu: Arc<LargestMtu>,
    recent: byway_core::recent::Recent,
    /// The node's evidence timer sleeps: call `handle_flow` at the next send.
    flow_wanted: bool,
    fragment_id: u16,
    /// Tasks to begin when the tunnel is up.
    queued: Vec<Task>,
}

/// See the module's documentation.
pub struct NodeShell {
    host: HostId,
    node: Node,
    quic: QuicHost,
    credentials: Arc<Credentials>,
    links: Links,
    peers: BTreeMap<PeerId, Peer>,
    tunnels: BTreeMap<ConnId, PeerId>,
    /// Whose a way is. A direct one may be several peers': nobody displaces anybody.
    sources: BTreeMap<Way, Vec<PeerId>>,
    parts: Reassembler<PeerId>,
    sockets: Sockets,
    sleep: SleepWatch,
    /// When the node wanted to wake up, as of the last turn.
    due: Option<Instant>,
    /// Direct paths are wanted.
    direct: bool,
    /// The application.
    pub app: App,
    /// What happened, in order.
    pub notes: Vec<(Duration, Note)>,
    /// The node's wake-ups by reason, QUIC's as "quic", and those of the links' own timers as "link".
    pub wakes: BTreeMap<&'static str, u64>,
    /// Datagrams of tunnels dropped or altered here, by reason.
    pub counts: BTreeMap<&'static str, u64>,
    /// The latest report on the network.
    pub report: Option<Arc<NatReport>>,
}

impl NodeShell {
    /// A node on a host of the network.
    pub fn new(net: &Network, host: HostId, setup: NodeSetup) -> Self {
        let mut rng = net.rng(&format!("node {}", host.0));
        let key = Arc::new(SecretKey::from_bytes(&setup.key));
        let credentials = Credentials::new(key.clone(), Rng::new(rng.u64(), "hellos"));
        let mut quic = QuicHost::new(QuicSetup {
            reset_key: *key.derive("reset"),
            rng: Rng::new(rng.u64(), "quic"),
        });
        quic.listen(tunnel_server(&credentials, TransportConfig::default()));
        let now = net.instant();
        // The first start on this machine: nothing is stored.
        let epoch = net.wall(host).as_secs();
        let identity = Identity { key, epoch };
        let (role, direct) = (setup.config.role, setup.config.direct);
        let mut node = Node::new(now, setup.config, identity, rng.seed());
        node.handle_sockets(now, vec![local_socket(net, host)]);
        Self {
            host,
            node,
            quic,
            links: Links::new(credentials.clone(), role, setup.proxy),
            credentials,
            peers: BTreeMap::new(),
            tunnels: BTreeMap::new(),
            sources: BTreeMap::new(),
            parts: Reassembler::default(),
            sockets: Sockets::default(),
            sleep: SleepWatch::new(now, net.wall(host)),
            due: None,
            direct,
            app: App::default(),
            notes: Vec::new(),
            wakes: BTreeMap::new(),
            counts: BTreeMap::new(),
            report: None,
        }
    }
    /// The host it runs on.
    pub fn host(&self) -> HostId {
        self.host
    }
    /// The state machine; call [`NodeShell::turn`] after changing it.
    pub fn node(&mut self) -> &mut Node {
        &mut self.node
    }
    /// Its key.
    pub fn id(&self) -> NodeId {
        self.node.id().node
    }
    /// How many QUIC connections it holds, links and tunnels.
    pub fn connections(&self) -> usize {
        self.quic.len()
    }

    /// Opens a tunnel and begins these tasks as soon as it is up.
    pub fn connect(&mut self, net: &mut Network, target: PeerTarget, tasks: Vec<Task>) -> PeerId {
        let now = net.instant();
        let name = target.node.server_name();
        let peer = self.node.connect(now, target);
        let entry = self.peer(net, peer);
        entry.queued = tasks;
        let monitor = entry.monitor.clone();
        let crypto = Client {
            credentials: self.credentials.clone(),
            alpn: b"byway/1",
        };
        let transport = tunnel_transport(Arc::new(PathAwareFactory::new(monitor)));
        let to = Virtual::Peer(peer).to_addr();
        let conn = self
            .quic
            .connect(now, Arc::new(crypto), Arc::new(transport), to, &name);
        if let Some(conn) = conn {
            self.tunnels.insert(conn, peer);
            self.peer(net, peer).conn = Some(conn);
        }
        self.turn(net);
        peer
    }
    /// Begins a task on a tunnel, now or as soon as it is up.
    pub fn begin(&mut self, net: &mut Network, peer: PeerId, task: Task) {
        self.peer(net, peer).queued.push(task);
        self.start_queued(net, peer);
        self.turn(net);
    }
    /// The system says that the host's addresses, or its network, are others (`driver/interfaces.rs`).
    pub fn moved(&mut self, net: &mut Network) {
        let now = net.instant();
        self.node
            .handle_sockets(now, vec![local_socket(net, self.host)]);
        self.node.handle_network_change(now);
        self.tell_gateways_port(net);
        self.turn(net);
    }
    /// Closes a tunnel.
    pub fn close(&mut self, net: &mut Network, peer: PeerId) {
        if let Some(conn) = self.peers.get(&peer).and_then(|p| p.conn)
            && let Some(c) = self.quic.conn(conn)
        {
            c.close(net.instant(), 0u32.into(), Bytes::new());
        }
        // The other side is told along the route as it stands; then there is no peer any more. If that one datagram is
        // lost, the other side learns it from a stateless reset.
        self.turn(net);
        self.node.close_peer(net.instant(), peer);
        if let Some(conn) = self.forget(net, peer) {
            self.tunnels.remove(&conn);
        }
        self.turn(net);
    }
    /// True while a task of this side runs or waits for its tunnel.
    pub fn busy(&self) -> bool {
        self.app.busy() || self.peers.values().any(|p| !p.queued.is_empty())
    }
    /// The path kind a peer's data takes now.
    pub fn path(&self, peer: PeerId) -> Option<PathKind> {
        self.primary(peer).map(|way| way.kind())
    }
    /// The way a peer's data takes now.
    pub fn primary(&self, peer: PeerId) -> Option<Way> {
        self.peers.get(&peer)?.route.as_ref()?.primary
    }
    /// All peers known now.
    pub fn peers(&self) -> Vec<PeerId> {
        self.peers.keys().copied().collect()
    }

    /// Something happened on the host.
    pub fn handle(&mut self, net: &mut Network, what: Happening) {
        self.take(net, what);
        let due = self.due;
        self.turn(net);
        let (now, wall) = (net.instant(), net.wall(self.host));
        if let Some(slept) = self.sleep.slept(now, wall, due) {
            // How often at most (`byway`'s `driver/changes.rs`) is left out: no scene has a clock that is set all the time.
            self.node
                .handle_sockets(now, vec![local_socket(net, self.host)]);
            self.node.handle_wake(now, slept);
            self.turn(net);
        }
    }
    /// The same, by tasks that look at no clock: in `byway` the driver alone does, and others read the sockets.
    pub(crate) fn read(&mut self, net: &mut Network, what: Happening) {
        let due = self.due;
        self.take(net, what);
        self.turn(net);
        // The driver finds out how late it is when its turn comes.
        self.due = due;
    }

    fn take(&mut self, net: &mut Network, what: Happening) {
        match what {
            Happening::Wake => self.wake(net),
            Happening::Datagram { from, to, data } => {
                if let Some(socket) = self.sockets.at(to.port()) {
                    let from = nat64::inside(net, self.host, from);
                    self.datagram(net, socket, (from, to), data);
                }
            }
            Happening::PipeConnected { pipe } => self.links.pipe_connected(net, pipe),
            Happening::PipeData { pipe, data } => self.pipe_data(net, pipe, data),
            Happening::PipeBroken { pipe } => self.links.pipe_broken(net.instant(), pipe),
            Happening::PipeRoom { pipe } => self.links.pipe_room(net, pipe),
            Happening::PipeAccepted { .. } => {}
        }
    }

    fn wake(&mut self, net: &mut Network) {
        let now = net.instant();
        for peer in self.node.watched_flows() {
            if let Some(p) = self.peers.get(&peer) {
                self.node.handle_flow(now, peer, p.monitor.sample(now));
            }
        }
        if let Some((at, why)) = self.node.poll_timeout()
            && at <= now
        {
            self.woken(net, why);
            self.node.handle_timeout(now);
        }
        if self.quic.poll_timeout().is_some_and(|at| at <= now) {
            self.woken(net, "quic");
            self.quic.handle_timeout(now);
        }
        if self.links.handle_timeout(net, &mut self.quic) > 0 {
            self.woken(net, "link");
        }
    }

    fn woken(&mut self, net: &mut Network, why: &'static str) {
        *self.wakes.entry(why).or_default() += 1;
        let text = format!("{}: {why}", self.host.0);
        net.trace.say(net.now(), "woken", text);
    }

    /// Carries out everything that is to be done, then asks for the next wake-up.
    pub fn turn(&mut self, net: &mut Network) {
        let now = net.instant();
        for round in 0.. {
            let mut idle = true;
            while let Some(transmit) = self.node.poll_transmit() {
                idle = false;
                self.send_by(net, transmit.way, transmit.data);
            }
            while let Some(event) = self.node.poll_event() {
                idle = false;
                self.carry_out(net, event);
            }
            while let Some(said) = self.links.poll() {
                idle = false;
                self.link_said(net, said);
            }
            while let Some(output) = self.quic.poll(now) {
                idle = false;
                self.quic_output(net, output);
            }
            if idle {
                break;
            }
            assert!(
                round < SPIN,
                "node {} never comes to rest at {:?}",
                self.host.0,
                net.now()
            );
        }
        let due = self.node.poll_timeout().map(|(at, _)| at);
        // What is overdue already is late by nobody's sleep.
        self.due = due.map(|at| at.max(now));
        let wake = [due, self.quic.poll_timeout(), self.links.poll_timeout()];
        let wake = wake.into_iter().flatten().min();
        let wake = wake.map(|at| net.since_start(at));
        net.wake_at(self.host, wake);
    }

    fn peer(&mut self, net: &Network, peer: PeerId) -> &mut Peer {
        self.peers.entry(peer).or_insert_with(|| {
            let mtu: Arc<LargestMtu> = Arc::default();
            let monitor = FlowMonitor::new(net.instant()).keeping_mtu_in(Arc::clone(&mtu));
            Peer {
                route: None,
                conn: None,
                monitor: Arc::new(monitor),
                mtu,
                recent: byway_core::recent::Recent::default(),
                flow_wanted: false,
                fragment_id: 0,
                queued: Vec::new(),
            }
        })
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn note(&mut self, net: &mut Network, note: Note) {
        let (at, host) = (net.now(), self.host.0);
        net.trace.say(at, "node", format!("{host}: {note:?}"));
        self.notes.push((at, note));
    }

    fn link_said(&mut self, net: &mut Network, said: Said) {
        let now = net.instant();
        match said {
            Said::Dialed(link, result) => self.node.handle_dialed(now, link, result),
            Said::Control(link, message) => self.node.handle_control(now, link, message),
            Said::Lost(link, error) => self.node.handle_link_lost(now, link, error),
        }
    }

    fn pipe_data(&mut self, net: &mut Network, pipe: PipeId, data: Bytes) {
        if let Some((link, channel, datagrams)) = self.links.pipe_data(net, pipe, data) {
            let way = Way::Channel {
                link,
                carrier: Carrier::Tls,
                channel,
            };
            for datagram in datagrams {
                self.channel_datagram(net, way, &datagram);
            }
        }
    }

    fn quic_output(&mut self, net: &mut Network, output: Output) {
        match output {
            Output::Batch(batch) => match Virtual::from_addr(batch.to) {
                Some(Virtual::Peer(peer)) => self.send_batch(net, peer, &batch),
                Some(Virtual::Link(link, attempt)) => {
                    if let Some(relay) = self.links.attempt(link, attempt) {
                        let relay = nat64::outside(net, self.host, relay);
                        for datagram in batch.datagrams() {
                            net.send(self.host, NODE_PORT, relay, datagram);
                        }
                    }
                }
                None => self.count("batch to a real address"),
            },
            Output::Accepted(conn, from) => {
                if let Some(Virtual::Peer(peer)) = Virtual::from_addr(from) {
                    self.tunnels.insert(conn, peer);
                    self.peer(net, peer).conn = Some(conn);
                }
            }
            Output::Event(conn, event) => match self.tunnels.get(&conn).copied() {
                Some(peer) => self.tunnel_event(net, conn, peer, &event),
                None => self.links.quic_event(net, &mut self.quic, conn, &event),
            },
            Output::Drained(conn) => {
                self.tunnels.remove(&conn);
                self.links.drained(net.instant(), conn);
            }
        }
    }

    fn tunnel_event(
        &mut self,
        net: &mut Network,
        conn: ConnId,
        peer: PeerId,
        event: &quinn_proto::Event,
    ) {
        let now = net.now();
        match event {
            quinn_proto::Event::Connected => {
                self.note(net, Note::Connected(peer));
                self.start_queued(net, peer);
            }
            quinn_proto::Event::ConnectionLost { reason } => {
                self.note(net, Note::TunnelLost(peer, reason.to_string()));
                self.node.close_peer(net.instant(), peer);
                self.forget(net, peer);
            }
            quinn_proto::Event::DatagramReceived => {
                if let Some(c) = self.quic.conn(conn) {
                    while c.datagrams().recv().is_some() {}
                }
            }
            _ => {}
        }
        if let Some(c) = self.quic.conn(conn) {
            self.app.on_event(conn.0, c, now, event);
        }
    }

    fn start_queued(&mut self, net: &mut Network, peer: PeerId) {
        let Some(entry) = self.peers.get_mut(&peer) else {
            return;
        };
        let Some(conn) = entry.conn else { return };
        let Some(c) = self.quic.conn(conn) else {
            return;
        };
        if c.is_handshaking() {
            return;
        }
        for task in std::mem::take(&mut entry.queued) {
            if !self.app.begin(conn.0, c, net.now(), task) {
                entry.queued.push(task);
            }
        }
    }
}

fn local_socket(net: &Network, host: HostId) -> LocalSocket {
    let mut addrs = net.addrs(host).to_vec();
    if net.nat64(host).is_some() {
        // Where a translator leads to IPv4, the host has an address of it (`add_nat64` in `driver/nat64.rs`).
        addrs.push(NAT64_HOST.into());
    }
    LocalSocket {
        id: SOCKET,
        port: NODE_PORT,
        v4: addrs.iter().any(IpAddr::is_ipv4),
        v6: addrs.iter().any(IpAddr::is_ipv6),
        addrs,
    }
}

fn tunnel_server(
    credentials: &Arc<Credentials>,
    transport: TransportConfig,
) -> Arc<quinn_proto::ServerConfig> {
    let crypto = Server {
        credentials: credentials.clone(),
        alpn: vec![b"byway/1"],
    };
    // The addresses are virtual: nobody migrates.
    server_config(Arc::new(crypto), transport, false)
}

/// A ticket in the simulation: the node, its relays with their addresses, and perhaps a secret.
pub fn target(
    node: NodeId,
    relays: Vec<(RelayUrl, Vec<SocketAddr>)>,
    secret: Option<TicketSecret>,
) -> PeerTarget {
    PeerTarget {
        node,
        relays,
        secret,
    }
}
