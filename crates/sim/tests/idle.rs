//! What a tunnel costs when nothing happens, and what is left of it when it is over.

mod common;

use std::collections::BTreeMap;

use byway_core::io::{PathKind, PeerId, Way};
use byway_sim::model::Access;
use byway_sim::scene::{RELAY_ADDR, Scene, Setup};
use byway_sim::shell::app::Task;
use common::{ms, scene, secs};

/// The wake-ups of both nodes during one idle hour.
fn idle_hour(access: Access, kind: PathKind) -> [BTreeMap<&'static str, u64>; 2] {
    let mut s = scene(Setup {
        client: access,
        agent: access,
        ..Setup::default()
    });
    let peer = s.dial(vec![Task::Touch]);
    assert!(s.finish(secs(10)));
    s.world.run_for(secs(120));
    assert_eq!(s.paths(peer), (Some(kind), Some(kind)));
    for host in [s.client, s.agent] {
        s.world.node(host).0.wakes.clear();
    }
    s.world.run_for(secs(3600));
    assert_eq!(s.paths(peer), (Some(kind), Some(kind)));
    s.begin(peer, Task::Touch);
    assert!(s.finish(secs(5)), "the tunnel does not answer any more");
    s.assert_fine();
    [s.client, s.agent].map(|host| s.world.node(host).0.wakes.clone())
}

/// One keep-alive each 20 s, on the link and on the direct path, each with its answer's timers.
#[test]
fn an_idle_tunnel_wakes_for_its_keep_alives_only() {
    for (access, kind) in [
        (Access::Open, PathKind::Direct),
        (Access::Symmetric, PathKind::RelayUdp),
        (Access::UdpBlocked, PathKind::RelayTls),
    ] {
        for wakes in idle_hour(access, kind) {
            let total: u64 = wakes.values().sum();
            println!("{access:?}: {total}: {wakes:?}");
            assert!(total <= 1_000, "{access:?}: {total} in an hour: {wakes:?}");
        }
    }
}

/// Of so many seconds of idleness, in how many some NAT would have dropped what the other side sent.
fn deaf_seconds(s: &mut Scene, peer: PeerId, seconds: u64) -> u64 {
    let mut deaf = 0;
    for _ in 0..seconds {
        s.world.run_for(secs(1));
        let mut open = true;
        let agents_peer = s
            .agent_peer()
            .unwrap_or_else(|| panic!("the agent has no peer"));
        let to_agent = s.world.node(s.client).0.primary(peer);
        let to_client = s.world.node(s.agent).0.primary(agents_peer);
        if let (Some(Way::Direct { remote: agent, .. }), Some(Way::Direct { remote: client, .. })) =
            (to_agent, to_client)
        {
            open &= s.world.net.lets_in(s.client_site, client.port(), agent);
            open &= s.world.net.lets_in(s.agent_site, agent.port(), client);
        } else {
            for bound in s.world.relay(s.relay).bound() {
                let site = if bound.ip().to_string() == "203.0.113.10" {
                    s.client_site
                } else {
                    s.agent_site
                };
                open &= s.world.net.lets_in(site, bound.port(), RELAY_ADDR);
            }
        }
        deaf += u64::from(!open);
    }
    deaf
}

fn idle_behind(access: Access, nat_timeout: u64) -> (Scene, PeerId) {
    let mut s = scene(Setup {
        client: access,
        agent: access,
        nat_timeout: Some(secs(nat_timeout)),
        ..Setup::default()
    });
    let peer = s.dial(vec![Task::Touch]);
    assert!(s.finish(secs(10)));
    s.world.run_for(secs(30));
    (s, peer)
}

/// Many NATs keep a mapping for 30 s only (RFC 4787 asks for two minutes).
#[test]
fn keep_alives_hold_the_mappings_of_a_nat_that_forgets_after_30_seconds() {
    for (access, kind) in [
        (Access::PortRestricted, PathKind::Direct),
        (Access::Symmetric, PathKind::RelayUdp),
    ] {
        let (mut s, peer) = idle_behind(access, 30);
        assert_eq!(s.paths(peer), (Some(kind), Some(kind)));
        let since = s.world.net.now();
        assert_eq!(deaf_seconds(&mut s, peer, 600), 0, "{access:?}");
        for host in [s.client, s.agent] {
            let routes = s.routes_since(host, since);
            let left = routes.iter().any(|(_, path)| *path != Some(kind));
            assert!(!left, "{access:?}: {routes:?}");
        }
        let began = s.world.net.now();
        s.begin(peer, Task::Touch);
        assert!(s.finish(secs(5)));
        s.assert_fine();
        let took = s.world.net.now() - began;
        assert!(took < ms(100), "{access:?}: answered after {took:?}");
    }
}

/// The control: where the keep-alives come too seldom for the NAT, the test above would have seen it.
#[test]
fn keep_alives_do_not_hold_the_mappings_of_a_nat_that_forgets_sooner_than_they_come() {
    for access in [Access::PortRestricted, Access::Symmetric] {
        let (mut s, peer) = idle_behind(access, 12);
        assert!(deaf_seconds(&mut s, peer, 120) > 20, "{access:?}");
    }
}

#[test]
fn tunnels_that_are_over_leave_nothing_behind() {
    let mut s = scene(Setup {
        trace: 50,
        ..Setup::default()
    });
    let first = s.dial(vec![Task::Touch]);
    assert!(s.finish(secs(10)));
    let client = s.client;
    let mut open = vec![first];
    for _ in 0..100 {
        let peer = open.remove(0);
        let (node, net) = s.world.node(client);
        node.close(net, peer);
        s.world.run_for(secs(1));
        open.push(s.dial_now(vec![Task::Touch]));
        assert!(s.finish(secs(10)), "{}", s.world.net.trace);
    }
    for peer in open {
        let (node, net) = s.world.node(client);
        node.close(net, peer);
    }
    s.world.run_for(secs(120));
    s.assert_fine();
    for host in [s.client, s.agent] {
        let (node, _) = s.world.node(host);
        assert_eq!(node.peers(), Vec::new());
    }
    assert_eq!(s.world.relay(s.relay).channels(), 0);
    // The agent keeps its link; the client's lingered out.
    assert_eq!(s.world.node(s.agent).0.connections(), 1);
    assert_eq!(s.world.node(s.client).0.connections(), 0);
}
