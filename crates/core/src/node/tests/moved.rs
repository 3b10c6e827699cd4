//! A host whose network is another one, or that slept; and peers that are elsewhere now.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use byway_wire::ChannelId;
use byway_wire::relay::control::*;

use super::world::*;
use crate::io::*;

fn change(world: &mut World, host: usize) {
    let now = world.now;
    world.hosts[host].node.handle_network_change(now);
}

#[test]
fn a_link_that_answers_after_a_change_is_kept() {
    let mut world = World::direct();
    world.pass(ms(2_000));
    let (link, ready) = (world.link_of(CLIENT), world.hosts[CLIENT].ready.len());
    change(&mut world, CLIENT);
    world.pass(ms(5_000));
    assert_eq!(world.link_of(CLIENT), link);
    let client = &world.hosts[CLIENT];
    assert_eq!((client.ready.len(), client.lost), (ready, 0));
    assert!(world.both(|kind| kind == Some(PathKind::Direct)));
}

#[test]
fn a_link_that_does_not_answer_after_a_change_is_made_anew_at_once() {
    let mut world = World::direct();
    world.pass(ms(2_000));
    // Whatever is said on UDP links goes nowhere from now on.
    world.relays[0].udp_mute = true;
    change(&mut world, CLIENT);
    let anew = world.run_for(ms(1_600), |w| {
        w.hosts[CLIENT].ready.last() == Some(&Carrier::Tls)
    });
    assert!(anew, "{:?}", world.hosts[CLIENT].ready);
    assert_eq!(world.hosts[CLIENT].lost, 1);
}

fn wake(world: &mut World, host: usize, slept: Duration) {
    let now = world.now;
    world.hosts[host].node.handle_wake(now, slept);
}

/// A tunnel over relays alone, by TLS links: dialling takes longer than asking.
fn over_tls() -> World {
    let mut world = World::by_tls();
    world.direct_open = false;
    world.connect();
    world.pass(ms(2_000));
    world
}

#[test]
fn after_a_sleep_a_relay_is_dialled_beside_its_link_and_the_link_is_kept_if_it_answers() {
    let mut world = over_tls();
    let link = world.link_of(CLIENT);
    let dials = |world: &World| world.hosts[CLIENT].dials.len();
    let before = dials(&world);
    wake(&mut world, CLIENT, ms(9_000));
    world.pass(ms(1_000));
    assert_eq!(dials(&world), before, "no relay gives a link up so soon");
    wake(&mut world, CLIENT, ms(20_000));
    world.pass(ms(1_000));
    assert_eq!(dials(&world), before + 1);
    assert_eq!(world.link_of(CLIENT), link);
    assert_eq!(world.hosts[CLIENT].lost, 0);
    world.chat(CLIENT, ms(50), ms(500));
    assert_eq!(world.hosts[AGENT].received.len(), 10);
}

#[test]
fn a_clock_that_is_set_all_day_has_a_node_dial_once_a_minute_and_a_few_times_more() {
    let mut world = over_tls();
    let dials = |world: &World| [CLIENT, AGENT].map(|host| world.hosts[host].dials.len());
    let before = dials(&world);
    for _ in 0..60 {
        for host in [CLIENT, AGENT] {
            wake(&mut world, host, ms(3_600_000));
        }
        world.pass(ms(5_000));
    }
    // Four of them in the first minute, and one more in each that is whole.
    assert_eq!(dials(&world), before.map(|dials| dials + 5 + 4));
    assert!(world.both(|kind| kind == Some(PathKind::RelayTls)));
}

/// A region has thousands of agents, whose clocks may be set all at once; what no link outlives they would find out a moment later.
#[test]
fn an_agent_dials_beside_its_link_only_after_a_sleep_that_no_link_outlives() {
    let mut world = over_tls();
    let dials = |world: &World| world.hosts[AGENT].dials.len();
    let (before, link) = (dials(&world), world.link_of(AGENT));
    wake(&mut world, AGENT, ms(59_000));
    world.pass(ms(5_000));
    assert_eq!(dials(&world), before);
    wake(&mut world, AGENT, ms(60_000));
    world.pass(ms(5_000));
    assert_eq!(dials(&world), before + 1);
    assert_eq!(world.link_of(AGENT), link, "it answered first");
}

/// The clock stands still in a sleep, so that by it the second follows on the first within the minute.
#[test]
fn a_second_sleep_of_hours_has_the_relay_dialled_though_the_machine_was_hardly_awake_between() {
    let mut world = over_tls();
    let dials = |world: &World| world.hosts[CLIENT].dials.len();
    let before = dials(&world);
    wake(&mut world, CLIENT, ms(8 * 3_600_000));
    world.pass(ms(30_000));
    assert_eq!(dials(&world), before + 1);
    wake(&mut world, CLIENT, ms(8 * 3_600_000));
    world.pass(ms(10_000));
    assert_eq!(dials(&world), before + 2);
    wake(&mut world, CLIENT, ms(20_000));
    world.pass(ms(10_000));
    assert_eq!(dials(&world), before + 2, "two within the minute");
}

#[test]
fn a_link_that_is_dead_after_a_sleep_is_replaced_by_the_first_that_connects() {
    let mut world = World::new();
    world.direct_open = false;
    world.connect();
    world.pass(ms(2_000));
    let (link, dials) = (world.link_of(CLIENT), world.hosts[CLIENT].dials.len());
    world.relays[0].udp_mute = true;
    wake(&mut world, CLIENT, ms(20_000));
    world.pass(ms(1));
    world.relays[0].udp_mute = false;
    // A round trip to the relay to connect, and one to attach the channel.
    let round_trip = world.relay_delay * 2;
    let attached = world.run_for(round_trip * 2, |w| {
        w.relays[0].log.contains(&"Attach") && w.kind(CLIENT) == Some(PathKind::RelayUdp)
    });
    assert!(attached, "{:?}", world.relays[0].log);
    assert_ne!(world.link_of(CLIENT), link);
    // TLS has had no time to begin.
    assert_eq!(world.hosts[CLIENT].dials.len(), dials + 1);
}

#[test]
fn after_a_sleep_that_no_channel_outlives_it_is_opened_anew_with_what_the_tunnel_said_meanwhile() {
    let mut world = World::new();
    world.direct_open = false;
    world.connect();
    world.pass(ms(2_000));
    // What is said on the link in use goes nowhere.
    world.relays[0].udp_mute = true;
    wake(&mut world, CLIENT, ms(60_000));
    let peer = world.hosts[CLIENT].peer.unwrap();
    let (now, data) = (world.now, Bytes::from_static(&[0x40, 1, 2, 3]));
    world.hosts[CLIENT].node.send_first(now, peer, data.clone());
    world.pass(ms(1));
    world.relays[0].udp_mute = false;
    assert!(world.run_for(ms(1_000), |w| w.both(|k| k.is_some())));
    assert!(world.hosts[AGENT].delivered.contains(&data));
    assert!(!world.relays[0].log.contains(&"Attach"));
    let seen = [CLIENT, AGENT].map(|host| world.hosts[host].peers_seen);
    assert_eq!(seen, [1, 1], "the tunnel is the same");
    world.chat(CLIENT, ms(50), ms(500));
    assert_eq!(world.hosts[AGENT].received.len(), 10);
}

#[test]
fn where_tls_carried_the_last_link_it_is_not_made_to_wait_after_a_sleep() {
    let mut world = World::new();
    world.udp_open = [false; 2];
    world.direct_open = false;
    world.connect();
    world.pass(ms(2_000));
    assert!(world.both(|kind| kind == Some(PathKind::RelayTls)));
    let before = world.hosts[CLIENT].dials.len();
    wake(&mut world, CLIENT, ms(20_000));
    world.pass(ms(1));
    let dials = &world.hosts[CLIENT].dials[before..];
    let carriers: Vec<Carrier> = dials.iter().map(|(_, carrier)| *carrier).collect();
    assert_eq!(carriers, [Carrier::Udp, Carrier::Tls]);
}

#[test]
fn a_relay_that_was_rested_from_is_dialled_at_once_when_there_is_a_network_again() {
    let mut world = World::direct();
    world.kill_relay(0);
    // The back-off has grown to ten seconds.
    world.pass(ms(60_000));
    world.relays[0].alive = true;
    let ready = world.hosts[AGENT].ready.len();
    change(&mut world, AGENT);
    let linked = world.run_for(ms(300), |w| w.hosts[AGENT].ready.len() > ready);
    assert!(linked, "{:?}", world.hosts[AGENT].ready);
}

#[test]
fn a_link_that_was_just_dialled_is_not_dialled_again_because_the_first_addresses_came_late() {
    let mut world = World::direct();
    world.kill_relay(0);
    world.pass(ms(60_000));
    world.relays[0].alive = true;
    change(&mut world, AGENT);
    let hellos = |w: &World| {
        let sent = w.hosts[AGENT].controls_sent.iter();
        sent.filter(|m| matches!(m, Control::Hello(_))).count()
    };
    let (before, ready) = (hellos(&world), world.hosts[AGENT].ready.len());
    assert!(world.run_for(ms(300), |w| hellos(w) > before));
    assert_eq!(world.hosts[AGENT].ready.len(), ready, "not welcomed yet");
    change(&mut world, AGENT);
    assert!(world.run_for(ms(300), |w| w.hosts[AGENT].ready.len() > ready));
    assert_eq!(hellos(&world), before + 1);
}

/// The clock stood still meanwhile, and the address that the dial was made from may be gone.
#[test]
fn a_link_that_was_dialled_just_before_a_sleep_is_dialled_again_after_it() {
    let mut world = World::direct();
    world.kill_relay(0);
    world.pass(ms(60_000));
    world.relays[0].alive = true;
    change(&mut world, AGENT);
    world.pass(ms(1));
    for (slept, again) in [(ms(2_000), 0), (ms(3_600_000), 1)] {
        let before = world.hosts[AGENT].dials.len();
        wake(&mut world, AGENT, slept);
        world.pass(ms(1));
        let dials = &world.hosts[AGENT].dials[before..];
        let by_udp = dials.iter().filter(|(_, c)| *c == Carrier::Udp).count();
        assert_eq!(by_udp, again, "after {slept:?}");
    }
}

#[test]
fn a_tunnel_that_is_idle_asks_its_peer_and_finds_it_again() {
    let mut world = World::direct();
    world.pass(ms(60_000));
    let before = world.hosts[CLIENT].replays;
    change(&mut world, CLIENT);
    assert!(world.run_for(ms(100), |w| {
        let route = w.hosts[CLIENT].route.as_ref();
        route.is_some_and(|r| r.health == Health::Degraded)
    }));
    world.pass(ms(500));
    assert_eq!(
        world.hosts[CLIENT].replays,
        before + 1,
        "the last datagrams go again"
    );
    assert!(world.both(|kind| kind == Some(PathKind::Direct)));
    let health = |host: usize| world.hosts[host].route.as_ref().map(|r| r.health);
    assert_eq!([health(CLIENT), health(AGENT)], [Some(Health::Good); 2]);
}

#[test]
fn changes_that_come_all_the_time_cost_a_bounded_number_of_probes() {
    let mut world = World::direct();
    world.pass(ms(2_000));
    let before = world.hosts[CLIENT].probes_sent.len();
    for _ in 0..20 {
        change(&mut world, CLIENT);
        world.pass(ms(100));
    }
    let sent = world.hosts[CLIENT].probes_sent.len() - before;
    assert!(sent < 20 * 24, "{sent} probes");
    assert!(world.both(|kind| kind == Some(PathKind::Direct)));
}

fn moved(world: &mut World, channel: ChannelId, observed: SocketAddr) {
    let (link, now) = (world.link_of(CLIENT), world.now);
    let message = Control::PeerMoved { channel, observed };
    world.hosts[CLIENT].node.handle_control(now, link, message);
}

#[test]
fn where_a_relay_sees_the_peer_now_is_searched_as_an_attested_address() {
    let mut world = World::direct();
    let elsewhere: SocketAddr = "192.0.2.70:7000".parse().unwrap();
    let channel = *world.relays[0].channels.keys().next().unwrap();
    let probes = |world: &World| {
        let ways = world.hosts[CLIENT].probes_sent.iter();
        ways.filter(|p| matches!(p.1, Way::Direct { remote, .. } if remote == elsewhere))
            .count()
    };
    // The peer names it; nobody attests it: three probes.
    let list = vec![byway_wire::signal::Candidate {
        kind: byway_wire::signal::CandidateKind::Reflexive,
        addr: elsewhere,
    }];
    let now = world.now;
    world.hosts[AGENT].node.offer_for_test(now, list.clone());
    world.chat(CLIENT, ms(50), ms(3_000));
    assert_eq!(probes(&world), 3);
    // It is attested now, and named again.
    moved(&mut world, channel, elsewhere);
    let now = world.now;
    world.hosts[AGENT].node.offer_for_test(now, list);
    world.chat(CLIENT, ms(50), ms(3_000));
    assert!(probes(&world) > 8, "{}", probes(&world));
}

/// Found by a random scenario: an agent had proven full size to a client on a TLS link. When that came back by UDP from a narrow
/// network, all the agent asked of the channel was lost, and it stayed on a direct path that was dead.
#[test]
fn a_channel_is_sized_anew_when_one_of_its_ends_is_elsewhere() {
    let mut world = World::direct();
    world.pass(ms(2_000));
    let channel = *world.relays[0].channels.keys().next().unwrap();
    let tests = |world: &World| {
        let sent = world.hosts[CLIENT].probes_sent.iter();
        sent.filter(|p| matches!(p.1, Way::Channel { .. }) && p.2 >= 1_200)
            .count()
    };
    let before = tests(&world);
    world.pass(ms(1_000));
    assert_eq!(tests(&world), before, "it is sized already");
    let elsewhere = "192.0.2.70:7000".parse().unwrap();
    moved(&mut world, channel, elsewhere);
    world.pass(ms(1_000));
    assert_eq!(tests(&world), before, "the tunnel rests");
    world.chat(CLIENT, ms(50), ms(1_000));
    assert_eq!(tests(&world), before + 6, "the peer's end moved");
    change(&mut world, CLIENT);
    world.chat(CLIENT, ms(50), ms(1_000));
    assert!(tests(&world) >= before + 12, "the own end did");
}

#[test]
fn a_move_on_a_channel_we_do_not_have_is_counted_and_nothing_else() {
    let mut world = World::direct();
    let victim = "192.0.2.99:9".parse().unwrap();
    moved(&mut world, ChannelId::from_u64(0xbad), victim);
    let client = &mut world.hosts[CLIENT].node;
    assert_eq!(client.counters().control_unexpected, 1);
    assert!(client.poll_transmit().is_none() && client.poll_event().is_none());
}

#[test]
fn a_relay_that_tells_of_moves_all_the_time_draws_a_few_answers_and_no_more() {
    let mut world = World::direct();
    let channel = *world.relays[0].channels.keys().next().unwrap();
    let elsewhere: SocketAddr = "192.0.2.70:7000".parse().unwrap();
    let before = world.hosts[CLIENT].controls_sent.len();
    for _ in 0..1_000 {
        moved(&mut world, channel, elsewhere);
    }
    world.pass(ms(100));
    let sent = world.hosts[CLIENT].controls_sent.len() - before;
    assert!(sent <= 3, "{sent}");
    assert_eq!(world.hosts[CLIENT].node.counters().moves_limited, 997);
}

#[test]
fn one_node_is_sprayed_for_a_few_times_however_often_it_calls_anew() {
    let mut world = World::direct();
    let (now, peer) = (world.now, world.hosts[CLIENT].peer.unwrap());
    let node = &mut world.hosts[CLIENT].node;
    let permitted = (0..20).filter(|_| node.may_spray(now, peer)).count();
    assert_eq!(permitted, 4);
    assert!(
        node.may_spray(now + ms(300_000), peer),
        "five minutes later"
    );
}

/// Pings of the agent to an address.
fn pings_to(world: &World, addr: SocketAddr) -> usize {
    let sent = world.hosts[AGENT].probes_sent.iter();
    sent.filter(|(_, way, _)| matches!(way, Way::Direct { remote, .. } if *remote == addr))
        .count()
}

fn name(world: &mut World, addr: SocketAddr) {
    use byway_wire::signal::{Candidate, CandidateKind};
    let kind = CandidateKind::Host;
    let now = world.now;
    let client = &mut world.hosts[CLIENT].node;
    client.offer_for_test(now, vec![Candidate { kind, addr }]);
    world.pass(ms(3_000));
}

/// Found by carrying a simulated client from a network of IPv6 alone to one of IPv4 alone.
#[test]
fn an_address_of_a_family_that_no_socket_has_is_asked_as_soon_as_one_has() {
    let mut world = World::direct();
    let addr = "[2001:db8::7]:5000".parse().unwrap();
    name(&mut world, addr);
    assert_eq!(pings_to(&world, addr), 0, "there is no way to send any");
    let mut socket = world.socket(AGENT);
    socket.v6 = true;
    let now = world.now;
    let agent = &mut world.hosts[AGENT].node;
    agent.handle_sockets(now, vec![socket]);
    world.pass(ms(3_000));
    assert_eq!(pings_to(&world, addr), 3);
}

#[test]
fn in_another_network_an_address_nobody_attests_is_asked_three_times_again_and_no_more() {
    let mut world = World::direct();
    let addr = "192.0.2.80:80".parse().unwrap();
    name(&mut world, addr);
    assert_eq!(pings_to(&world, addr), 3);
    for n in 2..=4 {
        change(&mut world, AGENT);
        world.pass(ms(3_000));
        assert_eq!(pings_to(&world, addr), 3 * n);
        // The peer may name it as often as it likes.
        name(&mut world, addr);
        assert_eq!(pings_to(&world, addr), 3 * n);
    }
}
