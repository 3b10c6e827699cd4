//! One module a command.

pub(crate) mod agent;
pub(crate) mod alias;
pub(crate) mod demo;
pub(crate) mod forward;
pub(crate) mod id;
pub(crate) mod netcheck;
pub(crate) mod ping;
pub(crate) mod ssh;
pub(crate) mod stdio;

use crate::args::{Cli, Command};
use crate::failure::Failure;

/// Runs a command to its end.
pub(crate) async fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Demo(args) => demo::run(args).await,
        Command::Agent(args) => agent::run(args).await,
        Command::Forward(args) => forward::run(args).await,
        Command::Stdio(args) => stdio::run(args).await,
        Command::Ssh(args) => ssh::run(&args, cli.verbose),
        Command::Ping(args) => ping::run(args).await,
        Command::Netcheck(args) => netcheck::run(args).await,
        Command::Alias(args) => alias::run(args),
        Command::Id(args) => id::run(&args),
    }
}
