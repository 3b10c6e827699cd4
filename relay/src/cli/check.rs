//! `byway-relay check-config`: what a configuration means, or what is wrong with it, before a relay is started with it.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use byway_relay::config::{File, Settings};
use byway_relay::{Admission, AdmissionSource, Found, FoundCertificate, FoundKeys, ServerConfig};
use clap::Args;

#[derive(Debug, Args)]
pub(super) struct CheckConfig {
    /// The configuration file.
    #[arg(value_name = "FILE", env = "BYWAY_RELAY_CONFIG")]
    file: PathBuf,
    #[command(flatten)]
    settings: Settings,
}

impl CheckConfig {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let about = || format!("in {}", self.file.display());
        let file = File::load(&self.file)?;
        let config = file.resolve(self.settings.clone()).with_context(about)?;
        // What the files it names hold is part of it.
        let found = config.check_files().with_context(about)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let keys = runtime.block_on(config.check_urls(&found));
        // Dropping it would wait for a name server, however long.
        runtime.shutdown_background();
        let keys = keys.with_context(about)?;
        let mut text = format!(
            "{}: good\n{}",
            self.file.display(),
            describe(&config, &found, &keys)
        );
        for warning in config.warnings().into_iter().chain(keys.warnings) {
            text.push_str(&format!("  warning      {warning}\n"));
        }
        std::io::stdout().write_all(text.as_bytes())?;
        Ok(())
    }
}

fn describe(config: &ServerConfig, found: &Found, keys: &FoundKeys) -> String {
    let listen: Vec<String> = config.listen.iter().map(ToString::to_string).collect();
    let who = match (&config.admission, &keys.admission) {
        (AdmissionSource::Tokens(tokens), Admission::Tokens(rules)) => format!(
            "by token: {} for {}, {} revoked",
            count(rules.keys.len(), "key"),
            tokens.audiences.join(", "),
            rules.revoked.len()
        ),
        (_, Admission::Nodes(nodes)) => format!("by list: {}", count(nodes.len(), "node")),
        _ => "open: anyone who can reach it".to_owned(),
    };
    let certificate = match (&config.cert, &config.identity, &config.acme) {
        (Some(files), ..) => files.cert.display().to_string(),
        (_, Some(path), _) => format!("{}, known by its pin", path.display()),
        (.., Some(acme)) => format!("of {}, for {}", acme.directory_url, acme.domains.join(", ")),
        _ => "made at each start, known by its pin".to_owned(),
    };
    let certificate = match &found.certificate {
        Some(found) => format!("{certificate}; {}", dates(found, SystemTime::now())),
        None => certificate,
    };
    let mut lines = vec![
        (
            "name",
            format!("{}, in region {}", config.name, config.region),
        ),
        ("listens on", listen.join(", ")),
        (
            "known as",
            config
                .public_host
                .clone()
                .unwrap_or_else(|| "its first address".to_owned()),
        ),
        ("admission", who),
        ("certificate", certificate),
    ];
    for (url, keys) in &keys.urls {
        lines.push(("keys", format!("{} at {url}", count(*keys, "key"))));
    }
    lines
        .iter()
        .map(|(what, is)| format!("  {what:<12} {is}\n"))
        .collect()
}

/// Whether it holds, and for how long.
fn dates(certificate: &FoundCertificate, now: SystemTime) -> String {
    let date = humantime::format_rfc3339_seconds;
    let days = |time: Duration| count((time.as_secs() / 86_400) as usize, "day");
    let (from, to) = (certificate.not_before, certificate.not_after);
    if from > now {
        return format!("DOES NOT HOLD before {}", date(from));
    }
    match to.duration_since(now) {
        Ok(left) => format!("expires {}, in {}", date(to), days(left)),
        Err(past) => format!("EXPIRED {}, {} ago", date(to), days(past.duration())),
    }
}

fn count(n: usize, what: &str) -> String {
    let s = if n == 1 { "" } else { "s" };
    format!("{n} {what}{s}")
}
