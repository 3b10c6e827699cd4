//! So many at once, and then one more in each interval.

use std::time::{Duration, Instant};

/// A token bucket that begins full.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    burst: u32,
    every: Duration,
    left: u32,
    /// Since when the next token has been saved up.
    since: Instant,
}

impl TokenBucket {
    /// Holds `burst` tokens at the most, and gets one more in each `every`, which is not zero.
    pub fn full(now: Instant, burst: u32, every: Duration) -> Self {
        Self {
            burst,
            every,
            left: burst,
            since: now,
        }
    }

    /// Takes a token; false if there is none.
    pub fn take(&mut self, now: Instant) -> bool {
        self.save_up(now);
        let had = self.left > 0;
        self.left -= u32::from(had);
        had
    }

    /// When a token can be taken: now, or when the next one is there.
    pub fn next(&mut self, now: Instant) -> Instant {
        self.save_up(now);
        if self.left > 0 {
            now
        } else {
            self.since + self.every
        }
    }

    fn save_up(&mut self, now: Instant) {
        // What is not yet a whole token stays on the clock, or who asks all the time would never get one.
        while self.left < self.burst && self.since + self.every <= now {
            self.left += 1;
            self.since += self.every;
        }
        if self.left == self.burst {
            self.since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_millis(50);
    const MS: Duration = Duration::from_millis(1);

    #[expect(
        clippy::disallowed_methods,
        reason = "a test needs one instant to start from; nothing depends on which"
    )]
    fn start() -> Instant {
        Instant::now()
    }

    fn taken(bucket: &mut TokenBucket, now: Instant) -> usize {
        (0..1_000).filter(|_| bucket.take(now)).count()
    }

    #[test]
    fn a_burst_is_granted_and_then_one_in_each_interval() {
        let now = start();
        let mut bucket = TokenBucket::full(now, 20, EVERY);
        assert_eq!(taken(&mut bucket, now), 20);
        assert_eq!(taken(&mut bucket, now + EVERY - MS), 0);
        assert_eq!(taken(&mut bucket, now + EVERY), 1);
        assert_eq!(taken(&mut bucket, now + EVERY * 3), 2);
    }

    #[test]
    fn rest_gives_a_burst_again_and_no_more() {
        let now = start();
        let mut bucket = TokenBucket::full(now, 20, EVERY);
        // A bucket that was full did not begin to save up before the first token was taken.
        let later = now + EVERY * 10 + MS * 49;
        assert_eq!(taken(&mut bucket, later), 20);
        assert_eq!(taken(&mut bucket, later + MS), 0);
        let late = later + Duration::from_secs(86_400);
        assert_eq!(taken(&mut bucket, late), 20);
    }

    #[test]
    fn who_asks_all_the_time_gets_the_rate() {
        let now = start();
        let mut bucket = TokenBucket::full(now, 4, EVERY);
        let granted = (0..1_000)
            .filter(|n| bucket.take(now + MS * 7 * *n))
            .count();
        assert_eq!(granted, 4 + 6_993 / 50);
    }

    #[test]
    fn the_next_one_is_there_when_it_was_said_to_be_and_not_before() {
        let now = start();
        let mut bucket = TokenBucket::full(now, 2, EVERY);
        assert_eq!(bucket.next(now), now);
        assert_eq!(taken(&mut bucket, now), 2);
        let next = bucket.next(now + MS * 20);
        assert_eq!(next, now + EVERY);
        assert!(!bucket.take(next - MS));
        assert!(bucket.take(next));
    }
}
