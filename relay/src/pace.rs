//! Slows a link that floods the relay with control messages: each takes the one lock for a moment.

use std::time::{Duration, Instant};

/// Control messages of one link in a second, beyond which reading pauses. An agent that answers a thousand clients
/// after a restart stays below it.
const PER_SECOND: u32 = 4_000;

/// Counts messages within a second.
#[derive(Debug)]
pub(crate) struct Pace {
    since: Instant,
    count: u32,
}

impl Pace {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            since: now,
            count: 0,
        }
    }
    /// How long to pause after this message; usually not at all. The node's transport is then held back by its own flow
    /// control.
    pub(crate) fn message(&mut self, now: Instant) -> Option<Duration> {
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed >= Duration::from_secs(1) {
            *self = Self::new(now);
        }
        self.count += 1;
        (self.count > PER_SECOND).then(|| Duration::from_secs(1).saturating_sub(elapsed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_pauses_until_its_second_is_over() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        assert!((0..PER_SECOND).all(|_| pace.message(now).is_none()));
        let later = now + Duration::from_millis(300);
        assert_eq!(pace.message(later), Some(Duration::from_millis(700)));
        assert_eq!(pace.message(now + Duration::from_secs(1)), None);
    }
}
