//! Who loses what when a shard gets more than it can send.
//!
//! A shard that cannot keep up would lose what does not fit into its socket, from everybody alike: a terminal beside a flood loses as large
//! a part of its few datagrams as the flood of its many. Most of the cost of a datagram is in sending it, so a shard that is
//! behind (every receive of the last 5 ms had something at once, and as many buffers as it asked for) receives all and sends less: in each round of 5 ms no source may send more than
//! the share, and what it sends beyond is dropped. The share shrinks while the shard stays behind and grows once it has caught up, so that
//! it settles where all shares together are what the shard can do: the busiest lose, and as much as each other, and who stays below loses
//! nothing (max-min fairness). When nobody loses anything any more, nothing is counted any more either.
//!
//! A shard that sends next to nothing of what it sees (junk that is dropped on sight, or what is beyond the shares already) is behind with
//! receiving. To send less would not help it, so that the share stays as it is.
//!
//! A source is an address. Tables are of a fixed size and found by a keyed hash: sources that share a place share a share, and nobody
//! can choose with whom.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Full receives for this long are more than a burst (design section 7)...
const BEHIND: Duration = Duration::from_millis(5);
/// ...and this long a share is good for.
const ROUND: Duration = Duration::from_millis(5);
/// Places for sources: with a hundred busy ones, one in forty shares its place.
const PLACES: usize = 4_096;
/// What a source may send falls to this part of what the busiest one sent while the shard stays behind, in percent, and rises to this
/// part of itself once it does not.
const SHRINK: u64 = 80;
const GROW: u64 = 125;
/// A shard that sends less than one datagram in so many that it sees spends its time on receiving.
const SENT_OF_SEEN: u64 = 8;
/// Datagrams of one source that a round sends however bad it is, 3,200 a second: people who type, talk or are seen stay below it.
const LEAST: u64 = 16;

/// The shares of one shard.
#[derive(Debug)]
pub(crate) struct Shares {
    hasher: RandomState,
    /// Since when every receive gave all that it asked for, at once.
    full_since: Option<Instant>,
    shedding: Option<Shedding>,
}

#[derive(Debug)]
struct Shedding {
    round_began: Instant,
    /// What each source may send in a round.
    share: u64,
    /// Datagrams sent in this round, by place; the round's number tells old counts apart.
    places: Box<[(u32, u32)]>,
    round: u32,
    /// What the busiest source sent in this round.
    most: u64,
    /// What was received in this round, and what all sources sent.
    seen: u64,
    sent: u64,
    dropped: bool,
    /// A receive of this round was not full: the socket was empty.
    caught_up: bool,
}

impl Shares {
    pub(crate) fn new() -> Self {
        Self {
            hasher: RandomState::new(),
            full_since: None,
            shedding: None,
        }
    }

    /// A receive gave a batch, full or not. `now` is asked for only when it matters.
    pub(crate) fn received(&mut self, full: bool, now: impl FnOnce() -> Instant) {
        match &mut self.shedding {
            None if !full => self.full_since = None,
            None => {
                let now = now();
                let since = *self.full_since.get_or_insert(now);
                if now.saturating_duration_since(since) >= BEHIND {
                    self.shedding = Some(Shedding::new(now));
                }
            }
            Some(shedding) => {
                shedding.caught_up |= !full;
                let now = now();
                if now.saturating_duration_since(shedding.round_began) >= ROUND
                    && !shedding.next(now)
                {
                    (self.shedding, self.full_since) = (None, None);
                }
            }
        }
    }

    /// So many datagrams were received, of whatever kind.
    pub(crate) fn see(&mut self, count: u64) {
        if let Some(shedding) = &mut self.shedding {
            shedding.seen += count;
        }
    }

    /// How many of `count` datagrams of a source may be sent: all of them, unless the shard is behind.
    pub(crate) fn take(&mut self, source: SocketAddr, count: u64) -> u64 {
        match &mut self.shedding {
            None => count,
            Some(shedding) => {
                let place = self.hasher.hash_one(source) as usize % PLACES;
                shedding.take(place, count)
            }
        }
    }

    /// True while shares are dealt out.
    pub(crate) fn is_shedding(&self) -> bool {
        self.shedding.is_some()
    }
}

impl Shedding {
    /// The first round counts and lets pass, so that the second knows who is busy.
    fn new(now: Instant) -> Self {
        Self {
            round_began: now,
            share: u64::MAX,
            places: vec![(0, 0); PLACES].into(),
            round: 1,
            most: 0,
            seen: 0,
            sent: 0,
            dropped: false,
            caught_up: false,
        }
    }

    fn take(&mut self, place: usize, count: u64) -> u64 {
        let (round, sent) = &mut self.places[place];
        if *round != self.round {
            (*round, *sent) = (self.round, 0);
        }
        let granted = count.min(self.share.saturating_sub(u64::from(*sent)));
        *sent = sent.saturating_add(u32::try_from(granted).unwrap_or(u32::MAX));
        self.most = self.most.max(u64::from(*sent));
        self.sent += granted;
        self.dropped |= granted < count;
        granted
    }

    /// A round is over. False if no more are needed.
    fn next(&mut self, now: Instant) -> bool {
        if self.caught_up {
            if !self.dropped {
                return false;
            }
            self.share = self.share.saturating_mul(GROW) / 100;
        } else if self.sent >= self.seen / SENT_OF_SEEN {
            self.share = (self.share.min(self.most) * SHRINK / 100).max(LEAST);
        }
        self.round_began = now;
        self.round = self.round.wrapping_add(1).max(1);
        (self.most, self.seen, self.sent) = (0, 0, 0);
        (self.dropped, self.caught_up) = (false, false);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many sources that do not share a place, which some of a few hundred would.
    fn sources_of(shares: &Shares, count: usize) -> Vec<SocketAddr> {
        let mut taken = std::collections::HashSet::new();
        let all = (1..).map(|n| SocketAddr::from(([192, 0, 2, 1], n)));
        let apart = all.filter(|a| taken.insert(shares.hasher.hash_one(a) as usize % PLACES));
        apart.take(count).collect()
    }

    /// A shard that can send so many datagrams in a round, and gets so many from each source; what each got through, of how many, in the
    /// last of `rounds`. What it does not get to stays in front of it, so that it is behind.
    fn rounds(
        shares: &mut Shares,
        capacity: u64,
        sources: &[u64],
        rounds: usize,
    ) -> Vec<(u64, u64)> {
        let began = shares.shedding.as_ref().map(|s| s.round_began);
        let mut now = began.unwrap_or_else(Instant::now);
        let mut last = Vec::new();
        let addrs = sources_of(shares, sources.len());
        for _ in 0..rounds {
            let began = now;
            let mut sent = vec![0; sources.len()];
            let most = sources.iter().max().copied().unwrap_or(0);
            // Datagram by datagram, as they would arrive.
            for n in 0..most {
                for (source, count) in sources.iter().enumerate() {
                    // Evenly over the round.
                    if n * count / most != (n + 1) * count / most {
                        shares.see(1);
                        sent[source] += shares.take(addrs[source], 1);
                    }
                }
            }
            let all: u64 = sent.iter().sum();
            let behind = all > capacity;
            // Sending is what takes time.
            now = began
                + ROUND * u32::try_from(all.max(capacity)).unwrap()
                    / u32::try_from(capacity).unwrap();
            shares.received(behind, || now);
            last = sent.into_iter().zip(sources.iter().copied()).collect();
        }
        last
    }

    #[test]
    fn a_shard_that_keeps_up_drops_nothing() {
        let mut shares = Shares::new();
        let sent = rounds(&mut shares, 1_000, &[900, 10], 100);
        assert_eq!(sent, [(900, 900), (10, 10)]);
        assert!(!shares.is_shedding());
    }

    #[test]
    fn a_flood_loses_its_excess_and_who_has_little_to_say_loses_nothing() {
        let mut shares = Shares::new();
        let sent = rounds(&mut shares, 1_000, &[2_000, 10, 3], 200);
        assert_eq!(&sent[1..], [(10, 10), (3, 3)]);
        let (flood, _) = sent[0];
        assert!((600..=1_300).contains(&flood), "{flood}");
    }

    #[test]
    fn what_the_quiet_ones_leave_is_for_the_busy_one() {
        let mut shares = Shares::new();
        let sources: Vec<u64> = std::iter::once(3_000).chain([2; 300]).collect();
        let sent = rounds(&mut shares, 1_000, &sources, 200);
        assert!(sent[1..].iter().all(|(sent, of)| sent == of));
        assert!(sent[0].0 >= 250, "{:?}", sent[0]);
    }

    #[test]
    fn two_floods_have_as_much_as_each_other_whoever_sends_more() {
        let mut shares = Shares::new();
        let sent = rounds(&mut shares, 1_000, &[4_000, 1_000], 200);
        let (more, less) = (sent[0].0, sent[1].0);
        assert!(more <= less * 11 / 10 && less <= more * 11 / 10, "{sent:?}");
    }

    #[test]
    fn when_the_flood_is_over_nothing_is_dropped_any_more() {
        let mut shares = Shares::new();
        rounds(&mut shares, 1_000, &[2_000, 10], 50);
        assert!(shares.is_shedding());
        let sent = rounds(&mut shares, 1_000, &[300, 10], 50);
        assert_eq!(sent, [(300, 300), (10, 10)]);
        assert!(!shares.is_shedding());
    }

    #[test]
    fn junk_that_is_never_sent_costs_nobody_anything() {
        let mut shares = Shares::new();
        let [busy, other] = [5_001, 5_002].map(|port| SocketAddr::from(([192, 0, 2, 1], port)));
        let mut now = Instant::now();
        for _ in 0..100 {
            shares.see(10_000);
            assert_eq!((shares.take(busy, 500), shares.take(other, 20)), (500, 20));
            now += ROUND;
            shares.received(true, || now);
        }
        assert!(shares.is_shedding());
    }

    #[test]
    fn a_burst_is_no_overload() {
        let mut shares = Shares::new();
        let now = Instant::now();
        shares.received(true, || now);
        shares.received(true, || now + BEHIND / 2);
        shares.received(false, || unreachable!("nobody asks for the time"));
        shares.received(true, || now + BEHIND);
        assert!(!shares.is_shedding());
        shares.received(true, || now + BEHIND * 2);
        assert!(shares.is_shedding());
    }
}
