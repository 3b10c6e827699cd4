//! A certificate chain with its private key, checked before anything shows it.
//!
//! Whatever brings one (files, the lasting identity, a fresh key) comes through [`Certificate::from_pem`] or
//! [`Certificate::new`], so that a key that does not fit, or half a file, is an error there and never a handshake that
//! fails.

pub(crate) mod files;
pub(crate) mod lasting;
pub(crate) mod private;
pub(crate) mod source;
pub(crate) mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use byway_wire::relay::Pin;
use hmac::{Hmac, KeyInit, Mac};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};
use thiserror::Error;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use zeroize::Zeroizing;

/// A certificate that fits its key.
#[derive(Debug)]
pub(crate) struct Certificate {
    certified: Arc<CertifiedKey>,
    pin: Pin,
    not_before: SystemTime,
    not_after: SystemTime,
    names: Vec<String>,
    secret: Secret,
}

/// From the private key; kept out of logs.
struct Secret(Zeroizing<[u8; 32]>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// Why a certificate cannot be shown, and whose it is to mend.
#[derive(Debug, Error)]
pub(crate) enum CertificateError {
    /// The file system says no.
    #[error("cannot read {path}: {source}")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    /// The file system says no.
    #[error("cannot write {path}: {source}")]
    Write {
        path: PathBuf,
        source: std::io::Error,
    },
    /// Nothing that holds a certificate or a key is so long.
    #[error("{0} is too long for a certificate or a key; is it the right file?")]
    TooLong(PathBuf),
    /// Not PEM, or only the first part of it.
    #[error("the certificates are not whole PEM: {0}")]
    Chain(rustls::pki_types::pem::Error),
    /// PEM, but of something else.
    #[error("there is no certificate in it")]
    NoCertificate,
    /// No key, not PEM, or only the first part of it.
    #[error("there is no whole private key in PEM: {0}")]
    Key(rustls::pki_types::pem::Error),
    /// The bytes in the PEM are not a certificate.
    #[error("the first certificate is not X.509: {0}")]
    NotX509(String),
    /// Two files of different times, most likely.
    #[error("the private key does not fit the certificate, which must come first in its file: {0}")]
    DoesNotFit(rustls::Error),
    /// It would be shown in place of one that still holds.
    #[error("it has expired")]
    Expired,
    /// It would be shown in place of one that holds.
    #[error("it does not hold yet")]
    NotYet,
    /// Nodes that go by the name would refuse it.
    #[error(
        "it is for {}, and nodes know this relay as '{host}' (public_host); get one for that host, or set public_host to a \
         host of the certificate",
        list(names)
    )]
    OtherHost {
        /// Where nodes come.
        host: String,
        /// Whom it is for.
        names: Vec<String>,
    },
    /// The TLS library does not take it.
    #[error("TLS does not take it: {0}")]
    Tls(#[from] rustls::Error),
    /// No certificate could be made.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
}

impl Certificate {
    /// A fresh ECDSA P-256 key with a certificate signed by itself, known by its pin.
    pub(crate) fn self_signed(names: Vec<String>) -> Result<Self, CertificateError> {
        let made = rcgen::generate_simple_self_signed(names)?;
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        Self::new(vec![made.cert.der().clone()], key.into())
    }

    /// A chain, the relay's own certificate first, and its key.
    pub(crate) fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, CertificateError> {
        let chain = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<Vec<_>, _>>()
            .map_err(CertificateError::Chain)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(CertificateError::Key)?;
        Self::new(chain, key)
    }

    fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, CertificateError> {
        let first = chain.first().ok_or(CertificateError::NoCertificate)?;
        let not_x509 = |e: String| CertificateError::NotX509(e);
        let parsed = ParsedCertificate::try_from(first).map_err(|e| not_x509(e.to_string()))?;
        let pin = Pin(Sha256::digest(parsed.subject_public_key_info()).into());
        // The TLS library keeps the dates to itself.
        let (_, dated) = X509Certificate::from_der(first).map_err(|e| not_x509(e.to_string()))?;
        let not_before = time(dated.validity().not_before.timestamp());
        let not_after = time(dated.validity().not_after.timestamp());
        let names = names(&dated);
        let secret = hmac(key.secret_der(), &[b"byway relay v1\0"]);
        let certified = CertifiedKey::from_der(chain, key, &provider())
            .map_err(CertificateError::DoesNotFit)?;
        Ok(Self {
            certified: Arc::new(certified),
            pin,
            not_before,
            not_after,
            names,
            secret: Secret(secret),
        })
    }

    pub(crate) fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }
    /// The SHA-256 of its public key.
    pub(crate) fn pin(&self) -> Pin {
        self.pin
    }
    /// When it begins to hold.
    pub(crate) fn not_before(&self) -> SystemTime {
        self.not_before
    }
    /// Whether it is for all these names.
    #[cfg_attr(not(feature = "acme"), expect(dead_code, reason = "for renewals"))]
    pub(crate) fn is_for(&self, names: &[String]) -> bool {
        names.iter().all(|name| self.names.contains(name))
    }
    /// The host names in it, wildcards as they stand.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }
    /// An error if nodes that know the relay by this name would refuse it, by the rules of TLS, wildcards among them.
    pub(crate) fn check_host(&self, host: &str) -> Result<(), CertificateError> {
        let bare = host.strip_suffix('.').unwrap_or(host);
        let covers = || {
            let certificate = ParsedCertificate::try_from(self.certified.cert.first()?).ok()?;
            let name = ServerName::try_from(bare).ok()?;
            rustls::client::verify_server_name(&certificate, &name).ok()
        };
        covers().ok_or_else(|| CertificateError::OtherHost {
            host: host.to_owned(),
            names: self.names.clone(),
        })
    }
    /// When it expires.
    pub(crate) fn not_after(&self) -> SystemTime {
        self.not_after
    }
    /// A secret for `purpose` that a restarted relay with the same key has again, and nobody else.
    pub(crate) fn derive(&self, purpose: &str) -> Zeroizing<[u8; 32]> {
        hmac(&*self.secret.0, &[purpose.as_bytes()])
    }
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mut mac =
        <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    Zeroizing::new(mac.finalize().into_bytes().into())
}

/// The host names in it, wildcards as they stand.
fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.iter().flat_map(|names| &names.value.general_names);
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect()
}

/// Whether an authority can see that the name leads here (TLS-ALPN-01): no wildcard, no address.
pub(crate) fn can_be_ordered(domain: &str) -> bool {
    let dns = rustls::pki_types::DnsName::try_from(domain);
    let is_address = domain.parse::<std::net::IpAddr>().is_ok();
    dns.is_ok() && !is_address && !domain.ends_with('.')
}

/// Whether an authority may be asked there.
pub(crate) fn is_directory(url: &str) -> bool {
    let rest = url.strip_prefix("https://");
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'))
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        "no host".to_owned()
    } else {
        names.join(", ")
    }
}

/// A date before 1970 is as much in the past as 1970 is.
fn time(unix: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(unix.try_into().unwrap_or(0))
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Chain and key in PEM.
    pub(crate) fn made() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec!["r.example".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn a_pair_that_fits_is_taken_and_known_by_its_key() {
        let (chain, key) = made();
        let one = Certificate::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
        let again = Certificate::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
        assert_eq!(one.pin(), again.pin());
        assert_eq!(*one.derive("x"), *again.derive("x"));
        assert_ne!(*one.derive("x"), *one.derive("y"));
        let (chain, key) = made();
        let other = Certificate::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
        assert_ne!(one.pin(), other.pin());
        assert_ne!(*one.derive("x"), *other.derive("x"));
    }

    #[test]
    fn a_certificate_is_for_its_hosts_and_no_others() {
        let names = ["r.example", "*.w.example"].map(str::to_owned);
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let key = made.signing_key.serialize_pem();
        let certificate =
            Certificate::from_pem(made.cert.pem().as_bytes(), key.as_bytes()).unwrap();
        for host in ["r.example", "R.Example", "r.example.", "a.w.example"] {
            certificate.check_host(host).unwrap();
        }
        for host in [
            "example",
            "x.r.example",
            "w.example",
            "a.b.w.example",
            "a_b.",
            "",
        ] {
            let error = certificate.check_host(host).unwrap_err().to_string();
            assert!(error.contains("r.example, *.w.example"), "{error}");
        }
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let ((chain, _), (_, key)) = (made(), made());
        let error = Certificate::from_pem(chain.as_bytes(), key.as_bytes()).unwrap_err();
        assert!(matches!(error, CertificateError::DoesNotFit(_)), "{error}");
    }

    #[test]
    fn half_a_file_is_refused() {
        let (chain, key) = made();
        let half = |text: &str| text.as_bytes()[..text.len() / 2].to_vec();
        let error = Certificate::from_pem(&half(&chain), key.as_bytes()).unwrap_err();
        assert!(
            matches!(
                error,
                CertificateError::Chain(_) | CertificateError::NoCertificate
            ),
            "{error}"
        );
        let error = Certificate::from_pem(chain.as_bytes(), &half(&key)).unwrap_err();
        assert!(matches!(error, CertificateError::Key(_)), "{error}");
        let error = Certificate::from_pem(b"", key.as_bytes()).unwrap_err();
        assert!(matches!(error, CertificateError::NoCertificate), "{error}");
        let error = Certificate::from_pem(key.as_bytes(), key.as_bytes()).unwrap_err();
        assert!(matches!(error, CertificateError::NoCertificate), "{error}");
    }

    #[test]
    fn the_date_is_the_certificate_s() {
        let mut params = rcgen::CertificateParams::new(vec!["r.example".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2031, 2, 3);
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap();
        let made =
            Certificate::from_pem(cert.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap();
        // `date -u -d 2031-02-03 +%s`
        assert_eq!(
            made.not_after(),
            UNIX_EPOCH + Duration::from_secs(1_927_843_200)
        );
    }
}
