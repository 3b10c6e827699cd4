//! Whether files changed. They are asked for their size, time and number: a watch by the system would miss what is renamed over
//! them, mounted over them (a Kubernetes secret is a symbolic link that moves) or on a network's disk.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// What tells one content of a file from the next.
type Mark = Option<(u64, u64, i64, i64)>;

#[derive(Debug)]
pub(super) struct Files {
    seen: Vec<(PathBuf, Mark)>,
}

impl Files {
    pub(super) fn new(paths: Vec<PathBuf>) -> Self {
        let seen = paths.into_iter().map(|path| {
            // Not what it is now: it may have changed since it was read, and then would never be read again.
            (path, None)
        });
        Self {
            seen: seen.collect(),
        }
    }

    /// True if any changed since the last time; the first time always.
    pub(super) fn changed(&mut self) -> bool {
        let mut changed = false;
        for (path, seen) in &mut self.seen {
            let now = std::fs::metadata(path.as_path())
                .ok()
                .map(|m| (m.ino(), m.size(), m.mtime(), m.mtime_nsec()));
            changed |= std::mem::replace(seen, now) != now;
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_written_replaced_or_gone_has_changed() {
        let folder = std::env::temp_dir().join(format!("byway-files-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("list");
        std::fs::write(&path, "a").unwrap();
        let mut files = Files::new(vec![path.clone()]);
        assert!(files.changed() && !files.changed());
        std::fs::write(&path, "ab").unwrap();
        assert!(files.changed() && !files.changed());
        std::fs::write(folder.join("other"), "cd").unwrap();
        std::fs::rename(folder.join("other"), &path).unwrap();
        assert!(files.changed() && !files.changed());
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(files.changed() && !files.changed());
    }
}
