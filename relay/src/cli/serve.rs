//! `byway-relay serve`: from settings to a relay that runs until it is told to end.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use super::LAST_WORDS;
use super::log::Log;
use anyhow::Context;
use byway_relay::config::{AdmissionKind, File, Settings};
use byway_relay::{Inherited, Server, ServerConfig};
use clap::{Args, ValueEnum};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};

#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Run as this file says; flags and the environment count before it.
    #[arg(long, value_name = "FILE", env = "BYWAY_RELAY_CONFIG", conflicts_with_all = ["dev", "open"])]
    config: Option<PathBuf>,
    /// For development: loopback, a free port, a certificate signed by itself, open to anyone on this machine.
    #[arg(long, env = "BYWAY_RELAY_DEV", conflicts_with = "open")]
    dev: bool,
    /// Open to anyone who can reach it: the same as --admission open.
    #[arg(long, env = "BYWAY_RELAY_OPEN")]
    open: bool,
    /// How the log on standard error is written: text for people, or a JSON object a line.
    #[arg(
        long,
        value_name = "FORMAT",
        env = "BYWAY_RELAY_LOG_FORMAT",
        default_value = "text"
    )]
    pub(super) log_format: LogFormat,
    /// Lines of one kind that the log takes in a second; what is left out is counted and said. 0 for all.
    #[arg(
        long,
        value_name = "N",
        env = "BYWAY_RELAY_LOG_SAMPLE",
        default_value_t = 50
    )]
    pub(super) log_sample: u32,
    #[command(flatten)]
    settings: Settings,
}

/// How the log is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Serve {
    pub(super) fn resolve(self) -> anyhow::Result<ServerConfig> {
        let Self {
            config,
            dev,
            open,
            log_format: _,
            log_sample: _,
            mut settings,
        } = self;
        if (dev || open)
            && settings
                .admission
                .is_some_and(|kind| kind != AdmissionKind::Open)
        {
            let flag = if dev { "dev" } else { "open" };
            anyhow::bail!(
                "--{flag} lets anyone in, and --admission says something else; give one of them"
            );
        }
        if dev || open {
            settings.admission = Some(AdmissionKind::Open);
        }
        let file = match &config {
            Some(path) => File::load(path)?,
            None if settings.admission.is_some() => File::default(),
            None => anyhow::bail!(
                "there is nothing that says who may use this relay.\n\
                 Give a configuration with --config FILE, or --open for a relay that anyone can use,\n\
                 or --dev for one on this machine only."
            ),
        };
        if !dev {
            let resolved = match &config {
                Some(path) => file
                    .resolve(settings)
                    .with_context(|| format!("in {}", path.display())),
                None => file.resolve(settings),
            };
            return resolved.inspect(|config| {
                for warning in config.warnings() {
                    tracing::warn!("{warning}");
                }
            });
        }
        let defaults = ServerConfig::dev();
        settings.listen.get_or_insert(defaults.listen);
        settings.name.get_or_insert(defaults.name);
        settings.region.get_or_insert(defaults.region);
        settings.drain_seconds.get_or_insert(0);
        settings.limits.node_mbit.get_or_insert(0);
        settings.limits.node_kpps.get_or_insert(0);
        let resolved = file.resolve(settings)?;
        let everywhere = resolved.listen.iter().chain(&resolved.plain_http);
        let mut everywhere = everywhere.chain(&resolved.observe);
        if let Some(public) = everywhere.find(|a| !a.ip().is_loopback()) {
            anyhow::bail!(
                "--dev is for this machine only, and {public} can be reached from others.\n\
                 Say --open instead for a relay that anyone can use."
            );
        }
        Ok(resolved)
    }
}

/// How often systemd is asked for more time while the relay drains, and for how much.
const EXTEND_EVERY: Duration = Duration::from_secs(5);
const EXTEND_BY: Duration = Duration::from_secs(15);

/// How long what is left of the work may take when all is said: calls that hang on a disk end with the process.
const LEAVE: Duration = Duration::from_secs(2);
/// How long stopping may take in all. Each of its steps has a limit of its own, and together they take less.
const STOP_WITHIN: Duration = Duration::from_secs(20);

/// What ends a relay from outside.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
    async fn any(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

pub(super) fn run(config: ServerConfig, log: &Log) -> anyhow::Result<()> {
    // Before there are threads: it changes the environment.
    let inherited = Inherited::from_env()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(serve(config, inherited, log));
    // Dropping it would wait for every call that blocks, however long.
    runtime.shutdown_timeout(LEAVE);
    result
}

async fn serve(config: ServerConfig, inherited: Inherited, log: &Log) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    super::hangup::listen()?;
    let drain_for = config.drain_for;
    // On a thread of its own, for it reads files, and one of them may hang.
    let started = tokio::spawn(Server::start_on(config, inherited));
    let server = tokio::select! {
        server = started => server.context("the start ended early")??,
        () = signals.any() => {
            tracing::info!("told to stop before it started");
            end_in_time(log)?;
            return Ok(());
        }
    };
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", server.url())
        .and_then(|()| out.flush())
        .context("cannot write the URL")?;
    drop(out);
    tracing::info!(addrs = ?server.local_addrs(), "ready");
    tell_systemd(&[NotifyState::Ready, NotifyState::Status("ready")]);
    let mut failed = None;
    let within = tokio::select! {
        part = server.failed() => {
            failed = Some(part);
            Duration::ZERO
        }
        _ = signals.terminate.recv() => drain_for,
        within = server.told_to_drain() => within,
        // Who sits at the terminal does not want to wait.
        _ = signals.interrupt.recv() => Duration::ZERO,
    };
    tell_systemd(&[NotifyState::Stopping]);
    if !within.is_zero() {
        tokio::select! {
            empty = drain(&server, within) => if !empty {
                tracing::warn!(links = server.links(), "some nodes have nowhere to go");
            },
            part = server.failed() => failed = Some(part),
            () = signals.any() => tracing::info!("told again: stopping at once"),
        }
    }
    // First: who reads that it is stopping may say so again.
    end_in_time(log)?;
    tracing::info!("stopping");
    server.stop().await;
    match failed {
        None => Ok(()),
        // Whoever watches over it starts another (systemd's Restart=).
        Some(part) => anyhow::bail!(
            "a part of the relay has failed ({part}): it ended, and should be started again"
        ),
    }
}

/// From here on the process ends, whatever hangs: after a while, or when it is told so once more. By a thread and a runtime of their
/// own, for all others may be what hangs.
fn end_in_time(log: &Log) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // Listened for from now on, not from when the thread runs.
    let mut signals = {
        let _inside = runtime.enter();
        Signals::listen()?
    };
    let log = log.clone();
    std::thread::Builder::new()
        .name("watchdog".into())
        .spawn(move || {
            let told = async { tokio::time::timeout(STOP_WITHIN, signals.any()).await };
            match runtime.block_on(told) {
                Ok(()) => tracing::error!("told again while stopping: the process ends at once"),
                Err(_) => tracing::error!("stopping takes too long: the process ends without it"),
            }
            log.flush(LAST_WORDS);
            std::process::exit(1)
        })?;
    Ok(())
}

/// Sends the nodes elsewhere, and says how far that is. False if some are left when the time has passed.
async fn drain(server: &Server, within: Duration) -> bool {
    tracing::info!(
        links = server.links(),
        seconds = within.as_secs(),
        "draining: nodes are told to go elsewhere"
    );
    let mut drained = std::pin::pin!(server.drain(within));
    loop {
        let status = format!("draining, {} links left", server.links());
        let more = u32::try_from(EXTEND_BY.as_micros()).unwrap_or(u32::MAX);
        tell_systemd(&[
            NotifyState::Status(&status),
            NotifyState::ExtendTimeoutUsec(more),
        ]);
        if let Ok(empty) = tokio::time::timeout(EXTEND_EVERY, &mut drained).await {
            return empty;
        }
        tracing::info!(links = server.links(), "draining");
    }
}

/// Says nothing where the process was not started by systemd.
fn tell_systemd(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd cannot be told");
    }
}
