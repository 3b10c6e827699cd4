//! Between a node and a relay (design section 7).

pub mod control;
mod convert;
pub mod cookie;
pub mod data;
pub mod egress;
pub mod frame;
mod proto;
mod url;

pub use data::ChannelId;
pub use url::{HTTPS_PORT, Pin, RelayUrl, RelayUrlError, STUN_PORT};
