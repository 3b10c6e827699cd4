//! Random scenarios: many seeds, each a network, troubles and a workload of its own.
//!
//! `BYWAY_SIM_SEEDS=5000 cargo test -p byway-sim --test random` plays more of them;
//! `BYWAY_SIM_FIRST=1000` begins elsewhere; `BYWAY_SIM_SEED=1234` plays one and shows its trace.

mod common;

use byway_sim::scenario::{Outcome, Scenario};
use common::{base, env};

fn play(seed: u64) -> Outcome {
    /// Names the seed if the run panics.
    struct Naming(u64);
    impl Drop for Naming {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("{}", replay(self.0));
            }
        }
    }
    let naming = Naming(seed);
    let mut scenario = Scenario::generate(seed);
    if env("BYWAY_SIM_SEED").is_some() {
        scenario.setup.trace = usize::MAX;
    }
    let outcome = scenario.run(base());
    std::mem::forget(naming);
    outcome
}

fn replay(seed: u64) -> String {
    format!("replay: BYWAY_SIM_SEED={seed} cargo test -p byway-sim --test random -- --nocapture")
}

/// How many seeds are played where nothing else is said.
const SEEDS: u64 = 150;

/// Plays every other seed, so that two processors have something to do.
fn play_every_other(offset: u64) {
    if let Some(seed) = env("BYWAY_SIM_SEED") {
        if seed % 2 == offset {
            let outcome = play(seed);
            println!("{}\n{:#?}", outcome.story, Scenario::generate(seed));
            assert!(outcome.failures.is_empty(), "{:#?}", outcome.failures);
        }
        return;
    }
    let first = env("BYWAY_SIM_FIRST").unwrap_or(0);
    let seeds = env("BYWAY_SIM_SEEDS").unwrap_or(SEEDS);
    assert!(seeds > 0, "BYWAY_SIM_SEEDS=0 plays nothing");
    let mut failed = Vec::new();
    let (mut met, mut troubles) = (0, 0);
    for seed in (first..first + seeds).filter(|seed| seed % 2 == offset) {
        let outcome = play(seed);
        met += outcome.met.0;
        troubles += outcome.met.1;
        if !outcome.failures.is_empty() {
            eprintln!("seed {seed}: {:#?}\n{}", outcome.failures, replay(seed));
            failed.push(seed);
        }
    }
    println!("{met} of {troubles} troubles met a transfer");
    assert!(failed.is_empty(), "of {seeds} failed: {failed:?}");
    // A trouble that nothing is under way to meet shows nothing.
    let enough = troubles < 20 || met * 10 >= troubles * 9;
    assert!(enough, "{met} of {troubles} troubles met a transfer");
}

#[test]
fn whatever_the_network_every_byte_arrives_and_the_best_path_is_found_with_even_seeds() {
    play_every_other(0);
}

#[test]
fn whatever_the_network_every_byte_arrives_and_the_best_path_is_found_with_odd_seeds() {
    play_every_other(1);
}

#[test]
fn a_seed_replays_to_the_last_bit() {
    for seed in 0..5 {
        let (one, two) = (play(seed), play(seed));
        assert_eq!(
            (one.hash, one.events),
            (two.hash, two.events),
            "seed {seed}"
        );
        assert!(one.events > 100);
    }
}
