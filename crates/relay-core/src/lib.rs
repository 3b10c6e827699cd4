//! The relay as a state machine without I/O (design section 7).
//!
//! # What a relay does
//!
//! A node proves its key on a *link* and says `Hello`. From then on it is a *session*: the pair (node, instance), which
//! may have several links. It opens *channels* to other nodes. A channel has two *ends*, the opener's and the target's;
//! each belongs to a session and is bound to one of its links. Data is forwarded by the shell from a table that
//! [`io::TableUpdate`] keeps: this crate sees control messages only, never a data packet. The one decision that every
//! data packet needs is the pure function [`forward::decide`].
//!
//! A session outlives its links: when a link ends, the ends bound to it stay for ten seconds, so that the node can dial
//! again and `Attach` them. Of several agent instances of one node the newest is reachable and the older are sent away;
//! several client instances of one node are normal.
//!
//! # How it is driven
//!
//! Like the node (`byway_core`'s drive contract): `handle_*` with the time as an argument, then drain
//! [`Relay::poll_event`] until `None`, then wait no longer than [`Relay::poll_timeout`] says. Nothing here reads a
//! clock, opens a socket or draws randomness: the seed is an argument.
//!
//! | file | idea |
//! |---|---|
//! | `relay` | the one place that composes the rest; settings; dispatch of control messages |
//! | `proof` | judging the proof of a key on a TLS link |
//! | `links` | links and sessions: hello, newest agent wins, limits, the end of a link |
//! | `opens` | opening: checks, joining, unanswered opens |
//! | `awaited` | opens that wait for an absent peer |
//! | `channels` | channels and their two ends: attach, close, linger |
//! | `rebind` | moving a link's data to the address its node proved to receive at |
//! | `relayed` | what passes from node to node: signals and records |
//! | `admission/` | who may come: lists, tokens |
//! | `admitted` | what follows from a token while its node is here: fresh ones, expiry, whom it may reach |
//! | `counters`, `timers` | what was refused, when to wake |

mod admission;
mod admitted;
mod awaited;
mod channels;
mod counters;
pub mod forward;
pub mod io;
mod links;
mod opens;
pub mod proof;
mod rebind;
pub mod relay;
mod relayed;
#[cfg(test)]
mod tests;
mod timers;

pub use admission::{
    Admission, AdmissionError, Claims, Grant, KeyError, OneOrMany, TokenKey, TokenRules,
};
pub use counters::Counters;
pub use relay::{Config, Relay};
