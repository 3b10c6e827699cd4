//! Datagrams forged with the peer's address, under a direct path that is dead: they must not make it look alive. What is
//! heard there proves nothing unless it is authenticated and answers something asked lately.

use std::net::SocketAddr;
use std::time::Duration;

use byway_core::io::{PathKind, Way};
use byway_sim::net::link::LinkConfig;
use byway_sim::net::{Hole, HostId, Tapped, Traffic};
use byway_sim::rng::Rng;
use byway_sim::scene::{Scene, Setup};
use byway_sim::shell::app::Task;
use byway_sim::shell::hostile::Forger;
use byway_sim::world::Fault;

use crate::attacker;
use crate::common::{ms, percentile, scene, secs};

/// 32 Mbit/s, so that a transfer of 1.8 MB lasts half a second, at a round trip of 20 ms.
const LINK: LinkConfig = LinkConfig {
    delay: Duration::from_millis(5),
    jitter: Duration::from_millis(1),
    loss: 0.0,
    reorder: 0.0,
    duplicate: 0.0,
    mtu: 1500,
    rate: Some(4_000_000),
    queue: Duration::from_millis(15),
};
const BYTES: u64 = 1_800_000;

/// Where a node's data goes.
fn remote(s: &mut Scene, host: HostId) -> SocketAddr {
    let (node, _) = s.world.node(host);
    let primary = node.peers().first().and_then(|peer| node.primary(*peer));
    match primary {
        Some(Way::Direct { remote, .. }) => remote,
        other => panic!("not direct: {other:?}"),
    }
}

/// The direct path dies under a transfer, in both directions, and a forger speaks at this interval, if there is one, to both
/// sides in the other's name. Gives the longest silence of the receiver.
fn silence(seed: u64, every: Option<Duration>) -> Duration {
    let mut rng = Rng::new(seed, "forged");
    let mut s = scene(Setup {
        seed,
        client_link: LINK,
        agent_link: LINK,
        ..Setup::default()
    });
    let evil = attacker(&mut s, [198, 51, 100, 66]);
    let evil_site = s.world.net.site_of(evil);
    s.world.net.tap(evil_site);
    let peer = s.dial(vec![Task::Touch]);
    assert!(s.until_path(peer, PathKind::Direct, secs(10)));
    // It has heard how the path was proven, and a first part of the transfer.
    s.world.run_for(secs(3));
    let heard = |s: &Scene| s.world.net.tapped().into_iter().cloned().collect();
    let mut all: Vec<Tapped> = heard(&s);
    s.begin(peer, Task::Download(BYTES));
    s.world.run_for(ms(80) + rng.up_to(ms(250)));
    all.extend(heard(&s));
    let (client_host, agent_host) = (s.client, s.agent);
    let client_at = remote(&mut s, agent_host);
    let agent_at = remote(&mut s, client_host);
    let (client, agent) = (s.client_site, s.agent_site);
    for (from, to) in [(client, agent), (agent, client)] {
        s.world.inflict(Fault::Open(Hole {
            from: Some(from),
            to: Some(to),
            what: Traffic::Udp,
        }));
    }
    if let Some(every) = every {
        let targets = [(agent_at, client_at), (client_at, agent_at)];
        let forger = Forger::new(&mut s.world.net, evil, &targets, &all, every);
        s.world.add_forger(evil, forger);
    }
    let began = s.world.net.now();
    assert!(s.finish(secs(30)), "seed {seed}\n{}", s.story());
    s.assert_fine();
    // What it has to say is still said, and the path is still dead: nobody goes back.
    s.world.run_for(secs(3));
    let relayed = Some(PathKind::RelayUdp);
    assert_eq!(
        s.paths(peer),
        (relayed, relayed),
        "seed {seed}\n{}",
        s.story()
    );
    if let Some(every) = every {
        let forger = s.world.forger(evil);
        let turns = ((s.world.net.now() - began).as_secs_f64() / every.as_secs_f64()) as u64;
        for (what, sent) in [
            ("garbage", forger.garbage),
            ("old probes", forger.old_probes),
            ("old packets", forger.old_packets),
        ] {
            assert!(sent > turns / 3, "{sent} of {what} in {turns} turns");
        }
        for host in [s.client, s.agent] {
            let arrived = s.world.net.delivered(evil_site, host);
            assert!(arrived > turns * 9 / 10, "{arrived} at {host:?}");
        }
    }
    let report = s.reports().pop();
    report.map_or(Duration::MAX, |r| r.longest_silence)
}

/// Over many networks and moments, in order of size.
fn spread(every: Option<Duration>) -> Vec<Duration> {
    let mut silences: Vec<Duration> = (1..=20).map(|seed| silence(seed, every)).collect();
    silences.sort();
    let [half, most] = [50, 99].map(|share| percentile(&silences, share));
    println!("forged every {every:?}: p50 {half:?}, p99 {most:?}");
    silences
}

fn no_worse_than_the_rule(every: Duration) {
    let (without, with) = (spread(None), spread(Some(every)));
    assert!(percentile(&with, 50) <= ms(250), "{with:?}");
    assert!(percentile(&with, 99) <= ms(500), "{with:?}");
    // And hardly worse than the same black holes without it.
    let (calm, forged) = (percentile(&without, 50), percentile(&with, 50));
    assert!(forged <= calm + ms(20), "{forged:?} instead of {calm:?}");
}

#[test]
fn a_hundred_forged_datagrams_a_second_do_not_keep_a_dead_path_looking_alive() {
    no_worse_than_the_rule(ms(10));
}

#[test]
fn nor_do_a_thousand() {
    no_worse_than_the_rule(ms(1));
}
