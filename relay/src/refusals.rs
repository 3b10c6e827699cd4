//! How much is written of those who were refused and are nobody's nodes.
//!
//! Whoever can reach the relay can make keys, come and be refused, thousands of times a second: a line for each would fill the disk, and
//! with it what is to be read of everybody else. The first few of every second are written, and then how many were left out. Of a node that was welcomed
//! everything is written: somebody knows it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// So many are written in a second.
const WRITTEN: u32 = 10;
const SECOND: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Refusals(Mutex<Window>);

#[derive(Debug)]
struct Window {
    began: Instant,
    written: u32,
    left_out: u64,
}

impl Refusals {
    pub(crate) fn new(now: Instant) -> Self {
        Self(Mutex::new(Window {
            began: now,
            written: 0,
            left_out: 0,
        }))
    }
    /// True if this one is to be written.
    pub(crate) fn write(&self, now: Instant) -> bool {
        let mut window = self.lock();
        // What was left out must be said first; that is done once a second, by a clock of its own.
        if window.left_out == 0 && now.duration_since(window.began) >= SECOND {
            window.began = now;
            window.written = 0;
        }
        let write = window.written < WRITTEN;
        if write {
            window.written += 1;
        } else {
            window.left_out += 1;
        }
        write
    }
    /// How many were left out since this was asked the last time. Begins another second if there were any.
    pub(crate) fn left_out(&self, now: Instant) -> Option<u64> {
        let mut window = self.lock();
        if window.left_out == 0 {
            return None;
        }
        let left_out = window.left_out;
        *window = Window {
            began: now,
            written: 0,
            left_out: 0,
        };
        Some(left_out)
    }

    fn lock(&self) -> MutexGuard<'_, Window> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_a_second_are_written_and_the_others_counted() {
        let now = Instant::now();
        let refusals = Refusals::new(now);
        let written = |at: Instant| (0..25).filter(|_| refusals.write(at)).count();
        assert_eq!(written(now), 10);
        // Nothing more before the gap is on record.
        assert_eq!(written(now + 2 * SECOND), 0);
        assert_eq!(refusals.left_out(now + 2 * SECOND), Some(40));
        assert_eq!(refusals.left_out(now + 2 * SECOND), None);
        assert_eq!(written(now + 2 * SECOND), 10);
        assert_eq!(refusals.left_out(now + 3 * SECOND), Some(15));
    }

    #[test]
    fn who_keeps_to_less_is_always_written() {
        let now = Instant::now();
        let refusals = Refusals::new(now);
        for second in 0..5 {
            let at = now + second * SECOND;
            assert!((0..10).all(|_| refusals.write(at)));
        }
        assert_eq!(refusals.left_out(now + 5 * SECOND), None);
    }
}
