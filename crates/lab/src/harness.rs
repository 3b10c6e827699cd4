//! A small test runner: lines and options like libtest's, so that `cargo test` and `cargo nextest` drive it,
//! and two things libtest lacks: a scenario that cannot run here is *ignored* with the reason and the command
//! that would change that (it never passes without having run), and one that hangs is a failure.

mod needs;
mod options;
mod runner;
mod story;

use anyhow::Result;
pub use needs::Need;
pub use runner::{main, play};
pub(crate) use runner::{patiently_often, quietly, quietly_often};
pub(crate) use story::add_program;
pub use story::say;

use crate::leftovers::{Janitor, sweep};

/// One scenario.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// `group::behaviour_as_a_sentence`.
    pub name: &'static str,
    /// What it cannot do without.
    pub needs: &'static [Need],
    /// Plays it.
    pub run: fn() -> Result<()>,
}

/// Runs something of a person's asking in a laboratory of its own: says what it lacks, and cleans up before and after. False
/// if it could not run, or failed.
pub(crate) fn by_hand(needs: &[Need], play: impl FnOnce() -> bool) -> bool {
    if let Some(why) = needs.iter().find_map(|need| need.lacking()) {
        println!("cannot run here: {why}");
        return false;
    }
    sweep();
    let _janitor = Janitor::start();
    play()
}

impl Scenario {
    /// Why it cannot run here, if so.
    pub fn obstacle(&self) -> Option<String> {
        self.needs.iter().find_map(|need| need.lacking())
    }
}

/// How one went.
#[derive(Debug)]
enum Outcome {
    Passed,
    Failed(String),
    Ignored(String),
}
