//! IPv4 where the network has none: addresses behind the network's NAT64 prefix (RFC 6052).
//!
//! All above the sockets speaks of IPv4 addresses: relays named by one, a peer's candidates, STUN servers. On a network of
//! IPv6 alone a datagram to such an address leaves by the IPv6 socket, to the address that stands for it behind the prefix,
//! and what comes from there came from the IPv4 address. So nothing else needs to know.

use std::net::{IpAddr, SocketAddr};

use arc_swap::ArcSwapOption;
use byway_core::discovery::Prefix;
use tokio::sync::watch;

#[derive(Debug, Default)]
pub(crate) struct Nat64 {
    prefix: ArcSwapOption<Prefix>,
    /// The network was asked for it at least once.
    asked: watch::Sender<bool>,
}

impl Nat64 {
    /// The first question was answered, or nobody had to be asked.
    pub(crate) fn set_asked(&self) {
        self.asked.send_replace(true);
    }

    /// Waits until it is known how IPv4 is reached: before, all that is of IPv4 would seem to be dead.
    pub(crate) async fn asked(&self) {
        // The sender is here, and lives as long.
        let _ = self.asked.subscribe().wait_for(|asked| *asked).await;
    }

    /// The prefix of the network as it is now; none where IPv4 is there, or cannot be reached.
    pub(crate) fn set(&self, prefix: Option<Prefix>) {
        self.prefix.store(prefix.map(std::sync::Arc::new));
    }

    /// The prefix that is set.
    pub(crate) fn prefix(&self) -> Option<Prefix> {
        self.prefix.load().as_deref().copied()
    }

    /// Where to send instead.
    pub(crate) fn outside(&self, remote: SocketAddr) -> Option<SocketAddr> {
        let IpAddr::V4(ip) = remote.ip() else {
            return None;
        };
        // The host itself is where it always was.
        let prefix = self.prefix.load();
        let prefix = prefix.as_ref().filter(|_| !ip.is_loopback())?;
        Some(SocketAddr::new(prefix.embed(ip).into(), remote.port()))
    }

    /// Addresses as all above the sockets knows them: a resolver on such a network makes IPv6 addresses of IPv4 ones
    /// (DNS64), which are the same places. Without repetition.
    pub(crate) fn canonical(&self, addrs: Vec<SocketAddr>) -> Vec<SocketAddr> {
        let mut known = Vec::new();
        for addr in addrs {
            let addr = self.inside(addr).unwrap_or(addr);
            if !known.contains(&addr) {
                known.push(addr);
            }
        }
        known
    }

    /// Whom it came from.
    pub(crate) fn inside(&self, from: SocketAddr) -> Option<SocketAddr> {
        let IpAddr::V6(ip) = from.ip() else {
            return None;
        };
        let prefix = self.prefix.load();
        let ip = prefix.as_ref()?.extract(ip)?;
        // Nobody is sent to there, and nothing comes from there but what somebody forged.
        let nobody =
            ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast();
        (!nobody).then(|| SocketAddr::new(ip.into(), from.port()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn ipv4_goes_behind_the_prefix_and_comes_back_and_nothing_else_does() {
        let nat64 = Nat64::default();
        let there = addr("192.0.2.33:443");
        assert_eq!(nat64.outside(there), None);
        nat64.set(Some(Prefix {
            addr: "64:ff9b::".parse().unwrap(),
            len: 96,
        }));
        let outside = addr("[64:ff9b::192.0.2.33]:443");
        assert_eq!(nat64.outside(there), Some(outside));
        assert_eq!(nat64.inside(outside), Some(there));
        assert_eq!(nat64.outside(addr("127.0.0.1:443")), None);
        assert_eq!(nat64.inside(addr("[64:ff9b::127.0.0.1]:443")), None);
        assert_eq!(nat64.outside(addr("[2001:db8::1]:443")), None);
        assert_eq!(nat64.inside(addr("[2001:db8::1]:443")), None);
        nat64.set(None);
        assert_eq!(nat64.inside(outside), None);
    }
}
