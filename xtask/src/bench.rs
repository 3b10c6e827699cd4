//! `cargo xtask bench`: figures beside ceilings and peers, of release builds.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::{cargo, finish};

/// Peers have a workspace of their own: what they bring is no part of Byway's tree.
const PEERS: &str = "benches/peers/Cargo.toml";

pub(crate) fn run(args: &[String]) -> Result<ExitCode> {
    match args.split_first() {
        Some((peer, rest)) if peer == "iroh" => iroh(rest),
        _ => finish(
            cargo()
                .args(["run", "--release", "-p", "byway-benches"])
                .args(["--bin", "throughput", "--"])
                .args(args),
        ),
    }
}

/// Builds both sides and plays them in the laboratory.
fn iroh(args: &[String]) -> Result<ExitCode> {
    finish(
        cargo()
            .args(["build", "--release", "--manifest-path", PEERS])
            .args(["-p", "iroh-peer", "-p", "iroh-relay", "--bins"])
            .arg("--target-dir")
            .arg(target().join("peers")),
    )?;
    finish(
        cargo()
            .args(["build", "--release", "-p", "byway-relay", "-p", "byway-lab"])
            .args(["-p", "byway-benches", "--bins"]),
    )?;
    // Not by `cargo run`, which would build the laboratory again for itself alone.
    let lab = target().join("release/byway-lab");
    finish(Command::new(lab).arg("iroh").args(args))
}

/// Where cargo builds: the laboratory looks for peers beside Byway's own programs.
fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new("target").to_owned(), PathBuf::from)
}
