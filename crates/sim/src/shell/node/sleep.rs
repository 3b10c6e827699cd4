//! Noticing that the host slept (`byway`'s `driver/sleep.rs`): the wall clock went another way than the monotonic one, or a
//! timer came much too late. A wall clock that is set looks the same. How often the node is told at most
//! (`driver/changes.rs`) is left out: no scene has a clock that is set all the time.

use std::time::{Duration, Instant};

/// Between two looks the clocks drift apart by no more than this (`JUMP` there).
const JUMP: Duration = Duration::from_secs(5);
/// No timer is this late on a machine that is merely busy (`LATE` there).
const LATE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct SleepWatch {
    /// The monotonic clock, and the wall clock since 1970.
    seen: (Instant, Duration),
}

impl SleepWatch {
    pub(super) fn new(now: Instant, wall: Duration) -> Self {
        Self { seen: (now, wall) }
    }
    /// True if the host slept since the last look, as far as one can tell. `due` is when the node wanted to wake up, no earlier than it said
    /// so.
    pub(super) fn slept(&mut self, now: Instant, wall: Duration, due: Option<Instant>) -> bool {
        let (then, wall_then) = std::mem::replace(&mut self.seen, (now, wall));
        let late = due.is_some_and(|at| at + LATE < now);
        let ours = now.saturating_duration_since(then);
        let jumped = match wall.checked_sub(wall_then) {
            Some(walls) => walls.abs_diff(ours) > JUMP,
            // It was set back.
            None => wall_then - wall > JUMP,
        };
        late || jumped
    }
}
