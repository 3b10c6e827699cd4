//! Hostile peers and strangers: a counter rises, nothing else changes. What relays may try is in [`super::hostile_relays`].

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use byway_wire::relay::control::*;

use super::hostile_relays::channel;
use super::world::*;
use crate::io::*;

pub(super) fn stranger() -> Way {
    Way::Direct {
        socket: SocketId(0),
        remote: "192.0.2.66:666".parse().unwrap(),
    }
}

#[test]
fn a_probe_with_an_unknown_index_is_counted_and_unanswered() {
    let mut world = World::direct();
    let mut probe = vec![0x81, 0x10];
    probe.resize(200, 7);
    world.hosts[AGENT]
        .node
        .handle_datagram(world.now, stranger(), None, &probe);
    assert_eq!(world.hosts[AGENT].node.counters().probe_unknown_index, 1);
    assert!(world.hosts[AGENT].node.poll_transmit().is_none());
}

/// Lets the client send one probe and catches it on its way.
fn caught_probe(world: &mut World) -> Bytes {
    let now = world.now + ms(20_000);
    let node = &mut world.hosts[CLIENT].node;
    node.handle_timeout(now);
    node.poll_transmit().expect("a keep-alive").data
}

#[test]
fn a_forged_or_replayed_probe_changes_nothing() {
    let mut world = World::direct();
    world.pass(ms(5_000));
    let probe = caught_probe(&mut world);
    let route = world.hosts[AGENT].route.clone();
    let now = world.now;
    let home = Way::Direct {
        socket: SocketId(0),
        remote: world.hosts[CLIENT].addr,
    };
    let agent = &mut world.hosts[AGENT].node;
    let mut forged = probe.to_vec();
    *forged.last_mut().unwrap() ^= 1;
    agent.handle_datagram(now, home, None, &forged);
    assert_eq!(agent.counters().probe_forged, 1);
    assert!(agent.poll_transmit().is_none());
    agent.handle_datagram(now, home, None, &probe);
    assert!(
        agent.poll_transmit().is_some(),
        "the genuine one is answered"
    );
    while agent.poll_transmit().is_some() {}
    agent.handle_datagram(now, stranger(), None, &probe);
    assert_eq!(agent.counters().probe_replayed, 1);
    assert!(agent.poll_transmit().is_none() && agent.poll_event().is_none());
    assert_eq!(world.hosts[AGENT].route, route);
}

#[test]
fn the_index_of_a_forgotten_peer_is_retired() {
    let mut world = World::direct();
    world.pass(ms(5_000));
    let probe = caught_probe(&mut world);
    let peer = world.hosts[AGENT].peer.unwrap();
    let home = Way::Direct {
        socket: SocketId(0),
        remote: world.hosts[CLIENT].addr,
    };
    let now = world.now;
    let agent = &mut world.hosts[AGENT].node;
    agent.close_peer(now, peer);
    while agent.poll_event().is_some() {}
    agent.handle_datagram(now, home, None, &probe);
    assert_eq!(agent.counters().probe_unknown_index, 1);
    assert!(agent.poll_transmit().is_none());
}

#[test]
fn an_authenticated_ping_from_a_new_address_makes_a_path_to_check() {
    let mut world = World::direct();
    world.pass(ms(5_000));
    let probe = caught_probe(&mut world);
    let now = world.now;
    let agent = &mut world.hosts[AGENT].node;
    agent.handle_datagram(now, stranger(), None, &probe);
    let sent: Vec<Transmit> = std::iter::from_fn(|| agent.poll_transmit()).collect();
    assert!(sent.iter().all(|t| t.way == stranger()));
    // The answer, as long as the ping, and a ping of our own.
    assert_eq!(sent[0].data.len(), probe.len());
    assert_eq!(sent.len(), 2);
}

pub(super) fn offer(world: &mut World, list: Vec<SocketAddr>) {
    use byway_wire::signal::{Candidate, CandidateKind};
    let list = list
        .into_iter()
        .map(|addr| Candidate {
            kind: CandidateKind::Host,
            addr,
        })
        .collect();
    world.hosts[CLIENT].node.offer_for_test(world.now, list);
    world.pass(ms(3_000));
}

#[test]
fn candidates_that_cannot_be_a_peer_are_never_probed() {
    let mut world = World::direct();
    let bad = [
        "127.0.0.1:22",
        "[::1]:22",
        "224.0.0.1:5000",
        "[ff02::1]:5000",
        "255.255.255.255:5000",
        "0.0.0.0:5000",
        "169.254.1.1:5000",
        "[fe80::1]:5000",
        "10.0.0.1:0",
        "0.1.2.3:5000",
        "240.0.0.1:5000",
        "[::ffff:127.0.0.1]:22",
        "198.51.100.2:5000", // The agent itself.
    ];
    let before = world.hosts[AGENT].node.counters().candidate_refused;
    offer(&mut world, bad.iter().map(|a| a.parse().unwrap()).collect());
    let client = world.hosts[CLIENT].addr;
    for (_, way, _) in &world.hosts[AGENT].probes_sent {
        assert!(
            !matches!(way, Way::Direct { remote, .. } if *remote != client),
            "{way:?}"
        );
    }
    assert_eq!(
        world.hosts[AGENT].node.counters().candidate_refused - before,
        bad.len() as u64
    );
}

#[test]
fn an_address_nobody_attests_gets_three_small_probes_however_often_it_is_offered() {
    let mut world = World::direct();
    let victim: SocketAddr = "192.0.2.80:80".parse().unwrap();
    for _ in 0..5 {
        offer(&mut world, vec![victim]);
    }
    let at_victim: Vec<usize> = world.hosts[AGENT]
        .probes_sent
        .iter()
        .filter(|(_, way, _)| matches!(way, Way::Direct { remote, .. } if *remote == victim))
        .map(|p| p.2)
        .collect();
    assert_eq!(at_victim.len(), 3);
    assert!(at_victim.iter().all(|len| *len <= 120));
}

/// How many probes the agent sent to an address.
fn probes_to(world: &World, addr: SocketAddr) -> usize {
    let sent = world.hosts[AGENT].probes_sent.iter();
    sent.filter(|(_, way, _)| matches!(way, Way::Direct { remote, .. } if *remote == addr))
        .count()
}

/// What an outage took is asked for once more when the relay is heard again. A peer cannot have that by links of its own, nor a
/// network that goes and comes, or a relay that plays dead, have it all the time.
#[test]
fn three_more_probes_follow_an_outage_of_our_links_once_in_a_minute_and_none_one_of_the_peers() {
    let mut world = World::new();
    world.direct_open = false;
    world.connect();
    world.pass(ms(2_000));
    let victim: SocketAddr = "192.0.2.80:80".parse().unwrap();
    offer(&mut world, vec![victim]);
    world.chat(AGENT, ms(100), ms(3_000));
    for (whose, asked) in [(CLIENT, 3), (AGENT, 6), (AGENT, 6), (AGENT, 6)] {
        world.break_links(whose);
        world.pass(ms(5_000));
        offer(&mut world, vec![victim]);
        assert_eq!(probes_to(&world, victim), asked, "{whose}");
    }
    world.pass(ms(60_000));
    world.break_links(AGENT);
    world.pass(ms(5_000));
    assert_eq!(probes_to(&world, victim), 9);
}

/// After a sleep links are found dead first, and then the host says that it slept.
#[test]
fn a_host_that_wakes_asks_once_and_not_again_when_its_relay_is_heard() {
    let mut world = World::new();
    world.direct_open = false;
    world.connect();
    world.pass(ms(2_000));
    let victim: SocketAddr = "192.0.2.80:80".parse().unwrap();
    offer(&mut world, vec![victim]);
    assert_eq!(probes_to(&world, victim), 3);
    world.break_links(AGENT);
    let now = world.now;
    let agent = &mut world.hosts[AGENT].node;
    agent.handle_wake(now, Duration::from_secs(30));
    world.pass(ms(5_000));
    assert_eq!(probes_to(&world, victim), 6);
    // So the minute for an outage is not used up.
    world.break_links(AGENT);
    world.pass(ms(5_000));
    assert_eq!(probes_to(&world, victim), 9);
}

/// Its owner would have us ask for peers that it has no part in.
#[test]
fn a_relay_that_plays_dead_has_nobody_asked_for_whom_others_carry() {
    let mut world = World::with(config(Role::Client), config(Role::Agent), 3);
    world.direct_open = false;
    world.connect();
    world.pass(ms(10_000));
    let victim: SocketAddr = "192.0.2.80:80".parse().unwrap();
    offer(&mut world, vec![victim]);
    let carries = |w: &World, n: usize| !w.relays[n].channels.is_empty();
    let other = (0..3).find(|n| !carries(&world, *n)).expect("one is idle");
    let used = (0..3).find(|n| carries(&world, *n)).expect("one is used");
    for (whose, asked) in [(other, 3), (used, 6)] {
        world.break_links_to(AGENT, whose);
        world.pass(ms(5_000));
        assert_eq!(probes_to(&world, victim), asked);
    }
}

#[test]
fn a_relay_that_a_peer_names_as_its_own_address_gets_no_more_than_anybody_else() {
    let mut world = World::direct();
    let relay: SocketAddr = "203.0.113.1:443".parse().unwrap();
    for _ in 0..5 {
        offer(&mut world, vec![relay]);
    }
    assert_eq!(probes_to(&world, relay), 3);
    assert!(world.both(|k| k == Some(PathKind::Direct)));
}

/// It names ports of its own address, which a relay attests, and answers at none of them.
#[test]
fn a_peer_that_promises_paths_and_never_answers_costs_a_ladder_each_and_then_one_ping_a_minute() {
    let mut world = World::direct();
    let ip = world.hosts[CLIENT].addr.ip();
    let promised: Vec<SocketAddr> = (0..32).map(|n| SocketAddr::new(ip, 7_000 + n)).collect();
    offer(&mut world, promised.clone());
    // In use all the time: a tunnel at rest would not look for better paths at all.
    world.chat(AGENT, ms(500), ms(30_000));
    let counts =
        |world: &World| -> Vec<usize> { promised.iter().map(|p| probes_to(world, *p)).collect() };
    let soon = counts(&world);
    assert!(soon.iter().all(|n| (7..=10).contains(n)), "{soon:?}");
    world.chat(AGENT, ms(500), ms(600_000));
    let later = counts(&world);
    for (soon, later) in soon.iter().zip(&later) {
        assert!(later - soon <= 11, "{soon} and then {later}");
    }
    assert!(world.both(|k| k == Some(PathKind::Direct)));
}

#[test]
fn what_is_sent_back_to_its_sender_is_counted_and_nothing_else() {
    let mut world = World::direct();
    world.pass(ms(5_000));
    let probe = caught_probe(&mut world);
    let now = world.now;
    let peer = Way::Direct {
        socket: SocketId(0),
        remote: world.hosts[AGENT].addr,
    };
    let client = &mut world.hosts[CLIENT].node;
    while client.poll_transmit().is_some() || client.poll_event().is_some() {}
    let before = *client.counters();
    client.handle_datagram(now, peer, None, &probe);
    assert_eq!(
        client.counters().probe_unknown_index,
        before.probe_unknown_index + 1
    );
    assert!(client.poll_transmit().is_none() && client.poll_event().is_none());

    // A signal of the client's, by the relay.
    let (channel, _) = channel(&world);
    let link = world.link_of(CLIENT);
    world.hosts[CLIENT].controls_sent.clear();
    offer(&mut world, vec!["192.0.2.80:80".parse().unwrap()]);
    let sent = std::mem::take(&mut world.hosts[CLIENT].controls_sent);
    let sealed = sent.into_iter().find_map(|message| match message {
        Control::Signal { sealed, .. } => Some(sealed),
        _ => None,
    });
    let sealed = sealed.expect("a signal");
    let (probes, now) = (world.hosts[CLIENT].probes_sent.len(), world.now);
    let client = &mut world.hosts[CLIENT].node;
    let before = *client.counters();
    client.handle_control(now, link, Control::Signal { channel, sealed });
    assert_eq!(client.counters().signal_forged, before.signal_forged + 1);
    world.pass(ms(500));
    let victim = "192.0.2.80:80".parse().unwrap();
    let probed = &world.hosts[CLIENT].probes_sent[probes..];
    let at_victim =
        |(_, way, _): &&(_, Way, _)| matches!(way, Way::Direct { remote, .. } if *remote == victim);
    assert_eq!(probed.iter().filter(at_victim).count(), 0);
    assert!(world.both(|k| k == Some(PathKind::Direct)));
}

#[test]
fn thousands_of_candidates_stay_bounded() {
    let mut world = World::direct();
    let before = world.hosts[AGENT].probes_sent.len();
    for batch in 0..313u32 {
        use byway_wire::signal::{Candidate, CandidateKind};
        let addr = |n: u32| {
            SocketAddr::new(
                std::net::Ipv4Addr::from(0x0a00_0001 + batch * 32 + n).into(),
                4_000,
            )
        };
        let list = (0..32)
            .map(|n| Candidate {
                kind: CandidateKind::Host,
                addr: addr(n),
            })
            .collect();
        world.hosts[CLIENT].node.offer_for_test(world.now, list);
        world.pass(ms(1));
    }
    world.pass(ms(10_000));
    let sent = world.hosts[AGENT].probes_sent.len() - before;
    assert!(sent <= 128 * 3 + 64, "{sent} probes");
    assert!(world.both(|k| k == Some(PathKind::Direct)));
}

/// Has the client's next ping arrive at the agent from a forged source.
fn forge_source(world: &mut World, remote: SocketAddr) {
    let probe = caught_probe(world);
    let way = Way::Direct {
        socket: SocketId(0),
        remote,
    };
    let now = world.now;
    world.hosts[AGENT]
        .node
        .handle_datagram(now, way, None, &probe);
}

#[test]
fn a_peer_that_forges_its_source_address_cannot_aim_our_probes() {
    let mut world = World::direct();
    let victim: SocketAddr = "192.0.2.80:80".parse().unwrap();
    // Named as a candidate and forged as a source, again and again while the tunnel is in use.
    offer(&mut world, vec![victim]);
    for _ in 0..6 {
        world.chat(AGENT, ms(50), ms(1_000));
        world.pass(ms(2_000));
        forge_source(&mut world, victim);
        world.pass(ms(100));
    }
    let at_victim: Vec<usize> = world.hosts[AGENT]
        .probes_sent
        .iter()
        .filter(|(_, way, _)| matches!(way, Way::Direct { remote, .. } if *remote == victim))
        .map(|p| p.2)
        .collect();
    // Six searches at most, and the answers to pings that were heard while they ran.
    assert!(at_victim.len() <= 7, "{at_victim:?}");
    assert!(at_victim.iter().all(|len| *len <= 120));
}

#[test]
fn a_peer_whose_address_moves_a_hundred_times_still_gets_a_new_path() {
    let mut world = World::direct();
    for port in 6_000..6_100 {
        world.pass(ms(61_000));
        world.hosts[CLIENT].addr.set_port(port);
        world.chat(CLIENT, ms(100), ms(3_000));
    }
    world.chat(CLIENT, ms(50), ms(30_000));
    let here = world.hosts[CLIENT].addr;
    let primary = world.hosts[AGENT].route.as_ref().unwrap().primary;
    assert!(
        matches!(primary, Some(Way::Direct { remote, .. }) if remote == here),
        "{primary:?}"
    );
}
