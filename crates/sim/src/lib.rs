//! wip
pub mod model;
pub mod net;
pub mod quic;
pub mod rng;
pub mod scenario;
pub mod scene;
pub mod shell;
pub mod trace;
pub mod world;
