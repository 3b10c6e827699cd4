//! Whether files changed. They are asked for their size, times and number: a watch by the system would miss what is renamed over
//! them, mounted over them (a Kubernetes secret is a symbolic link that moves) or on a network's disk.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// What tells one content of a file from the next. The time of the last change as well as that of the last write: whoever copies a
/// file with its times, or sets them, changes the former.
type Mark = Option<(u64, u64, [i64; 4])>;

/// What there was of all files at one look.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Marks(Vec<Mark>);

#[derive(Debug)]
pub(super) struct Files {
    paths: Vec<PathBuf>,
}

impl Files {
    pub(super) fn new(paths: Vec<PathBuf>) -> Self {
        Self { paths }
    }

    pub(super) fn marks(&self) -> Marks {
        let mark = |path: &PathBuf| {
            let m = std::fs::metadata(path).ok()?;
            let times = [m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec()];
            Some((m.ino(), m.size(), times))
        };
        Marks(self.paths.iter().map(mark).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_written_replaced_or_gone_has_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        std::fs::write(&path, "a").unwrap();
        let files = Files::new(vec![path.clone()]);
        let mut seen = files.marks();
        let mut changed = || {
            let now = files.marks();
            std::mem::replace(&mut seen, now.clone()) != now
        };
        assert!(!changed());
        std::fs::write(&path, "ab").unwrap();
        assert!(changed() && !changed());
        std::fs::write(folder.path().join("other"), "cd").unwrap();
        std::fs::rename(folder.path().join("other"), &path).unwrap();
        assert!(changed() && !changed());
        std::fs::remove_file(&path).unwrap();
        assert!(changed() && !changed());
    }

    /// As `rsync --inplace --times` leaves it.
    #[test]
    fn a_file_of_the_same_size_whose_time_was_set_back_has_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        std::fs::write(&path, "ab").unwrap();
        let files = Files::new(vec![path.clone()]);
        let before = files.marks();
        let written = std::fs::metadata(&path).unwrap().modified().unwrap();
        // The kernel's clock for files ticks every few milliseconds.
        while files.marks() == before {
            std::fs::write(&path, "cd").unwrap();
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            file.set_modified(written).unwrap();
        }
        let again = std::fs::metadata(&path).unwrap();
        assert_eq!((again.modified().unwrap(), again.len()), (written, 2));
    }
}
