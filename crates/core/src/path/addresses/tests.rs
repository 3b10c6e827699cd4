//! Which addresses get a path, and how many, whatever a peer names and wherever its pings come from.

use byway_wire::pair::PairKeys;
use byway_wire::probe::{Index, ProbeBody, TxId};
use byway_wire::relay::control::Role;
use byway_wire::{Instance, NodeInstance, ProbeSecret, SecretKey};

use super::*;
use crate::counters::Counters;
use crate::io::{Admission, Config, LinkMode, LocalSocket};
use crate::path::Association;
use crate::path::paths::Output;
use crate::rng::Rng;

/// One node's paths, and what the peer seals its probes with.
struct Side {
    now: Instant,
    rng: Rng,
    counters: Counters,
    paths: Paths,
    peer: Association,
}

impl Side {
    #[expect(
        clippy::disallowed_methods,
        reason = "a virtual clock needs one instant to count from"
    )]
    fn new() -> Self {
        let now = Instant::now();
        let side = |n: u8| NodeInstance {
            node: SecretKey::from_bytes(&[n; 32]).node_id(),
            instance: Instance(u64::from(n)),
        };
        let secret = |n: u8| ProbeSecret::from_bytes([n; 32]);
        let associate = |own: u8, other: u8| {
            let public = secret(other).public();
            let keys = PairKeys::derive(&secret(own), side(own), &public, side(other));
            let mut it = Association::new(keys.unwrap(), Index(u64::from(own)), 0);
            it.set_peer_index(Index(u64::from(other)));
            it
        };
        let config = Config {
            role: Role::Client,
            links: LinkMode::Auto,
            direct: true,
            spray: false,
            admission: Admission::default(),
        };
        let socket = LocalSocket {
            id: SocketId(0),
            port: 5000,
            v4: true,
            v6: false,
            addrs: vec![],
        };
        Self {
            now,
            rng: Rng::new([3; 32]),
            counters: Counters::default(),
            paths: Paths::new(now, associate(1, 2), &config, vec![socket]),
            peer: associate(2, 1),
        }
    }

    fn with<T>(&mut self, f: impl FnOnce(&mut Paths, &mut Cx<'_>) -> T) -> T {
        let mut cx = Cx {
            now: self.now,
            rng: &mut self.rng,
            counters: &mut self.counters,
        };
        f(&mut self.paths, &mut cx)
    }

    /// The peer says this from there.
    fn hear(&mut self, remote: SocketAddr, body: ProbeBody) {
        let probe = self.peer.seal_probe(&mut self.rng, body, 120).unwrap();
        let socket = SocketId(0);
        self.with(|paths, cx| paths.handle_probe(cx, Way::Direct { socket, remote }, &probe));
    }
    fn hear_ping(&mut self, remote: SocketAddr) {
        let txid = TxId(self.rng.bytes());
        self.hear(remote, ProbeBody::Ping { txid });
    }

    /// The peer names these, and these alone.
    fn hear_names(&mut self, list: Vec<SocketAddr>) {
        self.with(|paths, cx| {
            paths.remote = list;
            paths.expand(cx);
            paths.run_checks(cx);
        });
    }

    fn sent(&mut self) -> usize {
        let out = std::mem::take(&mut self.paths.out);
        let probes = out.iter().filter(|o| matches!(o, Output::Send { .. }));
        probes.count()
    }
}

fn addr(n: usize) -> SocketAddr {
    let ip = std::net::Ipv4Addr::from(0xcb00_7100 + (n / 1_000) as u32);
    SocketAddr::new(ip.into(), 10_000 + (n % 1_000) as u16)
}

#[test]
fn who_names_addresses_and_forges_pings_from_them_again_and_again_aims_a_bounded_number_of_probes()
{
    let mut side = Side::new();
    for round in 0..60 {
        let list: Vec<SocketAddr> = (0..32).map(|n| addr(round * 32 + n)).collect();
        side.hear_names(list.clone());
        for remote in list {
            side.hear_ping(remote);
        }
        side.now += Duration::from_millis(900);
    }
    assert!(
        side.paths.tried.len() <= 2 * MAX_TRIED,
        "{}",
        side.paths.tried.len()
    );
}

#[test]
fn an_answer_on_a_way_that_is_forgotten_makes_no_path_and_is_not_answered() {
    let mut side = Side::new();
    let pong = ProbeBody::Pong {
        txid: TxId([7; 12]),
        observed: None,
    };
    side.hear(addr(1), pong);
    assert_eq!((side.paths.table.len(), side.sent()), (0, 0));
    side.hear_ping(addr(1));
    assert_eq!(side.paths.table.len(), 1, "a ping makes one");
}

/// Without this two new paths in a full table put each other out for ever, each by the ping that it sends.
#[test]
fn what_has_just_been_asked_makes_no_room_for_the_next() {
    let mut side = Side::new();
    for n in 0..MAX_DIRECT {
        side.hear_ping(addr(n));
    }
    assert_eq!(side.paths.table.len(), MAX_DIRECT);
    side.hear_ping(addr(500));
    assert_eq!(side.counters.candidate_cut, 1);
    side.now += Duration::from_secs(2);
    side.hear_ping(addr(501));
    let socket = SocketId(0);
    let remote = addr(501);
    assert!(side.paths.find(Way::Direct { socket, remote }).is_some());
    assert_eq!(side.paths.table.len(), MAX_DIRECT);
}
