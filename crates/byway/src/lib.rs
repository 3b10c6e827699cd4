//! Peer-to-peer workspace tunnels: an [`Endpoint`] opens and accepts [`Tunnel`]s, over the fastest path there is.

pub mod endpoint;
pub mod forward;
pub mod keyfile;
pub mod tunnel;

pub use byway_core::discovery::NatReport;
pub use byway_core::io::{LinkMode, PathKind};
pub use byway_wire::{NodeId, RelayUrl, SecretKey, Ticket, TicketSecret};
pub use endpoint::{Builder, Endpoint};
pub use tunnel::Tunnel;
