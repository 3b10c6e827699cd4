//! IPv4 where the network has none: addresses behind the network's NAT64 prefix (RFC 6052).
//!
//! All above the sockets speaks of IPv4 addresses: relays named by one, a peer's candidates, STUN servers. On a network of
//! IPv6 alone a datagram to such an address leaves by the IPv6 socket, to the address that stands for it behind the prefix,
//! and what comes from there came from the IPv4 address. So nothing else needs to know.

use std::net::SocketAddr;

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
        self.prefix.load().as_ref()?.outside(remote)
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
        self.prefix.load().as_ref()?.inside(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn ipv4_goes_behind_the_prefix_that_is_set_and_comes_back() {
        let nat64 = Nat64::default();
        let there = addr("192.0.2.33:443");
        assert_eq!(nat64.outside(there), None);
        nat64.set(Some(Prefix::WELL_KNOWN));
        let outside = addr("[64:ff9b::192.0.2.33]:443");
        assert_eq!(nat64.outside(there), Some(outside));
        assert_eq!(nat64.inside(outside), Some(there));
        let translated = nat64.canonical(vec![outside, there, addr("[2001:db8::1]:443")]);
        assert_eq!(translated, [there, addr("[2001:db8::1]:443")]);
        nat64.set(None);
        assert_eq!(nat64.outside(there), None);
        assert_eq!(nat64.inside(outside), None);
    }
}
