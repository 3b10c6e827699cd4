//! The settings of an emulated link as text, and who changes them while a scenario runs.

use std::io::{BufRead, BufReader, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
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

    /// From now on somebody hears what these two ports say to each other over UDP. See `tool/switch/attacker.rs`.
    pub fn listen(&self, one: &str, other: &str) -> Result<()> {
        self.tell(&format!("listen {one} {other}"))
    }

    /// What was heard so far is all that will be.
    pub fn stop_listening(&self) -> Result<()> {
        self.tell("deaf")
    }

    /// From now on who listens sends one of what it heard each so often: as it was, back to its sender, in this stranger's name, or
    /// damaged.
    pub fn forge(&self, every: Duration, stranger: Ipv4Addr) -> Result<()> {
        self.tell(&format!("forge {}us {stranger}", every.as_micros()))
    }

    /// How many it has sent so far, in each of these four ways.
    pub fn forged(&self) -> Result<[u64; 4]> {
        let told = self.ask("forged")?;
        let numbers: Vec<u64> = told.split(' ').map(str::parse).collect::<Result<_, _>>()?;
        let numbers: Result<[u64; 4], _> = numbers.try_into();
        numbers.map_err(|_| anyhow!("{told}: not four numbers"))
    }

    fn tell(&self, line: &str) -> Result<()> {
        self.ask(line).map(drop)
    }

    fn ask(&self, line: &str) -> Result<String> {
        let mut stream = UnixStream::connect(&self.control).context("the emulator is gone")?;
        writeln!(stream, "{line}")?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer)?;
        let said = answer.trim().strip_prefix("ok");
        let said = said.with_context(|| format!("{line}: {}", answer.trim()))?;
        Ok(said.trim().to_owned())
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
