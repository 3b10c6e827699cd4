//! Byway's side of a comparison with a peer: the same work ([`byway_transfer`]) over a tunnel.

use std::time::Duration;

use anyhow::{Context, Result};
use byway::{Admission, Endpoint, LinkMode, PathKind, RelayUrl, Ticket, Tunnel};
use byway_transfer::{Connection, Sizes};
use clap::{Args, Parser, ValueEnum};

/// A link to a relay that has not come up in this time will not.
const DEADLINE: Duration = Duration::from_secs(20);

/// One end of a transfer over a tunnel.
#[derive(Parser)]
enum Command {
    /// Waits for one tunnel, and sends what it asks for.
    Listen {
        #[command(flatten)]
        link: Link,
        /// The relay.
        #[arg(long)]
        relay: RelayUrl,
    },
    /// Fetches from one that listens.
    Fetch {
        #[command(flatten)]
        link: Link,
        /// MiB that warm up.
        #[arg(long, default_value_t = 32)]
        warm_up: u64,
        /// MiB that count.
        #[arg(long)]
        mib: u64,
        /// The address that it told.
        ticket: Ticket,
    },
}

#[derive(Args)]
struct Link {
    /// What the link to the relay is.
    #[arg(long, value_enum)]
    link: Kind,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Udp,
    Tls,
}

struct Tunnelled(Tunnel);

impl Connection for Tunnelled {
    type Send = quinn::SendStream;
    type Receive = quinn::RecvStream;

    async fn open(&self) -> Result<(Self::Send, Self::Receive)> {
        Ok(self.0.open().await?)
    }

    async fn accept(&self) -> Option<(Self::Send, Self::Receive)> {
        self.0.accept().await
    }

    fn path(&self) -> &'static str {
        match self.0.path().borrow().kind {
            PathKind::Direct => "direct",
            PathKind::RelayUdp => "relay_udp",
            PathKind::RelayTls => "relay_tls",
        }
    }
}

fn builder(link: &Link) -> byway::Builder {
    let mode = match link.link {
        Kind::Udp => LinkMode::Udp,
        Kind::Tls => LinkMode::Tls,
    };
    // No gateway gives ports where this runs; nor does the peer ask for any.
    Endpoint::builder().links(mode).port_mapping(false)
}

#[tokio::main]
async fn main() -> Result<()> {
    match Command::parse() {
        Command::Listen { link, relay } => {
            let anyone = Admission {
                anyone: true,
                ..Default::default()
            };
            let endpoint = builder(&link).relay(relay).accept(anyone).bind().await?;
            endpoint.online(DEADLINE).await?;
            byway_transfer::say_address(&endpoint.ticket(None).to_string());
            let tunnel = endpoint.accept().await.context("the endpoint closed")?;
            byway_transfer::listen(&Tunnelled(tunnel)).await?;
            endpoint.close().await;
        }
        Command::Fetch {
            link,
            warm_up,
            mib,
            ticket,
        } => {
            let endpoint = builder(&link).bind().await?;
            let tunnel = endpoint.connect(&ticket).await?;
            let sizes = Sizes {
                warm_up: warm_up << 20,
                measured: mib << 20,
            };
            byway_transfer::fetch(&Tunnelled(tunnel), sizes).await?;
            endpoint.close().await;
        }
    }
    Ok(())
}
