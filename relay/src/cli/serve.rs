//! `byway-relay serve`: from settings to a relay that runs until it is told to end.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use byway_relay::config::{AdmissionKind, File, Settings};
use byway_relay::{Server, ServerConfig};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

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
    #[command(flatten)]
    settings: Settings,
}

impl Serve {
    pub(super) fn resolve(self) -> anyhow::Result<ServerConfig> {
        let Self {
            config,
            dev,
            open,
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
            let resolved = file.resolve(settings);
            return match &config {
                Some(path) => resolved.with_context(|| format!("in {}", path.display())),
                None => resolved,
            };
        }
        let defaults = ServerConfig::dev();
        settings.listen.get_or_insert(defaults.listen);
        settings.name.get_or_insert(defaults.name);
        settings.region.get_or_insert(defaults.region);
        let resolved = file.resolve(settings)?;
        if let Some(public) = resolved.listen.iter().find(|a| !a.ip().is_loopback()) {
            anyhow::bail!(
                "--dev is for this machine only, and {public} can be reached from others.\n\
                 Say --open instead for a relay that anyone can use."
            );
        }
        Ok(resolved)
    }
}

pub(super) fn run(config: ServerConfig) -> anyhow::Result<()> {
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
