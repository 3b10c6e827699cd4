//! Suspicion and failover, measured at a toy tunnel that really sends, acknowledges and replays.

use super::world::*;
use crate::io::*;

#[test]
fn a_silent_direct_path_costs_a_talking_application_less_than_a_quarter_second() {
    let mut world = World::direct();
    world.chat(CLIENT, ms(10), ms(3_000));
    let from = world.elapsed();
    world.direct_open = false;
    world.chat(CLIENT, ms(10), ms(3_000));
    assert!(
        world.both(|k| k == Some(PathKind::RelayUdp)),
        "{:?}",
        world.hosts[CLIENT].routes
    );
    let gap = world.hosts[AGENT].longest_gap(from);
    assert!(gap <= ms(250), "stalled {gap:?}");
    let reasons: Vec<_> = world.hosts[CLIENT]
        .routes
        .iter()
        .filter(|r| r.0 >= from)
        .map(|r| r.1)
        .collect();
    assert_eq!(
        reasons[..2],
        [RouteReason::Suspected, RouteReason::Failover]
    );
    assert_eq!(world.hosts[AGENT].unknown_source, 0);
}

#[test]
fn nothing_is_lost_across_a_failover() {
    let mut world = World::direct();
    world.chat(CLIENT, ms(20), ms(2_000));
    world.direct_open = false;
    world.chat(CLIENT, ms(20), ms(2_000));
    world.pass(ms(1_000));
    assert_eq!(world.hosts[AGENT].received.len(), 200);
}

#[test]
fn the_direct_path_is_taken_again_when_it_returns_and_quarantine_is_over() {
    let mut world = World::direct();
    world.chat(CLIENT, ms(20), ms(2_000));
    world.direct_open = false;
    world.chat(CLIENT, ms(20), ms(2_000));
    world.direct_open = true;
    world.chat(CLIENT, ms(20), ms(7_000));
    assert!(
        world.both(|k| k == Some(PathKind::RelayUdp)),
        "quarantine was cut short {:?}",
        world.hosts[AGENT].routes
    );
    for host in &world.hosts {
        assert_eq!(host.node.counters().quarantines, 1);
    }
    world.chat(CLIENT, ms(20), ms(15_000));
    assert!(
        world.both(|k| k == Some(PathKind::Direct)),
        "{:?}\n{:?}",
        world.hosts[CLIENT].routes,
        world.hosts[AGENT].routes
    );
}

#[test]
fn when_everything_is_silent_nothing_is_demoted() {
    let mut world = World::direct();
    world.chat(CLIENT, ms(20), ms(2_000));
    world.direct_open = false;
    world.udp_open = [false; 2];
    world.tls_open = false;
    world.chat(CLIENT, ms(20), ms(5_000));
    assert!(world.both(|k| k == Some(PathKind::Direct)));
    world.direct_open = true;
    world.udp_open = [true; 2];
    world.tls_open = true;
    world.chat(CLIENT, ms(20), ms(5_000));
    assert!(
        world.both(|k| k == Some(PathKind::Direct)),
        "{:?}",
        world.hosts[CLIENT].routes
    );
    // Once when it was suspected and once when it was back: quinn's own timer would have backed off.
    assert_eq!(world.hosts[CLIENT].replays, 2);
}

#[test]
fn a_short_pause_is_suspected_and_cleared_without_a_switch() {
    let mut world = World::direct();
    world.chat(CLIENT, ms(20), ms(2_000));
    let epoch = world.hosts[CLIENT].route.as_ref().unwrap().epoch;
    world.direct_open = false;
    world.chat(CLIENT, ms(20), ms(140));
    world.direct_open = true;
    world.chat(CLIENT, ms(20), ms(3_000));
    assert_eq!(world.hosts[CLIENT].route.as_ref().unwrap().epoch, epoch);
}

#[test]
fn duplication_ends_when_nothing_decides() {
    let mut world = World::direct();
    world.chat(CLIENT, ms(20), ms(2_000));
    world.direct_open = false;
    world.udp_open = [false; 2];
    world.tls_open = false;
    world.chat(CLIENT, ms(20), ms(1_000));
    assert!(world.hosts[CLIENT].route.as_ref().unwrap().duplicate);
    world.chat(CLIENT, ms(20), ms(2_000));
    assert!(!world.hosts[CLIENT].route.as_ref().unwrap().duplicate);
}

#[test]
fn an_idle_tunnel_notices_a_dead_direct_path_by_its_keepalive() {
    let mut world = World::direct();
    world.pass(ms(5_000));
    world.direct_open = false;
    assert!(world.run_for(ms(25_000), |w| w.both(|k| k == Some(PathKind::RelayUdp))));
}

#[test]
fn a_relayed_tunnel_whose_udp_stops_goes_on_over_tls() {
    let mut world = World::new();
    world.direct_open = false;
    world.connect();
    world.pass(ms(1_000));
    world.chat(CLIENT, ms(20), ms(2_000));
    let from = world.elapsed();
    world.udp_open = [false, true];
    world.chat(CLIENT, ms(20), ms(5_000));
    assert!(
        world.kind(CLIENT) == Some(PathKind::RelayTls),
        "{:?}",
        world.hosts[CLIENT].routes
    );
    let gap = world.hosts[AGENT].longest_gap(from);
    assert!(gap <= ms(1_500), "stalled {gap:?}");
}

#[test]
fn a_direct_path_that_shrank_below_the_size_in_use_is_left() {
    let mut world = World::direct();
    world.chat(CLIENT, ms(20), ms(2_000));
    // Small probes still pass; the tunnel's large datagrams do not.
    world.direct_mtu = 600;
    world.hosts[CLIENT].payload = 1_000;
    world.chat(CLIENT, ms(20), ms(1_000));
    assert_eq!(
        world.kind(CLIENT),
        Some(PathKind::RelayUdp),
        "{:?}",
        world.hosts[CLIENT].routes
    );
}

#[test]
fn a_hole_in_one_direction_is_found_by_both_sides() {
    let mut world = World::direct();
    world.chat(CLIENT, ms(10), ms(2_000));
    world.deaf = Some(CLIENT);
    let from = world.elapsed();
    world.chat(CLIENT, ms(10), ms(1_000));
    assert!(
        world.both(|k| k == Some(PathKind::RelayUdp)),
        "{:?}",
        world.hosts[AGENT].routes
    );
    // What the agent hears never stops; the acknowledgements do, for a while.
    assert!(world.hosts[AGENT].longest_gap(from) <= ms(20));
}

#[test]
fn a_direct_path_that_becomes_a_detour_is_left_after_three_samples() {
    let mut world = World::direct();
    world.chat(CLIENT, ms(50), ms(3_000));
    // It grows slowly, so that nothing looks like silence.
    for delay in (10..=70).step_by(5) {
        assert_eq!(world.kind(CLIENT), Some(PathKind::Direct), "left in haste");
        world.direct_delay = ms(delay);
        world.chat(CLIENT, ms(50), ms(1_500));
    }
    world.chat(CLIENT, ms(50), ms(20_000));
    let last = world.hosts[CLIENT]
        .routes
        .iter()
        .rfind(|r| r.1 != RouteReason::Standby);
    assert_eq!(
        last.map(|r| (r.1, r.2)),
        Some((RouteReason::Better, Some(PathKind::RelayUdp)))
    );
    world.direct_delay = ms(10);
    world.chat(CLIENT, ms(50), ms(60_000));
    assert_eq!(
        world.kind(CLIENT),
        Some(PathKind::Direct),
        "{:?}",
        world.hosts[CLIENT].routes
    );
    assert!(
        world.hosts[CLIENT].route.as_ref().unwrap().epoch <= 6,
        "it flaps: {:?}",
        world.hosts[CLIENT].routes
    );
}

#[test]
fn a_channel_that_just_lost_a_failover_is_taken_back_when_the_winner_dies_too() {
    let mut world = World::new();
    world.direct_delay = ms(60);
    world.connect();
    world.chat(CLIENT, ms(20), ms(3_000));
    assert!(world.both(|k| k == Some(PathKind::RelayUdp)), "a detour");
    world.hosts[CLIENT].routes.clear();
    // The channel goes silent, the links stay.
    let kept = std::mem::take(&mut world.relays[0].channels);
    world.chat(CLIENT, ms(20), ms(2_000));
    assert!(
        world.both(|k| k == Some(PathKind::Direct)),
        "{:?}",
        world.hosts[CLIENT].routes
    );
    world.relays[0].channels = kept;
    world.direct_open = false;
    world.chat(CLIENT, ms(20), ms(2_000));
    assert!(
        world.both(|k| k == Some(PathKind::RelayUdp)),
        "{:?}",
        world.hosts[CLIENT].routes
    );
}

#[test]
fn a_lost_ping_at_the_end_of_activity_does_not_end_the_keepalives() {
    let mut world = World::direct();
    world.chat(CLIENT, ms(20), ms(3_000));
    // The last measurement is lost, the bytes around it are not.
    world.lose_probes = true;
    world.chat(CLIENT, ms(20), ms(1_100));
    world.pass(ms(300));
    world.lose_probes = false;
    world.pass(ms(1_000));
    world.hosts[CLIENT].wakeups.clear();
    world.pass(ms(100_000));
    let wakeups = &world.hosts[CLIENT].wakeups;
    let kept = wakeups.get("path keep-alive").copied().unwrap_or(0);
    assert!((4..=7).contains(&kept), "{wakeups:?}");
}

#[test]
fn bytes_that_wait_for_a_dead_peer_do_not_keep_the_node_awake() {
    let mut world = World::direct();
    world.chat(CLIENT, ms(20), ms(2_000));
    world.direct_open = false;
    world.udp_open = [false; 2];
    world.tls_open = false;
    world.write(CLIENT);
    world.pass(ms(120_000));
    world.hosts[CLIENT].wakeups.clear();
    world.pass(ms(600_000));
    let wakeups = &mut world.hosts[CLIENT].wakeups;
    wakeups.retain(|why, _| !why.starts_with("link") && !why.starts_with("discovery"));
    assert!(wakeups.values().sum::<usize>() <= 40, "{wakeups:?}");
}

fn health(world: &World, host: usize) -> Health {
    world.hosts[host].route.as_ref().unwrap().health
}

#[test]
fn a_peer_that_fell_silent_is_lost_after_five_seconds_and_back_when_it_is_heard() {
    let mut world = World::direct();
    world.chat(CLIENT, ms(20), ms(2_000));
    assert_eq!(health(&world, CLIENT), Health::Good);
    world.direct_open = false;
    world.udp_open[AGENT] = false;
    world.tls_open = false;
    world.chat(CLIENT, ms(20), ms(1_000));
    assert_eq!(health(&world, CLIENT), Health::Degraded);
    world.chat(CLIENT, ms(20), ms(3_900));
    assert_eq!(health(&world, CLIENT), Health::Degraded);
    world.chat(CLIENT, ms(20), ms(600));
    assert_eq!(health(&world, CLIENT), Health::Lost);
    assert_eq!(
        world.hosts[CLIENT].routes.last().map(|r| r.1),
        Some(RouteReason::Silent)
    );
    world.direct_open = true;
    world.udp_open[AGENT] = true;
    world.tls_open = true;
    world.chat(CLIENT, ms(20), ms(3_000));
    assert_eq!(health(&world, CLIENT), Health::Good);
}

#[test]
fn a_client_that_idles_learns_that_its_agent_died() {
    let mut world = World::direct();
    world.pass(ms(5_000));
    world.udp_open[AGENT] = false;
    world.tls_open = false;
    world.direct_open = false;
    // Keep-alives are 20 s apart.
    assert!(world.run_for(ms(27_000), |w| health(w, CLIENT) == Health::Lost));
    assert_eq!(world.hosts[CLIENT].failed, None, "it may come back");
}

#[test]
fn what_a_relay_says_of_a_dead_peer_is_looked_into_at_once() {
    let mut world = World::direct();
    world.pass(ms(5_000));
    world.direct_open = false;
    let (&channel, &sides) = world.relays[0].channels.iter().next().unwrap();
    let reason = byway_wire::relay::control::CloseReason::PeerGone;
    world.relays[0].channels.clear();
    world.relays[0].agents.clear();
    let closed = byway_wire::relay::control::Control::Closed { channel, reason };
    world.say_to(sides[CLIENT].unwrap(), closed);
    assert!(world.run_for(ms(5_500), |w| health(w, CLIENT) == Health::Lost));
}

#[test]
fn a_path_that_is_good_and_bad_by_turns_does_not_take_the_tunnel_along() {
    let mut world = World::direct();
    world.chat(CLIENT, ms(50), ms(3_000));
    let before = world.hosts[CLIENT].route.as_ref().unwrap().epoch;
    // Long enough each time to be left, and to look better again. Ramps, so that nothing looks like silence.
    for _ in 0..12 {
        for delay in (10..=70).step_by(5).chain([70; 12]).chain([10; 8]) {
            world.direct_delay = ms(delay);
            world.chat(CLIENT, ms(50), ms(1_000));
        }
    }
    let moves = world.hosts[CLIENT].route.as_ref().unwrap().epoch - before;
    // Two each time, were it not for the patience that doubles.
    assert!((1..=10).contains(&moves), "{moves} moves");
    // And when it stays good it is taken in the end.
    world.chat(CLIENT, ms(50), ms(120_000));
    assert_eq!(world.kind(CLIENT), Some(PathKind::Direct));
}
