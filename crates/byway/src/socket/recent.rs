//! The last datagrams sent to a peer, for sending again when their path is suspected, switched, or woke up.
//!
//! QUIC's own probe timeout would take another 100-200 ms after a switch, and backs off to hours in a long sleep;
//! sending the last sealed datagrams again costs nothing (the other side drops what it has) and draws an answer at
//! once. Packets of a handshake are left out: when their connection is gone, they would begin another. One datagram of
//! each batch is enough for that and keeps the copy off the fast path.

use std::sync::Mutex;

/// As measured (decision 0001): more gain nothing.
const KEPT: usize = 16;

#[derive(Debug, Default)]
pub(crate) struct Recent(Mutex<Ring>);

#[derive(Debug, Default)]
struct Ring {
    slots: Vec<Vec<u8>>,
    next: usize,
}

impl Recent {
    /// Keeps the last datagram of a batch. Never waits: of two connections to one peer that send at the same moment one
    /// goes unrecorded.
    pub(crate) fn note(&self, contents: &[u8], segment: Option<usize>) {
        let last = match segment {
            Some(segment) if segment > 0 => {
                contents.chunks(segment).next_back().unwrap_or(contents)
            }
            _ => contents,
        };
        // The first bit tells a long header (RFC 8999 section 5), which only handshakes have.
        if last.first().is_none_or(|first| first & 0x80 != 0) {
            return;
        }
        let Ok(mut ring) = self.0.try_lock() else {
            return;
        };
        if ring.slots.len() < KEPT {
            ring.slots.push(last.to_vec());
        } else {
            let next = ring.next;
            let slot = &mut ring.slots[next];
            slot.clear();
            slot.extend_from_slice(last);
        }
        ring.next = (ring.next + 1) % KEPT;
    }

    /// Forgets them.
    pub(crate) fn clear(&self) {
        if let Ok(mut ring) = self.0.lock() {
            *ring = Ring::default();
        }
    }

    /// A copy of them, oldest first.
    pub(crate) fn all(&self) -> Vec<Vec<u8>> {
        let Ok(ring) = self.0.lock() else {
            return Vec::new();
        };
        let split = if ring.slots.len() < KEPT {
            0
        } else {
            ring.next
        };
        let (newer, older) = ring.slots.split_at(split);
        older.iter().chain(newer).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_sixteen_are_kept_oldest_first() {
        let recent = Recent::default();
        for n in 0..20u8 {
            recent.note(&[n, n], None);
        }
        let kept: Vec<u8> = recent.all().iter().map(|datagram| datagram[0]).collect();
        assert_eq!(kept, (4..20).collect::<Vec<u8>>());
    }

    #[test]
    fn handshakes_are_left_out() {
        let recent = Recent::default();
        recent.note(&[0xc0, 1], None);
        assert!(recent.all().is_empty());
    }

    #[test]
    fn of_a_batch_the_last_datagram_is_kept() {
        let recent = Recent::default();
        recent.note(&[1, 1, 2, 2, 3], Some(2));
        recent.note(&[4, 4, 5, 5], Some(2));
        assert_eq!(recent.all(), [vec![3], vec![5, 5]]);
    }
}
