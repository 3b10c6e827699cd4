//! Every kind of access network against every other: what must connect, by which path, how fast.

mod common;

use std::time::Duration;

use byway_core::io::{LinkMode, PathKind};
use byway_sim::model::{Access, Direct, direct, expected_path};
use byway_sim::scene::Setup;
use byway_sim::shell::app::Task;
use common::{ms, scene, secs};

const MIB: u64 = 1024 * 1024;

/// Plays one cell: relay first, then the best path there can be, and a megabyte each way.
fn play(client: Access, agent: Access) {
    let mut s = scene(Setup {
        client,
        agent,
        ..Setup::default()
    });
    let peer = s.dial(vec![Task::Touch]);
    let cell = format!("client {client:?}, agent {agent:?}");
    assert!(s.finish(secs(10)), "{cell}: the first byte never came");
    // The application waits for no path but the first: its first answer comes as fast as the relay alone allows.
    let first = s.reports()[0].first.unwrap_or_else(|| panic!("{cell}"));
    let budget = if client == Access::UdpBlocked {
        300 + 3 * R + 2 * T
    } else {
        R + 2 * T
    };
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
    let settled = (0..20).any(|_| {
        s.world.run_for(ms(500));
        s.paths(peer) == expected
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
    assert_eq!(s.paths(peer), expected, "{cell}: and it stays so");
    for (host, name) in [(s.client, "client"), (s.agent, "agent")] {
        let went = s.first_on(host, PathKind::Direct);
        // Where one side's port is not known beforehand, the other learns it from the first probe that comes in.
        let learns = [client, agent].contains(&Access::Symmetric);
        let budget = match direct(client, agent) {
            Direct::Never => {
                assert_eq!(went, None, "{cell}: never on a path that cannot exist");
                continue;
            }
            Direct::ByChance => DIRECT + SPRAY,
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

macro_rules! cells {
    ($($name:ident: $client:ident, $agent:ident;)*) => {
        $(#[test]
        fn $name() {
            play(Access::$client, Access::$agent);
        })*
    };
}

cells! {
    open_to_open_goes_direct: Open, Open;
    open_to_port_restricted_goes_direct: Open, PortRestricted;
    open_to_symmetric_goes_direct: Open, Symmetric;
    open_to_udp_blocked_stays_on_the_relay: Open, UdpBlocked;
    port_restricted_to_open_goes_direct: PortRestricted, Open;
    port_restricted_to_port_restricted_goes_direct: PortRestricted, PortRestricted;
    port_restricted_to_symmetric_goes_direct_by_many_tries: PortRestricted, Symmetric;
    port_restricted_to_udp_blocked_stays_on_the_relay: PortRestricted, UdpBlocked;
    symmetric_to_open_goes_direct: Symmetric, Open;
    symmetric_to_port_restricted_goes_direct_by_many_tries: Symmetric, PortRestricted;
    symmetric_to_symmetric_stays_on_the_relay: Symmetric, Symmetric;
    symmetric_to_udp_blocked_stays_on_the_relay: Symmetric, UdpBlocked;
    udp_blocked_to_open_runs_over_tls: UdpBlocked, Open;
    udp_blocked_to_port_restricted_runs_over_tls: UdpBlocked, PortRestricted;
    udp_blocked_to_symmetric_runs_over_tls: UdpBlocked, Symmetric;
    udp_blocked_to_udp_blocked_runs_over_tls: UdpBlocked, UdpBlocked;
    full_cone_to_symmetric_goes_direct: FullCone, Symmetric;
    symmetric_to_address_restricted_goes_direct: Symmetric, AddressRestricted;
    random_cone_to_open_goes_direct: RandomCone, Open;
    random_cone_to_port_restricted_goes_direct: RandomCone, PortRestricted;
    port_restricted_to_random_cone_goes_direct: PortRestricted, RandomCone;
    random_cone_to_random_cone_goes_direct: RandomCone, RandomCone;
    random_cone_to_symmetric_goes_direct_by_many_tries: RandomCone, Symmetric;
    symmetric_to_random_cone_goes_direct_by_many_tries: Symmetric, RandomCone;
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
