//! The life of a tunnel: opening, going direct, losing links, idling, ending.

use byway_wire::relay::control::*;
use byway_wire::{NodeId, TicketSecret};

use super::world::*;
use crate::io::*;

#[test]
fn the_first_flight_rides_in_open_behind_hello() {
    let mut world = World::new();
    world.pass(ms(500));
    world.connect();
    let begun = world.elapsed();
    assert!(world.run_for(ms(1_000), |w| w.hosts[AGENT].delivered.len() == 2));
    // Two round trips for QUIC and none for Hello: 2 x 16 ms to connect and send, 8 ms on to the agent.
    assert_eq!(world.elapsed() - begun, ms(16 + 8 + 8));
    let names: Vec<_> = world.hosts[CLIENT]
        .controls_sent
        .iter()
        .map(Control::name)
        .collect();
    assert_eq!(names[..2], ["Hello", "Open"]);
    assert_eq!(world.hosts[AGENT].delivered[0], "first flight, part one");
}

/// A datagram of the toy tunnel, as its second flight.
fn second_flight(world: &mut World, seq: u64) {
    let mut data = vec![0x40, 0];
    data.extend_from_slice(&seq.to_be_bytes());
    let peer = world.hosts[CLIENT].peer.unwrap();
    let now = world.now;
    world.hosts[CLIENT].node.send_first(now, peer, data.into());
}

#[test]
fn an_agent_that_answers_before_the_relay_does_gets_the_second_flight_too() {
    let mut world = World::new();
    world.connect();
    let opened = |w: &World| {
        w.hosts[CLIENT]
            .controls_sent
            .iter()
            .any(|m| m.name() == "Open")
    };
    assert!(world.run_for(ms(1_000), opened));
    assert!(world.hosts[CLIENT].route.is_none());
    second_flight(&mut world, 1);
    // Bounded like the first.
    for _ in 0..20 {
        second_flight(&mut world, 2);
    }
    assert_eq!(world.hosts[CLIENT].node.counters().first_dropped, 17);
    assert!(world.run_for(ms(1_000), |w| w.hosts[AGENT].received.len() == 2));
    // And what the shell had queued when the route came.
    second_flight(&mut world, 3);
    assert!(world.run_for(ms(1_000), |w| w.hosts[AGENT].received.len() == 3));
    assert_eq!(world.hosts[CLIENT].node.counters().first_dropped, 17);
}

#[test]
fn a_warm_link_is_used_at_once_and_still_carries_the_whole_first_flight() {
    let mut world = World::direct();
    let old = world.hosts[CLIENT].peer.unwrap();
    world.hosts[CLIENT].node.close_peer(world.now, old);
    world.hosts[CLIENT].route = None;
    world.pass(ms(100));
    assert_eq!(
        world.kind(AGENT),
        None,
        "the agent holds on to a client that left"
    );
    let before = world.relays[0]
        .log
        .iter()
        .filter(|m| **m == "Hello")
        .count();
    world.connect();
    let begun = world.elapsed();
    assert!(world.run_for(ms(500), |w| w.hosts[AGENT].delivered.len() == 4));
    assert_eq!(world.elapsed() - begun, ms(1 + 8 + 8));
    assert_eq!(
        world.relays[0]
            .log
            .iter()
            .filter(|m| **m == "Hello")
            .count(),
        before
    );
    assert!(
        world.run_for(ms(500), |w| w.both(|k| k == Some(PathKind::Direct))),
        "a second call does not go direct"
    );
}

#[test]
fn the_relay_carries_first_and_the_direct_path_follows_within_a_few_round_trips() {
    let mut world = World::new();
    world.pass(ms(500));
    world.connect();
    let begun = world.elapsed();
    assert!(world.run_for(ms(2_000), |w| w.both(|k| k == Some(PathKind::Direct))));
    for host in [CLIENT, AGENT] {
        let kinds: Vec<_> = world.hosts[host]
            .routes
            .iter()
            .map(|r| (r.1, r.2))
            .filter(|r| r.0 != RouteReason::Standby)
            .collect();
        assert_eq!(
            kinds,
            [
                (RouteReason::First, Some(PathKind::RelayUdp)),
                (RouteReason::Better, Some(PathKind::Direct))
            ]
        );
        let route = world.hosts[host].route.clone().unwrap();
        assert_eq!(route.standby.map(|w| w.kind()), Some(PathKind::RelayUdp));
        assert_eq!(route.max_datagram, 1_444);
    }
    assert!(
        world.elapsed() - begun < ms(200),
        "took {:?}",
        world.elapsed() - begun
    );
    world.chat(CLIENT, ms(20), ms(500));
    assert_eq!(
        world.hosts[AGENT].unknown_source + world.hosts[CLIENT].unknown_source,
        0
    );
    assert_eq!(world.hosts[AGENT].received.len(), 25);
}

#[test]
fn without_direct_paths_only_channels_are_probed_and_no_address_is_offered() {
    let off = |role| Config {
        direct: false,
        ..config(role)
    };
    // One side is enough.
    for agent in [off(Role::Agent), config(Role::Agent)] {
        let mut world = World::with(off(Role::Client), agent, 1);
        world.connect();
        world.pass(ms(3_000));
        world.chat(CLIENT, ms(20), ms(3_000));
        assert!(world.both(|k| k == Some(PathKind::RelayUdp)));
        for host in &world.hosts {
            assert!(!host.probes_sent.is_empty());
            let straight = |p: &&(_, Way, _)| matches!(p.1, Way::Direct { .. });
            assert_eq!(host.probes_sent.iter().find(straight), None);
        }
    }
}

#[test]
fn a_narrow_direct_path_is_used_and_says_what_it_carries() {
    for (mtu, carried) in [
        (1_240, 1_232),
        (1_300, 1_252),
        (1_392, 1_384),
        (1_450, 1_444),
    ] {
        let mut world = World::new();
        world.direct_mtu = mtu;
        world.connect();
        // Two round trips of 32 ms through the relay and five of 20 ms beside it, of which three are for the sizes.
        let direct = world.run_for(ms(200), |w| w.both(|k| k == Some(PathKind::Direct)));
        assert!(direct, "{mtu}");
        let route = world.hosts[CLIENT].route.clone().unwrap();
        assert_eq!((route.primary_max, route.max_datagram), (carried, carried));
        // Where the relay carries more, that is no part of the question.
        world.direct_open = false;
        world.chat(CLIENT, ms(20), ms(1_000));
        let route = world.hosts[CLIENT].route.clone().unwrap();
        assert_eq!(route.primary_max, 1_444);
    }
}

#[test]
fn a_path_below_quics_least_size_stays_unused() {
    let mut world = World::new();
    world.direct_mtu = 1_199;
    world.connect();
    world.pass(ms(10_000));
    assert!(world.both(|k| k == Some(PathKind::RelayUdp)));
}

#[test]
fn tls_carries_where_udp_does_not_and_udp_takes_over_when_it_returns() {
    let mut world = World::new();
    world.udp_open = [false; 2];
    world.direct_open = false;
    world.connect();
    assert!(world.run_for(ms(2_000), |w| w.both(|k| k == Some(PathKind::RelayTls))));
    world.udp_open = [true; 2];
    assert!(world.run_for(ms(70_000), |w| w.both(|k| k == Some(PathKind::RelayUdp))));
    world.pass(ms(5_000));
    assert_eq!(world.hosts[CLIENT].ready, [Carrier::Tls, Carrier::Udp]);
    world.chat(CLIENT, ms(50), ms(1_000));
    assert_eq!(world.hosts[AGENT].received.len(), 20);
    assert_eq!(world.hosts[AGENT].unknown_source, 0);
}

#[test]
fn a_udp_link_that_carries_control_but_no_data_is_replaced_by_tls() {
    let mut world = World::new();
    world.relays[0].echo = false;
    world.direct_open = false;
    world.connect();
    assert!(world.run_for(ms(2_500), |w| w.both(|k| k == Some(PathKind::RelayTls))));
}

#[test]
fn in_tls_mode_no_udp_link_is_tried() {
    let mut world = World::by_tls();
    world.direct_open = false;
    world.connect();
    world.pass(ms(100_000));
    assert!(world.both(|k| k == Some(PathKind::RelayTls)));
    assert_eq!(world.hosts[CLIENT].ready, [Carrier::Tls]);
}

#[test]
fn a_lost_link_is_dialled_again_and_its_channels_are_attached() {
    let mut world = World::new();
    world.direct_open = false;
    world.connect();
    world.pass(ms(1_000));
    world.break_links(CLIENT);
    world.break_links(AGENT);
    assert!(world.run_for(ms(5), |w| w.both(|k| k.is_none())));
    assert!(world.run_for(ms(1_000), |w| w.both(|k| k == Some(PathKind::RelayUdp))));
    assert_eq!(
        world.relays[0]
            .log
            .iter()
            .filter(|m| **m == "Attach")
            .count(),
        2
    );
    assert_eq!(
        world.relays[0].log.iter().filter(|m| **m == "Open").count(),
        1
    );
    world.chat(CLIENT, ms(50), ms(500));
    assert_eq!(world.hosts[AGENT].received.len(), 10);
}

#[test]
fn a_channel_the_relay_forgot_is_opened_anew_and_the_peer_stays_the_same() {
    let mut world = World::new();
    world.direct_open = false;
    world.connect();
    world.pass(ms(1_000));
    world.kill_relay(0);
    world.pass(ms(500));
    world.relays[0].alive = true;
    assert!(world.run_for(ms(15_000), |w| w.both(|k| k.is_some())));
    assert_eq!(
        (
            world.hosts[CLIENT].peers_seen,
            world.hosts[AGENT].peers_seen
        ),
        (1, 1)
    );
    world.chat(CLIENT, ms(50), ms(500));
    assert_eq!(world.hosts[AGENT].received.len(), 10);
}

#[test]
fn the_relay_may_die_while_direct_and_nothing_happens_to_the_tunnel() {
    let mut world = World::direct();
    world.kill_relay(0);
    let from = world.elapsed();
    world.chat(CLIENT, ms(20), ms(30_000));
    assert!(world.both(|k| k == Some(PathKind::Direct)));
    assert!(world.hosts[AGENT].longest_gap(from) <= ms(25));
    assert_eq!(world.hosts[CLIENT].replays, 0);
    world.relays[0].alive = true;
    let standby = |w: &World| w.hosts[CLIENT].route.as_ref().unwrap().standby.is_some();
    assert!(
        world.run_for(ms(60_000), standby),
        "the warm standby does not return"
    );
}

#[test]
fn an_idle_direct_tunnel_wakes_only_for_its_keepalives() {
    let mut world = World::direct();
    world.chat(CLIENT, ms(20), ms(1_000));
    world.pass(ms(10_000));
    let probes = world.hosts[CLIENT].probes_sent.len();
    for host in &mut world.hosts {
        host.wakeups.clear();
    }
    world.pass(ms(200_000));
    for host in &world.hosts {
        assert_eq!(
            host.wakeups.keys().copied().collect::<Vec<_>>(),
            ["path keep-alive"]
        );
        assert!(
            (9..=11).contains(&host.wakeups["path keep-alive"]),
            "{:?}",
            host.wakeups
        );
    }
    // One ping each and one answer to each of the peer's.
    assert!(world.hosts[CLIENT].probes_sent.len() - probes <= 22);
    assert!(world.both(|k| k == Some(PathKind::Direct)));
}

#[test]
fn an_idle_relayed_tunnel_does_not_wake_at_all() {
    let mut world = World::new();
    world.direct_open = false;
    world.connect();
    world.pass(ms(30_000));
    for host in &mut world.hosts {
        host.wakeups.clear();
    }
    world.pass(ms(600_000));
    for host in &world.hosts {
        assert!(host.wakeups.is_empty(), "{:?}", host.wakeups);
    }
}

#[test]
fn a_spurious_wakeup_does_nothing() {
    let mut world = World::direct();
    world.pass(ms(5_000));
    for host in &mut world.hosts {
        let wake = host.node.poll_timeout();
        for _ in 0..100 {
            host.node.handle_timeout(world.now);
        }
        assert!(host.node.poll_transmit().is_none() && host.node.poll_event().is_none());
        assert_eq!(host.node.poll_timeout(), wake);
    }
}

#[test]
fn an_agent_that_restarted_is_another_peer() {
    let mut world = World::new();
    world.direct_open = false;
    world.connect();
    world.pass(ms(1_000));
    let channel = *world.relays[0].channels.keys().next().unwrap();
    world.restart(AGENT, Role::Agent, 2);
    world.relays[0].channels.remove(&channel);
    let link = world.link_of(CLIENT);
    world.say_to(
        (CLIENT, link),
        Control::Closed {
            channel,
            reason: CloseReason::PeerGone,
        },
    );
    assert!(world.run_for(ms(15_000), |w| w.hosts[CLIENT].failed.is_some()));
    assert_eq!(world.hosts[CLIENT].failed, Some(PeerError::Restarted));
}

#[test]
fn an_agent_that_is_offline_is_reported_after_every_relay_was_asked() {
    let mut world = World::with(config(Role::Client), config(Role::Agent), 2);
    let mut target = world.target();
    target.node = NodeId::from_bytes(
        byway_wire::SecretKey::from_bytes(&[77; 32])
            .node_id()
            .as_bytes(),
    )
    .unwrap();
    world.connect_to(target);
    assert!(world.run_for(ms(2_000), |w| w.hosts[CLIENT].failed.is_some()));
    assert_eq!(world.hosts[CLIENT].failed, Some(PeerError::Offline));
    assert!(world.relays.iter().all(|r| r.log.contains(&"Open")));
}

#[test]
fn an_agent_that_is_on_the_second_relay_only_is_found_there() {
    let mut world = World::with(config(Role::Client), config(Role::Agent), 2);
    world.relays[0].alive = false;
    world.pass(ms(1_000));
    world.connect();
    assert!(world.run_for(ms(1_500), |w| w.both(|k| k.is_some())));
}

#[test]
fn relays_out_of_reach_are_reported_with_the_reason_of_each() {
    let mut world = World::with(config(Role::Client), config(Role::Agent), 2);
    world.relays.iter_mut().for_each(|r| r.alive = false);
    world.connect();
    assert!(world.run_for(ms(10_000), |w| w.hosts[CLIENT].failed.is_some()));
    let Some(PeerError::NoRelay(errors)) = &world.hosts[CLIENT].failed else {
        panic!("{:?}", world.hosts[CLIENT].failed)
    };
    assert_eq!(errors.len(), 2);
    assert_eq!(errors[0], (relay_url(0), LinkError::TimedOut));
}

/// UDP to the relay is silent, and TLS to it ends with this: it is what the caller is told.
fn is_told_beside_silence(error: LinkError) {
    let mut world = World::new();
    world.pass(ms(1_000));
    world.udp_open[CLIENT] = false;
    world.tls_open = false;
    world.tls_error = Some(error.clone());
    world.connect();
    assert!(world.run_for(ms(12_000), |w| w.hosts[CLIENT].failed.is_some()));
    // After one round: no second attempt cures it, and a wrong password tried again and again locks an account.
    assert_eq!(
        world.hosts[CLIENT].failed,
        Some(PeerError::NoRelay(vec![(relay_url(0), error)]))
    );
    assert!(world.elapsed() > ms(10_000));
}

#[test]
fn what_a_proxy_said_is_reported_though_udp_is_silent_for_longer() {
    is_told_beside_silence(LinkError::from(ProxyError {
        proxy: "http://proxy.test:3128".to_owned(),
        fault: ProxyFault::AuthRequired,
    }));
}

#[test]
fn what_a_relay_says_over_one_carrier_is_reported_though_the_other_is_silent_for_longer() {
    let text = "TLS ends before".to_owned();
    is_told_beside_silence(LinkError::Refused(RefuseReason::Identity, text));
}

#[test]
fn a_client_hangs_up_half_a_minute_after_its_last_tunnel() {
    let mut world = World::new();
    let peer = world.connect();
    world.pass(ms(1_000));
    world.hosts[CLIENT].node.close_peer(world.now, peer);
    world.pass(ms(29_000));
    assert_eq!(world.hosts[CLIENT].lost, 0);
    world.pass(ms(2_000));
    assert_eq!(world.hosts[CLIENT].lost, 1);
    world.hosts[CLIENT].wakeups.clear();
    world.pass(ms(600_000));
    assert!(world.hosts[CLIENT].wakeups.is_empty());
}

#[test]
fn a_closed_tunnel_leaves_nothing_behind() {
    let mut world = World::new();
    for _ in 0..50 {
        let peer = world.connect();
        assert!(world.run_for(ms(2_000), |w| w.kind(CLIENT) == Some(PathKind::Direct)));
        let theirs = world.hosts[AGENT].peer.unwrap();
        world.hosts[CLIENT].node.close_peer(world.now, peer);
        world.hosts[AGENT].node.close_peer(world.now, theirs);
        world.hosts[CLIENT].route = None;
        world.pass(ms(100));
        world.hosts[AGENT].route = None;
    }
    for host in &world.hosts {
        assert_eq!(host.node.sizes(), [0; 6]);
    }
}

#[test]
fn a_replaced_agent_says_so_and_waits_for_minutes() {
    let mut world = World::new();
    world.pass(ms(1_000));
    let link = world.link_of(AGENT);
    let refused = Control::Refused {
        reason: RefuseReason::Replaced,
        detail: "newer".into(),
    };
    world.say_to((AGENT, link), refused);
    world.pass(ms(60_000));
    assert!(world.hosts[AGENT].replaced);
    assert_eq!(world.hosts[AGENT].ready.len(), 1);
}

#[test]
fn a_client_without_the_secret_is_refused_and_no_probe_is_ever_sent() {
    let mut world = World::new();
    let target = PeerTarget {
        secret: Some(TicketSecret::from_bytes([1; 32])),
        ..world.target()
    };
    world.connect_to(target);
    world.pass(ms(5_000));
    assert_eq!(
        world.hosts[CLIENT].failed,
        Some(PeerError::NotAllowed(CloseReason::NotAllowed))
    );
    let agent = &world.hosts[AGENT];
    assert_eq!(
        (
            agent.probes_sent.len(),
            agent.peers_seen,
            agent.delivered.len()
        ),
        (0, 0, 0)
    );
    assert!(
        !agent
            .controls_sent
            .iter()
            .any(|m| matches!(m, Control::Signal { .. } | Control::Accept { .. }))
    );
    assert_eq!(agent.node.sizes(), [0; 6]);
    assert_eq!(agent.node.counters().open_refused, 1);
}

#[test]
fn a_node_on_the_allow_list_needs_no_secret() {
    let mut agent = config(Role::Agent);
    agent.admission = Admission::default();
    agent
        .admission
        .nodes
        .insert(byway_wire::SecretKey::from_bytes(&[1; 32]).node_id());
    let mut world = World::with(config(Role::Client), agent, 1);
    let target = PeerTarget {
        secret: None,
        ..world.target()
    };
    world.connect_to(target);
    assert!(world.run_for(ms(1_000), |w| w.both(|k| k.is_some())));
}

#[test]
fn nobody_gets_into_a_client() {
    let mut world = World::with(
        config(Role::Client),
        Config {
            role: Role::Client,
            ..config(Role::Agent)
        },
        1,
    );
    // The fake relay takes it for an agent all the same.
    world.pass(ms(100));
    world.connect();
    world.pass(ms(3_000));
    assert_eq!(world.hosts[AGENT].peers_seen, 0);
}

#[test]
fn nodes_behind_nats_meet_at_the_addresses_that_relays_see() {
    let mut world = World::new();
    world.behind_nats();
    world.connect();
    assert!(world.run_for(ms(1_000), |w| w.both(|k| k == Some(PathKind::Direct))));
    world.pass(ms(3_000));
    let report = world.hosts[AGENT].report.clone().expect("discovery ran");
    assert_eq!(report.reflexive_v4, Some(world.hosts[AGENT].addr));
    assert_eq!(report.public, Some(false));
    let offered = &world.hosts[AGENT].candidates;
    assert!(offered.iter().any(|c| c.addr == world.hosts[AGENT].addr));
    assert!(
        offered
            .iter()
            .any(|c| c.addr.ip().to_string() == "10.1.0.1")
    );
}

#[test]
fn an_active_tunnel_behind_a_nat_keeps_looking_at_its_mapping() {
    let mut world = World::new();
    world.behind_nats();
    world.connect();
    world.chat(CLIENT, ms(100), ms(5_000));
    world.hosts[CLIENT].wakeups.clear();
    world.chat(CLIENT, ms(100), ms(60_000));
    assert_eq!(world.hosts[CLIENT].wakeups["discovery refresh"], 2);
}

#[test]
fn a_narrow_direct_path_is_better_than_a_tls_link() {
    let mut world = World::by_tls();
    world.direct_mtu = 1_300;
    world.connect();
    assert!(world.run_for(ms(10_000), |w| w.both(|k| k == Some(PathKind::Direct))));
    let route = world.hosts[CLIENT].route.clone().unwrap();
    assert_eq!(route.max_datagram, 1_252);
}

#[test]
fn an_open_on_a_udp_link_that_fell_silent_is_repeated_on_the_tls_link() {
    let mut world = World::new();
    world.pass(ms(1_000));
    world.relays[0].udp_mute = true;
    world.connect();
    world.pass(ms(9_000));
    assert_eq!(world.hosts[CLIENT].failed, None);
    assert!(world.hosts[CLIENT].route.is_some());
    assert_eq!(world.hosts[CLIENT].ready, [Carrier::Tls]);
}

#[test]
fn a_relay_that_welcomes_and_hangs_up_is_dialled_ever_more_seldom() {
    let mut world = World::new();
    world.relays[0].fickle = true;
    world.pass(ms(60_000));
    let welcomed = world.hosts[AGENT].ready.len();
    assert!((5..=20).contains(&welcomed), "{welcomed} links in a minute");
}
