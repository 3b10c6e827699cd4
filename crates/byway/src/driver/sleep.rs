//! Noticing that the host slept ([`byway_core::sleep`]): both clocks are looked at whenever the driver wakes anyway, and on Linux
//! it wakes at once, by a timer that the kernel cancels when the wall clock jumps, which it does on waking from sleep. Nothing is
//! polled.
//!
//! A wall clock that is set by hand looks the same; then links and paths are asked a question too many, and a client dials
//! its relays once, for the node takes a long sleep to have cost its links.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

#[derive(Debug)]
pub(super) struct SleepWatch {
    clocks: byway_core::sleep::SleepWatch,
    #[cfg(target_os = "linux")]
    waking: Option<linux::Waking>,
}

impl SleepWatch {
    /// Needs a tokio runtime.
    pub(super) fn new() -> Self {
        Self {
            clocks: byway_core::sleep::SleepWatch::new(Instant::now(), wall()),
            #[cfg(target_os = "linux")]
            waking: linux::Waking::new()
                .map_err(|error| tracing::debug!(%error, "no word from the kernel on waking up"))
                .ok(),
        }
    }

    /// For how long the host slept at least, or this process was stopped, since the last look; none if it did not. `due` is
    /// when the driver wanted to wake up.
    pub(super) fn slept(&mut self, due: Option<Instant>) -> Option<Duration> {
        self.clocks.slept(Instant::now(), wall(), due)
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

/// Since 1970. A clock that stands before that stands still.
fn wall() -> Duration {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default()
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

    #[tokio::test]
    async fn awake_nothing_is_noticed() {
        let mut watch = SleepWatch::new();
        assert_eq!(watch.slept(Some(Instant::now())), None);
        let news = tokio::time::timeout(Duration::from_millis(50), watch.clock_jumps()).await;
        assert!(news.is_err(), "the clock did not jump");
    }
}
