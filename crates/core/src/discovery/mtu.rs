//! How large a datagram passes to a relay and back: a search by echoes on channel 0 of a UDP link.
//!
//! The datagrams are not to be fragmented, and the relay sends back what it got, so one that comes back whole proves its
//! size in both directions. First the full size and the least; where the full one does not come back, a ladder between them.

use std::time::{Duration, Instant};

use bytes::{BufMut as _, Bytes, BytesMut};
use byway_wire::relay::data::HEADER_LEN;

/// The full size of a datagram with its header, in bytes: what a tunnel sends through a relay by default.
pub const FULL_DATAGRAM: u16 = 1_452;
/// The least: QUIC's minimum of 1,200 behind the header. A path below it carries no tunnel at all.
const LEAST: u16 = 1_208;
/// Between two sizes of the ladder: finer than the differences between the tunnels and links in use.
const STEP: u16 = 8;
/// When everything still in question is sent, and when it is over.
const LADDER: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_millis(250),
    Duration::from_millis(500),
];
const PATIENCE: Duration = Duration::from_millis(1_000);

/// One search, over one link. At most 66 datagrams, 90 kB.
#[derive(Debug)]
pub(crate) struct MtuSearch {
    token: [u8; 16],
    began: Instant,
    rounds: usize,
    proven: Option<u16>,
    over: bool,
}

impl MtuSearch {
    /// `token` makes its echoes unforgeable off the path.
    pub(crate) fn new(now: Instant, token: [u8; 16]) -> Self {
        Self {
            token,
            began: now,
            rounds: 0,
            proven: None,
            over: false,
        }
    }
    /// The payloads to send now, without their headers.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<Bytes> {
        let due = LADDER
            .get(self.rounds)
            .is_some_and(|after| self.began + *after <= now);
        if self.over || !due {
            return Vec::new();
        }
        self.rounds += 1;
        // Once for a network that is as it should be; a lost one of these two costs a round.
        let step = if self.rounds == 1 {
            FULL_DATAGRAM - LEAST
        } else {
            STEP
        };
        let unproven = self.proven.map_or(LEAST, |proven| proven + 1);
        let sizes = (LEAST..FULL_DATAGRAM)
            .step_by(step.into())
            .chain([FULL_DATAGRAM])
            .filter(|size| *size >= unproven);
        sizes.map(|size| self.payload(size)).collect()
    }
    /// Takes an echo; false if it is not of this search.
    pub(crate) fn handle(&mut self, payload: &[u8]) -> bool {
        if !payload.starts_with(&self.token) {
            return false;
        }
        let size = u16::try_from(payload.len() + HEADER_LEN).unwrap_or(u16::MAX);
        if (LEAST..=FULL_DATAGRAM).contains(&size) && !self.over {
            self.proven = self.proven.max(Some(size));
            self.over = size == FULL_DATAGRAM;
        }
        true
    }
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.over |= now >= self.began + PATIENCE;
    }
    /// The largest size that came back, in bytes of UDP payload, once it is over.
    pub(crate) fn result(&self) -> Option<Option<u16>> {
        self.over.then_some(self.proven)
    }
    pub(crate) fn next(&self) -> Option<(Instant, &'static str)> {
        if self.over {
            return None;
        }
        let after = LADDER.get(self.rounds).copied().unwrap_or(PATIENCE);
        Some((self.began + after, "MTU search"))
    }
    fn payload(&self, size: u16) -> Bytes {
        let len = usize::from(size) - HEADER_LEN;
        let mut payload = BytesMut::with_capacity(len);
        payload.extend_from_slice(&self.token);
        payload.put_bytes(0, len - self.token.len());
        payload.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search() -> (Instant, MtuSearch) {
        #[expect(
            clippy::disallowed_methods,
            reason = "any instant will do to begin with"
        )]
        let now = Instant::now();
        (now, MtuSearch::new(now, [9; 16]))
    }

    /// Runs it on a path that carries so much; what it found, and how many datagrams it took.
    fn over(carries: usize) -> (Option<u16>, usize) {
        let (mut now, mut search) = search();
        let mut sent = 0;
        loop {
            for payload in search.due(now) {
                sent += 1;
                assert!(payload.len() + HEADER_LEN <= usize::from(FULL_DATAGRAM));
                if payload.len() + HEADER_LEN <= carries {
                    assert!(search.handle(&payload));
                }
            }
            if let Some(result) = search.result() {
                return (result, sent);
            }
            let (next, _) = search.next().unwrap();
            assert!(next > now, "would spin");
            now = next;
            search.handle_timeout(now);
        }
    }

    #[test]
    fn a_full_path_takes_two_datagrams() {
        assert_eq!(over(1_500), (Some(1_452), 2));
    }

    #[test]
    fn a_narrow_path_is_measured_to_eight_bytes() {
        let (found, sent) = over(1_392);
        assert_eq!(found, Some(1_392));
        assert!(sent <= 66, "{sent}");
        assert_eq!(over(1_391).0, Some(1_384));
        assert_eq!(over(1_208).0, Some(1_208));
    }

    #[test]
    fn a_path_that_returns_nothing_is_unknown_and_costs_a_bounded_number() {
        let (found, sent) = over(1_207);
        assert_eq!(found, None);
        assert!(sent <= 66, "{sent}");
    }

    #[test]
    fn echoes_that_were_not_sent_prove_nothing() {
        let (_, mut search) = search();
        assert!(!search.handle(&[0; 1_300]));
        assert!(!search.handle(&[9; 15]));
        // Our token, of a size never sent.
        assert!(search.handle(&[9; 40]));
        assert!(search.handle(&[9; 9_000]));
        search.handle_timeout(search.began + PATIENCE);
        assert_eq!(search.result(), Some(None));
    }
}
