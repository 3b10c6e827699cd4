//! Joins the two parts of a fragmented datagram (`0x83`, [`byway_wire::fragment`]). Bounded: parts wait in a small ring, in which
//! each sender has a share. Who exceeds it displaces its own oldest part; where many senders fill the ring together, the oldest
//! part of one that holds most leaves, so that lonely parts are the trouble of those who send them.

use std::collections::VecDeque;

use byway_wire::fragment::Fragment;

/// Parts that may wait for their other half. Those of a datagram leave back to back, so that few wait at once however long a
/// route fragments.
const WAITING: usize = 32;
/// Parts of one sender among them.
const SHARE: usize = 8;

/// Parts that wait for their other half. `K` names a sender, authenticated or not: parts of two never join.
#[derive(Debug)]
pub struct Reassembler<K> {
    waiting: VecDeque<Part<K>>,
}

#[derive(Debug)]
struct Part<K> {
    from: K,
    id: u16,
    second: bool,
    payload: Vec<u8>,
}

/// What came of a part.
#[derive(Debug, PartialEq, Eq)]
pub enum Joined {
    /// The whole datagram.
    Whole(Vec<u8>),
    /// It waits for the other.
    Waits,
    /// It waits, and another part had to leave for it.
    Displaced,
}

impl<K> Default for Reassembler<K> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
        }
    }
}

impl<K: PartialEq> Reassembler<K> {
    /// Takes a part that came from a sender.
    pub fn take(&mut self, from: K, part: Fragment<'_>) -> Joined {
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
        } else if self.waiting.len() == WAITING {
            let held = |of: &K| self.waiting.iter().filter(|part| part.from == *of).count();
            // The first of the largest: `max_by_key` gives the last of equals.
            (0..WAITING)
                .rev()
                .max_by_key(|at| held(&self.waiting[*at].from))
        } else {
            None
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

    fn part(id: u16, second: bool, payload: &[u8]) -> Fragment<'_> {
        Fragment {
            id,
            second,
            payload,
        }
    }

    #[test]
    fn parts_join_in_either_order_and_not_across_peers() {
        let (a, b) = (1, 2);
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
    fn lonely_parts_do_not_pile_up() {
        let mut parts = Reassembler::default();
        for from in 0..4 {
            for id in 0..8 {
                assert_eq!(parts.take(from, part(id, false, b"x")), Joined::Waits);
            }
        }
        assert_eq!(parts.take(9, part(99, false, b"x")), Joined::Displaced);
        assert_eq!(parts.waiting.len(), WAITING);
        assert_eq!(parts.waiting[0].id, 1, "the oldest of one that holds most");
    }

    #[test]
    fn one_lonely_part_among_senders_of_many_is_not_displaced() {
        let mut parts = Reassembler::default();
        assert_eq!(parts.take(100, part(7, false, b"ab")), Joined::Waits);
        for from in 0..20 {
            for id in 0..8 {
                parts.take(from, part(id, false, b"x"));
            }
        }
        assert_eq!(
            parts.take(100, part(7, true, b"cd")),
            Joined::Whole(b"abcd".to_vec())
        );
    }

    #[test]
    fn a_flood_of_lonely_parts_displaces_nobody_elses() {
        let (a, b) = (1, 2);
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
