//! Showing an authority that a name leads here: TLS-ALPN-01 (RFC 8737).
//!
//! The authority connects with the ALPN `acme-tls/1` and nothing else, and wants to see a certificate signed by itself, for
//! that name, with a digest that only the account that ordered can know. Such a connection carries nothing. Nodes and
//! browsers, which offer another protocol, never see these certificates.
#![cfg_attr(
    not(feature = "acme"),
    allow(dead_code, reason = "without ACME nobody asks")
)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

#[cfg(feature = "acme")]
use crate::certificate::{CertificateError, provider};

/// What the authority speaks.
pub(crate) const ALPN: &[u8] = b"acme-tls/1";

/// The answers there are at the moment.
#[derive(Debug, Default)]
pub(crate) struct Challenges(Mutex<BTreeMap<String, Arc<CertifiedKey>>>);

impl Challenges {
    /// Answers for `domain`, as long as the value lives.
    #[cfg(feature = "acme")]
    pub(crate) fn answer(
        self: &Arc<Self>,
        domain: &str,
        digest: &[u8; 32],
    ) -> Result<Answering, CertificateError> {
        let mut params = rcgen::CertificateParams::new(vec![domain.to_owned()])?;
        params.custom_extensions = vec![rcgen::CustomExtension::new_acme_identifier(digest)];
        let key = rcgen::KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
        let chain = vec![certificate.der().clone()];
        let key = provider().key_provider.load_private_key(key.into())?;
        // Not `from_der`: it refuses the extension, which is critical so that nobody takes this for a usual certificate.
        let shown = CertifiedKey::new(chain, key);
        self.lock().insert(domain.to_owned(), Arc::new(shown));
        Ok(Answering {
            challenges: Arc::clone(self),
            domain: domain.to_owned(),
        })
    }
    fn get(&self, domain: &str) -> Option<Arc<CertifiedKey>> {
        self.lock().get(&domain.to_ascii_lowercase()).cloned()
    }
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<CertifiedKey>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A domain is answered for.
#[derive(Debug)]
pub(crate) struct Answering {
    challenges: Arc<Challenges>,
    domain: String,
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.challenges.lock().remove(&self.domain);
    }
}

/// Shows the certificate to everybody, and the answers to who asks for them alone.
#[derive(Debug)]
pub(crate) struct Challenged {
    pub(crate) certified: Arc<CertifiedKey>,
    pub(crate) challenges: Arc<Challenges>,
}

impl ResolvesServerCert for Challenged {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let asks = hello
            .alpn()
            .is_some_and(|mut offered| offered.all(|protocol| protocol == ALPN));
        if asks {
            self.challenges.get(hello.server_name()?)
        } else {
            Some(Arc::clone(&self.certified))
        }
    }
}
