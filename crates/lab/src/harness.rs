//! A small test runner: lines and options like libtest's, so that `cargo test` and `cargo nextest` drive it,
//! and one thing libtest lacks: a scenario that cannot run here is *ignored* with the reason and the command
//! that would change that. It never passes without having run.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::Result;

use crate::netns::sweep;
use crate::process::{clear_journal, journal};
use crate::programs;

/// Something without which a scenario cannot run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Network namespaces: root, `ip` and `nft`.
    Namespaces,
    /// A program of a Debian package.
    Tool(&'static str, &'static str),
    /// Release builds of `byway` and `byway-relay`.
    Binaries,
}

impl Need {
    /// What is lacking and what to do about it, or none.
    fn lacking(self) -> Option<String> {
        match self {
            Self::Namespaces => {
                if !is_root() {
                    return Some("needs root for network namespaces: run as root".into());
                }
                [
                    ("ip", "iproute2"),
                    ("nft", "nftables"),
                    ("setpriv", "util-linux"),
                ]
                .into_iter()
                .find_map(|(tool, package)| Self::Tool(tool, package).lacking())
            }
            Self::Tool(tool, package) => programs::find_tool(tool)
                .is_none()
                .then(|| format!("needs {tool}: apt-get install {package}")),
            Self::Binaries => ["byway", "byway-relay"]
                .into_iter()
                .find(|b| !programs::binary(b).is_file())
                .map(|b| {
                    format!(
                        "needs {}: cargo build --release -p byway-cli -p byway-relay",
                        programs::binary(b).display()
                    )
                }),
        }
    }
}

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

impl Scenario {
    /// Why it cannot run here, if so.
    pub fn obstacle(&self) -> Option<String> {
        self.needs.iter().find_map(|need| need.lacking())
    }
}

/// How one went.
enum Outcome {
    Passed,
    Failed(String),
    Ignored(String),
}

#[derive(Debug, Default)]
struct Options {
    filters: Vec<String>,
    skips: Vec<String>,
    exact: bool,
    list: bool,
    ignored_only: bool,
    show: bool,
    threads: usize,
}

thread_local! {
    static STORY: RefCell<Story> = const { RefCell::new(Story { aloud: false, lines: Vec::new() }) };
}

struct Story {
    aloud: bool,
    lines: Vec<String>,
}

/// Tells what the scenario is doing: aloud for a person who watches, else only should it fail.
pub fn say(line: impl Into<String>) {
    let line = line.into();
    STORY.with_borrow_mut(|story| {
        if story.aloud {
            println!("  {line}");
        }
        story.lines.push(line);
    });
}

/// Plays one scenario aloud. False if it failed or could not run.
pub fn play(scenario: &Scenario) -> bool {
    println!("{}", scenario.name);
    sweep();
    let started = Instant::now();
    let outcome = perform(scenario, true);
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
        .copied()
        .collect();
    if options.list {
        list(&chosen, &options);
        return 0;
    }
    run_all(&chosen, scenarios.len() - chosen.len(), &options)
}

impl Options {
    fn parse(args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            threads: 1,
            ..Self::default()
        };
        let mut args = args.peekable();
        while let Some(arg) = args.next() {
            let (flag, mut inline) = match arg.split_once('=') {
                Some((flag, value)) if flag.starts_with("--") => {
                    (flag.to_owned(), Some(value.to_owned()))
                }
                _ => (arg, None),
            };
            let mut value = || {
                inline
                    .take()
                    .or_else(|| args.next())
                    .ok_or(format!("{flag} needs a value"))
            };
            match flag.as_str() {
                "--exact" => options.exact = true,
                "--list" => options.list = true,
                "--ignored" => options.ignored_only = true,
                "--nocapture" | "--no-capture" | "--show-output" => options.show = true,
                "--skip" => options.skips.push(value()?),
                "--test-threads" => {
                    options.threads = value()?
                        .parse()
                        .map_err(|_| "--test-threads needs a number".to_owned())?;
                }
                // Options of libtest that change nothing here.
                "--include-ignored" | "--quiet" | "-q" | "--report-time" => {}
                "--format" | "--color" | "-Z" => drop(value()?),
                other if other.starts_with('-') => return Err(format!("unknown option {other}")),
                filter => options.filters.push(filter.to_owned()),
            }
        }
        options.threads = options.threads.max(1);
        Ok(options)
    }

    fn wants(&self, name: &str) -> bool {
        let matches = |pattern: &String| {
            if self.exact {
                name == pattern
            } else {
                name.contains(pattern.as_str())
            }
        };
        (self.filters.is_empty() || self.filters.iter().any(matches))
            && !self.skips.iter().any(matches)
    }
}

fn list(scenarios: &[Scenario], options: &Options) {
    for scenario in scenarios {
        if !options.ignored_only || scenario.obstacle().is_some() {
            println!("{}: test", scenario.name);
        }
    }
}

fn run_all(scenarios: &[Scenario], filtered_out: usize, options: &Options) -> i32 {
    sweep();
    let started = Instant::now();
    println!("\nrunning {} tests", scenarios.len());
    let next = Mutex::new(scenarios.iter());
    let done = Mutex::new((0, 0, Vec::new()));
    thread::scope(|scope| {
        for _ in 0..options.threads {
            scope.spawn(|| {
                loop {
                    // A lock of its own, so that it is free while the scenario runs.
                    let Some(scenario) = lock(&next).next() else {
                        break;
                    };
                    let began = Instant::now();
                    let outcome = perform(scenario, options.show);
                    let mut done = lock(&done);
                    let took = began.elapsed().as_secs_f64();
                    match outcome {
                        Outcome::Passed => {
                            println!("test {} ... ok ({took:.2} s)", scenario.name);
                            done.0 += 1;
                        }
                        Outcome::Ignored(why) => {
                            println!("test {} ... ignored, {why}", scenario.name);
                            done.1 += 1;
                        }
                        Outcome::Failed(why) => {
                            println!("test {} ... FAILED ({took:.2} s)", scenario.name);
                            done.2.push((scenario.name, why));
                        }
                    }
                }
            });
        }
    });
    let (passed, ignored, failures) = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    if !failures.is_empty() {
        println!("\nfailures:\n");
        for (name, why) in &failures {
            println!("---- {name} ----\n{why}\n");
        }
        println!("failures:");
        for (name, _) in &failures {
            println!("    {name}");
        }
    }
    println!(
        "\ntest result: {}. {passed} passed; {} failed; {ignored} ignored; 0 measured; {filtered_out} filtered out; finished in {:.2}s\n",
        if failures.is_empty() { "ok" } else { "FAILED" },
        failures.len(),
        started.elapsed().as_secs_f64()
    );
    // 101 is what libtest ends with.
    if failures.is_empty() { 0 } else { 101 }
}

fn perform(scenario: &Scenario, aloud: bool) -> Outcome {
    if let Some(why) = scenario.obstacle() {
        return Outcome::Ignored(why);
    }
    clear_journal();
    STORY.with_borrow_mut(|story| {
        *story = Story {
            aloud,
            lines: Vec::new(),
        }
    });
    let why = match catch_unwind(AssertUnwindSafe(scenario.run)) {
        Ok(Ok(())) => return Outcome::Passed,
        Ok(Err(error)) => format!("{error:#}"),
        Err(panic) => format!("panicked: {}", panic_text(panic.as_ref())),
    };
    let story = STORY.with_borrow(|story| story.lines.join("\n  "));
    Outcome::Failed(format!(
        "{why}\n\nwhat had happened:\n  {story}\n\nwhat the programs said:\n{}",
        journal()
    ))
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

/// Whether this process may make namespaces.
fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|s| {
        s.lines()
            .any(|l| l.starts_with("Uid:") && l.split_whitespace().nth(2) == Some("0"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &str) -> Options {
        Options::parse(args.split_whitespace().map(str::to_owned)).unwrap()
    }

    #[test]
    fn options_of_both_test_drivers_are_understood() {
        let nextest = parse("nat::one --exact --nocapture");
        assert!(nextest.wants("nat::one") && !nextest.wants("nat::one_more"));
        let listing = parse("--list --format terse --ignored");
        assert!(listing.list && listing.ignored_only && listing.filters.is_empty());
        let libtest = parse("nat --skip symmetric --test-threads=2");
        assert!(
            libtest.wants("nat::open")
                && !libtest.wants("nat::symmetric")
                && !libtest.wants("ssh::scp")
        );
        assert_eq!(libtest.threads, 2);
        assert!(Options::parse(["--frobnicate".to_owned()].into_iter()).is_err());
    }

    #[test]
    fn what_cannot_run_is_ignored_and_a_panic_is_a_failure() {
        const ABSENT: Scenario = Scenario {
            name: "a",
            needs: &[Need::Tool("no-such-tool-at-all", "nothing")],
            run: || Ok(()),
        };
        assert!(
            matches!(perform(&ABSENT, false), Outcome::Ignored(why) if why.contains("apt-get install nothing"))
        );
        const PANICS: Scenario = Scenario {
            name: "b",
            needs: &[],
            run: || panic!("on purpose"),
        };
        assert!(
            matches!(perform(&PANICS, false), Outcome::Failed(why) if why.contains("on purpose"))
        );
    }
}
