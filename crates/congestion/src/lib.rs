//! Congestion control that keeps one state per network path, and the evidence that a path still carries data.
//!
//! QUIC sees one virtual address per peer; under it the datagrams move between a relay and a direct path. A
//! congestion controller that does not know this mistakes the old path's losses for congestion on the new one, and
//! refuses to send on the new path while the old path's bytes count as in flight. [`PathAware`] knows:
//!
//! - The shell tells a [`FlowMonitor`] of every change of route ([`FlowMonitor::switch`]). The controller sees it at
//!   its next call: one comparison of an atomic number.
//! - Each path has an inner controller (Cubic unless configured otherwise). A switch sets the current one aside and
//!   takes up the one the new path had, or builds a fresh one. The last [`KEPT_PATHS`] are kept, each for
//!   [`KEEP_FOR`].
//! - Acknowledgements and losses of packets sent before the switch do not reach the new path's inner controller:
//!   they say nothing about it.
//! - Until the first packet sent after the switch is acknowledged, the window is the inner window *plus* what is
//!   left in flight from before, for quinn compares all bytes in flight with one window. With that acknowledgement
//!   quinn declares the old path's packets lost (they are older by packet number), and the sum is not needed any more.
//!
//! A machine that slept is a special case: what was in flight then is lost, and quinn takes an acknowledgement that was
//! held up by the sleep for a round trip as long. [`FlowMonitor::renew_if_stale`] takes the path in use for a new one, so
//! that the next datagram leaves at once; samples that no network can have caused do not count here; and while quinn's
//! own average contains one, it is not let pace by it, what leaves is bounded otherwise (`slept.rs`), and the inner controllers
//! get the last one that held none.
//!
//! The same callbacks yield the evidence that failover rests on (design section 6): [`FlowMonitor::sample`] tells how
//! much is in flight, since when an acknowledgement has been due, and the round-trip time of *this* path, all of
//! packets sent since the last switch.
//!
//! # When quinn-proto 0.11.19 calls a controller
//!
//! Found by reading `connection/mod.rs`; the tests in `tests/quinn.rs` hold it in place.
//!
//! - `on_sent(now, bytes, last packet)`: once per *transmit*, thus once per GSO batch, with the length of the whole
//!   buffer. Also for packets that elicit no acknowledgement: a receiver's bare ACKs arrive here as well. *Not* for
//!   MTU probes, path challenges and off-path responses.
//! - `window()`: twice for each new datagram that would elicit an acknowledgement (congestion, then pacing), once
//!   when congestion forbids it, never before a bare ACK or a loss probe; and once per `Connection::stats()`. This
//!   tells the two kinds of `on_sent` apart, and nothing else does: see [`PathAware`].
//! - `on_ack(now, sent, bytes, ..)`: for each newly acknowledged packet that elicits acknowledgements, MTU probes
//!   included. All packets of one ACK frame have been taken off the bytes in flight when
//! - `on_end_acks(now, in_flight, ..)` follows, once per ACK frame, with the exact bytes in flight, *before* losses
//!   are looked for.
//! - `on_congestion_event(now, sent, persistent, lost)`: once per batch of losses with the send time of the newest
//!   lost packet and the sum of all sizes; `lost` is 0 for an ECN mark. Not for MTU probes. A lost path alone causes
//!   none: without a later acknowledgement quinn only probes, it declares nothing lost.
//! - Packets of a packet number space that is discarded (the handshake's) leave the bytes in flight silently.
//! - `clone_box`: when a server sees its peer at a new port of the same IPv4 address, and when an application asks
//!   for the controller's state; `ControllerFactory::build`: for each connection, for a migration to another address,
//!   and by `Connection::path_changed`. Byway's tunnels forbid migration (their addresses are virtual), so one
//!   controller drives a [`FlowMonitor`] at a time; a clone or a second build goes on where the first stopped.
//!
//! The round-trip time that quinn passes to `on_ack` is one estimate across all paths, and its variation is private.
//! The evidence therefore has an estimator of its own for each path, whose samples include the peer's ACK delay: what
//! is asked is how long to wait for an answer. The inner controllers still get quinn's.
#![cfg_attr(
    test,
    allow(
        clippy::disallowed_methods,
        reason = "virtual time needs one instant to count from"
    )
)]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")
)]

mod controller;
mod loss;
mod monitor;
mod mtu;
mod rtt;
mod slept;
mod tolerant;
mod unanswered;

pub use controller::{Congestion, KEEP_FOR, KEPT_PATHS, PathAware, PathAwareFactory};
pub use monitor::FlowMonitor;
pub use mtu::LargestMtu;
