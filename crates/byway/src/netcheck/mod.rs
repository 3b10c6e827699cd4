//! What a network does that the data socket alone does not see: small experiments, each with sockets of its own, each over
//! in a few seconds. What they mean is judged in `byway_core::discovery`; [`Endpoint::netcheck`](crate::Endpoint::netcheck)
//! puts them together.

mod answer;
mod filtering;
mod nat64;
mod quic;
mod tls;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use byway_core::discovery::{Reach, RelayRow};
use byway_wire::RelayUrl;
use byway_wire::relay::Pin;

use crate::proxy::Proxies;
use crate::socket::Nat64;
use quic::QuicLook;

pub(crate) use filtering::filtering;
pub(crate) use nat64::nat64;

/// Most addresses of one relay that are tried at once.
const MAX_ADDRS: usize = 4;

/// What was found out about one relay.
#[derive(Debug)]
pub(crate) struct RelayLook {
    pub(crate) row: RelayRow,
    /// What answered in its place, in words, if that is a page to log in at. `Some(None)`: the relay itself answered.
    pub(crate) portal: Option<Option<String>>,
    /// It is on this host: nothing follows about the network.
    pub(crate) here: bool,
}

/// Connects to a relay by both carriers, over TLS through the proxy that applies to it, and looks at what is there. Nothing is
/// said to it that admits anybody.
pub(crate) async fn relay(url: RelayUrl, proxies: &Proxies, nat64: &Nat64) -> RelayLook {
    let mut look = RelayLook {
        row: RelayRow::new(url.clone()),
        portal: None,
        here: false,
    };
    let proxy = proxies.before(&url);
    let addrs = match crate::links::resolve(&url, &[]).await {
        Ok(addrs) => addrs,
        // Behind a proxy names outside often do not resolve, and need not.
        Err(_) if proxy.is_some() => Vec::new(),
        // That it does not is said elsewhere, and leaves everything unknown.
        Err(_) => return look,
    };
    let addrs = nat64.canonical(addrs);
    look.here = !addrs.is_empty() && addrs.iter().all(|addr| addr.ip().is_loopback());
    let over_udp = async {
        match addrs.as_slice() {
            [] => QuicLook::from(Reach::Unknown),
            addrs => {
                let outside = |&addr| nat64.outside(addr).unwrap_or(addr);
                let addrs: Vec<SocketAddr> = addrs.iter().map(outside).collect();
                quic::look(&url, &addrs).await
            }
        }
    };
    let over_tls = tls::look(&url, &addrs, proxy, nat64);
    let (over_udp, over_tls) = tokio::join!(over_udp, over_tls);
    let inside = |(ip, key)| {
        let addr = SocketAddr::new(ip, 0);
        (nat64.inside(addr).unwrap_or(addr).ip(), key)
    };
    let keys: Vec<(IpAddr, Pin)> = over_udp.keys.into_iter().map(inside).collect();
    // Behind a proxy nobody sees whom it chose. With one address it had no choice.
    let only = addrs.first().map(SocketAddr::ip);
    let only = only.filter(|only| addrs.iter().all(|addr| addr.ip() == *only));
    let to = over_tls.to.or(only);
    look.row.tls_intercepted = over_tls.key.and_then(|key| intercepted(&keys, to, key));
    (look.row.udp, look.row.udp_ms) = (over_udp.reach, over_udp.ms);
    (look.row.tls, look.row.tls_ms) = (over_tls.reach, over_tls.ms);
    look.portal = over_tls.portal;
    look
}

/// True if TLS showed another key than QUIC at the same address. Under one name several relays may stand, each with a key of its
/// own, so another key elsewhere says nothing. The same key says that it is the relay's, wherever it was shown.
fn intercepted(by_quic: &[(IpAddr, Pin)], to: Option<IpAddr>, by_tls: Pin) -> Option<bool> {
    if by_quic.iter().any(|(_, key)| *key == by_tls) {
        return Some(false);
    }
    by_quic
        .iter()
        .any(|(ip, _)| Some(*ip) == to)
        .then_some(true)
}

fn millis(took: Duration) -> f64 {
    took.as_secs_f64() * 1e3
}

fn unspecified(like: SocketAddr) -> SocketAddr {
    if like.is_ipv4() {
        (std::net::Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
    }
}

#[cfg(test)]
mod tests;
