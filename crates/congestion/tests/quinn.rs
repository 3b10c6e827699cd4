//! With real quinn-proto connections in virtual time: what quinn calls when, and a bulk transfer across a switch.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
#![allow(
    clippy::disallowed_methods,
    reason = "virtual time needs one instant to count from"
)]

use std::any::Any;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use byway_congestion::{FlowMonitor, PathAwareFactory};
use byway_core::io::{SocketId, Way};
use quinn_proto::congestion::{Controller, ControllerFactory, Cubic, CubicConfig};
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointConfig,
    RttEstimator, ServerConfig, StreamId, TransportConfig,
};

const MS: Duration = Duration::from_millis(1);
/// How long a datagram waits for the bottleneck at most.
const QUEUE: Duration = Duration::from_millis(20);
/// 100 Mbit/s in bytes a millisecond.
const FAST: u32 = 12_500;

/// One path of the test's network.
#[derive(Clone, Copy)]
struct Path {
    delay: Duration,
    /// Bytes a millisecond, each way; a queue of [`QUEUE`] drops beyond.
    rate: u32,
    dead: bool,
    /// Until when each side's queue is busy.
    busy: [Option<Instant>; 2],
}

struct Side {
    endpoint: Endpoint,
    connection: Option<(ConnectionHandle, Connection)>,
    monitor: Arc<FlowMonitor>,
}

/// A client, a server, and the path that is in use between them.
struct Net {
    now: Instant,
    sides: [Side; 2],
    paths: [Path; 2],
    path: usize,
    /// In flight: by arrival and number; to which side.
    wire: BTreeMap<(Instant, u64), (usize, Vec<u8>)>,
    sent: u64,
    received: usize,
}

const CLIENT: usize = 0;
const SERVER: usize = 1;

fn addr(side: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, side as u8 + 1], 4433))
}

fn way(path: usize) -> Way {
    Way::Direct {
        socket: SocketId(0),
        remote: SocketAddr::from(([198, 51, 100, 1], path as u16 + 1)),
    }
}

impl Net {
    /// Two sides connected over path 0. `client` and `server` make the congestion controllers from the monitors.
    fn connect(paths: [Path; 2], factory: impl Fn(usize, Arc<FlowMonitor>) -> Factory) -> Self {
        let start = Instant::now();
        let monitors = [(); 2].map(|()| Arc::new(FlowMonitor::new(start)));
        let transport = |side: usize| {
            let mut transport = TransportConfig::default();
            transport
                .congestion_controller_factory(factory(side, Arc::clone(&monitors[side])))
                .stream_receive_window(1_000_000_000u32.into())
                .receive_window(1_000_000_000u32.into())
                .send_window(1_000_000_000);
            Arc::new(transport)
        };
        let key = rcgen::generate_simple_self_signed(vec!["test.invalid".into()]).unwrap();
        let mut server_config = ServerConfig::with_single_cert(
            vec![key.cert.der().clone()],
            rustls::pki_types::PrivateKeyDer::Pkcs8(key.signing_key.serialize_der().into()),
        )
        .unwrap();
        server_config.transport_config(transport(SERVER));
        let mut roots = rustls::RootCertStore::empty();
        roots.add(key.cert.der().clone()).unwrap();
        let mut client_config = ClientConfig::with_root_certificates(Arc::new(roots)).unwrap();
        client_config.transport_config(transport(CLIENT));

        let mut endpoint_config = EndpointConfig::default();
        endpoint_config.rng_seed(Some([7; 32]));
        let endpoint_config = Arc::new(endpoint_config);
        let mut client = Endpoint::new(Arc::clone(&endpoint_config), None, false, None);
        let server = Endpoint::new(endpoint_config, Some(Arc::new(server_config)), false, None);
        let connection = client
            .connect(start, client_config, addr(SERVER), "test.invalid")
            .unwrap();
        let [client_monitor, server_monitor] = monitors;
        let mut net = Self {
            now: start,
            sides: [
                Side {
                    endpoint: client,
                    connection: Some(connection),
                    monitor: client_monitor,
                },
                Side {
                    endpoint: server,
                    connection: None,
                    monitor: server_monitor,
                },
            ],
            paths,
            path: 0,
            wire: BTreeMap::new(),
            sent: 0,
            received: 0,
        };
        net.switch(0);
        net.run(500 * MS);
        assert!(!net.connection(CLIENT).is_handshaking());
        net
    }

    fn connection(&mut self, side: usize) -> &mut Connection {
        &mut self.sides[side].connection.as_mut().unwrap().1
    }

    fn switch(&mut self, path: usize) {
        self.path = path;
        for side in &self.sides {
            side.monitor.switch(self.now, &way(path));
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            for side in [CLIENT, SERVER] {
                self.drive(side);
            }
            let arrival = self.wire.keys().next().map(|key| key.0);
            let timers = [CLIENT, SERVER].map(|side| {
                let connection = self.sides[side].connection.as_mut();
                connection.and_then(|(_, connection)| connection.poll_timeout())
            });
            let next = timers.into_iter().chain([arrival]).flatten().min();
            let Some(next) = next.filter(|next| *next <= end) else {
                break;
            };
            self.now = self.now.max(next);
            for side in [CLIENT, SERVER] {
                if timers[side].is_some_and(|at| at <= self.now) {
                    let now = self.now;
                    self.connection(side).handle_timeout(now);
                }
            }
            while let Some(entry) = self.wire.first_entry() {
                if entry.key().0 > self.now {
                    break;
                }
                let (to, datagram) = entry.remove();
                self.deliver(to, &datagram);
            }
        }
        self.now = end;
    }

    fn drive(&mut self, side: usize) {
        let now = self.now;
        let Side {
            endpoint,
            connection,
            ..
        } = &mut self.sides[side];
        let Some((handle, connection)) = connection else {
            return;
        };
        loop {
            while let Some(event) = connection.poll_endpoint_events() {
                if let Some(event) = endpoint.handle_event(*handle, event) {
                    connection.handle_event(event);
                }
            }
            while connection.poll().is_some() {}
            let mut buffer = Vec::new();
            let Some(transmit) = connection.poll_transmit(now, 10, &mut buffer) else {
                break;
            };
            let path = &mut self.paths[self.path];
            if path.dead {
                continue;
            }
            let segment = transmit.segment_size.unwrap_or(transmit.size);
            for datagram in buffer[..transmit.size].chunks(segment) {
                let start = path.busy[side].map_or(now, |busy| busy.max(now));
                if start > now + QUEUE {
                    continue;
                }
                let done = start + MS * datagram.len() as u32 / path.rate;
                path.busy[side] = Some(done);
                self.sent += 1;
                let arrival = (done + path.delay, self.sent);
                self.wire.insert(arrival, (1 - side, datagram.to_vec()));
            }
        }
    }

    fn deliver(&mut self, to: usize, datagram: &[u8]) {
        let now = self.now;
        let side = &mut self.sides[to];
        let mut buffer = Vec::new();
        let data = BytesMut::from(datagram);
        let event = side
            .endpoint
            .handle(now, addr(1 - to), None, None, data, &mut buffer);
        match event {
            Some(DatagramEvent::NewConnection(incoming)) => {
                let accepted = side.endpoint.accept(incoming, now, &mut buffer, None);
                side.connection = Some(accepted.unwrap_or_else(|e| panic!("{}", e.cause)));
            }
            Some(DatagramEvent::ConnectionEvent(_, event)) => {
                side.connection.as_mut().unwrap().1.handle_event(event);
            }
            _ => {}
        }
        self.read(to);
    }

    /// Reads whatever arrived on the server's first stream of the client's.
    fn read(&mut self, side: usize) {
        if side != SERVER {
            return;
        }
        let Some((_, connection)) = &mut self.sides[SERVER].connection else {
            return;
        };
        let id = StreamId::new(quinn_proto::Side::Client, Dir::Uni, 0);
        let mut stream = connection.recv_stream(id);
        let Ok(mut chunks) = stream.read(true) else {
            return;
        };
        while let Ok(Some(chunk)) = chunks.next(usize::MAX) {
            self.received += chunk.bytes.len();
        }
        let _ = chunks.finalize();
    }

    /// Gives the client `bytes` to send.
    fn upload(&mut self, bytes: usize) {
        let connection = self.connection(CLIENT);
        let id = connection.streams().open(Dir::Uni).unwrap();
        let written = connection.send_stream(id).write(&vec![0; bytes]).unwrap();
        assert_eq!(written, bytes);
    }
}

type Factory = Arc<dyn ControllerFactory + Send + Sync>;

fn path_aware(_: usize, monitor: Arc<FlowMonitor>) -> Factory {
    Arc::new(PathAwareFactory::new(monitor))
}

fn cubic(_: usize, _: Arc<FlowMonitor>) -> Factory {
    Arc::new(CubicConfig::default())
}

fn path(delay_ms: u32) -> Path {
    Path {
        delay: delay_ms * MS,
        rate: FAST,
        dead: false,
        busy: [None; 2],
    }
}

#[test]
fn evidence_of_a_bulk_transfer_is_right() {
    let mut net = Net::connect([path(10), path(10)], path_aware);
    net.upload(5_000_000);
    net.run(200 * MS);
    let sample = net.sides[CLIENT].monitor.sample(net.now);
    assert!(sample.in_flight > 0);
    let waiting = net.now - sample.waiting_since.unwrap();
    let longest = 20 * MS + QUEUE;
    assert!(waiting <= longest + MS, "answers come, but {waiting:?}");
    assert!(
        sample.srtt >= 20 * MS && sample.srtt <= longest,
        "{:?}",
        sample.srtt
    );

    net.run(5000 * MS);
    assert_eq!(net.received, 5_000_000);
    let sample = net.sides[CLIENT].monitor.sample(net.now);
    assert_eq!(sample.waiting_since, None);
    assert_eq!(sample.in_flight, 0);
    assert!(sample.acked >= 5_000_000);
    assert!(sample.lost > 0, "the queue overflowed");
    let unexplained = (sample.acked + sample.lost).abs_diff(sample.sent);
    assert!(unexplained < 20_000, "MTU probes only, but {unexplained}");
}

#[test]
fn a_receiver_that_only_acknowledges_waits_for_nothing() {
    let mut net = Net::connect([path(10), path(10)], path_aware);
    // What the handshake left has been answered.
    let before = net.sides[SERVER].monitor.sample(net.now);
    assert_eq!(before.waiting_since, None);
    net.upload(5_000_000);
    for _ in 0..50 {
        net.run(10 * MS);
        let sample = net.sides[SERVER].monitor.sample(net.now);
        assert_eq!(sample.waiting_since, None);
        assert_eq!(sample.sent, before.sent);
    }
    assert_eq!(net.received, 5_000_000);
}

#[test]
fn a_dead_path_shows_as_waiting_since_its_death() {
    let mut net = Net::connect([path(10), path(10)], path_aware);
    net.upload(50_000_000);
    net.run(200 * MS);
    net.paths[0].dead = true;
    let death = net.now;
    net.run(100 * MS);
    let sample = net.sides[CLIENT].monitor.sample(net.now);
    let since = sample.waiting_since.unwrap();
    assert!(since <= death + 2 * MS && since + 20 * MS + QUEUE + 2 * MS >= death);
    net.run(400 * MS);
    let later = net.sides[CLIENT].monitor.sample(net.now);
    assert_eq!(later.waiting_since, Some(since), "probes do not restart it");
}

#[test]
fn a_transfer_goes_on_at_once_after_a_switch_from_a_dead_path() {
    let mut net = Net::connect([path(10), path(15)], path_aware);
    net.upload(50_000_000);
    net.run(300 * MS);
    net.paths[0].dead = true;
    net.run(150 * MS);
    let full = net.sides[CLIENT].monitor.sample(net.now);
    net.switch(1);
    net.run(2 * MS);
    let after = net.sides[CLIENT].monitor.sample(net.now);
    assert!(
        after.sent >= full.sent + 10_000,
        "the old path's bytes block the new one"
    );
    assert!(
        after.sent <= full.sent + 30_000,
        "the new path starts with its own window"
    );

    net.run(200 * MS);
    let window = net.connection(CLIENT).stats().path.cwnd;
    assert!(
        window > 100_000,
        "it grows as in a first slow start, but is {window}"
    );
    let sample = net.sides[CLIENT].monitor.sample(net.now);
    assert!(
        sample.srtt >= 30 * MS && sample.srtt < 55 * MS,
        "{:?}",
        sample.srtt
    );
}

/// How long after a switch from a dead path the next byte arrives.
fn across_a_dead_path(factory: fn(usize, Arc<FlowMonitor>) -> Factory) -> Duration {
    let mut net = Net::connect([path(10), path(15)], factory);
    net.upload(50_000_000);
    net.run(300 * MS);
    net.paths[0].dead = true;
    net.run(150 * MS);
    net.switch(1);
    let (switched, before) = (net.now, net.received);
    while net.received == before {
        net.run(MS);
        assert!(net.now < switched + 5000 * MS, "the transfer never goes on");
    }
    net.now - switched
}

#[test]
fn plain_cubic_stalls_longer_on_a_dead_path() {
    let ours = across_a_dead_path(path_aware);
    let plain = across_a_dead_path(cubic);
    // A way there for something new, a way back for its acknowledgement, a way there for the lost bytes.
    assert!(ours <= 48 * MS, "{ours:?}");
    assert!(plain > ours + 20 * MS, "{plain:?} against {ours:?}");
}

#[test]
fn returning_to_a_path_goes_on_with_its_window() {
    let mut net = Net::connect([path(10), path(15)], path_aware);
    net.upload(50_000_000);
    net.run(400 * MS);
    let grown = net.connection(CLIENT).stats().path.cwnd;
    net.switch(1);
    net.run(100 * MS);
    let elsewhere = net.connection(CLIENT).stats().path.cwnd;
    assert!(elsewhere < grown / 2, "{elsewhere} after {grown}");
    net.switch(0);
    net.run(30 * MS);
    let resumed = net.connection(CLIENT).stats().path.cwnd;
    assert!(resumed >= grown, "{resumed} after {grown}");
}

/// Cubic that writes down how often quinn asked for the window before each send.
#[derive(Clone)]
struct Recorder {
    inner: Cubic,
    calls: Arc<Mutex<u32>>,
    sends: Sends,
}

/// Calls of `window`, bytes.
type Sends = Arc<Mutex<Vec<(u32, u64)>>>;

struct RecorderFactory(Sends);

impl ControllerFactory for RecorderFactory {
    fn build(self: Arc<Self>, now: Instant, mtu: u16) -> Box<dyn Controller> {
        Box::new(Recorder {
            inner: Cubic::new(Arc::default(), now, mtu),
            calls: Arc::default(),
            sends: Arc::clone(&self.0),
        })
    }
}

impl Controller for Recorder {
    fn on_sent(&mut self, _: Instant, bytes: u64, _: u64) {
        let calls = std::mem::take(&mut *self.calls.lock().unwrap());
        self.sends.lock().unwrap().push((calls, bytes));
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        limited: bool,
        rtt: &RttEstimator,
    ) {
        self.inner.on_ack(now, sent, bytes, limited, rtt);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, persistent: bool, lost: u64) {
        self.inner.on_congestion_event(now, sent, persistent, lost);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.inner.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        *self.calls.lock().unwrap() += 1;
        self.inner.window()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// The observation `PathAware` rests on. If a new quinn-proto breaks it, this is where it shows.
#[test]
fn quinn_asks_for_the_window_twice_before_what_elicits_an_acknowledgement_and_never_before_a_bare_one()
 {
    let sends: [Sends; 2] = Default::default();
    let mut net = Net::connect([path(10), path(10)], |side, _| {
        Arc::new(RecorderFactory(Arc::clone(&sends[side])))
    });
    for side in &sends {
        side.lock().unwrap().clear();
    }
    // Small writes with pauses, then bulk.
    for _ in 0..20 {
        net.upload(1);
        net.run(50 * MS);
    }
    net.upload(3_000_000);
    net.run(2000 * MS);

    let client = sends[CLIENT].lock().unwrap();
    assert!(client.len() > 100);
    for (calls, bytes) in client.iter() {
        assert!(*calls >= 2, "{calls} calls before {bytes} bytes");
    }
    let server = sends[SERVER].lock().unwrap();
    assert!(server.len() > 100);
    let bare = server.iter().filter(|(calls, _)| *calls == 0).count();
    // Stream credit for the twenty small streams is not bare.
    assert!(bare + 45 >= server.len(), "{bare} of {}", server.len());
    for (calls, bytes) in server.iter() {
        assert!(
            *calls == 0 || *calls >= 2,
            "{calls} calls before {bytes} bytes"
        );
        assert!(*bytes <= 400);
    }
}
