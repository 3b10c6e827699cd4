//! Peer-to-peer workspace tunnels: an [`Endpoint`] opens and accepts [`Tunnel`]s, over the fastest path there is.
//!
//! An agent keeps a link to a relay and hands out a ticket; a client that has the ticket connects, at once through the
//! relay and soon directly. Nothing but the two ends can read what passes.
//!
//! ```no_run
//! use std::time::Duration;
//! use byway::forward::{Forward, TargetPolicy};
//! use byway::{Admission, Endpoint, PathKind, RelayUrl, Target, Ticket, TicketSecret};
//!
//! # type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;
//! /// Lets whoever holds the ticket reach this machine's loopback ports, and echoes streams of our own.
//! async fn agent(relay: RelayUrl, secret: [u8; 32]) -> Result<()> {
//!     let admission = Admission {
//!         secrets: vec![TicketSecret::from_bytes(secret)],
//!         ..Admission::default()
//!     };
//!     let endpoint = Endpoint::builder().relay(relay).accept(admission).bind().await?;
//!     endpoint.online(Duration::from_secs(10)).await?;
//!     println!("{}", endpoint.ticket(Some("workspace")));
//!     while let Some(tunnel) = endpoint.accept().await {
//!         tunnel.serve(TargetPolicy::loopback());
//!         tokio::spawn(async move {
//!             while let Some((mut send, mut recv)) = tunnel.accept().await {
//!                 tokio::spawn(async move { tokio::io::copy(&mut recv, &mut send).await });
//!             }
//!         });
//!     }
//!     Ok(())
//! }
//!
//! /// Talks to the agent, and makes its port 8080 one of this machine's.
//! async fn client(ticket: Ticket) -> Result<()> {
//!     let endpoint = Endpoint::builder().bind().await?;
//!     let tunnel = endpoint.connect(&ticket).await?;
//!     let (mut send, mut recv) = tunnel.open().await?;
//!     send.write_all(b"hello").await?;
//!     send.finish()?;
//!     assert_eq!(recv.read_to_end(64).await?, b"hello");
//!
//!     let target: Target = "localhost:8080".parse()?;
//!     let forward = Forward::listen(tunnel.clone(), "127.0.0.1:0".parse()?, target, |_, why| {
//!         eprintln!("refused: {why}");
//!     })
//!     .await?;
//!     println!("http://{}", forward.local_addr());
//!     tunnel.wait_for(PathKind::Direct).await?; // It works before, too.
//!     println!("{}", forward.closed().await);
//!     endpoint.close().await;
//!     Ok(())
//! }
//! ```
//!
//! [`keyfile`] keeps keys and ticket secrets between starts. [`Tunnel`] has the rest: datagrams, pings, the path in use,
//! counters. Everything runs on tokio.
//!
//! # Inside
//!
//! ```text
//!   Tunnel, streams, forwarding        tunnel/, forward/
//!   ----------------------------------------------------
//!   quinn: one QUIC connection a tunnel, one a UDP link
//!   ----------------------------------------------------
//!   socket/: virtual address -> route -> real send       <- driver/: the node's state machine,
//!   ----------------------------------------------------     timers, events (control only)
//!   UDP sockets          TLS links (links/)
//! ```
//!
//! Data passes between quinn and the sockets by reading routes, never by a lock; the driver changes the routes.

#![cfg_attr(
    test,
    allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")
)]

mod driver;
pub mod endpoint;
pub mod forward;
mod happy;
pub mod keyfile;
mod links;
mod netcheck;
mod portmap;
pub mod proxy;
pub mod relay_map;
mod relay_token;
mod socket;
mod tls;
pub mod tunnel;

pub use byway_congestion::Congestion;
pub use byway_core::discovery::{self, NatReport};
pub use byway_core::io::{Admission, Carrier, Health, LinkMode, PathKind, RouteReason};
pub use byway_wire::signal::Candidate;
pub use byway_wire::tunnel::{Refusal, Refused, Target, TargetError};
pub use byway_wire::{NodeId, RelayUrl, SecretKey, Ticket, TicketSecret};
pub use endpoint::{BindError, Builder, ConnectError, Endpoint, LinkStatus};
pub use proxy::{Proxy, ProxyUrl};
pub use relay_map::{RelayMap, RelayMapError};
pub use relay_token::{RelayToken, RelayTokenError};
pub use tunnel::{PathInfo, StreamError, Tunnel, TunnelClosed, TunnelStats};
