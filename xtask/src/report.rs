//! What happened in a run: steps with their durations, and the counts.

use std::time::{Duration, Instant};

use crate::count::Count;

/// Steps that are nothing if they run no test.
const TEST_STEPS: &[&str] = &["unit", "lab"];

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
    /// What could not run is a failure: on the machine that decides, everything must.
    require_all: bool,
    /// A step that runs tests was among them.
    tests_wanted: bool,
    steps: Vec<(&'static str, Outcome, Duration)>,
    /// Tests over all steps.
    pub(crate) tests: Count,
}

impl Report {
    pub(crate) fn new(require_all: bool) -> Self {
        Self {
            started: Instant::now(),
            require_all,
            tests_wanted: false,
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
        self.tests_wanted |= TEST_STEPS.contains(&name);
        // What it needs is on no registry; the step says so by name.
        if self.require_all && name != "advisories" {
            if let Outcome::Skipped(why) = &outcome {
                outcome = Outcome::Failed(format!("not run: {why}"));
            } else if tests.skipped > 0 {
                outcome = Outcome::Failed(format!("{} tests did not run", tests.skipped));
            }
        }
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
            tests.skips.push(format!("step {name}: {why}"));
        }
        self.tests.add(tests);
        let took = began.elapsed();
        println!("<== {name}: {} in {}", outcome.word(), seconds(took));
        self.steps.push((name, outcome, took));
    }

    /// True if that step was run and failed.
    pub(crate) fn has_failed(&self, step: &str) -> bool {
        let failed = |(name, outcome, _): &(&str, Outcome, Duration)| {
            *name == step && matches!(outcome, Outcome::Failed(_))
        };
        self.steps.iter().any(failed)
    }

    /// Prints all of it; the last line is the count of tests alone. True if nothing failed, and tests passed where there
    /// were to be any.
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
        let vacuous = self.tests_wanted && self.tests.passed == 0;
        if vacuous {
            println!("\nno test ran");
        }
        println!();
        println!(
            "{} passed, {} failed, {} skipped",
            self.tests.passed, self.tests.failed, self.tests.skipped
        );
        self.tests.failed == 0 && !vacuous
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
        let mut report = Report::new(false);
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
        let mut report = Report::new(false);
        report.step("unit", "", |tests| {
            tests.failed = 2;
            Outcome::Passed
        });
        assert_eq!(report.tests.failed, 2);
        assert!(!report.close());
    }

    #[test]
    fn a_run_that_was_to_test_and_did_not_is_no_success() {
        let mut report = Report::new(false);
        report.step("unit", "", |_| Outcome::Passed);
        assert!(!report.close());
        let mut report = Report::new(false);
        report.step("fmt", "", |_| Outcome::Passed);
        assert!(report.close());
    }

    #[test]
    fn where_all_is_required_what_did_not_run_has_failed() {
        let skipping = |require_all, step: &'static str| {
            let mut report = Report::new(require_all);
            report.step("unit", "", |tests| {
                tests.passed = 1;
                Outcome::Passed
            });
            report.step(step, "", |_| Outcome::Skipped("no apt".into()));
            report.close()
        };
        assert!(skipping(false, "tools"));
        assert!(!skipping(true, "tools"));
        assert!(skipping(true, "advisories"));
        let mut report = Report::new(true);
        report.step("lab", "", |tests| {
            tests.passed = 5;
            tests.skipped = 1;
            Outcome::Passed
        });
        assert!(report.has_failed("lab"));
        assert!(!report.close());
    }
}
