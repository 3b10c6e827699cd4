//! Whatever a world makes (namespaces, a directory) is named after the process it belongs to, so that it can be told
//! from what another run is using, and is removed three times over: when its value is dropped; by a `Janitor`, should
//! the process be ended from outside; and by the next run's [`sweep`], should even that be.
//!
//! A name is `bwlab-<pid>.<start>-<n>`. A pid is given again one day; together with its start, in ticks since boot, it
//! is one process.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::netns::SETTINGS;
use crate::process::poll;

const PREFIX: &str = "bwlab-";
/// Not that of what is swept: kept files stay until somebody removes them.
const KEPT_PREFIX: &str = "byway-lab-kept-";
/// A killed process is gone within milliseconds, unless the kernel is stuck on its behalf.
const GONE: Duration = Duration::from_secs(10);

/// A process, as it stands in names.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Owner {
    pid: u32,
    start: u64,
}

impl Owner {
    fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is a name in parentheses, which may hold anything; the start is the 22nd of all, proc(5).
        let (_, after_name) = stat.rsplit_once(')')?;
        let start = after_name.split_whitespace().nth(19)?.parse().ok()?;
        Some(Self { pid, start })
    }

    /// That in a name of ours.
    fn in_name(name: &str) -> Option<Self> {
        name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
    }

    fn is_alive(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.pid, self.start)
    }
}

impl std::str::FromStr for Owner {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (pid, start) = text.split_once('.').context("PID.START")?;
        Ok(Self {
            pid: pid.parse()?,
            start: start.parse()?,
        })
    }
}

fn ourselves() -> Owner {
    // Without /proc no namespace can be made either; the name is still unique then.
    let pid = std::process::id();
    Owner::of(pid).unwrap_or(Owner { pid, start: 0 })
}

/// A name for a world, unique on this machine.
pub(crate) fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{PREFIX}{}-{number}", ourselves())
}

/// Removes namespaces and directories of runs that no longer exist. Returns how many there were.
pub fn sweep() -> usize {
    remove_all(|owner| !owner.is_alive())
}

fn remove_all(whose: impl Fn(&Owner) -> bool) -> usize {
    let mut removed = 0;
    for (dir, namespaces) in [
        (PathBuf::from("/run/netns"), true),
        (std::env::temp_dir(), false),
        (PathBuf::from(SETTINGS), false),
    ] {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !Owner::in_name(&name).is_some_and(|owner| whose(&owner)) {
                continue;
            }
            removed += 1;
            if namespaces {
                remove_namespace(&name);
            } else {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
    removed
}

/// Deletes a namespace of ours. What still runs in it was started there by a scenario (an sshd session whose
/// daemon is gone, say), since nobody else enters these; it is ended by its id first. One that is just being started
/// may appear after the first look.
pub(crate) fn remove_namespace(name: &str) {
    let emptied = poll("end of what runs inside", GONE, || {
        let pids = pids_inside(name)?;
        if pids.is_empty() {
            return Ok(Some(()));
        }
        let _ = Command::new("kill")
            .arg("-KILL")
            .args(&pids)
            .stderr(Stdio::null())
            .status()?;
        Ok(None)
    });
    if let Err(error) = emptied {
        eprintln!("{name}: {error:#}");
    }
    let _ = Command::new("ip")
        .args(["netns", "del", name])
        .stderr(Stdio::null())
        .status();
    let _ = fs::remove_dir_all(Path::new(SETTINGS).join(name));
}

fn pids_inside(name: &str) -> Result<Vec<String>> {
    let out = Command::new("ip").args(["netns", "pids", name]).output()?;
    // A namespace that is gone has nothing in it.
    Ok(String::from_utf8_lossy(&out.stdout)
        .split_whitespace()
        .map(str::to_owned)
        .collect())
}

/// Waits beside this process until it ends, however that comes about, and then removes what it left. Ctrl-C goes to all
/// of a terminal's foreground group, SIGKILL runs no handler: so it is a process, of a group of its own, and learns of
/// the end by the closing of a pipe.
#[derive(Debug)]
pub(crate) struct Janitor(Option<Child>);

impl Janitor {
    /// One for this process. Without it the next run sweeps.
    pub(crate) fn start() -> Self {
        let started = std::env::current_exe().and_then(|exe| {
            Command::new(exe)
                .args(["tool", "janitor", &ourselves().to_string()])
                .process_group(0)
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
        });
        Self(started.ok())
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }
}

/// `tool janitor PID.START`.
pub(crate) fn janitor(args: &[String]) -> Result<()> {
    let [owner] = args else {
        bail!("janitor PID.START")
    };
    let owner: Owner = owner.parse()?;
    // Nothing is ever written: this is the pipe's end.
    std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink())?;
    remove_all(|of| *of == owner);
    Ok(())
}

/// A directory for a world's files, removed when dropped (kept with `BYWAY_LAB_KEEP=1`).
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    kept: bool,
}

impl Scratch {
    pub(crate) fn create(name: &str) -> Result<Self> {
        let kept = std::env::var_os("BYWAY_LAB_KEEP").is_some();
        let name = match name.strip_prefix(PREFIX) {
            Some(rest) if kept => format!("{KEPT_PREFIX}{rest}"),
            _ => name.to_owned(),
        };
        let path = std::env::temp_dir().join(name);
        // Keys are in it. One that is there already was made by somebody else, and is not to be trusted.
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("making {}", path.display()))?;
        Ok(Self { path, kept })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.kept {
            eprintln!("files kept in {}", self.path.display());
        } else {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_their_owner_and_foreign_names_have_none() {
        let own = Owner::in_name(&format!("{}-relay", unique()));
        assert_eq!(own.as_ref().map(|o| o.pid), Some(std::process::id()));
        assert!(own.is_some_and(|o| o.is_alive()));
        for foreign in [
            "bwlab",
            "bwlab-",
            "bwlab-x-1",
            "bwlab-12-1",
            "bwlab-1.x-1",
            "docker-1.2-3",
            "xbwlab-1.2-3",
            "byway-lab-kept-1.2-3",
        ] {
            assert_eq!(Owner::in_name(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_later_process_of_the_same_id_is_another_owner() {
        let own = ourselves();
        let earlier = Owner {
            start: own.start - 1,
            ..own
        };
        assert!(own.is_alive() && !earlier.is_alive());
    }

    #[test]
    fn a_directory_that_is_already_there_is_refused() {
        let name = unique();
        let first = Scratch::create(&name).unwrap();
        assert!(Scratch::create(&name).is_err());
        drop(first);
        assert!(Scratch::create(&name).is_ok());
    }
}
