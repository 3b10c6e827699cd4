//! Joins the two parts of a fragmented datagram (`0x83`). Bounded: parts wait in a small ring, in which each peer has a
//! share; who exceeds it displaces its own oldest part, so that a flood of lonely parts is its sender's trouble alone.

use std::net::SocketAddr;

use byway_wire::demux::{Kind, classify};
use byway_wire::fragment::{self, Fragment};

use super::Counters;

/// Parts that may wait for their other half. A route fragments only until QUIC notices its smaller MTU.
const WAITING: usize = 32;
/// Parts of one peer among them: parts of a datagram leave back to back, so few are ever apart.
const SHARE: usize = 8;

#[derive(Debug, Default)]
pub(crate) struct Reassembler {
    waiting: std::collections::VecDeque<Part>,
}

#[derive(Debug)]
struct Part {
    from: SocketAddr,
    id: u16,
    second: bool,
    payload: Vec<u8>,
}

/// What came of a part.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Joined {
    /// The whole datagram.
    Whole(Vec<u8>),
    /// It waits for the other.
    Waits,
    /// It waits, and another part had to leave for it.
    Displaced,
}

impl Reassembler {
    /// Takes a datagram that claims to be a part; gives the whole one if it is QUIC and the other part was here. What is
    /// no part, makes no QUIC, or had to leave is counted.
    pub(crate) fn join(
        &mut self,
        from: SocketAddr,
        datagram: &[u8],
        counters: &Counters,
    ) -> Option<Vec<u8>> {
        let Ok(part) = fragment::decode(datagram) else {
            counters.unknown_kind.add();
            return None;
        };
        match self.take(from, part) {
            Joined::Whole(whole) if classify(&whole) == Kind::Quic => return Some(whole),
            Joined::Whole(_) => counters.unknown_kind.add(),
            Joined::Waits => {}
            Joined::Displaced => counters.fragment_lost.add(),
        }
        None
    }

    /// Takes a part that came from a peer (by its virtual address).
    pub(crate) fn take(&mut self, from: SocketAddr, part: Fragment<'_>) -> Joined {
        let other = self.waiting.iter().position(|waiting| {
            waiting.from == from && waiting.id == part.id && waiting.second != part.second
        });
        if let Some(mut other) = other.and_then(|at| self.waiting.remove(at)) {
            return Joined::Whole(if part.second {
                other.payload.extend_from_slice(part.payload);
                other.payload
            } else {
                [part.payload, &other.payload].concat()
            });
        }
        let own = self.waiting.iter().filter(|part| part.from == from).count();
        let leaves = if own == SHARE {
            self.waiting.iter().position(|part| part.from == from)
        } else {
            (self.waiting.len() == WAITING).then_some(0)
        };
        let full = leaves.and_then(|at| self.waiting.remove(at)).is_some();
        self.waiting.push_back(Part {
            from,
            id: part.id,
            second: part.second,
            payload: part.payload.to_vec(),
        });
        if full {
            Joined::Displaced
        } else {
            Joined::Waits
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket::addr::Virtual;
    use byway_core::io::PeerId;

    fn part(id: u16, second: bool, payload: &[u8]) -> Fragment<'_> {
        Fragment {
            id,
            second,
            payload,
        }
    }

    #[test]
    fn parts_join_in_either_order_and_not_across_peers() {
        let [a, b] = [1, 2].map(|id| Virtual::Peer(PeerId(id)).to_addr());
        let mut parts = Reassembler::default();
        assert_eq!(parts.take(a, part(1, false, b"ab")), Joined::Waits);
        assert_eq!(parts.take(b, part(1, true, b"zz")), Joined::Waits);
        assert_eq!(parts.take(a, part(2, true, b"gh")), Joined::Waits);
        assert_eq!(
            parts.take(a, part(1, true, b"cd")),
            Joined::Whole(b"abcd".to_vec())
        );
        assert_eq!(
            parts.take(a, part(2, false, b"ef")),
            Joined::Whole(b"efgh".to_vec())
        );
    }

    #[test]
    fn a_datagram_in_two_parts_comes_out_whole_and_what_is_none_is_counted() {
        let from = Virtual::Peer(PeerId(1)).to_addr();
        let counters = Counters::default();
        let mut parts = Reassembler::default();
        let mut join = |datagram: &[u8]| parts.join(from, datagram, &counters);
        let quic: Vec<u8> = std::iter::repeat_n(0x40, 1_444).collect();
        let [one, two] = fragment::split(7, &quic);
        assert_eq!(join(&one), None);
        assert_eq!(join(&two), Some(quic));
        // Whole again it would be a part, which no path makes of a part.
        let [one, two] = fragment::split(8, &[0x83; 1_444]);
        assert_eq!((join(&one), join(&two), join(&[0x83])), (None, None, None));
        assert_eq!(counters.unknown_kind.get(), 2);
    }

    #[test]
    fn lonely_parts_do_not_pile_up() {
        let mut parts = Reassembler::default();
        for peer in 0..4 {
            let from = Virtual::Peer(PeerId(peer)).to_addr();
            for id in 0..8 {
                assert_eq!(parts.take(from, part(id, false, b"x")), Joined::Waits);
            }
        }
        let another = Virtual::Peer(PeerId(9)).to_addr();
        assert_eq!(
            parts.take(another, part(99, false, b"x")),
            Joined::Displaced
        );
        assert_eq!(parts.waiting.len(), WAITING);
    }

    #[test]
    fn a_flood_of_lonely_parts_displaces_nobody_elses() {
        let [a, b] = [1, 2].map(|id| Virtual::Peer(PeerId(id)).to_addr());
        let mut parts = Reassembler::default();
        assert_eq!(parts.take(a, part(1, false, b"ab")), Joined::Waits);
        for id in 0..1000 {
            parts.take(b, part(id, false, b"x"));
        }
        assert_eq!(
            parts.take(a, part(1, true, b"cd")),
            Joined::Whole(b"abcd".to_vec())
        );
    }
}
