//! TLS of tunnels and of links (design sections 4 and 7).
//!
//! | connection | client shows | server shows | client knows the server by | ALPN |
//! |---|---|---|---|---|
//! | tunnel | raw public key | raw public key | server name `{NodeId}.byway.invalid` | `byway/1` |
//! | UDP link | raw public key | X.509 | pin, or WebPKI | `byway-relay/1` |
//! | TLS link | nothing (it proves its key inside) | X.509 | pin, or WebPKI | `http/1.1` |
//!
//! TLS 1.3 only. No resumption, no tickets, no early data: a tunnel lives for hours, a ticket would only be one more
//! secret, and early data could be replayed.

mod look;
mod pin;
mod raw_key;
mod relay;
mod tunnel;

use std::sync::Arc;

use byway_wire::NodeId;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{CertificateError, Error, SupportedCipherSuite};

pub(crate) use look::tls_look_client;
pub(crate) use pin::pin_of;
pub(crate) use relay::{tls_link_client, udp_link_client};
pub(crate) use tunnel::{tunnel_client, tunnel_server};

/// ALPN of tunnels.
pub(crate) const ALPN_TUNNEL: &[u8] = b"byway/1";
/// ALPN of UDP links.
pub(crate) const ALPN_RELAY: &[u8] = b"byway-relay/1";
/// ALPN of TLS links: they pass for what they are, a WebSocket over HTTP/1.1.
pub(crate) const ALPN_HTTP: &[u8] = b"http/1.1";

/// The cryptography of every connection: the hybrid key exchange first (recorded traffic stays sealed even if X25519
/// falls to a quantum computer), and the cheapest cipher of this CPU first. The server follows the client's order.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: cipher_suites(cpu_has_aes()),
        kx_groups: vec![
            aws_lc_rs::kx_group::X25519MLKEM768,
            aws_lc_rs::kx_group::X25519,
        ],
        ..aws_lc_rs::default_provider()
    })
}

/// AES-128 before AES-256 (a tenth faster, and the key exchange is not stronger) before ChaCha20 where the CPU has AES;
/// in software ChaCha20 is several times faster than AES.
fn cipher_suites(aes: bool) -> Vec<SupportedCipherSuite> {
    use aws_lc_rs::cipher_suite::{
        TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
    };
    let mut suites = vec![TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384];
    suites.insert(
        if aes { suites.len() } else { 0 },
        TLS13_CHACHA20_POLY1305_SHA256,
    );
    suites
}

fn cpu_has_aes() -> bool {
    #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
    return std::arch::is_x86_feature_detected!("aes")
        && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64")))]
    false
}

/// The node whose raw public key the other side of an established connection proved to hold.
pub(crate) fn proved_node(connection: &quinn::Connection) -> Result<NodeId, Error> {
    let bad = || Error::InvalidCertificate(CertificateError::BadEncoding);
    let certificates = connection
        .peer_identity()
        .and_then(|identity| {
            identity
                .downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>()
                .ok()
        })
        .ok_or_else(bad)?;
    let [key] = certificates.as_slice() else {
        return Err(bad());
    };
    NodeId::from_spki_der(key).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use rustls::CipherSuite;

    use super::*;

    #[test]
    fn aes_comes_first_only_where_the_cpu_has_it() {
        let names = |aes| {
            cipher_suites(aes)
                .iter()
                .map(SupportedCipherSuite::suite)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            names(true),
            [
                CipherSuite::TLS13_AES_128_GCM_SHA256,
                CipherSuite::TLS13_AES_256_GCM_SHA384,
                CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
            ]
        );
        assert_eq!(names(false)[0], CipherSuite::TLS13_CHACHA20_POLY1305_SHA256);
    }
}
