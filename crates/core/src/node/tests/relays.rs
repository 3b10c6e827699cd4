//! Two relays: a live tunnel has a channel through each of them.

use byway_wire::relay::control::{CloseReason, Control, Role};

use super::world::*;
use crate::io::*;

/// A tunnel that cannot go direct, with a channel through each of its relays, two at the most.
pub(super) fn relayed(relays: usize) -> World {
    let mut world = World::with(config(Role::Client), config(Role::Agent), relays);
    world.direct_open = false;
    world.connect();
    assert!(
        world.run_for(ms(4_000), |w| channels(w) == relays.min(2)),
        "no second channel"
    );
    world.pass(ms(500));
    world
}

pub(super) fn channels(world: &World) -> usize {
    world.relays.iter().map(|r| r.channels.len()).sum()
}

/// The relay that carries the client's data.
pub(super) fn in_use(world: &World) -> usize {
    let Some(Way::Channel { channel, .. }) = world.hosts[CLIENT].route.as_ref().unwrap().primary
    else {
        panic!("not relayed")
    };
    let carries = |r: &Relay| r.channels.contains_key(&channel);
    world.relays.iter().position(carries).unwrap()
}

#[test]
fn the_second_relay_is_joined_when_the_tunnel_has_had_its_beginning() {
    let mut world = World::with(config(Role::Client), config(Role::Agent), 2);
    world.direct_open = false;
    world.connect();
    world.pass(ms(1_900));
    assert_eq!(channels(&world), 1);
    world.pass(ms(1_000));
    assert_eq!(channels(&world), 2);
    assert!(world.relays.iter().all(|r| r.channels.len() == 1));
    // And that is all.
    world.pass(ms(120_000));
    assert_eq!(channels(&world), 2);
    let opens = |r: &Relay| r.log.iter().filter(|m| **m == "Open").count();
    assert_eq!(world.relays.iter().map(opens).sum::<usize>(), 2);
}

#[test]
fn a_relay_that_falls_silent_costs_a_failover_and_no_dial() {
    let mut world = relayed(2);
    world.chat(CLIENT, ms(10), ms(2_000));
    let dead = in_use(&world);
    let from = world.elapsed();
    // Without a word: no link is lost.
    world.relays[dead].alive = false;
    world.chat(CLIENT, ms(10), ms(2_000));
    assert_ne!(in_use(&world), dead);
    let gap = world.hosts[AGENT].longest_gap(from);
    assert!(gap <= ms(300), "stalled {gap:?}");
    world.pass(ms(500));
    assert_eq!(world.hosts[AGENT].received.len(), 400, "something was lost");
}

/// What the tunnel says while both channels are being opened, and which only the `Open` on the dead relay carries.
#[test]
fn what_rode_to_a_relay_that_does_not_answer_follows_on_the_channel_that_opens() {
    let mut world = relayed(2);
    let dead = 1 - in_use(&world);
    world.relays[dead].alive = false;
    let (now, peer) = (world.now, world.hosts[CLIENT].peer.unwrap());
    let received = world.hosts[AGENT].received.len();
    let node = &mut world.hosts[CLIENT].node;
    // No channel outlives that: both are opened anew, on the links that are there.
    node.give_up_channels(now, ms(60_000));
    node.handle_timeout(now);
    let mut data = vec![0x40, 0];
    data.extend_from_slice(&7u64.to_be_bytes());
    node.send_first(now, peer, data.into());
    let dial = node.peers.get(&peer).and_then(|p| p.dial.as_ref());
    let relay = dial.map(|d| d.relays[dead]).unwrap();
    let link = node.links.usable(relay).unwrap();
    node.open(now, peer, relay, link);
    assert!(world.run_for(ms(200), |w| w.both(|k| k.is_some())));
    world.pass(ms(100));
    assert_eq!(world.hosts[AGENT].received.len(), received + 1);
}

#[test]
fn the_same_holds_where_direct_paths_are_not_wanted() {
    let off = |role| Config {
        direct: false,
        ..config(role)
    };
    let mut world = World::with(off(Role::Client), config(Role::Agent), 2);
    world.connect();
    assert!(world.run_for(ms(4_000), |w| channels(w) == 2));
    world.chat(CLIENT, ms(10), ms(2_000));
    let (dead, from) = (in_use(&world), world.elapsed());
    world.relays[dead].alive = false;
    world.chat(CLIENT, ms(10), ms(2_000));
    assert_ne!(in_use(&world), dead);
    let gap = world.hosts[AGENT].longest_gap(from);
    assert!(gap <= ms(300), "stalled {gap:?}");
}

#[test]
fn a_relay_that_is_killed_costs_less_and_is_joined_again_when_it_is_back() {
    let mut world = relayed(2);
    world.chat(CLIENT, ms(10), ms(1_000));
    let dead = in_use(&world);
    let from = world.elapsed();
    world.kill_relay(dead);
    world.chat(CLIENT, ms(10), ms(2_000));
    assert_ne!(in_use(&world), dead);
    let gap = world.hosts[AGENT].longest_gap(from);
    assert!(gap <= ms(50), "stalled {gap:?}");
    world.relays[dead].alive = true;
    assert!(
        world.run_for(ms(45_000), |w| channels(w) == 2),
        "{}",
        channels(&world)
    );
    // Then the other one dies.
    world.chat(CLIENT, ms(10), ms(1_000));
    let other = in_use(&world);
    let from = world.elapsed();
    world.kill_relay(other);
    world.chat(CLIENT, ms(10), ms(2_000));
    assert!(world.hosts[AGENT].longest_gap(from) <= ms(50));
}

#[test]
fn an_agent_that_is_at_one_relay_only_is_asked_for_at_the_other_ever_more_seldom() {
    let mut world = World::with(config(Role::Client), config(Role::Agent), 2);
    world.direct_open = false;
    world.relays[1].agents.clear();
    world.connect();
    world.relays[1].agents.clear();
    world.pass(ms(500));
    world.chat(CLIENT, ms(100), ms(120_000));
    world.pass(ms(100));
    let opens = world.relays[1].log.iter().filter(|m| **m == "Open").count();
    assert!((5..=16).contains(&opens), "{opens}");
    assert_eq!(world.hosts[AGENT].received.len(), 1_200);
}

/// The agent has left all relays, and each knows nothing of it.
fn agent_leaves(world: &mut World) {
    for relay in &mut world.relays {
        relay.agents.clear();
    }
    for relay in 0..world.relays.len() {
        let sides = std::mem::take(&mut world.relays[relay].channels);
        for (channel, [opener, _]) in sides {
            let reason = CloseReason::PeerGone;
            world.say_to(opener.unwrap(), Control::Closed { channel, reason });
        }
    }
}

/// How often a relay was asked.
fn opens(world: &World, relay: usize) -> usize {
    world.relays[relay].waits.len()
}

#[test]
fn who_is_looked_for_again_is_looked_for_at_once_whatever_waits_for_it_elsewhere() {
    let mut world = World::with(config(Role::Client), config(Role::Agent), 3);
    world.direct_open = false;
    let mut all = world.target();
    let third = all.relays.split_off(2);
    let peer = world.connect_to(all);
    assert!(world.run_for(ms(4_000), |w| channels(w) == 2));
    agent_leaves(&mut world);
    for relay in 0..2 {
        world.relays[relay].mute = true;
    }
    world.pass(ms(8_000));
    assert!((0..2).all(|n| world.relays[n].waits.last() == Some(&30_000)));
    let target = PeerTarget {
        relays: third,
        ..world.target()
    };
    let now = world.now;
    world.hosts[CLIENT].node.reach_again(now, peer, target);
    world.pass(ms(500));
    assert_eq!(opens(&world, 2), 1);
}

#[test]
fn a_relay_that_answers_nothing_while_it_waits_is_asked_again_when_the_wait_is_over() {
    let mut world = relayed(1);
    agent_leaves(&mut world);
    world.relays[0].mute = true;
    world.pass(ms(70_000));
    assert!((2..=4).contains(&opens(&world, 0)), "{}", opens(&world, 0));
}

#[test]
fn what_waits_on_a_link_that_has_a_successor_waits_on_that() {
    let mut world = World::with(config(Role::Client), config(Role::Agent), 1);
    (world.direct_open, world.udp_open[CLIENT]) = (false, false);
    world.connect();
    assert!(world.run_for(ms(4_000), |w| w.kind(CLIENT) == Some(PathKind::RelayTls)));
    agent_leaves(&mut world);
    world.relays[0].mute = true;
    world.pass(ms(8_000));
    world.udp_open[CLIENT] = true;
    let mut before = 0;
    assert!(world.run_for(ms(70_000), |w| {
        let by_udp = w.relays[0].has_link(CLIENT, Carrier::Udp);
        if !by_udp {
            before = opens(w, 0);
        }
        by_udp
    }));
    world.pass(ms(500));
    assert!(
        world.relays[0].has_link(CLIENT, Carrier::Tls),
        "it is not gone yet"
    );
    assert_eq!(opens(&world, 0), before + 1);
}

/// Relays are asked to wait for it, so that its return is told when it happens. One that refuses at once, as an old one does after
/// two seconds, is not asked the more often for it.
#[test]
fn an_agent_that_is_gone_is_waited_for_at_both_relays_and_asked_for_ever_more_seldom() {
    let mut world = relayed(2);
    agent_leaves(&mut world);
    world.pass(ms(120_000));
    for relay in &world.relays {
        let [first, again @ ..] = &relay.waits[..] else {
            panic!("nobody asked");
        };
        assert_eq!(*first, 0, "a new tunnel is to fail soon");
        assert!((5..=20).contains(&again.len()), "{again:?}");
        assert!(again.iter().all(|wait| *wait == 30_000), "{again:?}");
    }
}

#[test]
fn a_second_relay_that_is_out_of_reach_leaves_its_place_to_a_third() {
    let mut world = World::with(config(Role::Client), config(Role::Agent), 3);
    world.direct_open = false;
    world.relays[1].alive = false;
    world.connect();
    assert!(world.run_for(ms(20_000), |w| channels(w) == 2));
    assert_eq!(world.relays[2].channels.len(), 1);
}

#[test]
fn what_a_second_relay_says_does_not_touch_the_channel_through_the_first() {
    let mut world = relayed(2);
    let used = in_use(&world);
    let (&channel, sides) = world.relays[1 - used].channels.iter().next().unwrap();
    let link = sides[CLIENT].unwrap();
    let epoch = world.hosts[CLIENT].route.as_ref().unwrap().epoch;
    for reason in [CloseReason::NotAllowed, CloseReason::Done] {
        world.say_to(link, Control::Closed { channel, reason });
        world.chat(CLIENT, ms(20), ms(500));
    }
    assert_eq!(world.hosts[CLIENT].failed, None);
    assert_eq!(world.hosts[CLIENT].route.as_ref().unwrap().epoch, epoch);
    assert_eq!(in_use(&world), used);
}

/// A record of the agent's key, of a process that began later.
fn newer_instance() -> byway_wire::SignedRecord {
    let key = byway_wire::SecretKey::from_bytes(&[2; 32]);
    let record = byway_wire::Record {
        id: byway_wire::NodeInstance {
            node: key.node_id(),
            instance: byway_wire::Instance(99),
        },
        probe_key: byway_wire::ProbeSecret::from_bytes([99; 32]).public(),
        epoch: 99,
        seq: 0,
        relays: vec![],
    };
    byway_wire::SignedRecord::sign(&key, record)
}

#[test]
fn a_relay_that_shows_a_newer_instance_does_not_end_a_tunnel_whose_agent_answers() {
    for direct in [true, false] {
        let mut world = World::with(config(Role::Client), config(Role::Agent), 2);
        world.direct_open = direct;
        world.connect();
        assert!(world.run_for(ms(1_500), |w| w.hosts[CLIENT].route.is_some()));
        for relay in &mut world.relays {
            relay.shows = Some(newer_instance());
        }
        world.chat(CLIENT, ms(20), ms(30_000));
        assert_eq!(world.hosts[CLIENT].failed, None, "direct {direct}");
        assert_eq!(world.hosts[AGENT].received.len(), 1_500, "direct {direct}");
        let asked: usize = world
            .relays
            .iter()
            .map(|r| r.log.iter().filter(|m| **m == "Open").count())
            .sum();
        assert!((3..=12).contains(&asked), "direct {direct}: {asked} times");
    }
}

#[test]
fn it_ends_one_whose_agent_does_not() {
    let mut world = World::with(config(Role::Client), config(Role::Agent), 2);
    world.connect();
    assert!(world.run_for(ms(3_000), |w| w.both(|k| k == Some(PathKind::Direct))));
    world.pass(ms(3_000));
    // Killed: it cannot say goodbye, and the relays notice.
    let channels: Vec<_> = world
        .relays
        .iter()
        .flat_map(|r| r.channels.iter().map(|(&c, sides)| (c, sides[CLIENT])))
        .collect();
    world.restart(AGENT, Role::Agent, 2);
    for relay in &mut world.relays {
        relay.channels.clear();
    }
    let reason = CloseReason::PeerGone;
    for (channel, side) in channels {
        world.say_to(side.unwrap(), Control::Closed { channel, reason });
    }
    let from = world.elapsed();
    assert!(world.run_for(ms(15_000), |w| w.hosts[CLIENT].failed.is_some()));
    assert_eq!(world.hosts[CLIENT].failed, Some(PeerError::Restarted));
    let took = world.elapsed() - from;
    assert!(took <= ms(3_000), "{took:?}");
}
