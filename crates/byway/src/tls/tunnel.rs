//! TLS of tunnels: raw public keys both ways. One client configuration serves every peer, because the server name says
//! whom to expect.

use std::sync::Arc;

use byway_wire::SecretKey;
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::{ClientConfig, Error, ServerConfig};

use super::raw_key::{AnyNode, NamedNode, certified_key};
use super::{ALPN_TUNNEL, provider};

/// Connects with [`byway_wire::NodeId::server_name`] as the server name.
pub(crate) fn tunnel_client(key: &SecretKey) -> Result<ClientConfig, Error> {
    client(key, provider())
}

/// Accepts any node that proves its key; [`super::proved_node`] says which it was.
pub(crate) fn tunnel_server(key: &SecretKey) -> Result<ServerConfig, Error> {
    server(key, provider())
}

fn client(key: &SecretKey, provider: Arc<CryptoProvider>) -> Result<ClientConfig, Error> {
    let own = certified_key(key, &provider)?;
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(NamedNode(provider)))
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(own)));
    config.alpn_protocols = vec![ALPN_TUNNEL.to_vec()];
    // The name only says whom we expect; on the wire it would tell every observer whom we call.
    config.enable_sni = false;
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(config)
}

fn server(key: &SecretKey, provider: Arc<CryptoProvider>) -> Result<ServerConfig, Error> {
    let own = certified_key(key, &provider)?;
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(AnyNode(provider)))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(own)));
    config.alpn_protocols = vec![ALPN_TUNNEL.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use rustls::crypto::aws_lc_rs;
    use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
    use rustls::{AlertDescription, CertificateError, ClientConnection, ServerConnection};

    use super::*;
    use crate::tls::relay;

    fn key(n: u8) -> SecretKey {
        SecretKey::from_bytes(&[n; 32])
    }

    /// Runs a handshake in memory; the first error is the outcome.
    fn handshake(
        client: ClientConfig,
        server: ServerConfig,
        name: &str,
    ) -> Result<(ClientConnection, ServerConnection), Error> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
        let mut server = ServerConnection::new(Arc::new(server)).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut wire).unwrap();
            }
            let mut wire = wire.as_slice();
            while !wire.is_empty() {
                server.read_tls(&mut wire).unwrap();
                server.process_new_packets()?;
            }
            let mut wire = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut wire).unwrap();
            }
            let mut wire = wire.as_slice();
            while !wire.is_empty() {
                client.read_tls(&mut wire).unwrap();
                client.process_new_packets()?;
            }
        }
        Ok((client, server))
    }

    fn x509_server() -> (ServerConfig, CertificateDer<'static>, [u8; 32]) {
        use sha2::Digest;
        let made = rcgen::generate_simple_self_signed(vec!["relay.test".to_owned()]).unwrap();
        let spki = rustls::server::ParsedCertificate::try_from(made.cert.der())
            .unwrap()
            .subject_public_key_info();
        let pin = sha2::Sha256::digest(spki.as_ref()).into();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()).into();
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        (config, made.cert.der().clone(), pin)
    }

    #[test]
    fn both_sides_prove_their_keys() {
        let (client, server) = handshake(
            tunnel_client(&key(1)).unwrap(),
            tunnel_server(&key(2)).unwrap(),
            &key(2).node_id().server_name(),
        )
        .unwrap();
        assert_eq!(
            client.peer_certificates().unwrap()[0].as_ref(),
            key(2).node_id().to_spki_der()
        );
        assert_eq!(
            server.peer_certificates().unwrap()[0].as_ref(),
            key(1).node_id().to_spki_der()
        );
        assert_eq!(server.server_name(), None, "no name on the wire");
        assert_eq!(client.alpn_protocol(), Some(ALPN_TUNNEL));
    }

    #[test]
    fn another_node_than_the_dialled_one_is_refused() {
        let outcome = handshake(
            tunnel_client(&key(1)).unwrap(),
            tunnel_server(&key(3)).unwrap(),
            &key(2).node_id().server_name(),
        );
        assert_eq!(
            outcome.err(),
            Some(Error::InvalidCertificate(CertificateError::NotValidForName))
        );
    }

    #[test]
    fn a_node_that_shows_a_key_it_does_not_hold_is_refused() {
        let provider = provider();
        let honest = certified_key(&key(3), &provider).unwrap();
        let stolen = rustls::sign::CertifiedKey::new(
            vec![key(2).node_id().to_spki_der().to_vec().into()],
            Arc::clone(&honest.key),
        );
        let mut liar = server(&key(2), provider).unwrap();
        liar.cert_resolver = Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::new(stolen)));
        let outcome = handshake(
            tunnel_client(&key(1)).unwrap(),
            liar,
            &key(2).node_id().server_name(),
        );
        assert_eq!(
            outcome.err(),
            Some(Error::InvalidCertificate(CertificateError::BadSignature))
        );
    }

    #[test]
    fn a_client_without_a_key_is_refused() {
        let anonymous = {
            let provider = provider();
            let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .unwrap()
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(NamedNode(provider)))
                .with_no_client_auth();
            config.alpn_protocols = vec![ALPN_TUNNEL.to_vec()];
            config
        };
        assert!(
            handshake(
                anonymous,
                tunnel_server(&key(2)).unwrap(),
                &key(2).node_id().server_name()
            )
            .is_err()
        );
    }

    #[test]
    fn x509_is_refused_where_a_raw_key_is_expected() {
        let (mut server, _, _) = x509_server();
        server.alpn_protocols = vec![ALPN_TUNNEL.to_vec()];
        assert!(
            handshake(
                tunnel_client(&key(1)).unwrap(),
                server,
                &key(2).node_id().server_name()
            )
            .is_err()
        );
    }

    #[test]
    fn another_protocol_is_refused() {
        let mut client = tunnel_client(&key(1)).unwrap();
        client.alpn_protocols = vec![b"byway/0".to_vec()];
        let outcome = handshake(
            client,
            tunnel_server(&key(2)).unwrap(),
            &key(2).node_id().server_name(),
        );
        assert!(matches!(
            outcome.err(),
            Some(
                Error::NoApplicationProtocol
                    | Error::AlertReceived(AlertDescription::NoApplicationProtocol)
            )
        ));
    }

    #[test]
    fn the_hybrid_key_exchange_is_chosen() {
        // A server that knows nothing else succeeds only with it.
        let hybrid_only = Arc::new(CryptoProvider {
            kx_groups: vec![aws_lc_rs::kx_group::X25519MLKEM768],
            ..(*provider()).clone()
        });
        let (client, _) = handshake(
            tunnel_client(&key(1)).unwrap(),
            server(&key(2), hybrid_only).unwrap(),
            &key(2).node_id().server_name(),
        )
        .unwrap();
        assert_eq!(
            client.handshake_kind(),
            Some(rustls::HandshakeKind::Full),
            "without a retry: it was offered first"
        );
        assert_eq!(
            client.negotiated_key_exchange_group().unwrap().name(),
            rustls::NamedGroup::X25519MLKEM768
        );
    }

    #[test]
    fn a_relay_is_known_by_its_pin() {
        let (mut server, _, pin) = x509_server();
        server.alpn_protocols = vec![super::super::ALPN_HTTP.to_vec()];
        let url =
            |pin| byway_wire::RelayUrl::new("192.0.2.1", 443, Some(byway_wire::relay::Pin(pin)));
        // The certificate says relay.test: name and issuer do not matter, the key does.
        handshake(
            relay::tls_link_client(&url(pin).unwrap()).unwrap(),
            server.clone(),
            "192.0.2.1",
        )
        .unwrap();
        let mut wrong = pin;
        wrong[31] ^= 1;
        let outcome = handshake(
            relay::tls_link_client(&url(wrong).unwrap()).unwrap(),
            server,
            "192.0.2.1",
        );
        assert_eq!(
            outcome.err(),
            Some(Error::InvalidCertificate(
                CertificateError::ApplicationVerificationFailure
            ))
        );
    }

    #[test]
    fn the_pinned_certificate_without_its_key_is_refused() {
        let (server, certificate, pin) = x509_server();
        let other = rcgen::KeyPair::generate().unwrap();
        let signing = provider()
            .key_provider
            .load_private_key(PrivatePkcs8KeyDer::from(other.serialize_der()).into())
            .unwrap();
        let mut thief = server;
        thief.alpn_protocols = vec![super::super::ALPN_HTTP.to_vec()];
        thief.cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(
            rustls::sign::CertifiedKey::new(vec![certificate], signing),
        ));
        let url = byway_wire::RelayUrl::new("192.0.2.1", 443, Some(byway_wire::relay::Pin(pin)));
        let outcome = handshake(
            relay::tls_link_client(&url.unwrap()).unwrap(),
            thief,
            "192.0.2.1",
        );
        assert_eq!(
            outcome.err(),
            Some(Error::InvalidCertificate(CertificateError::BadSignature))
        );
    }
}
