//! Relay maps that are wrong, and relays that take over and fail: what works is kept.

use byway_wire::{RelayUrl, TicketSecret};

use super::leaving::talk;
use super::relay_map::*;
use super::relays::in_use;
use super::world::*;
use crate::io::*;

fn is_linked(world: &World, relay: usize) -> bool {
    world.relays[relay].has_link(AGENT, Carrier::Udp)
}

/// Who knows what the agent's record says reaches it.
fn is_reached(world: &mut World) -> bool {
    let relays = found_at(world).into_iter().map(|url| (url, Vec::new()));
    let target = PeerTarget {
        relays: relays.collect(),
        secret: Some(TicketSecret::from_bytes(SECRET)),
        ..world.target()
    };
    if let Some(peer) = world.hosts[CLIENT].peer {
        let now = world.now;
        world.hosts[CLIENT].node.close_peer(now, peer);
    }
    world.hosts[CLIENT].route = None;
    world.connect_to(target);
    world.run_for(ms(9_000), |w| w.kind(CLIENT).is_some())
}

/// As many as a record names, and none of them is there.
const DEAD: [usize; 8] = [1, 2, 3, 4, 5, 6, 7, 8];

#[test]
fn a_large_map_of_dead_relays_does_not_take_the_one_that_works_out_of_the_record() {
    let mut world = tunnel_of(9, &[0], &[0]);
    for n in DEAD {
        world.relays[n].alive = false;
    }
    set_map(&mut world, AGENT, &DEAD);
    world.pass(ms(20_000));
    assert_eq!(found_at(&world), urls(&[0, 1, 2, 3, 4, 5, 6, 7]));
    // Who is there comes back to it when its link breaks, and who comes anew finds it.
    world.break_links_to(CLIENT, 0);
    let back = world.run_for(ms(9_000), |w| w.relays[0].has_link(CLIENT, Carrier::Udp));
    assert!(back, "the client lost the only relay that works");
    talk(&mut world, ms(2_000));
    assert_eq!(in_use(&world), 0);
    assert!(is_reached(&mut world));
}

/// And those of the map before were dead as well.
#[test]
fn of_several_that_are_kept_for_want_of_another_the_one_that_works_is_named_first() {
    let mut world = world_of(17, &[0]);
    world.pass(ms(1_000));
    for relay in &mut world.relays[1..] {
        relay.alive = false;
    }
    set_map(&mut world, AGENT, &DEAD);
    world.pass(ms(5_000));
    set_map(&mut world, AGENT, &DEAD.map(|n| n + 8));
    world.pass(ms(5_000));
    assert_eq!(found_at(&world)[0], relay_url(0));
    // Two of the map before come up and break, again and again.
    for n in [1, 2] {
        world.relays[n].alive = true;
        world.relays[n].fickle = true;
    }
    world.pass(ms(60_000));
    assert!(found_at(&world)[..3].contains(&relay_url(0)));
    assert!(is_reached(&mut world));
}

/// A record is cut at 1 KiB, from the end.
#[test]
fn of_a_map_of_long_names_the_record_names_the_relay_that_works() {
    let long = |n: usize| MapRelay {
        url: RelayUrl::new(&format!("n{n}.{0}.{0}.{0}.test", "x".repeat(60)), 443, None).unwrap(),
        addrs: Vec::new(),
        region: n.to_string(),
    };
    // It is one of the map before, or the last of this one.
    for old in [true, false] {
        let mut world = world_of(1, if old { &[0] } else { &[] });
        world.pass(ms(1_000));
        let mut relays: Vec<MapRelay> = (0..8).map(long).collect();
        if !old {
            relays[7].url = relay_url(0);
        }
        let now = world.now;
        world.hosts[AGENT].node.set_relay_map(now, relays);
        world.pass(ms(20_000));
        let named = found_at(&world);
        assert!(named.len() < 8, "they fit: {named:?}");
        assert_eq!(named[0], relay_url(0), "old {old}");
    }
}

/// It takes over from a relay that works, and is gone before it was of use.
#[test]
fn a_relay_that_breaks_at_once_is_no_reason_to_leave_one_that_works() {
    let mut world = world_of(2, &[0]);
    world.pass(ms(1_000));
    set_map(&mut world, AGENT, &[1]);
    assert!(world.run_for(ms(1_000), |w| is_linked(w, 1)));
    world.pass(ms(500));
    world.kill_relay(1);
    world.pass(ms(60_000));
    assert!(is_linked(&world, 0), "the agent has no relay");
    assert!(found_at(&world).contains(&relay_url(0)));
    assert!(is_reached(&mut world));
    // Once the other one works for good it has what it was to have.
    world.relays[1].alive = true;
    world.pass(ms(60_000));
    assert!(is_linked(&world, 1));
    assert_eq!(found_at(&world), urls(&[1]));
}

/// It had lasted, and dies while its predecessor is being left.
#[test]
fn a_relay_that_is_being_left_is_kept_after_all_when_its_successor_dies() {
    let mut world = tunnel(&[0], &[0]);
    set_map(&mut world, AGENT, &[1]);
    assert!(world.run_for(ms(20_000), |w| found_at(w) == urls(&[1])));
    assert!(is_linked(&world, 0), "it is being left");
    world.kill_relay(1);
    talk(&mut world, ms(30_000));
    assert!(is_linked(&world, 0));
    assert!(found_at(&world).contains(&relay_url(0)));
    assert_eq!(in_use(&world), 0);
    assert_eq!(world.hosts[CLIENT].failed, None);
}

/// A link whose data is asked for again has not failed, and a record is not signed anew for it.
#[test]
fn a_successor_that_is_suspected_for_a_moment_has_not_failed() {
    let mut world = tunnel(&[0], &[0]);
    set_map(&mut world, AGENT, &[1]);
    assert!(world.run_for(ms(20_000), |w| found_at(w) == urls(&[1])));
    let record = world.hosts[AGENT].node.record().clone();
    let (now, node) = (world.now, &mut world.hosts[AGENT].node);
    let is_it = |relay: &RelayId| node.links.url(*relay) == Some(&relay_url(1));
    let relay = node.links.relays().find(is_it).unwrap();
    let id = node.links.usable(relay).unwrap();
    let mut cx = crate::cx::cx!(node, now);
    node.links.suspect(&mut cx, id);
    node.handle_timeout(now);
    world.pass(ms(500));
    assert_eq!(*world.hosts[AGENT].node.record(), record);
}

/// It stops, and has said so: nobody is to be left for it.
#[test]
fn a_relay_that_announced_its_end_is_no_reason_to_leave_another() {
    let mut world = world_of(3, &[0, 1]);
    world.relays[2].alive = false;
    world.pass(ms(12_000));
    // Its nodes leave it in the course of fifteen seconds.
    world.announce_end(1, ms(60_000), &[]);
    world.pass(ms(20));
    set_map(&mut world, AGENT, &[1, 2]);
    world.pass(ms(90_000));
    assert!(is_linked(&world, 0), "the agent has no relay");
    assert!(found_at(&world).contains(&relay_url(0)));
    // Its successor stays.
    world.kill_relay(1);
    world.succeed(1);
    world.relays[1].alive = true;
    world.pass(ms(60_000));
    assert!(is_linked(&world, 1) && !is_linked(&world, 0));
    assert_eq!(found_at(&world), urls(&[1, 2]));
}
