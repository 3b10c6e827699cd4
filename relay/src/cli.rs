//! The command line: raw arguments become one resolved configuration, and that becomes a server.
//!
//! Every option reads its default from `BYWAY_RELAY_<NAME>`: not from `BYWAY_<NAME>` as the `byway` command's do, because both
//! have a `--name` and a `--key` that mean different things.
//!
//! Standard output carries one line, the relay's URL, when it is ready; scripts wait for it. Everything else is the log
//! on standard error. Exit codes: 0 done, 1 failed, 2 bad usage.

use std::io::{IsTerminal, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use byway_relay::{Admission, CertFiles, Server, ServerConfig, config};
use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

/// Where nodes look for a relay: first at the port of TLS and QUIC, then, where networks block UDP on it, at STUN's.
const PORTS: [u16; 2] = [byway_wire::relay::HTTPS_PORT, byway_wire::relay::STUN_PORT];

/// Forwards sealed datagrams between nodes that cannot reach each other, and answers STUN.
#[derive(Debug, Parser)]
#[command(name = "byway-relay", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a relay.
    Serve(Serve),
}

#[derive(Debug, Args)]
struct Serve {
    /// Run as this file says.
    #[arg(long, value_name = "FILE", env = "BYWAY_RELAY_CONFIG", conflicts_with_all = ["dev", "open"])]
    config: Option<PathBuf>,
    /// For development: loopback, a free port, a certificate signed by itself, open to anyone on this machine.
    #[arg(long, env = "BYWAY_RELAY_DEV", conflicts_with = "open")]
    dev: bool,
    /// Open to anyone who can reach it.
    #[arg(long, env = "BYWAY_RELAY_OPEN")]
    open: bool,
    /// Listen here, for UDP and TCP; may be given several times. Default: ports 443 and 3478 on all addresses.
    #[arg(
        long,
        value_name = "ADDR",
        env = "BYWAY_RELAY_LISTEN",
        value_delimiter = ','
    )]
    listen: Vec<SocketAddr>,
    /// The relay's name, told to nodes.
    #[arg(long, env = "BYWAY_RELAY_NAME")]
    name: Option<String>,
    /// Its region.
    #[arg(long, env = "BYWAY_RELAY_REGION")]
    region: Option<String>,
    /// The host name or address by which nodes know the relay. Behind an ingress that ends TLS it must be right.
    #[arg(long, value_name = "HOST", env = "BYWAY_RELAY_PUBLIC_HOST")]
    public_host: Option<String>,
    /// A certificate chain in PEM. Default: a certificate made at each start, known by its pin.
    #[arg(long, value_name = "FILE", env = "BYWAY_RELAY_CERT", requires = "key")]
    cert: Option<PathBuf>,
    /// The certificate's private key in PEM.
    #[arg(long, value_name = "FILE", env = "BYWAY_RELAY_KEY", requires = "cert")]
    key: Option<PathBuf>,
}

/// Bad usage, found after the arguments were parsed.
const USAGE: u8 = 2;

pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    let Cli {
        command,
        serve: bare,
    } = cli;
    let args = match command {
        Some(Command::Serve(args)) => args,
        None => bare,
    };
    log_to_stderr();
    let config = match resolve(args) {
        Ok(config) => config,
        Err(e) => return fail(&e, USAGE),
    };
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => fail(&e, 1),
    }
}

fn fail(error: &anyhow::Error, code: u8) -> ExitCode {
    eprintln!("byway-relay: {error:#}");
    ExitCode::from(code)
}

fn resolve(args: Serve) -> anyhow::Result<ServerConfig> {
    let mut config = match &args.config {
        Some(path) => config::load(path)?,
        None if args.dev => ServerConfig::dev(),
        None if args.open => {
            let everywhere = PORTS.iter().flat_map(|&port| {
                [
                    SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
                    SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
                ]
            });
            ServerConfig::new(everywhere.collect(), Admission::Open)
        }
        None => anyhow::bail!(
            "there is nothing that says who may use this relay.\n\
             Give a configuration with --config FILE, or --open for a relay that anyone can use,\n\
             or --dev for one on this machine only."
        ),
    };
    if !args.listen.is_empty() {
        config.listen = args.listen;
    }
    if args.dev
        && let Some(public) = config.listen.iter().find(|a| !a.ip().is_loopback())
    {
        anyhow::bail!(
            "--dev is for this machine only, and {public} can be reached from others.\n\
             Say --open instead for a relay that anyone can use."
        );
    }
    if let Some(name) = args.name {
        config.name = name;
    }
    if let Some(region) = args.region {
        config.region = region;
    }
    if args.public_host.is_some() {
        config.public_host = args.public_host;
    }
    if let (Some(cert), Some(key)) = (args.cert, args.key) {
        config.cert = Some(CertFiles { cert, key });
    }
    Ok(config)
}

fn run(config: ServerConfig) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let server = Server::start(config).await?;
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", server.url())
            .and_then(|()| out.flush())
            .context("cannot write the URL")?;
        drop(out);
        tracing::info!(addrs = ?server.local_addrs(), "ready");
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        server.stop().await;
        Ok(())
    })
}

fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("BYWAY_RELAY_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,quinn=warn"));
    // Colours are for people; in a file or a journal they are noise. Who sets NO_COLOR wants none at all.
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colours = std::io::stderr().is_terminal() && !unwanted;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .init();
}
