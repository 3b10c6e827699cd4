//! Noticing that the host slept.
//!
//! The clock by which everything here is timed stands still while the system is suspended (on Linux CLOCK_MONOTONIC, and its
//! like elsewhere), so that no timer tells of it: a keep-alive that was due in ten seconds is due in ten seconds after
//! eight hours as well, when NATs and relays have long forgotten us. Three signs are watched:
//!
//! - The wall clock moved on and the other did not. Looked at whenever the driver wakes anyway.
//! - On Linux, a timer that the kernel cancels when the wall clock jumps, which it does on waking from sleep: the driver then
//!   wakes at once. Nothing is polled.
//! - A timer that came much too late: the process was stopped, or the virtual machine paused.
//!
//! A wall clock that is set by hand looks the same; then links and paths are asked a question too many, and a client dials
//! its relays once, for the node takes a long sleep to have cost its links.

use std::time::{Duration, Instant, SystemTime};

/// The two clocks drift apart by less than this between two looks, unless one of them stood still or was set. NTP slews by
/// 0.05 % at the most: two seconds in an hour.
const JUMP: Duration = Duration::from_secs(5);
/// A timer is hardly ever this late on a machine that is merely busy.
const LATE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct SleepWatch {
    seen: (Instant, SystemTime),
    #[cfg(target_os = "linux")]
    waking: Option<linux::Waking>,
}

impl SleepWatch {
    /// Needs a tokio runtime.
    pub(super) fn new() -> Self {
        Self {
            seen: (Instant::now(), SystemTime::now()),
            #[cfg(target_os = "linux")]
            waking: linux::Waking::new()
                .map_err(|error| tracing::debug!(%error, "no word from the kernel on waking up"))
                .ok(),
        }
    }

    /// For how long the host slept at least, or this process was stopped, since the last look; none if it did not. `due` is
    /// when the driver wanted to wake up.
    pub(super) fn slept(&mut self, due: Option<Instant>) -> Option<Duration> {
        let now = (Instant::now(), SystemTime::now());
        let before = std::mem::replace(&mut self.seen, now);
        let late = due.and_then(|at| late(at, before.0, now.0));
        late.max(jumped(before, now))
    }

    /// Waits until the wall clock jumps; for ever where the system does not tell.
    pub(super) async fn clock_jumps(&self) {
        #[cfg(target_os = "linux")]
        if let Some(waking) = &self.waking {
            return waking.wait().await;
        }
        std::future::pending::<()>().await;
    }
}

/// By how much a timer was late, if that was too much. What was due before the last look already was asked for too late, by
/// nobody's sleep: a tunnel that is used again after minutes of rest finds its network due for a look long ago.
fn late(due: Instant, looked: Instant, now: Instant) -> Option<Duration> {
    let late = now.saturating_duration_since(due.max(looked));
    (late > LATE).then_some(late)
}

/// By how much more the wall clock moved on than the other, if the two went different ways.
fn jumped(before: (Instant, SystemTime), now: (Instant, SystemTime)) -> Option<Duration> {
    let ours = now.0.saturating_duration_since(before.0);
    match now.1.duration_since(before.1) {
        Ok(walls) => (walls.abs_diff(ours) > JUMP).then(|| walls.saturating_sub(ours)),
        // It was set back: that is no sleep, and looked into all the same.
        Err(back) => (back.duration() > JUMP).then_some(Duration::ZERO),
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::os::fd::OwnedFd;

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use tokio::io::unix::AsyncFd;

    /// Never comes: what is waited for is the cancellation. Half of what the kernel's clock can say.
    const NEVER: i64 = i64::MAX / 2_000_000_000;

    /// A timer on the wall clock that is cancelled when that clock is set, or the system wakes up (timerfd_create(2),
    /// TFD_TIMER_CANCEL_ON_SET).
    #[derive(Debug)]
    pub(super) struct Waking(AsyncFd<OwnedFd>);

    impl Waking {
        pub(super) fn new() -> io::Result<Self> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            let timer = timerfd_create(TimerfdClockId::Realtime, flags)?;
            arm(&timer)?;
            // What the lint warns of cannot happen to an OwnedFd, and the function's successor is unsafe.
            #[expect(
                deprecated,
                reason = "an owned descriptor stays open as long as it is registered"
            )]
            let timer = AsyncFd::new(timer)?;
            Ok(Self(timer))
        }

        pub(super) async fn wait(&self) {
            loop {
                let Ok(mut ready) = self.0.readable().await else {
                    return std::future::pending().await;
                };
                // ECANCELED is the news; anything else (EAGAIN) is none.
                let read = ready.try_io(|timer| Ok(rustix::io::read(timer, &mut [0; 8])?));
                if let Ok(Err(_)) = read {
                    if arm(self.0.get_ref()).is_err() {
                        return std::future::pending().await;
                    }
                    return;
                }
            }
        }
    }

    fn arm(timer: &OwnedFd) -> io::Result<()> {
        let at = |tv_sec| Timespec { tv_sec, tv_nsec: 0 };
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        let never = Itimerspec {
            it_interval: at(0),
            it_value: at(NEVER),
        };
        timerfd_settime(timer, flags, &never)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOURS: Duration = Duration::from_secs(8 * 3600);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_clock_that_stood_still_is_a_sleep_and_one_that_drifted_is_none() {
        let (ours, walls) = (Instant::now(), SystemTime::now());
        let since = |ours_now, walls_now| jumped((ours, walls), (ours_now, walls_now));
        let slept = since(ours + SECOND, walls + HOURS);
        assert_eq!(slept, Some(HOURS - SECOND));
        assert_eq!(since(ours + SECOND, walls - HOURS), Some(Duration::ZERO));
        assert_eq!(since(ours + HOURS, walls + HOURS + SECOND), None);
        assert_eq!(since(ours + HOURS, walls + HOURS - SECOND), None);
    }

    #[test]
    fn a_timer_that_is_a_little_late_is_no_sleep() {
        let due = Instant::now();
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

    #[tokio::test]
    async fn awake_nothing_is_noticed() {
        let mut watch = SleepWatch::new();
        assert_eq!(watch.slept(Some(Instant::now())), None);
        let news = tokio::time::timeout(Duration::from_millis(50), watch.clock_jumps()).await;
        assert!(news.is_err(), "the clock did not jump");
    }
}
