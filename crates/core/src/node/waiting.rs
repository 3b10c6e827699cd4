//! Datagrams of a tunnel that has no way at the moment: its channels are gone, and others not open yet.
//!
//! The newest are kept, as many as an `Open` carries, and no longer than a retransmission would take to make them useless.
//! They ride inside the `Open`, or follow as soon as there is a way. Only those of a size that every path carries: a larger
//! one may be QUIC's search for a larger size, and inside an `Open` it would arrive on any path.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use byway_wire::relay::control::{MAX_FIRST, MAX_FIRST_BYTES};

/// What waited for longer is of no use: QUIC has said it again, or a machine slept.
const FRESH: Duration = Duration::from_secs(1);

/// QUIC's least (RFC 9000 section 14).
const MOST: usize = 1_200;
const _: () = assert!(
    MOST * MAX_FIRST <= MAX_FIRST_BYTES,
    "an `Open` carries them"
);

#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// The oldest first, and when each came.
    all: VecDeque<(Instant, Bytes)>,
    /// How many of them an `Open` that is out carries.
    in_open: usize,
}

impl Waiting {
    /// Keeps a datagram. How many had to go for it.
    pub(super) fn push(&mut self, now: Instant, data: Bytes) -> u64 {
        let before = self.all.len();
        self.expire(now);
        if data.is_empty() || data.len() > MOST {
            return 1;
        }
        while self.all.len() >= MAX_FIRST {
            self.pop();
        }
        let dropped = before - self.all.len();
        self.all.push_back((now, data));
        dropped as u64
    }
    /// What rides inside an `Open` that leaves now.
    pub(super) fn ride(&mut self, now: Instant) -> Vec<Bytes> {
        self.expire(now);
        self.in_open = self.all.len();
        self.all.iter().map(|(_, data)| data.clone()).collect()
    }
    /// There is a way: what did not ride.
    pub(super) fn follow(&mut self, now: Instant) -> Vec<Bytes> {
        self.expire(now);
        let rode = std::mem::take(&mut self.in_open);
        let all = std::mem::take(&mut self.all);
        all.into_iter().skip(rode).map(|(_, data)| data).collect()
    }

    fn expire(&mut self, now: Instant) {
        while self.all.front().is_some_and(|(at, _)| *at + FRESH < now) {
            self.pop();
        }
    }
    fn pop(&mut self) {
        self.all.pop_front();
        self.in_open = self.in_open.saturating_sub(1);
    }
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "a virtual clock needs one instant to count from"
)]
mod tests {
    use super::*;

    fn data(n: u8, len: usize) -> Bytes {
        Bytes::from(vec![n; len])
    }
    fn marks(all: &[Bytes]) -> Vec<u8> {
        all.iter().map(|d| d[0]).collect()
    }

    #[test]
    fn the_newest_that_an_open_carries_are_kept() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        let dropped: u64 = (0..6).map(|n| waiting.push(now, data(n, 1_000))).sum();
        assert_eq!(dropped, 2);
        assert_eq!(marks(&waiting.ride(now)), [2, 3, 4, 5]);
    }

    /// A probe of QUIC's MTU search would come through inside an `Open`, and nothing of that size after it.
    #[test]
    fn what_not_every_path_carries_does_not_wait() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        assert_eq!(waiting.push(now, data(1, MOST + 1)), 1);
        assert_eq!(waiting.push(now, data(2, MOST)), 0);
        assert_eq!(marks(&waiting.ride(now)), [2]);
    }

    #[test]
    fn what_rode_does_not_follow_and_rides_again_if_nobody_answered() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        waiting.push(now, data(1, 9));
        assert_eq!(marks(&waiting.ride(now)), [1]);
        waiting.push(now, data(2, 9));
        assert_eq!(marks(&waiting.ride(now)), [1, 2], "another open");
        waiting.push(now, data(3, 9));
        assert_eq!(marks(&waiting.follow(now)), [3]);
        assert!(waiting.follow(now).is_empty());
    }

    #[test]
    fn what_waited_too_long_is_not_said_any_more() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        waiting.push(now, data(1, 9));
        waiting.ride(now);
        waiting.push(now + FRESH, data(2, 9));
        let later = now + FRESH * 3 / 2;
        assert_eq!(marks(&waiting.ride(later)), [2]);
        assert!(waiting.follow(now + FRESH * 3).is_empty());
    }
}
