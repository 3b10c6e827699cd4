//! The node's epoch: a number that rises with each start, by which the newest of several records is told.
//!
//! Several processes of one key start side by side (`forward` and `ssh`): a lock beside the file makes each take a number of
//! its own.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// max(stored + 1, wall clock in seconds), stored before it is used: a clock that was set back cannot make an old record
/// look new. A file with something else in it counts as none, and is written anew.
pub(super) fn next(file: Option<&Path>) -> io::Result<u64> {
    let clock = clock();
    let Some(file) = file else {
        return Ok(clock);
    };
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let _locked = lock(file)?;
    let after_stored = match std::fs::read(file) {
        Ok(text) => after(&text).unwrap_or_else(|| {
            tracing::warn!("{} holds no number: it is written anew", file.display());
            0
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    let epoch = clock.max(after_stored);
    store(file, epoch)?;
    Ok(epoch)
}

/// The number after the one in the file. The largest has none, and must not be the last number for ever.
fn after(text: &[u8]) -> Option<u64> {
    let stored: u64 = std::str::from_utf8(text).ok()?.trim().parse().ok()?;
    stored.checked_add(1)
}

/// A crash in the middle leaves the old number or the new one.
fn store(file: &Path, epoch: u64) -> io::Result<()> {
    /// The lock does not keep others away on every file system, so the name does.
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let fresh = beside(file, &format!(".{}-{number}.new", std::process::id()));
    // What a process of our number left behind when it crashed.
    let _ = std::fs::remove_file(&fresh);
    let stored = private()
        .create_new(true)
        .open(&fresh)
        .and_then(|mut written| {
            written.write_all(format!("{epoch}\n").as_bytes())?;
            written.sync_all()
        })
        .and_then(|()| std::fs::rename(&fresh, file));
    if stored.is_err() {
        let _ = std::fs::remove_file(&fresh);
    }
    stored
}

/// The epoch where none can be kept.
pub(super) fn clock() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Held until it is dropped. A file of its own: the other one is replaced.
fn lock(file: &Path) -> io::Result<File> {
    let lock = private()
        .create(true)
        .truncate(false)
        .open(beside(file, ".lock"))?;
    match lock.lock() {
        // A file system without locks: two that start in the same moment may take one number.
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
        locked => locked?,
    }
    Ok(lock)
}

/// To write what nobody else is to read, or to lock.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

fn beside(file: &Path, suffix: &str) -> std::path::PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_epoch_rises_even_if_the_clock_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("deep/epoch");
        let first = next(Some(&file)).unwrap();
        assert!(next(Some(&file)).unwrap() > first);
        let future = first + 1_000_000;
        std::fs::write(&file, future.to_string()).unwrap();
        assert_eq!(next(Some(&file)).unwrap(), future + 1);
    }

    #[test]
    fn a_damaged_file_stops_nobody_and_is_mended() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("epoch");
        let last = u64::MAX.to_string();
        for damaged in [
            &b""[..],
            b"hello",
            b"-1",
            b"\xff\xfe\x00",
            b"99999999999999999999999999",
            last.as_bytes(),
        ] {
            std::fs::write(&file, damaged).unwrap();
            let epoch = next(Some(&file)).unwrap();
            assert!(next(Some(&file)).unwrap() > epoch, "{damaged:?}");
        }
    }

    #[test]
    fn what_is_kept_is_the_owners_alone_and_nothing_else_stays() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("epoch");
        next(Some(&file)).unwrap();
        let mut names = Vec::new();
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{entry:?}");
            names.push(entry.file_name());
        }
        names.sort();
        assert_eq!(names, ["epoch", "epoch.lock"]);
    }

    #[test]
    fn of_many_that_start_at_once_each_has_a_number_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("epoch");
        let starting: Vec<_> = (0..40)
            .map(|_| {
                let file = file.clone();
                std::thread::spawn(move || next(Some(&file)).unwrap())
            })
            .collect();
        let mut epochs: Vec<u64> = starting.into_iter().map(|t| t.join().unwrap()).collect();
        epochs.sort_unstable();
        epochs.dedup();
        assert_eq!(epochs.len(), 40);
    }
}
