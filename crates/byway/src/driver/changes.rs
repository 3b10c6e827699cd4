//! How often the node is told that its network is another one. A laptop changes networks a few times in a row and then stays;
//! a host that starts containers changes addresses all day, and each telling has every link and path asked.

use std::time::{Duration, Instant};

use byway_core::bucket::TokenBucket;

/// Addresses of one change come and go one by one: they are waited for.
const SETTLES: Duration = Duration::from_millis(20);
/// At once: a cable that is pulled, and what comes up instead, family by family.
const BURST: u32 = 8;
/// One more in this time.
const EVERY: Duration = Duration::from_secs(5);

/// What the node is told of. Of several that come together, the last in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Change {
    /// The network is another one.
    Network,
    /// The host slept, at least so long.
    Slept(Duration),
}

#[derive(Debug)]
pub(super) struct Changes {
    allowed: TokenBucket,
    due: Option<(Instant, Change)>,
}

impl Changes {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            allowed: TokenBucket::full(now, BURST, EVERY),
            due: None,
        }
    }

    /// A change came; the node is to be told soon. Of a sleep at once: somebody opened a laptop and waits.
    pub(super) fn came(&mut self, now: Instant, change: Change) {
        let allowed = self.allowed.next(now);
        let at = match change {
            Change::Network => allowed.max(now + SETTLES),
            Change::Slept(_) => allowed,
        };
        self.due = Some(match self.due {
            Some((planned, known)) => (planned.min(at), known.max(change)),
            None => (at, change),
        });
    }

    /// When the node is to be told.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.map(|(at, _)| at)
    }

    /// What the node is to be told now: it is taken for told.
    pub(super) fn take(&mut self, now: Instant) -> Option<Change> {
        let (_, change) = self.due.take_if(|(at, _)| *at <= now)?;
        // There is one: it was waited for.
        self.allowed.take(now);
        Some(change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Changes at these times, and when the node is told.
    fn told(start: Instant, times: impl Iterator<Item = u32>) -> Vec<Duration> {
        let mut changes = Changes::new(start);
        let mut told = Vec::new();
        let mut tell = |changes: &mut Changes, until: Instant| {
            while let Some(at) = changes.due().filter(|at| *at <= until) {
                assert_eq!(changes.take(at), Some(Change::Network));
                told.push(at - start);
            }
        };
        for time in times {
            tell(&mut changes, start + MS * time);
            changes.came(start + MS * time, Change::Network);
        }
        tell(&mut changes, start + Duration::from_secs(3600));
        told
    }

    #[test]
    fn what_comes_together_is_told_once_and_soon() {
        let at = told(Instant::now(), [1000, 1003, 1010, 1019].into_iter());
        assert_eq!(at, [MS * 1020]);
    }

    #[test]
    fn a_sleep_is_told_at_once_and_goes_before_what_else_changed() {
        let start = Instant::now();
        let mut changes = Changes::new(start);
        changes.came(start, Change::Network);
        changes.came(start + MS, Change::Slept(MS));
        changes.came(start + MS, Change::Network);
        assert_eq!(changes.take(start), None);
        assert_eq!(changes.take(start + MS), Some(Change::Slept(MS)));
        assert_eq!(changes.due(), None);
    }

    #[test]
    fn sleeps_that_come_all_the_time_are_told_no_more_often_than_anything_else() {
        let start = Instant::now();
        let mut changes = Changes::new(start);
        let told = (0..600).filter(|n| {
            let now = start + MS * 100 * *n;
            changes.came(now, Change::Slept(MS));
            changes.take(now).is_some()
        });
        assert!((18..=22).contains(&told.count()));
    }

    #[test]
    fn a_few_changes_are_told_at_once_and_more_of_them_every_five_seconds_and_none_is_lost() {
        // Ten a second for a minute.
        let at = told(Instant::now(), (0..600).map(|n| n * 100));
        assert!((18..=22).contains(&at.len()), "{at:?}");
        assert!(at[7] < Duration::from_secs(1));
        assert!(at.last().is_some_and(|last| *last >= MS * 59_900), "{at:?}");
    }

    #[test]
    fn after_a_rest_there_is_a_burst_again_and_no_more() {
        let at = told(Instant::now(), (0..100).map(|n| 3_500_000 + n * 30));
        let soon = at.iter().filter(|at| **at < MS * 3_503_000).count();
        assert_eq!(soon, 8);
    }
}
