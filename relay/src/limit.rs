//! Budgets: for what the relay does for people it does not know, and for what nodes may send (`quota`).
//!
//! GCRA, the leaky bucket as one number: the time at which the budget would be whole again. A request is granted if
//! that time is not more than the burst ahead of now, and pushes it one interval further. One atomic is a whole bucket.
//!
//! A [`PrefixLimiter`] has a fixed number of buckets and finds a prefix's by a keyed hash, so that no flood of addresses
//! can make it grow, and nobody can choose addresses that share a victim's bucket.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Buckets of a prefix limiter: 32 KiB, and a collision for one in forty of a hundred busy prefixes.
const BUCKETS: usize = 4_096;

/// One budget.
#[derive(Debug, Default)]
pub(crate) struct Bucket(AtomicU64);

/// So many a second, and so many at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    per_second: NonZeroU64,
    burst: u64,
}

impl Rate {
    /// None for none a second.
    pub(crate) const fn new(per_second: u64, burst: u64) -> Option<Self> {
        match NonZeroU64::new(per_second) {
            Some(per_second) => Some(Self { per_second, burst }),
            None => None,
        }
    }
    /// The same for a number that is written in the program. Panics for none a second: while it is compiled, where it is a constant.
    pub(crate) const fn per_second(per_second: u64, burst: u64) -> Self {
        Self::new(per_second, burst).expect("a rate")
    }
    /// For how long `amount` is good.
    fn nanos(self, amount: u64) -> u64 {
        let nanos = u128::from(amount) * 1_000_000_000 / u128::from(self.per_second.get());
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }
}

impl Bucket {
    /// True if `amount` is left at `now_ns`; takes it.
    pub(crate) fn take(&self, rate: Rate, now_ns: u64, amount: u64) -> bool {
        let limit = now_ns.saturating_add(rate.nanos(rate.burst));
        let cost = rate.nanos(amount);
        let taken = self.update(|whole_at| {
            let next = whole_at.max(now_ns).saturating_add(cost);
            (next <= limit).then_some(next)
        });
        taken.is_ok()
    }
    /// Takes `amount` whether it is left or not.
    pub(crate) fn charge(&self, rate: Rate, now_ns: u64, amount: u64) {
        let cost = rate.nanos(amount);
        let _ = self.update(|whole_at| Some(whole_at.max(now_ns).saturating_add(cost)));
    }
    /// Gives `amount` back.
    pub(crate) fn refund(&self, rate: Rate, amount: u64) {
        let cost = rate.nanos(amount);
        let _ = self.update(|whole_at| Some(whole_at.saturating_sub(cost)));
    }
    /// How long until no more is taken than the burst allows.
    pub(crate) fn debt(&self, rate: Rate, now_ns: u64) -> Duration {
        let limit = now_ns.saturating_add(rate.nanos(rate.burst));
        let whole_at = self.0.load(Ordering::Relaxed);
        Duration::from_nanos(whole_at.saturating_sub(limit))
    }
    /// True if nothing is taken that is not paid for.
    pub(crate) fn is_whole(&self, now_ns: u64) -> bool {
        self.0.load(Ordering::Relaxed) <= now_ns
    }
    fn update(&self, next: impl FnMut(u64) -> Option<u64>) -> Result<u64, u64> {
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
    }
}

/// How much of an address names one customer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prefix {
    v4: u8,
    v6: u8,
}

impl Prefix {
    /// A small network: what one spoofer or one crowd behind a NAT has.
    pub(crate) const NETWORK: Prefix = Prefix { v4: 24, v6: 56 };
    /// One host.
    pub(crate) const HOST: Prefix = Prefix { v4: 32, v6: 64 };
    /// All that one customer is given: of IPv6 65,536 networks.
    pub(crate) const SITE: Prefix = Prefix { v4: 32, v6: 48 };

    /// The prefix of an address, and its family.
    pub(crate) fn of(self, ip: IpAddr) -> (bool, u128) {
        match ip {
            IpAddr::V4(ip) => (true, u128::from(ip.to_bits() >> (32 - self.v4))),
            IpAddr::V6(ip) => (false, ip.to_bits() >> (128 - self.v6)),
        }
    }
}

/// One budget a prefix, and one for all together.
#[derive(Debug)]
pub(crate) struct PrefixLimiter {
    prefix: Prefix,
    each: Rate,
    all: Rate,
    total: Bucket,
    buckets: Box<[Bucket]>,
    hasher: RandomState,
    started: Instant,
}

impl PrefixLimiter {
    pub(crate) fn new(started: Instant, prefix: Prefix, each: Rate, all: Rate) -> Self {
        Self {
            prefix,
            each,
            all,
            total: Bucket::default(),
            buckets: (0..BUCKETS).map(|_| Bucket::default()).collect(),
            hasher: RandomState::new(),
            started,
        }
    }
    /// True if `ip` has budget left; takes one.
    pub(crate) fn take(&self, now: Instant, ip: IpAddr) -> bool {
        let now_ns = now.saturating_duration_since(self.started).as_nanos() as u64;
        let hash = self.hasher.hash_one(self.prefix.of(ip));
        let bucket = &self.buckets[hash as usize % BUCKETS];
        bucket.take(self.each, now_ns, 1) && self.total.take(self.all, now_ns, 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN: Rate = Rate::per_second(10, 10);

    #[test]
    fn a_burst_is_granted_and_then_the_rate() {
        let bucket = Bucket::default();
        assert_eq!((0..20).filter(|_| bucket.take(TEN, 0, 1)).count(), 10);
        assert!(!bucket.take(TEN, 99_999_999, 1));
        assert!(bucket.take(TEN, 100_000_000, 1));
        assert!(!bucket.take(TEN, 100_000_000, 1));
        // Ten seconds of silence give a burst, not a hundred.
        let later = 10_000_000_000;
        assert_eq!((0..20).filter(|_| bucket.take(TEN, later, 1)).count(), 10);
    }

    #[test]
    fn what_is_taken_in_excess_is_owed_and_no_amount_is_too_much_to_count() {
        let (bucket, rate) = (Bucket::default(), Rate::per_second(1_000, 100));
        bucket.charge(rate, 0, 100);
        assert_eq!(bucket.debt(rate, 0), Duration::ZERO);
        bucket.charge(rate, 0, 500);
        assert_eq!(bucket.debt(rate, 0), Duration::from_millis(500));
        let later = 500_000_000;
        assert_eq!(bucket.debt(rate, later), Duration::ZERO);
        assert!(!bucket.take(rate, later, 1) && !bucket.is_whole(later));
        bucket.refund(rate, 100);
        assert!(bucket.take(rate, later, 100));
        assert!(bucket.is_whole(600_000_000));
        bucket.charge(rate, 0, u64::MAX);
        bucket.charge(rate, later, u64::MAX);
        assert!(!bucket.take(rate, later, 1) && !bucket.take(rate, later, u64::MAX));
        bucket.refund(rate, u64::MAX);
        assert!(bucket.is_whole(0));
        assert!(Rate::new(0, 9).is_none());
    }

    #[test]
    fn a_prefix_has_one_budget_and_another_prefix_its_own() {
        let now = Instant::now();
        let all = Rate::per_second(1_000, 1_000);
        let limiter = PrefixLimiter::new(now, Prefix::NETWORK, TEN, all);
        let granted = (0..=255u8)
            .filter(|n| limiter.take(now, [192, 0, 2, *n].into()))
            .count();
        assert_eq!(granted, 10);
        assert!(limiter.take(now, [198, 51, 100, 1].into()));
        let v6 = |n: u16| IpAddr::from([0x2001, 0xdb8, 0, n, 0, 0, 0, 1]);
        let granted = (0..=255).filter(|n| limiter.take(now, v6(*n))).count();
        assert_eq!(granted, 10, "a /56 is one customer");
        assert!(limiter.take(now + Duration::from_secs(1), v6(0)));
    }

    #[test]
    fn all_prefixes_together_have_a_budget() {
        let now = Instant::now();
        let limiter = PrefixLimiter::new(now, Prefix::NETWORK, TEN, Rate::per_second(20, 20));
        let granted = (0..=255u8)
            .filter(|n| limiter.take(now, [10, 0, *n, 1].into()))
            .count();
        assert_eq!(granted, 20);
    }
}
