//! Names to addresses. Those that a ticket kept beside the name are used when the name does not resolve, or not soon:
//! a DNS outage must not stop a reconnection (design section 5).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use byway_core::io::LinkError;
use byway_wire::RelayUrl;

/// How long a name may take while other addresses are at hand.
const PATIENCE: Duration = Duration::from_millis(300);
/// How long a name may take at all.
const DEADLINE: Duration = Duration::from_secs(3);

/// The relay's addresses, best first, families alternating so that a family that leads nowhere costs one attempt.
pub(crate) async fn resolve(
    url: &RelayUrl,
    known: &[SocketAddr],
) -> Result<Vec<SocketAddr>, LinkError> {
    if let Ok(ip) = url.host().parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip.to_canonical(), url.port())]);
    }
    if known.is_empty() {
        return lookup(url.host(), url.port())
            .await
            .map_err(LinkError::Resolve);
    }
    let found = lookup_within(PATIENCE, url.host(), url.port()).await;
    Ok(found.unwrap_or_else(|_| alternate(known.to_vec())))
}

/// The addresses of a name of which none is known, in the same order; or why there are none, with the name.
pub(crate) async fn lookup(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    lookup_within(DEADLINE, host, port).await
}

async fn lookup_within(
    patience: Duration,
    host: &str,
    port: u16,
) -> Result<Vec<SocketAddr>, String> {
    let lookup = tokio::net::lookup_host((host, port));
    let found = match tokio::time::timeout(patience, lookup).await {
        Ok(Ok(found)) => alternate(found.collect()),
        Ok(Err(error)) => return Err(format!("{host}: {error}")),
        Err(_) => return Err(format!("{host}: no answer from DNS")),
    };
    if found.is_empty() {
        return Err(format!("{host}: no address"));
    }
    Ok(found)
}

/// Alternates families, beginning with IPv6 (RFC 8305 section 4), without repetition.
fn alternate(addrs: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let mut families: [Vec<SocketAddr>; 2] = Default::default();
    for addr in addrs {
        let family = &mut families[usize::from(addr.is_ipv4())];
        if !family.contains(&addr) {
            family.push(addr);
        }
    }
    let [v6, v4] = families;
    let mut v4 = v4.into_iter();
    let mut out = Vec::new();
    for addr in v6 {
        out.push(addr);
        out.extend(v4.next());
    }
    out.extend(v4);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addrs(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|addr| addr.parse().unwrap()).collect()
    }

    #[test]
    fn families_alternate_without_repetition() {
        let given = addrs(&[
            "192.0.2.1:1",
            "192.0.2.2:1",
            "192.0.2.1:1",
            "[2001:db8::1]:1",
        ]);
        assert_eq!(
            alternate(given),
            addrs(&["[2001:db8::1]:1", "192.0.2.1:1", "192.0.2.2:1"])
        );
    }

    #[tokio::test]
    async fn an_address_needs_no_resolver() {
        let url = RelayUrl::new("::1", 7, None).unwrap();
        assert_eq!(resolve(&url, &[]).await.unwrap(), addrs(&["[::1]:7"]));
    }

    #[tokio::test]
    async fn known_addresses_stand_in_for_a_name_that_does_not_resolve() {
        let url = RelayUrl::new("relay.invalid", 443, None).unwrap();
        let known = addrs(&["192.0.2.1:443"]);
        assert_eq!(resolve(&url, &known).await.unwrap(), known);
        assert!(matches!(
            resolve(&url, &[]).await,
            Err(LinkError::Resolve(_))
        ));
    }
}
