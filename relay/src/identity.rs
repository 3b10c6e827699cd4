//! What the relay shows and what it wants to see: its certificate, and nodes' raw public keys.
//!
//! The relay always shows X.509, so that a browser, an ingress and `curl` understand it; a node knows it by WebPKI or by
//! the SHA-256 of its public key, the pin. On a UDP link the node proves its key inside the TLS handshake, as a raw
//! public key (RFC 7250). On the TLS link it proves it above TLS, because something between may end TLS.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use byway_wire::NodeId;
use byway_wire::relay::Pin;
use hmac::{Hmac, KeyInit, Mac};
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    SignatureScheme,
};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// What a UDP link speaks.
pub(crate) const ALPN_QUIC: &[u8] = b"byway-relay/1";
/// What a TLS link speaks before it becomes a WebSocket.
const ALPN_HTTP: &[u8] = b"http/1.1";

/// The relay's certificate and key.
#[derive(Debug)]
pub(crate) struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    pin: Pin,
}

impl Identity {
    /// A fresh ECDSA P-256 key with a certificate signed by itself, known by its pin.
    pub(crate) fn self_signed(names: Vec<String>) -> anyhow::Result<Self> {
        let made =
            rcgen::generate_simple_self_signed(names).context("cannot make a certificate")?;
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        Self::new(vec![made.cert.der().clone()], key.into())
    }

    /// Reads a certificate chain and its key from PEM files.
    pub(crate) fn load(cert: &Path, key: &Path) -> anyhow::Result<Self> {
        let chain = CertificateDer::pem_file_iter(cert)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .with_context(|| format!("cannot read certificates from {}", cert.display()))?;
        anyhow::ensure!(!chain.is_empty(), "no certificate in {}", cert.display());
        let key = PrivateKeyDer::from_pem_file(key)
            .with_context(|| format!("cannot read a private key from {}", key.display()))?;
        Self::new(chain, key)
    }

    fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> anyhow::Result<Self> {
        let parsed =
            ParsedCertificate::try_from(&chain[0]).context("the certificate is not X.509")?;
        let pin = Pin(Sha256::digest(parsed.subject_public_key_info()).into());
        Ok(Self { chain, key, pin })
    }

    pub(crate) fn pin(&self) -> Pin {
        self.pin
    }

    /// A secret for `purpose` that a restarted relay with the same key has again, and nobody else.
    pub(crate) fn derive(&self, purpose: &str) -> Zeroizing<[u8; 32]> {
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(self.key.secret_der())
            .expect("HMAC takes keys of any length");
        mac.update(b"byway relay v1\0");
        mac.update(purpose.as_bytes());
        Zeroizing::new(mac.finalize().into_bytes().into())
    }

    /// For UDP links: nodes must show a raw public key.
    pub(crate) fn quic(&self) -> anyhow::Result<ServerConfig> {
        let provider = provider();
        let verifier = Arc::new(RawKeyVerifier(Arc::clone(&provider)));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .context("the certificate and the key do not belong together")?;
        config.alpn_protocols = vec![ALPN_QUIC.to_vec()];
        no_resumption(&mut config);
        Ok(config)
    }

    /// For TLS links: like any web server.
    pub(crate) fn tls(&self) -> anyhow::Result<ServerConfig> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .context("the certificate and the key do not belong together")?;
        config.alpn_protocols = vec![ALPN_HTTP.to_vec()];
        no_resumption(&mut config);
        Ok(config)
    }
}

/// Links last for hours: resumption would save nothing, and tickets would be state to keep.
fn no_resumption(config: &mut ServerConfig) {
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.max_early_data_size = 0;
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// The node behind a QUIC connection, as its handshake proved it.
pub(crate) fn proved_node(connection: &quinn::Connection) -> Option<NodeId> {
    let identity = connection.peer_identity()?;
    let chain = identity.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    NodeId::from_spki_der(chain.first()?).ok()
}

/// Accepts any node that proves the Ed25519 key it shows; who may use the relay is asked later, by `relay-core`.
#[derive(Debug)]
struct RawKeyVerifier(Arc<CryptoProvider>);

impl ClientCertVerifier for RawKeyVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        // Weak keys, with which anyone can sign, are refused here.
        NodeId::from_spki_der(end_entity)
            .map(|_| ClientCertVerified::assertion())
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))
    }
    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, Error> {
        // Raw public keys are for TLS 1.3 here, and no other version is offered.
        Err(Error::General("TLS 1.2 is not spoken".into()))
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, Error> {
        let spki = SubjectPublicKeyInfoDer::from(cert.as_ref());
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &spki, dss, algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
