//! Key files: 32 secret bytes as base32 text, readable by the owner only.

use std::path::{Path, PathBuf};

use byway_wire::SecretKey;

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
        source: std::io::Error,
    },
}

/// Reads the key, or makes one and stores it with mode 0600 (its folder with 0700) if there is no file.
pub fn load_or_create(path: &Path) -> Result<SecretKey, KeyFileError> {
    let _ = path;
    unimplemented!()
}
