//! Somebody who types through a tunnel, in one stream all the while.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{READY, tool};
use crate::process::{Line, Running, Stream};
use crate::world::Place;

/// One stream, a small message each 50 ms, each sent back by the web server at the other end.
#[derive(Debug)]
pub struct Typist {
    process: Running,
}

/// How far a typist had come at some moment.
#[derive(Clone, Copy, Debug)]
pub struct Moment(usize);

impl Typist {
    /// Begins to type to the [`super::web`] server at this URL, and waits for the first message to come back.
    pub fn start(place: &Place, url: &str) -> Result<Self> {
        let addr = url.strip_prefix("http://").context("a URL")?.to_owned();
        let process = tool(&place.namespace, "type", &[addr])?;
        process.first_line("echo", READY)?;
        Ok(Self { process })
    }

    /// Now.
    pub fn now(&self) -> Moment {
        Moment(self.echoes().len())
    }

    /// Waits until so many messages have come back since then.
    pub fn wait(&self, since: Moment, messages: usize, deadline: Duration) -> Result<()> {
        let mut seen = 0;
        self.process.wait_for("echo", deadline, |line| {
            seen += usize::from(line.from == Stream::Out);
            (seen >= since.0 + messages).then_some(())
        })
    }

    /// The longest time without an echo since then, what was under way at that moment included. Fails if the stream broke.
    pub fn silence(&mut self, since: Moment) -> Result<Duration> {
        if !self.process.is_running() {
            bail!("the stream broke");
        }
        let echoes = self.echoes();
        let from = &echoes[since.0.saturating_sub(1)..];
        from.windows(2)
            .map(|two| two[1].saturating_sub(two[0]))
            .max()
            .context("nothing came back at all")
    }

    /// When each came back.
    fn echoes(&self) -> Vec<Duration> {
        self.process.lines().iter().filter_map(came_back).collect()
    }
}

fn came_back(line: &Line) -> Option<Duration> {
    let (_, at) = line.text.split_once(' ')?;
    (line.from == Stream::Out).then(|| at.parse().ok().map(Duration::from_micros))?
}
