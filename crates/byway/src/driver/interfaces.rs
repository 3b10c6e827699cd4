//! The host's addresses, and their changes as the system reports them (netlink on Linux). Nothing is polled: an idle
//! node does not wake up to look.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::{Context, Poll, Waker};

use byway_core::io::{LocalSocket, SocketId};
use if_watch::IfEvent;
use if_watch::tokio::IfWatcher;

#[derive(Debug)]
pub(super) struct Interfaces {
    watcher: Option<IfWatcher>,
    addrs: BTreeSet<IpAddr>,
}

impl Interfaces {
    pub(super) fn new() -> Self {
        let mut interfaces = match IfWatcher::new() {
            Ok(watcher) => Self {
                watcher: Some(watcher),
                addrs: BTreeSet::new(),
            },
            Err(error) => {
                tracing::warn!(%error, "cannot watch the interfaces; address changes will go unnoticed");
                Self {
                    watcher: None,
                    addrs: BTreeSet::new(),
                }
            }
        };
        if interfaces.watcher.is_none() {
            interfaces.addrs = preferred_sources().collect();
        }
        interfaces
    }

    /// Waits for a change; for ever if changes cannot be seen. True if an address came or went by which others may be reached.
    pub(super) async fn changed(&mut self) -> bool {
        let Some(watcher) = &mut self.watcher else {
            return std::future::pending().await;
        };
        let first = std::future::poll_fn(|cx| watcher.poll_if_event(cx)).await;
        let Some(mut news) = note(&mut self.addrs, first) else {
            self.give_up();
            return true;
        };
        // The start, and every change of network, bring several at once: take them together.
        let mut cx = Context::from_waker(Waker::noop());
        while let Some(watcher) = &mut self.watcher {
            match watcher.poll_if_event(&mut cx) {
                Poll::Ready(event) => match note(&mut self.addrs, event) {
                    Some(more) => news |= more,
                    None => self.give_up(),
                },
                Poll::Pending => break,
            }
        }
        news
    }

    /// True if the host can send to IPv4 addresses elsewhere. A container's bridge is an address, and leads nowhere.
    pub(super) fn has_ipv4() -> bool {
        preferred_sources().any(|ip| ip.is_ipv4())
    }

    fn give_up(&mut self) {
        tracing::warn!("the interface watch ended; address changes will go unnoticed");
        self.watcher = None;
        self.addrs.extend(preferred_sources());
    }

    /// The sockets with the addresses at which the host reaches them.
    pub(super) fn local_sockets(
        &self,
        bound: impl Iterator<Item = (SocketId, SocketAddr)>,
    ) -> Vec<LocalSocket> {
        bound
            .map(|(id, addr)| LocalSocket {
                id,
                port: addr.port(),
                v4: addr.is_ipv4(),
                v6: addr.is_ipv6(),
                addrs: reachable(addr.ip(), &self.addrs),
            })
            .collect()
    }
}

/// Whether others may be reached by the address that came or went; none if the watch failed. An address that goes and comes
/// back is news as well: it may be in another network.
fn note(addrs: &mut BTreeSet<IpAddr>, event: std::io::Result<IfEvent>) -> Option<bool> {
    let ip = match event {
        Ok(IfEvent::Up(net)) => {
            let ip = net.addr().to_canonical();
            addrs.insert(ip);
            ip
        }
        Ok(IfEvent::Down(net)) => {
            let ip = net.addr().to_canonical();
            addrs.remove(&ip);
            ip
        }
        Err(_) => return None,
    };
    Some(usable(ip) && !ip.is_loopback())
}

/// The addresses of the host that lead to a socket bound to `bound`. Loopback counts only where the socket is bound to
/// it, or where the host has nothing else: a peer on another host would probe itself.
fn reachable(bound: IpAddr, host: &BTreeSet<IpAddr>) -> Vec<IpAddr> {
    if !bound.is_unspecified() {
        return vec![bound];
    }
    let family = host
        .iter()
        .copied()
        .filter(|ip| ip.is_ipv4() == bound.is_ipv4() && usable(*ip));
    let (loopback, rest): (Vec<IpAddr>, Vec<IpAddr>) = family.partition(IpAddr::is_loopback);
    if rest.is_empty() { loopback } else { rest }
}

/// Link-local addresses mean nothing without an interface, which another host cannot name.
fn usable(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            !ip.is_unspecified() && !ip.is_link_local() && !ip.is_multicast() && !ip.is_broadcast()
        }
        IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_unicast_link_local() && !ip.is_multicast(),
    }
}

/// The addresses from which the system would send, as far as that can be asked without sending: connecting a UDP socket
/// to a documentation address (RFC 5737, RFC 3849).
fn preferred_sources() -> impl Iterator<Item = IpAddr> {
    let questions: [(SocketAddr, SocketAddr); 2] = [
        (
            (Ipv4Addr::UNSPECIFIED, 0).into(),
            (Ipv4Addr::new(192, 0, 2, 1), 9).into(),
        ),
        (
            (Ipv6Addr::UNSPECIFIED, 0).into(),
            (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 9).into(),
        ),
    ];
    questions.into_iter().filter_map(|(from, to)| {
        let socket = std::net::UdpSocket::bind(from).ok()?;
        socket.connect(to).ok()?;
        Some(socket.local_addr().ok()?.ip().to_canonical())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(list: &[&str]) -> BTreeSet<IpAddr> {
        list.iter().map(|ip| ip.parse().unwrap()).collect()
    }
    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_socket_on_any_address_has_those_of_its_family_without_loopback() {
        let host = host(&[
            "127.0.0.1",
            "10.0.0.2",
            "169.254.1.1",
            "::1",
            "fe80::1",
            "2001:db8::2",
        ]);
        assert_eq!(reachable(ip("0.0.0.0"), &host), [ip("10.0.0.2")]);
        assert_eq!(reachable(ip("::"), &host), [ip("2001:db8::2")]);
    }

    #[test]
    fn loopback_serves_a_host_that_has_nothing_else() {
        assert_eq!(
            reachable(ip("0.0.0.0"), &host(&["127.0.0.1"])),
            [ip("127.0.0.1")]
        );
    }

    #[test]
    fn a_bound_address_is_the_only_one() {
        let host = host(&["127.0.0.1", "10.0.0.2"]);
        assert_eq!(reachable(ip("127.0.0.1"), &host), [ip("127.0.0.1")]);
    }
}
