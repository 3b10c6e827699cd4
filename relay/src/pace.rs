//! Counts what a link asks of the relay in a second: control messages, each of which takes the one lock for a moment, pings, and data
//! that is for nobody.

use std::time::{Duration, Instant};

use byway_wire::relay::control::Control;

/// Control messages of one link in a second, beyond which reading pauses. An agent that answers a thousand clients
/// after a restart stays below it.
pub(crate) const MESSAGES: u32 = 4_000;
/// WebSocket pings of one link in a second; a node sends one every 20 s. Each is answered by the WebSocket itself, behind
/// the outbox's back: a node that pinged and never read would fill our memory with answers.
pub(crate) const PINGS: u32 = 10;
/// KiB of a TLS link in a second that are for nobody: of channels that are not its node's, too large, or echoes. No node's rate counts them, and each
/// had to be decrypted. What is on its way when a channel ends is less.
pub(crate) const STRAYS: u32 = 4 * 1_024;
/// What a token costs, in messages: a signature is verified, by each of the operator's keys in turn.
const TOKEN: u32 = 400;
/// What a record costs, in messages: a signature is verified, and every peer may hear of it.
const RECORD: u32 = 40;

/// What a control message counts for.
pub(crate) fn cost(message: &Control) -> u32 {
    match message {
        Control::Record(_) => RECORD,
        Control::Token(_) => TOKEN,
        _ => 1,
    }
}

/// Counts within a second.
#[derive(Debug)]
pub(crate) struct Pace {
    since: Instant,
    count: u32,
    per_second: u32,
}

impl Pace {
    pub(crate) fn new(now: Instant, per_second: u32) -> Self {
        Self {
            since: now,
            count: 0,
            per_second,
        }
    }
    /// How long to pause after this one; usually not at all. The node's transport is then held back by its own flow
    /// control.
    pub(crate) fn step(&mut self, now: Instant, cost: u32) -> Option<Duration> {
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed >= Duration::from_secs(1) {
            *self = Self::new(now, self.per_second);
        }
        self.count = self.count.saturating_add(cost);
        (self.count > self.per_second).then(|| Duration::from_secs(1).saturating_sub(elapsed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_pauses_until_its_second_is_over() {
        let now = Instant::now();
        let mut pace = Pace::new(now, MESSAGES);
        assert!((0..MESSAGES).all(|_| pace.step(now, 1).is_none()));
        let later = now + Duration::from_millis(300);
        assert_eq!(pace.step(later, 1), Some(Duration::from_millis(700)));
        assert_eq!(pace.step(now + Duration::from_secs(1), 1), None);
    }

    #[test]
    fn records_are_dearer_than_other_messages() {
        let now = Instant::now();
        let mut pace = Pace::new(now, MESSAGES);
        let granted = (0..MESSAGES)
            .filter(|_| pace.step(now, RECORD).is_none())
            .count();
        assert_eq!(granted, 100);
    }
}
