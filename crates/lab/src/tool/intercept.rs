//! An inspecting proxy, as companies have them: it ends the TLS of whoever is sent to it, under a certificate of its own, and
//! speaks TLS with the one who was meant, whose certificate it checks.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// What it inspects. It would not let anything else pass.
const ALPN: &[u8] = b"http/1.1";

/// `intercept ADDR MEANT CERT KEY ROOTS`: prints `ready`, and then a line for each connection that it has passed on.
pub(super) fn serve(args: &[String]) -> Result<()> {
    let [addr, meant, cert, key, roots] = args else {
        bail!("intercept ADDR MEANT CERT KEY ROOTS");
    };
    let meant: SocketAddr = meant.parse().context("whom they meant")?;
    let mut inside = super::tls::server(cert, key)?;
    inside.alpn_protocols = vec![ALPN.to_vec()];
    let outside = client(roots)?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(addr).await?;
        println!("ready");
        let (inside, outside) = (Arc::new(inside), Arc::new(outside));
        loop {
            let (tcp, _) = listener.accept().await?;
            let (inside, outside) = (Arc::clone(&inside), Arc::clone(&outside));
            // Whoever does not trust it leaves, which is that one's right.
            tokio::spawn(async move { pass(tcp, meant, inside, outside).await.is_ok() });
        }
    })
}

async fn pass(
    tcp: TcpStream,
    meant: SocketAddr,
    inside: Arc<ServerConfig>,
    outside: Arc<ClientConfig>,
) -> Result<()> {
    let mut inside = TlsAcceptor::from(inside).accept(tcp).await?;
    let name = ServerName::from(meant.ip());
    let tcp = TcpStream::connect(meant).await?;
    let mut outside = TlsConnector::from(outside).connect(name, tcp).await?;
    println!("passed on");
    tokio::io::copy_bidirectional(&mut inside, &mut outside).await?;
    Ok(())
}

fn client(roots: &str) -> Result<ClientConfig> {
    let mut trusted = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(roots)? {
        trusted.add(root?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(trusted)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}
