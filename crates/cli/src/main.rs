//! The `byway` command.
//!
//! [`args`] says what can be written on the command line, [`commands`] holds one module a command, and every error is a
//! [`failure::Failure`] that knows its exit code and says what failed, why, and what to try. Standard output carries
//! what the command was asked for, standard error everything else.

#![deny(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a closed output is no reason to panic: see `output`"
)]

mod aliases;
mod args;
mod client;
mod commands;
mod failure;
mod output;
mod peer;
mod size;
mod state;

use std::process::ExitCode;

use crate::failure::{Code, Failure};

fn main() -> ExitCode {
    let args = args::parse();
    output::log_to_stderr(args.verbose);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            return Failure::new(Code::Failed, "cannot start")
                .why(error)
                .report();
        }
    };
    let result = runtime.block_on(commands::run(args));
    // A read of standard input that nobody ends must not keep the process.
    runtime.shutdown_background();
    match (result, output::exit_code()) {
        (_, Some(code)) => ExitCode::from(code),
        (Ok(()), None) => ExitCode::SUCCESS,
        (Err(failure), None) => failure.report(),
    }
}
