//! iroh's side of a comparison with Byway: the same work ([`byway_transfer`]) over an iroh connection.
//!
//! All is as iroh has it by default, but that its one relay is ours and that the gateway is not asked for a port, which
//! nobody answers where this runs. The address of the one who listens names the relay and its own addresses, as an address
//! service would. Its windows are its better case too: with four times the receive window, connections through its relay end
//! with "too many gaps in stream buffer".

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use byway_transfer::{Connection, Sizes};
use clap::{Args, Parser};
use iroh::endpoint::{PortmapperConfig, RecvStream, SendStream, presets};
use iroh::tls::CaTlsConfig;
use iroh::{Endpoint, EndpointAddr, RelayMode, RelayUrl};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

const ALPN: &[u8] = b"byway-bench";
/// A relay that has not answered in this time will not.
const DEADLINE: Duration = Duration::from_secs(20);

/// One end of a transfer over an iroh connection.
#[derive(Parser)]
enum Command {
    /// Waits for one connection, and sends what it asks for.
    Listen {
        #[command(flatten)]
        end: End,
    },
    /// Fetches from one that listens.
    Fetch {
        #[command(flatten)]
        end: End,
        /// MiB that warm up.
        #[arg(long, default_value_t = 32)]
        warm_up: u64,
        /// MiB that count.
        #[arg(long)]
        mib: u64,
        /// The address that it told.
        address: String,
    },
}

#[derive(Args)]
struct End {
    /// The relay.
    #[arg(long)]
    relay: RelayUrl,
    /// A file with the authority of its certificate.
    #[arg(long)]
    roots: Option<PathBuf>,
}

impl End {
    async fn bind(self) -> Result<Endpoint> {
        let mut builder = Endpoint::builder(presets::Minimal)
            .relay_mode(RelayMode::custom([self.relay]))
            .portmapper_config(PortmapperConfig::Disabled)
            .alpns(vec![ALPN.to_vec()]);
        if let Some(file) = self.roots {
            let roots: Vec<_> = CertificateDer::pem_file_iter(&file)
                .and_then(Iterator::collect)
                .with_context(|| format!("reading {}", file.display()))?;
            builder = builder.ca_tls_config(CaTlsConfig::custom_roots(roots));
        }
        let endpoint = builder.bind().await?;
        tokio::time::timeout(DEADLINE, endpoint.online())
            .await
            .context("the relay does not answer")?;
        Ok(endpoint)
    }
}

struct Connected(iroh::endpoint::Connection);

impl Connection for Connected {
    type Send = SendStream;
    type Receive = RecvStream;

    async fn open(&self) -> Result<(SendStream, RecvStream)> {
        Ok(self.0.open_bi().await?)
    }

    async fn accept(&self) -> Option<(SendStream, RecvStream)> {
        self.0.accept_bi().await.ok()
    }

    fn path(&self) -> &'static str {
        let paths = self.0.paths();
        match paths.iter().find(|path| path.is_selected()) {
            Some(path) if path.is_relay() => "relay",
            Some(path) if path.is_ip() => "direct",
            Some(_) => "other",
            None => "none",
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    match Command::parse() {
        Command::Listen { end } => {
            let endpoint = end.bind().await?;
            byway_transfer::say_address(&serde_json::to_string(&endpoint.addr())?);
            let incoming = endpoint.accept().await.context("the endpoint closed")?;
            byway_transfer::listen(&Connected(incoming.await?)).await?;
            endpoint.close().await;
        }
        Command::Fetch {
            end,
            warm_up,
            mib,
            address,
        } => {
            let address: EndpointAddr =
                serde_json::from_str(&address).context("that is no address of iroh's")?;
            let endpoint = end.bind().await?;
            let connection = endpoint.connect(address, ALPN).await?;
            let sizes = Sizes {
                warm_up: warm_up << 20,
                measured: mib << 20,
            };
            byway_transfer::fetch(&Connected(connection), sizes).await?;
            endpoint.close().await;
        }
    }
    Ok(())
}
