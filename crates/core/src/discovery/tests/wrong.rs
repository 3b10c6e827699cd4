//! Servers that lie, err, come late or say what nobody asked: nothing changes but their own row.

use std::net::SocketAddr;

use byway_wire::stun::{self, Message};
use proptest::prelude::*;

use super::super::*;
use super::world::*;
use crate::io::SocketId;

/// One server that does wrong, between two honest ones, changes nothing but its own row.
fn only_its_own_row_suffers(bad: Server) -> World {
    let run = |middle: Server, nat: Option<Nat>| {
        let mut world = World::new(nat, &[(A, HONEST), (B, middle), (C, HONEST), (D, HONEST)]);
        world.full();
        world.finish();
        world
    };
    for nat in [independent, dependent] {
        let (clean, spoilt) = (run(Server::Dead, nat()), run(bad, nat()));
        let (clean, report) = (clean.report(), spoilt.report());
        assert_eq!(report.mapping, clean.mapping, "{bad:?}");
        assert_eq!(report.reflexive_v4, clean.reflexive_v4, "{bad:?}");
        assert_eq!(report.port_dependent, clean.port_dependent, "{bad:?}");
        assert_eq!(report.ports, clean.ports, "{bad:?}");
        assert_eq!(report.udp_v4, clean.udp_v4, "{bad:?}");
        for server in [0, 2, 3] {
            assert_eq!(report.servers[server], clean.servers[server], "{bad:?}");
        }
    }
    run(bad, independent())
}

#[test]
fn a_lie_about_our_address_is_outvoted() {
    let world = only_its_own_row_suffers(Server::Lies("8.8.8.8:53"));
    assert!(world.fault(1).contains("elsewhere"));
    assert!(!world.row(1).believed);
}

#[test]
fn a_lie_about_our_port_is_outvoted() {
    let servers = [(A, HONEST), (B, Server::LiesAboutPort(666)), (C, HONEST)];
    let mut world = World::new(independent(), &servers);
    world.full();
    assert_eq!(world.report().reflexive_v4, reflexive(7001));
    assert_eq!(world.report().mapping, Mapping::EndpointIndependent);
    assert!(
        world
            .reports
            .iter()
            .all(|report| report.reflexive_v4 != reflexive(666))
    );
}

#[test]
fn absurd_addresses_are_refused() {
    for lie in [
        "0.0.0.0:1",
        "127.0.0.1:1",
        "224.0.0.1:1",
        "255.255.255.255:1",
        "203.0.113.9:0",
    ] {
        let world = only_its_own_row_suffers(Server::Lies(lie));
        assert!(world.fault(1).contains("cannot be"), "{}", world.fault(1));
        assert_eq!(world.row(1).mapped, None);
        assert_eq!(world.ignored(Ignored::AbsurdAddress), 1);
    }
}

#[test]
fn an_address_of_another_family_is_refused() {
    let world = only_its_own_row_suffers(Server::Lies("[2001:db8::9]:1"));
    assert!(world.fault(1).contains("another address family"));
    assert_eq!(world.ignored(Ignored::WrongFamily), 1);
}

#[test]
fn an_unknown_transaction_is_ignored() {
    let world = only_its_own_row_suffers(Server::WrongTransaction);
    assert_eq!(world.fault(1), "no answer");
    assert_eq!(world.ignored(Ignored::UnknownTransaction), 3);
}

#[test]
fn an_answer_from_another_address_is_ignored() {
    for from in ["198.51.100.2:3479", "198.51.100.99:3478"] {
        let world = only_its_own_row_suffers(Server::WrongSource(from));
        assert!(world.fault(1).contains(from));
        assert_eq!(world.ignored(Ignored::WrongSource), 3);
    }
}

#[test]
fn repeated_answers_count_once() {
    let mut world = World::new(independent(), &[(A, Server::Repeats(10_000)), (B, HONEST)]);
    world.full();
    world.finish();
    assert_eq!(world.ignored(Ignored::Duplicate), 9_999);
    assert_eq!(world.report().mapping, Mapping::EndpointIndependent);
    assert!(world.row(0).believed);
}

#[test]
fn malformed_answers_are_ignored() {
    let world = only_its_own_row_suffers(Server::CutOff);
    assert_eq!(world.fault(1), "answers are malformed");
    assert_eq!(world.ignored(Ignored::Malformed), 3);
    let world = only_its_own_row_suffers(Server::Oversized);
    assert!(world.fault(1).contains("too long"));
    assert_eq!(world.ignored(Ignored::Oversized), 3);
    let world = only_its_own_row_suffers(Server::Echo);
    assert_eq!(world.ignored(Ignored::Request), 3);
}

#[test]
fn an_error_is_final_for_its_server() {
    let world = only_its_own_row_suffers(Server::Error(420));
    assert!(world.fault(1).contains("420"));
    assert_eq!(world.asked(B), 1);
    assert_eq!(world.ignored(Ignored::Refused), 1);
}

#[test]
fn an_answer_on_another_socket_is_ignored() {
    let mut world = World::new(independent(), &[(A, Server::Dead)]);
    world.discovery.start(world.now, Kind::Full);
    let (_, to, datagram) = world.discovery.poll_transmit().unwrap();
    let Ok(Message::Request { txid, .. }) = stun::decode(&datagram) else {
        panic!("not a request");
    };
    let answer = stun::encode_success(txid, "203.0.113.9:1".parse().unwrap(), 1000);
    assert!(
        world
            .discovery
            .handle_stun(world.now, SocketId(9), to, None, &answer)
    );
    assert_eq!(world.ignored(Ignored::WrongSocket), 1);
    assert_eq!(world.report().reflexive_v4, None);
    let local = Some("192.168.1.5".parse().unwrap());
    assert!(
        world
            .discovery
            .handle_stun(world.now, SOCKET, to, local, &answer)
    );
    assert_eq!(world.report().reflexive_v4, reflexive(1));
    assert_eq!(world.row(0).local, local);
}

#[test]
fn an_answer_from_a_v4_mapped_address_is_one_from_the_address() {
    let mut world = World::new(independent(), &[(A, Server::Dead)]);
    world.discovery.start(world.now, Kind::Full);
    let (_, _, datagram) = world.discovery.poll_transmit().unwrap();
    let Ok(Message::Request { txid, .. }) = stun::decode(&datagram) else {
        panic!("not a request");
    };
    let answer = stun::encode_success(txid, "203.0.113.9:1".parse().unwrap(), 1000);
    let from = "[::ffff:198.51.100.1]:3478".parse().unwrap();
    assert!(
        world
            .discovery
            .handle_stun(world.now, SOCKET, from, None, &answer)
    );
    assert_eq!(world.report().reflexive_v4, reflexive(1));
}

#[test]
fn a_late_answer_corrects_the_report() {
    // Two liars in league answer first; three honest servers outvote them.
    let lie = Server::Lies("8.8.8.8:53");
    let servers = [
        (A, lie),
        (B, lie),
        (C, HONEST),
        (D, HONEST),
        ("198.51.100.5:3478", HONEST),
    ];
    let mut world = World::new(independent(), &servers);
    world.full();
    world.finish();
    assert_eq!(world.report().reflexive_v4, reflexive(7001));
    assert_eq!(world.report().mapping, Mapping::EndpointIndependent);
}

#[test]
fn servers_of_one_label_have_one_voice() {
    let mut world = World::new(independent(), &[(C, HONEST), (D, HONEST)]);
    for i in 10..20 {
        let addr = SocketAddr::from(([192, 0, 2, i], 3478));
        world.discovery.add_server(world.now, "crowd", addr);
        world.serve(addr, Server::Lies("8.8.8.8:53"));
    }
    world.full();
    world.finish();
    assert_eq!(world.report().reflexive_v4, reflexive(7001));
    assert_eq!(world.report().mapping, Mapping::EndpointIndependent);
}

proptest! {
    #[test]
    fn arbitrary_datagrams_change_no_report(
        datagrams in proptest::collection::vec((any::<bool>(), proptest::collection::vec(any::<u8>(), 0..100)), 1..20),
    ) {
        let mut world = World::new(independent(), &[(A, HONEST), (B, HONEST)]);
        world.discovery.start(world.now, Kind::Full);
        world.drain();
        let before = world.report().clone();
        for (from_server, mut datagram) in datagrams {
            if from_server && datagram.len() >= 8 {
                // At least the header of a success.
                datagram[..2].copy_from_slice(&[1, 1]);
                datagram[4..8].copy_from_slice(&[0x21, 0x12, 0xa4, 0x42]);
            }
            let ours = world.discovery.handle_stun(world.now, SOCKET, A.parse().unwrap(), None, &datagram);
            prop_assert!(!ours);
        }
        prop_assert_eq!(world.report(), &before);
        prop_assert!(world.discovery.ignored().total() > 0);
        world.settle();
        prop_assert_eq!(world.report().mapping, Mapping::EndpointIndependent);
    }
}
