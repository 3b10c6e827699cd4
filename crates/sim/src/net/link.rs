//! An access link: what happens to datagrams between a site and the middle of the network, one direction at a time.
//!
//! In order: too large for the MTU, dropped (silently, as on paths whose ICMP is filtered); queued behind what is being
//! sent at the link's rate, dropped when the queue is longer than it may be; lost by chance; delayed, with jitter. A
//! datagram may be held back longer (reordered) or come twice. Without reordering, jitter never lets a datagram overtake
//! an earlier one.

use std::time::Duration;

use crate::rng::Rng;

/// One direction of an access link.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct LinkConfig {
    /// One-way delay.
    pub delay: Duration,
    /// Added to the delay, uniform from zero.
    pub jitter: Duration,
    /// Probability that a datagram is lost.
    pub loss: f64,
    /// Probability that a datagram is held back, so that later ones overtake it.
    pub reorder: f64,
    /// Probability that a datagram comes twice.
    pub duplicate: f64,
    /// Largest IP packet, in bytes.
    pub mtu: u16,
    /// Bytes a second; none is unlimited.
    pub rate: Option<u64>,
    /// Longest queue in front of the rate limit.
    pub queue: Duration,
}

impl Default for LinkConfig {
    /// A clean access link: 5 ms (so 20 ms round trip between two sites), 1,500 bytes, 100 Mbit/s with 100 ms of queue.
    fn default() -> Self {
        Self {
            delay: Duration::from_millis(5),
            jitter: Duration::ZERO,
            loss: 0.0,
            reorder: 0.0,
            duplicate: 0.0,
            mtu: 1500,
            rate: Some(12_500_000),
            queue: Duration::from_millis(100),
        }
    }
}

/// Why a link dropped a datagram.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum LinkDrop {
    /// Larger than the MTU.
    Mtu,
    /// The queue was full.
    Queue,
    /// Chance.
    Loss,
}

/// One direction with its state.
#[derive(Debug)]
pub struct Link {
    /// How it behaves; may be changed while running.
    pub config: LinkConfig,
    rng: Rng,
    busy_until: Duration,
    last_arrival: Duration,
}

/// How much longer a reordered datagram takes than its delay: long enough for a few packets to overtake it.
const REORDER_HOLD: Duration = Duration::from_millis(8);

impl Link {
    /// An idle link.
    pub fn new(config: LinkConfig, rng: Rng) -> Self {
        Self {
            config,
            rng,
            busy_until: Duration::ZERO,
            last_arrival: Duration::ZERO,
        }
    }

    /// A packet of `size` bytes with its IP header enters: when it leaves the other end, and when its copy does.
    pub fn pass(
        &mut self,
        now: Duration,
        size: usize,
    ) -> Result<(Duration, Option<Duration>), LinkDrop> {
        let c = self.config;
        if size > usize::from(c.mtu) {
            return Err(LinkDrop::Mtu);
        }
        if self.backlog(now) > c.queue {
            return Err(LinkDrop::Queue);
        }
        let sent = self.reserve(now, size);
        if self.rng.chance(c.loss) {
            return Err(LinkDrop::Loss);
        }
        let mut arrival = sent + c.delay + self.rng.up_to(c.jitter);
        if self.rng.chance(c.reorder) {
            arrival += self.rng.up_to(REORDER_HOLD);
        } else {
            arrival = arrival.max(self.last_arrival);
            self.last_arrival = arrival;
        }
        let copy = self
            .rng
            .chance(c.duplicate)
            .then(|| arrival + self.rng.up_to(REORDER_HOLD));
        Ok((arrival, copy))
    }

    /// How long the queue in front of the rate limit is.
    pub fn backlog(&self, now: Duration) -> Duration {
        self.busy_until.saturating_sub(now)
    }

    /// Takes `size` bytes of the link's rate: when they are on the wire.
    pub fn reserve(&mut self, now: Duration, size: usize) -> Duration {
        let Some(rate) = self.config.rate else {
            return now;
        };
        let nanos = size as u64 * 1_000_000_000 / rate.max(1);
        self.busy_until = self.busy_until.max(now) + Duration::from_nanos(nanos);
        self.busy_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(config: LinkConfig) -> Link {
        Link::new(config, Rng::new(1, "link test"))
    }
    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_clean_unlimited_link_only_delays() {
        let mut l = link(LinkConfig {
            rate: None,
            ..LinkConfig::default()
        });
        assert_eq!(l.pass(10 * MS, 1500), Ok((15 * MS, None)));
    }

    #[test]
    fn a_packet_above_the_mtu_is_dropped_and_one_of_its_size_is_not() {
        let mut l = link(LinkConfig {
            mtu: 1280,
            ..LinkConfig::default()
        });
        assert_eq!(l.pass(MS, 1281), Err(LinkDrop::Mtu));
        assert!(l.pass(MS, 1280).is_ok());
    }

    #[test]
    fn a_burst_queues_at_the_rate_and_overflows_when_the_queue_is_full() {
        let mut l = link(LinkConfig {
            rate: Some(1_000_000),
            queue: 10 * MS,
            ..LinkConfig::default()
        });
        let results: Vec<_> = (0..20).map(|_| l.pass(Duration::ZERO, 1000)).collect();
        assert_eq!(results[0], Ok((6 * MS, None)), "1 ms to send, 5 ms delay");
        assert_eq!(results[1], Ok((7 * MS, None)));
        assert_eq!(results[19], Err(LinkDrop::Queue));
        let passed = results.iter().filter(|r| r.is_ok()).count();
        assert_eq!(passed, 11, "one on the wire and 10 ms of queue");
    }

    #[test]
    fn jitter_alone_keeps_the_order_and_reordering_breaks_it() {
        let arrivals = |reorder| {
            let mut l = link(LinkConfig {
                jitter: 5 * MS,
                rate: None,
                reorder,
                ..LinkConfig::default()
            });
            let mut out = Vec::new();
            for i in 0..200u32 {
                out.extend(l.pass(i * MS / 10, 100).ok().map(|(at, _)| at));
            }
            out
        };
        assert!(arrivals(0.0).is_sorted());
        assert!(!arrivals(0.2).is_sorted());
    }

    #[test]
    fn loss_and_duplication_come_at_their_rates() {
        let mut l = link(LinkConfig {
            loss: 0.1,
            duplicate: 0.1,
            rate: None,
            ..LinkConfig::default()
        });
        let results: Vec<_> = (0..2000u32).map(|i| l.pass(i * MS, 100)).collect();
        let lost = results.iter().filter(|r| r.is_err()).count();
        let twice = results
            .iter()
            .filter(|r| matches!(r, Ok((_, Some(_)))))
            .count();
        assert!((140..260).contains(&lost), "{lost}");
        assert!((120..260).contains(&twice), "{twice}");
    }
}
