//! Datagrams of a tunnel that has no way at the moment: its channels are gone, and others not open yet.
//!
//! The newest are kept, as many as an `Open` carries, and no longer than a retransmission would take to make them useless.
//! They ride inside each `Open`, or follow as soon as there is a way. What rode is not said again on the channel that its
//! `Open` made; any other way may be there before that `Open` arrives, or instead, and gets them all: QUIC drops what comes
//! twice. Only those of a size that every path carries wait: a larger one may be QUIC's search for a larger size, and inside an
//! `Open` it would arrive on any path.

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
    /// How many ever came: the number of the next one.
    next: u64,
}

/// What rode inside an `Open`: of the datagrams that ever waited, all before this number that were still there.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rode(u64);

impl Waiting {
    /// Keeps a datagram. Those that had to go are counted in `dropped`, here and below.
    pub(super) fn push(&mut self, now: Instant, data: Bytes, dropped: &mut u64) {
        self.expire(now, dropped);
        if data.is_empty() || data.len() > MOST {
            *dropped += 1;
            return;
        }
        while self.all.len() >= MAX_FIRST {
            self.all.pop_front();
            *dropped += 1;
        }
        self.all.push_back((now, data));
        self.next += 1;
    }
    /// What rides inside an `Open` that leaves now, and what to remember of it.
    pub(super) fn ride(&mut self, now: Instant, dropped: &mut u64) -> (Rode, Vec<Bytes>) {
        self.expire(now, dropped);
        let all = self.all.iter().map(|(_, data)| data.clone());
        (Rode(self.next), all.collect())
    }
    /// There is a way: what did not ride inside the `Open` that made it.
    pub(super) fn follow(&mut self, now: Instant, rode: Rode, dropped: &mut u64) -> Vec<Bytes> {
        self.expire(now, dropped);
        let oldest = self.next.saturating_sub(self.all.len() as u64);
        let numbered = (oldest..).zip(std::mem::take(&mut self.all));
        let others = numbered.filter(|(number, _)| *number >= rode.0);
        others.map(|(_, (_, data))| data).collect()
    }

    fn expire(&mut self, now: Instant, dropped: &mut u64) {
        while self.all.front().is_some_and(|(at, _)| *at + FRESH < now) {
            self.all.pop_front();
            *dropped += 1;
        }
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

    /// With a count of what was dropped.
    #[derive(Default)]
    struct Counted(Waiting, u64);

    impl Counted {
        fn push(&mut self, now: Instant, n: u8) {
            self.0.push(now, data(n, 9), &mut self.1);
        }
        fn ride(&mut self, now: Instant) -> (Rode, Vec<u8>) {
            let (rode, all) = self.0.ride(now, &mut self.1);
            (rode, marks(&all))
        }
        fn follow(&mut self, now: Instant, rode: Rode) -> Vec<u8> {
            marks(&self.0.follow(now, rode, &mut self.1))
        }
    }

    #[test]
    fn the_newest_that_an_open_carries_are_kept() {
        let (mut waiting, now) = (Counted::default(), Instant::now());
        (0..6).for_each(|n| waiting.push(now, n));
        assert_eq!(waiting.1, 2);
        assert_eq!(waiting.ride(now).1, [2, 3, 4, 5]);
    }

    /// A probe of QUIC's MTU search would come through inside an `Open`, and nothing of that size after it.
    #[test]
    fn what_not_every_path_carries_does_not_wait() {
        let (mut waiting, now) = (Counted::default(), Instant::now());
        waiting.0.push(now, data(1, MOST + 1), &mut waiting.1);
        assert_eq!(waiting.1, 1);
        waiting.0.push(now, data(2, MOST), &mut waiting.1);
        assert_eq!(waiting.1, 1);
        assert_eq!(waiting.ride(now).1, [2]);
    }

    #[test]
    fn what_rode_does_not_follow_and_rides_again_if_nobody_answered() {
        let (mut waiting, now) = (Counted::default(), Instant::now());
        waiting.push(now, 1);
        assert_eq!(waiting.ride(now).1, [1]);
        waiting.push(now, 2);
        let (rode, all) = waiting.ride(now);
        assert_eq!(all, [1, 2], "another open");
        waiting.push(now, 3);
        assert_eq!(waiting.follow(now, rode), [3]);
        assert!(waiting.follow(now, rode).is_empty());
        waiting.push(now, 4);
        assert_eq!(waiting.follow(now, rode), [4], "the same channel again");
        assert_eq!(waiting.1, 0);
    }

    #[test]
    fn of_two_that_are_opened_the_first_that_answers_gets_what_its_own_open_did_not_carry() {
        for answers in [0, 1] {
            let (mut waiting, now) = (Counted::default(), Instant::now());
            (1..=2).for_each(|n| waiting.push(now, n));
            let first = waiting.ride(now).0;
            waiting.push(now, 3);
            let second = waiting.ride(now).0;
            // The oldest makes room, and that changes nothing.
            (4..=5).for_each(|n| waiting.push(now, n));
            let expected: &[u8] = [&[3, 4, 5][..], &[4, 5]][answers];
            assert_eq!(waiting.follow(now, [first, second][answers]), expected);
        }
    }

    #[test]
    fn a_way_that_no_open_made_gets_them_all() {
        let (mut waiting, now) = (Counted::default(), Instant::now());
        waiting.push(now, 1);
        assert_eq!(waiting.ride(now).1, [1]);
        waiting.push(now, 2);
        assert_eq!(waiting.follow(now, Rode::default()), [1, 2]);
    }

    #[test]
    fn what_waited_too_long_is_not_said_any_more_and_counted() {
        let (mut waiting, now) = (Counted::default(), Instant::now());
        waiting.push(now, 1);
        waiting.ride(now);
        waiting.push(now + FRESH, 2);
        let later = now + FRESH * 3 / 2;
        assert_eq!(waiting.ride(later).1, [2]);
        assert_eq!(waiting.1, 1);
        let long_after = now + FRESH * 3;
        waiting
            .0
            .push(long_after, data(3, MOST + 1), &mut waiting.1);
        assert_eq!(waiting.1, 3, "that one, and the one that was too old");
        assert!(waiting.follow(long_after, Rode::default()).is_empty());
    }
}
