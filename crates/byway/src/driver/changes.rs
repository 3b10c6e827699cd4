//! How often the node is told that its network is another one. A laptop changes networks a few times in a row and then stays;
//! a host that starts containers changes addresses all day, and each telling has every link and path asked.

use std::time::{Duration, Instant};

/// At once: a cable that is pulled, and what comes up instead, address by address.
const BURST: u32 = 4;
/// One more in this time.
const EVERY: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Changes {
    left: u32,
    /// Since when the next one has been saved up.
    since: Instant,
    /// One came for which none was left.
    pending: bool,
}

impl Changes {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            left: BURST,
            since: now,
            pending: false,
        }
    }

    /// A change came; true if the node is to be told now. If not, it is due later.
    pub(super) fn came(&mut self, now: Instant) -> bool {
        while self.left < BURST && self.since + EVERY <= now {
            self.left += 1;
            self.since += EVERY;
        }
        if self.left == BURST {
            self.since = now;
        }
        self.pending = self.left == 0;
        self.left = self.left.saturating_sub(1);
        !self.pending
    }

    /// When what was put off is to be told.
    pub(super) fn due(&self) -> Option<Instant> {
        self.pending.then(|| self.since + EVERY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_changes_are_told_at_once_and_more_of_them_every_five_seconds() {
        let start = Instant::now();
        let mut changes = Changes::new(start);
        // Ten a second for a minute.
        let told = (0..600)
            .filter(|n| changes.came(start + Duration::from_millis(100) * *n))
            .count();
        assert!((14..=16).contains(&told), "{told}");
        let due = changes.due().unwrap();
        assert!(due > start + Duration::from_secs(59) && due <= start + Duration::from_secs(65));
        assert!(changes.came(due));
        assert_eq!(changes.due(), None);
    }

    #[test]
    fn after_a_rest_there_is_a_burst_again_and_no_more() {
        let start = Instant::now();
        let mut changes = Changes::new(start);
        let later = start + Duration::from_secs(3600);
        let told = (0..10).filter(|_| changes.came(later)).count();
        assert_eq!(told, 4);
    }
}
