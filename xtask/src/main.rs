//! The repository's own tasks: `cargo xtask test`, `cargo xtask lab`, `cargo xtask bench`.
//!
//! `test` is what CI runs and what a change must pass: it installs what the tests need, then runs every
//! check in order of cost. A step that fails does not keep later ones from running, and what cannot run
//! here is told by name; nothing passes by not having run.

mod bench;
mod count;
mod packages;
mod report;
mod test;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

const HELP: &str = "\
Tasks of this repository.

    cargo xtask test [--only STEP,...] [--skip STEP,...] [--require-all]
        Everything a change must pass. Steps, in order: tools, fmt, clippy, doc, deny, unit, doctest, release, lab.
        Installs missing tools with apt-get when root; otherwise names them.
        --require-all: what cannot run here fails, as it does where a change is decided.
    cargo xtask lab [NAME...]
        Builds the programs and plays scenarios of the laboratory for a person to watch (root). No name: lists them.
    cargo xtask bench [ARGS...]
        Throughput beside raw quinn, release build.
    cargo xtask bench iroh [ROUNDS] [json]
        Transfers through a relay beside iroh's through its own, in the laboratory (root). Builds iroh and its relay first.
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &[String]) -> Result<ExitCode> {
    // Every path and every cargo call below is relative to the repository.
    std::env::set_current_dir(root()).context("entering the repository")?;
    let (task, rest) = args
        .split_first()
        .map_or(("help", &[][..]), |(t, r)| (t.as_str(), r));
    match task {
        "help" | "-h" | "--help" => {
            print!("{HELP}");
            Ok(ExitCode::SUCCESS)
        }
        _ if rest.iter().any(|a| a == "-h" || a == "--help") => {
            print!("{HELP}");
            Ok(ExitCode::SUCCESS)
        }
        "test" => test::run(rest),
        "lab" => {
            let (missing, install) = packages::missing();
            if !missing.is_empty() {
                eprintln!("some scenarios need {}: {install}", missing.join(", "));
            }
            finish(&mut test::build_programs())?;
            let names = if rest.is_empty() {
                vec!["list".to_owned()]
            } else {
                rest.to_vec()
            };
            finish(
                cargo()
                    .args(["run", "--quiet", "-p", "byway-lab", "--"])
                    .args(names),
            )
        }
        "bench" => bench::run(rest),
        other => bail!("no task {other}\n\n{HELP}"),
    }
}

/// Cargo, the same that runs this.
fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Runs a command to its end; its failure is ours.
fn finish(command: &mut Command) -> Result<ExitCode> {
    let status = command
        .status()
        .with_context(|| format!("running {command:?}"))?;
    if !status.success() {
        bail!("{command:?} failed: {status}");
    }
    Ok(ExitCode::SUCCESS)
}

/// The repository's root: the parent of this crate.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}
