//! Two endpoints wired to each other, without a network.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
#![expect(
    clippy::disallowed_methods,
    reason = "a run needs one instant to start from; nothing depends on which"
)]

use super::*;
use byway_wire::{NodeId, SecretKey};
use quinn_proto::congestion::CubicConfig;
use quinn_proto::{Dir, StreamEvent};

const CLIENT: &str = "[2001:db8::1]:1";
const SERVER: &str = "[2001:db8::2]:1";

struct Pair {
    now: Instant,
    client: QuicHost,
    server: QuicHost,
    /// Everything sent, in order: who sent it and what.
    wire: Vec<(bool, Bytes)>,
    events: Vec<(bool, Output)>,
    /// Damages the datagram with that number.
    damage: Option<usize>,
}

fn host(seed: u64) -> QuicHost {
    QuicHost::new(QuicSetup {
        reset_key: [seed as u8; 32],
        rng: Rng::new(seed, "quic test"),
    })
}
fn key(n: u8) -> Arc<SecretKey> {
    Arc::new(SecretKey::from_bytes(&[n; 32]))
}
fn credentials(n: u8) -> Arc<crypto::Credentials> {
    crypto::Credentials::new(key(n), Rng::new(u64::from(n), "credentials"))
}
fn transport() -> TransportConfig {
    tunnel_transport(Arc::new(CubicConfig::default()))
}
fn server_setup() -> Arc<ServerConfig> {
    let crypto = crypto::Server {
        credentials: credentials(2),
        alpn: vec![b"byway/1"],
    };
    server_config(Arc::new(crypto), transport(), false)
}

impl Pair {
    fn dial(pinned: NodeId, alpn: &'static [u8]) -> (Self, ConnId) {
        let mut client = host(1);
        let mut server = host(2);
        server.listen(server_setup());
        let now = Instant::now();
        let crypto = crypto::Client {
            credentials: credentials(1),
            alpn,
        };
        let id = client
            .connect(
                now,
                Arc::new(crypto),
                Arc::new(transport()),
                SERVER.parse().unwrap(),
                &pinned.server_name(),
            )
            .unwrap();
        let pair = Self {
            now,
            client,
            server,
            wire: Vec::new(),
            events: Vec::new(),
            damage: None,
        };
        (pair, id)
    }
    /// Passes datagrams until nobody has anything to say at this time.
    fn settle(&mut self) {
        loop {
            let mut sent = Vec::new();
            for from_client in [true, false] {
                let host = if from_client {
                    &mut self.client
                } else {
                    &mut self.server
                };
                while let Some(output) = host.poll(self.now) {
                    match output {
                        Output::Batch(batch) => {
                            sent.extend(batch.datagrams().map(|d| (from_client, d)));
                        }
                        other => self.events.push((from_client, other)),
                    }
                }
            }
            if sent.is_empty() {
                return;
            }
            self.now += Duration::from_millis(1);
            for (from_client, data) in sent {
                let number = self.wire.len();
                self.wire.push((from_client, data.clone()));
                let mut data = data.to_vec();
                if self.damage == Some(number) {
                    let last = data.len() - 20;
                    data[last] ^= 1;
                }
                let (host, from) = if from_client {
                    (&mut self.server, CLIENT)
                } else {
                    (&mut self.client, SERVER)
                };
                host.handle(self.now, from.parse().unwrap(), &data, |_| {
                    Some(server_setup())
                });
            }
        }
    }
    fn run(&mut self, millis: u64) {
        for _ in 0..millis {
            self.settle();
            self.now += Duration::from_millis(1);
            self.client.handle_timeout(self.now);
            self.server.handle_timeout(self.now);
        }
    }
    fn connected(&self, client: bool) -> bool {
        self.events
            .iter()
            .any(|(c, o)| *c == client && matches!(o, Output::Event(_, Event::Connected)))
    }
    fn lost(&self, client: bool) -> bool {
        self.events.iter().any(|(c, o)| {
            *c == client && matches!(o, Output::Event(_, Event::ConnectionLost { .. }))
        })
    }
    fn hash(&self) -> u64 {
        use crate::rng::{FNV_OFFSET, fnv};
        self.wire.iter().fold(FNV_OFFSET, |h, (_, d)| fnv(d, h))
    }
}

#[test]
fn two_endpoints_connect_prove_their_keys_and_pass_a_stream() {
    let (mut pair, id) = Pair::dial(key(2).node_id(), b"byway/1");
    pair.settle();
    assert!(pair.connected(true) && pair.connected(false));
    let first: Vec<usize> = pair
        .wire
        .iter()
        .take_while(|(c, _)| *c)
        .map(|(_, d)| d.len())
        .collect();
    assert_eq!(
        first,
        [1200, 1200],
        "the first flight is two full datagrams"
    );

    let conn = pair.client.conn(id).unwrap();
    let peer = conn.crypto_session().peer_identity().unwrap();
    assert_eq!(*peer.downcast::<NodeId>().unwrap(), key(2).node_id());
    let stream = conn.streams().open(Dir::Bi).unwrap();
    conn.send_stream(stream).write(b"hello").unwrap();
    pair.settle();
    let opened = pair.events.iter().any(|(c, o)| {
        !c && matches!(
            o,
            Output::Event(_, Event::Stream(StreamEvent::Opened { dir: Dir::Bi }))
        )
    });
    assert!(opened);
}

#[test]
fn both_sides_export_the_same_key_and_other_labels_give_others() {
    let (mut pair, id) = Pair::dial(key(2).node_id(), b"byway/1");
    pair.settle();
    let export = |host: &mut QuicHost, label: &[u8]| {
        let mut out = [0; 32];
        let session = host.conn(id).unwrap().crypto_session();
        session
            .export_keying_material(&mut out, label, b"")
            .unwrap();
        out
    };
    let ours = export(&mut pair.client, b"a");
    assert_eq!(ours, export(&mut pair.server, b"a"));
    assert_ne!(ours, export(&mut pair.server, b"b"));
}

#[test]
fn a_client_that_pinned_another_key_refuses_the_server() {
    let (mut pair, _) = Pair::dial(key(3).node_id(), b"byway/1");
    pair.settle();
    assert!(pair.lost(true) && !pair.connected(true) && !pair.connected(false));
}

#[test]
fn a_server_refuses_a_protocol_it_does_not_speak() {
    let (mut pair, _) = Pair::dial(key(2).node_id(), b"other/1");
    pair.settle();
    assert!(!pair.connected(true) && pair.lost(true));
}

#[test]
fn a_damaged_packet_does_not_authenticate_and_the_handshake_recovers() {
    let (mut pair, _) = Pair::dial(key(2).node_id(), b"byway/1");
    pair.damage = Some(0);
    pair.settle();
    assert!(!pair.connected(true), "the first datagram was refused");
    pair.run(4000);
    assert!(pair.connected(true) && pair.connected(false));
}

#[test]
fn the_same_seed_puts_the_same_bytes_on_the_wire() {
    let run = || {
        let (mut pair, id) = Pair::dial(key(2).node_id(), b"byway/1");
        pair.settle();
        let conn = pair.client.conn(id).unwrap();
        let stream = conn.streams().open(Dir::Bi).unwrap();
        conn.send_stream(stream).write(&[7; 20_000]).unwrap();
        pair.run(500);
        pair.hash()
    };
    assert_eq!(run(), run());
}
