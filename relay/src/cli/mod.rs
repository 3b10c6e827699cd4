//! The command line: raw arguments become one resolved configuration, and that becomes a server.
//!
//! Every option reads its default from `BYWAY_RELAY_<NAME>`: not from `BYWAY_<NAME>` as the `byway` command's do, because both
//! have a `--name` and a `--key` that mean different things. One that is not known is an error where it would have counted.
//!
//! Standard output carries what a script waits for: the relay's URL when it is ready, a token. Everything else is the log
//! on standard error. Exit codes: 0 done, 1 failed, 2 bad usage.

mod check;
mod drain;
mod environment;
mod filter;
mod hangup;
mod log;
mod sample;
mod serve;
mod status;
mod tokens;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand};
use log::Log;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

/// Forwards sealed datagrams between nodes that cannot reach each other, and answers STUN.
#[derive(Debug, Parser)]
#[command(name = "byway-relay", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: serve::Serve,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a relay.
    Serve(serve::Serve),
    /// Say what a configuration means, or what is wrong with it.
    CheckConfig(check::CheckConfig),
    /// Show what a running relay holds, and what it did.
    Status(status::Status),
    /// Have a running relay send its nodes elsewhere, and stop.
    Drain(drain::Drain),
    /// Make a key that signs admission tokens.
    Keygen(tokens::Keygen),
    /// Sign an admission token for a node.
    Token(tokens::Token),
}

/// Bad usage, found after the arguments were parsed: nothing but another configuration helps, so nobody need try again.
const USAGE: u8 = 2;
/// How long the log's last lines may take to be written.
const LAST_WORDS: Duration = Duration::from_secs(1);

pub(crate) fn main() -> ExitCode {
    let Cli { command, serve } = Cli::parse();
    let result = match command.unwrap_or(Command::Serve(serve)) {
        Command::Serve(args) => return serve_with_log(args),
        Command::CheckConfig(args) => known_environment()
            .and_then(|()| args.run())
            .map_err(|e| (e, USAGE)),
        Command::Status(args) => args.run().map_err(|e| (e, 1)),
        Command::Drain(args) => args.run().map_err(|e| (e, 1)),
        Command::Keygen(args) => args.run().map_err(|e| (e, 1)),
        Command::Token(args) => args.run().map_err(|e| (e, 1)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err((error, code)) => {
            eprintln!("byway-relay: {error:#}");
            ExitCode::from(code)
        }
    }
}

fn serve_with_log(args: serve::Serve) -> ExitCode {
    let log = match Log::to(std::io::stderr(), args.log_sample) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("byway-relay: no thread for the log: {error}");
            return ExitCode::FAILURE;
        }
    };
    let asked = std::env::var_os(filter::VARIABLE);
    let result = match filter::filter(asked.as_deref())
        .map(|filter| log_to(log.clone(), filter, args.log_format))
        .and_then(|()| known_environment())
        .and_then(|()| args.resolve())
    {
        Ok(config) => serve::run(config, &log).map_err(|e| (e, 1)),
        Err(e) => Err((e, USAGE)),
    };
    let code = match result {
        Ok(()) => ExitCode::SUCCESS,
        Err((error, code)) => {
            // Not by `eprintln`, which waits for whoever reads it.
            log.line(format!("byway-relay: {error:#}\n").as_bytes());
            ExitCode::from(code)
        }
    };
    log.flush(LAST_WORDS);
    code
}

fn known_environment() -> anyhow::Result<()> {
    environment::check(&Cli::command(), std::env::vars_os())
}

fn log_to(log: Log, filter: EnvFilter, format: serve::LogFormat) {
    // Colours are for people; in a file or a journal they are noise. Who sets NO_COLOR wants none at all.
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colours = std::io::stderr().is_terminal() && !unwanted;
    let logged = fmt::layer().with_writer(log.clone());
    let written = match format {
        serve::LogFormat::Text => logged.with_ansi(colours).boxed(),
        serve::LogFormat::Json => logged.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(log.clone())
        .with(written)
        .init();
    // The usual one writes to standard error itself, and would wait for it.
    std::panic::set_hook(Box::new(move |panic| {
        let trace = std::backtrace::Backtrace::capture();
        let text = match trace.status() {
            std::backtrace::BacktraceStatus::Captured => format!("{panic}\n{trace}\n"),
            _ => format!("{panic}\n"),
        };
        log.line(text.as_bytes());
    }));
}
