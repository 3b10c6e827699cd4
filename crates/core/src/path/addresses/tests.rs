//! Which addresses get a path, and how many, whatever a peer names and wherever its pings come from.

use byway_wire::probe::{ProbeBody, TxId};

use super::*;
use crate::path::paths::Output;
use crate::path::rig::Rig;

impl Rig {
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
    let mut rig = Rig::new(false);
    for round in 0..60 {
        let list: Vec<SocketAddr> = (0..32).map(|n| addr(round * 32 + n)).collect();
        rig.hear_names(list.clone());
        for remote in list {
            rig.hear_ping(remote);
        }
        rig.now += Duration::from_millis(900);
    }
    assert!(
        rig.paths.tried.len() <= 2 * MAX_TRIED,
        "{}",
        rig.paths.tried.len()
    );
}

#[test]
fn an_answer_on_a_way_that_is_forgotten_makes_no_path_and_is_not_answered() {
    let mut rig = Rig::new(false);
    let pong = ProbeBody::Pong {
        txid: TxId([7; 12]),
        observed: None,
    };
    rig.hear(addr(1), pong);
    assert_eq!((rig.paths.table.len(), rig.sent()), (0, 0));
    rig.hear_ping(addr(1));
    assert_eq!(rig.paths.table.len(), 1, "a ping makes one");
}

/// Without this two new paths in a full table put each other out for ever, each by the ping that it sends.
#[test]
fn what_has_just_been_asked_makes_no_room_for_the_next() {
    let mut rig = Rig::new(false);
    for n in 0..MAX_DIRECT {
        rig.hear_ping(addr(n));
    }
    assert_eq!(rig.paths.table.len(), MAX_DIRECT);
    rig.hear_ping(addr(500));
    assert_eq!(rig.counters.candidate_cut, 1);
    rig.now += Duration::from_secs(2);
    rig.hear_ping(addr(501));
    let socket = SocketId(0);
    let remote = addr(501);
    assert!(rig.paths.find(Way::Direct { socket, remote }).is_some());
    assert_eq!(rig.paths.table.len(), MAX_DIRECT);
}

#[test]
fn what_enough_others_have_asked_in_vain_is_not_asked_again_for_this_one() {
    let mut rig = Rig::new(false);
    let others = 90..94;
    for (n, other) in (0..2).flat_map(|n| others.clone().map(move |other| (n, other))) {
        assert!(rig.asked.may(rig.now, addr(n), Because::Named, other));
    }
    rig.hear_names(vec![addr(0), addr(1), addr(2)]);
    assert_eq!(rig.sent(), 1, "the one that nobody else had asked");
    assert_eq!(rig.counters.candidate_waits, 2);
    // A peer that speaks from there is asked whether it is there, once.
    rig.hear_ping(addr(1));
    assert_eq!(rig.sent(), 2, "a pong and a ping");
    for other in others {
        assert!(rig.asked.may(rig.now, addr(3), Because::Heard, other));
    }
    rig.hear_ping(addr(3));
    assert_eq!(rig.counters.candidate_waits, 3);
    assert!(
        rig.paths
            .table
            .values()
            .all(|p| { !matches!(p.way, Way::Direct { remote, .. } if remote == addr(3)) })
    );
    // When it has answered the other, or after a minute, it is as any.
    rig.asked.answered(addr(0));
    rig.hear_names(vec![addr(0)]);
    assert_eq!(rig.sent(), 1);
}
