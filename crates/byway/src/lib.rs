//! Peer-to-peer workspace tunnels: an [`Endpoint`] opens and accepts [`Tunnel`]s, over the fastest path there is.
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
pub mod keyfile;
mod links;
mod socket;
mod tls;
pub mod tunnel;

pub use byway_core::discovery::{self, NatReport};
pub use byway_core::io::{Admission, Carrier, LinkMode, PathKind, RouteReason};
pub use byway_wire::tunnel::{Refusal, Refused, Target, TargetError};
pub use byway_wire::{NodeId, RelayUrl, SecretKey, Ticket, TicketSecret};
pub use endpoint::{Builder, Endpoint};
pub use tunnel::Tunnel;
