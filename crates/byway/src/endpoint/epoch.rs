//! The node's epoch: a number that rises with each start, by which the newest of several records is told.

use std::io::{self, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// max(stored + 1, wall clock in seconds), stored before it is used: a clock that was set back cannot make an old record
/// look new.
pub(super) fn next(file: Option<&Path>) -> io::Result<u64> {
    let clock = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let Some(file) = file else {
        return Ok(clock);
    };
    let stored = match std::fs::read_to_string(file) {
        Ok(text) => text
            .trim()
            .parse::<u64>()
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not a number"))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    let epoch = clock.max(stored.saturating_add(1));
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    // A crash in the middle must leave the old number or the new one.
    let mut fresh = file.as_os_str().to_owned();
    fresh.push(".new");
    let mut written = std::fs::File::create(&fresh)?;
    written.write_all(format!("{epoch}\n").as_bytes())?;
    written.sync_all()?;
    std::fs::rename(&fresh, file)?;
    Ok(epoch)
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
    fn a_file_of_something_else_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("epoch");
        std::fs::write(&file, "hello").unwrap();
        assert!(next(Some(&file)).is_err());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "hello");
    }
}
