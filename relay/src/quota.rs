//! What one node may send through the relay in a second, all its links and processes together.
//!
//! Two leaky buckets as one number each (GCRA, see `limit`), in bytes and in datagrams. A run of datagrams that comes by UDP and does not
//! fit is dropped; a frame that came by TLS is passed on, and its link is not read for as long as the node is in debt, so that TCP holds
//! the node back. Once in a while the node is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use byway_relay_core::io::NodeRate;
use tokio::sync::Notify;

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
    /// Rung when it is exceeded.
    bell: Arc<Notify>,
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
        let nanos = u128::from(amount) * 1_000_000_000 / u128::from(rate);
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }
    /// Pays for `amount`, if that is not too much; else says no and takes nothing.
    fn take(&self, now: u64, amount: u64) -> bool {
        let rate = self.rate.load(Ordering::Relaxed);
        if rate == 0 {
            return true;
        }
        let limit = now.saturating_add(Self::nanos(self.burst.load(Ordering::Relaxed), rate));
        let cost = Self::nanos(amount, rate);
        let paid = self
            .whole_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |whole| {
                let next = whole.max(now).saturating_add(cost);
                (next <= limit).then_some(next)
            });
        paid.is_ok()
    }
    /// How long until the burst is not exceeded any more.
    fn debt(&self, now: u64) -> Duration {
        let rate = self.rate.load(Ordering::Relaxed);
        if rate == 0 {
            return Duration::ZERO;
        }
        let limit = now.saturating_add(Self::nanos(self.burst.load(Ordering::Relaxed), rate));
        let whole = self.whole_at.load(Ordering::Relaxed);
        Duration::from_nanos(whole.saturating_sub(limit))
    }
    /// Pays for `amount` whatever it costs; what it owes then.
    fn charge(&self, now: u64, amount: u64) -> Duration {
        let rate = self.rate.load(Ordering::Relaxed);
        if rate == 0 {
            return Duration::ZERO;
        }
        let cost = Self::nanos(amount, rate);
        // The closure always gives something.
        let _ = self
            .whole_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |whole| {
                Some(whole.max(now).saturating_add(cost))
            });
        self.debt(now)
    }
    fn refund(&self, amount: u64) {
        let rate = self.rate.load(Ordering::Relaxed);
        if rate > 0 {
            let cost = Self::nanos(amount, rate);
            let _ = self
                .whole_at
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |whole| {
                    Some(whole.saturating_sub(cost))
                });
        }
    }
}

impl Quota {
    pub(crate) fn new(started: Instant, bell: Arc<Notify>) -> Self {
        Self {
            started,
            bytes: Bucket::default(),
            datagrams: Bucket::default(),
            exceeded: AtomicBool::new(false),
            bell,
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
        self.note();
        false
    }
    /// So much of the node's is to be passed on: for how long nothing more is to be read then. None if it owes so much already that this is not to be
    /// passed on: otherwise a node with many links would be passed a frame of each after every pause.
    pub(crate) fn charge(&self, datagrams: u64, bytes: u64) -> Option<Duration> {
        if !self.is_limited() {
            return Some(Duration::ZERO);
        }
        let now = self.now();
        if self.datagrams.debt(now).max(self.bytes.debt(now)) > LONGEST_PAUSE {
            self.note();
            return None;
        }
        let wait = self.datagrams.charge(now, datagrams);
        let wait = wait.max(self.bytes.charge(now, bytes));
        if !wait.is_zero() {
            self.note();
        }
        Some(wait.min(LONGEST_PAUSE))
    }
    /// True if it owes nothing: forgetting it forgives nothing.
    pub(crate) fn is_paid(&self) -> bool {
        let now = self.now();
        let paid = |bucket: &Bucket| bucket.whole_at.load(Ordering::Relaxed) <= now;
        paid(&self.bytes) && paid(&self.datagrams)
    }
    fn note(&self) {
        if !self.exceeded.swap(true, Ordering::Relaxed) {
            self.bell.notify_one();
        }
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
    fn who_owes_more_than_a_pause_is_passed_nothing_on_whatever_its_rate() {
        let quota = Quota::new(Instant::now(), Arc::default());
        quota.set(NodeRate {
            bytes: Some(1),
            datagrams: None,
        });
        assert_eq!(quota.charge(1, LEAST_BYTES + 100), Some(LONGEST_PAUSE));
        assert!((0..1_000).all(|_| quota.charge(1, u64::MAX).is_none()));
        assert!(!quota.is_paid() && quota.was_exceeded());
        quota.bytes.refund(u64::MAX);
        assert!(quota.is_paid());
    }

    #[test]
    fn without_a_rate_nothing_is_limited() {
        let quota = Quota::new(Instant::now(), Arc::default());
        assert!((0..100).all(|_| quota.take(u64::MAX / 2, u64::MAX / 2)));
        assert_eq!(quota.charge(u64::MAX, u64::MAX), Some(Duration::ZERO));
        assert!(quota.is_paid());
        assert!(!quota.was_exceeded());
    }

    #[test]
    fn either_limit_holds_and_what_one_refuses_is_not_taken_from_the_other() {
        let quota = Quota::new(Instant::now(), Arc::default());
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
