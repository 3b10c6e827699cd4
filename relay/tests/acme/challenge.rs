//! What an authority sees when it connects to a relay with the ALPN `acme-tls/1`.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::verify_tls13_signature_with_raw_key;
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::common::provider;

/// Two certificates, seen at one time.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) by_authority: CertificateDer<'static>,
    pub(crate) by_others: CertificateDer<'static>,
}

/// Takes any certificate, and remembers it.
#[derive(Debug, Default)]
struct Anyone(Mutex<Option<CertificateDer<'static>>>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        *self.0.lock().unwrap() = Some(end_entity.clone().into_owned());
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("no TLS 1.2".into()))
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // The usual way refuses certificates with an acmeIdentifier, which is critical.
        let (_, parsed) = X509Certificate::from_der(cert).unwrap();
        let key = SubjectPublicKeyInfoDer::from(parsed.public_key().raw);
        let algorithms = provider().signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &key, dss, &algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// The certificate shown to who comes with this name and these protocols.
pub(crate) async fn shown(
    to: SocketAddr,
    name: &str,
    protocols: &[&[u8]],
) -> std::io::Result<(TlsStream<TcpStream>, CertificateDer<'static>)> {
    let verifier = Arc::new(Anyone::default());
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&verifier) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
    let tcp = TcpStream::connect(to).await?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await?;
    let seen = verifier.0.lock().unwrap().take().unwrap();
    Ok((stream, seen))
}

/// Looks whether whoever ordered for `domain` is there (RFC 8737 section 3).
pub(crate) async fn look(
    to: SocketAddr,
    domain: &str,
    key_authorization: &str,
) -> Result<Seen, String> {
    let connect = shown(to, domain, &[b"acme-tls/1"]).await;
    let (mut stream, by_authority) = connect.map_err(|e| e.to_string())?;
    if stream.get_ref().1.alpn_protocol() != Some(b"acme-tls/1") {
        return Err("another protocol".into());
    }
    // The connection carries nothing, and ends.
    let end = stream.read(&mut [0; 1]).await;
    if !matches!(end, Ok(0)) {
        return Err(format!("{end:?}"));
    }
    let (_, certificate) = X509Certificate::from_der(&by_authority).map_err(|e| e.to_string())?;
    let names = certificate.subject_alternative_name().unwrap().unwrap();
    if names.value.general_names != [GeneralName::DNSName(domain)] {
        return Err(format!("for {:?}", names.value.general_names));
    }
    let identifier = certificate
        .extensions()
        .iter()
        .find(|e| e.oid.to_id_string() == "1.3.6.1.5.5.7.1.31")
        .ok_or("no acmeIdentifier")?;
    let digest = Sha256::digest(key_authorization);
    // An octet string of 32 bytes.
    if !identifier.critical || identifier.value != [&[4, 32][..], &digest[..]].concat() {
        return Err(format!("{identifier:?}"));
    }
    // Meanwhile everybody else sees another certificate, also who would take either.
    let protocols: [&[u8]; 2] = [b"acme-tls/1", b"http/1.1"];
    let others = shown(to, domain, &protocols).await;
    let (stream, by_others) = others.map_err(|e| e.to_string())?;
    if stream.get_ref().1.alpn_protocol() != Some(b"http/1.1") {
        return Err("another protocol for others".into());
    }
    Ok(Seen {
        by_authority,
        by_others,
    })
}
