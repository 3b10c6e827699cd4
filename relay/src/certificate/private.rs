//! Writing files that only their owner may read, whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::CertificateError;

/// Writes a file, unless there is one.
pub(crate) fn write_new(path: &Path, contents: &[u8]) -> Result<(), CertificateError> {
    write(path, contents, |draft| match fs::hard_link(draft, path) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
        // Some file systems have no hard links: there, two that start at once may differ until the next start.
        Err(_) => fs::rename(draft, path),
        linked => linked,
    })
}

/// Writes a file, in the place of one that may be there.
#[cfg(feature = "acme")]
pub(crate) fn replace(path: &Path, contents: &[u8]) -> Result<(), CertificateError> {
    write(path, contents, |draft| fs::rename(draft, path))
}

fn write(
    path: &Path,
    contents: &[u8],
    put: impl FnOnce(&Path) -> io::Result<()>,
) -> Result<(), CertificateError> {
    let written = Draft::write(path, contents).and_then(|draft| {
        put(&draft.0)?;
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        File::open(dir.unwrap_or(Path::new(".")))?.sync_all()
    });
    written.map_err(|source| CertificateError::Write {
        path: path.to_owned(),
        source,
    })
}

/// A file beside the real one; gone when dropped.
struct Draft(PathBuf);

impl Draft {
    fn write(path: &Path, contents: &[u8]) -> io::Result<Self> {
        let mut nonce = [0; 8];
        getrandom::fill(&mut nonce).map_err(io::Error::other)?;
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{:016x}", u64::from_be_bytes(nonce)));
        let draft = Self(name.into());
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&draft.0)?;
        file.write_all(contents)?;
        file.sync_all()?;
        Ok(draft)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Renamed away, or never made.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_file_does_not_replace_one_that_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        write_new(&path, b"first").unwrap();
        write_new(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[cfg(feature = "acme")]
    #[test]
    fn a_file_is_replaced_whole_and_becomes_its_owner_s_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "a longer one").unwrap();
        replace(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
