//! Reading a certificate and its key from files.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{Certificate, CertificateError};
use crate::CertFiles;

/// The longest chains have a few certificates of a few kilobytes.
const MAX_FILE: u64 = 1 << 20;
/// What others than the owner and the group may do with a file: anything.
const OTHERS: u32 = 0o007;

/// What is in the two files, good or bad.
#[derive(Debug)]
pub(crate) struct Contents {
    chain: Zeroizing<Vec<u8>>,
    key: Zeroizing<Vec<u8>>,
}

impl Contents {
    pub(crate) fn read(files: &CertFiles) -> Result<Self, CertificateError> {
        Ok(Self {
            chain: read(&files.cert)?,
            key: read(&files.key)?,
        })
    }
    /// Tells these contents from any others.
    pub(crate) fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update((self.chain.len() as u64).to_be_bytes());
        digest.update(&*self.chain);
        digest.update(&*self.key);
        digest.finalize().into()
    }
    pub(crate) fn certificate(&self) -> Result<Certificate, CertificateError> {
        Certificate::from_pem(&self.chain, &self.key)
    }
}

/// Reads a whole file, within reason. Zeroized, for it may hold a key.
pub(crate) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, CertificateError> {
    let failed = |source| CertificateError::Read {
        path: path.to_owned(),
        source,
    };
    // Grows no further, so that no copy of a key stays behind where it grew.
    let file = File::open(path).map_err(failed)?;
    let len = file.metadata().map_err(failed)?.len().min(MAX_FILE);
    let mut contents = Zeroizing::new(Vec::with_capacity(usize::try_from(len).unwrap_or(0) + 1));
    file.take(MAX_FILE + 1)
        .read_to_end(&mut contents)
        .map_err(failed)?;
    if contents.len() as u64 > MAX_FILE {
        return Err(CertificateError::TooLong(path.to_owned()));
    }
    Ok(contents)
}

/// True if anybody on this machine may read a private key, or change it. The group may: that is how services share one.
pub(crate) fn is_open_to_others(key: &Path) -> bool {
    std::fs::metadata(key).is_ok_and(|meta| meta.permissions().mode() & OTHERS != 0)
}

/// Says so in the log.
pub(crate) fn warn_if_open_to_others(key: &Path) {
    if is_open_to_others(key) {
        tracing::warn!(
            key = %key.display(),
            "everybody on this machine may read the private key: take their rights away (chmod o-rwx)"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions, write};

    use super::*;

    #[test]
    fn a_key_that_others_may_read_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key.pem");
        write(&key, "").unwrap();
        for (mode, open) in [(0o600, false), (0o640, false), (0o644, true), (0o602, true)] {
            set_permissions(&key, Permissions::from_mode(mode)).unwrap();
            assert_eq!(is_open_to_others(&key), open, "{mode:o}");
        }
        assert!(!is_open_to_others(&dir.path().join("none")));
    }

    #[test]
    fn an_endless_file_is_refused() {
        let error = read(Path::new("/dev/zero")).unwrap_err();
        assert!(matches!(error, CertificateError::TooLong(_)), "{error}");
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = read(Path::new("/nonexistent/key.pem")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/key.pem"));
    }
}
