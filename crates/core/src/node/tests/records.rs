//! What a peer's records say of where it is to be found, and what they cannot do.

use byway_wire::{Record, RelayUrl, SecretKey, SignedRecord};

use super::leaving::talk;
use super::relay_map::*;
use super::relays::in_use;
use super::world::*;
use crate::io::*;

/// The agent says that it is found at these, whether that is so or not.
fn says(world: &mut World, seq: u64, relays: Vec<RelayUrl>) {
    let record = Record {
        seq,
        relays,
        ..world.hosts[AGENT].node.record().record().clone()
    };
    let record = SignedRecord::sign(&SecretKey::from_bytes(&[2; 32]), record);
    let (now, peer) = (world.now, world.hosts[CLIENT].peer.unwrap());
    world.hosts[CLIENT].node.handle_record(now, peer, &record);
}

/// Eight relays that nobody reaches, from this one on.
fn eight(from: usize) -> Vec<RelayUrl> {
    (from..from + 8).map(relay_url).collect()
}

fn dies(world: &mut World, relays: std::ops::Range<usize>) {
    for relay in &mut world.relays[relays] {
        relay.alive = false;
    }
}

#[test]
fn a_record_of_eight_dead_relays_does_not_have_the_one_in_use_forgotten() {
    let mut world = tunnel_of(9, &[0], &[0]);
    dies(&mut world, 1..9);
    says(&mut world, 100, eight(1));
    talk(&mut world, ms(2_000));
    // For longer than anybody lingers.
    world.kill_relay(0);
    world.pass(ms(60_000));
    world.relays[0].alive = true;
    let back = world.run_for(ms(40_000), |w| w.relays[0].channels.len() == 1);
    assert!(back, "the only relay that works is not asked");
    talk(&mut world, ms(2_000));
    assert_eq!(in_use(&world), 0);
}

#[test]
fn a_channel_through_a_relay_of_no_record_any_more_is_left_for_one_of_the_newest() {
    let mut world = tunnel_of(10, &[0, 9], &[0]);
    dies(&mut world, 1..9);
    // A ticket with others pushes the one in use out of what is known.
    let (now, peer) = (world.now, world.hosts[CLIENT].peer.unwrap());
    let named = eight(1).into_iter().map(|url| (url, Vec::new()));
    let target = PeerTarget {
        relays: named.collect(),
        ..world.target()
    };
    world.hosts[CLIENT].node.reach_again(now, peer, target);
    says(&mut world, 100, vec![relay_url(9), relay_url(8)]);
    talk(&mut world, ms(20_000));
    assert_eq!(in_use(&world), 9);
    assert!(world.relays[0].channels.is_empty(), "it is still used");
}

/// It stood in for a relay that the peer has left for good.
#[test]
fn what_stands_in_for_a_relay_that_no_record_names_is_left_with_it() {
    let mut world = tunnel_of(4, &[0, 1], &[0, 1]);
    world.announce_end(0, ms(8_000), &[2]);
    assert!(world.run_for(ms(10_000), |w| w.relays[2].channels.len() == 1));
    set_map(&mut world, AGENT, &[1, 3]);
    talk(&mut world, ms(30_000));
    let used: Vec<usize> = world.relays.iter().map(|r| r.channels.len()).collect();
    assert_eq!(used, [0, 1, 0, 1]);
}

/// A client with a relay that is configured, a hundred of a map, and a peer that may be found at a second relay: all of them.
fn well_connected() -> (World, Vec<RelayId>) {
    let mut world = world_of(1, &[0]);
    world.pass(ms(1_000));
    let now = world.now;
    let client = &mut world.hosts[CLIENT].node;
    let named = |n: usize| MapRelay {
        url: relay_url(n),
        addrs: Vec::new(),
        region: "one".to_owned(),
    };
    let mut relays = vec![client.add_relay(now, relay_url(50), Vec::new())];
    let of_map = client.set_relay_map(now, (100..200).map(named).collect());
    relays.extend(of_map.into_iter().map(|(relay, _)| relay));
    let target = PeerTarget {
        relays: vec![(relay_url(0), vec![]), (relay_url(60), vec![])],
        ..world.target()
    };
    let peer = world.connect_to(target);
    world.pass(ms(1_000));
    let dial = world.hosts[CLIENT].node.peers[&peer].dial.as_ref().unwrap();
    assert_eq!(dial.relays.len(), 2);
    relays.extend(&dial.relays);
    (world, relays)
}

fn knows_all(world: &World, relays: &[RelayId]) -> bool {
    let links = &world.hosts[CLIENT].node.links;
    relays.iter().all(|relay| links.url(*relay).is_some())
}

#[test]
fn more_tickets_than_there_is_room_for_push_out_nothing_that_is_of_use() {
    let (mut world, relays) = well_connected();
    for n in 0..60 {
        let urls = eight(1_000 + 8 * n).into_iter();
        let target = PeerTarget {
            relays: urls.map(|url| (url, vec![])).collect(),
            ..world.target()
        };
        let now = world.now;
        let client = &mut world.hosts[CLIENT].node;
        let peer = client.connect(now, target);
        let dial = client.peers[&peer].dial.as_ref().unwrap();
        assert_eq!(dial.relays.len(), 8, "ticket {n}");
        let new = dial.relays.clone();
        assert!(knows_all(&world, &new), "ticket {n}");
        world.hosts[CLIENT].node.close_peer(now, peer);
        world.pass(ms(1_000));
    }
    assert!(knows_all(&world, &relays));
}

/// Its relays are others each second, and do not pile up.
#[test]
fn a_peer_that_names_ever_new_relays_has_those_that_it_left_forgotten() {
    let (mut world, relays) = well_connected();
    let target = PeerTarget {
        relays: vec![(relay_url(0), vec![]), (relay_url(70), vec![])],
        ..world.target()
    };
    world.connect_to(target);
    world.pass(ms(1_000));
    for n in 0..60 {
        says(&mut world, 100 + n, eight(1_000 + 8 * n as usize));
        world.pass(ms(1_000));
    }
    assert!(knows_all(&world, &relays));
    let known = world.hosts[CLIENT].node.links.relays().count();
    assert!(known < 220, "{known}");
    assert_eq!(world.hosts[CLIENT].failed, None);
}
