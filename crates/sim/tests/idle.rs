//! What a tunnel costs when nothing happens, and what is left of it when it is over.

mod common;

use std::collections::BTreeMap;

use byway_core::io::PathKind;
use byway_sim::model::Access;
use byway_sim::scene::Setup;
use byway_sim::shell::app::Task;
use common::{scene, secs};

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
    assert_eq!(s.paths(peer).0, Some(kind));
    for host in [s.client, s.agent] {
        s.world.node(host).0.wakes.clear();
    }
    s.world.run_for(secs(3600));
    assert_eq!(s.paths(peer).0, Some(kind));
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
