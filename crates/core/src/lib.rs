//! The node of a Byway tunnel as a state machine without I/O.
//!
//! # The drive contract
//!
//! Every state machine here, and the relay's in `byway-relay-core`, is driven the same way. Time is an argument; the
//! only randomness comes from a seed. The shell (tokio in `byway`, virtual time in `byway-sim`) runs this loop:
//!
//! ```text
//! loop {
//!     while let Some(transmit) = node.poll_transmit() { send(transmit) }
//!     while let Some(event) = node.poll_event() { carry_out(event) }
//!     let wake = node.poll_timeout();              // Option<(Instant, why)>
//!     match wait_for(input, wake) {
//!         Input(i)  => node.handle_...(now, i),
//!         Timeout   => node.handle_timeout(now),
//!     }
//! }
//! ```
//!
//! - `handle_*` takes one input and changes state; it never blocks, never fails: what is wrong with an input is counted.
//! - After any `handle_*`, drain `poll_transmit` and `poll_event` until `None`.
//! - `poll_timeout` says when to wake and why. While output is queued it says *now*. A spurious wake-up does nothing.
//!   `None` means: nothing to do until an input comes. An idle node costs only its keep-alives.

//!
//! # The parts
//!
//! | module | what |
//! |---|---|
//! | [`io`] | what passes between node and shell |
//! | [`node`] | the node itself; composes the others |
//! | [`discovery`] | STUN servers in, a network report out |
//! | [`link`] | links to relays: races, redialling, replacing |
//! | [`path`] | the paths to one peer: candidates, probes, score, failover |
//! | [`bucket`] | how many at once, and how often then |
//! | [`recent`] | the last datagrams sent, for sending again |
//! | [`reassemble`] | datagrams that came in two parts |
//! | [`sleep`] | whether the host slept, by two clocks |
//! | [`counters`] | what was dropped and refused |

#![cfg_attr(
    test,
    allow(clippy::unwrap_used, reason = "a test that unwraps None has failed")
)]

mod addr;
mod asked;
pub mod bucket;
mod budget;
pub mod counters;
mod cx;
pub mod discovery;
pub mod io;
pub mod link;
pub mod node;
pub mod path;
pub mod reassemble;
pub mod recent;
mod rng;
pub mod sleep;
