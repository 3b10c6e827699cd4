//! `byway-relay`: arguments, then the library.

#![cfg_attr(
    test,
    allow(clippy::unwrap_used, reason = "a test that cannot go on must panic")
)]

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
