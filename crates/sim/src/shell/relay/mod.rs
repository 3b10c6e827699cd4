//! The shell of a relay: what `byway-relay` is around `relay-core`, in virtual time.
//!
//! One UDP port carries QUIC control, plain relay data and STUN (the other one that relays listen on answers STUN alone
//! here); the TCP port of the same number carries TLS links. Data
//! is forwarded from a table by [`byway_relay_core::forward::decide`], as the real shards do; the state machine sees
//! control messages only. Which file of `relay/src` each part follows: `data` `plane.rs` and `udp/`, `tls`
//! `tls/link.rs`, `udp` `quic.rs`. Left out are its budgets for strangers' handshakes (`strangers.rs`), its pauses for
//! nodes that say thousands of messages a second (`pace.rs`), and Retry.

mod budget;
mod data;
mod tls;
mod udp;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use byway_relay_core::io::{Egress as Outlet, Event, LinkId, LinkInfo, Side as End, TableUpdate};
use byway_relay_core::{Config, Relay};
use byway_wire::relay::Pin;
use byway_wire::relay::control::{Challenge, Control, Role};
use byway_wire::relay::frame::{Frame, StreamDecoder};
use byway_wire::{ChannelId, NodeId, RelayUrl, SecretKey};
use quinn_proto::StreamId;

use crate::net::pipe::{PipeId, Side};
use crate::net::{Happening, HostId, Network};
use crate::quic::crypto::{Credentials, Server};
use crate::quic::{ConnId, QuicHost, QuicSetup, link_server_transport, server_config};
use crate::rng::Rng;
use crate::shell::egress::Egress;
use crate::shell::heartbeat::Heartbeat;
use budget::Budget;

/// The port of every protocol.
pub const RELAY_PORT: u16 = 443;
/// After `Refused`, the link has this long to carry it.
const LAST_WORDS: Duration = Duration::from_secs(1);
enum Carrier {
    Udp {
        conn: ConnId,
        stream: Option<StreamId>,
        decoder: StreamDecoder,
        unsent: BytesMut,
        /// When it is next looked at for having moved.
        look_at: Instant,
    },
    Tls {
        pipe: PipeId,
        egress: Egress,
        heartbeat: Heartbeat,
    },
}

enum Pipe {
    /// Waits for the ClientHello.
    Hello(SocketAddr),
    /// Waits for the upgrade request.
    Upgrade(SocketAddr),
    /// Waits for the proof.
    Prove(SocketAddr, Challenge),
    Up(LinkId),
}

/// See the module's documentation.
pub struct RelayShell {
    host: HostId,
    relay: Relay,
    key: Arc<SecretKey>,
    quic: QuicHost,
    server: Arc<quinn_proto::ServerConfig>,
    rng: Rng,
    next_link: u64,
    links: BTreeMap<LinkId, Carrier>,
    conns: BTreeMap<ConnId, LinkId>,
    pipes: BTreeMap<PipeId, Pipe>,
    table: BTreeMap<ChannelId, (Outlet, Outlet)>,
    sources: BTreeMap<LinkId, SocketAddr>,
    closing: BTreeMap<LinkId, Instant>,
    cookies: Budget,
    /// From which port, where to, and what.
    outbox: VecDeque<(u16, SocketAddr, Bytes)>,
    /// Datagrams by what became of them.
    pub counts: BTreeMap<&'static str, u64>,
}

impl RelayShell {
    /// A relay on a host, with the key of these bytes. `life` counts its starts: each draws its own randomness.
    pub fn new(net: &Network, host: HostId, key: [u8; 32], life: u32, config: Config) -> Self {
        let mut rng = net.rng(&format!("relay {} life {life}", host.0));
        let key = Arc::new(SecretKey::from_bytes(&key));
        let mut quic = QuicHost::new(QuicSetup {
            // The same in every life: connections of an earlier one are reset at once.
            reset_key: *key.derive("reset"),
            rng: Rng::new(rng.u64(), "quic"),
        });
        let crypto = Server {
            credentials: Credentials::new(key.clone(), Rng::new(rng.u64(), "hellos")),
            alpn: vec![b"byway-relay/1"],
        };
        // Nodes behind a NAT that restarts keep their control connection; data is bound by cookies, not by QUIC.
        let server = server_config(Arc::new(crypto), link_server_transport(), true);
        quic.listen(server.clone());
        Self {
            host,
            relay: Relay::new(net.instant(), config, rng.seed()),
            key,
            quic,
            server,
            rng,
            next_link: 1,
            links: BTreeMap::new(),
            conns: BTreeMap::new(),
            pipes: BTreeMap::new(),
            table: BTreeMap::new(),
            sources: BTreeMap::new(),
            closing: BTreeMap::new(),
            cookies: Budget::default(),
            outbox: VecDeque::new(),
            counts: BTreeMap::new(),
        }
    }
    /// The URL of one with this key at this name or address. The pin is its public key: the simulated handshake has no certificates to hash.
    pub fn url(host: &str, key: [u8; 32]) -> Option<RelayUrl> {
        let id = SecretKey::from_bytes(&key).node_id();
        RelayUrl::new(host, RELAY_PORT, Some(Pin(*id.as_bytes()))).ok()
    }
    fn pin(&self) -> Pin {
        Pin(*self.key.node_id().as_bytes())
    }
    /// The channels it forwards.
    pub fn channels(&self) -> usize {
        self.table.len()
    }
    /// The addresses at which nodes are bound, as seen from here.
    pub fn bound(&self) -> Vec<SocketAddr> {
        self.sources.values().copied().collect()
    }

    /// How many links it has.
    pub fn links(&self) -> usize {
        self.links.len()
    }
    /// It says that it will stop.
    pub fn drain(&mut self, net: &mut Network, deadline: Duration) {
        let now = net.instant();
        self.relay.handle_going_away(now, deadline, Vec::new());
        self.turn(net);
    }

    /// Something happened on the host.
    pub fn handle(&mut self, net: &mut Network, what: Happening) {
        let now = net.instant();
        match what {
            Happening::Wake => {
                if self.relay.poll_timeout().is_some_and(|(at, _)| at <= now) {
                    let unix_time = self.unix_time(net);
                    self.relay.handle_timeout(now, unix_time);
                }
                self.quic.handle_timeout(now);
                self.close_due(net);
                self.look_for_moves(now);
                self.beat(net);
            }
            Happening::Datagram { from, to, data } => self.datagram(net, from, to.port(), &data),
            Happening::PipeAccepted { pipe, from } => {
                self.pipes.insert(pipe, Pipe::Hello(from));
            }
            Happening::PipeData { pipe, data } => self.pipe_data(net, pipe, data),
            Happening::PipeBroken { pipe } => {
                if let Some(Pipe::Up(link)) = self.pipes.remove(&pipe) {
                    self.link_down(now, link);
                }
            }
            Happening::PipeRoom { pipe } => self.pipe_room(net, pipe),
            Happening::PipeConnected { .. } => {}
        }
        self.turn(net);
    }

    fn turn(&mut self, net: &mut Network) {
        let now = net.instant();
        loop {
            let mut idle = true;
            while let Some(event) = self.relay.poll_event() {
                idle = false;
                self.carry_out(net, event);
            }
            while let Some(output) = self.quic.poll(now) {
                idle = false;
                self.quic_output(net, output);
            }
            while let Some((port, to, data)) = self.outbox.pop_front() {
                net.send(self.host, port, to, data);
            }
            if idle {
                break;
            }
        }
        let wake = [
            self.relay.poll_timeout().map(|(at, _)| at),
            self.quic.poll_timeout(),
            self.closing.values().min().copied(),
            self.links.values().filter_map(Carrier::poll_timeout).min(),
        ];
        let wake = wake.into_iter().flatten().min();
        let wake = wake.map(|at| net.since_start(at));
        net.wake_at(self.host, wake);
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }
    fn unix_time(&self, net: &Network) -> u64 {
        net.wall(self.host).as_secs()
    }

    fn carry_out(&mut self, net: &mut Network, event: Event) {
        match event {
            Event::Send { link, message } => self.send(net, link, &message),
            Event::Disconnect {
                link,
                reason,
                detail,
            } => {
                self.send(net, link, &Control::Refused { reason, detail });
                self.closing.insert(link, net.instant() + LAST_WORDS);
            }
            Event::Table(TableUpdate::Insert {
                channel,
                opener,
                target,
            }) => {
                self.table.insert(channel, (opener, target));
            }
            Event::Table(TableUpdate::Bind {
                channel,
                side,
                egress,
            }) => {
                if let Some((opener, target)) = self.table.get_mut(&channel) {
                    match side {
                        End::Opener => *opener = egress,
                        End::Target => *target = egress,
                    }
                }
            }
            Event::Table(TableUpdate::Remove { channel }) => {
                self.table.remove(&channel);
            }
            Event::Source { link, addr } => {
                match addr {
                    Some(addr) => self.sources.insert(link, addr),
                    None => self.sources.remove(&link),
                };
            }
            Event::Audit(what) => {
                net.trace.say(net.now(), "relay", format!("{what:?}"));
            }
            // Nobody fetches keys here.
            Event::UnknownKey => {}
            _ => self.count("unknown event"),
        }
    }

    fn send(&mut self, net: &mut Network, link: LinkId, message: &Control) {
        match self.links.get_mut(&link) {
            Some(Carrier::Udp { .. }) => self.say_udp(link, message),
            Some(Carrier::Tls { pipe, .. }) => {
                let frame = Frame::Control(message.clone()).encode();
                net.pipe_send(*pipe, Side::Acceptor, frame);
            }
            None => {}
        }
    }

    fn close_due(&mut self, net: &mut Network) {
        let now = net.instant();
        let due: Vec<LinkId> = self
            .closing
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(link, _)| *link)
            .collect();
        for link in due {
            self.closing.remove(&link);
            match self.links.remove(&link) {
                Some(Carrier::Udp { conn, .. }) => {
                    self.conns.remove(&conn);
                    if let Some(c) = self.quic.conn(conn) {
                        c.close(now, 0u32.into(), Bytes::new());
                    }
                }
                Some(Carrier::Tls { pipe, .. }) => {
                    self.pipes.remove(&pipe);
                    net.pipe_close(pipe, Side::Acceptor);
                }
                None => {}
            }
            self.relay.handle_link_down(now, link);
        }
    }

    fn link_up(
        &mut self,
        net: &Network,
        carrier: Carrier,
        node: NodeId,
        role: Option<Role>,
        from: SocketAddr,
    ) -> LinkId {
        let link = LinkId(self.next_link);
        self.next_link += 1;
        let egress = match &carrier {
            Carrier::Udp { conn, .. } => {
                self.conns.insert(*conn, link);
                Outlet::Udp(from)
            }
            Carrier::Tls { .. } => Outlet::Tls(link),
        };
        self.links.insert(link, carrier);
        let info = LinkInfo {
            node,
            role,
            began: net.instant(),
            egress,
            observed: from,
            intercepted: false,
        };
        self.relay.handle_link_up(net.instant(), link, info);
        link
    }

    fn link_down(&mut self, now: Instant, link: LinkId) {
        self.links.remove(&link);
        self.closing.remove(&link);
        self.relay.handle_link_down(now, link);
    }
}

impl Carrier {
    fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Udp { look_at, .. } => Some(*look_at),
            Self::Tls {
                egress, heartbeat, ..
            } => {
                let stall = egress.stalls_at();
                Some(stall.map_or(heartbeat.poll_timeout(), |at| {
                    at.min(heartbeat.poll_timeout())
                }))
            }
        }
    }
}
