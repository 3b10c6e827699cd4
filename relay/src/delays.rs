//! How long data waits inside the relay, as histograms that cost its way next to nothing: a bucket is an atomic, and nobody takes a
//! lock to add to it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::stats::{add, bump};

/// Upper bounds of the buckets in microseconds, the bound itself included: from what forwarding one batch takes to the age at which a
/// TLS link's data is dropped.
const BOUNDS: [u64; 13] = [
    5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000,
];

/// What is measured.
#[derive(Debug, Default)]
pub(crate) struct Delays {
    /// Data that waited for a TLS link's writer, frame by frame; what was dropped instead is counted as dropped.
    pub(crate) queued: Histogram,
    /// From a batch of datagrams having been read to the last of them having been sent, one batch of many.
    pub(crate) forwarded: Histogram,
}

/// Durations, by how long they were.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    /// The last one has no bound.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    sum_ns: AtomicU64,
}

/// A histogram at one moment, in seconds.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Reading {
    pub(crate) sum: f64,
    pub(crate) count: u64,
    /// Upper bounds, the last one infinite, and how many were in each bucket alone.
    pub(crate) buckets: Vec<(f64, u64)>,
}

impl Histogram {
    /// Two relaxed additions.
    pub(crate) fn observe(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|bound| bound * 1_000 < nanos);
        add(&self.sum_ns, nanos);
        if let Some(bucket) = self.buckets.get(bucket) {
            bump(bucket);
        }
    }

    pub(crate) fn read(&self) -> Reading {
        let bounds = BOUNDS.iter().map(|micros| *micros as f64 / 1e6);
        let counts = self.buckets.iter().map(|n| n.load(Ordering::Relaxed));
        let buckets: Vec<(f64, u64)> = bounds.chain([f64::INFINITY]).zip(counts).collect();
        Reading {
            sum: self.sum_ns.load(Ordering::Relaxed) as f64 / 1e9,
            // Of the buckets as they were read: one that is added meanwhile must not be in one number and not in the other.
            count: buckets.iter().map(|(_, n)| n).sum(),
            buckets,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_in_the_first_bucket_that_holds_it() {
        let histogram = Histogram::default();
        for micros in [0, 5, 6, 50_000, 50_001] {
            histogram.observe(Duration::from_micros(micros));
        }
        let seen = histogram.read();
        let some: Vec<_> = seen.buckets.iter().filter(|(_, n)| *n > 0).collect();
        assert_eq!(
            some,
            [
                &(0.000_005, 2),
                &(0.000_01, 1),
                &(0.05, 1),
                &(f64::INFINITY, 1)
            ]
        );
        assert_eq!(seen.count, 5);
        assert!((seen.sum - 0.100_012).abs() < 1e-9);
    }
}
