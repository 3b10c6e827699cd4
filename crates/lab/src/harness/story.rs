//! What a scenario did and what its programs wrote, told where it fails.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::process::Output;

/// One scenario's. It outlives a scenario that hangs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Story(Arc<Mutex<Told>>);

#[derive(Debug, Default)]
struct Told {
    aloud: bool,
    lines: Vec<String>,
    programs: Vec<(String, Arc<Output>)>,
}

thread_local! {
    /// That of the scenario which this thread plays.
    static CURRENT: RefCell<Story> = RefCell::default();
}

/// Tells what the scenario is doing: aloud for a person who watches, else only should it fail.
pub fn say(line: impl Into<String>) {
    let line = line.into();
    CURRENT.with_borrow(|story| {
        let mut told = story.lock();
        if told.aloud {
            println!("  {line}");
        }
        told.lines.push(line);
    });
}

/// From now on this program's output is part of the story.
pub(crate) fn add_program(label: &str, output: &Arc<Output>) {
    let program = (label.to_owned(), Arc::clone(output));
    CURRENT.with_borrow(|story| story.lock().programs.push(program));
}

impl Story {
    pub(super) fn new(aloud: bool) -> Self {
        let story = Self::default();
        story.lock().aloud = aloud;
        story
    }

    /// This thread tells it from now on.
    pub(super) fn begin(&self) {
        CURRENT.with_borrow_mut(|current| *current = self.clone());
    }

    /// All of it, after the reason why it ended.
    pub(super) fn of_failure(&self, why: &str) -> String {
        let told = self.lock();
        let programs: String = told
            .programs
            .iter()
            .map(|(label, output)| format!("--- {label}\n{}", output.tail()))
            .collect();
        format!(
            "{why}\n\nwhat had happened:\n  {}\n\nwhat the programs said:\n{programs}",
            told.lines.join("\n  ")
        )
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
