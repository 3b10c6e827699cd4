//! IPv4, IPv6, both, and an IPv6 that leads nowhere: which family carries what, and what a wrong one costs.

mod common;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use byway_core::io::{LinkMode, PathKind, PeerId, Way};
use byway_sim::model::{Access, Families, Place, direct_possible, expected_path, must_connect};
use byway_sim::net::link::LinkConfig;
use byway_sim::net::{Hole, HostId, Traffic};
use byway_sim::scene::{Scene, Setup, site, v6};
use byway_sim::shell::app::Task;
use byway_sim::shell::node::{NODE_PORT, Note};
use byway_sim::world::Fault;
use common::{ms, reaches_no_relay, scene, secs};

const MIB: u64 = 1024 * 1024;
const DIRECT: Option<PathKind> = Some(PathKind::Direct);
/// RFC 8305's stagger, between two families over TCP (`links/tcp.rs`).
const STAGGER: u64 = 250;
/// Round trip to the relay, and to the agent through it; what serialisation adds.
const R: u64 = 20;
const T: u64 = 40;
const SLACK: u64 = 6;

fn setup(client: (Access, Families), agent: (Access, Families)) -> Setup {
    Setup {
        client: client.0,
        client_ip: client.1,
        agent: agent.0,
        agent_ip: agent.1,
        ..Setup::default()
    }
}

/// A tunnel, and what settles after it came up.
fn tunnel(setup: Setup) -> (Scene, PeerId) {
    let mut s = scene(setup);
    let peer = s.dial(vec![Task::Touch]);
    assert!(s.finish(secs(10)), "{}", s.story());
    s.world.run_for(secs(5));
    (s, peer)
}

/// The address a host's data goes to; none while it is relayed.
fn remote(s: &mut Scene, host: HostId) -> Option<IpAddr> {
    let (node, _) = s.world.node(host);
    let peer = node.peers().first().copied()?;
    match node.primary(peer)? {
        Way::Direct { remote, .. } => Some(remote.ip()),
        Way::Channel { .. } => None,
    }
}

/// True if the data of both goes direct over this family.
fn both_over(s: &mut Scene, is_v6: bool) -> bool {
    let (client, agent) = (s.client, s.agent);
    [client, agent]
        .into_iter()
        .all(|host| remote(s, host).is_some_and(|ip| ip.is_ipv6() == is_v6))
}

fn moves_bytes(s: &mut Scene, peer: PeerId) {
    s.begin(peer, Task::Upload(MIB));
    s.begin(peer, Task::Download(MIB));
    assert!(s.finish(secs(30)), "{}", s.story());
    s.assert_fine();
}

#[test]
fn where_ipv4_has_symmetric_nats_on_both_sides_ipv6_on_both_makes_it_direct() {
    let both = (Access::Symmetric, Families::Both);
    let (mut s, peer) = tunnel(setup(both, both));
    assert_eq!(s.paths(peer), (DIRECT, DIRECT), "{}", s.story());
    assert!(both_over(&mut s, true), "{}", s.story());
    moves_bytes(&mut s, peer);
}

#[test]
fn two_hosts_of_ipv6_alone_go_direct_through_both_firewalls() {
    let six = (Access::PortRestricted, Families::V6);
    let (mut s, peer) = tunnel(setup(six, six));
    assert_eq!(s.paths(peer), (DIRECT, DIRECT), "{}", s.story());
    moves_bytes(&mut s, peer);
    // And the firewalls stood: a stranger gets through neither.
    let filtered = |s: &Scene| s.world.net.fates().get("filtered").copied();
    let before = filtered(&s).unwrap_or_default();
    for host in [s.client, s.agent] {
        let to = SocketAddr::new(s.world.net.addrs(host)[0], NODE_PORT);
        s.world.net.send(s.relay, 9, to, "x".into());
    }
    s.world.run_for(ms(100));
    assert_eq!(filtered(&s), Some(before + 2));
}

#[test]
fn ipv6_alone_and_ipv4_alone_meet_at_the_relay() {
    let six = (Access::Open, Families::V6);
    let four = (Access::Open, Families::V4);
    for (client, agent) in [(six, four), (four, six)] {
        let (mut s, peer) = tunnel(setup(client, agent));
        let relayed = Some(PathKind::RelayUdp);
        assert_eq!(s.paths(peer), (relayed, relayed));
        moves_bytes(&mut s, peer);
        for host in [s.client, s.agent] {
            assert_eq!(s.first_on(host, PathKind::Direct), None);
        }
    }
}

#[test]
fn ipv6_alone_where_udp_is_blocked_runs_over_tls() {
    let (mut s, peer) = tunnel(setup(
        (Access::UdpBlocked, Families::V6),
        (Access::PortRestricted, Families::Both),
    ));
    assert_eq!(
        s.paths(peer),
        (Some(PathKind::RelayTls), Some(PathKind::RelayUdp))
    );
    moves_bytes(&mut s, peer);
}

/// Every kind of address against every other, on networks that IPv4 crosses and on networks that it does not.
#[test]
fn whatever_the_families_the_best_path_is_found_and_carries() {
    for access in [Access::PortRestricted, Access::Symmetric] {
        for client in Families::ALL {
            for agent in Families::ALL {
                let (mut s, peer) = tunnel(setup((access, client), (access, agent)));
                let place = |families| Place::from(access).families(families);
                let expected = Some(expected_path(place(client), place(agent)));
                let cell = format!("{access:?}: {client:?}, {agent:?}");
                assert!(must_connect(place(client), place(agent)), "{cell}");
                assert_eq!(s.paths(peer), (expected, expected), "{cell}\n{}", s.story());
                moves_bytes(&mut s, peer);
                // Of two families that work, the one without a NAT. But where both see the relay through translators, what it
                // sees of them is tried first, and a path that is no faster is no reason to leave one that works.
                let translated = [client, agent] == [Families::Nat64; 2];
                if direct_possible(place(client), place(agent)) && !translated {
                    let six = client.v6_works() && agent.v6_works();
                    assert!(both_over(&mut s, six), "{cell}\n{}", s.story());
                }
            }
        }
    }
}

/// In a network that leads nowhere a client says so.
#[test]
fn from_a_network_that_leads_nowhere_no_relay_is_reached() {
    let nowhere = (Access::Open, Families::DeadV6);
    let place = Place::from(nowhere.0).families(nowhere.1);
    assert!(!must_connect(place, Access::Open));
    let mut s = scene(setup(nowhere, (Access::Open, Families::Both)));
    s.dial(vec![Task::Touch]);
    let failed = reaches_no_relay(&mut s, secs(60), |_| true);
    assert!(failed, "{}", s.story());
}

/// How long the first answer took.
fn first_answer(setup: Setup) -> Duration {
    let mut s = scene(setup);
    s.dial(vec![Task::Touch]);
    assert!(s.finish(secs(10)), "{}", s.story());
    s.assert_fine();
    let began = s.dialled_at();
    let first = s.reports().remove(0).first;
    first.unwrap_or_else(|| panic!("no answer")) - began
}

#[test]
fn an_ipv6_that_leads_nowhere_costs_a_udp_link_nothing_and_a_tls_link_its_stagger() {
    for broken in [false, true] {
        let families = if broken {
            Families::BrokenV6
        } else {
            Families::Both
        };
        let udp = first_answer(setup(
            (Access::PortRestricted, families),
            (Access::PortRestricted, Families::V4),
        ));
        assert!(udp <= ms(R + 2 * T + SLACK), "broken {broken}: {udp:?}");
        let tls = first_answer(Setup {
            links: LinkMode::Tls,
            ..setup(
                (Access::PortRestricted, families),
                (Access::PortRestricted, Families::V4),
            )
        });
        let stagger = if broken { STAGGER } else { 0 };
        let budget = stagger + 3 * R + 2 * T;
        assert!(tls <= ms(budget + SLACK), "broken {broken}: {tls:?}");
        assert!(!broken || tls >= ms(STAGGER), "there was nothing broken");
    }
}

/// A host of IPv4 alone is told both of the relay's addresses: that it has none of the one family, it knows at once.
#[test]
fn a_relay_of_two_families_costs_a_host_of_one_nothing() {
    for families in [Families::V4, Families::V6] {
        let tls = first_answer(Setup {
            links: LinkMode::Tls,
            ..setup(
                (Access::PortRestricted, families),
                (Access::PortRestricted, Families::Both),
            )
        });
        assert!(tls <= ms(3 * R + 2 * T + SLACK), "{families:?}: {tls:?}");
    }
}

/// IPv6 dies under a transfer while IPv4 lives: the tunnel goes on, on a path that carries, and comes back to a direct one.
#[test]
fn a_family_that_dies_under_a_transfer_is_left_for_the_other() {
    let both = (Access::PortRestricted, Families::Both);
    let slow = LinkConfig {
        rate: Some(4_000_000),
        queue: ms(15),
        ..LinkConfig::default()
    };
    let (mut s, peer) = tunnel(Setup {
        client_link: slow,
        agent_link: slow,
        ..setup(both, both)
    });
    assert!(both_over(&mut s, true));
    s.begin(peer, Task::Download(2 * MIB));
    s.world.run_for(ms(200));
    for site in [s.client_site, s.agent_site] {
        s.world.inflict(Fault::Open(Hole {
            from: None,
            to: Some(site),
            what: Traffic::V6,
        }));
    }
    assert!(s.finish(secs(30)), "{}", s.story());
    s.assert_fine();
    let silence = s.reports().pop().map(|r| r.longest_silence);
    println!("the longest silence: {silence:?}");
    assert!(silence <= Some(ms(500)), "{silence:?}\n{}", s.story());
    let over_v4 = (0..60).any(|_| {
        s.begin(peer, Task::Touch);
        s.world.run_for(secs(1));
        both_over(&mut s, false)
    });
    assert!(over_v4, "{}", s.story());
}

/// Carried from family to family under a transfer, six ways: to each from each.
#[test]
fn families_change_under_a_running_transfer() {
    let kinds = [Families::V4, Families::V6, Families::Both];
    for agents_side in [false, true] {
        for from in kinds {
            for to in kinds.into_iter().filter(|to| *to != from) {
                carried(agents_side, from, to);
            }
        }
    }
}

fn carried(agents_side: bool, from: Families, to: Families) {
    let access = Access::PortRestricted;
    let (own, other) = ((access, from), (access, Families::Both));
    let (mut s, peer) = if agents_side {
        tunnel(setup(other, own))
    } else {
        tunnel(setup(own, other))
    };
    s.begin(peer, Task::Download(2 * MIB));
    s.world.run_for(ms(100));
    let host = if agents_side { s.agent } else { s.client };
    let place = Place::from(access).families(to);
    let network = site(
        "elsewhere",
        place,
        Some([203, 0, 113, 100]),
        LinkConfig::default(),
    );
    let network = s.world.net.add_site(network);
    let v4 = to.has_v4().then(|| IpAddr::from([10, 7, 0, 2]));
    let six = to.has_v6().then(|| v6(0xe, 2));
    s.world
        .move_node(host, network, v4.into_iter().chain(six).collect());
    let cell = format!("agent's side {agents_side}: {from:?} to {to:?}");
    assert!(s.finish(secs(30)), "{cell}\n{}", s.story());
    s.assert_fine();
    let silence = s.reports().pop().map(|r| r.longest_silence);
    println!("{cell}: the longest silence {silence:?}");
    assert!(silence <= Some(secs(1)), "{cell}: {silence:?}");
    let direct = (0..60).any(|_| {
        s.begin(peer, Task::Touch);
        s.world.run_for(ms(500));
        // Within a tier a path that is no faster is no reason to leave one that still works.
        let stayed = from.has_v4() && to == Families::Both && s.paths(peer) == (DIRECT, DIRECT);
        stayed || both_over(&mut s, to.has_v6())
    });
    assert!(direct, "{cell}\n{}", s.story());
    for host in [s.client, s.agent] {
        let notes = &s.world.node(host).0.notes;
        let lost = |(_, n): &(Duration, Note)| matches!(n, Note::TunnelLost(..) | Note::Failed(..));
        assert!(!notes.iter().any(lost), "{cell}\n{}", s.story());
    }
}
