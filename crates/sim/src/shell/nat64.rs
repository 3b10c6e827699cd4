//! IPv4 where a host has none: addresses behind the network's prefix, by the rules of `byway`'s `socket/nat64.rs` and
//! `driver/nat64.rs`. The resolver answers at once here, and is asked anew each time.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::net::{HostId, Network};

/// What a host without IPv4 calls itself in IPv4 (`OWN` in `driver/nat64.rs`).
pub(crate) const OWN: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 0, 1));

/// Where to send what goes to this address.
pub(crate) fn outside(net: &Network, host: HostId, remote: SocketAddr) -> SocketAddr {
    match (net.nat64(host), remote.ip()) {
        (Some(prefix), IpAddr::V4(ip)) => SocketAddr::new(prefix.embed(ip).into(), remote.port()),
        _ => remote,
    }
}

/// Whom what comes from this address came from.
pub(crate) fn inside(net: &Network, host: HostId, from: SocketAddr) -> SocketAddr {
    let ipv4 = match (net.nat64(host), from.ip()) {
        (Some(prefix), IpAddr::V6(ip)) => prefix.extract(ip),
        _ => None,
    };
    ipv4.map_or(from, |ip| SocketAddr::new(ip.into(), from.port()))
}
