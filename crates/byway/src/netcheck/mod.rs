//! What a network does that the data socket alone does not see: small experiments, each with sockets of its own, each over
//! in a few seconds. What they mean is judged in `byway_core::discovery`; [`Endpoint::netcheck`](crate::Endpoint::netcheck)
//! puts them together.

mod answer;
mod filtering;
mod nat64;
mod quic;
mod tls;

use std::net::SocketAddr;
use std::time::Duration;

use byway_core::discovery::{Reach, RelayRow};
use byway_wire::RelayUrl;

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
    let keys = over_udp.key.zip(over_tls.key);
    look.row.tls_intercepted = keys.map(|(udp, tls)| udp != tls);
    (look.row.udp, look.row.udp_ms) = (over_udp.reach, over_udp.ms);
    (look.row.tls, look.row.tls_ms) = (over_tls.reach, over_tls.ms);
    look.portal = over_tls.portal;
    look
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
