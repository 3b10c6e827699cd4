//! Relay maps that are wrong, and relays that take over and fail: what works is kept.

use byway_wire::TicketSecret;

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
