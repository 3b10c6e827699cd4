//! What the servers say together, and how long is waited for it.

use std::net::IpAddr;
use std::time::Duration;

use super::super::*;
use super::world::*;

#[test]
fn two_servers_that_agree_settle_it_in_one_round_trip() {
    let mut world = World::new(independent(), &[(A, HONEST), (B, HONEST)]);
    assert!(world.discovery.is_settled(), "nothing was asked yet");
    assert_eq!(world.full(), 20 * MS);
    let report = world.report();
    assert_eq!(report.udp_v4, Some(true));
    assert_eq!(report.udp_v6, None, "nobody was asked");
    assert_eq!(report.reflexive_v4, reflexive(7001));
    assert_eq!(report.mapping, Mapping::EndpointIndependent);
    assert_eq!(report.public, Some(false));
    assert_eq!(report.ports, PortPattern::Unknown);
    assert!(
        report
            .servers
            .iter()
            .all(|row| row.believed && row.rtt_ms == Some(20.0))
    );
    world.finish();
    assert_eq!(world.requests.len(), 2);
}

#[test]
fn all_servers_are_asked_at_once_over_both_families() {
    let mut world = World::new(
        None,
        &[(A, HONEST), (B, HONEST), (V6A, HONEST), (V6B, HONEST)],
    );
    assert_eq!(world.full(), 20 * MS);
    assert!(world.requests.iter().all(|(at, _)| at.is_zero()));
    let report = world.report();
    assert_eq!((report.udp_v4, report.udp_v6), (Some(true), Some(true)));
    assert_eq!(
        report.reflexive_v6,
        Some("[2001:db8:9::5]:40000".parse().unwrap())
    );
    assert_eq!(report.mapping_v6, Mapping::EndpointIndependent);
    assert_eq!(report.ports, PortPattern::Preserving);
    assert_eq!(report.public, Some(true));
}

#[test]
fn one_server_alone_settles_at_once_and_leaves_the_mapping_unknown() {
    let mut world = World::new(independent(), &[(A, HONEST)]);
    assert_eq!(world.full(), 20 * MS);
    assert_eq!(world.report().reflexive_v4, reflexive(7001));
    assert_eq!(world.report().mapping, Mapping::Unknown);
}

#[test]
fn a_dependent_mapping_is_recognised() {
    let mut world = World::new(dependent(), &[(A, HONEST), (B, HONEST), (C, HONEST)]);
    assert_eq!(world.full(), 20 * MS);
    let report = world.report();
    assert_eq!(report.mapping, Mapping::AddressDependent, "at least");
    assert_eq!(report.port_dependent, None);
    assert_eq!(report.ports, PortPattern::Random);
}

#[test]
fn sequential_ports_show_their_delta_in_the_order_of_sending() {
    let ports = Ports::Sequential {
        next: 5000,
        step: 2,
    };
    let nat = Nat::new(Mapping::AddressDependent, ports);
    let servers = [
        (A, Server::Honest(50)),
        (B, Server::Honest(10)),
        (C, Server::Honest(30)),
    ];
    let mut world = World::new(Some(nat), &servers);
    world.full();
    assert_eq!(world.report().ports, PortPattern::Sequential { delta: 2 });
}

#[test]
fn a_server_with_another_port_shows_port_dependence() {
    let server = Server::WithOtherPort(20, 3479);
    let mut world = World::new(dependent(), &[(A, server), (B, HONEST), (C, HONEST)]);
    world.full();
    assert_eq!(world.report().mapping, Mapping::AddressAndPortDependent);
    assert_eq!(world.report().port_dependent, Some(true));

    let nat = Nat::new(Mapping::AddressDependent, Ports::Random { state: 1 });
    let mut world = World::new(Some(nat), &[(A, server), (B, HONEST), (C, HONEST)]);
    world.full();
    assert_eq!(world.report().mapping, Mapping::AddressDependent);
    assert_eq!(world.report().port_dependent, Some(false));
}

#[test]
fn another_address_that_a_server_names_is_never_asked() {
    let mut world = World::new(dependent(), &[(A, Server::WithOtherPort(20, 3479))]);
    world.full();
    world.finish();
    let known: IpAddr = "198.51.100.1".parse().unwrap();
    assert!(world.requests.iter().all(|(_, to)| to.ip() == known));
    assert_eq!(world.requests.len(), 2);
}

#[test]
fn a_dead_server_changes_nothing_and_delays_nothing() {
    let mut world = World::new(
        independent(),
        &[(A, HONEST), (B, Server::Dead), (C, HONEST)],
    );
    assert_eq!(world.full(), 20 * MS);
    assert_eq!(world.report().mapping, Mapping::EndpointIndependent);
    assert_eq!(world.fault(1), "none", "it may still answer");
    world.finish();
    assert_eq!(world.now - world.start, 3000 * MS);
    assert_eq!(world.fault(1), "no answer");
    assert_eq!(world.report().mapping, Mapping::EndpointIndependent);
    assert_eq!(
        world.asked(B),
        3,
        "no more than three times once it is settled"
    );
}

#[test]
fn a_dead_server_beside_a_dependent_mapping_is_waited_for_no_longer_than_a_second() {
    let mut world = World::new(dependent(), &[(A, HONEST), (B, Server::Dead), (C, HONEST)]);
    assert_eq!(world.full(), 1000 * MS);
    assert_eq!(world.report().mapping, Mapping::AddressDependent);
}

#[test]
fn patience_grows_with_the_round_trip() {
    let servers = [
        (A, Server::Honest(600)),
        (B, Server::Dead),
        (C, Server::Honest(600)),
    ];
    let mut world = World::new(dependent(), &servers);
    assert_eq!(world.full(), 2400 * MS);
}

#[test]
fn a_silent_server_is_asked_again_at_100_300_700_and_1500_ms_and_given_up_at_3_s() {
    let mut world = World::new(independent(), &[(A, Server::Dead)]);
    assert_eq!(world.full(), 3000 * MS);
    let times: Vec<Duration> = world.requests.iter().map(|(at, _)| *at).collect();
    assert_eq!(times, [0, 100, 300, 700, 1500].map(|ms| ms * MS));
    assert_eq!(
        world.report().udp_v4,
        None,
        "one silent server is only a silent server"
    );
    assert_eq!(world.report().reflexive_v4, None);
}

#[test]
fn udp_is_blocked_when_several_servers_are_silent() {
    let servers = [(A, Server::Dead), (B, Server::Dead), (V6A, HONEST)];
    let mut world = World::new(independent(), &servers);
    world.full();
    world.finish();
    assert_eq!(world.report().udp_v4, Some(false));
    assert_eq!(world.report().udp_v6, Some(true));
}

#[test]
fn a_lost_request_is_made_up_for_and_the_round_trip_is_that_of_the_one_answered() {
    let servers = [(A, Server::AnswersOnly(2)), (B, Server::AnswersOnly(3))];
    let mut world = World::new(independent(), &servers);
    assert_eq!(world.full(), 310 * MS);
    assert_eq!(world.report().mapping, Mapping::EndpointIndependent);
    assert_eq!(world.row(0).rtt_ms, Some(10.0));
    assert_eq!(world.row(1).rtt_ms, Some(10.0));
}

#[test]
fn a_slow_server_still_gets_its_row() {
    let servers = [(A, HONEST), (B, HONEST), (C, Server::Honest(2500))];
    let mut world = World::new(independent(), &servers);
    assert_eq!(world.full(), 20 * MS);
    world.finish();
    assert_eq!(world.row(2).rtt_ms, Some(2500.0));
    assert_eq!(world.report().mapping, Mapping::EndpointIndependent);
}
