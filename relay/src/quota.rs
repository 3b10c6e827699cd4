//! What one node may send through the relay in a second, all its links and processes together.
//!
//! Two buckets (see `limit`), in bytes and in datagrams. A run of datagrams that comes by UDP and does not fit is dropped. A frame that
//! comes by TLS is passed on, and its link is not read for as long as the node is in debt, so that TCP holds the node back; it is dropped
//! only if the node's other links have made the debt longer than one pause. Once in a while the node is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use byway_relay_core::io::NodeRate;
use tokio::sync::Notify;

use crate::limit::{Bucket, Rate};

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
    bytes: Budget,
    datagrams: Budget,
    /// It was exceeded since that was last asked.
    exceeded: AtomicBool,
    /// Rung when it is exceeded.
    bell: Arc<Notify>,
}

/// What becomes of what came by TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Verdict {
    /// It is passed on.
    pub(crate) passes: bool,
    /// For how long nothing more of its link is to be read.
    pub(crate) pause: Duration,
}

/// One budget, of which nothing is limited while there is no rate. Both numbers may change while it is used.
#[derive(Debug, Default)]
struct Budget {
    per_second: AtomicU64,
    burst: AtomicU64,
    bucket: Bucket,
}

impl Budget {
    fn set(&self, per_second: Option<u64>, least: u64) {
        let rate = per_second.unwrap_or(0);
        let burst = (u128::from(rate) * BURST.as_nanos() / 1_000_000_000) as u64;
        self.burst.store(burst.max(least), Ordering::Relaxed);
        self.per_second.store(rate, Ordering::Relaxed);
    }
    fn rate(&self) -> Option<Rate> {
        let read = |n: &AtomicU64| n.load(Ordering::Relaxed);
        Rate::new(read(&self.per_second), read(&self.burst))
    }
    fn take(&self, now: u64, amount: u64) -> bool {
        let rate = self.rate();
        rate.is_none_or(|rate| self.bucket.take(rate, now, amount))
    }
    fn debt(&self, now: u64) -> Duration {
        let rate = self.rate();
        rate.map_or(Duration::ZERO, |rate| self.bucket.debt(rate, now))
    }
    fn charge(&self, now: u64, amount: u64) {
        if let Some(rate) = self.rate() {
            self.bucket.charge(rate, now, amount);
        }
    }
    fn refund(&self, amount: u64) {
        if let Some(rate) = self.rate() {
            self.bucket.refund(rate, amount);
        }
    }
}

impl Quota {
    pub(crate) fn new(started: Instant, bell: Arc<Notify>) -> Self {
        Self {
            started,
            bytes: Budget::default(),
            datagrams: Budget::default(),
            exceeded: AtomicBool::new(false),
            bell,
        }
    }
    /// What the node may send from now on.
    pub(crate) fn set(&self, rate: NodeRate) {
        self.bytes.set(rate.bytes, LEAST_BYTES);
        self.datagrams.set(rate.datagrams, LEAST_DATAGRAMS);
    }
    fn is_limited(&self) -> bool {
        self.bytes.rate().is_some() || self.datagrams.rate().is_some()
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
    /// So much of the node's came by a link that can be made to wait.
    pub(crate) fn charge(&self, datagrams: u64, bytes: u64) -> Verdict {
        if !self.is_limited() {
            return Verdict {
                passes: true,
                pause: Duration::ZERO,
            };
        }
        let now = self.now();
        // Otherwise a node with many links would be passed a frame of each after every pause.
        let passes = self.debt(now) <= LONGEST_PAUSE;
        if passes {
            self.datagrams.charge(now, datagrams);
            self.bytes.charge(now, bytes);
        }
        let pause = self.debt(now).min(LONGEST_PAUSE);
        if !pause.is_zero() {
            self.note();
        }
        Verdict { passes, pause }
    }
    fn debt(&self, now: u64) -> Duration {
        self.datagrams.debt(now).max(self.bytes.debt(now))
    }
    /// True if it owes nothing: forgetting it forgives nothing.
    pub(crate) fn is_paid(&self) -> bool {
        let now = self.now();
        self.bytes.bucket.is_whole(now) && self.datagrams.bucket.is_whole(now)
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

    #[test]
    fn the_burst_is_a_tenth_of_a_second_and_never_less_than_a_few_batches() {
        let budget = Budget::default();
        budget.set(Some(1_000), 10);
        assert!(budget.take(0, 100) && !budget.take(0, 1));
        // An hour of silence saves up no more than a burst.
        let hour = 3_600_000_000_000;
        assert!(!budget.take(hour, 101) && budget.take(hour, 100));
        let budget = Budget::default();
        budget.set(Some(1_000), 500);
        assert!(budget.take(0, 500) && !budget.take(0, 1));
    }

    #[test]
    fn who_owes_more_than_a_pause_is_passed_nothing_on_whatever_its_rate() {
        let quota = Quota::new(Instant::now(), Arc::default());
        quota.set(NodeRate {
            bytes: Some(1),
            datagrams: None,
        });
        let pause = LONGEST_PAUSE;
        let first = quota.charge(1, LEAST_BYTES + 100);
        assert_eq!((first.passes, first.pause), (true, pause));
        let refused = Verdict {
            passes: false,
            pause,
        };
        assert!((0..1_000).all(|_| quota.charge(1, u64::MAX) == refused));
        assert!(!quota.is_paid() && quota.was_exceeded());
        quota.bytes.refund(u64::MAX);
        assert!(quota.is_paid());
    }

    #[test]
    fn without_a_rate_nothing_is_limited() {
        let quota = Quota::new(Instant::now(), Arc::default());
        assert!((0..100).all(|_| quota.take(u64::MAX / 2, u64::MAX / 2)));
        let free = quota.charge(u64::MAX, u64::MAX);
        assert!(free.passes && free.pause.is_zero());
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
