//! What outlives the process: the account and the certificate, each in one file for its owner alone.
//!
//! An account belongs to one directory, and so does a certificate: one of a staging directory, which nobody trusts, must
//! not be taken for one of the real. So each directory has a folder of its own.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use instant_acme::AccountCredentials;
use rcgen::KeyPair;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::AcmeError;
use crate::certificate::files::{read, warn_if_open_to_others};
use crate::certificate::private::{replace, write_new};
use crate::certificate::{Certificate, CertificateError};

#[derive(Clone, Debug)]
pub(super) struct Cache(PathBuf);

/// A certificate that was kept.
pub(super) struct Kept {
    pub(super) certificate: Certificate,
    key: KeyPair,
}

impl Cache {
    /// Makes the folder if there is none, and writes there, so that a place where nothing can be kept is found at the start.
    pub(super) fn open(root: &Path, directory_url: &str) -> Result<Self, AcmeError> {
        let dir = folder(root, directory_url);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .map_err(|source| CertificateError::Write {
                path: dir.clone(),
                source,
            })?;
        // A folder that is there may be another user's, or on a file system that is read only.
        let probe = dir.join("probe");
        replace(&probe, b"")?;
        std::fs::remove_file(&probe).map_err(|source| CertificateError::Write {
            path: probe.clone(),
            source,
        })?;
        Ok(Self(dir))
    }

    /// The same without making anything: an error if no folder can be made there.
    pub(super) fn look(root: &Path, directory_url: &str) -> Result<Self, AcmeError> {
        let dir = folder(root, directory_url);
        let above = dir.ancestors().find(|above| above.exists());
        match above.map(std::fs::metadata).transpose() {
            Ok(found) if found.as_ref().is_none_or(std::fs::Metadata::is_dir) => Ok(Self(dir)),
            Ok(_) => Err(not_a_directory(
                dir,
                std::io::ErrorKind::NotADirectory.into(),
            )),
            Err(source) => Err(not_a_directory(dir, source)),
        }
    }

    fn account_file(&self) -> PathBuf {
        self.0.join("account.json")
    }
    pub(super) fn certificate_file(&self) -> PathBuf {
        self.0.join("certificate.pem")
    }

    pub(super) fn account(&self) -> Result<Option<AccountCredentials>, AcmeError> {
        let path = self.account_file();
        let Some(json) = present(read(&path))? else {
            return Ok(None);
        };
        warn_if_open_to_others(&path);
        serde_json::from_slice(&json)
            .map(Some)
            .map_err(|e| AcmeError::Account(path, e))
    }
    pub(super) fn keep_account(&self, account: &AccountCredentials) -> Result<(), AcmeError> {
        let path = self.account_file();
        let json = serde_json::to_vec(account).map(Zeroizing::new);
        let json = json.map_err(|e| AcmeError::Account(path.clone(), e))?;
        Ok(write_new(&path, &json)?)
    }

    pub(super) fn certificate(&self) -> Result<Option<Kept>, CertificateError> {
        let path = self.certificate_file();
        let Some(pem) = present(read(&path))? else {
            return Ok(None);
        };
        warn_if_open_to_others(&path);
        let certificate = Certificate::from_pem(&pem, &pem)?;
        let text = str::from_utf8(&pem).map_err(|_| CertificateError::NoCertificate)?;
        let key = KeyPair::from_pem(text)?;
        Ok(Some(Kept { certificate, key }))
    }
    /// The key of the certificate that was kept.
    pub(super) fn key(&self) -> Option<KeyPair> {
        self.certificate().ok().flatten().map(|kept| kept.key)
    }
    /// Until when the authority wants to be left alone; nothing that lies beyond `latest` is believed.
    pub(super) fn pause(&self, latest: SystemTime) -> Option<SystemTime> {
        let text = std::fs::read_to_string(self.0.join("pause")).ok()?;
        let seconds = Duration::from_secs(text.trim().parse().ok()?);
        UNIX_EPOCH.checked_add(seconds).filter(|at| *at <= latest)
    }
    pub(super) fn keep_pause(&self, until: SystemTime) {
        let seconds = until.duration_since(UNIX_EPOCH).unwrap_or_default();
        let text = format!("{}\n", seconds.as_secs());
        if let Err(e) = replace(&self.0.join("pause"), text.as_bytes()) {
            tracing::warn!(%e, "after a restart the authority is asked too soon");
        }
    }
    pub(super) fn keep(&self, key: &str, chain: &str) -> Result<(), CertificateError> {
        let pem = Zeroizing::new(format!("{key}{chain}"));
        replace(&self.certificate_file(), pem.as_bytes())
    }
}

fn folder(root: &Path, directory_url: &str) -> PathBuf {
    let digest = Sha256::digest(directory_url);
    let name: String = digest[..8].iter().map(|b| format!("{b:02x}")).collect();
    root.join(name)
}

fn not_a_directory(path: PathBuf, source: std::io::Error) -> AcmeError {
    CertificateError::Write { path, source }.into()
}

/// A file that is not there is no error.
fn present<T>(read: Result<T, CertificateError>) -> Result<Option<T>, CertificateError> {
    match read {
        Err(CertificateError::Read { source, .. })
            if source.kind() == std::io::ErrorKind::NotFound =>
        {
            Ok(None)
        }
        other => other.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::certificate::tests::made;

    #[test]
    fn a_certificate_comes_back_for_its_own_directory_and_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path(), "https://ca.example/a").unwrap();
        assert!(cache.certificate().unwrap().is_none() && cache.key().is_none());
        let (chain, key) = made();
        cache.keep(&key, &chain).unwrap();
        let kept = cache.certificate().unwrap().unwrap();
        let made = Certificate::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
        assert_eq!(kept.certificate.pin(), made.pin());
        assert_eq!(cache.key().unwrap().serialize_pem(), key);
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&cache.certificate_file()), 0o600);
        assert_eq!(mode(&cache.0), 0o700);
        let other = Cache::open(dir.path(), "https://ca.example/b").unwrap();
        assert!(other.certificate().unwrap().is_none());
        // What was spoilt is an error, not a certificate.
        std::fs::write(cache.certificate_file(), "spoilt").unwrap();
        assert!(cache.certificate().is_err() && cache.key().is_none());
    }

    #[test]
    fn an_account_that_cannot_be_read_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path(), "https://ca.example/a").unwrap();
        assert!(cache.account().unwrap().is_none());
        std::fs::write(cache.account_file(), "{}").unwrap();
        let error = cache.account().map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("account.json"), "{error}");
    }

    #[test]
    fn a_pause_is_kept_and_nonsense_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path(), "https://ca.example/a").unwrap();
        let at = UNIX_EPOCH + Duration::from_secs(2_000_000_000);
        assert_eq!(cache.pause(at), None);
        cache.keep_pause(at);
        assert_eq!(cache.pause(at), Some(at));
        assert_eq!(cache.pause(at - Duration::from_secs(1)), None);
        for nonsense in ["", "soon", "99999999999999999999", "-1"] {
            std::fs::write(cache.0.join("pause"), nonsense).unwrap();
            assert_eq!(cache.pause(at), None);
        }
    }

    #[test]
    fn a_place_where_nothing_can_be_kept_is_named() {
        for open in [Cache::open, Cache::look] {
            let error = open(Path::new("/dev/null/cache"), "https://ca.example/a").unwrap_err();
            assert!(error.to_string().contains("/dev/null/cache"), "{error}");
        }
        // A folder in which nothing can be written, also not by root: the name of what would be is taken by a folder.
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path(), "https://ca.example/a").unwrap();
        assert_eq!(std::fs::read_dir(&cache.0).unwrap().count(), 0, "no trace");
        std::fs::create_dir(cache.0.join("probe")).unwrap();
        let error = Cache::open(dir.path(), "https://ca.example/a").unwrap_err();
        assert!(error.to_string().contains("cannot write"), "{error}");
        let root = dir.path().join("a/b");
        Cache::look(&root, "https://ca.example/a").unwrap();
        assert!(!dir.path().join("a").exists(), "looking makes nothing");
    }
}
