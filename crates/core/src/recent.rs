//! The last datagrams sent to a peer, for sending again when their path is suspected, switched, or woke up.
//!
//! QUIC's own probe timeout would take another 100-200 ms after a switch, and backs off to hours in a long sleep;
//! sending the last sealed datagrams again costs nothing (the other side drops what it has) and draws an answer at
//! once. One datagram of each batch is enough for that and keeps the copy off the fast path.
//!
//! Packets of the first connection's handshake are kept like the others: QUIC would repeat a first flight only after a second,
//! because it has measured nothing yet. A short header does not say that the handshake is over: the end of it may still be on
//! its way, and without it the other side cannot read what follows. So they leave by their age, or when newer ones need their
//! place. Those of handshakes that begin later have places of their own, where the traffic of the tunnel beside them does not
//! push them out, and leave after a second: QUIC has repeated them itself by then, and when their connection is gone and
//! others are not, so that nobody calls [`Recent::clear`], an old first flight would begin another.
//!
//! Only the newest are repeated, as many as fit [`REPLAY_BYTES`]: any one of them draws the answer that tells QUIC what
//! was lost, and the other path may end in the same slow access link, whose queue must have room for what QUIC itself
//! has to say then.
//!
//! What is older than any network holds a datagram is left out: a machine slept meanwhile, and QUIC would take the
//! acknowledgement for that of a round trip as long as the sleep. quinn smooths it in without a bound, and paces and
//! probes by the average: after an hour of sleep a transfer took eight minutes to come back.

use std::time::{Duration, Instant};

/// Nothing is under way on a network for so long.
pub const UNDER_WAY: Duration = Duration::from_secs(10);

/// As measured (decision 0001): more gain nothing.
const KEPT: usize = 16;

/// Half of an initial congestion window (RFC 9002 section 7.2: ten packets, 14,720 bytes at most), since what a path
/// takes at once is not known when it is the new one, and QUIC begins with such a window there itself.
pub const REPLAY_BYTES: usize = 7_360;

/// A first flight that is lost is repeated by QUIC after this, for it has measured nothing yet (RFC 9002 section 6.2.2: three
/// times 333 ms).
const FLIGHT: Duration = Duration::from_secs(1);

/// Two flights of a handshake: with a post-quantum key each is two datagrams (RFC 9000 section 8.1 allows more, but then the
/// other side waits for an answer).
const FLIGHTS_KEPT: usize = 4;

/// The last datagrams to one peer.
#[derive(Debug, Default)]
pub struct Recent {
    slots: Ring<KEPT>,
    /// A short header was sent: other handshakes are kept apart.
    established: bool,
    /// Of handshakes that began beside an established connection.
    flights: Ring<FLIGHTS_KEPT>,
}

/// The last `N` datagrams of a kind, and when each was sent.
#[derive(Debug, Default)]
struct Ring<const N: usize> {
    slots: Vec<(Instant, Vec<u8>)>,
    next: usize,
}

impl<const N: usize> Ring<N> {
    fn note(&mut self, now: Instant, datagram: &[u8]) {
        if self.slots.len() < N {
            self.slots.push((now, datagram.to_vec()));
        } else if let Some((at, slot)) = self.slots.get_mut(self.next) {
            *at = now;
            slot.clear();
            slot.extend_from_slice(datagram);
        }
        self.next = (self.next + 1) % N;
    }

    /// Those that are no older than this, the newest first.
    fn within(&self, now: Instant, age: Duration) -> impl Iterator<Item = &[u8]> {
        let (newer, older) = self.slots.split_at(self.next.min(self.slots.len()));
        newer
            .iter()
            .rev()
            .chain(older.iter().rev())
            .take_while(move |(at, _)| now.saturating_duration_since(*at) <= age)
            .map(|(_, datagram)| datagram.as_slice())
    }
}

impl Recent {
    /// Keeps the last datagram of a batch; of a handshake each, for none of them draws an answer alone. They are of
    /// `segment` bytes each, the last possibly shorter; none for a single one.
    pub fn note_batch(&mut self, now: Instant, contents: &[u8], segment: Option<usize>) {
        let segment = segment.unwrap_or(contents.len()).max(1);
        let all = contents.chunks(segment);
        let most = if is_handshake(contents) == Some(true) {
            KEPT
        } else {
            1
        };
        let skipped = all.len().saturating_sub(most);
        for datagram in all.skip(skipped) {
            self.note(now, datagram);
        }
    }

    /// Keeps a datagram.
    fn note(&mut self, now: Instant, datagram: &[u8]) {
        match is_handshake(datagram) {
            Some(true) if self.established => self.flights.note(now, datagram),
            Some(handshake) => {
                self.established |= !handshake;
                self.slots.note(now, datagram);
            }
            None => {}
        }
    }

    /// Forgets them.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// A copy of the newest that fit [`REPLAY_BYTES`] together, oldest first. The very last is always among them, unless
    /// it is older than [`UNDER_WAY`]; so is a later handshake's flight, for nothing else speaks for it.
    pub fn newest(&self, now: Instant) -> Vec<Vec<u8>> {
        let flights = self.flights.within(now, FLIGHT);
        let slots = self.slots.within(now, UNDER_WAY);
        let mut room = REPLAY_BYTES;
        let mut chosen: Vec<Vec<u8>> = Vec::new();
        for datagram in flights.chain(slots) {
            match room.checked_sub(datagram.len()) {
                Some(left) => room = left,
                None if chosen.is_empty() => room = 0,
                None => break,
            }
            chosen.push(datagram.to_vec());
        }
        chosen.reverse();
        chosen
    }
}

/// The first bit tells a long header (RFC 8999 section 5), which only handshakes have.
fn is_handshake(datagram: &[u8]) -> Option<bool> {
    datagram.first().map(|first| first & 0x80 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every test happens in one moment, unless it says otherwise.
    #[expect(clippy::disallowed_methods, reason = "an instant to count from")]
    fn base() -> Instant {
        use std::sync::OnceLock;
        static BASE: OnceLock<Instant> = OnceLock::new();
        *BASE.get_or_init(Instant::now)
    }

    fn marks(recent: &Recent) -> Vec<u8> {
        recent
            .newest(base())
            .iter()
            .filter_map(|d| d.first().copied())
            .collect()
    }

    #[test]
    fn the_last_sixteen_are_kept_oldest_first() {
        let mut recent = Recent::default();
        for n in 0..3u8 {
            recent.note(base(), &[n, n]);
        }
        assert_eq!(marks(&recent), [0, 1, 2]);
        for n in 3..20u8 {
            recent.note(base(), &[n, n]);
        }
        assert_eq!(marks(&recent), (4..20).collect::<Vec<u8>>());
        recent.clear();
        assert!(recent.newest(base()).is_empty());
    }

    #[test]
    fn of_large_ones_only_the_newest_are_repeated() {
        let mut recent = Recent::default();
        for n in 0..20u8 {
            recent.note(base(), &[n; 1_444]);
        }
        assert_eq!(marks(&recent), [15, 16, 17, 18, 19]);
        recent.note(base(), &[20; REPLAY_BYTES + 1]);
        assert_eq!(
            marks(&recent),
            [20],
            "the last one is repeated whatever it is"
        );
    }

    #[test]
    fn what_a_machine_slept_over_is_not_repeated() {
        let mut recent = Recent::default();
        let woke = base() + Duration::from_secs(3600);
        recent.note(base(), &[1]);
        assert_eq!(recent.newest(base() + UNDER_WAY), [vec![1]]);
        assert!(recent.newest(woke).is_empty());
        recent.note(woke, &[2]);
        assert_eq!(recent.newest(woke), [vec![2]]);
    }

    #[test]
    fn of_a_batch_the_last_datagram_is_kept_and_of_a_handshake_each() {
        let mut recent = Recent::default();
        recent.note_batch(base(), &[0xc0, 1, 0xe0, 2, 0xe1], Some(2));
        assert_eq!(marks(&recent), [0xc0, 0xe0, 0xe1]);
        recent.note_batch(base(), &[1, 1, 2, 2, 3], Some(2));
        recent.note_batch(base(), &[4, 4, 5, 5], Some(2));
        recent.note_batch(base(), &[6, 6], None);
        recent.note_batch(base(), &[], None);
        assert_eq!(marks(&recent), [0xc0, 0xe0, 0xe1, 3, 5, 6]);
    }

    #[test]
    fn a_handshake_is_kept_until_it_is_old_and_the_next_one_for_a_second() {
        let mut recent = Recent::default();
        recent.note(base(), &[]);
        recent.note(base(), &[0xc0, 1]);
        recent.note(base(), &[0xe0, 2]);
        assert_eq!(marks(&recent), [0xc0, 0xe0]);
        // The client's `Finished` is in the datagram before, and only that one makes this one readable.
        recent.note(base(), &[0x40]);
        assert_eq!(marks(&recent), [0xc0, 0xe0, 0x40]);
        recent.note(base(), &[0xc1]);
        assert_eq!(marks(&recent), [0xc0, 0xe0, 0x40, 0xc1]);
        assert_eq!(recent.newest(base() + FLIGHT).len(), 4);
        let repeated = base() + FLIGHT + Duration::from_millis(1);
        assert_eq!(recent.newest(repeated).last(), Some(&vec![0x40]));
        let later = base() + UNDER_WAY + Duration::from_millis(1);
        recent.note(later, &[0x41]);
        assert_eq!(recent.newest(later), [vec![0x41]]);
        recent.clear();
        recent.note(base(), &[0xc0, 1]);
        assert_eq!(marks(&recent), [0xc0]);
    }

    #[test]
    fn traffic_beside_it_does_not_push_out_a_later_flight() {
        let mut recent = Recent::default();
        recent.note(base(), &[0x40]);
        recent.note_batch(
            base(),
            &[[0xc1; 1_280], [0xc2; 1_280]].concat(),
            Some(1_280),
        );
        for n in 0..20u8 {
            recent.note(base(), &[n; 1_444]);
        }
        assert_eq!(marks(&recent), [17, 18, 19, 0xc1, 0xc2]);
        for n in 0..6u8 {
            recent.note(base(), &[0xd0 + n; 1_280]);
        }
        assert_eq!(marks(&recent), [19, 0xd2, 0xd3, 0xd4, 0xd5]);
    }

    #[test]
    fn what_follows_a_handshake_takes_its_place() {
        let mut recent = Recent::default();
        recent.note_batch(base(), &[0xc0; 10], Some(2));
        for n in 0..KEPT as u8 {
            recent.note(base(), &[n]);
        }
        assert_eq!(marks(&recent), (0..KEPT as u8).collect::<Vec<u8>>());
    }
}
