//! Random scenarios: many seeds, each a network, troubles and a workload of its own.
//!
//! `BYWAY_SIM_SEEDS=5000 cargo test -p byway-sim --test random` plays more of them;
//! `BYWAY_SIM_FIRST=1000` begins elsewhere; `BYWAY_SIM_SEED=1234` plays one and shows its trace. A seed that fails is made
//! as small as it gets and said in a line that `BYWAY_SIM_SCENARIO='...'` plays.

mod common;

use std::time::Duration;

use byway_sim::scenario::{Outcome, Scenario, shrink};
use common::{base, env, percentile};

/// How many seeds are played where nothing else is said.
const SEEDS: u64 = 150;
/// Runs that one failing seed may take to be made smaller.
const SHRINKING: usize = 300;
/// Seeds of one run that are made smaller: after a few more, there is enough to do.
const SHRUNK: usize = 5;
/// Lines of trace shown of a scenario that failed.
const LINES: usize = 40;

/// Fewer measurements than this are told and not judged.
const ENOUGH: usize = 100;
/// The project's aim for new tunnels: two round trips of the path (a second stands for one), and three. The fifth of a round
/// trip more is the relay's, through which candidates go: 20 ms beside paths as short as 4.
const OPENED: (Duration, Duration) = (Duration::from_millis(2200), Duration::from_secs(3));
/// After the last trouble. What lost a failover is out of use for a while, doubling; what lost packets, until enough of them
/// arrive.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Half and nineteen in twenty of many measurements in order, if they are enough to be judged.
fn tell(what: &str, sorted: &[Duration]) -> Option<[Duration; 2]> {
    if sorted.is_empty() {
        return None;
    }
    let [p50, p95, p99, worst] = [50, 95, 99, 100].map(|share| percentile(sorted, share));
    let runs = sorted.len();
    println!("{what}: p50 {p50:?}, p95 {p95:?}, p99 {p99:?}, worst {worst:?} ({runs})");
    (runs >= ENOUGH).then_some([p50, p95])
}

fn command(variable: &str, value: &str) -> String {
    format!("{variable}='{value}' cargo test -p byway-sim --test random -- --nocapture one_")
}

fn describe(outcome: &Outcome) -> String {
    let lines: Vec<String> = outcome
        .failures
        .iter()
        .map(|f| format!("  {f}\n"))
        .collect();
    lines.concat()
}

/// Tells everything about one scenario, and fails if it does.
fn show(mut scenario: Scenario) {
    scenario.setup.trace = usize::MAX;
    let outcome = scenario.run(base());
    println!("{}\n{scenario}", outcome.story);
    assert!(outcome.failures.is_empty(), "\n{}", describe(&outcome));
}

/// The least of it that fails in the same way, with its story.
fn report(scenario: Scenario, outcome: &Outcome) -> String {
    let Some(first) = outcome.failures.first() else {
        return String::new();
    };
    let rule = first.rule;
    let mut least = shrink(scenario, SHRINKING, |s| s.run(base()).broke(rule));
    least.setup.trace = LINES;
    let outcome = least.run(base());
    format!(
        "{}{}\n{}",
        outcome.story,
        describe(&outcome),
        command("BYWAY_SIM_SCENARIO", &least.to_string())
    )
}

/// Plays every other seed, so that two processors have something to do.
fn play_every_other(offset: u64) {
    if env("BYWAY_SIM_SEED").is_some() || std::env::var_os("BYWAY_SIM_SCENARIO").is_some() {
        return;
    }
    let first = env("BYWAY_SIM_FIRST").unwrap_or(0);
    let seeds = env("BYWAY_SIM_SEEDS").unwrap_or(SEEDS);
    assert!(seeds > 0, "BYWAY_SIM_SEEDS=0 plays nothing");
    let mut failed = Vec::new();
    let (mut met, mut troubles) = (0, 0);
    let (mut direct, mut opened) = (Vec::new(), Vec::new());
    for seed in (first..first + seeds).filter(|seed| seed % 2 == offset) {
        let scenario = Scenario::generate(seed);
        let outcome = scenario.run(base());
        met += outcome.met.0;
        troubles += outcome.met.1;
        direct.extend(outcome.direct_after);
        opened.extend(&outcome.opened);
        if !outcome.failures.is_empty() {
            let replay = command("BYWAY_SIM_SEED", &seed.to_string());
            eprintln!("seed {seed}:\n{}{replay}", describe(&outcome));
            if failed.len() < SHRUNK {
                eprintln!("the least of it:\n{}\n", report(scenario, &outcome));
            }
            failed.push(seed);
        }
    }
    println!("{met} of {troubles} troubles met a transfer");
    opened.sort();
    direct.sort();
    let opened = tell("direct after the tunnel was up, in round trips", &opened);
    let direct = tell("direct again after the last trouble", &direct);
    assert!(failed.is_empty(), "of {seeds} failed: {failed:?}");
    // Each run has a bound of its own; these are of all together.
    if let Some([p50, p95]) = opened {
        assert!(p50 <= OPENED.0 && p95 <= OPENED.1, "{p50:?}, {p95:?}");
    }
    if let Some([p50, p95]) = direct {
        assert!(p50 <= AGAIN.0 && p95 <= AGAIN.1, "{p50:?}, {p95:?}");
    }
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

/// Does nothing where none is asked for.
#[test]
fn one_scenario_that_is_asked_for_is_told_from_beginning_to_end() {
    if let Some(seed) = env("BYWAY_SIM_SEED") {
        show(Scenario::generate(seed));
    }
    if let Some(text) = std::env::var_os("BYWAY_SIM_SCENARIO") {
        let text = text.to_string_lossy();
        show(text.parse().unwrap_or_else(|error| panic!("{error}")));
    }
}

#[test]
fn a_seed_replays_to_the_last_bit() {
    for seed in 0..5 {
        let play = || Scenario::generate(seed).run(base());
        let (one, two) = (play(), play());
        assert_eq!(
            (one.hash, one.events),
            (two.hash, two.events),
            "seed {seed}"
        );
        assert!(one.events > 100);
    }
}

/// A transfer that the link is far too slow for stands for a defect: everything around it goes.
#[test]
fn a_failing_scenario_is_made_smaller_and_fails_in_the_same_way_when_it_is_read_again() {
    let text = "seed=3 client=Symmetric agent=PortRestricted client-link=loss:0.01,jitter:0.003,rate:20000 \
                agent-link=mtu:1280 stun=Honest,Dead DirectDead@0.5+1 AgentRebinds@4.2+0 Touch@0.3 Upload:9000@0.4 \
                Download:4000000@1";
    let scenario: Scenario = text.parse().unwrap_or_else(|error| panic!("{error}"));
    let outcome = scenario.run(base());
    let rule = outcome.failures[0].rule;
    let least = shrink(scenario, SHRINKING, |s| s.run(base()).broke(rule));
    assert_eq!(
        least.to_string(),
        "seed=3 client=Open agent=Open client-link=rate:20000 Download:4000000@1"
    );
    let again: Scenario = least
        .to_string()
        .parse()
        .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(again.run(base()).hash, least.run(base()).hash);
    assert!(again.run(base()).broke(rule));
}
