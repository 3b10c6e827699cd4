//! Plays scenarios one after the other and tells how they went, in libtest's lines.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::options::Options;
use super::story::Story;
use super::{Outcome, Scenario};
use crate::leftovers::{Janitor, sweep};
use crate::programs;

/// Every wait in a scenario has a deadline of its own, and together they take minutes. This is for a wait that was
/// forgotten; long transfers have a MiB a second besides.
fn patience() -> Duration {
    let bulk = programs::bulk_size().unwrap_or(0) >> 20;
    Duration::from_secs(600 + bulk)
}

/// Plays one scenario aloud. False if it failed or could not run.
pub fn play(scenario: &Scenario) -> bool {
    println!("{}", scenario.name);
    sweep();
    let _janitor = Janitor::start();
    let started = Instant::now();
    let outcome = perform(scenario, true, patience());
    let took = started.elapsed().as_secs_f64();
    match outcome {
        Outcome::Passed => {
            println!("  it held ({took:.1} s)");
            true
        }
        Outcome::Failed(why) => {
            println!("{why}\n  it failed ({took:.1} s)");
            false
        }
        Outcome::Ignored(why) => {
            println!("  cannot run here: {why}");
            false
        }
    }
}

/// Runs scenarios as a test program does. Returns the exit code.
pub fn main(scenarios: &[Scenario]) -> i32 {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("{problem}");
            return 2;
        }
    };
    let chosen: Vec<Scenario> = scenarios
        .iter()
        .filter(|s| options.wants(s.name))
        // Asking whether it could run takes a namespace: only where the answer matters.
        .filter(|s| !options.ignored_only || s.obstacle().is_some())
        .copied()
        .collect();
    if options.list {
        chosen.iter().for_each(|s| println!("{}: test", s.name));
        return 0;
    }
    run_all(&chosen, scenarios.len() - chosen.len(), &options)
}

#[derive(Default)]
struct Done {
    passed: usize,
    ignored: usize,
    failures: Vec<(&'static str, String)>,
}

fn run_all(scenarios: &[Scenario], filtered_out: usize, options: &Options) -> i32 {
    sweep();
    let _janitor = Janitor::start();
    let started = Instant::now();
    println!("\nrunning {} tests", scenarios.len());
    let done = Mutex::new(Done::default());
    each(options.threads, scenarios.iter(), |scenario| {
        let began = Instant::now();
        let outcome = match perform(scenario, options.show, patience()) {
            Outcome::Ignored(why) if options.must_run() => {
                Outcome::Failed(format!("cannot run here: {why}"))
            }
            outcome => outcome,
        };
        lock(&done).add(scenario.name, outcome, began.elapsed());
    });
    let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.close(filtered_out, started.elapsed())
}

/// Does it for each item, so many at a time.
fn each<T>(threads: usize, items: impl Iterator<Item = T> + Send, work: impl Fn(T) + Sync) {
    let items = Mutex::new(items);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    // A lock of its own, so that it is free while the work is done.
                    let Some(item) = lock(&items).next() else {
                        break;
                    };
                    work(item);
                }
            });
        }
    });
}

impl Done {
    fn add(&mut self, name: &'static str, outcome: Outcome, took: Duration) {
        let took = took.as_secs_f64();
        match outcome {
            Outcome::Passed => {
                println!("test {name} ... ok ({took:.2} s)");
                self.passed += 1;
            }
            Outcome::Ignored(why) => {
                println!("test {name} ... ignored, {why}");
                self.ignored += 1;
            }
            Outcome::Failed(why) => {
                println!("test {name} ... FAILED ({took:.2} s)");
                self.failures.push((name, why));
            }
        }
    }

    /// Prints failures and counts, and gives the exit code.
    fn close(self, filtered_out: usize, took: Duration) -> i32 {
        if !self.failures.is_empty() {
            println!("\nfailures:\n");
            for (name, why) in &self.failures {
                println!("---- {name} ----\n{why}\n");
            }
            println!("failures:");
            for (name, _) in &self.failures {
                println!("    {name}");
            }
        }
        println!(
            "\ntest result: {}. {} passed; {} failed; {} ignored; 0 measured; {filtered_out} filtered out; finished in {:.2}s\n",
            if self.failures.is_empty() {
                "ok"
            } else {
                "FAILED"
            },
            self.passed,
            self.failures.len(),
            self.ignored,
            took.as_secs_f64()
        );
        // 101 is what libtest ends with.
        if self.failures.is_empty() { 0 } else { 101 }
    }
}

fn perform(scenario: &Scenario, aloud: bool, patience: Duration) -> Outcome {
    match scenario.obstacle() {
        Some(why) => Outcome::Ignored(why),
        None => match watched(scenario.run, aloud, patience) {
            Ok(()) => Outcome::Passed,
            Err(why) => Outcome::Failed(why),
        },
    }
}

/// Runs something of a scenario's kind without a word, and tells its whole story should it fail.
pub(crate) fn quietly<T: Send + 'static>(
    run: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> Result<T, String> {
    patiently(patience(), run)
}

/// The same where it may take so long.
fn patiently<T: Send + 'static>(
    patience: Duration,
    run: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> Result<T, String> {
    let (sender, receiver) = mpsc::channel();
    let run = move || {
        let _ = sender.send(run()?);
        Ok(())
    };
    watched(run, false, patience)?;
    receiver.try_recv().map_err(|error| error.to_string())
}

/// Something of a scenario's kind many times, two at once as in the tests: what they wait for is mostly time. What came of
/// those that held, and why the others did not.
pub(crate) fn quietly_often<T: Send + 'static>(
    runs: usize,
    run: impl Fn(usize) -> anyhow::Result<T> + Copy + Send + Sync + 'static,
) -> (Vec<T>, Vec<String>) {
    patiently_often(patience(), runs, run)
}

/// The same where one run may take so long.
pub(crate) fn patiently_often<T: Send + 'static>(
    patience: Duration,
    runs: usize,
    run: impl Fn(usize) -> anyhow::Result<T> + Copy + Send + Sync + 'static,
) -> (Vec<T>, Vec<String>) {
    let done = Mutex::new((Vec::new(), Vec::new()));
    each(2, 0..runs, |n| {
        let outcome = patiently(patience, move || run(n));
        let (held, failed) = &mut *lock(&done);
        match outcome {
            Ok(result) => held.push(result),
            Err(why) => failed.push(why),
        }
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Runs it on a thread of its own, so that what hangs can be left behind with what it had told.
fn watched(
    run: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
    aloud: bool,
    patience: Duration,
) -> Result<(), String> {
    let story = Story::new(aloud);
    let told = story.clone();
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || {
        told.begin();
        let result = match catch_unwind(AssertUnwindSafe(run)) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(format!("{error:#}")),
            Err(panic) => Err(format!("panicked: {}", panic_text(panic.as_ref()))),
        };
        // Nobody listens any more if it took too long.
        let _ = sender.send(result);
    });
    let result = ended.recv_timeout(patience).unwrap_or_else(|end| {
        Err(match end {
            RecvTimeoutError::Timeout => format!("hangs: still at it after {patience:?}"),
            RecvTimeoutError::Disconnected => "its thread ended without a word".to_owned(),
        })
    });
    result.map_err(|why| story.of_failure(&why))
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::super::{Need, say};
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn scenario(needs: &'static [Need], run: fn() -> anyhow::Result<()>) -> Scenario {
        Scenario {
            name: "a",
            needs,
            run,
        }
    }

    #[test]
    fn what_cannot_run_is_ignored_and_a_panic_is_a_failure() {
        let absent = scenario(&[Need::Tool("no-such-tool-at-all")], || Ok(()));
        let outcome = perform(&absent, false, LONG);
        assert!(
            matches!(&outcome, Outcome::Ignored(why) if why.contains("no-such-tool-at-all")),
            "{outcome:?}"
        );
        let panics = scenario(&[], || panic!("on purpose"));
        let outcome = perform(&panics, false, LONG);
        assert!(
            matches!(&outcome, Outcome::Failed(why) if why.contains("on purpose")),
            "{outcome:?}"
        );
        assert!(matches!(
            perform(&scenario(&[], || Ok(())), false, LONG),
            Outcome::Passed
        ));
    }

    #[test]
    fn one_that_hangs_is_left_behind_with_what_it_had_told() {
        let hangs = scenario(&[], || {
            say("one foot before the other");
            loop {
                thread::park();
            }
        });
        let outcome = perform(&hangs, false, Duration::from_millis(200));
        assert!(
            matches!(&outcome, Outcome::Failed(why) if why.contains("hangs") && why.contains("one foot")),
            "{outcome:?}"
        );
    }
}
