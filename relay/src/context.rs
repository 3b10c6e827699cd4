//! What every listener and link shares.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::hub::Hub;
use crate::limit::PrefixLimiter;
use crate::plane::Plane;
use crate::stats::Counters;

#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) hub: Arc<Hub>,
    pub(crate) plane: Arc<Plane>,
    /// Of everything outside the UDP shards.
    pub(crate) counters: Arc<Counters>,
    /// New connections by host (design section 12).
    pub(crate) connections: PrefixLimiter,
    /// The relay's name and region, for the challenge.
    pub(crate) name: String,
    pub(crate) region: String,
    /// Refuse TLS links whose TLS does not end here.
    pub(crate) require_channel_binding: bool,
}

impl Context {
    /// True if a host may begin another connection. This machine's own programs are not limited.
    pub(crate) fn may_connect(&self, ip: IpAddr) -> bool {
        ip.is_loopback() || self.connections.take(Instant::now(), ip)
    }
}
