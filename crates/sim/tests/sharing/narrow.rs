//! One narrow place and the tunnels that share it: clients on one side, who send, and servers on the other.
//!
//! Unlike in a scene there are no nodes and no relays: what is judged is how much a sender sends at once. The links and the
//! transport settings are those of all other tests.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use byway_congestion::{Congestion, FlowMonitor, PathAwareFactory};
use byway_core::io::{SocketId, Way};
use byway_sim::net::link::{Link, LinkConfig, LinkDrop};
use byway_sim::quic::{
    ConnId, Output, QuicHost, QuicSetup, crypto, server_config, tunnel_transport,
};
use byway_sim::rng::Rng;
use byway_wire::SecretKey;
use quinn_proto::{Dir, Event, ServerConfig, StreamId, TransportConfig};

use crate::common::ms;

/// What IP and UDP add to a datagram, in bytes.
const HEADERS: usize = 28;
const ALPN: &[u8] = b"byway/1";
/// How often somebody types.
const KEYSTROKE: Duration = Duration::from_millis(50);
/// What is written at once.
const CHUNK: [u8; 16 * 1024] = [0; 16 * 1024];

/// The narrow place.
pub(crate) struct Narrow {
    base: Instant,
    pub(crate) now: Duration,
    /// From the clients to the servers, and back.
    links: [Link; 2],
    pub(crate) tunnels: Vec<Tunnel>,
    /// What is under way: by arrival and number; of which tunnel, to its server or its client.
    wire: BTreeMap<(Duration, u64), (usize, bool, Bytes)>,
    count: u64,
    rng: Rng,
}

/// One client and its server.
pub(crate) struct Tunnel {
    client: QuicHost,
    server: QuicHost,
    accepts: Arc<ServerConfig>,
    conn: ConnId,
    accepted: Option<ConnId>,
    /// A transfer that never ends.
    bulk: Option<StreamId>,
    keys: Option<Keys>,
    /// The client's.
    monitor: Arc<FlowMonitor>,
    /// What came for the client while its machine sleeps.
    asleep: Option<Vec<Bytes>>,
    /// Of the transfer, by the server, in bytes.
    pub(crate) received: u64,
    /// Datagrams that the client sent, and of these, those that found the queue full.
    pub(crate) sent: u64,
    pub(crate) overflowed: u64,
}

/// Somebody who types: a byte each [`KEYSTROKE`].
struct Keys {
    stream: StreamId,
    next: Duration,
    typed: Vec<Duration>,
    /// How long each took to arrive.
    waits: Vec<Duration>,
}

fn address(of: usize, server: bool) -> SocketAddr {
    let host = if server { 2 } else { 1 };
    SocketAddr::from(([10, 0, of as u8, host], 4433))
}

fn transport(monitor: &Arc<FlowMonitor>, congestion: Congestion) -> TransportConfig {
    let factory = PathAwareFactory::choosing(Arc::clone(monitor), congestion);
    tunnel_transport(Arc::new(factory))
}

fn monitor(base: Instant) -> Arc<FlowMonitor> {
    let monitor = Arc::new(FlowMonitor::new(base));
    let way = Way::Direct {
        socket: SocketId(0),
        remote: address(0, true),
    };
    monitor.switch(base, &way);
    monitor
}

impl Narrow {
    /// Towards the servers as `link` says; back as fast as wanted, with the same delay and loss.
    pub(crate) fn new(seed: u64, link: LinkConfig) -> Self {
        let mut rng = Rng::new(seed, "narrow");
        let back = LinkConfig { rate: None, ..link };
        let links = [link, back].map(|config| Link::new(config, Rng::new(rng.u64(), "link")));
        Self {
            base: crate::common::base(),
            now: Duration::ZERO,
            links,
            tunnels: Vec::new(),
            wire: BTreeMap::new(),
            count: 0,
            rng,
        }
    }

    /// The narrow place changes, towards the servers.
    pub(crate) fn link(&mut self) -> &mut LinkConfig {
        &mut self.links[0].config
    }

    /// Another tunnel, of a client that sends so, begins. Its number.
    pub(crate) fn add(&mut self, congestion: Congestion) -> usize {
        let n = self.tunnels.len();
        let mut host = |key: u8| {
            let key = SecretKey::from_bytes(&[key; 32]);
            let id = key.node_id();
            let credentials =
                crypto::Credentials::new(Arc::new(key), Rng::new(self.rng.u64(), "credentials"));
            let setup = QuicSetup {
                reset_key: [1; 32],
                rng: Rng::new(self.rng.u64(), "host"),
            };
            (QuicHost::new(setup), credentials, id)
        };
        let (mut client, credentials, _) = host(1);
        let ours = Arc::new(crypto::Client {
            credentials,
            alpn: ALPN,
        });
        let (mut server, credentials, id) = host(2);
        let theirs = Arc::new(crypto::Server {
            credentials,
            alpn: vec![ALPN],
        });
        let accepts = server_config(theirs, transport(&monitor(self.base), congestion), false);
        let monitor = monitor(self.base);
        server.listen(accepts.clone());
        let conn = client.connect(
            self.base + self.now,
            ours,
            Arc::new(transport(&monitor, congestion)),
            address(n, true),
            &id.server_name(),
        );
        let Some(conn) = conn else {
            panic!("a tunnel could not begin");
        };
        self.tunnels.push(Tunnel {
            client,
            server,
            accepts,
            conn,
            accepted: None,
            bulk: None,
            keys: None,
            monitor,
            asleep: None,
            received: 0,
            sent: 0,
            overflowed: 0,
        });
        for _ in 0..100 {
            self.run(ms(100));
            if self.tunnels[n].ready() {
                return n;
            }
        }
        panic!("no handshake");
    }

    fn open(&mut self, n: usize) -> StreamId {
        let tunnel = &mut self.tunnels[n];
        let conn = tunnel.client.conn(tunnel.conn);
        match conn.and_then(|conn| conn.streams().open(Dir::Bi)) {
            Some(stream) => stream,
            None => panic!("no stream"),
        }
    }

    /// A transfer that never ends begins in this tunnel.
    pub(crate) fn transfer(&mut self, n: usize) {
        self.tunnels[n].bulk = Some(self.open(n));
        self.tunnels[n].feed();
    }

    /// Somebody begins to type in this tunnel.
    pub(crate) fn type_in(&mut self, n: usize) {
        self.tunnels[n].keys = Some(Keys {
            stream: self.open(n),
            next: self.now,
            typed: Vec::new(),
            waits: Vec::new(),
        });
    }

    /// The machine of this client falls asleep. What comes for it is kept, as by a TLS link and by a socket's buffer.
    pub(crate) fn sleep(&mut self, n: usize) {
        self.tunnels[n].asleep = Some(Vec::new());
    }

    /// It wakes up. Either it is known at once how long it slept, or what was kept is read before that is known.
    pub(crate) fn wake(&mut self, n: usize, known: bool) {
        let now = self.base + self.now;
        let tunnel = &mut self.tunnels[n];
        if known {
            tunnel.monitor.renew_if_stale(now);
        }
        let kept = tunnel.asleep.take();
        for data in kept.unwrap_or_default() {
            let client = &mut self.tunnels[n].client;
            client.handle(now, address(n, true), &data, |_| None);
            self.drive(n, false);
        }
        self.tunnels[n].monitor.renew_if_stale(now);
    }

    /// How long what was typed since the last question took, in order of size.
    pub(crate) fn waits(&mut self, n: usize) -> Vec<Duration> {
        let keys = self.tunnels[n].keys.as_mut();
        let mut waits = keys.map_or(Vec::new(), |keys| std::mem::take(&mut keys.waits));
        waits.sort();
        waits
    }

    /// What each tunnel's transfer has in this time, in bytes a second.
    pub(crate) fn goodputs(&mut self, time: Duration) -> Vec<f64> {
        let before: Vec<u64> = self.tunnels.iter().map(|t| t.received).collect();
        self.run(time);
        let after = self.tunnels.iter().map(|t| t.received);
        after
            .zip(before)
            .map(|(after, before)| (after - before) as f64 / time.as_secs_f64())
            .collect()
    }

    /// The same, and of the datagrams that each client sent in this time, the share that found the queue full.
    pub(crate) fn costs(&mut self, time: Duration) -> (Vec<f64>, Vec<f64>) {
        let counts = |net: &Self| -> Vec<(u64, u64)> {
            net.tunnels.iter().map(|t| (t.overflowed, t.sent)).collect()
        };
        let before = counts(self);
        let goodputs = self.goodputs(time);
        let shares = counts(self).into_iter().zip(before);
        let shares = shares.map(|(now, then)| (now.0 - then.0) as f64 / (now.1 - then.1) as f64);
        (goodputs, shares.collect())
    }

    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            for n in 0..self.tunnels.len() {
                self.drive(n, false);
                self.drive(n, true);
            }
            let arrival = self.wire.keys().next().map(|(at, _)| *at);
            let wakes = self.tunnels.iter_mut().flat_map(|t| {
                let awake = t.asleep.is_none();
                let client = t.client.poll_timeout().filter(|_| awake);
                let timers = [client, t.server.poll_timeout()];
                let key = t.keys.as_ref().map(|keys| keys.next);
                let key = key.filter(|_| awake);
                let timers = timers.map(|at| at.map(|at| at.saturating_duration_since(self.base)));
                timers.into_iter().chain([key]).flatten()
            });
            let Some(next) = wakes.chain(arrival).min().filter(|at| *at <= end) else {
                break;
            };
            self.now = self.now.max(next);
            let now = self.base + self.now;
            for tunnel in &mut self.tunnels {
                tunnel.server.handle_timeout(now);
                if tunnel.asleep.is_none() {
                    tunnel.client.handle_timeout(now);
                    tunnel.type_at(self.now);
                }
            }
            while let Some(entry) = self.wire.first_entry() {
                if entry.key().0 > self.now {
                    break;
                }
                let (n, to_server, data) = entry.remove();
                let tunnel = &mut self.tunnels[n];
                let host = match &mut tunnel.asleep {
                    _ if to_server => &mut tunnel.server,
                    None => &mut tunnel.client,
                    Some(kept) => {
                        kept.push(data);
                        continue;
                    }
                };
                let accepts = &tunnel.accepts;
                host.handle(now, address(n, !to_server), &data, |_| {
                    Some(accepts.clone())
                });
            }
        }
        self.now = end;
    }

    fn drive(&mut self, n: usize, server: bool) {
        let tunnel = &mut self.tunnels[n];
        let now = self.base + self.now;
        if !server && tunnel.asleep.is_some() {
            return;
        }
        loop {
            let host = if server {
                &mut tunnel.server
            } else {
                &mut tunnel.client
            };
            let Some(output) = host.poll(now) else {
                break;
            };
            match output {
                Output::Batch(batch) => {
                    for data in batch.datagrams() {
                        tunnel.sent += u64::from(!server);
                        let link = &mut self.links[usize::from(server)];
                        match link.pass(self.now, data.len() + HEADERS) {
                            Ok((at, copy)) => {
                                for at in [Some(at), copy].into_iter().flatten() {
                                    self.count += 1;
                                    let item = (n, !server, data.clone());
                                    self.wire.insert((at, self.count), item);
                                }
                            }
                            Err(LinkDrop::Queue) => tunnel.overflowed += u64::from(!server),
                            Err(_) => {}
                        }
                    }
                }
                Output::Accepted(id, _) => tunnel.accepted = Some(id),
                Output::Event(_, Event::ConnectionLost { reason }) => {
                    panic!("tunnel {n} ended: {reason}")
                }
                Output::Event(..) if server => tunnel.read(self.now),
                Output::Event(..) => tunnel.feed(),
                Output::Drained(_) => panic!("tunnel {n} ended"),
            }
        }
    }
}

impl Tunnel {
    fn ready(&mut self) -> bool {
        let conn = self.client.conn(self.conn);
        self.accepted.is_some() && conn.is_some_and(|conn| !conn.is_handshaking())
    }

    /// Writes of the transfer what can be written.
    fn feed(&mut self) {
        let conn = self.client.conn(self.conn);
        if let (Some(stream), Some(conn)) = (self.bulk, conn) {
            while conn.send_stream(stream).write(&CHUNK).is_ok() {}
        }
    }

    fn type_at(&mut self, now: Duration) {
        let conn = self.client.conn(self.conn);
        if let (Some(keys), Some(conn)) = (&mut self.keys, conn)
            && keys.next <= now
        {
            keys.next = now + KEYSTROKE;
            if conn.send_stream(keys.stream).write(&[0]).is_ok() {
                keys.typed.push(now);
            }
        }
    }

    fn read(&mut self, now: Duration) {
        let Some(conn) = self.accepted.and_then(|id| self.server.conn(id)) else {
            return;
        };
        let mut came = |stream: StreamId| {
            let mut bytes = 0;
            if let Ok(mut chunks) = conn.recv_stream(stream).read(true) {
                while let Ok(Some(chunk)) = chunks.next(usize::MAX) {
                    bytes += chunk.bytes.len();
                }
                let _ = chunks.finalize();
            }
            bytes
        };
        if let Some(stream) = self.bulk {
            self.received += came(stream) as u64;
        }
        if let Some(keys) = &mut self.keys {
            let typed = keys.typed.drain(..came(keys.stream));
            keys.waits.extend(typed.map(|at| now - at));
        }
    }
}
