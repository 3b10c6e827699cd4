//! A host whose network has no IPv4: asks the resolver how it is reached (RFC 7050), and has the socket reach it so.

use std::net::IpAddr;
use std::time::Duration;

use byway_core::discovery::{NAT64_HOST, Nat64};
use byway_core::io::LocalSocket;

use super::interfaces::Interfaces;
use super::{Driver, Input};

/// Before the first dial, so that it is not in vain; resolvers take less as a rule.
const FIRST: Duration = Duration::from_millis(300);

/// A network that just came up may have an address before it has a resolver: it is asked again after so long each time.
const AGAIN: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(4),
    Duration::from_secs(16),
];

/// Asks until there is an answer, or until it is too late.
async fn ask() -> Nat64 {
    for wait in AGAIN {
        let found = crate::netcheck::nat64().await;
        if found != Nat64::Unknown {
            return found;
        }
        tokio::time::sleep(wait).await;
    }
    crate::netcheck::nat64().await
}

impl Driver {
    /// True if the host has no way to IPv4 of its own, and has IPv6.
    fn lacks_ipv4(&self) -> bool {
        let sockets = self.interfaces.local_sockets(self.socket.bound());
        let mut addrs = sockets.iter().flat_map(|s| &s.addrs);
        addrs.any(|ip| ip.is_ipv6() && !ip.is_loopback()) && !Interfaces::has_ipv4()
    }

    /// At the start there is nothing to do but to wait for it.
    pub(super) async fn learn_nat64_first(&mut self) {
        if self.lacks_ipv4()
            && let Ok(Nat64::Prefix(prefix)) =
                tokio::time::timeout(FIRST, crate::netcheck::nat64()).await
        {
            self.socket.nat64.set(Some(prefix));
        }
    }

    /// The host's addresses changed: asks how IPv4 is reached now, and forgets it where the host reaches it itself.
    pub(super) fn follow_nat64(&mut self) {
        self.nat64_asked += 1;
        if !self.lacks_ipv4() {
            self.socket.nat64.set(None);
            return;
        }
        let (driver, number) = (self.links.driver.clone(), self.nat64_asked);
        tokio::spawn(async move {
            let found = ask().await;
            // A driver that is gone needs no answer.
            let _ = driver.send(Input::Nat64(number, found)).await;
        });
    }

    /// Where a translator leads to IPv4, the host has an address of it.
    pub(super) fn add_nat64(&self, sockets: &mut [LocalSocket]) {
        if self.socket.nat64.prefix().is_some() {
            for socket in sockets.iter_mut().filter(|s| s.v4) {
                socket.addrs = vec![IpAddr::V4(NAT64_HOST)];
            }
        }
    }

    /// The answer. None at all, asked for long enough, means that the translator of an earlier network is not here.
    pub(super) fn nat64_found(&mut self, asked: u64, found: Nat64) {
        let found = match found {
            Nat64::Prefix(prefix) => Some(prefix),
            _ => None,
        };
        if asked == self.nat64_asked && self.socket.nat64.prefix() != found {
            tracing::debug!(?found, "how IPv4 is reached");
            self.socket.nat64.set(found);
            self.show_sockets();
            self.network_changed("IPv4 is reached in another way");
        }
    }
}
