//! One round after another: refreshes, other sockets, servers that come and go.

use std::net::SocketAddr;

use super::super::*;
use super::world::*;

#[test]
fn a_refresh_asks_one_server_and_says_nothing_when_nothing_changed() {
    let servers = [
        (A, Server::Honest(30)),
        (B, Server::Honest(10)),
        (C, Server::Dead),
    ];
    let mut world = World::new(independent(), &servers);
    world.full();
    world.finish();
    let reports = world.reports.len();
    let requests = world.requests.len();
    world.discovery.start(world.now, Kind::Refresh);
    assert_eq!(world.settle(), 10 * MS);
    world.finish();
    assert_eq!(world.requests.len(), requests + 1);
    assert_eq!(
        world.requests.last().unwrap().1,
        B.parse().unwrap(),
        "the nearest"
    );
    assert_eq!(world.reports.len(), reports);
}

#[test]
fn a_refresh_that_sees_another_mapping_asks_everyone() {
    let mut world = World::new(independent(), &[(A, HONEST), (B, HONEST)]);
    world.full();
    world.finish();
    let generation = world.report().generation;
    world.nat = Some(Nat::new(
        Mapping::EndpointIndependent,
        Ports::Sequential {
            next: 9000,
            step: 1,
        },
    ));
    world.discovery.start(world.now, Kind::Refresh);
    assert_eq!(world.settle(), 40 * MS);
    assert_eq!(world.report().reflexive_v4, reflexive(9001));
    assert!(world.report().generation > generation);
}

#[test]
fn a_refresh_without_an_answer_asks_everyone_and_keeps_the_report_meanwhile() {
    let mut world = World::new(
        independent(),
        &[
            (A, HONEST),
            (B, Server::Honest(30)),
            (C, Server::Honest(30)),
        ],
    );
    world.full();
    world.finish();
    world.serve(A.parse().unwrap(), Server::Dead);
    world.discovery.start(world.now, Kind::Refresh);
    assert_eq!(world.settle(), 1030 * MS);
    assert_eq!(world.report().reflexive_v4, reflexive(7001));
    assert!(
        world
            .reports
            .iter()
            .skip(3)
            .all(|r| r.reflexive_v4 == reflexive(7001))
    );
}

#[test]
fn a_refresh_with_nothing_to_refresh_is_a_full_round() {
    let mut world = World::new(independent(), &[(A, HONEST), (B, HONEST)]);
    world.discovery.start(world.now, Kind::Refresh);
    world.settle();
    assert_eq!(world.report().mapping, Mapping::EndpointIndependent);
}

#[test]
fn a_refresh_behind_a_dependent_nat_keeps_the_finding() {
    let mut world = World::new(dependent(), &[(A, HONEST), (B, HONEST), (C, HONEST)]);
    world.full();
    world.finish();
    let before = world.report().clone();
    for _ in 0..5 {
        world.discovery.start(world.now, Kind::Refresh);
        world.settle();
    }
    assert_eq!(world.report(), &before);
}

#[test]
fn the_same_round_again_changes_nothing() {
    let servers = [
        (A, Server::WithOtherPort(20, 3479)),
        (B, HONEST),
        (C, Server::Dead),
    ];
    let mut world = World::new(independent(), &servers);
    world.full();
    world.finish();
    let before = world.report().clone();
    world.full();
    assert_eq!(world.report(), &before);
    world.finish();
    assert_eq!(world.report(), &before);
}

#[test]
fn the_network_going_away_shows_in_the_next_round() {
    let mut world = World::new(independent(), &[(A, HONEST), (B, HONEST)]);
    world.full();
    world.finish();
    for addr in [A, B] {
        world.serve(addr.parse().unwrap(), Server::Dead);
    }
    world.full();
    let report = world.report();
    assert_eq!(report.udp_v4, Some(false));
    assert_eq!(report.reflexive_v4, None);
    assert_eq!(report.mapping, Mapping::Unknown);
    assert_eq!(report.public, None);
}

#[test]
fn new_sockets_make_everything_unknown_again() {
    let mut world = World::new(independent(), &[(A, HONEST), (B, HONEST)]);
    world.full();
    let generation = world.report().generation;
    let same = world.socket();
    world
        .discovery
        .set_sockets(world.now, std::slice::from_ref(&same));
    assert_eq!(
        world.report().generation,
        generation,
        "the same sockets change nothing"
    );
    let mut moved = same;
    moved.addrs = vec!["10.1.1.1".parse().unwrap()];
    world.discovery.set_sockets(world.now, &[moved]);
    assert_eq!(world.report().reflexive_v4, None);
    assert_eq!(world.report().mapping, Mapping::Unknown);
    assert!(world.report().generation > generation);
}

#[test]
fn new_sockets_during_a_round_begin_it_again() {
    let mut world = World::new(independent(), &[(A, HONEST), (B, HONEST)]);
    world.discovery.start(world.now, Kind::Full);
    world.drain();
    let mut moved = world.socket();
    moved.addrs.clear();
    world.discovery.set_sockets(world.now, &[moved]);
    world.settle();
    assert_eq!(world.requests.len(), 4);
    assert_eq!(world.report().mapping, Mapping::EndpointIndependent);
    assert_eq!(
        world.report().public,
        None,
        "the host's addresses are not known"
    );
}

#[test]
fn a_family_without_a_socket_is_not_asked() {
    let mut world = World::new(independent(), &[(A, HONEST), (V6A, HONEST)]);
    let mut only_v4 = world.socket();
    only_v4.v6 = false;
    world.discovery.set_sockets(world.now, &[only_v4]);
    assert_eq!(world.full(), 20 * MS);
    assert_eq!(world.asked(V6A), 0);
    assert_eq!(world.report().udp_v6, None);
    assert!(world.fault(1).contains("not asked"));
}

#[test]
fn a_server_added_during_a_round_is_asked_at_once() {
    let mut world = World::new(independent(), &[(A, HONEST)]);
    world.discovery.start(world.now, Kind::Full);
    world.drain();
    let addr = B.parse().unwrap();
    world.serve(addr, HONEST);
    assert!(world.discovery.add_server(world.now, "late", addr));
    assert!(world.discovery.add_server(world.now, "late", addr), "again");
    world.settle();
    assert_eq!(world.requests.len(), 2);
    assert_eq!(world.report().mapping, Mapping::EndpointIndependent);
}

#[test]
fn a_removed_server_takes_its_word_with_it() {
    let mut world = World::new(independent(), &[(A, HONEST), (B, HONEST)]);
    world.full();
    world.finish();
    let addr = B.parse().unwrap();
    assert!(world.discovery.remove_server(world.now, "server 1", addr));
    assert!(!world.discovery.remove_server(world.now, "server 1", addr));
    assert_eq!(world.report().servers.len(), 1);
    assert_eq!(world.report().mapping, Mapping::Unknown);
    assert_eq!(world.report().reflexive_v4, reflexive(7001));
}

#[test]
fn removing_the_server_that_is_waited_for_settles_the_round() {
    let mut world = World::new(dependent(), &[(A, HONEST), (B, Server::Dead)]);
    world.discovery.start(world.now, Kind::Full);
    world.drain();
    world.step();
    assert!(!world.discovery.is_settled());
    world
        .discovery
        .remove_server(world.now, "server 1", B.parse().unwrap());
    assert!(world.discovery.is_settled());
}

#[test]
fn servers_that_cannot_be_asked_are_refused_and_their_number_is_bounded() {
    let mut world = World::new(None, &[]);
    for addr in [
        "0.0.0.0:1",
        "224.0.0.1:1",
        "255.255.255.255:1",
        "198.51.100.1:0",
        "[ff02::1]:1",
    ] {
        let addr = addr.parse().unwrap();
        assert!(
            !world.discovery.add_server(world.now, "bad", addr),
            "{addr}"
        );
    }
    for i in 0..MAX_SERVERS {
        let addr = SocketAddr::from(([198, 51, 100, 1], 1000 + i as u16));
        assert!(world.discovery.add_server(world.now, format!("{i}"), addr));
    }
    let addr = A.parse().unwrap();
    assert!(!world.discovery.add_server(world.now, "one too many", addr));
}

#[test]
fn no_servers_is_settled_with_everything_unknown() {
    let mut world = World::new(None, &[]);
    assert!(world.full().is_zero());
    assert_eq!(
        world.reports.len(),
        1,
        "said once, so that nobody waits for ever"
    );
    assert_eq!(world.report(), &NatReport::default());
}

#[test]
fn a_machine_that_slept_through_the_round_asks_each_server_once_more_at_most() {
    let mut world = World::new(None, &[(A, Server::Dead), (B, Server::Dead)]);
    world.discovery.start(world.now, Kind::Full);
    world.drain();
    world.now += 800 * MS;
    world.discovery.handle_timeout(world.now);
    world.drain();
    assert_eq!(world.requests.len(), 4);
    world.now += 3_600_000 * MS;
    world.discovery.handle_timeout(world.now);
    world.drain();
    assert_eq!(world.requests.len(), 4);
    assert!(world.discovery.is_settled());
}

#[test]
fn a_spurious_wake_up_does_nothing() {
    let mut world = World::new(independent(), &[(A, HONEST), (B, HONEST)]);
    world.full();
    world.finish();
    let (requests, reports) = (world.requests.len(), world.reports.len());
    for _ in 0..10 {
        world.now += 700 * MS;
        world.discovery.handle_timeout(world.now);
        world.drain();
    }
    assert_eq!(
        (world.requests.len(), world.reports.len()),
        (requests, reports)
    );
}
