//! Time on processors: of one program with all its threads, and of the whole machine.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// Clock ticks per second in `/proc/stat`: Linux has reported 100 to user space on every architecture for decades.
const TICKS: f64 = 100.0;

/// What each thread of a program has had so far. In nanoseconds, where a process's own figures are in ticks of ten
/// milliseconds: a relay that does little would be measured by a handful of those.
#[derive(Clone, Debug)]
pub(super) struct Threads(BTreeMap<u32, u64>);

impl Threads {
    /// Of the program with this id.
    pub(super) fn of(pid: u32) -> Result<Self> {
        let mut threads = BTreeMap::new();
        let dir = format!("/proc/{pid}/task");
        for entry in fs::read_dir(&dir).with_context(|| format!("reading {dir}"))? {
            let entry = entry?;
            let thread = entry.file_name().to_string_lossy().parse()?;
            // One that has ended meanwhile had nothing to do.
            let Ok(text) = fs::read_to_string(entry.path().join("schedstat")) else {
                continue;
            };
            threads.insert(thread, on_processor(&text).context("malformed schedstat")?);
        }
        Ok(Self(threads))
    }

    /// What was added since an earlier reading.
    pub(super) fn since(&self, earlier: &Self) -> Duration {
        let added = self.0.iter().map(|(thread, now)| {
            let before = earlier.0.get(thread).copied().unwrap_or(0);
            now.saturating_sub(before)
        });
        Duration::from_nanos(added.sum())
    }
}

/// The first of three numbers (Documentation/scheduler/sched-stats.rst).
fn on_processor(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().next()?.parse().ok()
}

/// What all of the machine's processors have worked so far.
pub(super) fn machine() -> Result<Duration> {
    let text = fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
    busy(&text).context("malformed /proc/stat")
}

/// User, nice, system, interrupts of both kinds; neither idle nor waiting for a disk (proc(5)).
fn busy(stat: &str) -> Option<Duration> {
    let all = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<f64> = all
        .split_whitespace()
        .map(|field| field.parse().ok())
        .collect::<Option<_>>()?;
    let [user, nice, system, _idle, _waits, interrupts, softirqs, ..] = ticks[..] else {
        return None;
    };
    let busy = user + nice + system + interrupts + softirqs;
    Some(Duration::from_secs_f64(busy / TICKS))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_thread_that_came_later_counts_whole_and_one_that_went_not_at_all() {
        let reading = |threads: &[(u32, u64)]| Threads(threads.iter().copied().collect());
        let before = reading(&[(1, 500), (2, 70)]);
        let after = reading(&[(1, 700), (3, 30)]);
        assert_eq!(after.since(&before), Duration::from_nanos(230));
    }

    #[test]
    fn what_the_kernel_writes_is_read() {
        assert_eq!(on_processor("1234567 89 10\n"), Some(1_234_567));
        assert_eq!(on_processor(""), None);
        let stat = "cpu  100 1 50 9000 300 2 47 5 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        assert_eq!(busy(stat), Some(Duration::from_secs(2)));
        assert_eq!(busy("intr 1 2 3"), None);
    }

    #[test]
    fn this_program_has_worked() {
        let before = Threads::of(std::process::id()).unwrap();
        let began = machine().unwrap();
        // However many others are at work meanwhile.
        let until = Instant::now() + Duration::from_secs(20);
        let worked = || Threads::of(std::process::id()).unwrap().since(&before);
        while worked() < Duration::from_millis(50) {
            assert!(Instant::now() < until, "{:?}", worked());
        }
        assert!(machine().unwrap() > began);
    }
}
