//! What must change nothing: loss, pauses, idleness, the death of everything that a direct tunnel does not need. And typing,
//! one small message each 50 ms, over a path that dies.

use std::time::Duration;

use byway_core::io::{PathKind, PeerId, RouteReason};
use byway_sim::net::link::LinkConfig;
use byway_sim::rng::Rng;
use byway_sim::scene::{Scene, Setup};
use byway_sim::shell::app::Task;
use byway_sim::shell::node::Note;
use byway_sim::world::Fault;

use crate::common::{ms, percentile, secs};
use crate::{DIRECT, MIB, RELAYED, cut, cut_off, direct, heal};

const TEN_MINUTES: u64 = 600;

/// Types for a while: a message each `gap`, each answered.
fn type_for(s: &mut Scene, peer: PeerId, time: Duration, gap: Duration) {
    let end = s.world.net.now() + time;
    while s.world.net.now() < end {
        s.begin(peer, Task::Touch);
        s.world.run_for(gap);
    }
}

/// What a while without harm was like.
struct Stayed {
    /// How often somebody wondered.
    doubts: usize,
    /// Datagrams that went by two paths, meanwhile or before.
    duplicates: u64,
}

/// Paths shut out so far, by both.
fn quarantines(s: &mut Scene) -> u64 {
    let hosts = [s.client, s.agent];
    hosts
        .map(|host| s.world.node(host).0.node().counters().quarantines)
        .iter()
        .sum()
}

/// Nobody left the direct path, not for a moment, and nobody ever shut one out.
fn assert_stayed(s: &mut Scene, since: Duration) -> Stayed {
    assert_eq!(quarantines(s), 0, "a path was quarantined\n{}", s.story());
    let (mut doubts, mut duplicates) = (0, 0);
    for (host, name) in [(s.client, "client"), (s.agent, "agent")] {
        let routes = s.routes_since(host, since);
        let left = routes.iter().find(|(_, path)| *path != DIRECT);
        assert!(left.is_none(), "the {name} left: {left:?}\n{}", s.story());
        let (node, _) = s.world.node(host);
        let wondered = |(at, note): &&(Duration, Note)| {
            *at >= since && matches!(note, Note::Route(_, _, RouteReason::Suspected))
        };
        doubts += node.notes.iter().filter(wondered).count();
        duplicates += node.counts.get("duplicated").copied().unwrap_or_default();
    }
    s.assert_fine();
    Stayed { doubts, duplicates }
}

#[test]
fn ten_minutes_of_loss_move_nothing() {
    for seed in 1..=4 {
        ten_minutes_of_loss(seed);
    }
}

fn ten_minutes_of_loss(seed: u64) {
    // Twice 2.5 % each way is 5 %.
    let lossy = LinkConfig {
        loss: 0.025,
        ..LinkConfig::default()
    };
    let (mut s, peer) = direct(Setup {
        seed,
        client_link: lossy,
        agent_link: lossy,
        ..Setup::default()
    });
    let since = s.world.net.now();
    for minute in 0..TEN_MINUTES / 60 {
        s.begin(peer, Task::Download(MIB / 4));
        type_for(&mut s, peer, secs(60), ms(200));
        assert!(s.finish(secs(30)), "minute {minute}\n{}", s.story());
    }
    let Stayed { doubts, duplicates } = assert_stayed(&mut s, since);
    println!("seed {seed}: {doubts} doubts, {duplicates} duplicates in ten minutes of loss");
}

#[test]
fn ten_minutes_of_pauses_move_nothing() {
    let (mut s, peer) = direct(Setup::default());
    let mut rng = Rng::new(1, "pauses");
    let since = s.world.net.now();
    for _ in 0..TEN_MINUTES {
        type_for(&mut s, peer, ms(800), ms(50));
        let holes = cut_off(&mut s);
        let pause = ms(100) + rng.up_to(ms(100));
        type_for(&mut s, peer, pause, ms(50));
        heal(&mut s, holes);
    }
    assert!(s.finish(secs(30)), "{}", s.story());
    let Stayed { doubts, duplicates } = assert_stayed(&mut s, since);
    println!("{doubts} doubts, {duplicates} duplicates in {TEN_MINUTES} pauses");
    assert!(doubts > 0, "no pause was noticed at all");
}

#[test]
fn ten_minutes_of_nothing_move_nothing() {
    let (mut s, peer) = direct(Setup::default());
    let since = s.world.net.now();
    s.world.run_for(secs(TEN_MINUTES));
    s.begin(peer, Task::Touch);
    assert!(s.finish(secs(2)));
    let Stayed { doubts, duplicates } = assert_stayed(&mut s, since);
    println!("{duplicates} duplicates in ten minutes of nothing");
    assert_eq!(doubts, 0, "somebody wondered");
}

/// Both relays and both STUN servers die under it, so that nothing is left but the two sides.
#[test]
fn without_any_server_a_direct_tunnel_goes_on_for_half_an_hour() {
    let (mut s, peer) = direct(Setup {
        second_relay: Some(LinkConfig::default()),
        ..Setup::default()
    });
    let since = s.world.net.now();
    let second = s.second_relay.map(|(host, _)| host);
    for relay in [Some(s.relay), second].into_iter().flatten() {
        s.world.inflict(Fault::KillRelay(relay));
    }
    assert_eq!(s.stun_hosts.len(), 2);
    for server in s.stun_hosts.clone() {
        s.world.inflict(Fault::KillStun(server));
    }
    type_for(&mut s, peer, secs(1_800), secs(1));
    s.begin(peer, Task::Download(MIB));
    assert!(s.finish(secs(30)), "{}", s.story());
    assert_stayed(&mut s, since);
    let slowest = s.reports().iter().map(|r| r.longest_silence).max();
    assert!(slowest.is_some_and(|t| t < ms(100)), "{slowest:?}");
}

/// The longest wait for an answer while somebody types and the direct path dies.
fn wait_while_typing(seed: u64, to_agent: bool, to_client: bool) -> Duration {
    let mut rng = Rng::new(seed, "typing");
    let (mut s, peer) = direct(Setup {
        seed,
        ..Setup::default()
    });
    type_for(&mut s, peer, secs(1), ms(50));
    s.world.run_for(rng.up_to(ms(50)));
    let first = s.reports().len();
    let (client, agent) = (s.client_site, s.agent_site);
    if to_agent {
        cut(&mut s, client, agent);
    }
    if to_client {
        cut(&mut s, agent, client);
    }
    type_for(&mut s, peer, secs(2), ms(50));
    assert!(s.finish(secs(5)), "seed {seed}\n{}", s.story());
    s.assert_fine();
    assert_eq!(s.paths(peer).0, RELAYED, "seed {seed}\n{}", s.story());
    let waits = s.reports();
    let waits = waits[first.saturating_sub(2)..]
        .iter()
        .filter_map(|r| Some(r.done? - r.began));
    waits.max().unwrap_or(Duration::MAX)
}

#[test]
fn whoever_types_waits_a_quarter_second_as_a_rule_and_half_a_second_at_most() {
    for (to_agent, to_client) in [(true, true), (true, false), (false, true)] {
        let mut waits: Vec<Duration> = (1..=50)
            .map(|seed| wait_while_typing(seed, to_agent, to_client))
            .collect();
        waits.sort();
        let [p50, p99] = [50, 99].map(|share| percentile(&waits, share));
        println!(
            "typing, dead to the agent {to_agent}, to the client {to_client}: p50 {p50:?}, p99 {p99:?}"
        );
        assert!(waits[0] > ms(40), "nothing was lost: {waits:?}");
        assert!(p50 <= ms(250) && p99 <= ms(500), "{waits:?}");
    }
}

/// A relayed tunnel is no worse off.
#[test]
fn pauses_of_a_relayed_tunnel_cost_no_more_than_themselves() {
    let (mut s, peer) = crate::relayed(Setup::default());
    for _ in 0..60 {
        type_for(&mut s, peer, ms(800), ms(50));
        let holes = cut_off(&mut s);
        type_for(&mut s, peer, ms(150), ms(50));
        heal(&mut s, holes);
    }
    assert!(s.finish(secs(5)), "{}", s.story());
    s.assert_fine();
    assert_eq!(
        s.paths(peer),
        (Some(PathKind::RelayUdp), Some(PathKind::RelayUdp))
    );
    let slowest = s
        .reports()
        .iter()
        .filter_map(|r| Some(r.done? - r.began))
        .max();
    assert!(slowest.is_some_and(|t| t < ms(600)), "{slowest:?}");
}
