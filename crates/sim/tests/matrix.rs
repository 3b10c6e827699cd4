//! Every kind of network against every other: what must connect, by which path, how fast.

mod common;

use std::time::Duration;

use byway_core::io::{LinkMode, PathKind};
use byway_sim::model::{Access, Direct, Families, Place, direct, expected_path};
use byway_sim::scene::{Scene, Setup};
use byway_sim::shell::app::Task;
use common::{ms, scene, secs};

const MIB: u64 = 1024 * 1024;

/// Plays a row: a client there, and an agent at every kind of place.
fn row(client: impl Into<Place>) {
    let client = client.into();
    for agent in kinds() {
        play(client, agent);
    }
}

fn between(client: Place, agent: Place) -> Scene {
    scene(Setup {
        client: client.access,
        client_ip: client.families,
        client_port: client.gives_port,
        agent: agent.access,
        agent_ip: agent.families,
        agent_port: agent.gives_port,
        ..Setup::default()
    })
}

/// Plays one cell: relay first, then the best path there can be, and a megabyte each way.
fn play(client: Place, agent: Place) {
    let mut s = between(client, agent);
    let peer = s.dial(vec![Task::Touch]);
    let cell = format!("client {client:?}, agent {agent:?}");
    assert!(s.finish(secs(10)), "{cell}: the first byte never came");
    // The application waits for no path but the first: its first answer comes as fast as the relay alone allows.
    let first = s.reports()[0].first.unwrap_or_else(|| panic!("{cell}"));
    let budget = if client.access.is_tls_only() {
        300 + 3 * R + 2 * T
    } else {
        R + 2 * T
    };
    let proxies = [client, agent].map(|place| place.access == Access::ProxyOnly);
    let proxies = proxies.into_iter().filter(|there| *there).count() as u64;
    let budget = budget + PROXY * proxies;
    let took = first - s.dialled_at();
    assert!(
        took <= ms(budget + SLACK),
        "{cell}: first answer after {took:?}"
    );
    for host in [s.client, s.agent] {
        let opening = s.routes_since(host, Duration::ZERO).first().copied();
        assert!(
            matches!(
                opening,
                Some((_, Some(PathKind::RelayUdp | PathKind::RelayTls)))
            ),
            "{cell}: began on {opening:?}"
        );
    }
    let expected = (
        Some(expected_path(client, agent)),
        Some(expected_path(agent, client)),
    );
    let chance = direct(client, agent);
    let mut accepted = vec![expected];
    if chance == Direct::Perhaps {
        accepted.push((Some(PathKind::Direct), Some(PathKind::Direct)));
    }
    let settled = (0..20).any(|_| {
        s.world.run_for(ms(500));
        accepted.contains(&s.paths(peer))
    });
    assert!(
        settled,
        "{cell}: {:?} instead of {expected:?}\n{}",
        s.paths(peer),
        s.world.net.trace
    );
    s.begin(peer, Task::Upload(MIB));
    s.begin(peer, Task::Download(MIB));
    assert!(s.finish(secs(60)), "{cell}\n{}", s.world.net.trace);
    s.assert_fine();
    s.world.run_for(secs(3));
    let stayed = s.paths(peer);
    assert!(
        accepted.contains(&stayed),
        "{cell}: {stayed:?}: and it stays so"
    );
    for (host, name) in [(s.client, "client"), (s.agent, "agent")] {
        let went = s.first_on(host, PathKind::Direct);
        // Where one side's port is not known beforehand, the other learns it from the first probe that comes in.
        let learns = !client.is_where_it_says() || !agent.is_where_it_says();
        // And the node whose gateway gives a port answers from it, but calls from another one before it has heard the other.
        let given = [client, agent].iter().any(|place| place.gives_port);
        let budget = match chance {
            Direct::Never => {
                assert_eq!(went, None, "{cell}: never on a path that cannot exist");
                continue;
            }
            Direct::Perhaps => {
                println!("{cell}: by luck direct at the {name}: {went:?}");
                continue;
            }
            Direct::ByChance => DIRECT + SPRAY,
            Direct::Surely if given => DIRECT + R / 2 + RUNG,
            Direct::Surely if learns => DIRECT + R / 2,
            Direct::Surely => DIRECT,
        };
        let took = went.unwrap_or(Duration::MAX) - s.dialled_at();
        println!("{cell}: direct at the {name} after {took:?}");
        assert!(
            took <= ms(budget + SLACK),
            "{cell}: direct at the {name} only after {took:?}"
        );
    }
}

macro_rules! rows {
    ($($name:ident: $client:expr;)*) => {
        $(#[test]
        fn $name() {
            row($client);
        })*

        /// Where clients and agents are.
        fn kinds() -> Vec<Place> {
            vec![$(Place::from($client)),*]
        }
    };
}

// Every kind of access, and what is no kind of its own: translators, and gateways that give ports.
rows! {
    from_an_open_network_every_other_is_reached_as_the_model_says: Access::Open;
    from_behind_a_full_cone_too: Access::FullCone;
    from_behind_an_address_restricted_cone_too: Access::AddressRestricted;
    from_behind_a_port_restricted_cone_too: Access::PortRestricted;
    from_behind_a_cone_with_random_ports_too: Access::RandomCone;
    from_behind_a_carriers_nat_too: Access::CarrierGrade;
    from_behind_a_nat_that_counts_up_too: Access::Sequential;
    from_behind_a_nat_that_counts_down_too: Access::SequentialDown;
    from_behind_a_nat_that_looks_at_addresses_too: Access::AddressDependent;
    from_behind_a_nat_that_keeps_the_port_once_too: Access::Preserving;
    from_behind_a_symmetric_nat_too: Access::Symmetric;
    from_where_tcp_and_udp_to_443_alone_get_out_too: Access::Only443WithQuic;
    from_where_udp_is_blocked_too: Access::UdpBlocked;
    from_where_tcp_to_443_alone_gets_out_too: Access::Only443;
    from_behind_a_proxy_too: Access::ProxyOnly;
    from_behind_a_translator_too: Place::from(Access::PortRestricted).families(Families::Nat64);
    from_behind_a_symmetric_translator_too: Place::from(Access::Symmetric).families(Families::Nat64);
    from_behind_a_translator_that_counts_too: Place::from(Access::Sequential).families(Families::Nat64);
    from_behind_a_symmetric_nat_that_gives_a_port_too: Place::from(Access::Symmetric).gives_port();
    from_behind_a_carriers_nat_and_a_gateway_that_gives_a_port_too: Place::from(Access::CarrierGrade).gives_port();
}

#[test]
fn every_kind_of_access_has_its_row() {
    for access in Access::ALL {
        assert!(kinds().contains(&access.into()), "{access:?}");
    }
}

#[test]
fn two_nodes_behind_one_nat_go_direct_over_their_own_network() {
    let mut s = scene(Setup {
        client: Access::Symmetric,
        together: true,
        ..Setup::default()
    });
    let peer = s.dial(vec![Task::Touch]);
    let both = (Some(PathKind::Direct), Some(PathKind::Direct));
    s.world.run_for(secs(5));
    assert_eq!(s.paths(peer), both);
    s.begin(peer, Task::Download(MIB));
    assert!(s.finish(secs(20)));
    s.assert_fine();
    assert_eq!(s.paths(peer), both);
}

#[test]
fn without_direct_paths_a_tunnel_stays_on_the_relay() {
    let mut s = scene(Setup {
        client: Access::Open,
        agent: Access::Open,
        direct: false,
        ..Setup::default()
    });
    let peer = s.dial(vec![Task::Upload(MIB)]);
    assert!(s.finish(secs(20)));
    s.world.run_for(secs(30));
    s.assert_fine();
    for host in [s.client, s.agent] {
        assert_eq!(s.first_on(host, PathKind::Direct), None);
    }
    let relayed = (Some(PathKind::RelayUdp), Some(PathKind::RelayUdp));
    assert_eq!(s.paths(peer), relayed);
}

/// Round trip between two sites with the default links, and between client and agent through the relay.
const R: u64 = 20;
const T: u64 = 40;
/// Until the direct path carries data: the tunnel is up after R + T, candidates have crossed by then, one round trip finds
/// the way and one proves its size.
const DIRECT: u64 = R + T + 2 * R;
/// Until a hard NAT is crossed: ordinary pings have had their chance, and 2,048 others are sent at 1,000 a second.
const SPRAY: u64 = 300 + 2_048 + R;
/// Between the first pings of a pair (design section 6, "Probe ladder").
const RUNG: u64 = 25;
/// To a proxy at the border and back (0.6 ms), for its two answers, TLS, the upgrade, the tunnel's flights and the first answer.
const PROXY: u64 = 5;
/// What serialisation on the links and the handshake's larger packets add.
const SLACK: u64 = 6;

fn first_byte(setup: Setup, budget: u64) {
    let mut s = scene(setup);
    s.dial(vec![Task::Touch]);
    assert!(s.finish(secs(10)));
    s.assert_fine();
    let report = s.reports().remove(0);
    let began = s.dialled_at();
    let took = report.first.map(|at| at - began);
    assert!(
        took.is_some_and(|t| t <= ms(budget + SLACK)),
        "{took:?} instead of {budget} ms\n{}",
        s.world.net.trace
    );
}

#[test]
fn the_first_answer_over_a_cold_udp_link_takes_one_round_trip_to_the_relay_and_two_to_the_agent() {
    first_byte(Setup::default(), R + 2 * T);
}

#[test]
fn the_first_answer_over_a_cold_tls_link_takes_three_round_trips_to_the_relay_and_two_to_the_agent()
{
    first_byte(
        Setup {
            links: LinkMode::Tls,
            ..Setup::default()
        },
        3 * R + 2 * T,
    );
}

#[test]
fn where_udp_is_blocked_tls_starts_after_300_ms() {
    first_byte(
        Setup {
            client: Access::UdpBlocked,
            ..Setup::default()
        },
        300 + 3 * R + 2 * T,
    );
}

#[test]
fn the_first_answer_over_a_warm_udp_link_takes_two_round_trips_to_the_agent() {
    let mut s = scene(Setup::default());
    let first = s.dial(vec![Task::Touch]);
    assert!(s.finish(secs(10)));
    let client = s.client;
    let (node, net) = s.world.node(client);
    node.close(net, first);
    s.world.run_for(secs(1));
    let began = s.world.net.now();
    s.dial_now(vec![Task::Touch]);
    assert!(s.finish(secs(10)), "{}", s.world.net.trace);
    s.assert_fine();
    let took = s.reports()[1].first.map(|at| at - began);
    assert!(
        took.is_some_and(|t| t <= ms(2 * T + SLACK)),
        "{took:?}\n{}",
        s.world.net.trace
    );
}
