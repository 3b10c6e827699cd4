//! What happened in a run: steps with their durations, and the counts.

use std::time::{Duration, Instant};

use crate::count::Count;

/// How a step ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    Passed,
    Failed(String),
    Skipped(String),
}

/// A run so far.
#[derive(Debug)]
pub(crate) struct Report {
    started: Instant,
    steps: Vec<(&'static str, Outcome, Duration)>,
    /// Tests over all steps.
    pub(crate) tests: Count,
}

impl Report {
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            steps: Vec::new(),
            tests: Count::default(),
        }
    }

    /// Runs a step under its heading.
    pub(crate) fn step(
        &mut self,
        name: &'static str,
        what: &str,
        run: impl FnOnce(&mut Count) -> Outcome,
    ) {
        println!("\n==> {name}: {what}");
        let began = Instant::now();
        let mut tests = Count::default();
        let mut outcome = run(&mut tests);
        // A failed test fails its step, whatever the runner's exit code was.
        if tests.failed > 0 && !matches!(outcome, Outcome::Failed(_)) {
            outcome = Outcome::Failed(format!("{} tests failed", tests.failed));
        }
        // A step that failed without a failed test (a lint, a build) still has to show in the closing count.
        if matches!(outcome, Outcome::Failed(_)) && tests.failed == 0 {
            tests.failed = 1;
            tests.failures.push(format!("step {name}"));
        }
        if let Outcome::Skipped(why) = &outcome {
            tests.skipped += 1;
            tests.skips.push(format!("step {name}: {why}"));
        }
        self.tests.add(tests);
        let took = began.elapsed();
        println!("<== {name}: {} in {}", outcome.word(), seconds(took));
        self.steps.push((name, outcome, took));
    }

    /// Prints all of it; the last line is the count alone. True if nothing failed and something ran.
    pub(crate) fn close(self) -> bool {
        println!("\n==> summary");
        for (name, outcome, took) in &self.steps {
            let detail = match outcome {
                Outcome::Passed => String::new(),
                Outcome::Failed(why) | Outcome::Skipped(why) => format!("  ({why})"),
            };
            println!(
                "  {:<8} {:<8} {:>8}{detail}",
                name,
                outcome.word(),
                seconds(*took)
            );
        }
        println!(
            "  {:<8} {:<8} {:>8}",
            "total",
            "",
            seconds(self.started.elapsed())
        );
        for (title, names) in [
            ("not run", &self.tests.skips),
            ("failed", &self.tests.failures),
        ] {
            if !names.is_empty() {
                println!("\n{title}:");
                names.iter().for_each(|name| println!("  {name}"));
            }
        }
        if self.tests.total() == 0 {
            println!("\nno test ran");
        }
        println!();
        println!(
            "{} passed, {} failed, {} skipped",
            self.tests.passed, self.tests.failed, self.tests.skipped
        );
        self.tests.failed == 0 && self.tests.total() > 0
    }
}

impl Outcome {
    fn word(&self) -> &'static str {
        match self {
            Self::Passed => "ok",
            Self::Failed(_) => "FAILED",
            Self::Skipped(_) => "skipped",
        }
    }
}

fn seconds(d: Duration) -> String {
    format!("{:.1} s", d.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_without_tests_counts_as_one_failure() {
        let mut report = Report::new();
        report.step("fmt", "", |_| Outcome::Failed("exit 1".into()));
        report.step("unit", "", |tests| {
            tests.passed = 3;
            Outcome::Passed
        });
        assert_eq!((report.tests.passed, report.tests.failed), (3, 1));
        assert!(!report.close());
    }

    #[test]
    fn a_failed_test_fails_its_step_even_if_the_runner_ended_0() {
        let mut report = Report::new();
        report.step("unit", "", |tests| {
            tests.failed = 2;
            Outcome::Passed
        });
        assert_eq!(report.tests.failed, 2);
        assert!(!report.close());
    }

    #[test]
    fn a_run_without_a_test_is_no_success() {
        assert!(!Report::new().close());
    }
}
