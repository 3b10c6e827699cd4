//! What kinds of address there are.

use std::net::IpAddr;

/// Private, shared (RFC 6598), unique local, link-local and loopback addresses.
pub(crate) fn is_inside(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            v4.is_private() || v4.is_loopback() || v4.is_link_local() || is_shared(ip)
        }
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

/// 100.64.0.0/10, which carriers use between their NAT and their customers (RFC 6598).
pub(crate) fn is_shared(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            a == 100 && b & 0xc0 == 64
        }
        IpAddr::V6(_) => false,
    }
}
