//! Noticing that the host slept: by two clocks, and by timers that come too late. Both are the shell's to read.
//!
//! The clock by which everything here is timed stands still while the system is suspended, on most systems. So a sleep is told
//! by the wall clock, which moved on alone; where the monotonic clock goes on as well, or the process was stopped, by a timer
//! that came much too late. A wall clock that is set by hand looks the same.

use std::time::{Duration, Instant};

/// The two clocks drift apart by less than this between two looks, unless one of them stood still or was set. NTP slews by
/// 0.05 % at the most: two seconds in an hour.
const JUMP: Duration = Duration::from_secs(5);
/// A timer is hardly ever this late on a machine that is merely busy.
const LATE: Duration = Duration::from_secs(5);

/// Both clocks, as they were at the last look.
#[derive(Debug)]
pub struct SleepWatch {
    seen: Clocks,
}

/// The monotonic clock, and the wall clock as the time since 1970.
type Clocks = (Instant, Duration);

impl SleepWatch {
    /// A first look at both clocks; `wall` is the time since 1970.
    pub fn new(now: Instant, wall: Duration) -> Self {
        Self { seen: (now, wall) }
    }

    /// For how long the host slept at least, or this process was stopped, since the last look; zero if the wall clock was set back,
    /// which is looked into like a sleep; none if there is no sign. `due` is when the node wanted to wake up.
    pub fn slept(
        &mut self,
        now: Instant,
        wall: Duration,
        due: Option<Instant>,
    ) -> Option<Duration> {
        let before = std::mem::replace(&mut self.seen, (now, wall));
        let late = due.and_then(|at| late(at, before.0, now));
        late.max(jumped(before, (now, wall)))
    }
}

/// By how much a timer was late, if that was too much. What was due before the last look already was asked for too late, by
/// nobody's sleep: a tunnel that is used again after minutes of rest finds its network due for a look long ago.
fn late(due: Instant, looked: Instant, now: Instant) -> Option<Duration> {
    let late = now.saturating_duration_since(due.max(looked));
    (late > LATE).then_some(late)
}

/// By how much more the wall clock moved on than the other, if the two went different ways.
fn jumped(before: Clocks, now: Clocks) -> Option<Duration> {
    let ours = now.0.saturating_duration_since(before.0);
    match now.1.checked_sub(before.1) {
        Some(walls) => (walls.abs_diff(ours) > JUMP).then(|| walls.saturating_sub(ours)),
        None => (before.1 - now.1 > JUMP).then_some(Duration::ZERO),
    }
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "any instant will do to begin with"
)]
mod tests {
    use super::*;

    const HOURS: Duration = Duration::from_secs(8 * 3600);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_clock_that_stood_still_is_a_sleep_and_one_that_drifted_is_none() {
        let (ours, walls) = (Instant::now(), HOURS * 100);
        let since = |ours_now, walls_now| jumped((ours, walls), (ours_now, walls_now));
        let slept = since(ours + SECOND, walls + HOURS);
        assert_eq!(slept, Some(HOURS - SECOND));
        assert_eq!(since(ours + SECOND, walls - HOURS), Some(Duration::ZERO));
        assert_eq!(since(ours + HOURS, walls + HOURS + SECOND), None);
        assert_eq!(since(ours + HOURS, walls + HOURS - SECOND), None);
    }

    #[test]
    fn a_timer_that_is_a_little_late_is_no_sleep() {
        let due = Instant::now() + HOURS;
        let looked = due - SECOND;
        assert_eq!(late(due, looked, due + SECOND), None);
        assert_eq!(late(due + HOURS, looked, due), None);
        assert_eq!(late(due, looked, due + SECOND * 4), None);
        assert_eq!(late(due, looked, due + SECOND * 6), Some(SECOND * 6));
    }

    /// Found in the simulation: the first byte after half a minute of rest was taken for waking up.
    #[test]
    fn what_was_overdue_when_it_was_asked_for_is_no_sleep() {
        let due = Instant::now();
        let asked = due + HOURS;
        assert_eq!(late(due, asked, asked + SECOND), None);
        assert_eq!(late(due, asked, asked + SECOND * 6), Some(SECOND * 6));
    }

    #[test]
    fn each_look_counts_from_the_one_before() {
        let (now, wall) = (Instant::now(), HOURS);
        let mut watch = SleepWatch::new(now, wall);
        assert_eq!(watch.slept(now, wall + HOURS, None), Some(HOURS));
        assert_eq!(watch.slept(now + SECOND, wall + HOURS + SECOND, None), None);
        let late = now + SECOND * 9;
        let slept = watch.slept(late, wall + HOURS + SECOND * 9, Some(now + SECOND * 2));
        assert_eq!(slept, Some(SECOND * 7));
    }
}
