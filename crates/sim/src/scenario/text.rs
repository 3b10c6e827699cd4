//! A scenario as one line of text, to paste, keep and play again: the seed behind it makes another scenario as soon as
//! the generator changes, the text does not.
//!
//! Words between blanks, in any order. `name=value` says what of the setup differs from [`Setup::default`];
//! `trouble@begin+length` and `task:bytes@begin` say what happens when. Times are seconds after the tunnel's first answer.
//!
//! ```text
//! seed=7 client=Symmetric agent-ip=BrokenV6 client-link=delay:0.01,mtu:1280 links=Udp Offline@1.5+2 Upload:500000@1.4
//! ```

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use byway_core::io::LinkMode;

use super::{Scenario, Trouble};
use crate::model::{Access, Families};
use crate::net::link::LinkConfig;
use crate::scene::Setup;
use crate::shell::app::Task;
use crate::shell::stun::Manner;

/// A word that says nothing about a scenario.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadWord(pub String);

impl fmt::Display for BadWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a scenario has no `{}`", self.0)
    }
}

impl std::error::Error for BadWord {}

const MODES: [LinkMode; 3] = [LinkMode::Auto, LinkMode::Udp, LinkMode::Tls];

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (setup, usual) = (&self.setup, Setup::default());
        write!(f, "seed={}", setup.seed)?;
        for (name, own, usual) in [
            ("client", setup.client, usual.client),
            ("agent", setup.agent, usual.agent),
        ] {
            if own != usual {
                write!(f, " {name}={own:?}")?;
            }
        }
        for (name, own, usual) in [
            ("client-ip", setup.client_ip, usual.client_ip),
            ("agent-ip", setup.agent_ip, usual.agent_ip),
        ] {
            if own != usual {
                write!(f, " {name}={own:?}")?;
            }
        }
        for (name, link) in [
            ("client-link", &setup.client_link),
            ("agent-link", &setup.agent_link),
        ] {
            if *link != LinkConfig::default() {
                write!(f, " {name}={}", link_text(link))?;
            }
        }
        if let Some(link) = &setup.second_relay {
            write!(f, " second-relay={}", link_text(link))?;
        }
        if let Some(timeout) = setup.nat_timeout {
            write!(f, " nat-timeout={}", seconds(timeout))?;
        }
        if setup.links != usual.links {
            write!(f, " links={:?}", setup.links)?;
        }
        for (name, own, usual) in [
            ("client-port", setup.client_port, usual.client_port),
            ("agent-port", setup.agent_port, usual.agent_port),
            ("direct", setup.direct, usual.direct),
            ("together", setup.together, usual.together),
        ] {
            if own != usual {
                write!(f, " {name}={own}")?;
            }
        }
        if setup.stun != usual.stun {
            let manners: Vec<String> = setup.stun.iter().map(manner_text).collect();
            write!(f, " stun={}", manners.join(","))?;
        }
        for (at, lasts, trouble) in &self.troubles {
            write!(f, " {trouble:?}@{}+{}", seconds(*at), seconds(*lasts))?;
        }
        for (at, task) in &self.tasks {
            let what = match task {
                Task::Touch => "Touch".to_owned(),
                Task::Upload(bytes) => format!("Upload:{bytes}"),
                Task::Download(bytes) => format!("Download:{bytes}"),
            };
            write!(f, " {what}@{}", seconds(*at))?;
        }
        Ok(())
    }
}

impl FromStr for Scenario {
    type Err = BadWord;

    fn from_str(text: &str) -> Result<Self, BadWord> {
        let mut scenario = Scenario {
            setup: Setup::default(),
            troubles: Vec::new(),
            tasks: Vec::new(),
        };
        for word in text.split_whitespace() {
            let known = match (word.split_once('='), word.split_once('@')) {
                (Some((name, value)), _) => set(&mut scenario.setup, name, value),
                (None, Some((what, when))) => happens(&mut scenario, what, when),
                (None, None) => None,
            };
            known.ok_or_else(|| BadWord(word.to_owned()))?;
        }
        Ok(scenario)
    }
}

fn set(setup: &mut Setup, name: &str, value: &str) -> Option<()> {
    match name {
        "seed" => setup.seed = value.parse().ok()?,
        "client" => setup.client = named(&Access::ALL, value)?,
        "agent" => setup.agent = named(&Access::ALL, value)?,
        "client-ip" => setup.client_ip = named(&Families::ALL, value)?,
        "agent-ip" => setup.agent_ip = named(&Families::ALL, value)?,
        "client-link" => setup.client_link = link(value)?,
        "agent-link" => setup.agent_link = link(value)?,
        "second-relay" => setup.second_relay = Some(link(value)?),
        "nat-timeout" => setup.nat_timeout = Some(duration(value)?),
        "links" => setup.links = named(&MODES, value)?,
        "client-port" => setup.client_port = value.parse().ok()?,
        "agent-port" => setup.agent_port = value.parse().ok()?,
        "direct" => setup.direct = value.parse().ok()?,
        "together" => setup.together = value.parse().ok()?,
        "stun" => setup.stun = list(value).map(manner).collect::<Option<_>>()?,
        _ => return None,
    }
    Some(())
}

fn happens(scenario: &mut Scenario, what: &str, when: &str) -> Option<()> {
    if let Some((at, lasts)) = when.split_once('+') {
        let trouble = named(&Trouble::ALL, what)?;
        scenario
            .troubles
            .push((duration(at)?, duration(lasts)?, trouble));
    } else {
        let task = match what.split_once(':') {
            None if what == "Touch" => Task::Touch,
            Some(("Upload", bytes)) => Task::Upload(bytes.parse().ok()?),
            Some(("Download", bytes)) => Task::Download(bytes.parse().ok()?),
            _ => return None,
        };
        scenario.tasks.push((duration(when)?, task));
    }
    Some(())
}

/// The one that calls itself that.
fn named<T: Copy + fmt::Debug>(all: &[T], name: &str) -> Option<T> {
    all.iter().copied().find(|item| format!("{item:?}") == name)
}

fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').filter(|item| !item.is_empty())
}

fn link_text(link: &LinkConfig) -> String {
    let usual = LinkConfig::default();
    let mut parts = Vec::new();
    for (name, own, usual) in [
        ("delay", link.delay, usual.delay),
        ("jitter", link.jitter, usual.jitter),
        ("queue", link.queue, usual.queue),
    ] {
        if own != usual {
            parts.push(format!("{name}:{}", seconds(own)));
        }
    }
    for (name, share) in [
        ("loss", link.loss),
        ("reorder", link.reorder),
        ("duplicate", link.duplicate),
    ] {
        if share != 0.0 {
            parts.push(format!("{name}:{share}"));
        }
    }
    if link.mtu != usual.mtu {
        parts.push(format!("mtu:{}", link.mtu));
    }
    if link.rate != usual.rate {
        let rate = link.rate.map_or("none".to_owned(), |rate| rate.to_string());
        parts.push(format!("rate:{rate}"));
    }
    parts.join(",")
}

fn link(text: &str) -> Option<LinkConfig> {
    let mut link = LinkConfig::default();
    for part in list(text) {
        let (name, value) = part.split_once(':')?;
        match name {
            "delay" => link.delay = duration(value)?,
            "jitter" => link.jitter = duration(value)?,
            "queue" => link.queue = duration(value)?,
            "loss" => link.loss = value.parse().ok()?,
            "reorder" => link.reorder = value.parse().ok()?,
            "duplicate" => link.duplicate = value.parse().ok()?,
            "mtu" => link.mtu = value.parse().ok()?,
            "rate" if value == "none" => link.rate = None,
            "rate" => link.rate = Some(value.parse().ok()?),
            _ => return None,
        }
    }
    Some(link)
}

fn manner_text(manner: &Manner) -> String {
    match manner {
        Manner::Slow(wait) => format!("Slow:{}", seconds(*wait)),
        Manner::Lying(addr) => format!("Lying:{addr}"),
        plain => format!("{plain:?}"),
    }
}

fn manner(text: &str) -> Option<Manner> {
    match text.split_once(':') {
        Some(("Slow", wait)) => Some(Manner::Slow(duration(wait)?)),
        Some(("Lying", addr)) => Some(Manner::Lying(addr.parse().ok()?)),
        _ => named(&Manner::PLAIN, text),
    }
}

/// Seconds with as many decimals as it takes: read again, it is the same to the nanosecond.
fn seconds(time: Duration) -> String {
    let text = format!("{}.{:09}", time.as_secs(), time.subsec_nanos());
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn duration(text: &str) -> Option<Duration> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if part.len() > 9 || !digits(part) || !digits(whole) {
        return None;
    }
    let nanos = format!("{part:0<9}").parse().ok()?;
    Some(Duration::new(whole.parse().ok()?, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_comes_back_from_its_text_to_the_last_digit() {
        for seed in 0..500 {
            let scenario = Scenario::generate(seed);
            let text = scenario.to_string();
            let read: Scenario = text
                .parse()
                .unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(read.to_string(), text);
            let same = Scenario {
                setup: Setup {
                    trace: scenario.setup.trace,
                    ..read.setup
                },
                ..read
            };
            assert_eq!(format!("{same:?}"), format!("{scenario:?}"));
        }
    }

    #[test]
    fn what_is_usual_is_not_said() {
        let text = "seed=7 client=Symmetric agent=SequentialDown client-ip=Nat64 agent-ip=BrokenV6 client-link=delay:0.01,mtu:1280 links=Udp \
                    agent-port=true Offline@1.5+2 Upload:500000@1.4";
        let read: Result<Scenario, _> = text.parse();
        assert_eq!(read.map(|s| s.to_string()), Ok(text.to_owned()));
    }

    #[test]
    fn a_word_it_does_not_know_is_named_and_not_passed_over() {
        for word in [
            "sed=1",
            "seed=x",
            "client=Moon",
            "agent-ip=V5",
            "client-port=yes",
            "client-link=colour:red",
            "stun=Honest,Funny",
            "Offline@1",
            "Offline@-1+2",
            "Upload@1",
            "Upload:x@1",
            "Touch",
        ] {
            let read: Result<Scenario, _> = format!("seed=1 {word}").parse();
            assert_eq!(read.map(|s| s.to_string()), Err(BadWord(word.to_owned())));
        }
    }
}
