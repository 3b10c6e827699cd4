//! TLS of links: the relay shows X.509, known by its pin or by WebPKI and the system's roots.

use std::sync::Arc;

use byway_wire::{RelayUrl, SecretKey};
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, Error};

use super::pin::Pinned;
use super::raw_key::certified_key;
use super::{ALPN_HTTP, ALPN_RELAY, provider};

/// For a UDP link: the node shows its raw public key, which admits it.
pub(crate) fn udp_link_client(url: &RelayUrl, key: &SecretKey) -> Result<ClientConfig, Error> {
    let provider = provider();
    let own = certified_key(key, &provider)?;
    let verifier = verifier(url, &provider)?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(own)));
    config.alpn_protocols = vec![ALPN_RELAY.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// For a TLS link: the node proves its key inside, because an ingress or an inspecting proxy may end this TLS.
pub(crate) fn tls_link_client(url: &RelayUrl) -> Result<ClientConfig, Error> {
    let provider = provider();
    let verifier = verifier(url, &provider)?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_HTTP.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

pub(super) fn verifier(
    url: &RelayUrl,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, Error> {
    Ok(match url.pin() {
        Some(pin) => Arc::new(Pinned {
            pin,
            provider: Arc::clone(provider),
        }),
        None => Arc::new(rustls_platform_verifier::Verifier::new(Arc::clone(
            provider,
        ))?),
    })
}
