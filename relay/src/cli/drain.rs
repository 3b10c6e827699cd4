//! `byway-relay drain`: has a running relay send its nodes elsewhere and stop, and says how far that is.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

#[derive(Debug, Args)]
pub(super) struct Drain {
    /// The relay's control socket: its setting 'control'.
    #[arg(
        value_name = "FILE",
        env = "BYWAY_RELAY_CONTROL",
        default_value = "/run/byway-relay/control.sock"
    )]
    control: PathBuf,
    /// Give nodes so many seconds, 0-3600. Default: the relay's setting 'drain_seconds'.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=3_600))]
    within: Option<u32>,
}

impl Drain {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let at = self.control.display();
        let mut stream = UnixStream::connect(&self.control).with_context(|| {
            format!("no relay answers at {at} (is it running with --control {at}?)")
        })?;
        match self.within {
            Some(seconds) => writeln!(stream, "drain {seconds}"),
            None => writeln!(stream, "drain"),
        }
        .with_context(|| format!("cannot write to {at}"))?;
        let mut before = String::new();
        // The answer ends with the relay.
        for line in BufReader::new(stream).lines() {
            let Ok(line) = line else { break };
            if let Some(why) = line.strip_prefix("refused: ") {
                anyhow::bail!("the relay refuses: {why}");
            }
            if line != before {
                eprintln!("byway-relay: {line}");
            }
            before = line;
        }
        eprintln!("byway-relay: it has stopped");
        Ok(())
    }
}
