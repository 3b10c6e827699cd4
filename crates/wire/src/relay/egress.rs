//! What may wait in front of a TLS link, at a node and at a relay alike: bounded in age and in bytes (design section 12).
//!
//! The tunnels inside take every queue for distance, and fill any that drops only when it is full. So a link that hardly moves has room for
//! 256 KiB, which is 20 ms at 100 Mbit/s. On a fast one that is less than a millisecond: no longer than programs wait for a processor, and a queue
//! that overflows for such a pause costs the tunnel a third of its window. So a link has room for what it took in ten milliseconds too, up to four times as
//! much. What it took is what its writer was given, a batch ahead of the network.

use std::time::{Duration, Instant};

/// Bytes that a link always has room for.
pub const LEAST_BYTES: usize = 256 * 1024;
/// A fast link has room for so many times as much.
pub const MOST_TIMES: usize = 4;
/// How long data waits. What is older is dropped: the tunnel has sent it again, or will.
pub const MAX_AGE: Duration = Duration::from_millis(50);
/// What a link took in this time there is room for.
const WINDOW: Duration = Duration::from_millis(10);

/// How many bytes may wait.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    least: usize,
    began: Option<Instant>,
    /// What was taken in this window, and in the one before.
    taken: usize,
    before: usize,
}

impl Room {
    /// For a link that has room for so many bytes however slow it is.
    pub fn new(least: usize) -> Self {
        Self {
            least,
            began: None,
            taken: 0,
            before: 0,
        }
    }

    /// The link took so many bytes.
    pub fn took(&mut self, now: Instant, bytes: usize) {
        self.look(now);
        self.taken = self.taken.saturating_add(bytes);
    }

    /// How many bytes may wait now.
    pub fn bytes(&mut self, now: Instant) -> usize {
        self.look(now);
        let most = self.least.saturating_mul(MOST_TIMES);
        self.taken.max(self.before).clamp(self.least, most)
    }

    /// How many bytes of `waiting` may stay when `frame` is added. A queue that was longer while the link was faster is not cut at once: a pause is
    /// not to lose all that a fast link had. It shrinks by as much as is added, and by age.
    pub fn bytes_beside(&mut self, now: Instant, waiting: usize, frame: usize) -> usize {
        let shrinks_to = waiting.saturating_sub(frame);
        self.bytes(now).max(shrinks_to).saturating_sub(frame)
    }

    /// Ends a window that is over.
    fn look(&mut self, now: Instant) {
        let began = *self.began.get_or_insert(now);
        let since = now.saturating_duration_since(began);
        if since < WINDOW {
            return;
        }
        // What was taken in longer than a window is less in one.
        let before = self.taken as u128 * WINDOW.as_nanos() / since.as_nanos();
        self.before = usize::try_from(before).unwrap_or(usize::MAX);
        (self.taken, self.began) = (0, Some(now));
    }
}

impl Default for Room {
    fn default() -> Self {
        Self::new(LEAST_BYTES)
    }
}

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "virtual time needs one instant to count from"
)]
mod tests {
    use super::*;

    /// What there is room for after a link took so many bytes each millisecond, for 100 ms.
    fn after(each_ms: usize) -> (Room, Instant) {
        let mut room = Room::default();
        let mut now = Instant::now();
        for _ in 0..100 {
            room.took(now, each_ms);
            now += Duration::from_millis(1);
        }
        (room, now)
    }

    #[test]
    fn room_grows_with_the_speed_between_its_bounds() {
        let rooms = [0, 12_500, 62_500, 300_000].map(|each_ms| {
            let (mut room, now) = after(each_ms);
            room.bytes(now)
        });
        // Nothing, 100 and 500 Mbit/s, 2.4 Gbit/s.
        assert_eq!(
            rooms,
            [LEAST_BYTES, LEAST_BYTES, 625_000, MOST_TIMES * LEAST_BYTES]
        );
    }

    #[test]
    fn a_link_that_stands_still_has_the_least() {
        let (mut room, now) = after(300_000);
        assert_eq!(room.bytes(now + WINDOW), MOST_TIMES * LEAST_BYTES);
        assert_eq!(room.bytes(now + WINDOW * 2), LEAST_BYTES);
        // However long nobody looked.
        let (mut room, now) = after(300_000);
        assert_eq!(room.bytes(now + WINDOW * 100), LEAST_BYTES);
    }

    #[test]
    fn what_waits_already_is_cut_little_by_little() {
        let (mut room, now) = after(0);
        assert_eq!(room.bytes_beside(now, 1_000, 100), LEAST_BYTES - 100);
        let longer = 2 * LEAST_BYTES;
        assert_eq!(room.bytes_beside(now, longer, 100), longer - 200);
        assert_eq!(Room::new(50).bytes_beside(now, 0, 100), 0);
    }
}
