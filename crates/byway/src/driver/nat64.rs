//! A host whose network has no IPv4: asks the resolver how it is reached (RFC 7050), and has the socket reach it so.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use byway_core::discovery::Nat64;
use byway_core::io::LocalSocket;

use super::{Driver, Input};

/// Before the first dial, so that it is not in vain; resolvers take less as a rule.
const FIRST: Duration = Duration::from_millis(300);

/// What a host without IPv4 calls itself in IPv4 (RFC 7335). Nobody is told of it.
const OWN: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 1);

/// True if the host has no IPv4 but for itself, and has IPv6.
fn lacks_ipv4(sockets: &[LocalSocket]) -> bool {
    let outside = |v4: bool| {
        let addrs = sockets.iter().flat_map(|s| &s.addrs);
        addrs
            .filter(|ip| ip.is_ipv4() == v4 && !ip.is_loopback())
            .count()
    };
    outside(true) == 0 && outside(false) > 0
}

impl Driver {
    /// At the start there is nothing to do but to wait for it.
    pub(super) async fn learn_nat64_first(&mut self) {
        if !lacks_ipv4(&self.interfaces.local_sockets(self.socket.bound())) {
            return;
        }
        if let Ok(found) = tokio::time::timeout(FIRST, crate::netcheck::nat64()).await {
            self.nat64_found(found);
        }
    }

    /// The sockets as they are now: with an address of IPv4 where a translator leads to it. Asks whether one does, and forgets it
    /// where the host has IPv4 itself.
    pub(super) fn follow_nat64(&mut self, sockets: &mut [LocalSocket]) {
        if !lacks_ipv4(sockets) {
            self.socket.nat64.set(None);
            return;
        }
        if self.socket.nat64.prefix().is_some() {
            for socket in sockets.iter_mut().filter(|s| s.v4) {
                socket.addrs = vec![IpAddr::V4(OWN)];
            }
        }
        // Another network may have another prefix.
        let driver = self.links.driver.clone();
        tokio::spawn(async move {
            let found = crate::netcheck::nat64().await;
            // A driver that is gone needs no answer.
            let _ = driver.send(Input::Nat64(found)).await;
        });
    }

    pub(super) fn nat64_found(&mut self, found: Nat64) {
        let found = match found {
            Nat64::Prefix(prefix) => Some(prefix),
            Nat64::Absent => None,
            // A resolver that did not answer is no reason to forget.
            _ => return,
        };
        let still = lacks_ipv4(&self.interfaces.local_sockets(self.socket.bound()));
        if still && self.socket.nat64.prefix() != found {
            tracing::debug!(?found, "how IPv4 is reached");
            self.socket.nat64.set(found);
            self.sockets_changed();
            self.network_changed("IPv4 is reached in another way");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use byway_core::io::SocketId;

    fn socket(id: u16, addrs: &[&str]) -> LocalSocket {
        LocalSocket {
            id: SocketId(id),
            port: 5000,
            v4: id == 0,
            v6: id == 1,
            addrs: addrs.iter().map(|ip| ip.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn a_host_lacks_ipv4_where_it_has_ipv6_alone() {
        let host = |v4: &[&str], v6: &[&str]| lacks_ipv4(&[socket(0, v4), socket(1, v6)]);
        assert!(host(&["127.0.0.1"], &["2001:db8::2"]));
        assert!(host(&[], &["2001:db8::2"]));
        assert!(!host(&["10.0.0.2"], &["2001:db8::2"]));
        assert!(!host(&["127.0.0.1"], &["::1"]), "offline");
    }
}
