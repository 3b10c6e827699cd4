//! The last datagrams sent to a peer, for a replay: `byway`'s `socket/recent.rs`.
//!
//! One of each batch; packets of a handshake are left out, for when their connection is gone they would begin another.

use std::collections::VecDeque;

use bytes::Bytes;

/// `KEPT` there.
const KEPT: usize = 16;

#[derive(Debug, Default)]
pub(super) struct Recent(VecDeque<Bytes>);

impl Recent {
    /// Keeps the last datagram of a batch.
    pub(super) fn note(&mut self, last: Bytes) {
        // The first bit tells a long header (RFC 8999 section 5), which only handshakes have.
        if last.first().is_none_or(|first| first & 0x80 != 0) {
            return;
        }
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(last);
    }
    /// A copy of them, oldest first.
    pub(super) fn all(&self) -> Vec<Bytes> {
        self.0.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_sixteen_are_kept_and_handshakes_are_left_out() {
        let mut recent = Recent::default();
        for n in 0..20u8 {
            recent.note(Bytes::from(vec![n; 2]));
            recent.note(Bytes::from(vec![0xc0, n]));
        }
        let kept: Vec<u8> = recent.all().iter().map(|d| d[0]).collect();
        assert_eq!(kept, (4..20).collect::<Vec<u8>>());
    }
}
