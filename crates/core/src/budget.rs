//! So many a second, and no more.

use std::time::{Duration, Instant};

/// A bucket that is full again each second.
#[derive(Debug)]
pub(crate) struct Budget {
    most: u32,
    left: u32,
    second: Instant,
}

impl Budget {
    pub(crate) fn new(now: Instant, most: u32) -> Self {
        Self {
            most,
            left: most,
            second: now,
        }
    }
    /// True if there was one left.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.second) >= Duration::from_secs(1) {
            *self = Self::new(now, self.most);
        }
        let fine = self.left > 0;
        self.left -= u32::from(fine);
        fine
    }
}
