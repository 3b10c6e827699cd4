//! Shedding new work before there is no room left for the work there is (design section 12).
//!
//! When somebody comes, and not more often than once a second, the relay looks at how much of its memory and of its file descriptors it uses. Above the share that its operator allows
//! nobody new may begin a handshake; what is established goes on, and so does what it opens. Below a little less than that share newcomers
//! are welcome again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::observe::process::Process;

/// How often it is looked. A relay that takes a hundred connections a second moves by as many descriptors meanwhile.
const EVERY: Duration = Duration::from_secs(1);
/// How far below the share, in percent of all there is, newcomers are welcome again: not at each that leaves.
const BACK: u64 = 5;

/// See the module.
#[derive(Debug)]
pub(crate) struct Pressure {
    /// How much may be used, in percent.
    share: u32,
    memory: Option<u64>,
    high: AtomicBool,
    looked: Mutex<Option<Instant>>,
}

impl Pressure {
    pub(crate) fn new(share: u32) -> Self {
        Self {
            share,
            memory: memory_limit(),
            high: AtomicBool::new(false),
            looked: Mutex::new(None),
        }
    }

    /// True while nobody new is let in.
    pub(crate) async fn is_high(&self) -> bool {
        if self.is_due(Instant::now()) {
            // A directory of a hundred thousand descriptors takes its time.
            let process = tokio::task::spawn_blocking(Process::read).await;
            self.look(&process.unwrap_or_default());
        }
        self.high.load(Ordering::Relaxed)
    }

    fn is_due(&self, now: Instant) -> bool {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let due = looked.is_none_or(|at| now.saturating_duration_since(at) >= EVERY);
        if due {
            *looked = Some(now);
        }
        due
    }

    fn look(&self, process: &Process) {
        let was = self.high.load(Ordering::Relaxed);
        let high = judge(process, self.memory, u64::from(self.share), was);
        self.high.store(high, Ordering::Relaxed);
        let (files, resident) = (process.open_fds, process.resident_bytes);
        if high && !was {
            let (limit, memory) = (process.max_fds, self.memory);
            tracing::warn!(
                files,
                limit,
                resident,
                memory,
                "most of what there is is in use: no new nodes are let in"
            );
        } else if was && !high {
            tracing::info!(files, resident, "there is room again: new nodes are let in");
        }
    }
}

fn judge(process: &Process, memory: Option<u64>, share: u64, was: bool) -> bool {
    let share = if was {
        share.saturating_sub(BACK)
    } else {
        share
    };
    let exceeds = |used: Option<u64>, limit: Option<u64>| match (used, limit) {
        (Some(used), Some(limit)) => {
            u128::from(used) * 100 >= u128::from(limit) * u128::from(share)
        }
        // What is not known limits nothing.
        _ => false,
    };
    exceeds(process.open_fds, process.max_fds) || exceeds(process.resident_bytes, memory)
}

/// What this process may have: its control group's limit, or the machine's memory.
fn memory_limit() -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let machine = read("/proc/meminfo").and_then(|text| kibibytes(&text));
    let group = read("/proc/self/cgroup").and_then(|text| group_of(&text).map(str::to_owned));
    let limit = group.and_then(|group| limit_of(&group, read));
    match (machine, limit) {
        (Some(machine), Some(limit)) => Some(machine.min(limit)),
        (machine, limit) => machine.or(limit),
    }
}

fn kibibytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// The control group (version 2) that `/proc/self/cgroup` names.
fn group_of(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::"))
}

/// The smallest limit of the group and of those that it is in.
fn limit_of(group: &str, read: impl Fn(&str) -> Option<String>) -> Option<u64> {
    let mut path = group.trim_end_matches('/');
    let mut least = None;
    loop {
        let said = read(&format!("/sys/fs/cgroup{path}/memory.max"));
        let limit: Option<u64> = said.and_then(|text| text.trim().parse().ok());
        least = match (least, limit) {
            (Some(least), Some(limit)) => Some(std::cmp::min::<u64>(least, limit)),
            (least, limit) => least.or(limit),
        };
        match path.rsplit_once('/') {
            Some((above, _)) => path = above,
            None => return least,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn using(open_fds: u64, resident_bytes: u64) -> Process {
        Process {
            open_fds: Some(open_fds),
            max_fds: Some(1_000),
            resident_bytes: Some(resident_bytes),
        }
    }

    #[test]
    fn above_the_share_of_either_nobody_new_is_let_in() {
        let judge = |files, memory| judge(&using(files, memory), Some(2_000), 80, false);
        assert!(!judge(799, 1_599));
        assert!(judge(800, 0) && judge(0, 1_600));
    }

    #[test]
    fn newcomers_are_welcome_again_when_there_is_some_room() {
        let judge = |files, was| judge(&using(files, 0), None, 80, was);
        assert!(judge(760, true) && !judge(760, false));
        assert!(!judge(749, true));
    }

    #[test]
    fn what_is_not_known_limits_nothing() {
        assert!(!judge(&Process::default(), None, 80, false));
        assert!(!judge(&using(0, u64::MAX), None, 80, false));
    }

    #[test]
    fn the_memory_is_that_of_the_group_or_of_one_around_it() {
        let files = |path: &str| match path {
            "/sys/fs/cgroup/pods/relay/memory.max" => Some("max\n".to_owned()),
            "/sys/fs/cgroup/pods/memory.max" => Some("1000\n".to_owned()),
            _ => None,
        };
        assert_eq!(group_of("1:net:/x\n0::/pods/relay\n"), Some("/pods/relay"));
        assert_eq!(limit_of("/pods/relay", files), Some(1_000));
        assert_eq!(limit_of("/", files), None);
        assert_eq!(
            kibibytes("MemFree: 1 kB\nMemTotal:       2 kB\n"),
            Some(2_048)
        );
        assert!(memory_limit().is_some_and(|bytes| bytes > 1 << 20));
    }
}
