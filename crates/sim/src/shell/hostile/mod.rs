//! Those that mean harm.

mod abuser;
mod flooder;

pub use abuser::Abuser;
pub use flooder::Flooder;

/// The port they send from.
pub const HOSTILE_PORT: u16 = 6666;
