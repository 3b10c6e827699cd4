//! A seeded simulation of networks that runs Byway's state machines, and quinn-proto above them, in virtual time.
//!
//! # What is real and what is simulated
//!
//! Real: `byway_core`'s node, `byway_relay_core`'s relay, `byway_congestion`'s controller, every byte of `byway_wire`,
//! and quinn-proto: tunnels *and* the control connections of UDP links are QUIC connections over simulated datagrams.
//! Simulated: hosts, NATs, access links, faults ([`net`]); TCP, as reliable pipes ([`net::pipe`]); the shells, which do
//! what `byway` and `byway-relay` do around the state machines ([`shell`]); and TLS.
//!
//! TLS inside QUIC is a stand-in ([`quic::crypto`]) with the same flights, sizes and refusals, because the real one draws
//! its randomness from the system: with it no two runs would have the same bytes, and a failing seed would not replay.
//! TLS around pipes has its flights and sizes and no content. Real TLS is tested in `byway`, `byway-relay` and `lab`.
//!
//! # One seed, one run
//!
//! Time is virtual ([`net::Network::step`] moves the clock from event to event); all randomness comes from one seed
//! ([`rng`]); events of one moment come in the order in which they were made. So a seed has exactly one run, and every
//! event of it goes into a hash ([`trace`]) that two runs of the same seed must share.
//!
//! # How to write a test
//!
//! [`scene::Scene`] has a client, an agent, a relay and STUN servers; [`world::World`] runs it until a condition holds and
//! takes [`world::Fault`]s now or later; [`model`] says what must come about; [`shell::app`] checks each byte and
//! measures silences. [`scenario`] makes all of it from a seed. `docs/testing.md` tells how to replay one.

pub mod model;
pub mod net;
pub mod quic;
pub mod rng;
pub mod scenario;
pub mod scene;
pub mod shell;
pub mod trace;
pub mod world;
