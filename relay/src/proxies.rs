//! Which proxies are trusted, and whom they speak for.
//!
//! Behind an ingress every connection comes from the ingress. What it says of its client, in `X-Forwarded-For`, is
//! believed as far as trusted proxies wrote it: each appends the address that it saw, so the list is read from its end,
//! and the first address that is no trusted proxy's is the client's. All before it the client may have made up.

use std::net::{IpAddr, SocketAddr};

use byway_wire::canonical;
use ipnet::IpNet;

/// The networks of trusted proxies.
#[derive(Debug, Default)]
pub(crate) struct Proxies(Vec<IpNet>);

impl Proxies {
    pub(crate) fn new(nets: Vec<IpNet>) -> Self {
        Self(nets)
    }
    /// `ip` in its canonical form.
    pub(crate) fn trusts(&self, ip: IpAddr) -> bool {
        self.0.iter().any(|net| net.contains(&ip))
    }

    /// The client of a connection that came from `peer` with these values of `X-Forwarded-For`, in their order. Port 0
    /// where the proxy does not tell the port. Where the list makes no sense, the last proxy that did is all that is known.
    pub(crate) fn client<'a>(
        &self,
        peer: SocketAddr,
        values: impl DoubleEndedIterator<Item = &'a [u8]>,
    ) -> SocketAddr {
        let mut known = peer;
        let hops = values
            .rev()
            .flat_map(|value| value.rsplit(|&byte| byte == b','));
        // RFC 9110 section 5.6.1: empty elements count for nothing.
        for hop in hops.map(<[u8]>::trim_ascii).filter(|hop| !hop.is_empty()) {
            if !self.trusts(known.ip()) {
                break;
            }
            match parse(hop) {
                Some(addr) if self.trusts(addr.ip()) || is_somebody(addr.ip()) => known = addr,
                _ => break,
            }
        }
        known
    }
}

/// An address as proxies write it: alone, or with a port; IPv6 also in brackets.
fn parse(hop: &[u8]) -> Option<SocketAddr> {
    let text = std::str::from_utf8(hop).ok()?;
    let alone = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    let addr = match alone.parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, 0),
        Err(_) => text.parse().ok()?,
    };
    Some(canonical(addr))
}

/// False for what cannot be another machine's: a proxy's own loopback would be taken for ours.
fn is_somebody(ip: IpAddr) -> bool {
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    !(ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || broadcast)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies() -> Proxies {
        let nets = ["10.0.0.0/8", "2001:db8:aaaa::/48", "192.0.2.7/32"];
        Proxies::new(nets.map(|net| net.parse().unwrap()).to_vec())
    }
    fn client(peer: &str, values: &[&str]) -> String {
        let values = values.iter().map(|value| value.as_bytes());
        let peer = peer.parse().unwrap();
        proxies().client(peer, values).to_string()
    }

    #[test]
    fn the_rightmost_address_that_is_no_proxys_is_the_client() {
        let peer = "10.0.0.1:5000";
        for (values, expected) in [
            (&["203.0.113.9"][..], "203.0.113.9:0"),
            // What the client made up stands on the left.
            (&["198.51.100.1, 203.0.113.9"], "203.0.113.9:0"),
            (
                &["198.51.100.1,203.0.113.9 ,\t10.9.9.9,192.0.2.7"],
                "203.0.113.9:0",
            ),
            // Several headers are one list.
            (
                &["198.51.100.1", "203.0.113.9", "10.9.9.9"],
                "203.0.113.9:0",
            ),
            (&["198.51.100.1", "203.0.113.9, 10.9.9.9"], "203.0.113.9:0"),
            (&["203.0.113.9, , ", ""], "203.0.113.9:0"),
            // All are proxies: the farthest.
            (&["10.1.1.1, 10.9.9.9"], "10.1.1.1:0"),
        ] {
            assert_eq!(client(peer, values), expected, "{values:?}");
        }
    }

    #[test]
    fn addresses_are_read_in_every_common_form() {
        for (value, expected) in [
            ("203.0.113.9:4711", "203.0.113.9:4711"),
            ("2001:db8::9", "[2001:db8::9]:0"),
            ("[2001:db8::9]", "[2001:db8::9]:0"),
            ("[2001:db8::9]:4711", "[2001:db8::9]:4711"),
            ("::ffff:203.0.113.9", "203.0.113.9:0"),
            ("203.0.113.9, 2001:db8:aaaa::1", "203.0.113.9:0"),
            // A mapped address of a trusted proxy is that proxy.
            ("203.0.113.9, ::ffff:10.2.2.2", "203.0.113.9:0"),
        ] {
            assert_eq!(client("10.0.0.1:5000", &[value]), expected, "{value}");
        }
    }

    #[test]
    fn nobody_else_is_believed() {
        for peer in ["203.0.113.1:5000", "127.0.0.1:5000", "[2001:db8:bbbb::1]:5"] {
            assert_eq!(client(peer, &["198.51.100.1"]), peer);
            assert_eq!(client(peer, &["198.51.100.1, 10.0.0.1"]), peer);
        }
    }

    #[test]
    fn junk_ends_what_is_known() {
        let peer = "10.0.0.1:5000";
        for junk in [
            "",
            "unknown",
            "_hidden",
            "203.0.113.999",
            "203.0.113.9:99999",
            "203.0.113.9:",
            "[203.0.113.9",
            "fe80::1%eth0",
            "203.0.113.9; drop",
            "\u{ff}\u{fe}",
            "127.0.0.1",
            "::1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
        ] {
            assert_eq!(client(peer, &[junk]), peer, "{junk}");
            let value = format!("198.51.100.1, {junk}, 10.5.5.5");
            let expected = if junk.is_empty() {
                "198.51.100.1:0"
            } else {
                "10.5.5.5:0"
            };
            assert_eq!(client(peer, &[&value]), expected, "{junk}");
        }
        assert_eq!(client(peer, &[]), peer);
        let long = "9".repeat(100_000);
        assert_eq!(client(peer, &[&long]), peer);
    }
}
