//! `byway-relay`: arguments, then the library.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
