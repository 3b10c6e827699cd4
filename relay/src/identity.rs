//! What the relay shows and what it wants to see: its certificate, and nodes' raw public keys.
//!
//! The relay always shows X.509, so that a browser, an ingress and `curl` understand it; a node knows it by WebPKI or by
//! the SHA-256 of its public key, the pin. On a UDP link the node proves its key inside the TLS handshake, as a raw
//! public key (RFC 7250). On the TLS link it proves it above TLS, because something between may end TLS.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use byway_wire::NodeId;
use byway_wire::relay::Pin;
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CertificateError as TlsCertificateError, DigitallySignedStruct, DistinguishedName, Error,
    ServerConfig, SignatureScheme,
};

use crate::certificate::{Certificate, CertificateError, provider};
use crate::challenge::{self, Challenged, Challenges};

/// What a UDP link speaks.
pub(crate) const ALPN_QUIC: &[u8] = b"byway-relay/1";
/// What a TLS link speaks before it becomes a WebSocket. No HTTP/2: an upgrade there is another one (RFC 8441), and one
/// connection carries one link.
const ALPN_HTTP: &[u8] = b"http/1.1";

/// The certificate that the relay shows, on every listener; another one may take its place while it runs.
#[derive(Debug)]
pub(crate) struct Identity {
    shown: ArcSwap<Shown>,
    /// Answers to an authority, where one may ask.
    challenges: Option<Arc<Challenges>>,
    /// Whether what is shown only keeps the place of one that is still to come.
    stand_in: AtomicBool,
    renewed: AtomicU64,
    refused: AtomicU64,
}

/// A certificate as handshakes show it. Whoever began with it goes on with it when another has taken its place: the
/// proof of a link tells which key was shown *there*.
#[derive(Debug)]
pub(crate) struct Shown {
    certificate: Certificate,
    tls: Arc<ServerConfig>,
}

/// The relay's certificate, for those who watch over it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct CertificateStatus {
    /// The SHA-256 of its public key.
    pub pin: Pin,
    /// When it expires.
    pub expires: SystemTime,
    /// It is signed by the relay itself until the authority makes out the first: nodes that know the relay by name cannot come
    /// yet.
    pub stand_in: bool,
    /// Times that another certificate took its predecessor's place since the start.
    pub renewed: u64,
    /// Times that another certificate was refused (files that do not fit together, are not whole, or have expired) or could
    /// not be had from the authority.
    pub refused: u64,
}

impl Shown {
    fn new(certificate: Certificate, challenges: Option<&Arc<Challenges>>) -> Result<Self, Error> {
        let tls = Arc::new(tls(certificate.certified(), challenges)?);
        Ok(Self { certificate, tls })
    }
    pub(crate) fn certificate(&self) -> &Certificate {
        &self.certificate
    }
    /// For TLS links: like any web server.
    pub(crate) fn tls(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.tls)
    }
}

impl Identity {
    pub(crate) fn new(certificate: Certificate) -> Result<Self, CertificateError> {
        Self::with_challenges(certificate, None)
    }
    /// Answers an authority, too.
    pub(crate) fn with_challenges(
        certificate: Certificate,
        challenges: Option<Arc<Challenges>>,
    ) -> Result<Self, CertificateError> {
        Ok(Self {
            shown: ArcSwap::from_pointee(Shown::new(certificate, challenges.as_ref())?),
            challenges,
            stand_in: AtomicBool::new(false),
            renewed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        })
    }

    /// What is shown now is no certificate that nodes would know by name; the next one is.
    #[cfg_attr(not(feature = "acme"), expect(dead_code, reason = "for orders"))]
    pub(crate) fn stands_in(self) -> Self {
        self.stand_in.store(true, Ordering::Relaxed);
        self
    }
    /// What a handshake that begins now shows.
    pub(crate) fn shown(&self) -> Arc<Shown> {
        self.shown.load_full()
    }
    /// Shows another certificate from now on, unless it has expired and the old one has not.
    pub(crate) fn renew(&self, certificate: Certificate) -> Result<Arc<Shown>, CertificateError> {
        let now = SystemTime::now();
        let old = self.shown();
        if certificate.not_after() <= now && old.certificate.not_after() > now {
            return Err(CertificateError::Expired);
        }
        let shown = Arc::new(Shown::new(certificate, self.challenges.as_ref())?);
        self.shown.store(Arc::clone(&shown));
        self.stand_in.store(false, Ordering::Relaxed);
        self.renewed.fetch_add(1, Ordering::Relaxed);
        Ok(shown)
    }
    /// Counts a certificate that was not even one.
    pub(crate) fn note_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }
    pub(crate) fn status(&self) -> CertificateStatus {
        let shown = self.shown.load();
        CertificateStatus {
            pin: shown.certificate.pin(),
            expires: shown.certificate.not_after(),
            stand_in: self.stand_in.load(Ordering::Relaxed),
            renewed: self.renewed.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }

    /// For UDP links: nodes must show a raw public key.
    pub(crate) fn quic(self: &Arc<Self>) -> Result<ServerConfig, Error> {
        let provider = provider();
        let verifier = Arc::new(RawKeyVerifier(Arc::clone(&provider)));
        let resolver: Arc<dyn ResolvesServerCert> = Arc::<Self>::clone(self);
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(resolver);
        config.alpn_protocols = vec![ALPN_QUIC.to_vec()];
        no_resumption(&mut config);
        Ok(config)
    }
}

/// For QUIC, whose endpoints outlive certificates. Which one a link began with does not matter there: TLS itself proves
/// both keys.
impl ResolvesServerCert for Identity {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(self.shown.load().certificate.certified()))
    }
}

fn tls(
    certified: &Arc<CertifiedKey>,
    challenges: Option<&Arc<Challenges>>,
) -> Result<ServerConfig, Error> {
    let resolver: Arc<dyn ResolvesServerCert> = match challenges {
        Some(challenges) => Arc::new(Challenged {
            certified: Arc::clone(certified),
            challenges: Arc::clone(challenges),
        }),
        None => Arc::new(SingleCertAndKey::from(CertifiedKey::clone(certified))),
    };
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = vec![ALPN_HTTP.to_vec()];
    if challenges.is_some() {
        config.alpn_protocols.push(challenge::ALPN.to_vec());
    }
    no_resumption(&mut config);
    Ok(config)
}

/// Links last for hours: resumption would save nothing, and tickets would be state to keep.
fn no_resumption(config: &mut ServerConfig) {
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.max_early_data_size = 0;
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
            .map_err(|_| Error::InvalidCertificate(TlsCertificateError::BadEncoding))
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
