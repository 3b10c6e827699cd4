//! The settings of an emulated link as text, and who changes them while a scenario runs.

use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use byway_sim::net::link::LinkConfig;

/// A link that does nothing to packets.
const CLEAN: LinkConfig = LinkConfig {
    delay: Duration::ZERO,
    jitter: Duration::ZERO,
    loss: 0.0,
    reorder: 0.0,
    duplicate: 0.0,
    mtu: 1500,
    rate: None,
    queue: Duration::from_millis(100),
};

/// Reads settings: `delay`, `jitter` and `queue` in `us`, `ms` or `s`; `loss`, `reorder` and `duplicate` in per cent; `rate`
/// in `kbit` or `mbit` a second; `mtu` in bytes of the IP packet. What is not named is as on a link that does nothing.
pub fn parse(text: &str) -> Result<LinkConfig> {
    let mut config = CLEAN;
    for word in text.split([' ', ',']).filter(|word| !word.is_empty()) {
        let (key, value) = word
            .split_once('=')
            .with_context(|| format!("{word}: a setting is KEY=VALUE"))?;
        let wrong = || format!("{word}: what value is that?");
        match key {
            "delay" => config.delay = time(value).with_context(wrong)?,
            "jitter" => config.jitter = time(value).with_context(wrong)?,
            "queue" => config.queue = time(value).with_context(wrong)?,
            "loss" => config.loss = share(value).with_context(wrong)?,
            "reorder" => config.reorder = share(value).with_context(wrong)?,
            "duplicate" => config.duplicate = share(value).with_context(wrong)?,
            "rate" => config.rate = Some(rate(value).with_context(wrong)?),
            "mtu" => config.mtu = value.parse().with_context(wrong)?,
            _ => bail!("{key}: delay, jitter, loss, reorder, duplicate, rate, queue or mtu"),
        }
    }
    Ok(config)
}

/// A number and its unit.
fn unit(text: &str) -> Result<(f64, &str)> {
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    Ok((text[..end].parse()?, &text[end..]))
}

pub(crate) fn time(text: &str) -> Result<Duration> {
    let (number, unit) = unit(text)?;
    let seconds = match unit {
        "us" => number / 1e6,
        "ms" => number / 1e3,
        "s" => number,
        _ => bail!("a time is in us, ms or s"),
    };
    Ok(Duration::try_from_secs_f64(seconds)?)
}

fn share(text: &str) -> Result<f64> {
    let percent: f64 = text.trim_end_matches('%').parse()?;
    ensure!((0.0..=100.0).contains(&percent), "from 0 to 100 per cent");
    Ok(percent / 100.0)
}

/// Bytes a second.
fn rate(text: &str) -> Result<u64> {
    let (number, unit) = unit(text)?;
    let bits = match unit {
        "kbit" => number * 1e3,
        "mbit" => number * 1e6,
        _ => bail!("a rate is in kbit or mbit"),
    };
    ensure!(bits >= 8.0, "a link that carries nothing is a hole");
    Ok((bits / 8.0) as u64)
}

/// Changes the links of a world that runs.
#[derive(Debug)]
pub struct Emulator {
    control: PathBuf,
}

impl Emulator {
    /// The emulator that listens there.
    pub fn at(control: &Path) -> Self {
        Self {
            control: control.to_owned(),
        }
    }

    /// Both directions of a port's link: see [`parse`]. What is on its way stays as it was.
    pub fn link(&self, port: &str, settings: &str) -> Result<()> {
        self.tell(&format!("link {port} both {settings}"))
    }

    /// The direction away from the port alone, as [`Emulator::link`].
    pub fn up(&self, port: &str, settings: &str) -> Result<()> {
        self.tell(&format!("link {port} up {settings}"))
    }

    /// The direction towards the port alone, as [`Emulator::link`].
    pub fn down(&self, port: &str, settings: &str) -> Result<()> {
        self.tell(&format!("link {port} down {settings}"))
    }

    /// How much longer the way from one port to the other is than their two links are.
    pub fn apart(&self, from: &str, to: &str, delay: Duration) -> Result<()> {
        self.tell(&format!("apart {from} {to} {}us", delay.as_micros()))
    }

    /// From now on whatever is sent from one port to the other vanishes, silently.
    pub fn hole(&self, from: &str, to: &str) -> Result<()> {
        self.tell(&format!("hole {from} {to}"))
    }

    /// Takes back [`Emulator::hole`].
    pub fn mend(&self, from: &str, to: &str) -> Result<()> {
        self.tell(&format!("mend {from} {to}"))
    }

    fn tell(&self, line: &str) -> Result<()> {
        let mut stream = UnixStream::connect(&self.control).context("the emulator is gone")?;
        writeln!(stream, "{line}")?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer)?;
        ensure!(answer.trim() == "ok", "{line}: {}", answer.trim());
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_in_their_units() {
        let config =
            parse("delay=5ms,jitter=500us loss=5% reorder=0.5 rate=8mbit queue=15ms mtu=1280");
        let config = config.unwrap();
        assert_eq!(config.delay, Duration::from_millis(5));
        assert_eq!(config.jitter, Duration::from_micros(500));
        assert_eq!((config.loss, config.reorder), (0.05, 0.005));
        assert_eq!((config.rate, config.mtu), (Some(1_000_000), 1280));
        assert_eq!(config.queue, Duration::from_millis(15));
        assert_eq!(parse("").unwrap(), CLEAN);
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_its_name() {
        for (text, word) in [
            ("delay", "KEY=VALUE"),
            ("delay=5", "delay=5"),
            ("loss=101", "loss=101"),
            ("loss=nan", "loss=nan"),
            ("rate=8", "rate=8"),
            ("rate=0kbit", "rate=0kbit"),
            ("speed=9", "speed"),
            ("mtu=70000", "mtu=70000"),
        ] {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
