//! TLS for a look at who answers in a relay's place: any certificate is accepted, and whether it was the relay's is kept.
//!
//! Nothing may ever be said over such a connection that is not for strangers.

use std::sync::{Arc, Mutex, PoisonError};

use byway_wire::RelayUrl;
use byway_wire::text::printable;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

use super::relay::verifier;
use super::{ALPN_HTTP, provider};

/// What a link would have made of the certificate.
#[derive(Clone, Debug)]
pub(crate) struct Opinion(Arc<Mutex<Option<String>>>);

impl Opinion {
    /// Why it is not the relay's; none if it is. Asked after the handshake.
    pub(crate) fn refusal(&self) -> Option<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// As for a TLS link, but for what is accepted.
pub(crate) fn tls_look_client(url: &RelayUrl) -> Result<(ClientConfig, Opinion), Error> {
    let provider = provider();
    // Until the certificate was looked at it is not the relay's.
    let opinion = Opinion(Arc::new(Mutex::new(Some("no certificate".to_owned()))));
    let verifier = Looking {
        strict: verifier(url, &provider)?,
        opinion: opinion.clone(),
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_HTTP.to_vec()];
    config.resumption = Resumption::disabled();
    Ok((config, opinion))
}

#[derive(Debug)]
struct Looking {
    strict: Arc<dyn ServerCertVerifier>,
    opinion: Opinion,
}

impl ServerCertVerifier for Looking {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verdict = self.strict.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        let refusal = verdict.err().map(|error| printable(&error.to_string()));
        *self
            .opinion
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = refusal;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.strict.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.strict.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.strict.supported_verify_schemes()
    }
}
