//! Which addresses get a path, and how many, whatever a peer names and wherever its pings come from.

use byway_wire::probe::{ProbeBody, TxId};
use byway_wire::signal::{Candidate, CandidateKind, Mapping};

use super::*;
use crate::path::paths::{ASK_ANEW, Output};
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

    fn sent_to(&self, addr: SocketAddr) -> usize {
        let to = |o: &&Output| matches!(o, Output::Send { way: Way::Direct { remote, .. }, .. } if *remote == addr);
        self.paths.out.iter().filter(to).count()
    }
    fn sent(&mut self) -> usize {
        let out = std::mem::take(&mut self.paths.out);
        let probes = out.iter().filter(|o| matches!(o, Output::Send { .. }));
        probes.count()
    }
}

/// Each of another host.
fn addr(n: usize) -> SocketAddr {
    let ip = std::net::Ipv4Addr::from(0xcb00_7100 + n as u32);
    SocketAddr::new(ip.into(), 10_000)
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
    rig.now += Duration::from_secs(3);
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
        rig.asked.note(rig.now, addr(n), Because::Named, other);
    }
    rig.hear_names(vec![addr(0), addr(1), addr(2)]);
    assert_eq!(rig.sent(), 1, "the one that nobody else had asked");
    assert_eq!(rig.counters.candidate_waits, 2);
    // A peer that speaks from there is asked whether it is there, once.
    rig.hear_ping(addr(1));
    assert_eq!(rig.sent(), 2, "a pong and a ping");
    for other in others {
        rig.asked.note(rig.now, addr(3), Because::Heard, other);
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

#[test]
fn what_others_had_asked_is_asked_once_more_when_their_minute_is_over() {
    let mut rig = Rig::new(false);
    let begun = rig.now;
    let kept_away = |rig: &mut Rig| {
        for other in 90..94 {
            rig.asked.note(rig.now, addr(0), Because::Named, other);
        }
    };
    kept_away(&mut rig);
    rig.hear_names(vec![addr(0), addr(1)]);
    assert_eq!(rig.sent(), 1);
    let mut asked_at = Vec::new();
    while let Some((at, _)) = rig.paths.poll_timeout() {
        rig.now = at.max(rig.now);
        rig.with(|paths, cx| paths.handle_timeout(cx));
        if rig.sent() > 0 {
            asked_at.push((rig.now - begun).as_millis());
        }
    }
    // The other one's last probes, and the three of this one; then nobody is waited for any more.
    assert_eq!(asked_at, [100, 2_000, 60_000, 60_100, 62_000]);
    // Whom others keep away again is left to the next list.
    rig.now += TRIED_FOR;
    kept_away(&mut rig);
    rig.hear_names(vec![addr(0)]);
    rig.now += TRIED_FOR;
    kept_away(&mut rig);
    rig.with(|paths, cx| paths.handle_timeout(cx));
    assert_eq!((rig.sent(), rig.paths.poll_timeout()), (0, None));
}

#[test]
fn where_there_is_no_room_for_a_path_nobody_counts_as_asked() {
    let mut rig = Rig::new(false);
    for n in 0..MAX_DIRECT {
        rig.hear_ping(addr(n));
    }
    rig.hear_names(vec![addr(500)]);
    rig.hear_ping(addr(501));
    assert_eq!((rig.sent_to(addr(500)), rig.sent_to(addr(501))), (0, 0));
    rig.now += Duration::from_secs(3);
    rig.hear_names(vec![addr(500)]);
    rig.hear_ping(addr(501));
    // A ping each, and a pong.
    assert_eq!((rig.sent_to(addr(500)), rig.sent_to(addr(501))), (1, 2));
}

#[test]
fn a_peer_that_names_many_ports_of_one_host_has_a_few_of_them_asked() {
    let mut rig = Rig::new(false);
    let port = |n: usize| SocketAddr::from(([203, 0, 113, 9], 20_000 + n as u16));
    let mut sent = 0;
    for round in 0..8 {
        rig.hear_names((0..32).map(|n| port(32 * round + n)).collect());
        sent += rig.sent();
        rig.now += Duration::from_secs(3);
    }
    assert_eq!(sent, 16 * 3);
}

/// A network that goes and comes has a NAT behind it that may move at the same time.
#[test]
fn an_outage_does_not_use_up_what_a_nat_that_moves_needs() {
    let mut rig = Rig::new(false);
    let seen_at = |rig: &mut Rig, n: usize| {
        let list = vec![Candidate {
            kind: CandidateKind::Reflexive,
            addr: addr(n),
        }];
        rig.with(|paths, cx| {
            paths.offer(cx, list, Mapping::Unknown, n as u64);
            paths.handle_timeout(cx);
        });
    };
    seen_at(&mut rig, 101);
    rig.hear_names(vec![addr(1)]);
    rig.now += Duration::from_secs(1);
    assert_eq!(rig.sent_to(addr(1)), 1);
    rig.with(Paths::handle_outage_over);
    assert_eq!(rig.sent_to(addr(1)), 2);
    seen_at(&mut rig, 102);
    assert_eq!(rig.sent_to(addr(1)), 3);
    // Each has its own minute.
    rig.with(Paths::handle_outage_over);
    seen_at(&mut rig, 103);
    assert_eq!(rig.sent_to(addr(1)), 3);
    rig.now += ASK_ANEW;
    rig.with(Paths::handle_outage_over);
    let asked = rig.sent_to(addr(1));
    seen_at(&mut rig, 104);
    assert_eq!(rig.sent_to(addr(1)), asked + 1);
}
