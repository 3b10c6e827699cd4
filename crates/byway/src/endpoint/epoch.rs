//! The node's epoch: a number that rises with each start, by which the newest of several records is told.
//!
//! Several processes of one key start side by side (`forward` and `ssh`): a lock beside the file makes each take a number of
//! its own.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
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
    let stored = match std::fs::read_to_string(file) {
        Ok(text) => text.trim().parse::<u64>().unwrap_or_else(|_| {
            tracing::warn!("{} holds no number: it is written anew", file.display());
            0
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    let epoch = clock.max(stored.saturating_add(1));
    // A crash in the middle must leave the old number or the new one.
    let fresh = beside(file, ".new");
    let mut written = File::create(&fresh)?;
    written.write_all(format!("{epoch}\n").as_bytes())?;
    written.sync_all()?;
    std::fs::rename(&fresh, file)?;
    Ok(epoch)
}

/// The epoch where none can be kept.
pub(super) fn clock() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Held until it is dropped. A file of its own: the other one is replaced.
fn lock(file: &Path) -> io::Result<File> {
    let lock = OpenOptions::new()
        .write(true)
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
        for damaged in ["", "hello", "-1", "99999999999999999999999999"] {
            std::fs::write(&file, damaged).unwrap();
            let epoch = next(Some(&file)).unwrap();
            assert!(next(Some(&file)).unwrap() > epoch, "{damaged:?}");
        }
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
