//! The last datagrams sent to a peer ([`byway_core::recent`]), noted while quinn sends and read by the driver.

use std::sync::Mutex;
use std::time::Instant;

#[derive(Debug, Default)]
pub(crate) struct Recent(Mutex<byway_core::recent::Recent>);

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
        if let Ok(mut recent) = self.0.try_lock() {
            recent.note(Instant::now(), last);
        }
    }

    /// Forgets them.
    pub(crate) fn clear(&self) {
        if let Ok(mut recent) = self.0.lock() {
            recent.clear();
        }
    }

    /// A copy of those to be sent again, oldest first.
    pub(crate) fn newest(&self) -> Vec<Vec<u8>> {
        self.0
            .lock()
            .map(|r| r.newest(Instant::now()))
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_batch_the_last_datagram_is_kept() {
        let recent = Recent::default();
        recent.note(&[1, 1, 2, 2, 3], Some(2));
        recent.note(&[4, 4, 5, 5], Some(2));
        recent.note(&[6, 6], None);
        assert_eq!(recent.newest(), [vec![3], vec![5, 5], vec![6, 6]]);
    }
}
