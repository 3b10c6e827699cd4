//! When servers are asked that become known late.

use std::net::SocketAddr;

use super::world::*;
use crate::io::{Event, MapRelay, Way};
use crate::node::Node;

const SERVER: ([u8; 4], u16) = ([192, 0, 2, 53], 3478);

/// How often the server has been asked since the last call.
fn asked(node: &mut Node) -> usize {
    let to_server =
        |way| matches!(way, Way::Direct { remote, .. } if remote == SocketAddr::from(SERVER));
    std::iter::from_fn(|| node.poll_transmit())
        .filter(|transmit| to_server(transmit.way))
        .count()
}

#[test]
fn a_server_whose_name_resolves_while_somebody_waits_is_asked_as_well() {
    let mut world = World::new();
    let now = world.now;
    let node = &mut world.hosts[CLIENT].node;
    node.refresh(now);
    assert_eq!(asked(node), 0, "there is nobody to ask yet");
    node.add_stun_server(now + ms(100), "stun.test".into(), SERVER.into());
    assert_eq!(asked(node), 1);
}

#[test]
fn a_relay_on_443_is_asked_on_the_port_of_stun_as_well_and_another_is_not() {
    let mut world = World::new();
    let now = world.now;
    let port = |port| SocketAddr::from((SERVER.0, port));
    let mut target = world.target();
    target.relays = vec![(relay_url(0), vec![port(443), port(8443)])];
    let node = &mut world.hosts[CLIENT].node;
    node.connect(now, target);
    let mut asked: Vec<u16> = std::iter::from_fn(|| node.poll_transmit())
        .filter_map(|transmit| match transmit.way {
            Way::Direct { remote, .. } if remote.ip() == port(0).ip() => Some(remote.port()),
            _ => None,
        })
        .collect();
    asked.sort_unstable();
    assert_eq!(asked, [443, 3478, 8443]);
}

#[test]
fn a_client_without_a_peer_for_which_nobody_waits_asks_no_one() {
    let mut world = World::new();
    let now = world.now;
    let node = &mut world.hosts[CLIENT].node;
    node.refresh(now);
    node.add_stun_server(now + ms(5_000), "stun.test".into(), SERVER.into());
    assert_eq!(asked(node), 0);
}

#[test]
fn who_asks_for_discovery_sees_whether_relays_can_be_linked_to() {
    let mut world = World::new();
    let now = world.now;
    let node = &mut world.hosts[CLIENT].node;
    node.add_relay(now, relay_url(0), Vec::new());
    let dials = |node: &mut Node| {
        std::iter::from_fn(|| node.poll_event())
            .filter(|event| matches!(event, Event::Dial { .. }))
            .count()
    };
    assert_eq!(dials(node), 0, "an idle client has no link");
    node.refresh(now);
    assert!(dials(node) > 0);
}

#[test]
fn nothing_wakes_a_client_once_discovery_is_over() {
    let mut world = World::new();
    let mut now = world.now;
    let node = &mut world.hosts[CLIENT].node;
    node.refresh(now);
    for _ in 0..20 {
        let Some((at, _)) = node.poll_timeout() else {
            return;
        };
        now = now.max(at);
        node.handle_timeout(now);
        while node.poll_transmit().is_some() || node.poll_event().is_some() {}
    }
    panic!("still waking: {:?}", node.poll_timeout());
}

#[test]
fn a_port_of_the_gateways_is_offered_unless_another_nat_is_in_front_of_it() {
    use crate::discovery::{GatewayPort, MappingProtocol, PortMapping};
    let mut world = World::direct();
    let now = world.now;
    let mapped = |world: &World| {
        let kinds = world.hosts[AGENT].candidates.iter();
        kinds
            .filter(|c| c.kind == byway_wire::signal::CandidateKind::Mapped)
            .map(|c| c.addr)
            .collect::<Vec<_>>()
    };
    let mapping = |external: &str| PortMapping {
        protocol: MappingProtocol::Pcp,
        external: external.parse().unwrap(),
    };
    let outside = mapping("203.0.113.77:5000");
    world.hosts[AGENT]
        .node
        .handle_port_mapping(now, GatewayPort::Held(outside));
    world.pass(ms(100));
    assert_eq!(mapped(&world), [outside.external]);
    let probed = |w: &World| {
        let ways = w.hosts[CLIENT].probes_sent.iter();
        ways.filter(|p| matches!(p.1, Way::Direct { remote, .. } if remote == outside.external))
            .count()
    };
    assert!(probed(&world) > 0, "the peer was not told");
    let report = world.hosts[AGENT].report.clone().unwrap();
    assert_eq!(report.port_mapping, GatewayPort::Held(outside));

    for inside in ["192.168.1.2:5000", "100.64.3.4:5000"] {
        let inside = mapping(inside);
        world.hosts[AGENT]
            .node
            .handle_port_mapping(now, GatewayPort::Held(inside));
        world.pass(ms(100));
        assert_eq!(mapped(&world), []);
        let report = world.hosts[AGENT].report.clone().unwrap();
        assert_eq!(
            report.port_mapping,
            GatewayPort::Held(inside),
            "people are told all the same"
        );
    }
}

#[test]
fn who_asks_for_all_there_is_to_know_hears_how_large_a_datagram_may_be() {
    let mut world = World::new();
    world.pass(ms(1_000));
    let now = world.now;
    let known = |world: &World| world.hosts[AGENT].report.as_ref().and_then(|r| r.mtu);
    assert_eq!(known(&world), None, "nobody has asked");
    world.hosts[AGENT].node.refresh(now);
    let full = crate::discovery::FULL_DATAGRAM;
    assert!(world.run_for(ms(500), |world| known(world) == Some(full)));
    // An echo of the search is not one of the link's test.
    assert!(world.hosts[AGENT].node.links.ready_udp().is_some());
}

/// Who asks wants to know how relays are reached; a map may name more than anybody waits for.
#[test]
fn of_a_large_map_the_first_relays_are_linked_to_for_who_asks_and_no_flood() {
    let mut world = World::new();
    let now = world.now;
    let relay = |n: usize| MapRelay {
        url: relay_url(n),
        addrs: Vec::new(),
        region: "one".to_owned(),
    };
    let mut target = world.target();
    let node = &mut world.hosts[CLIENT].node;
    // A ticket's relays are no part of the question.
    target.relays = (200..208).map(|n| (relay_url(n), vec![])).collect();
    let peer = node.connect(now, target);
    node.close_peer(now, peer);
    node.set_relay_map(now, (100..140).map(relay).collect());
    while node.poll_event().is_some() {}
    node.refresh(now);
    let dialled = std::iter::from_fn(|| node.poll_event()).filter_map(|event| match event {
        Event::Dial { url, .. } => Some(url),
        _ => None,
    });
    let first: Vec<_> = (100..132).map(relay_url).collect();
    assert_eq!(dialled.collect::<Vec<_>>(), first);
}
