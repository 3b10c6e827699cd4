//! Those that mean harm.

mod abuser;
mod flooder;
mod forger;

pub use abuser::Abuser;
pub use flooder::Flooder;
pub use forger::Forger;

/// The port they send from.
pub const HOSTILE_PORT: u16 = 6666;
