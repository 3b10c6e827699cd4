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
/// From so many seeds played together (half of `BYWAY_SIM_SEEDS`) on, what is measured or looked for in a part of them only must have been in a share of them, per hundred:
/// half of what there is. Fewer seeds may hold less by chance.
const MANY: usize = 1_000;
const SHARE_OPENED: usize = 1;
const SHARE_AGAIN: usize = 15;
const SHARE_BARRED: usize = 30;
/// From so many played together on there are [`ENOUGH`] of each measurement.
const ALL_JUDGED: usize = 10_000;
/// The project's aim for new tunnels: two round trips of the path (a second stands for one), and three. The fifth of a round
/// trip more is the relay's, through which candidates go: 20 ms beside paths as short as 4.
const OPENED: (Duration, Duration) = (Duration::from_millis(2200), Duration::from_secs(3));
/// Where full-size datagrams do not pass, what does is found out in two round trips more, and half of one for what of the
/// 50 ms and the relay's 20 ms shows on short paths; six are wanted.
const OPENED_NARROW: (Duration, Duration) = (Duration::from_millis(4500), Duration::from_secs(6));
/// After the last trouble. What lost a failover is out of use for a while, doubling; what lost packets, until enough of them
/// arrive.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Half and nineteen in twenty of many measurements, if they are enough to be judged.
fn tell(what: &str, measured: &mut [Duration]) -> Option<[Duration; 2]> {
    if measured.is_empty() {
        return None;
    }
    measured.sort();
    let [p50, p95, p99, worst] = [50, 95, 99, 100].map(|share| percentile(measured, share));
    let runs = measured.len();
    println!("{what}: p50 {p50:?}, p95 {p95:?}, p99 {p99:?}, worst {worst:?} ({runs})");
    if runs < ENOUGH {
        println!("  too few to be judged");
        return None;
    }
    Some([p50, p95])
}

/// Panics if a rule was put to the test in too small a share of many seeds: then it shows nothing.
fn require_share(what: &str, judged: usize, seeds: usize, share: usize) {
    println!("{what}: in {judged} of {seeds} seeds");
    let enough = seeds < MANY || judged * 100 >= seeds * share;
    assert!(enough, "{what}: only in {judged} of {seeds} seeds");
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
    let (mut direct, mut opened, mut narrow) = (Vec::new(), Vec::new(), Vec::new());
    let (mut played, mut opened_in, mut again_in, mut barred) = (0, 0, 0, 0);
    for seed in (first..first + seeds).filter(|seed| seed % 2 == offset) {
        let scenario = Scenario::generate(seed);
        let outcome = scenario.run(base());
        met += outcome.met.0;
        troubles += outcome.met.1;
        direct.extend(outcome.direct_after);
        opened.extend(&outcome.opened);
        narrow.extend(&outcome.opened_narrow);
        played += 1;
        let measured = outcome.opened.len() + outcome.opened_narrow.len();
        opened_in += usize::from(measured > 0);
        again_in += usize::from(outcome.direct_after.is_some());
        barred += usize::from(outcome.barred);
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
    let judged = [
        (
            "direct after the tunnel was up, in round trips",
            opened,
            OPENED,
        ),
        ("the same on narrow networks", narrow, OPENED_NARROW),
        ("direct again after the last trouble", direct, AGAIN),
    ];
    let judged = judged.map(|(what, mut all, bound)| (what, tell(what, &mut all), bound));
    assert!(failed.is_empty(), "of {seeds} failed: {failed:?}");
    let (opening, again) = ("a new tunnel direct in time", "direct again");
    require_share(opening, opened_in, played, SHARE_OPENED);
    require_share(again, again_in, played, SHARE_AGAIN);
    require_share("no direct path at all", barred, played, SHARE_BARRED);
    // Each run has a bound of its own; these are of all together.
    for (what, measured, bound) in judged {
        let judged = measured.is_some() || played < ALL_JUDGED;
        assert!(judged, "{what}: not judged in {played} seeds");
        if let Some([p50, p95]) = measured {
            assert!(p50 <= bound.0 && p95 <= bound.1, "{what}: {p50:?}, {p95:?}");
        }
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
#[should_panic(expected = "direct again: only in 149 of 1000 seeds")]
fn a_rule_that_hardly_any_of_many_seeds_puts_to_the_test_shows_nothing() {
    require_share("direct again", 149, MANY - 1, SHARE_AGAIN);
    require_share("direct again", 150, MANY, SHARE_AGAIN);
    require_share("direct again", 149, MANY, SHARE_AGAIN);
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
