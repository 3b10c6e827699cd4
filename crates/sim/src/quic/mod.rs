//! quinn-proto under virtual time: one endpoint with its connections, driven like quinn's async shell drives them.
//!
//! Everything that quinn-proto would draw from the system comes from the seed instead: its own generator
//! (`rng_seed`), connection ids (a generator of ours, and `initial_dst_cid_provider` for a client's first), reset and
//! token keys, and the whole handshake ([`crypto`]).

pub mod crypto;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use quinn_proto::congestion::ControllerFactory;
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, ConnectionId, ConnectionIdGenerator, DatagramEvent,
    Endpoint, EndpointConfig, Event, IdleTimeout, MtuDiscoveryConfig, ServerConfig,
    TransportConfig, VarInt,
};

use crate::rng::Rng;

/// One connection of a [`QuicHost`], never reused (quinn-proto's handles are).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ConnId(pub u64);

/// A batch of datagrams to send.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Where quinn thinks the peer is: a virtual address on a node.
    pub to: SocketAddr,
    /// One datagram, or several of `segment` bytes (the last possibly shorter).
    pub contents: Bytes,
    /// The size of each datagram of a batch; none for a single one.
    pub segment: Option<usize>,
}

impl Batch {
    /// The datagrams one by one.
    pub fn datagrams(&self) -> impl Iterator<Item = Bytes> + use<> {
        cut(&self.contents, self.segment.unwrap_or(self.contents.len())).into_iter()
    }
}

/// The datagrams of a batch: each of this size, the last possibly shorter.
pub(crate) fn cut(batch: &Bytes, size: usize) -> Vec<Bytes> {
    let size = size.max(1);
    (0..batch.len())
        .step_by(size)
        .map(|start| batch.slice(start..batch.len().min(start + size)))
        .collect()
}

/// What came of driving.
#[derive(Debug)]
pub enum Output {
    /// Send this.
    Batch(Batch),
    /// Someone connected.
    Accepted(ConnId, SocketAddr),
    /// A connection says something.
    Event(ConnId, Event),
    /// A connection is over and forgotten.
    Drained(ConnId),
}

struct Slot {
    handle: ConnectionHandle,
    conn: Connection,
}

/// An endpoint and its connections.
pub struct QuicHost {
    endpoint: Endpoint,
    conns: BTreeMap<ConnId, Slot>,
    by_handle: BTreeMap<usize, ConnId>,
    dirty: BTreeSet<ConnId>,
    next: u64,
    output: VecDeque<Output>,
    initial_cids: Arc<Mutex<Rng>>,
}

/// What an endpoint is made of.
pub struct QuicSetup {
    /// Derives the stateless-reset key; the same after a restart.
    pub reset_key: [u8; 32],
    /// All the endpoint's randomness.
    pub rng: Rng,
}

/// quinn hands out at most 10 segments a transmit.
const MAX_SEGMENTS: usize = 10;

impl QuicHost {
    /// An endpoint without connections.
    pub fn new(mut setup: QuicSetup) -> Self {
        let seed = setup.rng.seed();
        let cids = Rng::new(setup.rng.u64(), "cids");
        let initial_cids = Arc::new(Mutex::new(Rng::new(setup.rng.u64(), "initial cids")));
        let mut config = EndpointConfig::new(Arc::new(crypto::ResetKey(setup.reset_key)));
        config
            .grease_quic_bit(false)
            .rng_seed(Some(seed))
            .cid_generator(move || Box::new(Cids(cids.clone())));
        Self {
            endpoint: Endpoint::new(Arc::new(config), None, true, None),
            conns: BTreeMap::new(),
            by_handle: BTreeMap::new(),
            dirty: BTreeSet::new(),
            next: 0,
            output: VecDeque::new(),
            initial_cids,
        }
    }
    /// Accepts connections from now on; see [`QuicHost::handle`].
    pub fn listen(&mut self, config: Arc<ServerConfig>) {
        self.endpoint.set_server_config(Some(config));
    }

    /// Begins a connection.
    pub fn connect(
        &mut self,
        now: Instant,
        crypto: Arc<crypto::Client>,
        transport: Arc<TransportConfig>,
        to: SocketAddr,
        server_name: &str,
    ) -> Option<ConnId> {
        let mut config = ClientConfig::new(crypto);
        let cids = self.initial_cids.clone();
        config
            .transport_config(transport)
            .initial_dst_cid_provider(Arc::new(move || random_cid(&cids, 16)));
        let (handle, conn) = self.endpoint.connect(now, config, to, server_name).ok()?;
        Some(self.insert(handle, conn))
    }

    /// A QUIC datagram came in. `accept` gives a new connection its configuration, or refuses it.
    pub fn handle(
        &mut self,
        now: Instant,
        from: SocketAddr,
        data: &[u8],
        accept: impl FnOnce(SocketAddr) -> Option<Arc<ServerConfig>>,
    ) {
        let mut answer = Vec::new();
        let event = self
            .endpoint
            .handle(now, from, None, None, BytesMut::from(data), &mut answer);
        match event {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some(id) = self.by_handle.get(&handle.0).copied()
                    && let Some(slot) = self.conns.get_mut(&id)
                {
                    slot.conn.handle_event(event);
                    self.dirty.insert(id);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => match accept(from) {
                Some(config) => {
                    match self
                        .endpoint
                        .accept(incoming, now, &mut answer, Some(config))
                    {
                        Ok((handle, conn)) => {
                            let id = self.insert(handle, conn);
                            self.output.push_back(Output::Accepted(id, from));
                        }
                        Err(refused) => {
                            if let Some(transmit) = refused.response {
                                self.answer(&transmit, &answer);
                            }
                        }
                    }
                }
                None => self.endpoint.ignore(incoming),
            },
            Some(DatagramEvent::Response(transmit)) => self.answer(&transmit, &answer),
            None => {}
        }
    }

    /// A connection, to be read or written; it is driven afterwards.
    pub fn conn(&mut self, id: ConnId) -> Option<&mut Connection> {
        let slot = self.conns.get_mut(&id)?;
        self.dirty.insert(id);
        Some(&mut slot.conn)
    }
    /// Where a connection's peer is now, as QUIC sees it.
    pub fn remote(&self, id: ConnId) -> Option<SocketAddr> {
        Some(self.conns.get(&id)?.conn.remote_address())
    }
    /// How many connections there are.
    pub fn len(&self) -> usize {
        self.conns.len()
    }
    /// True without connections.
    pub fn is_empty(&self) -> bool {
        self.conns.is_empty()
    }

    /// Fires the timers that are due.
    pub fn handle_timeout(&mut self, now: Instant) {
        for (id, slot) in &mut self.conns {
            if slot.conn.poll_timeout().is_some_and(|at| at <= now) {
                slot.conn.handle_timeout(now);
                self.dirty.insert(*id);
            }
        }
    }
    /// When [`QuicHost::handle_timeout`] is due.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        self.conns
            .values_mut()
            .filter_map(|slot| slot.conn.poll_timeout())
            .min()
    }

    /// The next thing to carry out.
    pub fn poll(&mut self, now: Instant) -> Option<Output> {
        while self.output.is_empty() {
            let id = self.dirty.pop_first()?;
            self.drive(now, id);
        }
        self.output.pop_front()
    }

    fn insert(&mut self, handle: ConnectionHandle, conn: Connection) -> ConnId {
        let id = ConnId(self.next);
        self.next += 1;
        self.by_handle.insert(handle.0, id);
        self.conns.insert(id, Slot { handle, conn });
        self.dirty.insert(id);
        id
    }

    fn answer(&mut self, transmit: &quinn_proto::Transmit, contents: &[u8]) {
        self.output.push_back(Output::Batch(Batch {
            to: transmit.destination,
            contents: Bytes::copy_from_slice(&contents[..transmit.size]),
            segment: None,
        }));
    }

    fn drive(&mut self, now: Instant, id: ConnId) {
        let Some(slot) = self.conns.get_mut(&id) else {
            return;
        };
        // Endpoint events may bring connection events, which may bring more of either.
        loop {
            let mut more = false;
            while let Some(event) = slot.conn.poll_endpoint_events() {
                let drained = event.is_drained();
                if let Some(back) = self.endpoint.handle_event(slot.handle, event) {
                    slot.conn.handle_event(back);
                    more = true;
                }
                if drained {
                    self.by_handle.remove(&slot.handle.0);
                    while let Some(event) = slot.conn.poll() {
                        self.output.push_back(Output::Event(id, event));
                    }
                    self.conns.remove(&id);
                    self.output.push_back(Output::Drained(id));
                    return;
                }
            }
            let mut contents = Vec::new();
            while let Some(transmit) = slot.conn.poll_transmit(now, MAX_SEGMENTS, &mut contents) {
                let size = transmit.size;
                self.output.push_back(Output::Batch(Batch {
                    to: transmit.destination,
                    contents: Bytes::copy_from_slice(&contents[..size]),
                    segment: transmit.segment_size,
                }));
                contents.clear();
                more = true;
            }
            while let Some(event) = slot.conn.poll() {
                self.output.push_back(Output::Event(id, event));
            }
            if !more {
                return;
            }
        }
    }
}

/// Connection ids from the seed.
struct Cids(Rng);

/// As quinn's default.
const CID_LEN: usize = 8;

impl ConnectionIdGenerator for Cids {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&self.0.u64().to_be_bytes())
    }
    fn cid_len(&self) -> usize {
        CID_LEN
    }
    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

fn random_cid(rng: &Mutex<Rng>, len: usize) -> ConnectionId {
    let mut rng = rng.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    ConnectionId::new(&rng.seed()[..len])
}

/// A day: `IDLE` in `byway`'s `endpoint/quic.rs`. The path layer says what is lost.
const TUNNEL_IDLE: Duration = Duration::from_secs(24 * 3600);
/// The windows and bounds there: `STREAM_WINDOW`, `CONNECTION_WINDOW`, `STREAMS`, `DATAGRAMS`.
const STREAM_WINDOW: u32 = 12_500_000;
const CONNECTION_WINDOW: u32 = 8 * STREAM_WINDOW;
const STREAMS: u32 = 1024;
const DATAGRAMS: usize = 1_250_000;
/// The largest datagram a node asks for by default (`MAX_DATAGRAM` in `endpoint/builder.rs`).
const MAX_DATAGRAM: u16 = 1444;

/// The transport settings of a tunnel: `Quic::transport` in `byway`'s `endpoint/quic.rs`.
pub fn tunnel_transport(controller: Arc<dyn ControllerFactory + Send + Sync>) -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(MAX_DATAGRAM);
    let mut config = TransportConfig::default();
    config
        .max_idle_timeout(idle_timeout(TUNNEL_IDLE))
        .keep_alive_interval(None)
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(CONNECTION_WINDOW.into())
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(Some(DATAGRAMS))
        .datagram_send_buffer_size(DATAGRAMS)
        .mtu_discovery_config(Some(mtu))
        .allow_spin(false)
        .congestion_controller_factory(controller);
    config
}

/// The node's end of a UDP link: `client_config` in `byway`'s `links/udp.rs`, with its `KEEP_ALIVE` and `IDLE`.
pub fn link_client_transport() -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .keep_alive_interval(Some(Duration::from_secs(20)))
        .max_idle_timeout(idle_timeout(Duration::from_secs(50)))
        .enable_segmentation_offload(false)
        .mtu_discovery_config(None)
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None);
    config
}

/// The relay's end: `server_config` in `byway-relay`'s `quic.rs`, with its `IDLE` and `STREAM_WINDOW`. Of the two idle
/// times the shorter holds on both sides (RFC 9000 section 10.1), so a link is lost after 30 s of silence.
pub fn link_server_transport() -> TransportConfig {
    const WINDOW: u32 = 64 * 1024;
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_idle_timeout(idle_timeout(Duration::from_secs(30)))
        .stream_receive_window(VarInt::from_u32(WINDOW))
        .receive_window(VarInt::from_u32(WINDOW))
        .send_window(u64::from(WINDOW))
        .datagram_receive_buffer_size(None)
        .mtu_discovery_config(None)
        .enable_segmentation_offload(false);
    config
}

fn idle_timeout(after: Duration) -> Option<IdleTimeout> {
    VarInt::try_from(after.as_millis() as u64)
        .ok()
        .map(IdleTimeout::from)
}

/// A server's configuration without tokens: their lifetimes would be measured on the system's clock.
pub fn server_config(
    crypto: Arc<crypto::Server>,
    transport: TransportConfig,
    migration: bool,
) -> Arc<ServerConfig> {
    let mut config = ServerConfig::new(crypto, Arc::new(crypto::TokenKey(1)));
    config
        .transport_config(Arc::new(transport))
        .migration(migration);
    Arc::new(config)
}

#[cfg(test)]
mod tests;
