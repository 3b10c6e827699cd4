//! A certificate signed by itself that outlives the process: one PEM file with the key and the certificate, made at the
//! first start.
//!
//! Nodes know such a relay by its pin, which stands in tickets and configurations; so an identity that is there is never
//! written over, also not one that cannot be read. The file appears whole or not at all, and of two relays that start at
//! once both use the one that came first.

use std::io::ErrorKind;
use std::path::Path;

use zeroize::Zeroizing;

use super::files::warn_if_open_to_others;
use super::private::write_new;
use super::{Certificate, CertificateError, files};

/// Reads the identity, or makes it.
pub(crate) fn read_or_make(
    path: &Path,
    names: Vec<String>,
) -> Result<Certificate, CertificateError> {
    if let Some(found) = read(path)? {
        return Ok(found);
    }
    let made = rcgen::generate_simple_self_signed(names)?;
    let mut pem = Zeroizing::new(made.signing_key.serialize_pem());
    pem.push_str(&made.cert.pem());
    write_new(path, pem.as_bytes())?;
    tracing::info!(identity = %path.display(), "made an identity; keep the file, nodes know the relay by it");
    // What is there now, whoever wrote it.
    read_identity(path)
}

/// Reads the identity, if there is one.
pub(crate) fn read(path: &Path) -> Result<Option<Certificate>, CertificateError> {
    match read_identity(path) {
        Err(CertificateError::Read { source, .. }) if source.kind() == ErrorKind::NotFound => {
            Ok(None)
        }
        found => found.map(Some),
    }
}

fn read_identity(path: &Path) -> Result<Certificate, CertificateError> {
    let pem = files::read(path)?;
    let certificate = Certificate::from_pem(&pem, &pem)?;
    warn_if_open_to_others(path);
    Ok(certificate)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn names() -> Vec<String> {
        vec!["r.example".to_owned()]
    }

    #[test]
    fn it_is_made_once_for_its_owner_alone_and_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("relay.pem");
        let first = read_or_make(&path, names()).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = read_or_make(&path, vec!["another.example".to_owned()]).unwrap();
        assert_eq!(first.pin(), again.pin());
        assert_eq!(*first.derive("x"), *again.derive("x"));
        // Nothing else is left there.
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_there_is_not_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("relay.pem");
        for contents in ["", "-----BEGIN PRIVATE KEY-----\nMIG"] {
            fs::write(&path, contents).unwrap();
            read_or_make(&path, names()).unwrap_err();
            assert_eq!(fs::read_to_string(&path).unwrap(), contents);
        }
    }

    #[test]
    fn a_place_where_nothing_can_be_written_is_named() {
        let error = read_or_make(Path::new("/nonexistent/relay.pem"), names())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("write") && error.contains("/nonexistent/relay.pem"),
            "{error}"
        );
    }
}
