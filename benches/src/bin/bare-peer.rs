//! A reference for a comparison through a relay: the same work ([`byway_transfer`]) over raw quinn, through a forwarder that does
//! nothing but forward.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use anyhow::{Context, Result};
use byway_benches::bare_forwarder::{self, PORTS};
use byway_benches::raw_quinn;
use byway_transfer::{Connection, Sizes};
use clap::Parser;
use data_encoding::HEXLOWER;
use rustls::pki_types::CertificateDer;

/// One end of a transfer, or what is between them.
#[derive(Parser)]
enum Command {
    /// Waits for one connection, and sends what it asks for.
    Listen {
        /// Where the forwarder is.
        #[arg(long)]
        forwarder: IpAddr,
    },
    /// Fetches from one that listens.
    Fetch {
        /// Where the forwarder is.
        #[arg(long)]
        forwarder: IpAddr,
        /// MiB that warm up.
        #[arg(long, default_value_t = 32)]
        warm_up: u64,
        /// MiB that count.
        #[arg(long)]
        mib: u64,
        /// The certificate that it told, in hexadecimal.
        certificate: String,
    },
    /// Forwards between the two.
    Forward {
        /// The address to be found at.
        ip: IpAddr,
    },
}

struct Raw(quinn::Connection);

impl Connection for Raw {
    type Send = quinn::SendStream;
    type Receive = quinn::RecvStream;

    async fn open(&self) -> Result<(Self::Send, Self::Receive)> {
        Ok(self.0.open_bi().await?)
    }

    async fn accept(&self) -> Option<(Self::Send, Self::Receive)> {
        self.0.accept_bi().await.ok()
    }

    /// There is only one.
    fn path(&self) -> &'static str {
        "forwarder"
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let any = (Ipv4Addr::UNSPECIFIED, 0);
    match Command::parse() {
        Command::Listen { forwarder } => {
            let (config, certificate) = raw_quinn::server()?;
            let socket = UdpSocket::bind(any)?;
            // The NAT before us lets in who was called, and the forwarder learns where we are.
            socket.send_to(b"here", SocketAddr::new(forwarder, PORTS[0]))?;
            let endpoint = quinn::Endpoint::new(
                quinn::EndpointConfig::default(),
                Some(config),
                socket,
                Arc::new(quinn::TokioRuntime),
            )?;
            byway_transfer::say_address(&HEXLOWER.encode(&certificate));
            let incoming = endpoint.accept().await.context("the endpoint closed")?;
            byway_transfer::listen(&Raw(incoming.await?)).await?;
            endpoint.wait_idle().await;
        }
        Command::Fetch {
            forwarder,
            warm_up,
            mib,
            certificate,
        } => {
            let certificate = HEXLOWER.decode(certificate.as_bytes());
            let certificate = certificate.context("the certificate is no hexadecimal")?;
            let certificate = CertificateDer::from(certificate);
            let endpoint = quinn::Endpoint::client(any.into())?;
            let forwarder = SocketAddr::new(forwarder, PORTS[1]);
            let connecting =
                endpoint.connect_with(raw_quinn::client(certificate)?, forwarder, "localhost")?;
            let connection = Raw(connecting.await?);
            let sizes = Sizes {
                warm_up: warm_up << 20,
                measured: mib << 20,
            };
            byway_transfer::fetch(&connection, sizes).await?;
            connection.0.close(0u32.into(), b"");
            endpoint.wait_idle().await;
        }
        Command::Forward { ip } => {
            bare_forwarder::run(ip, || println!("ready")).await?;
        }
    }
    Ok(())
}
