//! A relay says that it will stop: who can goes elsewhere, and comes back to its successor.

use std::time::Duration;

use byway_wire::relay::control::{Control, Role};

use super::relays::{channels, in_use, relayed};
use super::world::*;
use crate::io::*;

/// One datagram every 10 ms, in both directions.
pub(super) fn talk(world: &mut World, time: Duration) {
    let end = world.elapsed() + time;
    while world.elapsed() < end {
        world.write(CLIENT);
        world.write(AGENT);
        world.pass(ms(10));
    }
}

/// Everything that was sent arrived, and nothing stood still for long.
pub(super) fn assert_unharmed(world: &World, from: Duration) {
    for host in [CLIENT, AGENT] {
        let host = &world.hosts[host];
        assert!(host.longest_gap(from) < ms(100), "it stood still");
        assert_eq!(
            host.unacknowledged_for(world.now, ms(500)),
            0,
            "data was lost"
        );
        assert_eq!(host.replays, 0, "there was an outage");
    }
}

#[test]
fn a_relay_that_stops_is_empty_before_its_deadline_and_no_datagram_is_lost() {
    let mut world = relayed(2);
    talk(&mut world, ms(2_000));
    let (from, stops) = (world.elapsed(), in_use(&world));
    world.announce_end(stops, ms(20_000), &[]);
    talk(&mut world, ms(9_000));
    assert!(world.relays[stops].links.is_empty());
    assert_ne!(in_use(&world), stops);
    assert_unharmed(&world, from);
    // Its successor takes the place that it had.
    world.succeed(stops);
    talk(&mut world, ms(9_000));
    assert_eq!(channels(&world), 2);
    assert!(world.relays[stops].has_link(AGENT, Carrier::Udp));
    assert_unharmed(&world, from);
}

#[test]
fn two_relays_are_upgraded_in_turn_ten_times() {
    let mut world = relayed(2);
    let from = world.elapsed();
    for turn in 0..10 {
        let stops = turn % 2;
        world.announce_end(stops, ms(8_000), &[]);
        talk(&mut world, ms(6_000));
        assert!(world.relays[stops].links.is_empty(), "turn {turn}");
        world.succeed(stops);
        talk(&mut world, ms(9_000));
        assert_eq!(channels(&world), 2, "turn {turn}");
    }
    assert_unharmed(&world, from);
    assert_eq!(world.hosts[CLIENT].peers_seen, 1);
}

#[test]
fn a_standby_at_a_relay_that_stops_is_given_up_and_data_stays_where_it_is() {
    let mut world = relayed(2);
    let (from, used) = (world.elapsed(), in_use(&world));
    let routes = world.hosts[CLIENT].routes.len();
    world.announce_end(1 - used, ms(4_000), &[]);
    talk(&mut world, ms(6_000));
    assert!(world.relays[1 - used].links.is_empty());
    let moved = world.hosts[CLIENT].routes[routes..]
        .iter()
        .filter(|(_, reason, _)| *reason != RouteReason::Standby);
    assert_eq!(moved.count(), 0);
    assert_unharmed(&world, from);
}

#[test]
fn the_relay_that_is_named_is_joined_before_the_one_that_names_it_is_left() {
    let mut world = World::with(config(Role::Client), config(Role::Agent), 2);
    world.direct_open = false;
    // Nobody was told of the second one.
    let target = PeerTarget {
        relays: vec![(relay_url(0), vec![])],
        ..world.target()
    };
    world.relays[1].alive = false;
    world.connect_to(target);
    world.pass(ms(500));
    talk(&mut world, ms(4_000));
    world.relays[1].alive = true;
    let from = world.elapsed();
    world.announce_end(0, ms(8_000), &[1]);
    talk(&mut world, ms(14_000));
    assert!(world.relays[0].links.is_empty());
    assert_eq!(in_use(&world), 1);
    assert_unharmed(&world, from);
}

#[test]
fn who_has_nowhere_to_go_stays_until_the_relay_ends_the_link() {
    let mut world = relayed(1);
    let from = world.elapsed();
    world.announce_end(0, ms(4_000), &[]);
    talk(&mut world, ms(60_000));
    assert_eq!(world.relays[0].links.len(), 2);
    assert_unharmed(&world, from);
    // It ends, and its successor is dialled at once: that it said so is no reason to stay away.
    world.kill_relay(0);
    world.relays[0].links.clear();
    world.succeed(0);
    world.relays[0].alive = true;
    assert!(world.run_for(ms(2_000), |w| w.both(|k| k == Some(PathKind::RelayUdp))));
}

/// An agent that can be reached nowhere else would be lost to whoever calls it.
#[test]
fn an_agent_without_tunnels_leaves_only_once_another_relay_has_it() {
    let mut world = World::with(config(Role::Client), config(Role::Agent), 2);
    world.pass(ms(2_000));
    world.relays[1].alive = false;
    world.break_links_to(AGENT, 1);
    world.announce_end(0, ms(2_000), &[]);
    world.pass(ms(10_000));
    assert!(world.relays[0].has_link(AGENT, Carrier::Udp));
    world.relays[1].alive = true;
    assert!(world.run_for(ms(15_000), |w| w.relays[1].has_link(AGENT, Carrier::Udp)));
    world.pass(ms(2_000));
    assert!(world.relays[0].links.is_empty());
}

#[test]
fn a_client_hangs_up_at_once_where_it_needs_nothing() {
    let mut world = relayed(1);
    world.hosts[CLIENT].node.close_peer(world.now, PeerId(1));
    world.pass(ms(500));
    assert!(world.relays[0].has_link(CLIENT, Carrier::Udp), "it lingers");
    world.announce_end(0, ms(4_000), &[]);
    world.pass(ms(2_100));
    assert!(!world.relays[0].has_link(CLIENT, Carrier::Udp));
}

#[test]
fn a_new_call_goes_to_a_relay_that_stays_although_one_that_stops_is_linked() {
    let mut world = relayed(2);
    world.announce_end(in_use(&world), ms(60_000), &[]);
    let stops = in_use(&world);
    // All nodes have begun to leave by then.
    world.pass(ms(15_500));
    let opens = |w: &World| w.relays[stops].log.iter().filter(|m| **m == "Open").count();
    let before = opens(&world);
    world.connect();
    assert!(world.run_for(ms(2_000), |w| w.both(|k| k == Some(PathKind::RelayUdp))));
    assert_eq!(opens(&world), before);
}

/// All nodes of a relay hear of it in one instant, and draw when they go.
#[test]
fn nodes_leave_spread_over_a_quarter_of_the_time_that_they_have() {
    let mut world = relayed(2);
    let mut left = Vec::new();
    for _ in 0..24 {
        let stops = in_use(&world);
        let from = world.elapsed();
        world.announce_end(stops, ms(40_000), &[]);
        // What has another way goes there at once.
        assert!(world.run_for(ms(100), |w| in_use(w) != stops));
        assert!(world.run_for(ms(20_000), |w| {
            !w.relays[stops].has_link(CLIENT, Carrier::Udp)
        }));
        left.push(world.elapsed() - from);
        assert!(world.run_for(ms(30_000), |w| w.relays[stops].links.is_empty()));
        world.succeed(stops);
        assert!(world.run_for(ms(30_000), |w| channels(w) == 2));
        world.pass(ms(1_000));
    }
    left.sort();
    // Three seconds for the channel, one for the link.
    assert!(left[0] < ms(7_000) && left[23] > ms(11_000), "{left:?}");
    assert!(left[23] < ms(14_500), "{left:?}");
}

/// Its ticket is older than the upgrade, and the agent has gone already.
#[test]
fn a_newcomer_is_sent_where_the_agent_has_gone() {
    let mut world = World::with(config(Role::Client), config(Role::Agent), 1);
    world.direct_open = false;
    world.relays.push(Relay::new());
    world.pass(ms(2_000));
    world.announce_end(0, ms(8_000), &[1]);
    assert!(world.run_for(ms(10_000), |w| w.relays[0].links.is_empty()));
    assert!(world.relays[1].has_link(AGENT, Carrier::Udp));
    let only_the_first = PeerTarget {
        relays: vec![(relay_url(0), vec![])],
        ..world.target()
    };
    world.connect_to(only_the_first);
    assert!(world.run_for(ms(1_000), |w| w.both(|k| k == Some(PathKind::RelayUdp))));
    assert_eq!(in_use(&world), 1);
}

/// Agents take their time to leave, and a newcomer cannot wait where they still are.
#[test]
fn a_newcomer_that_is_there_before_the_agent_waits_for_it() {
    let mut world = World::with(config(Role::Client), config(Role::Agent), 1);
    world.direct_open = false;
    world.relays.push(Relay::new());
    world.relays[1].patience = ms(2_000);
    world.pass(ms(2_000));
    world.announce_end(0, ms(24_000), &[1]);
    world.pass(ms(200));
    assert!(world.relays[1].links.is_empty(), "the agent has not gone");
    let only_the_first = PeerTarget {
        relays: vec![(relay_url(0), vec![])],
        ..world.target()
    };
    let began = world.elapsed();
    world.connect_to(only_the_first);
    // Neither carrier's refusal is waited for.
    assert!(world.run_for(ms(200), |w| { w.relays[1].has_link(CLIENT, Carrier::Udp) }));
    assert!(world.run_for(ms(9_000), |w| w.both(|k| k == Some(PathKind::RelayUdp))));
    assert!(world.elapsed() - began > ms(500), "it was there first");
    assert_eq!(in_use(&world), 1);
    // It refused once by each carrier, and was left alone for a while.
    let refused = world.relays[0].log.iter().filter(|m| **m == "Hello");
    assert!(refused.count() <= 1 + 2 * 4);
}

/// And if it does not come, that is said: not that its relay stops.
#[test]
fn a_newcomer_whose_agent_does_not_come_hears_that_it_is_offline() {
    let mut world = World::with(config(Role::Client), config(Role::Agent), 1);
    world.relays.push(Relay::new());
    world.relays[1].patience = ms(2_000);
    world.relays[0].drains = true;
    world.relays[0].last_words = Some(Control::GoingAway {
        deadline_ms: 60_000,
        alternates: vec![relay_url(1)],
    });
    let only_the_first = PeerTarget {
        relays: vec![(relay_url(0), vec![])],
        ..world.target()
    };
    world.break_links(AGENT);
    world.udp_open[AGENT] = false;
    world.tls_open = false;
    let began = world.elapsed();
    world.connect_to(only_the_first);
    assert!(world.run_for(ms(12_000), |w| w.hosts[CLIENT].failed.is_some()));
    assert!(world.elapsed() - began > ms(9_500), "it was waited for");
    assert!(matches!(
        world.hosts[CLIENT].failed,
        Some(PeerError::Offline)
    ));
    // Every two seconds, and not all the time.
    assert!(world.relays[1].waits.len() <= 6);
}

/// A ticket names many, and it is asked for at each, though the first ones are asked again and again.
#[test]
fn a_newcomer_asks_at_the_last_of_many_relays_as_well() {
    for patience in [ms(0), ms(2_000)] {
        let mut world = World::with(config(Role::Client), config(Role::Agent), 1);
        world.direct_open = false;
        world.relays.resize_with(6, Relay::new);
        for relay in &mut world.relays[1..5] {
            relay.patience = patience;
        }
        let now = world.now;
        world.hosts[AGENT].node.add_relay(now, relay_url(5), vec![]);
        world.pass(ms(2_000));
        world.relays[0].drains = true;
        world.relays[0].last_words = Some(Control::GoingAway {
            deadline_ms: 60_000,
            alternates: vec![],
        });
        world.connect();
        assert!(world.run_for(ms(9_000), |w| w.both(|k| k == Some(PathKind::RelayUdp))));
        assert_eq!(in_use(&world), 5);
    }
}

/// Two processes behind one name, of which the other one stops.
#[test]
fn what_refuses_another_link_of_ours_takes_nothing_from_the_one_in_use() {
    let mut world = World::with(config(Role::Client), config(Role::Agent), 1);
    world.direct_open = false;
    world.udp_open[CLIENT] = false;
    world.connect();
    assert!(world.run_for(ms(5_000), |w| {
        w.both(|k| k == Some(PathKind::RelayTls) || k == Some(PathKind::RelayUdp))
    }));
    assert!(world.relays[0].has_link(CLIENT, Carrier::Tls));
    let hellos = |w: &World| w.relays[0].log.iter().filter(|m| **m == "Hello").count();
    let before = hellos(&world);
    world.udp_open[CLIENT] = true;
    world.relays[0].drains = true;
    world.relays[0].last_words = Some(Control::GoingAway {
        deadline_ms: 4_000,
        alternates: vec![],
    });
    let from = world.elapsed();
    talk(&mut world, ms(70_000));
    assert!(hellos(&world) > before, "UDP was tried");
    assert!(world.relays[0].has_link(CLIENT, Carrier::Tls));
    assert_unharmed(&world, from);
    // It is used, not merely kept: a call goes there.
    let relay = world.hosts[CLIENT].node.links.relays().next().unwrap();
    assert!(!world.hosts[CLIENT].node.links.will_stop(relay));
}

/// An agent that starts meanwhile, and knows no other, is to be found where it is looked for.
#[test]
fn an_agent_that_comes_too_late_goes_where_it_is_sent_and_comes_back() {
    let mut world = World::with(config(Role::Client), config(Role::Agent), 1);
    world.relays.push(Relay::new());
    world.announce_end(0, ms(8_000), &[1]);
    assert!(world.run_for(ms(2_000), |w| w.relays[1].has_link(AGENT, Carrier::Udp)));
    // Both carriers have been refused.
    world.pass(ms(1_000));
    world.succeed(0);
    assert!(world.run_for(ms(30_000), |w| w.relays[0].has_link(AGENT, Carrier::Udp)));
    assert!(world.run_for(ms(60_000), |w| !w.relays[1].has_link(AGENT, Carrier::Udp)));
}

#[test]
fn a_relay_that_we_have_said_nothing_to_has_nothing_to_say_of_going_away() {
    let mut world = World::with(config(Role::Client), config(Role::Agent), 2);
    world.connect();
    world.pass(ms(5));
    let link = world.link_of(CLIENT);
    let unexpected = world.hosts[CLIENT].node.counters().control_unexpected;
    let away = Control::GoingAway {
        deadline_ms: 0,
        alternates: vec![relay_url(1)],
    };
    world.hosts[CLIENT]
        .node
        .handle_control(world.now, link, away);
    assert_eq!(
        world.hosts[CLIENT].node.counters().control_unexpected,
        unexpected + 1
    );
}

/// It may be hostile, or one of two behind a name.
#[test]
fn a_relay_that_sends_everybody_away_at_once_is_dialled_ever_more_seldom() {
    let mut world = World::with(config(Role::Client), config(Role::Agent), 2);
    world.pass(ms(2_000));
    let dials = world.hosts[AGENT].dials.len();
    for _ in 0..600 {
        if world.relays[0].has_link(AGENT, Carrier::Udp) {
            world.announce_end(0, ms(0), &[]);
            world.relays[0].drains = false;
        }
        world.pass(ms(1_000));
    }
    let more = world.hosts[AGENT].dials.len() - dials;
    // Every ten seconds in the end; without a back-off each four or five.
    assert!(more < 90, "{more} dials in ten minutes");
}

#[test]
fn a_call_that_comes_later_goes_where_the_relay_that_stops_sent_the_agent() {
    let mut world = World::with(config(Role::Client), config(Role::Agent), 2);
    world.direct_open = false;
    let only_the_first = PeerTarget {
        relays: vec![(relay_url(0), vec![])],
        ..world.target()
    };
    world.connect_to(only_the_first.clone());
    world.pass(ms(3_000));
    world.announce_end(0, ms(8_000), &[1]);
    // The agent has gone, and the client is still here for a moment.
    assert!(world.run_for(ms(12_000), |w| in_use(w) == 1));
    world.connect_to(only_the_first);
    assert!(world.run_for(ms(2_000), |w| w.both(|k| k == Some(PathKind::RelayUdp))));
    assert_eq!(in_use(&world), 1);
}

/// What a relay named is given back once its successor is there; what is configured here is not.
#[test]
fn a_relay_that_was_named_and_then_configured_here_is_kept_for_good() {
    for configured in [false, true] {
        let mut world = World::with(config(Role::Client), config(Role::Agent), 1);
        world.relays.push(Relay::new());
        world.pass(ms(2_000));
        world.announce_end(0, ms(8_000), &[1]);
        assert!(world.run_for(ms(10_000), |w| w.relays[0].links.is_empty()));
        let is_kept = |world: &World| {
            let links = &world.hosts[AGENT].node.links;
            let mut named = links
                .relays()
                .filter(|r| links.url(*r) == Some(&relay_url(1)));
            named.any(|relay| links.is_kept(relay))
        };
        assert!(is_kept(&world));
        if configured {
            let now = world.now;
            world.hosts[AGENT].node.add_relay(now, relay_url(1), vec![]);
        }
        world.succeed(0);
        assert!(world.run_for(ms(60_000), |w| w.relays[0].has_link(AGENT, Carrier::Udp)));
        world.pass(ms(1_000));
        assert_eq!(is_kept(&world), configured);
    }
}
