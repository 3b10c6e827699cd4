//! Raw public keys (RFC 7250): a node's Ed25519 key as a bare SubjectPublicKeyInfo where X.509 would have a certificate.

use std::sync::Arc;

use byway_wire::{NodeId, SecretKey};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer,
    UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible,
    SignatureScheme,
};

/// The node's key, as TLS shows and uses it.
pub(super) fn certified_key(
    key: &SecretKey,
    provider: &CryptoProvider,
) -> Result<Arc<CertifiedKey>, Error> {
    let pkcs8 = key.to_pkcs8_der();
    let signing = provider
        .key_provider
        .load_private_key(PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(
            pkcs8.to_vec(),
        )))?;
    let spki = CertificateDer::from(key.node_id().to_spki_der().to_vec());
    Ok(Arc::new(CertifiedKey::new(vec![spki], signing)))
}

/// The node of a raw public key; refuses anything else, X.509 among it.
fn node_of(end_entity: &CertificateDer<'_>, rest: &[CertificateDer<'_>]) -> Result<NodeId, Error> {
    let refuse = || Error::InvalidCertificate(CertificateError::BadEncoding);
    if !rest.is_empty() {
        return Err(refuse());
    }
    NodeId::from_spki_der(end_entity).map_err(|_| refuse())
}

/// Verifies that the other side holds the key it shows. Ed25519 and nothing else, so there is nothing to negotiate.
fn verify_signature(
    provider: &CryptoProvider,
    message: &[u8],
    key: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    verify_tls13_signature_with_raw_key(
        message,
        &SubjectPublicKeyInfoDer::from(key.as_ref()),
        signature,
        &provider.signature_verification_algorithms,
    )
}

/// A client's view: the server must hold the key that the server name names.
#[derive(Debug)]
pub(super) struct NamedNode(pub(super) Arc<CryptoProvider>);

impl ServerCertVerifier for NamedNode {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let ServerName::DnsName(name) = server_name else {
            return Err(Error::InvalidCertificate(CertificateError::NotValidForName));
        };
        let wanted = NodeId::from_server_name(name.as_ref())
            .map_err(|_| Error::InvalidCertificate(CertificateError::NotValidForName))?;
        if node_of(end_entity, intermediates)? == wanted {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::InvalidCertificate(CertificateError::NotValidForName))
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_signature(&self.0, message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// A server's view: the client must hold some node's key. Whose it may be is decided above TLS, where the peer that
/// opened the channel is known.
#[derive(Debug)]
pub(super) struct AnyNode(pub(super) Arc<CryptoProvider>);

impl ClientCertVerifier for AnyNode {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        node_of(end_entity, intermediates).map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_signature(&self.0, message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
