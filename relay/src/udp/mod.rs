//! The UDP side: shards that receive, decide and forward, and the socket the QUIC control endpoint believes in.

pub(crate) mod control;
pub(crate) mod portion;
pub(crate) mod runs;
pub(crate) mod shard;
pub(crate) mod shares;
pub(crate) mod socket;
pub(crate) mod stun;
pub(crate) mod trains;
mod vectored;
