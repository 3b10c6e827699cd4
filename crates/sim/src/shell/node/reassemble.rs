//! Joins the two parts of a fragmented datagram: `byway`'s `socket/reassemble.rs`, with its bounds.

use std::collections::VecDeque;

use byway_core::io::PeerId;
use byway_wire::fragment::Fragment;

/// Parts of all peers that may wait for their other half (`WAITING` there).
const WAITING: usize = 32;
/// Parts of one peer among them (`SHARE` there): who exceeds it displaces its own oldest part.
const SHARE: usize = 8;

#[derive(Debug, Default)]
pub(super) struct Reassembler(VecDeque<Part>);

#[derive(Debug)]
struct Part {
    from: PeerId,
    id: u16,
    second: bool,
    payload: Vec<u8>,
}

impl Reassembler {
    /// Takes a part: the whole datagram, if the other one was there.
    pub(super) fn take(&mut self, from: PeerId, part: Fragment<'_>) -> Option<Vec<u8>> {
        let other = self.0.iter().position(|waiting| {
            waiting.from == from && waiting.id == part.id && waiting.second != part.second
        });
        if let Some(other) = other.and_then(|at| self.0.remove(at)) {
            return Some(if part.second {
                [&other.payload, part.payload].concat()
            } else {
                [part.payload, &other.payload].concat()
            });
        }
        let own = self.0.iter().filter(|part| part.from == from).count();
        let leaves = if own == SHARE {
            self.0.iter().position(|part| part.from == from)
        } else {
            (self.0.len() == WAITING).then_some(0)
        };
        if let Some(at) = leaves {
            self.0.remove(at);
        }
        self.0.push_back(Part {
            from,
            id: part.id,
            second: part.second,
            payload: part.payload.to_vec(),
        });
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(id: u16, second: bool, payload: &[u8]) -> Fragment<'_> {
        Fragment {
            id,
            second,
            payload,
        }
    }

    #[test]
    fn parts_join_in_either_order_and_not_across_peers() {
        let (a, b) = (PeerId(1), PeerId(2));
        let mut parts = Reassembler::default();
        assert_eq!(parts.take(a, part(1, false, b"ab")), None);
        assert_eq!(parts.take(b, part(1, true, b"zz")), None);
        assert_eq!(parts.take(a, part(1, true, b"cd")), Some(b"abcd".to_vec()));
        assert_eq!(parts.take(b, part(1, false, b"yy")), Some(b"yyzz".to_vec()));
    }

    #[test]
    fn a_flood_of_lonely_parts_displaces_its_senders_own() {
        let (a, b) = (PeerId(1), PeerId(2));
        let mut parts = Reassembler::default();
        parts.take(a, part(1, false, b"ab"));
        for id in 0..1000 {
            parts.take(b, part(id, false, b"x"));
        }
        assert_eq!(parts.0.len(), 1 + SHARE);
        assert_eq!(parts.take(a, part(1, true, b"cd")), Some(b"abcd".to_vec()));
        assert_eq!(parts.take(b, part(0, true, b"y")), None, "its oldest went");
    }
}
