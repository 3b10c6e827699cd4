//! What one node may send through the relay in a second, all its links and processes together.
//!
//! Two leaky buckets as one number each (GCRA, see `limit`), in bytes and in datagrams. A run of datagrams that comes by UDP and does not
//! fit is dropped; a frame that came by TLS is passed on, and its link is not read for as long as the node is in debt, so that TCP holds
//! the node back. Once in a while the node is told.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use byway_relay_core::io::NodeRate;

/// What may be sent at once beyond the rate: this much of a second of it...
const BURST: Duration = Duration::from_millis(100);
/// ...and at least so much: a few of the largest batches, which leave a node as one.
const LEAST_BYTES: u64 = 256 * 1024;
const LEAST_DATAGRAMS: u64 = 256;
/// Longest debt that a TLS link is made to wait for at once.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(crate) struct Quota {
    started: Instant,
    bytes: Bucket,
    datagrams: Bucket,
    /// It was exceeded since that was last asked.
    exceeded: AtomicBool,
}

/// One budget: nothing is limited while its rate is 0.
#[derive(Debug, Default)]
struct Bucket {
    /// A second's worth.
    rate: AtomicU64,
    burst: AtomicU64,
    /// When all will be paid for, in nanoseconds of our clock.
    whole_at: AtomicU64,
}

impl Bucket {
    fn set(&self, rate: u64, least: u64) {
        let burst = (u128::from(rate) * BURST.as_nanos() / 1_000_000_000) as u64;
        self.burst.store(burst.max(least), Ordering::Relaxed);
        self.rate.store(rate, Ordering::Relaxed);
    }
    fn nanos(amount: u64, rate: u64) -> u64 {
        (u128::from(amount) * 1_000_000_000 / u128::from(rate)) as u64
    }
    /// Pays for `amount`, if that is not too much; else says no and takes nothing.
    fn take(&self, now: u64, amount: u64) -> bool {
        let rate = self.rate.load(Ordering::Relaxed);
        if rate == 0 {
            return true;
        }
        let limit = now + Self::nanos(self.burst.load(Ordering::Relaxed), rate);
        let cost = Self::nanos(amount, rate);
        let paid = self
            .whole_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |whole| {
                let next = whole.max(now) + cost;
                (next <= limit).then_some(next)
            });
        paid.is_ok()
    }
    /// Pays for `amount` whatever it costs; how long until the burst is not exceeded any more.
    fn charge(&self, now: u64, amount: u64) -> Duration {
        let rate = self.rate.load(Ordering::Relaxed);
        if rate == 0 {
            return Duration::ZERO;
        }
        let limit = now + Self::nanos(self.burst.load(Ordering::Relaxed), rate);
        let cost = Self::nanos(amount, rate);
        let before = self
            .whole_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |whole| {
                Some(whole.max(now) + cost)
            });
        let whole = before.unwrap_or_else(|w| w).max(now) + cost;
        Duration::from_nanos(whole.saturating_sub(limit))
    }
    fn refund(&self, amount: u64) {
        let rate = self.rate.load(Ordering::Relaxed);
        if rate > 0 {
            self.whole_at
                .fetch_sub(Self::nanos(amount, rate), Ordering::Relaxed);
        }
    }
}

impl Quota {
    pub(crate) fn new(started: Instant) -> Self {
        Self {
            started,
            bytes: Bucket::default(),
            datagrams: Bucket::default(),
            exceeded: AtomicBool::new(false),
        }
    }
    /// What the node may send from now on.
    pub(crate) fn set(&self, rate: NodeRate) {
        self.bytes.set(rate.bytes.unwrap_or(0), LEAST_BYTES);
        let datagrams = rate.datagrams.unwrap_or(0);
        self.datagrams.set(datagrams, LEAST_DATAGRAMS);
    }
    fn is_limited(&self) -> bool {
        let limited = |bucket: &Bucket| bucket.rate.load(Ordering::Relaxed) > 0;
        limited(&self.bytes) || limited(&self.datagrams)
    }
    fn now(&self) -> u64 {
        // A clock is asked only where there is a limit.
        self.started.elapsed().as_nanos() as u64
    }
    /// True if so much may be passed on.
    pub(crate) fn take(&self, datagrams: u64, bytes: u64) -> bool {
        if !self.is_limited() {
            return true;
        }
        let now = self.now();
        if self.datagrams.take(now, datagrams) {
            if self.bytes.take(now, bytes) {
                return true;
            }
            self.datagrams.refund(datagrams);
        }
        self.exceeded.store(true, Ordering::Relaxed);
        false
    }
    /// So much was passed on; for how long nothing more of the node's is to be read.
    pub(crate) fn charge(&self, datagrams: u64, bytes: u64) -> Duration {
        if !self.is_limited() {
            return Duration::ZERO;
        }
        let now = self.now();
        let wait = self.datagrams.charge(now, datagrams);
        let wait = wait.max(self.bytes.charge(now, bytes));
        if !wait.is_zero() {
            self.exceeded.store(true, Ordering::Relaxed);
        }
        wait.min(LONGEST_PAUSE)
    }
    /// True if it was exceeded since the last call.
    pub(crate) fn was_exceeded(&self) -> bool {
        self.exceeded.swap(false, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(rate: u64, least: u64) -> Bucket {
        let bucket = Bucket::default();
        bucket.set(rate, least);
        bucket
    }
    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let bucket = bucket(1_000, 10);
        // A tenth of a second's worth.
        assert!(bucket.take(0, 100));
        assert!(!bucket.take(0, 1));
        assert!(!bucket.take(SECOND / 100, 11), "10 are saved up");
        assert!(bucket.take(SECOND / 100, 10));
        // An hour of silence saves up no more than a burst.
        assert!(!bucket.take(3_600 * SECOND, 101));
        assert!(bucket.take(3_600 * SECOND, 100));
    }

    #[test]
    fn what_was_passed_on_anyway_is_waited_for() {
        let bucket = bucket(1_000, 10);
        assert_eq!(bucket.charge(0, 100), Duration::ZERO);
        assert_eq!(bucket.charge(0, 500), Duration::from_millis(500));
        assert_eq!(bucket.charge(SECOND / 2, 0), Duration::ZERO);
        assert!(!bucket.take(SECOND / 2, 1));
    }

    #[test]
    fn without_a_rate_nothing_is_limited() {
        let quota = Quota::new(Instant::now());
        assert!((0..100).all(|_| quota.take(u64::MAX / 2, u64::MAX / 2)));
        assert_eq!(quota.charge(u64::MAX, u64::MAX), Duration::ZERO);
        assert!(!quota.was_exceeded());
    }

    #[test]
    fn either_limit_holds_and_what_one_refuses_is_not_taken_from_the_other() {
        let quota = Quota::new(Instant::now());
        quota.set(NodeRate {
            bytes: Some(1),
            datagrams: Some(1),
        });
        assert!(quota.take(200, 1_000));
        assert!(!quota.take(1, LEAST_BYTES), "bytes");
        assert!(quota.take(56, 1_000), "the datagrams are still there");
        assert!(!quota.take(1, 1), "datagrams");
        assert!(quota.was_exceeded() && !quota.was_exceeded());
    }
}
