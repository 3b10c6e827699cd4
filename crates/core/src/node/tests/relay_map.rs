//! The relay map changes while tunnels run over its relays.

use byway_wire::relay::Pin;
use byway_wire::relay::control::Role;
use byway_wire::{RelayUrl, TicketSecret};

use super::leaving::{assert_unharmed, talk};
use super::relays::{channels, in_use};
use super::world::*;
use crate::io::*;

/// Each relay in a region of its own.
pub(super) fn map(relays: &[usize]) -> Vec<MapRelay> {
    let relay = |&n: &usize| MapRelay {
        url: relay_url(n),
        addrs: Vec::new(),
        region: format!("region {n}"),
    };
    relays.iter().map(relay).collect()
}

pub(super) fn set_map(world: &mut World, host: usize, relays: &[usize]) {
    let now = world.now;
    world.hosts[host].node.set_relay_map(now, map(relays));
}

/// Three relays, of which the agent's map names some.
fn world(agent: &[usize]) -> World {
    world_of(3, agent)
}

pub(super) fn world_of(relays: usize, agent: &[usize]) -> World {
    let mut world = World::with(config(Role::Client), config(Role::Agent), 0);
    world.relays = (0..relays).map(|_| Relay::new()).collect();
    world.direct_open = false;
    set_map(&mut world, AGENT, agent);
    world
}

pub(super) fn ticket(world: &World, relays: &[usize]) -> PeerTarget {
    let urls = relays.iter().map(|&n| (relay_url(n), vec![]));
    PeerTarget {
        relays: urls.collect(),
        ..world.target()
    }
}

/// A tunnel with a channel through each relay that its ticket names.
pub(super) fn tunnel(agent: &[usize], named: &[usize]) -> World {
    tunnel_of(3, agent, named)
}

pub(super) fn tunnel_of(relays: usize, agent: &[usize], named: &[usize]) -> World {
    let mut world = world_of(relays, agent);
    let ticket = ticket(&world, named);
    world.connect_to(ticket);
    assert!(world.run_for(ms(4_000), |w| channels(w) == named.len()));
    world.pass(ms(500));
    world
}

/// What the agent's record names.
pub(super) fn found_at(world: &World) -> Vec<RelayUrl> {
    world.hosts[AGENT].node.record().record().relays.clone()
}

pub(super) fn urls(relays: &[usize]) -> Vec<RelayUrl> {
    relays.iter().copied().map(relay_url).collect()
}

/// The agent has left the relay, and no channel is there. (Who dialled lingers: the next tunnel often goes the same way.)
pub(super) fn is_left(world: &World, relay: usize) -> bool {
    let relay = &world.relays[relay];
    relay.channels.is_empty() && !relay.has_link(AGENT, Carrier::Udp)
}

#[test]
fn an_agent_is_at_what_its_map_names_and_its_record_says_so() {
    let mut world = world(&[2, 0]);
    world.pass(ms(1_000));
    let linked = |w: &World, n: usize| w.relays[n].has_link(AGENT, Carrier::Udp);
    assert_eq!([0, 1, 2].map(|n| linked(&world, n)), [true, false, true]);
    assert_eq!(found_at(&world), urls(&[2, 0]));
}

#[test]
fn a_relay_that_is_gone_from_the_map_is_left_for_one_that_is_new_and_no_datagram_is_lost() {
    // The one that is left carries the data, or stands by.
    for carries in [true, false] {
        let mut world = tunnel(&[0, 1], &[0, 1]);
        talk(&mut world, ms(1_000));
        let used = in_use(&world);
        let (goes, stays) = if carries {
            (used, 1 - used)
        } else {
            (1 - used, used)
        };
        let from = world.elapsed();
        set_map(&mut world, AGENT, &[stays, 2]);
        talk(&mut world, ms(10_000));
        assert!(is_left(&world, goes), "carries {carries}");
        assert_ne!(in_use(&world), goes);
        assert_eq!(world.relays[2].channels.len(), 1, "the new one is not used");
        assert_eq!(channels(&world), 2);
        assert_eq!(found_at(&world), urls(&[stays, 2]));
        assert_unharmed(&world, from);
        assert_eq!(world.hosts[AGENT].dropped.len(), 1);
    }
}

#[test]
fn a_tunnel_over_the_only_relay_moves_to_the_only_new_one() {
    let mut world = tunnel(&[0], &[0]);
    let from = world.elapsed();
    set_map(&mut world, AGENT, &[1]);
    talk(&mut world, ms(20_000));
    assert!(is_left(&world, 0));
    assert_eq!(in_use(&world), 1);
    talk(&mut world, ms(30_000));
    assert!(world.relays[0].links.is_empty());
    assert_unharmed(&world, from);
}

#[test]
fn a_map_of_relays_that_nobody_reaches_costs_none_that_works() {
    let mut world = tunnel(&[0], &[0]);
    world.relays[1].alive = false;
    let from = world.elapsed();
    set_map(&mut world, AGENT, &[1]);
    talk(&mut world, ms(60_000));
    assert_eq!(in_use(&world), 0);
    assert!(world.relays[0].has_link(AGENT, Carrier::Udp));
    // It says where it is to be found, until it is found elsewhere.
    assert_eq!(found_at(&world), urls(&[0, 1]));
    // Its old relay restarts, and is dialled again though no map names it.
    world.break_links_to(AGENT, 0);
    talk(&mut world, ms(2_000));
    assert!(world.relays[0].has_link(AGENT, Carrier::Udp));
    world.relays[1].alive = true;
    talk(&mut world, ms(60_000));
    assert!(world.relays[0].links.is_empty());
    assert_eq!(found_at(&world), urls(&[1]));
    assert_eq!(in_use(&world), 1);
    assert_eq!(world.hosts[CLIENT].failed, None);
    assert!(world.hosts[AGENT].longest_gap(from) < ms(1_500));
}

#[test]
fn the_same_map_again_changes_nothing() {
    let mut world = tunnel(&[0, 1], &[0, 1]);
    let record = world.hosts[AGENT].node.record().clone();
    let dials = world.hosts[AGENT].dials.len();
    set_map(&mut world, AGENT, &[0, 1]);
    talk(&mut world, ms(10_000));
    assert_eq!(*world.hosts[AGENT].node.record(), record);
    assert_eq!(world.hosts[AGENT].dials.len(), dials);
    assert_eq!(world.hosts[AGENT].dropped, []);
}

#[test]
fn maps_that_change_faster_than_relays_are_left_end_with_the_last_one() {
    let mut world = tunnel(&[0, 1], &[0, 1]);
    let from = world.elapsed();
    for relays in [&[1, 2][..], &[2, 0], &[0], &[1, 2], &[0, 1], &[1, 2]] {
        set_map(&mut world, AGENT, relays);
        talk(&mut world, ms(300));
    }
    talk(&mut world, ms(15_000));
    assert!(is_left(&world, 0));
    assert_eq!(found_at(&world), urls(&[1, 2]));
    assert_eq!(channels(&world), 2);
    assert_unharmed(&world, from);
}

#[test]
fn what_is_configured_stays_whatever_a_map_says() {
    let mut world = world(&[0, 1]);
    let now = world.now;
    world.hosts[AGENT].node.add_relay(now, relay_url(0), vec![]);
    assert_eq!(found_at(&world), urls(&[0, 1]));
    world.pass(ms(1_000));
    set_map(&mut world, AGENT, &[2]);
    world.pass(ms(15_000));
    let linked = |w: &World, n: usize| w.relays[n].has_link(AGENT, Carrier::Udp);
    assert_eq!([0, 1, 2].map(|n| linked(&world, n)), [true, false, true]);
    assert_eq!(found_at(&world), urls(&[0, 2]));
}

/// A node may accept tunnels and dial others, and a ticket is another's word for where that one is.
#[test]
fn a_relay_through_which_somebody_was_dialled_stays_though_it_is_gone_from_the_map() {
    let caller = Config {
        admission: Admission::default(),
        ..config(Role::Agent)
    };
    let mut world = World::with(caller, config(Role::Agent), 0);
    world.relays = (0..3).map(|_| Relay::new()).collect();
    world.direct_open = false;
    set_map(&mut world, AGENT, &[0]);
    set_map(&mut world, CLIENT, &[0, 1]);
    let ticket = ticket(&world, &[0]);
    world.connect_to(ticket);
    assert!(world.run_for(ms(4_000), |w| channels(w) == 1));
    world.pass(ms(500));
    let from = world.elapsed();
    set_map(&mut world, CLIENT, &[1]);
    talk(&mut world, ms(30_000));
    assert_eq!(in_use(&world), 0);
    assert_unharmed(&world, from);
    let peer = world.hosts[CLIENT].peer.unwrap();
    let now = world.now;
    world.hosts[CLIENT].node.close_peer(now, peer);
    world.pass(ms(3_000));
    assert!(
        !world.relays[0].has_link(CLIENT, Carrier::Udp),
        "for nobody"
    );
    assert!(world.relays[1].has_link(CLIENT, Carrier::Udp));
}

/// The relay has another key: it is another relay to those who know it by its pin.
#[test]
fn another_pin_for_the_same_host_is_a_new_relay_in_place_of_the_old() {
    let mut world = tunnel(&[0], &[0]);
    let from = world.elapsed();
    let pinned = RelayUrl::new(relay_url(0).host(), 443, Some(Pin([7; 32]))).unwrap();
    let mut new = map(&[0]);
    new[0].url = pinned.clone();
    let now = world.now;
    world.hosts[AGENT].node.set_relay_map(now, new);
    talk(&mut world, ms(50_000));
    assert_eq!(found_at(&world), [pinned]);
    for host in [CLIENT, AGENT] {
        let links = world.relays[0].links.keys();
        assert_eq!(links.filter(|(h, _)| *h == host).count(), 1, "{host}");
    }
    assert_eq!(channels(&world), 1);
    assert_unharmed(&world, from);
}

#[test]
fn a_relay_that_stops_and_is_gone_from_the_map_is_left_once_and_not_looked_for_again() {
    // Whichever comes first.
    for map_first in [true, false] {
        let mut world = tunnel(&[0, 1], &[0, 1]);
        let from = world.elapsed();
        let stops = in_use(&world);
        if map_first {
            set_map(&mut world, AGENT, &[1 - stops, 2]);
            talk(&mut world, ms(500));
        }
        world.announce_end(stops, ms(8_000), &[]);
        if !map_first {
            talk(&mut world, ms(500));
            set_map(&mut world, AGENT, &[1 - stops, 2]);
        }
        talk(&mut world, ms(10_000));
        assert!(world.relays[stops].links.is_empty());
        assert_unharmed(&world, from);
        world.succeed(stops);
        talk(&mut world, ms(30_000));
        assert!(world.relays[stops].links.is_empty(), "it came back");
        assert_eq!(channels(&world), 2);
    }
}

/// What stood in for a relay that stops goes when the map says where to be instead.
#[test]
fn what_a_relay_named_is_left_with_it() {
    let mut world = world(&[0]);
    world.pass(ms(2_000));
    world.announce_end(0, ms(8_000), &[1]);
    let at = |w: &World, n: usize| w.relays[n].has_link(AGENT, Carrier::Udp);
    assert!(world.run_for(ms(10_000), |w| w.relays[0].links.is_empty()));
    assert!(at(&world, 1));
    set_map(&mut world, AGENT, &[2]);
    world.pass(ms(15_000));
    assert_eq!([0, 1, 2].map(|n| at(&world, n)), [false, false, true]);
}

/// Two relays carry a tunnel while one is upgraded, too.
#[test]
fn what_stands_in_for_a_relay_that_stops_is_not_left_though_no_record_names_it() {
    let mut world = tunnel(&[0, 1], &[0, 1]);
    world.announce_end(0, ms(8_000), &[2]);
    assert!(world.run_for(ms(10_000), |w| w.relays[2].channels.len() == 1));
    let record = world.hosts[AGENT].node.record().clone();
    assert_eq!(record.record().relays, urls(&[0, 1]));
    let (now, peer) = (world.now, world.hosts[CLIENT].peer.unwrap());
    world.hosts[CLIENT].node.handle_record(now, peer, &record);
    talk(&mut world, ms(20_000));
    let used = world.relays.iter().map(|r| r.channels.len());
    assert_eq!(used.collect::<Vec<_>>(), [0, 1, 1]);
}

#[test]
fn a_client_asks_its_maps_relays_by_stun_and_links_to_none() {
    let mut world = world(&[0]);
    let now = world.now;
    let [stays, addr] = [2, 3].map(|n| std::net::SocketAddr::from(([203, 0, 113, n], 443)));
    let mut relays = map(&[1, 2]);
    relays[0].addrs.push(stays);
    relays[1].addrs.push(addr);
    let client = &mut world.hosts[CLIENT].node;
    client.set_relay_map(now, relays);
    client.refresh(now);
    let asked = |w: &World| {
        let report = w.hosts[CLIENT].report.clone();
        report.is_some_and(|r| r.servers.iter().any(|s| s.addr == addr))
    };
    assert!(world.run_for(ms(3_000), asked));
    world.pass(ms(60_000));
    assert!(
        world
            .relays
            .iter()
            .all(|r| !r.has_link(CLIENT, Carrier::Udp))
    );
    set_map(&mut world, CLIENT, &[1]);
    assert_eq!(world.hosts[CLIENT].node.own_relays(), urls(&[1]));
    world.pass(ms(100));
    assert_eq!(world.hosts[CLIENT].dropped.len(), 1);
    let now = world.now;
    world.hosts[CLIENT].node.refresh(now);
    world.pass(ms(4_000));
    assert!(!asked(&world), "it is gone from the map");
}

/// Who holds an old ticket comes by a relay that is being left, and is told where to go.
#[test]
fn a_call_by_a_relay_that_is_being_left_is_answered_and_moves() {
    let mut world = tunnel(&[0], &[0]);
    set_map(&mut world, AGENT, &[1]);
    // The first tunnel holds the agent's link to the old one for a moment.
    assert!(world.run_for(ms(12_000), |w| found_at(w) == urls(&[1])));
    assert!(world.relays[0].has_link(AGENT, Carrier::Udp));
    let ticket = PeerTarget {
        secret: Some(TicketSecret::from_bytes(SECRET)),
        ..ticket(&world, &[0])
    };
    let now = world.now;
    let first = world.hosts[CLIENT].peer.unwrap();
    world.hosts[CLIENT].node.close_peer(now, first);
    let peer = world.connect_to(ticket);
    world.pass(ms(500));
    assert!(world.kind(CLIENT).is_some());
    // As its tunnel's greeting does.
    let record = world.hosts[AGENT].node.record().clone();
    let now = world.now;
    world.hosts[CLIENT].node.handle_record(now, peer, &record);
    talk(&mut world, ms(10_000));
    assert_eq!(in_use(&world), 1);
    assert!(is_left(&world, 0));
    assert_eq!(world.hosts[CLIENT].failed, None);
}

/// A map may name more than an agent keeps: what gives up its place is named still.
#[test]
fn a_relay_that_loses_its_place_to_another_is_left_and_not_dropped() {
    let mut world = world_of(9, &[0, 1, 2, 3, 4, 5, 6, 7, 8]);
    world.pass(ms(12_000));
    let linked = |w: &World, n: usize| w.relays[n].has_link(AGENT, Carrier::Udp);
    assert!(linked(&world, 0) && !linked(&world, 8));
    set_map(&mut world, AGENT, &[8, 1, 2, 3, 4, 5, 6, 7, 0]);
    world.pass(ms(12_000));
    assert!(linked(&world, 8) && !linked(&world, 0));
    assert_eq!(found_at(&world), urls(&[8, 1, 2, 3, 4, 5, 6, 7]));
    assert_eq!(world.hosts[AGENT].dropped, []);
    // It has a place again, and then the map names it no more.
    set_map(&mut world, AGENT, &[0, 1, 2, 3, 4, 5, 6, 7, 8]);
    world.pass(ms(3_000));
    assert!(linked(&world, 0));
    set_map(&mut world, AGENT, &[8, 1, 2, 3, 4, 5, 6, 7]);
    world.pass(ms(3_000));
    assert!(!linked(&world, 0));
    assert_eq!(world.hosts[AGENT].dropped.len(), 1);
}

#[test]
fn what_is_gone_from_a_clients_map_is_dropped_when_no_tunnel_needs_it_any_more() {
    // And what the map has again by then is not.
    for back in [false, true] {
        let mut world = world_of(2, &[0]);
        set_map(&mut world, CLIENT, &[0, 1]);
        let ticket = ticket(&world, &[0]);
        let peer = world.connect_to(ticket);
        assert!(world.run_for(ms(4_000), |w| channels(w) == 1));
        set_map(&mut world, CLIENT, &[1]);
        talk(&mut world, ms(2_000));
        assert_eq!(world.hosts[CLIENT].dropped, []);
        assert_eq!(in_use(&world), 0);
        if back {
            set_map(&mut world, CLIENT, &[1, 0]);
        }
        let now = world.now;
        world.hosts[CLIENT].node.close_peer(now, peer);
        world.pass(ms(40_000));
        assert!(!world.relays[0].has_link(CLIENT, Carrier::Udp));
        assert_eq!(world.hosts[CLIENT].dropped.len(), usize::from(!back));
    }
}

/// Half of what a node knows each, and there is a tunnel besides.
#[test]
fn the_largest_map_in_place_of_another_one_is_known_as_a_whole() {
    for host in [CLIENT, AGENT] {
        let mut world = tunnel(&[0], &[0]);
        let now = world.now;
        let mut known = |from: usize| {
            let relays: Vec<usize> = (from..from + 128).collect();
            let node = &mut world.hosts[host].node;
            node.set_relay_map(now, map(&relays)).len()
        };
        assert_eq!([100, 300, 500, 100].map(&mut known), [128; 4]);
    }
}
