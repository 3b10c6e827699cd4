//! A laptop that is carried from network to network under its tunnel, and a workspace that is.

mod common;

use std::net::IpAddr;
use std::time::Duration;

use byway_core::io::{LinkMode, PathKind, PeerId};
use byway_sim::model::{Access, direct_possible};
use byway_sim::net::link::LinkConfig;
use byway_sim::net::{HostId, SiteId};
use byway_sim::scene::{Scene, Setup, site};
use byway_sim::shell::app::Task;
use byway_sim::shell::node::Note;
use common::{ms, percentile, scene, secs};

/// A network to go to, and the address the host gets there.
fn network(s: &mut Scene, access: Access, n: u8) -> (SiteId, IpAddr) {
    let name = format!("network {n}");
    let of = site(
        &name,
        access,
        Some([203, 0, 113, 100 + n]),
        LinkConfig::default(),
    );
    let site = s.world.net.add_site(of);
    let inside = if access == Access::Open {
        IpAddr::from([203, 0, 113, 200 + n])
    } else {
        IpAddr::from([10, 7, n, 2])
    };
    (site, inside)
}

/// Types each 50 ms; how long after `since` the first answer came to something typed after it.
fn back_after(s: &mut Scene, peer: PeerId, since: Duration) -> Duration {
    let from = s.reports().len();
    for _ in 0..400 {
        s.begin(peer, Task::Touch);
        s.world.run_for(ms(50));
        let back = s.reports()[from..].iter().filter_map(|r| r.done).min();
        if let Some(at) = back {
            return at - since;
        }
    }
    let story = s.story();
    panic!("never back\n{}\n{story}", s.world.net.trace);
}

fn carry(s: &mut Scene, host: HostId, to: (SiteId, IpAddr)) -> Duration {
    s.world.move_node(host, to.0, vec![to.1]);
    s.world.net.now()
}

fn lost_nothing(s: &mut Scene) {
    s.assert_fine();
    for host in [s.client, s.agent] {
        let notes = &s.world.node(host).0.notes;
        let lost = notes
            .iter()
            .any(|(_, n)| matches!(n, Note::TunnelLost(..) | Note::Failed(..)));
        assert!(!lost, "{}", s.story());
    }
}

const KINDS: [Access; 4] = [
    Access::Open,
    Access::PortRestricted,
    Access::Symmetric,
    Access::UdpBlocked,
];

/// Every kind of network to every other, for the client or for the agent; gives how long each took.
fn roam(agents_side: bool) -> Vec<Duration> {
    let mut times = Vec::new();
    for from in KINDS {
        for to in KINDS {
            let (client, agent) = if agents_side {
                (Access::PortRestricted, from)
            } else {
                (from, Access::PortRestricted)
            };
            let mut s = scene(Setup {
                client,
                agent,
                ..Setup::default()
            });
            let peer = s.dial(vec![Task::Touch]);
            s.world.run_for(secs(4));
            // A transfer is under way when the cable is pulled.
            s.begin(peer, Task::Download(3_000_000));
            s.world.run_for(ms(300));
            let to_network = network(&mut s, to, 1);
            let host = if agents_side { s.agent } else { s.client };
            let since = carry(&mut s, host, to_network);
            let took = back_after(&mut s, peer, since);
            println!("agent's side {agents_side}: {from:?} to {to:?}: back after {took:?}");
            times.push(took);
            assert!(s.finish(secs(60)), "{from:?} {to:?}\n{}", s.story());
            // And on the best path there is, in the end: where the last spray was a moment ago, the next one has to wait.
            let direct = direct_possible(to, Access::PortRestricted);
            let settled = (0..800).any(|_| {
                s.begin(peer, Task::Touch);
                s.world.run_for(ms(500));
                let (own, other) = s.paths(peer);
                let both = own == Some(PathKind::Direct) && other == Some(PathKind::Direct);
                both == direct
            });
            assert!(
                settled,
                "{from:?} {to:?}: {:?}\n{}",
                s.paths(peer),
                s.story()
            );
            lost_nothing(&mut s);
        }
    }
    times.sort();
    times
}

fn back_within_a_second(times: &[Duration]) {
    let (half, most) = (percentile(times, 50), percentile(times, 95));
    println!("p50 {half:?}, p95 {most:?}");
    assert!(most <= secs(1), "{times:?}");
}

#[test]
fn a_client_that_changes_networks_is_back_within_a_second() {
    back_within_a_second(&roam(false));
}

#[test]
fn an_agent_that_changes_networks_is_back_within_a_second() {
    back_within_a_second(&roam(true));
}

#[test]
fn a_tunnel_without_direct_paths_roams_by_its_links_alone() {
    for links in [LinkMode::Udp, LinkMode::Tls] {
        let mut s = scene(Setup {
            direct: false,
            links,
            ..Setup::default()
        });
        let peer = s.dial(vec![Task::Touch]);
        assert!(s.finish(secs(5)));
        for n in 1..=3 {
            let to = network(&mut s, Access::PortRestricted, n);
            let host = s.client;
            let since = carry(&mut s, host, to);
            let took = back_after(&mut s, peer, since);
            println!("{links:?}: back after {took:?}");
            assert!(took <= secs(1), "{links:?}: {took:?}");
            s.world.run_for(secs(2));
        }
        lost_nothing(&mut s);
    }
}

#[test]
fn while_there_is_no_network_nothing_ends_and_the_next_one_is_taken_at_once() {
    let mut s = scene(Setup::default());
    let peer = s.dial(vec![Task::Touch]);
    s.world.run_for(secs(4));
    // Between networks for ten minutes: a site that leads nowhere.
    let nowhere = network(&mut s, Access::UdpBlocked, 1);
    let hole = byway_sim::net::Hole {
        from: Some(nowhere.0),
        to: None,
        what: byway_sim::net::Traffic::All,
    };
    s.world.inflict(byway_sim::world::Fault::Open(hole));
    let host = s.client;
    carry(&mut s, host, nowhere);
    s.begin(peer, Task::Touch);
    s.world.run_for(secs(600));
    let to = network(&mut s, Access::PortRestricted, 2);
    let since = carry(&mut s, host, to);
    let took = back_after(&mut s, peer, since);
    println!("back after {took:?}");
    assert!(took <= secs(1), "{took:?}\n{}", s.story());
    assert!(s.finish(secs(10)));
    lost_nothing(&mut s);
}

#[test]
fn a_client_that_comes_back_to_where_it_was_is_direct_again_at_once() {
    let mut s = scene(Setup::default());
    let peer = s.dial(vec![Task::Touch]);
    assert!(s.until_path(peer, PathKind::Direct, secs(5)));
    let (host, home) = (s.client, s.client_site);
    let inside = s.world.net.addrs(host)[0];
    let away = network(&mut s, Access::UdpBlocked, 1);
    for _ in 0..3 {
        // Long enough for both sides to have given the path up.
        carry(&mut s, host, away);
        for _ in 0..10 {
            s.begin(peer, Task::Touch);
            s.world.run_for(ms(500));
        }
        assert_eq!(
            s.paths(peer),
            (Some(PathKind::RelayTls), Some(PathKind::RelayUdp))
        );
        let since = carry(&mut s, host, (home, inside));
        let both = (Some(PathKind::Direct), Some(PathKind::Direct));
        let direct = (0..100).any(|_| {
            s.begin(peer, Task::Touch);
            s.world.run_for(ms(50));
            s.paths(peer) == both
        });
        let took = s.world.net.now() - since;
        println!("direct again after {took:?}");
        assert!(direct, "{:?}\n{}", s.paths(peer), s.story());
    }
    assert!(s.finish(secs(10)));
    lost_nothing(&mut s);
}
