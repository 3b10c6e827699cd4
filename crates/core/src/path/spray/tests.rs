//! When a spray is of use, whom it goes to, and everything that forbids it.

use byway_wire::ChannelId;

use super::*;
use crate::io::{Carrier, LinkId};
use crate::path::rig::Rig;

const HARD: Mapping = Mapping::AddressAndPortDependent;
const EASY: Mapping = Mapping::EndpointIndependent;
const OWN: &str = "198.51.100.7:40000";
const PEER: &str = "203.0.113.9:5000";

#[test]
fn every_port_comes_once_before_any_comes_again() {
    for seed in 0..20 {
        let mut order = PortOrder::new(&mut Rng::new([seed; 32]));
        let seen: BTreeSet<u16> = order.by_ref().take(PORTS as usize).collect();
        assert_eq!(seen.len(), PORTS as usize);
        assert_eq!(seen.first(), Some(&FIRST_PORT));
    }
}

/// What a side says of itself.
type Said<'a> = (Mapping, &'a [&'a str]);

/// A tunnel in use through a channel of a relay that sees the peer at an address.
impl Rig {
    /// The peer as a relay sees it, and both sides' words.
    fn meet(spray: bool, attested: &str, own: Said<'_>, peer: Said<'_>) -> Self {
        let mut rig = Self::new(spray);
        let list = |said: Said<'_>| -> Vec<Candidate> {
            said.1
                .iter()
                .map(|addr| Candidate {
                    kind: CandidateKind::Reflexive,
                    addr: addr.parse().unwrap(),
                })
                .collect()
        };
        let (own_list, peer_list) = (list(own), list(peer));
        rig.with(|paths, cx| {
            let channel = Way::Channel {
                link: LinkId(1),
                carrier: Carrier::Udp,
                channel: ChannelId::from_u64(7),
            };
            paths.add_channel(cx, channel, Some(attested.parse().unwrap()));
            paths.note_own_network(&own_list, own.0);
            paths.note_peer_network(&peer_list, peer.0);
        });
        rig
    }

    /// Lets time pass as the timers ask, while the tunnel is in use; gives what was asked of the node.
    fn pass(&mut self, time: Duration) -> (Vec<Ask>, Vec<Way>) {
        let end = self.now + time;
        let (mut asks, mut sent) = (Vec::new(), Vec::new());
        while self.now < end {
            self.with(|paths, cx| {
                paths.flow.active_until = Some(cx.now + Duration::from_secs(1));
                paths.handle_timeout(cx);
            });
            while let Some(output) = self.paths.poll() {
                match output {
                    Output::Spray(ask) => asks.push(ask),
                    Output::Send { way, data } if way.kind() == crate::io::PathKind::Direct => {
                        assert!(data.len() <= 120);
                        sent.push(way);
                    }
                    _ => {}
                }
            }
            self.now += Duration::from_millis(5);
        }
        (asks, sent)
    }

    fn asks_to_spray(&mut self) -> bool {
        self.pass(Duration::from_secs(4)).0 == [Ask::Permission]
    }
}

#[test]
fn one_hard_and_one_easy_nat_ask_for_a_spray_and_no_other_pair_does() {
    for (ours, theirs, expected) in [
        (HARD, EASY, true),
        (EASY, HARD, true),
        (Mapping::AddressDependent, EASY, true),
        (HARD, HARD, false),
        (EASY, EASY, false),
        // What may be easy, too.
        (HARD, Mapping::Unknown, true),
        (Mapping::Unknown, HARD, true),
        (EASY, Mapping::Unknown, false),
        (Mapping::Unknown, Mapping::Unknown, false),
    ] {
        let mut rig = Rig::meet(true, PEER, (ours, &[OWN]), (theirs, &[PEER]));
        assert_eq!(rig.asks_to_spray(), expected, "{ours:?} {theirs:?}");
    }
}

#[test]
fn the_switch_turns_it_off() {
    let mut rig = Rig::meet(false, PEER, (HARD, &[OWN]), (EASY, &[PEER]));
    assert!(!rig.asks_to_spray());
}

#[test]
fn nothing_is_sprayed_at_an_address_that_no_relay_attests() {
    for attested in ["203.0.113.10:5000", "[2001:db8::9]:5000"] {
        let mut rig = Rig::meet(true, attested, (EASY, &[OWN]), (HARD, &[PEER]));
        assert!(!rig.asks_to_spray(), "{attested}");
    }
}

#[test]
fn a_peer_that_is_seen_at_two_addresses_or_at_ours_is_left_alone() {
    let two = [PEER, "203.0.113.10:5000"];
    let mut rig = Rig::meet(true, PEER, (EASY, &[OWN]), (HARD, &two));
    assert!(!rig.asks_to_spray());
    let inside = "198.51.100.7:9";
    let mut rig = Rig::meet(true, inside, (EASY, &[OWN]), (HARD, &[inside]));
    assert!(!rig.asks_to_spray());
    // An easy NAT has one port. Which of two is the one to open sockets for?
    let ports = [PEER, "203.0.113.9:5001"];
    let mut rig = Rig::meet(true, PEER, (HARD, &[OWN]), (EASY, &ports));
    assert!(!rig.asks_to_spray());
}

#[test]
fn nothing_is_sprayed_at_this_host_at_groups_or_into_a_network_that_is_not_ours() {
    let inside = "10.9.9.9:4000";
    for (own, target, expected) in [
        (OWN, "127.0.0.1:5000", false),
        (OWN, "224.0.0.251:5000", false),
        (OWN, "169.254.169.254:5000", false),
        (OWN, "192.168.1.1:5000", false),
        // Where we are seen inside ourselves, so may the peer be.
        (inside, "192.168.1.1:5000", true),
    ] {
        for (ours, theirs) in [(EASY, HARD), (HARD, EASY)] {
            let mut rig = Rig::meet(true, target, (ours, &[own]), (theirs, &[target]));
            assert_eq!(rig.asks_to_spray(), expected, "{own} {target} {ours:?}");
        }
    }
}

#[test]
fn another_network_ends_what_was_learnt_in_the_old_one_and_the_bound_stays() {
    let mut rig = Rig::meet(true, PEER, (EASY, &[OWN]), (HARD, &[PEER]));
    assert!(rig.asks_to_spray());
    rig.with(|paths, cx| paths.permit_spray(cx, true));
    rig.pass(Duration::from_secs(5));
    rig.paths.spray.rest_until = Some(rig.now + REST_MAX);
    rig.with(|paths, cx| paths.handle_network_change(cx));
    let (asks, _) = rig.pass(REST - Duration::from_secs(10));
    assert_eq!(asks, []);
    let (asks, _) = rig.pass(Duration::from_secs(20));
    assert_eq!(asks, [Ask::Permission]);
}

#[test]
fn what_is_not_known_to_be_easy_is_tried_once_in_each_network() {
    for (own, peer) in [(HARD, Mapping::Unknown), (Mapping::Unknown, HARD)] {
        let mut rig = Rig::meet(true, PEER, (own, &[OWN]), (peer, &[PEER]));
        assert!(rig.asks_to_spray());
        rig.with(|paths, cx| paths.permit_spray(cx, true));
        let (asks, _) = rig.pass(REST * 3);
        let again = |asks: &[Ask]| asks.contains(&Ask::Permission);
        assert!(!again(&asks), "{own:?} {peer:?}: {asks:?}");
        rig.with(|paths, cx| paths.handle_network_change(cx));
        assert!(again(&rig.pass(REST).0), "{own:?} {peer:?}");
    }
}

#[test]
fn without_permission_nothing_happens_but_another_question() {
    let mut rig = Rig::meet(true, PEER, (EASY, &[OWN]), (HARD, &[PEER]));
    assert!(rig.asks_to_spray());
    for _ in 0..3 {
        rig.with(|paths, cx| paths.permit_spray(cx, false));
        let (asks, sent) = rig.pass(TURNED_AWAY + Duration::from_secs(1));
        assert_eq!((asks, sent.len()), (vec![Ask::Permission], 0));
    }
    assert_eq!(rig.counters.sprays, 0);
}

#[test]
fn the_easy_side_probes_each_port_once_and_a_thousand_a_second_at_the_most() {
    let mut rig = Rig::meet(true, PEER, (EASY, &[OWN]), (HARD, &[PEER]));
    assert!(rig.asks_to_spray());
    rig.with(|paths, cx| paths.permit_spray(cx, true));
    let (_, first) = rig.pass(Duration::from_secs(1));
    assert!((950..=1_010).contains(&first.len()), "{}", first.len());
    let (_, rest) = rig.pass(Duration::from_secs(5));
    let ways: BTreeSet<Way> = first.iter().chain(&rest).copied().collect();
    assert_eq!(ways.len(), first.len() + rest.len(), "a port came twice");
    assert_eq!(ways.len(), usize::from(PINGS));
    let ip: IpAddr = "203.0.113.9".parse().unwrap();
    let there = |way: &Way| matches!(way, Way::Direct { remote, .. } if remote.ip() == ip);
    assert!(ways.iter().all(there));
}

#[test]
fn the_hard_side_takes_what_sockets_it_gets_and_gives_all_of_them_back() {
    let mut rig = Rig::meet(true, PEER, (HARD, &[OWN]), (EASY, &[PEER]));
    assert!(rig.asks_to_spray());
    rig.with(|paths, cx| paths.permit_spray(cx, true));
    let (asks, _) = rig.pass(Duration::from_millis(100));
    assert_eq!(asks, [Ask::Sockets(FIRST_SOCKETS)]);
    // The host has only two.
    let sockets = vec![SocketId(10), SocketId(11)];
    rig.with(|paths, cx| paths.spray_from(cx, sockets.clone()));
    let (_, sent) = rig.pass(Duration::from_millis(100));
    let to = |socket: &SocketId| Way::Direct {
        socket: *socket,
        remote: PEER.parse().unwrap(),
    };
    assert_eq!(sent, sockets.iter().map(to).collect::<Vec<_>>());
    let (asks, _) = rig.pass(Duration::from_secs(6));
    let rest = Ask::Sockets(SOCKETS - FIRST_SOCKETS);
    assert_eq!(asks, [rest, Ask::Release(sockets)]);
    // Too late: back with them.
    rig.with(|paths, cx| paths.spray_from(cx, vec![SocketId(12)]));
    let (asks, sent) = rig.pass(Duration::from_secs(1));
    assert_eq!(
        (asks, sent.len()),
        (vec![Ask::Release(vec![SocketId(12)])], 0)
    );
}

/// A path that just answered.
fn answered(rig: &mut Rig, socket: SocketId, remote: &str) -> crate::path::PathId {
    let way = Way::Direct {
        socket,
        remote: remote.parse().unwrap(),
    };
    rig.with(|paths, cx| {
        let id = paths.insert(cx, way, true).unwrap();
        paths.table.get_mut(&id).unwrap().last_answer = Some(cx.now);
        id
    })
}

#[test]
fn a_path_of_another_family_is_no_reason_to_try_what_failed_again() {
    for (found, expected) in [("[2001:db8::9]:5000", false), ("203.0.113.9:7777", true)] {
        let mut rig = Rig::meet(true, PEER, (HARD, &[OWN]), (Mapping::Unknown, &[PEER]));
        assert!(rig.asks_to_spray());
        rig.with(|paths, cx| paths.permit_spray(cx, true));
        rig.pass(Duration::from_millis(100));
        answered(&mut rig, SocketId(0), found);
        // It ends the spray, and is gone after a while.
        rig.pass(Duration::from_millis(100));
        assert!(!rig.paths.is_spraying());
        let (asks, _) = rig.pass(REST * 3);
        assert_eq!(asks.contains(&Ask::Permission), expected, "{found}");
    }
}

#[test]
fn a_socket_that_the_system_ends_takes_its_paths_along_at_once_and_the_peer_is_told() {
    let mut rig = Rig::meet(true, PEER, (HARD, &[OWN]), (EASY, &[PEER]));
    assert!(rig.asks_to_spray());
    rig.with(|paths, cx| paths.permit_spray(cx, true));
    let sockets = vec![SocketId(10), SocketId(11)];
    rig.with(|paths, cx| paths.spray_from(cx, sockets));
    let hit = answered(&mut rig, SocketId(10), PEER);
    rig.with(|paths, cx| paths.set_primary(cx, hit, crate::io::RouteReason::Better));
    let direct = rig.paths.primary_way();
    assert_eq!(
        direct.map(|way| way.kind()),
        Some(crate::io::PathKind::Direct)
    );
    while rig.paths.poll().is_some() {}
    // Not one of its own, or one that nothing goes by.
    for other in [SocketId(0), SocketId(11)] {
        rig.with(|paths, cx| paths.lose_socket(cx, other));
        assert_eq!(rig.paths.primary_way(), direct);
        assert!(rig.paths.poll().is_none());
    }
    rig.with(|paths, cx| paths.lose_socket(cx, SocketId(10)));
    let channel = rig.paths.primary_way();
    assert_eq!(
        channel.map(|way| way.kind()),
        Some(crate::io::PathKind::RelayUdp)
    );
    let (mut replayed, mut told) = (false, false);
    while let Some(output) = rig.paths.poll() {
        replayed |= matches!(output, Output::Replay);
        told |= matches!(output, Output::Send { way, .. } if Some(way) == channel);
    }
    assert!(replayed && told);
    // It is gone already, and is not given back.
    let (asks, _) = rig.pass(Duration::from_secs(6));
    let given_back = |ask: &Ask| matches!(ask, Ask::Release(ids) if ids.contains(&SocketId(10)));
    assert!(!asks.iter().any(given_back), "{asks:?}");
}
