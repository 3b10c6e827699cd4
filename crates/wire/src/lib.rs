//! Byway's wire formats.
//!
//! Hostile bytes in, values out. Nothing here has a clock, a socket or a source of randomness: nonces, transaction
//! ids and the time are arguments. Every decoder is total: any input gives a value or a typed error that says what
//! was wrong with it, in bounded time and memory.
//!
//! | module | what |
//! |---|---|
//! | [`id`], [`key`] | who a node is: `NodeId`, `Instance`, signing and probe keys |
//! | [`demux`] | what a datagram is, by its first byte (design section 3) |
//! | [`stun`] | STUN binding requests and answers (RFC 8489) through `stun-rs` |
//! | [`classic_stun`] | the binding requests of clients older than the magic cookie (RFC 3489) |
//! | [`pair`] | the symmetric keys of two node instances, and the replay window |
//! | [`probe`] | `0x81`: path probes |
//! | [`signal`] | sealed messages between two nodes, carried by a relay |
//! | [`relay`] | relay data (`0x80`), rebind cookies (`0x82`), control messages, frames of the TLS link |
//! | [`fragment`] | `0x83`: a datagram in two parts |
//! | [`record`], [`ticket`] | what a node says of itself; what a client needs to reach an agent |
//! | [`tunnel`] | what is said inside a tunnel: greeting, stream headers, refusals |
//!
//! `docs/protocol.md` draws every format byte by byte.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        reason = "a test that cannot go on should fail at once"
    )
)]

mod addr;
pub mod classic_stun;
pub mod demux;
pub mod fragment;
pub mod id;
pub mod key;
pub mod pair;
pub mod probe;
pub mod record;
pub mod relay;
pub mod signal;
pub mod stun;
pub mod text;
pub mod ticket;
pub mod tunnel;

pub use addr::canonical;
pub use id::{Instance, NodeId, NodeInstance};
pub use key::{ProbePublic, ProbeSecret, SecretKey};
pub use record::{Record, SignedRecord};
pub use relay::{ChannelId, RelayUrl};
pub use ticket::{Ticket, TicketSecret};
