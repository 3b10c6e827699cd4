//! The laboratory: real kernels, real NATs, real programs.
//!
//! A [`World`] is a small internet in Linux network namespaces: one public segment with a relay's host and
//! two STUN servers' hosts on it, and two *sites*, the client's and the agent's, each either directly on the
//! public segment or behind a router of its own whose nftables rules make one of the [`Kind`]s of network.
//!
//! ```text
//!   client ── router A ──┐                     ┌── router B ── agent
//!                        ├──  public segment ──┤
//!       relay ───────────┘   203.0.113.0/24    └── coturn 1, coturn 2
//! ```
//!
//! Other internets, of several regions, relays and sites, are declared by a [`Plan`](world::Plan), as this one is.
//!
//! Into it go the programs a person would run, built in release mode and started as processes:
//! `byway-relay`, `byway`, sshd, ssh, scp, git, curl, coturn. What a scenario claims is judged from outside
//! them: by checksums of what arrived, by exit codes, and by nftables counters on the hosts that say which
//! way the bytes went, beside what the programs report about themselves.
//!
//! Nothing here sleeps to let a state come about. A scenario waits for an event (a line of output, a file, a
//! closed process) with a deadline, and a missed deadline shows the logs of every program in the world.
//!
//! Everything a world makes is named after the process that made it, goes when the value goes (a panic
//! included), and is removed by a process beside it should that be killed: see [`leftovers`]. Only processes
//! started here are ended, by their ids.
//!
//! The scenarios themselves are in [`scenario`]; `tests/lab.rs` runs them all, and
//! `cargo run -p byway-lab -- NAME` plays one for a person to watch.

#![cfg_attr(
    test,
    allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")
)]

pub mod debian;
pub mod emulator;
pub mod figures;
pub mod harness;
pub mod kinds;
pub mod leftovers;
pub mod netns;
pub mod peers;
pub mod process;
pub mod programs;
pub mod router;
pub mod scenario;
pub mod tool;
pub mod world;

pub use kinds::Kind;
pub use netns::Namespace;
pub use process::{Finished, Running};
pub use world::{Place, World};
