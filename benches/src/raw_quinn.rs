//! The ceiling: quinn alone, with Byway's cipher, key exchange and MTU bound.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

/// Two quinn endpoints with one connection.
#[derive(Debug)]
pub struct RawQuinn {
    /// Receives.
    pub client: quinn::Connection,
    /// Sends.
    pub server: quinn::Connection,
    _endpoints: [quinn::Endpoint; 2],
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![aws_lc_rs::kx_group::X25519MLKEM768],
        ..aws_lc_rs::default_provider()
    })
}

/// Settings that match Byway's tunnels: MTU search up to 1,444 bytes, windows that never limit loopback.
fn transport() -> quinn::TransportConfig {
    let mut mtu = quinn::MtuDiscoveryConfig::default();
    mtu.upper_bound(1_444);
    let mut transport = quinn::TransportConfig::default();
    transport
        .mtu_discovery_config(Some(mtu))
        .stream_receive_window(quinn::VarInt::from_u32(16 << 20))
        .receive_window(quinn::VarInt::from_u32(32 << 20))
        .send_window(16 << 20);
    transport
}

/// For the side that listens, and the certificate that it shows.
pub fn server() -> Result<(quinn::ServerConfig, CertificateDer<'static>)> {
    let cert = rcgen::generate_simple_self_signed(vec!["localhost".into()])?;
    let key = PrivatePkcs8KeyDer::from(cert.signing_key.serialize_der());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![cert.cert.der().clone()], key.into())?;
    tls.alpn_protocols = vec![b"raw".to_vec()];
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config.transport_config(Arc::new(transport()));
    Ok((config, cert.cert.der().clone()))
}

/// For the side that dials one with this certificate, as `localhost`.
pub fn client(certificate: CertificateDer<'static>) -> Result<quinn::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate)?;
    let mut tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"raw".to_vec()];
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    config.transport_config(Arc::new(transport()));
    Ok(config)
}

impl RawQuinn {
    /// Binds two endpoints on loopback and connects them.
    pub async fn connect() -> Result<Self> {
        let (server_config, certificate) = server()?;
        let client_config = client(certificate)?;
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listening = quinn::Endpoint::server(server_config, any)?;
        let dialling = quinn::Endpoint::client(any)?;
        let connecting =
            dialling.connect_with(client_config, listening.local_addr()?, "localhost")?;
        let incoming = listening
            .accept()
            .await
            .context("the raw endpoint closed")?;
        let (client, server) = tokio::try_join!(connecting, async { incoming.await })?;
        Ok(Self {
            client,
            server,
            _endpoints: [dialling, listening],
        })
    }

    /// Carries `bytes` on one stream from server to client.
    pub async fn transfer(&self, bytes: u64) -> Result<()> {
        let send = async {
            let mut stream = self.server.open_uni().await?;
            byway_transfer::send_bytes(&mut stream, bytes).await
        };
        let receive = async {
            let mut stream = self.client.accept_uni().await?;
            crate::through_byway::receive_bytes(&mut stream, bytes).await
        };
        tokio::try_join!(send, receive).map(|_| ())
    }
}
