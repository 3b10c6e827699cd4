//! The wire formats as their users see them: what is written reads back, what is wrong is refused with the right name,
//! and no bytes whatever make a decoder panic.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should fail at once"
)]

mod control;
mod datagrams;
mod frames;
mod hostile;
mod identity;
mod probes;
mod records;
mod secrets;
mod signals;
mod stun;
mod support;
mod tickets;
mod tunnels;
