//! The shell of a relay: what `byway-relay` is around `relay-core`, in virtual time.
//!
//! One UDP port carries QUIC control, plain relay data and STUN; the TCP port of the same number carries TLS links. Data
//! is forwarded from a table by [`byway_relay_core::forward::decide`], as the real shards do; the state machine sees
//! control messages only.

mod data;
mod tls;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use byway_relay_core::io::{Egress, Event, LinkId, LinkInfo, Side as End, TableUpdate};
use byway_relay_core::{Config, Relay};
use byway_wire::relay::Pin;
use byway_wire::relay::control::{Challenge, Control, Role};
use byway_wire::relay::frame::{Frame, StreamDecoder, encode_stream};
use byway_wire::{ChannelId, NodeId, RelayUrl, SecretKey};
use quinn_proto::{Dir, StreamEvent, StreamId};

use crate::net::pipe::{PipeId, Side};
use crate::net::{Happening, HostId, Network};
use crate::quic::crypto::{Credentials, Server};
use crate::quic::{ConnId, Output, QuicHost, QuicSetup, link_transport, server_config};
use crate::rng::Rng;

/// The port of every protocol.
pub const RELAY_PORT: u16 = 443;
/// Virtual time starts at this wall-clock second.
const EPOCH: u64 = 1_700_000_000;
/// After `Refused`, the link has this long to carry it.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Data older than this is dropped rather than sent on a TLS link (design section 7).
const MAX_SOJOURN: Duration = Duration::from_millis(50);
/// At most one rebind cookie to an address in this time.
const COOKIE_GAP: Duration = Duration::from_millis(20);
/// How many addresses the cookie limit remembers.
const COOKIE_MEMORY: usize = 1024;

enum Carrier {
    Udp {
        conn: ConnId,
        stream: Option<StreamId>,
        decoder: StreamDecoder,
        unsent: BytesMut,
    },
    Tls(PipeId),
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
    table: BTreeMap<ChannelId, (Egress, Egress)>,
    sources: BTreeMap<LinkId, SocketAddr>,
    closing: BTreeMap<LinkId, Instant>,
    cookies: BTreeMap<SocketAddr, Instant>,
    outbox: VecDeque<(SocketAddr, Bytes)>,
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
        let server = server_config(Arc::new(crypto), link_transport(), true);
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
            cookies: BTreeMap::new(),
            outbox: VecDeque::new(),
            counts: BTreeMap::new(),
        }
    }
    /// Its URL. The pin is its public key: the simulated handshake has no certificates to hash.
    pub fn url(addr: SocketAddr, key: [u8; 32]) -> Option<RelayUrl> {
        let id = SecretKey::from_bytes(&key).node_id();
        RelayUrl::new(
            &addr.ip().to_string(),
            addr.port(),
            Some(Pin(*id.as_bytes())),
        )
        .ok()
    }
    fn pin(&self) -> Pin {
        Pin(*self.key.node_id().as_bytes())
    }
    /// The state machine, for asking.
    pub fn relay(&self) -> &Relay {
        &self.relay
    }
    /// The channels it forwards.
    pub fn channels(&self) -> usize {
        self.table.len()
    }

    /// Something happened on the host.
    pub fn handle(&mut self, net: &mut Network, what: Happening) {
        let now = net.instant();
        match what {
            Happening::Wake => {
                if self.relay.poll_timeout().is_some_and(|(at, _)| at <= now) {
                    self.relay.handle_timeout(now);
                }
                self.quic.handle_timeout(now);
                self.close_due(net);
            }
            Happening::Datagram { from, data, .. } => self.datagram(net, from, &data),
            Happening::PipeAccepted { pipe, from } => {
                self.pipes.insert(pipe, Pipe::Hello(from));
            }
            Happening::PipeData { pipe, data } => self.pipe_data(net, pipe, data),
            Happening::PipeBroken { pipe } => {
                if let Some(Pipe::Up(link)) = self.pipes.remove(&pipe) {
                    self.link_down(now, link);
                }
            }
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
            while let Some((to, data)) = self.outbox.pop_front() {
                net.send(self.host, RELAY_PORT, to, data);
            }
            if idle {
                break;
            }
        }
        let wake = [
            self.relay.poll_timeout().map(|(at, _)| at),
            self.quic.poll_timeout(),
            self.closing.values().min().copied(),
        ];
        let wake = wake.into_iter().flatten().min();
        let wake = wake.map(|at| net.since_start(at));
        net.wake_at(self.host, wake);
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }
    fn unix_time(&self, net: &Network) -> u64 {
        EPOCH + net.now().as_secs()
    }

    // ---- what the relay wants ----

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
                let at = net.now();
                net.trace.note(at, "relay", &[], || format!("{what:?}"));
            }
            _ => self.count("unknown event"),
        }
    }

    fn send(&mut self, net: &mut Network, link: LinkId, message: &Control) {
        match self.links.get_mut(&link) {
            Some(Carrier::Udp { unsent, .. }) => {
                encode_stream(message, unsent);
                self.flush(link);
            }
            Some(Carrier::Tls(pipe)) => {
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
                Some(Carrier::Tls(pipe)) => {
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
                Egress::Udp(from)
            }
            Carrier::Tls(_) => Egress::Tls(link),
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
        self.relay
            .handle_link_up(net.instant(), self.unix_time(net), link, info);
        link
    }

    fn link_down(&mut self, now: Instant, link: LinkId) {
        self.links.remove(&link);
        self.closing.remove(&link);
        self.relay.handle_link_down(now, link);
    }

    // ---- QUIC ----

    fn quic_output(&mut self, net: &mut Network, output: Output) {
        match output {
            Output::Batch(batch) => {
                for datagram in batch.datagrams() {
                    self.outbox.push_back((batch.to, datagram));
                }
            }
            Output::Accepted(..) => {}
            Output::Event(conn, event) => self.conn_event(net, conn, &event),
            Output::Drained(conn) => {
                if let Some(link) = self.conns.remove(&conn) {
                    self.link_down(net.instant(), link);
                }
            }
        }
    }

    fn conn_event(&mut self, net: &mut Network, conn: ConnId, event: &quinn_proto::Event) {
        match event {
            quinn_proto::Event::Connected => {
                let Some(c) = self.quic.conn(conn) else {
                    return;
                };
                let from = c.remote_address();
                let identity = c.crypto_session().peer_identity();
                let Some(node) = identity.and_then(|id| id.downcast::<NodeId>().ok()) else {
                    return;
                };
                let carrier = Carrier::Udp {
                    conn,
                    stream: None,
                    decoder: StreamDecoder::default(),
                    unsent: BytesMut::new(),
                };
                self.link_up(net, carrier, *node, None, from);
            }
            quinn_proto::Event::ConnectionLost { .. } => {
                if let Some(link) = self.conns.remove(&conn) {
                    self.link_down(net.instant(), link);
                }
            }
            quinn_proto::Event::Stream(event) => self.stream_event(net, conn, event),
            _ => {}
        }
    }

    fn stream_event(&mut self, net: &mut Network, conn: ConnId, event: &StreamEvent) {
        let Some(link) = self.conns.get(&conn).copied() else {
            return;
        };
        match event {
            StreamEvent::Opened { dir: Dir::Bi } => {
                let Some(c) = self.quic.conn(conn) else {
                    return;
                };
                // The first stream is the control stream; others are nobody's.
                let opened = c.streams().accept(Dir::Bi);
                if let Some(Carrier::Udp {
                    stream: stream @ None,
                    ..
                }) = self.links.get_mut(&link)
                {
                    *stream = opened;
                }
                if let Some(stream) = opened {
                    self.read(net, link, stream);
                }
                self.flush(link);
            }
            StreamEvent::Readable { id } => self.read(net, link, *id),
            StreamEvent::Writable { .. } => self.flush(link),
            _ => {}
        }
    }

    fn read(&mut self, net: &mut Network, id: LinkId, from: StreamId) {
        let now = net.instant();
        let unix = self.unix_time(net);
        let Some(Carrier::Udp {
            conn,
            stream,
            decoder,
            ..
        }) = self.links.get_mut(&id)
        else {
            return;
        };
        if *stream != Some(from) {
            return;
        }
        let Some(c) = self.quic.conn(*conn) else {
            return;
        };
        if let Ok(mut chunks) = c.recv_stream(from).read(true) {
            while let Ok(Some(chunk)) = chunks.next(usize::MAX) {
                decoder.push(&chunk.bytes);
            }
            let _ = chunks.finalize();
        }
        loop {
            match decoder.next() {
                Ok(Some(message)) => self.relay.handle_control(now, unix, id, message),
                Ok(None) => return,
                Err(error) => {
                    return self.relay.handle_malformed(now, id, &error.to_string());
                }
            }
        }
    }

    fn flush(&mut self, id: LinkId) {
        let Some(Carrier::Udp {
            conn,
            stream: Some(stream),
            unsent,
            ..
        }) = self.links.get_mut(&id)
        else {
            return;
        };
        let Some(c) = self.quic.conn(*conn) else {
            return;
        };
        while !unsent.is_empty() {
            match c.send_stream(*stream).write(unsent) {
                Ok(n) => drop(unsent.split_to(n)),
                Err(_) => return,
            }
        }
    }

    /// The relay's key.
    pub fn id(&self) -> NodeId {
        self.key.node_id()
    }
}
