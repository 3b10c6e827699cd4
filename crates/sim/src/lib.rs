//! wip
pub mod net;
pub mod rng;
pub mod trace;
