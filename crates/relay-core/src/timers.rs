//! When to wake, and why. One deadline for each thing that waits; arming it again moves it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use byway_wire::{ChannelId, NodeInstance};

use crate::io::{LinkId, Side};

/// What waits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Timer {
    /// A link, for its `Hello`.
    Hello(LinkId),
    /// An open, for its absent peer or for its answer.
    Open(ChannelId),
    /// An end without a link, for its owner to come back.
    Linger(ChannelId, Side),
    /// A session, until its next record may be passed on.
    Record(NodeInstance),
    /// The token that expires next.
    Tokens,
}

impl Timer {
    fn reason(self) -> &'static str {
        match self {
            Timer::Hello(_) => "hello",
            Timer::Open(_) => "open",
            Timer::Linger(..) => "linger",
            Timer::Record(_) => "record",
            Timer::Tokens => "tokens",
        }
    }
}

/// All deadlines.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    at: BTreeMap<Timer, Instant>,
    queue: BTreeSet<(Instant, Timer)>,
}

impl Timers {
    /// Wakes `timer` at `at` instead of any earlier arrangement.
    pub(crate) fn arm(&mut self, timer: Timer, at: Instant) {
        self.disarm(timer);
        self.at.insert(timer, at);
        self.queue.insert((at, timer));
    }
    /// Forgets `timer`.
    pub(crate) fn disarm(&mut self, timer: Timer) {
        if let Some(at) = self.at.remove(&timer) {
            self.queue.remove(&(at, timer));
        }
    }
    /// True if `timer` waits.
    pub(crate) fn is_armed(&self, timer: Timer) -> bool {
        self.at.contains_key(&timer)
    }
    /// Takes the next timer that is due.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<Timer> {
        let &(at, timer) = self.queue.first()?;
        (at <= now).then(|| {
            self.disarm(timer);
            timer
        })
    }
    /// The next deadline and its reason.
    pub(crate) fn next(&self) -> Option<(Instant, &'static str)> {
        self.queue.first().map(|(at, timer)| (*at, timer.reason()))
    }
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }
}
