//! Those that mean harm: STUN servers that lie, floods of garbage, a node that abuses its link.

#[path = "../common/mod.rs"]
mod common;

mod forged;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use byway_core::discovery::{Mapping, NatReport};
use byway_core::io::{PathKind, PeerId, RouteReason};
use byway_sim::model::{Access, expected_path};
use byway_sim::net::{HostId, SiteConfig};
use byway_sim::scene::{RELAY_ADDR, Scene, Setup};
use byway_sim::shell::app::Task;
use byway_sim::shell::hostile::{Abuser, Flooder, HOSTILE_PORT};
use byway_sim::shell::node::Note;
use byway_sim::shell::stun::Manner;
use common::{ms, scene, secs};

const MIB: u64 = 1024 * 1024;

/// What a report says of the network, without the rows.
fn verdict(report: &NatReport) -> impl PartialEq + std::fmt::Debug + use<> {
    (
        report.udp_v4,
        report.reflexive_v4,
        report.mapping,
        report.public,
    )
}

fn report(access: Access, stun: Vec<Manner>) -> (NatReport, Vec<SocketAddr>) {
    let mut s = scene(Setup {
        client: access,
        stun,
        ..Setup::default()
    });
    let peer = s.dial(vec![Task::Touch]);
    assert!(s.finish(secs(10)));
    s.world.run_for(secs(5));
    let expected = expected_path(access, Access::PortRestricted);
    assert_eq!(s.paths(peer).0, Some(expected), "{access:?}");
    let client = s.client;
    let report = s.world.node(client).0.report.clone();
    (
        (*report.unwrap_or_else(|| panic!("no report"))).clone(),
        s.stun,
    )
}

fn absurd() -> [SocketAddr; 3] {
    [
        SocketAddr::from(([127, 0, 0, 1], 5000)),
        SocketAddr::from(([0, 0, 0, 0], 0)),
        SocketAddr::from(([224, 0, 0, 1], 9)),
    ]
}

#[test]
fn discovery_finds_each_kind_of_mapping() {
    for (access, mapping) in [
        (Access::Open, Mapping::EndpointIndependent),
        (Access::PortRestricted, Mapping::EndpointIndependent),
        (Access::Symmetric, Mapping::AddressAndPortDependent),
    ] {
        let (report, _) = report(access, vec![Manner::Honest, Manner::Honest]);
        assert_eq!(report.udp_v4, Some(true), "{access:?}");
        // Two servers on different addresses cannot tell address-dependent from address-and-port-dependent; either
        // is right, and the port-independent answer is wrong.
        let ok = report.mapping == mapping
            || (mapping == Mapping::AddressAndPortDependent
                && report.mapping == Mapping::AddressDependent);
        assert!(ok, "{access:?}: {report:?}");
    }
}

#[test]
fn a_hostile_stun_server_changes_nothing_but_its_own_row() {
    let plain = Manner::PLAIN.into_iter().filter(|m| *m != Manner::Honest);
    let manners = plain
        .chain([Manner::Slow(ms(700))])
        .chain(absurd().map(Manner::Lying));
    let honest = vec![Manner::Honest, Manner::Honest];
    let (clean, _) = report(Access::PortRestricted, honest.clone());
    for manner in manners {
        let mut stun = honest.clone();
        stun.push(manner);
        let (with, addrs) = report(Access::PortRestricted, stun);
        assert_eq!(verdict(&with), verdict(&clean), "{manner:?}");
        for addr in &addrs[..2] {
            let row = with.servers.iter().find(|r| r.addr == *addr);
            assert!(
                row.is_some_and(|r| r.mapped == clean.reflexive_v4 && r.fault.is_none()),
                "{manner:?}: {:?}",
                with.servers
            );
        }
        let row = with.servers.iter().find(|r| r.addr == addrs[2]);
        let believed = row.is_some_and(|r| r.mapped.is_some());
        let harmless = matches!(
            manner,
            Manner::Slow(_) | Manner::Repeating | Manner::Flooding
        );
        assert_eq!(believed, harmless, "{manner:?}: {row:?}");
    }
}

#[test]
fn a_plausible_lie_makes_no_node_believe_in_a_direct_path() {
    // A public address that is not ours: it differs from what the honest servers say, and nobody there answers.
    let lie = Manner::Lying(SocketAddr::from(([203, 0, 113, 99], 4444)));
    let mut s = scene(Setup {
        stun: vec![Manner::Honest, Manner::Honest, lie],
        ..Setup::default()
    });
    let peer = s.dial(vec![Task::Touch]);
    assert!(s.until_path(peer, PathKind::Direct, secs(10)));
    s.begin(peer, Task::Download(MIB));
    assert!(s.finish(secs(20)));
    s.assert_fine();
}

/// A host of the attacker's, with a public address.
fn attacker(s: &mut Scene, ip: [u8; 4]) -> HostId {
    let site = s.world.net.add_site(SiteConfig {
        name: "attacker".to_owned(),
        ..SiteConfig::default()
    });
    s.world
        .net
        .add_host(site, vec![IpAddr::from(ip)], &[HOSTILE_PORT])
}

/// How long a megabyte each way takes.
fn both_ways(s: &mut Scene, peer: PeerId) -> Duration {
    let began = s.world.net.now();
    s.begin(peer, Task::Upload(MIB));
    s.begin(peer, Task::Download(MIB));
    assert!(s.finish(secs(30)), "{}", s.world.net.trace);
    s.world.net.now() - began
}

/// What befell the two nodes since some time, beyond passing doubts: a link or a tunnel lost, a path left. A doubt costs
/// duplicates for a moment, and a busy network raises them without any enemy.
fn harm_since(s: &mut Scene, since: Duration) -> Vec<String> {
    let mut out = Vec::new();
    for host in [s.client, s.agent] {
        let (node, _) = s.world.node(host);
        for (at, note) in &node.notes {
            let harmless = matches!(
                note,
                Note::Connected(_)
                    | Note::Route(_, _, RouteReason::Suspected | RouteReason::Cleared)
            );
            if *at >= since && !harmless {
                out.push(format!("{note:?}"));
            }
        }
    }
    out
}

/// Where the relay sees the nodes, and itself: everything an attacker on the path knows.
fn seen_addresses(s: &Scene) -> Vec<SocketAddr> {
    let mut seen = s.world.relay(s.relay).bound();
    seen.push(RELAY_ADDR);
    seen
}

/// An attacker that hears everything, in whose name soever it speaks, only adds noise.
fn flood(access: Access) {
    let mut s = scene(Setup {
        client: access,
        agent: access,
        ..Setup::default()
    });
    let peer = s.dial(vec![Task::Touch]);
    assert!(s.finish(secs(10)));
    s.world.run_for(secs(5));
    let before = s.paths(peer);
    let since = s.world.net.now();
    let host = attacker(&mut s, [198, 51, 100, 66]);
    let victims = seen_addresses(&s);
    assert_eq!(victims.len(), 3, "client, agent and relay: {victims:?}");
    let undisturbed = both_ways(&mut s, peer);
    let flooder = Flooder::new(&mut s.world.net, host, victims, ms(1));
    s.world.add_flooder(host, flooder);
    let flooded = both_ways(&mut s, peer);
    assert!(
        flooded < undisturbed * 3 / 2,
        "{flooded:?} instead of {undisturbed:?}"
    );
    s.world.run_for(secs(5));
    assert_eq!(s.paths(peer), before);
    s.begin(peer, Task::Touch);
    assert!(s.finish(secs(5)));
    s.assert_fine();
    assert_eq!(harm_since(&mut s, since), Vec::<String>::new());
    assert_eq!(s.world.node(s.agent).0.peers().len(), 1);
    // And it was there: it got through to everybody, with what it had made up and with what it had heard.
    let flooder = s.world.flooder(host);
    assert!(flooder.garbage > 5_000, "{}", flooder.garbage);
    assert!(flooder.replayed > 3_000, "{}", flooder.replayed);
    let site = s.world.net.site_of(host);
    for victim in [s.client, s.agent, s.relay] {
        let arrived = s.world.net.delivered(site, victim);
        assert!(arrived > 1_000, "{arrived} at {victim:?}");
    }
}

#[test]
fn a_flood_of_garbage_and_replays_does_not_disturb_a_direct_tunnel() {
    flood(Access::Open);
}

#[test]
fn a_flood_of_garbage_and_replays_does_not_disturb_a_tunnel_behind_cones() {
    flood(Access::PortRestricted);
}

#[test]
fn a_flood_of_garbage_and_replays_does_not_disturb_a_relayed_tunnel() {
    flood(Access::Symmetric);
}

#[test]
fn a_node_that_abuses_its_link_disturbs_no_other_tunnel() {
    let mut s = scene(Setup {
        client: Access::Symmetric,
        agent: Access::Symmetric,
        ..Setup::default()
    });
    let peer = s.dial(vec![Task::Touch]);
    assert!(s.finish(secs(10)));
    s.world.run_for(secs(3));
    let since = s.world.net.now();
    let host = attacker(&mut s, [198, 51, 100, 67]);
    let abuser = Abuser::new(&mut s.world.net, host, RELAY_ADDR, s.agent_id);
    s.world.add_abuser(host, abuser);
    s.begin(peer, Task::Upload(MIB));
    assert!(s.finish(secs(30)), "{}", s.world.net.trace);
    s.world.run_for(secs(30));
    s.begin(peer, Task::Download(MIB));
    assert!(s.finish(secs(30)), "{}", s.world.net.trace);
    s.assert_fine();
    assert_eq!(harm_since(&mut s, since), Vec::<String>::new());
    let abuser = s.world.abuser(host);
    assert!(abuser.sent > 500, "{}", abuser.sent);
    assert!(abuser.admitted > 1, "the relay let it in, and in again");
    assert!(abuser.thrown_out > 0, "garbage frames end a link");
    // What it opened, the agent refused; nothing of it piles up.
    let agent = s.agent;
    assert_eq!(s.world.node(agent).0.peers().len(), 1);
    assert!(s.world.relay(s.relay).channels() < 16);
}
