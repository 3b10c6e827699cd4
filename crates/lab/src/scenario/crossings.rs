//! Hard NATs crossed by chance, many times: a figure for a person. Single crossings are in the matrix.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use byway_sim::model::Access::{self, CarrierGrade, PortRestricted, Symmetric};

use super::{ACCESS, PROGRAMS};
use crate::figures::Figures;
use crate::harness;
use crate::programs::{self, Agent, Options, Relay};
use crate::world::World;

/// By turns.
const PAIRS: [(Access, Access); 4] = [
    (Symmetric, PortRestricted),
    (PortRestricted, Symmetric),
    (Symmetric, CarrierGrade),
    (CarrierGrade, Symmetric),
];
/// Runs, where nothing else is said.
const RUNS: usize = 50;
/// By then the path is to be direct, counted from the first answer.
const WITHIN: Duration = Duration::from_secs(2);
/// Of so many runs in a hundred.
const SHARE: usize = 98;

/// From the first answer until data went by the direct path.
fn cross(client: Access, agent: Access) -> Result<Duration> {
    let world = World::with_delay(client, agent, ACCESS)?;
    let relay = Relay::start(&world)?;
    let agent = Agent::start(&world, &relay.url, Options::default(), &[])?;
    let options = Options::default();
    let pongs = programs::ping(
        &world,
        &agent.peer(),
        options,
        &["--until-direct", "-c", "20"],
    )?;
    let (first, last) = (pongs.first(), pongs.last());
    let (first, last) = first.zip(last).context("no answer")?;
    ensure!(
        first.kind != "direct",
        "the first answer was direct already"
    );
    ensure!(
        last.kind == "direct",
        "the last answer came by {}",
        last.kind
    );
    let answered = Duration::from_secs_f64(first.at_ms / 1e3);
    Ok(last.path_since.saturating_sub(answered))
}

/// Plays them, and prints how many were direct in time. False if too few were.
pub fn table(runs: Option<usize>) -> bool {
    let runs = runs.unwrap_or(RUNS);
    harness::by_hand(PROGRAMS, || {
        let (took, failures) = harness::quietly_often(runs, |n| {
            let (client, agent) = PAIRS[n % PAIRS.len()];
            cross(client, agent).with_context(|| format!("{client:?} to {agent:?}"))
        });
        failures.iter().for_each(|why| println!("{why}"));
        let took = Figures::of(took);
        let in_time = took.within(WITHIN);
        println!(
            "{in_time} of {runs} direct within {} s; {took}",
            WITHIN.as_secs()
        );
        in_time * 100 >= runs * SHARE
    })
}
