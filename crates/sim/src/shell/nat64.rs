//! IPv4 where a host has none: addresses behind the network's prefix, by the rules of `byway`'s `socket/nat64.rs` and
//! `driver/nat64.rs`. The resolver answers at once here, and is asked anew each time.

use std::net::SocketAddr;

use crate::net::{HostId, Network};

/// Where to send what goes to this address.
pub(crate) fn outside(net: &Network, host: HostId, remote: SocketAddr) -> SocketAddr {
    let translated = net.nat64(host).and_then(|prefix| prefix.outside(remote));
    translated.unwrap_or(remote)
}

/// Whom what comes from this address came from.
pub(crate) fn inside(net: &Network, host: HostId, from: SocketAddr) -> SocketAddr {
    let translated = net.nat64(host).and_then(|prefix| prefix.inside(from));
    translated.unwrap_or(from)
}
