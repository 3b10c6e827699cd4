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
    /// For how long the host slept at least since the last look, as far as one can tell; none if it did not. `due` is when the
    /// node wanted to wake up, no earlier than it said so.
    pub(super) fn slept(
        &mut self,
        now: Instant,
        wall: Duration,
        due: Option<Instant>,
    ) -> Option<Duration> {
        let (then, wall_then) = std::mem::replace(&mut self.seen, (now, wall));
        let late = due.map(|at| now.saturating_duration_since(at));
        let late = late.filter(|late| *late > LATE);
        let ours = now.saturating_duration_since(then);
        let jumped = match wall.checked_sub(wall_then) {
            Some(walls) if walls.abs_diff(ours) > JUMP => Some(walls.saturating_sub(ours)),
            Some(_) => None,
            // It was set back: that is no sleep, and looked into all the same.
            None => (wall_then - wall > JUMP).then_some(Duration::ZERO),
        };
        late.max(jumped)
    }
}
