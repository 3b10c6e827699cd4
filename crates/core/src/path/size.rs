//! Which datagrams a path carries: pings of every usual size, together.
//!
//! All sizes in question are asked for in one *flight*. Each answer is as long as its ping, so that whatever comes back has
//! proven its size in both directions, and every smaller one. What is larger than the largest that came back goes once more, a
//! round trip and a half later, and if that stays away as well it is too large *for now*: a path of a narrow network is known
//! three round trips after it answered. Beside a lost ping there is always a lost second one, so this errs now and then; such a
//! size is asked for again a second later, then ever more seldom while the tunnel is in use, and an answer that was only late is
//! taken whenever it comes.
//!
//! Where nothing came back at all there is no path to judge by: that is an outage, or a trap for full-size datagrams, and takes
//! more flights and longer ones.

use std::time::{Duration, Instant};

use super::rtt::Rtt;

/// QUIC's minimum datagram size (RFC 9000 section 14): below it no tunnel runs.
pub(crate) const MIN_SIZE: u16 = 1_200;
/// The default largest datagram: 1,444 + 8 + 48 = 1,500 on a relayed IPv6 path (design section 6).
pub(crate) const FULL_SIZE: u16 = 1_444;
/// The sizes tried of each path, least first. Between the two ends: what a network of 1,280 bytes leaves (IPv6's least, and
/// many a VPN's), and of 1,420 (WireGuard's), each less 48 for IPv6 and UDP, and less 28 for IPv4 (36 through a relay). QUIC's
/// own search stops at 1,230 and 1,383 there: a proven size just below what it uses would have every datagram cut in two.
const SIZES: [u16; 6] = [MIN_SIZE, 1_232, 1_252, 1_372, 1_384, FULL_SIZE];

/// A size counts as too large after this many unanswered pings beside one that was answered.
const FLIGHTS: u8 = 2;
/// And a path as none at all after this many of which nothing came back.
const SILENT_FLIGHTS: u8 = 4;
/// First wait of a flight when no round trip is known: longer than most, short beside a handshake.
const UNKNOWN_RTT: Duration = Duration::from_millis(300);
/// Shortest wait for a flight of which nothing came back: an outage may be short.
const SHORTEST_WAIT: Duration = Duration::from_millis(100);
/// An answer may be later than the one before it by half a round trip and this: a full-size datagram is on a line of
/// 1 Mbit/s for so long.
const STRAGGLE: Duration = Duration::from_millis(10);

/// Sizes that were too large are asked for again after this long...
const RETEST: Duration = Duration::from_secs(1);
/// ...doubling to this: chance took the first two only, or an outage did, or the network has changed.
const RETEST_MAX: Duration = Duration::from_secs(30);

/// The test of a path that answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizing {
    /// The largest that came back.
    proven: Option<u16>,
    /// Sent so far.
    flights: u8,
    /// When the latest one is over.
    until: Instant,
}

/// What [`Sizing::advance`] finds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum SizeVerdict {
    /// Nothing yet.
    Waits,
    /// Pings of these sizes are due.
    Asks(Vec<u16>),
    /// So much passes both ways.
    Carries(u16),
    /// Nothing that QUIC could use does.
    CarriesNothing,
}

impl Sizing {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            proven: None,
            flights: 0,
            until: now,
        }
    }
    pub(crate) fn next(&self) -> Instant {
        self.until
    }

    pub(crate) fn advance(&mut self, now: Instant, rtt: Option<Rtt>) -> SizeVerdict {
        match self.proven {
            Some(FULL_SIZE) => return SizeVerdict::Carries(FULL_SIZE),
            _ if now < self.until => return SizeVerdict::Waits,
            Some(size) if self.flights >= FLIGHTS => return SizeVerdict::Carries(size),
            None if self.flights >= SILENT_FLIGHTS => return SizeVerdict::CarriesNothing,
            _ => {}
        }
        self.until = now
            + match (self.proven, rtt) {
                (Some(_), Some(rtt)) => rtt.smoothed + straggle(rtt),
                _ => silence(rtt) * (1 << self.flights),
            };
        self.flights += 1;
        SizeVerdict::Asks(above(self.proven))
    }

    /// A ping of `size` bytes was answered.
    pub(crate) fn answered(&mut self, now: Instant, size: u16, rtt: Rtt) {
        let size = size.min(FULL_SIZE);
        if size < MIN_SIZE || self.proven >= Some(size) {
            return;
        }
        if self.proven.replace(size).is_none() {
            // Before it nothing passed at all, which says nothing of sizes.
            self.flights = self.flights.min(1);
        }
        // The others of its flight are right behind it, or will not come.
        self.until = match size {
            FULL_SIZE => now,
            _ => now + straggle(rtt),
        };
    }
}

/// What a path was found to carry, and when that is looked into again if it is less than all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Carried {
    size: u16,
    retest: Instant,
    rest: Duration,
}

impl Carried {
    pub(crate) fn new(now: Instant, size: u16) -> Self {
        Self {
            size,
            retest: now + RETEST,
            rest: RETEST,
        }
    }
    pub(crate) fn size(&self) -> u16 {
        self.size
    }
    /// None for a path that carries everything.
    pub(crate) fn next(&self) -> Option<Instant> {
        (self.size < FULL_SIZE).then_some(self.retest)
    }
    /// The sizes to ask for again now.
    pub(crate) fn advance(&mut self, now: Instant) -> Vec<u16> {
        if self.next().is_none_or(|at| now < at) {
            return Vec::new();
        }
        self.rest = (self.rest * 2).min(RETEST_MAX);
        self.retest = now + self.rest;
        above(Some(self.size))
    }
    pub(crate) fn answered(&mut self, size: u16) {
        self.size = size.max(self.size).min(FULL_SIZE);
    }
}

/// The sizes that are still in question.
fn above(proven: Option<u16>) -> Vec<u16> {
    let open = |size: &u16| proven < Some(*size);
    SIZES.into_iter().filter(open).collect()
}

/// How long after an answer of a flight another one may come.
fn straggle(rtt: Rtt) -> Duration {
    rtt.variation.max(rtt.smoothed / 2) + STRAGGLE
}

fn silence(rtt: Option<Rtt>) -> Duration {
    rtt.map_or(UNKNOWN_RTT, |rtt| {
        (rtt.smoothed * 2 + rtt.variation * 4).max(SHORTEST_WAIT)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Plays the test over a path that carries so much and takes so long there and back. `lost` says of each ping, by its
    /// flight and size, whether chance takes it. Gives what was found, when, and all flights.
    fn play(
        carries: u16,
        round_trip: Duration,
        lost: impl Fn(usize, u16) -> bool,
    ) -> (SizeVerdict, Duration, Vec<Vec<u16>>) {
        #[expect(
            clippy::disallowed_methods,
            reason = "any instant will do to begin with"
        )]
        let begun = Instant::now();
        let rtt = Rtt::first(round_trip);
        let mut sizing = Sizing::new(begun);
        let mut answers = std::collections::BTreeSet::new();
        let mut flights = Vec::new();
        let mut now = begun;
        loop {
            while let Some((at, size)) = answers.first().copied().filter(|(at, _)| *at <= now) {
                answers.pop_first();
                sizing.answered(at, size, rtt);
            }
            match sizing.advance(now, Some(rtt)) {
                SizeVerdict::Asks(sizes) => {
                    let came = |size: &&u16| **size <= carries && !lost(flights.len(), **size);
                    answers.extend(sizes.iter().filter(came).map(|s| (now + round_trip, *s)));
                    flights.push(sizes);
                }
                SizeVerdict::Waits => {
                    let next = answers.first().map_or(sizing.next(), |(at, _)| *at);
                    now = next.min(sizing.next());
                }
                found => return (found, now - begun, flights),
            }
        }
    }

    #[test]
    fn a_full_size_path_is_known_with_its_first_answers_and_asked_once() {
        for round_trip in [ms(1), ms(20), ms(300)] {
            let (found, after, flights) = play(1_472, round_trip, |_, _| false);
            assert_eq!(found, SizeVerdict::Carries(FULL_SIZE));
            assert_eq!(after, round_trip);
            assert_eq!(flights, [SIZES]);
        }
    }

    #[test]
    fn a_narrow_path_is_known_after_two_flights_of_a_round_trip_and_a_half() {
        for (carries, proven) in [
            (1_200, 1_200),
            (1_240, 1_232),
            (1_300, 1_252),
            (1_383, 1_372),
            (1_392, 1_384),
        ] {
            for round_trip in [ms(1), ms(20), ms(300)] {
                let (found, after, flights) = play(carries, round_trip, |_, _| false);
                assert_eq!(found, SizeVerdict::Carries(proven));
                assert_eq!(after, (round_trip * 3 / 2 + STRAGGLE) * 2, "{carries}");
                let larger: Vec<u16> = SIZES.into_iter().filter(|s| *s > proven).collect();
                assert_eq!(flights, [Vec::from(SIZES), larger]);
            }
        }
    }

    #[test]
    fn one_lost_ping_of_any_size_narrows_no_path() {
        for flight in 0..2 {
            for unlucky in SIZES {
                for carries in [1_252, 1_384, 1_472] {
                    let lost = |nth, size| nth == flight && size == unlucky;
                    let (found, ..) = play(carries, ms(20), lost);
                    assert_eq!(
                        found,
                        SizeVerdict::Carries(carries.min(FULL_SIZE)),
                        "{unlucky}"
                    );
                }
            }
        }
    }

    #[test]
    fn an_outage_is_waited_for_and_a_path_below_quics_least_is_none() {
        let (found, ..) = play(1_472, ms(20), |flight, _| flight < 3);
        assert_eq!(found, SizeVerdict::Carries(FULL_SIZE));
        let (found, after, flights) = play(1_199, ms(20), |_, _| false);
        assert_eq!((found, flights.len()), (SizeVerdict::CarriesNothing, 4));
        assert!(after >= SHORTEST_WAIT * 15, "{after:?}");
    }

    #[test]
    fn what_an_outage_took_is_not_held_against_a_size() {
        // The first answers after two flights of silence: only then does the count begin.
        let lost = |flight, size| flight < 2 || flight == 2 && size > 1_372;
        let (found, ..) = play(1_472, ms(20), lost);
        assert_eq!(found, SizeVerdict::Carries(FULL_SIZE));
    }

    #[test]
    fn what_was_too_large_is_asked_for_again_ever_more_seldom() {
        #[expect(
            clippy::disallowed_methods,
            reason = "any instant will do to begin with"
        )]
        let begun = Instant::now();
        let mut carried = Carried::new(begun, 1_252);
        assert!(carried.advance(begun).is_empty());
        let mut at = Vec::new();
        for _ in 0..7 {
            let now = carried.next().unwrap();
            assert_eq!(carried.advance(now), [1_372, 1_384, FULL_SIZE]);
            at.push((now - begun).as_secs());
        }
        assert_eq!(at, [1, 3, 7, 15, 31, 61, 91]);
        carried.answered(1_384);
        let now = carried.next().unwrap();
        assert_eq!(carried.advance(now), [FULL_SIZE]);
        // An answer never takes back what a larger one proved.
        carried.answered(1_200);
        assert_eq!(carried.size(), 1_384);
        carried.answered(FULL_SIZE);
        assert_eq!((carried.size(), carried.next()), (FULL_SIZE, None));
    }
}
