//! The last datagrams sent to a peer ([`byway_core::recent`]), noted while quinn sends and read by the driver.

use std::sync::Mutex;
use std::time::Instant;

#[derive(Debug, Default)]
pub(crate) struct Recent(Mutex<byway_core::recent::Recent>);

impl Recent {
    /// Keeps what is to be kept of a batch. Never waits: of two connections to one peer that send at the same moment one
    /// goes unrecorded.
    pub(crate) fn note(&self, contents: &[u8], segment: Option<usize>) {
        if let Ok(mut recent) = self.0.try_lock() {
            recent.note_batch(Instant::now(), contents, segment);
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
