//! What datagrams tell that a NAT turns around, and a port that a gateway gives.

use super::super::*;
use super::world::*;

const OURS: &str = "203.0.113.9:7001";

fn hairpinning() -> Option<Nat> {
    let next = Ports::Sequential {
        next: 7000,
        step: 1,
    };
    let mut nat = Nat::new(Mapping::EndpointIndependent, next);
    nat.hairpins = true;
    Some(nat)
}

#[test]
fn a_nat_that_turns_datagrams_around_is_found_by_one() {
    let mut world = World::new(hairpinning(), &[(A, HONEST), (B, HONEST)]);
    let took = world.whole();
    assert_eq!(world.report().hairpin, Some(true));
    assert_eq!(world.asked(OURS), 1);
    assert!(took <= 50 * MS, "{took:?}");
    assert_eq!(world.reports.last().unwrap().hairpin, Some(true));
    world.finish();
}

#[test]
fn a_nat_that_does_not_costs_three_datagrams() {
    let mut world = World::new(independent(), &[(A, HONEST), (B, HONEST)]);
    world.whole();
    assert_eq!(world.report().hairpin, Some(false));
    assert_eq!(world.asked(OURS), 3);
    world.finish();
}

#[test]
fn nobody_sends_to_its_own_address_unasked_or_without_a_nat_that_shows_one() {
    let mut world = World::new(hairpinning(), &[(A, HONEST), (B, HONEST)]);
    world.full();
    assert_eq!((world.report().hairpin, world.asked(OURS)), (None, 0));
    for nat in [None, dependent()] {
        let mut world = World::new(nat, &[(A, HONEST), (B, HONEST)]);
        world.whole();
        assert_eq!(world.report().hairpin, None);
        let own = world.report().reflexive_v4.unwrap().to_string();
        assert_eq!(world.asked(&own), 0);
    }
}

#[test]
fn what_is_known_of_turning_around_stays_until_the_address_is_another() {
    let mut world = World::new(hairpinning(), &[(A, HONEST), (B, HONEST)]);
    world.whole();
    world.full();
    assert_eq!(world.report().hairpin, Some(true));
    world.finish();
    world.servers.clear();
    world.full();
    world.finish();
    assert_eq!(world.report().hairpin, None);
}

#[test]
fn a_stranger_at_the_address_a_liar_names_gets_three_datagrams_and_proves_nothing() {
    let lie = "198.51.100.66:7000";
    // The one server there is: its word is taken, and it sits at the address it names.
    for stranger in [Server::Echo, HONEST] {
        let servers = [(A, Server::Lies(lie))];
        let mut world = World::new(independent(), &servers);
        world.serve(lie.parse().unwrap(), stranger);
        world.whole();
        let echoes = matches!(stranger, Server::Echo);
        assert!(world.asked(lie) <= 3);
        // Who owns the address we believe to have may as well be our NAT.
        assert_eq!(world.report().hairpin, Some(echoes));
    }
    // Several believed ones: a liar is not among them.
    let servers = [(A, HONEST), (B, HONEST), (C, Server::Lies(lie))];
    let mut world = World::new(independent(), &servers);
    world.whole();
    assert_eq!(world.asked(lie), 0);
}

#[test]
fn a_port_that_the_gateway_gives_tells_of_a_second_nat() {
    let mut world = World::new(independent(), &[(A, HONEST), (B, HONEST)]);
    world.full();
    assert_eq!(world.report().double_nat, None);
    for (external, suspected) in [
        ("203.0.113.9:41000", Some(false)),
        ("100.64.7.7:41000", Some(true)),
        ("192.0.2.4:41000", Some(true)),
    ] {
        let held = GatewayPort::Held(PortMapping {
            protocol: MappingProtocol::Pcp,
            external: external.parse().unwrap(),
        });
        world.discovery.set_port_mapping(held);
        assert_eq!(world.report().double_nat, suspected, "{external}");
    }
    let mut world = World::new(None, &[(A, HONEST), (B, HONEST)]);
    world.full();
    assert_eq!(world.report().double_nat, Some(false));
}
