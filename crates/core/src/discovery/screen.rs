//! Which addresses an answer may name.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::Ignored;

/// Refuses an address that cannot be how `server` sees us. Both addresses are canonical (never v4-mapped v6).
///
/// Private addresses pass: inside one network a server sees them rightly.
pub(super) fn check(server: SocketAddr, mapped: SocketAddr) -> Result<(), Ignored> {
    if server.is_ipv4() != mapped.is_ipv4() {
        return Err(Ignored::WrongFamily);
    }
    let ip = mapped.ip();
    let never = mapped.port() == 0
        || ip.is_unspecified()
        || ip.is_multicast()
        || matches!(ip, IpAddr::V4(ip) if is_never_source(ip));
    // A server on this host, or on this link, sees us at such an address; one elsewhere cannot.
    let elsewhere = (ip.is_loopback() && !server.ip().is_loopback())
        || (is_link_local(ip) && !is_link_local(server.ip()));
    if never || elsewhere {
        return Err(Ignored::AbsurdAddress);
    }
    Ok(())
}

/// True if a request can be sent there.
pub(super) fn is_askable(server: SocketAddr) -> bool {
    let ip = server.ip();
    server.port() != 0
        && !ip.is_unspecified()
        && !ip.is_multicast()
        && !matches!(ip, IpAddr::V4(ip) if is_never_source(ip))
}

/// 0.0.0.0/8 ("this network", RFC 1122) and 240.0.0.0/4 (reserved, with the broadcast address).
fn is_never_source(ip: Ipv4Addr) -> bool {
    let first = ip.octets()[0];
    first == 0 || first >= 240
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(server: &str, mapped: &str) -> Result<(), Ignored> {
        check(server.parse().unwrap(), mapped.parse().unwrap())
    }

    #[test]
    fn addresses_that_can_be_ours_pass() {
        for (server, mapped) in [
            ("198.51.100.1:3478", "203.0.113.7:40000"),
            ("198.51.100.1:3478", "100.64.3.4:1"),
            ("10.0.0.1:3478", "10.0.0.2:40000"),
            ("127.0.0.1:3478", "127.0.0.1:40000"),
            ("169.254.1.1:3478", "169.254.1.2:40000"),
            ("[2001:db8::1]:3478", "[2001:db8::2]:40000"),
            ("[::1]:3478", "[::1]:40000"),
        ] {
            assert_eq!(verdict(server, mapped), Ok(()), "{server} {mapped}");
        }
    }

    #[test]
    fn addresses_that_cannot_be_ours_are_refused() {
        for mapped in [
            "0.0.0.0:40000",
            "0.1.2.3:40000",
            "203.0.113.7:0",
            "127.0.0.1:40000",
            "169.254.1.1:40000",
            "224.0.0.1:40000",
            "240.0.0.1:40000",
            "255.255.255.255:40000",
        ] {
            let verdict = verdict("198.51.100.1:3478", mapped);
            assert_eq!(verdict, Err(Ignored::AbsurdAddress), "{mapped}");
        }
        for mapped in [
            "[::]:40000",
            "[::1]:40000",
            "[ff02::1]:40000",
            "[fe80::1]:40000",
        ] {
            let verdict = verdict("[2001:db8::1]:3478", mapped);
            assert_eq!(verdict, Err(Ignored::AbsurdAddress), "{mapped}");
        }
    }

    #[test]
    fn another_family_than_the_one_asked_over_is_refused() {
        assert_eq!(
            verdict("198.51.100.1:3478", "[2001:db8::2]:40000"),
            Err(Ignored::WrongFamily)
        );
        assert_eq!(
            verdict("[2001:db8::1]:3478", "203.0.113.7:40000"),
            Err(Ignored::WrongFamily)
        );
    }
}
