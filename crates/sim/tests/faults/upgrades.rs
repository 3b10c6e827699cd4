//! Relays that are upgraded one after the other: each says that it will stop, and is replaced once nobody is there any more.

use std::time::Duration;

use byway_sim::net::HostId;
use byway_sim::scene::Scene;
use byway_sim::shell::app::Task;
use byway_sim::world::{Fault, World};

use super::second::{longest_silence, silence, two_relays};
use crate::MIB;
use crate::common::{ms, percentile, secs};

/// What `byway-relay` gives its nodes by default.
const DEADLINE: Duration = Duration::from_secs(30);

fn is_empty(w: &World, relay: HostId) -> bool {
    w.relay(relay).links() == 0
}

/// A relay stops as it should, and its successor starts.
fn upgrade(s: &mut Scene, relay: HostId) {
    s.world.inflict(Fault::DrainRelay(relay, DEADLINE));
    let empty = s.world.run_within(DEADLINE, |w| is_empty(w, relay));
    assert!(empty, "somebody stayed\n{}", s.story());
    s.world.inflict(Fault::KillRelay(relay));
    s.world.inflict(Fault::StartRelay(relay));
}

#[test]
fn the_upgrade_of_the_relay_in_use_does_not_hold_up_a_transfer() {
    for upload in [false, true] {
        let mut silences: Vec<Duration> = (1..=50)
            .map(|seed| silence(seed, upload, upgrade))
            .collect();
        silences.sort();
        let [p50, p99] = [50, 99].map(|share| percentile(&silences, share));
        println!("relay upgraded, upload {upload}: p50 {p50:?}, p99 {p99:?}");
        // Congestion control begins anew on another path, which costs a round trip of up to 80 ms here.
        assert!(p99 <= ms(200), "{silences:?}");
    }
}

/// Ten upgrades of two relays in turn, as fast as nodes leave and come back.
#[test]
fn relays_that_are_upgraded_in_turn_end_nothing_and_hold_up_nothing() {
    for seed in 1..=4 {
        let (mut s, peer, _) = two_relays(seed);
        let second = s.second_relay.map_or(s.relay, |(host, _)| host);
        for turn in 0..10 {
            let stops = if turn % 2 == 0 { s.relay } else { second };
            s.begin(peer, Task::Download(4 * MIB));
            s.world.run_for(ms(100));
            upgrade(&mut s, stops);
            assert!(s.finish(secs(30)), "{}", s.story());
            let silence = longest_silence(&mut s, false);
            assert!(
                silence <= ms(200),
                "turn {turn}: {silence:?}\n{}",
                s.story()
            );
            // The tunnel is warm at the successor before its neighbour goes.
            let channels = |w: &World, relay: HostId| w.relay(relay).channels();
            let warm = s.world.run_within(secs(20), |w| channels(w, stops) == 1);
            assert!(warm, "turn {turn}: it does not return\n{}", s.story());
        }
        s.assert_fine();
    }
}
