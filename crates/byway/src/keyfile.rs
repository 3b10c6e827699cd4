//! Key files: 32 secret bytes as base32 text, readable by the owner only.
//!
//! A file is created under another name in the same folder (mode 0600 from the start, flushed to the disk) and then
//! linked to its own, so that nobody ever sees half a key, a crash leaves none, and of two processes that start at once
//! both use the one that was first. An existing file must be a regular file that nobody but its owner can read; that is
//! checked on the opened file, not on its name.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use byway_wire::{SecretKey, TicketSecret};
use data_encoding::{BASE32_NOPAD, BASE32_NOPAD_NOCASE};
use zeroize::Zeroizing;

/// Characters of 32 bytes in base32.
const TEXT_LEN: usize = 52;

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// Others can read it.
    #[error("{path} can be read by others (mode {mode:o}); run: chmod 600 {path}", path = .path.display())]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It holds no key.
    #[error("{} holds no Byway key (52 characters of base32)", .0.display())]
    Content(PathBuf),
    /// It cannot be read or written.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Reads the key, or makes one and stores it with mode 0600 (its folder with 0700) if there is no file.
pub fn load_or_create(path: &Path) -> Result<SecretKey, KeyFileError> {
    load_or_create_bytes(path).map(|bytes| SecretKey::from_bytes(&bytes))
}

/// The same for the secret of an agent's tickets, so that tickets stay good when the agent restarts.
pub fn load_or_create_ticket_secret(path: &Path) -> Result<TicketSecret, KeyFileError> {
    load_or_create_bytes(path).map(|bytes| TicketSecret::from_bytes(*bytes))
}

fn load_or_create_bytes(path: &Path) -> Result<Zeroizing<[u8; 32]>, KeyFileError> {
    let io_error = |source| KeyFileError::Io {
        path: path.to_owned(),
        source,
    };
    // Opening a pipe would wait for a writer; `read` checks again what was really opened.
    if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        return Err(KeyFileError::Content(path.to_owned()));
    }
    match File::open(path) {
        Ok(file) => return read(path, file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io_error(error)),
    }
    match create(path) {
        Ok(bytes) => Ok(bytes),
        // Another process was faster; its key counts. (A dangling symbolic link ends here too, with "not found".)
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            read(path, File::open(path).map_err(io_error)?)
        }
        Err(error) => Err(io_error(error)),
    }
}

fn read(path: &Path, mut file: File) -> Result<Zeroizing<[u8; 32]>, KeyFileError> {
    let io_error = |source| KeyFileError::Io {
        path: path.to_owned(),
        source,
    };
    let metadata = file.metadata().map_err(io_error)?;
    if !metadata.is_file() {
        return Err(KeyFileError::Content(path.to_owned()));
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Permissions {
            path: path.to_owned(),
            mode,
        });
    }
    // One byte more than a key with its newline, to notice what is longer without reading it.
    let mut text = Zeroizing::new([0; TEXT_LEN + 3]);
    let mut len = 0;
    while len < text.len() {
        match file.read(&mut text[len..]).map_err(io_error)? {
            0 => break,
            read => len += read,
        }
    }
    parse(text[..len].trim_ascii_end()).ok_or_else(|| KeyFileError::Content(path.to_owned()))
}

fn parse(text: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    if text.len() != TEXT_LEN {
        return None;
    }
    let mut bytes = Zeroizing::new([0; 32]);
    let written = BASE32_NOPAD_NOCASE.decode_mut(text, &mut *bytes).ok()?;
    (written == 32).then_some(bytes)
}

/// Makes a secret and stores it; fails with `AlreadyExists` rather than touch what is there.
fn create(path: &Path) -> io::Result<Zeroizing<[u8; 32]>> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;

    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *bytes).map_err(|error| io::Error::other(error.to_string()))?;
    let mut tag = [0; 8];
    getrandom::fill(&mut tag).map_err(|error| io::Error::other(error.to_string()))?;
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not the name of a file"))?;
    let mut temporary_name = name.to_owned();
    temporary_name.push(format!(".{}.new", u64::from_ne_bytes(tag)));
    let temporary = folder.join(temporary_name);

    let stored =
        write(&temporary, &bytes).and_then(|()| match std::fs::hard_link(&temporary, path) {
            // A file system without hard links: not atomic, but never over an existing file.
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => write(path, &bytes),
            linked => linked,
        });
    // Whatever happened, the temporary name has served; that it cannot be removed changes nothing.
    let _ = std::fs::remove_file(&temporary);
    stored.map(|()| bytes)
}

/// Writes a new file of mode 0600; symbolic links are not followed, existing files not touched.
fn write(path: &Path, bytes: &[u8; 32]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    let mut text = Zeroizing::new([b'\n'; TEXT_LEN + 1]);
    BASE32_NOPAD.encode_mut(bytes, &mut text[..TEXT_LEN]);
    text.make_ascii_lowercase();
    file.write_all(&*text)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use std::os::unix::fs::symlink;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_key_is_made_once_and_found_again() {
        let folder = folder();
        let path = folder.path().join("deep/er/key");
        let made = load_or_create(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        let found = load_or_create(&path).unwrap();
        assert_eq!(made.node_id(), found.node_id());
        let names: Vec<_> = std::fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(names.len(), 1, "no temporary file stays: {names:?}");
    }

    #[test]
    fn a_key_that_others_can_read_is_refused_with_the_remedy() {
        let folder = folder();
        let path = folder.path().join("key");
        load_or_create(&path).unwrap();
        for bad in [0o640, 0o604, 0o660, 0o644] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(bad)).unwrap();
            let error = load_or_create(&path).unwrap_err();
            assert!(matches!(error, KeyFileError::Permissions { mode, .. } if mode == bad));
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused_and_left_alone() {
        let folder = folder();
        let path = folder.path().join("key");
        for bad in [
            &b""[..],
            b"hello",
            &[b'a'; 51],
            &[b'a'; 53],
            &[b'1'; 52],
            &[b'a'; 4096],
        ] {
            std::fs::write(&path, bad).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            let error = load_or_create(&path).unwrap_err();
            assert!(matches!(error, KeyFileError::Content(_)), "{error}");
            assert_eq!(std::fs::read(&path).unwrap(), bad);
        }
    }

    #[test]
    fn symbolic_links_lead_to_keys_but_are_never_written_through() {
        let folder = folder();
        let real = folder.path().join("real");
        let made = load_or_create(&real).unwrap();
        let link = folder.path().join("link");
        symlink(&real, &link).unwrap();
        assert_eq!(load_or_create(&link).unwrap().node_id(), made.node_id());

        let dangling = folder.path().join("dangling");
        symlink(folder.path().join("elsewhere"), &dangling).unwrap();
        assert!(matches!(
            load_or_create(&dangling),
            Err(KeyFileError::Io { .. })
        ));
        assert!(!folder.path().join("elsewhere").exists());
    }

    #[test]
    fn folders_and_pipes_are_no_keys() {
        let folder = folder();
        assert!(load_or_create(folder.path()).is_err());
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        assert!(matches!(
            load_or_create(&pipe),
            Err(KeyFileError::Content(_))
        ));
    }

    #[test]
    fn of_two_that_start_at_once_both_use_the_same_key() {
        let folder = folder();
        let path = folder.path().join("key");
        let ids: Vec<_> = std::thread::scope(|scope| {
            let starts: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| load_or_create(&path).unwrap().node_id()))
                .collect();
            starts
                .into_iter()
                .map(|start| start.join().unwrap())
                .collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]));
    }
}
