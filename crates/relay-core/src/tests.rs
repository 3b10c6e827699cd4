//! The relay's rules, each with the case in which it refuses, in the order of a link's life.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must panic")]
#![expect(
    clippy::disallowed_methods,
    reason = "a test needs one instant to begin from; from there on time is an argument"
)]

mod admitted;
mod awaited;
mod bench;
mod channels;
mod ends;
mod links;
mod opens;
mod random;
mod relayed;
