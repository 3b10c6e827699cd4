//! The prefix by which a network without IPv4 reaches it: what a resolver makes of `ipv4only.arpa` (RFC 7050).
//!
//! That name has the two addresses 192.0.0.170 and 192.0.0.171 and none of IPv6. A resolver that gives one of IPv6 has put
//! them behind the network's prefix, at one of the places of RFC 6052 section 2.2.
//!
//! Where to send to, and whom something came from, is rewritten with it at the sockets; nothing above them needs to know.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The name to look up.
pub const IPV4_ONLY: &str = "ipv4only.arpa";

/// What a host without IPv4 calls itself in IPv4 (RFC 7335). Nobody is told of it.
pub const NAT64_HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 1);

/// The byte between bits 64 and 71, which stays zero.
const FREE: usize = 8;

/// Most answers that are looked at: a resolver gives two for each prefix.
const MAX_ANSWERS: usize = 32;

/// What is known of NAT64.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Nat64 {
    /// Not asked, or no resolver answered.
    #[default]
    Unknown,
    /// The resolver makes no IPv6 addresses of IPv4 ones.
    Absent,
    /// It puts them behind this prefix.
    Prefix(Prefix),
}

/// A prefix of RFC 6052.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Prefix {
    /// Its bits; those behind its length are zero.
    pub addr: Ipv6Addr,
    /// Its length in bits: 32, 40, 48, 56, 64 or 96.
    pub len: u8,
}

impl Prefix {
    /// The one that any network may use for its translator (RFC 6052 section 2.1).
    pub const WELL_KNOWN: Self = Self {
        addr: Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0),
        len: 96,
    };

    /// Where to send what goes to this address; none if it goes there as it is: to IPv6, or to the host itself.
    pub fn outside(&self, to: SocketAddr) -> Option<SocketAddr> {
        match to.ip() {
            IpAddr::V4(ip) if !ip.is_loopback() => {
                Some(SocketAddr::new(self.embed(ip).into(), to.port()))
            }
            _ => None,
        }
    }

    /// Whom it came from, in IPv4; none if it came from IPv6 itself, or from what nobody is sent to and nothing comes from but
    /// what somebody forged.
    pub fn inside(&self, from: SocketAddr) -> Option<SocketAddr> {
        let IpAddr::V6(ip) = from.ip() else {
            return None;
        };
        let ip = self.extract(ip)?;
        let nobody =
            ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast();
        (!nobody).then(|| SocketAddr::new(ip.into(), from.port()))
    }

    /// The IPv6 address by which the network reaches an IPv4 one (RFC 6052 section 2.2).
    pub fn embed(&self, ip: Ipv4Addr) -> Ipv6Addr {
        let mut bytes = self.addr.octets();
        let places = places(self.len);
        for (at, byte) in places.zip(ip.octets()) {
            bytes[at] = byte;
        }
        bytes.into()
    }

    /// The IPv4 address that one of these stands for; none if it is not behind this prefix.
    pub fn extract(&self, ip: Ipv6Addr) -> Option<Ipv4Addr> {
        let ipv4 = Ipv4Addr::from(embedded(&ip.octets(), self.len)?);
        (self.embed(ipv4) == ip).then_some(ipv4)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

impl Nat64 {
    /// What the answers for [`IPV4_ONLY`] show, those of both families. Without its IPv4 addresses among them they are not
    /// the name's, and nothing follows from what is absent.
    pub fn from_answers(answers: impl IntoIterator<Item = IpAddr>) -> Self {
        let mut genuine = false;
        let mut prefix = None;
        let mut other = false;
        for answer in answers.into_iter().take(MAX_ANSWERS) {
            match answer {
                IpAddr::V4(ip) => genuine |= is_well_known(ip.octets()),
                IpAddr::V6(ip) => match prefix_of(ip) {
                    Some(found) => prefix = prefix.or(Some(found)),
                    None => other = true,
                },
            }
        }
        match prefix {
            Some(prefix) => Self::Prefix(prefix),
            None if genuine && !other => Self::Absent,
            None => Self::Unknown,
        }
    }
}

fn is_well_known([a, b, c, d]: [u8; 4]) -> bool {
    (a, b, c) == (192, 0, 0) && (d == 170 || d == 171)
}

/// RFC 7050 section 3: the prefix is what is before a well-known address, which must be there once; the longest first, for
/// it is what nearly everyone uses. Bits 64 to 71 are zero (RFC 6052 section 2.2).
fn prefix_of(answer: Ipv6Addr) -> Option<Prefix> {
    let bytes = answer.octets();
    let mut found = [96u8, 64, 56, 48, 40, 32]
        .into_iter()
        .filter(|len| embedded(&bytes, *len).is_some_and(is_well_known));
    let len = found.next()?;
    if found.next().is_some() {
        return None;
    }
    let mut prefix = [0; 16];
    let whole = usize::from(len / 8);
    prefix[..whole].copy_from_slice(&bytes[..whole]);
    Some(Prefix {
        addr: prefix.into(),
        len,
    })
}

/// The IPv4 address behind a prefix of this length, in an address that keeps the byte between bits 64 and 71 free.
fn embedded(bytes: &[u8; 16], len: u8) -> Option<[u8; 4]> {
    if bytes[FREE] != 0 {
        return None;
    }
    let mut rest = places(len).map(|at| bytes[at]);
    Some([rest.next()?, rest.next()?, rest.next()?, rest.next()?])
}

/// Where the bytes of an IPv4 address are behind a prefix of this length, and what follows them.
fn places(len: u8) -> impl Iterator<Item = usize> {
    (usize::from(len / 8)..16).filter(|at| *at != FREE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answers(list: &[&str]) -> Nat64 {
        Nat64::from_answers(list.iter().map(|ip| ip.parse().unwrap()))
    }

    fn prefix(addr: &str, len: u8) -> Nat64 {
        Nat64::Prefix(Prefix {
            addr: addr.parse().unwrap(),
            len,
        })
    }

    #[test]
    fn every_length_of_rfc_6052_is_recognised() {
        // RFC 6052 section 2.4, with 192.0.0.170 in the place of its example's address.
        for (answer, addr, len) in [
            ("2001:db8:c000:aa::", "2001:db8::", 32),
            ("2001:db8:1c0:0:aa::", "2001:db8:100::", 40),
            ("2001:db8:122:c000:0:aa00::", "2001:db8:122::", 48),
            ("2001:db8:122:3c0:0:aa::", "2001:db8:122:300::", 56),
            ("2001:db8:122:344:c0:0:aa00::", "2001:db8:122:344::", 64),
            ("2001:db8:122:344::c000:aa", "2001:db8:122:344::", 96),
            ("64:ff9b::192.0.0.170", "64:ff9b::", 96),
            ("64:ff9b::192.0.0.171", "64:ff9b::", 96),
        ] {
            assert_eq!(answers(&[answer]), prefix(addr, len), "{answer}");
        }
    }

    #[test]
    fn the_names_own_addresses_alone_show_that_there_is_none() {
        assert_eq!(answers(&["192.0.0.170", "192.0.0.171"]), Nat64::Absent);
    }

    #[test]
    fn answers_that_are_not_the_names_show_nothing() {
        assert_eq!(answers(&[]), Nat64::Unknown);
        // A portal's resolver gives its own address for every name.
        assert_eq!(answers(&["10.0.0.1"]), Nat64::Unknown);
        assert_eq!(answers(&["10.0.0.1", "2001:db8::1"]), Nat64::Unknown);
        assert_eq!(answers(&["192.0.0.170", "2001:db8::1"]), Nat64::Unknown);
    }

    #[test]
    fn an_address_that_fits_two_lengths_is_nobodys_prefix() {
        assert_eq!(answers(&["2001:db8:c000:aa::c000:aa"]), Nat64::Unknown);
    }

    #[test]
    fn an_address_goes_behind_every_prefix_and_comes_back() {
        // The example of RFC 6052 section 2.4.
        for (addr, len, expected) in [
            ("2001:db8::", 32, "2001:db8:c000:221::"),
            ("2001:db8:100::", 40, "2001:db8:1c0:2:21::"),
            ("2001:db8:122::", 48, "2001:db8:122:c000:2:2100::"),
            ("2001:db8:122:300::", 56, "2001:db8:122:3c0:0:221::"),
            ("2001:db8:122:344::", 64, "2001:db8:122:344:c0:2:2100::"),
            ("2001:db8:122:344::", 96, "2001:db8:122:344::c000:221"),
            ("64:ff9b::", 96, "64:ff9b::c000:221"),
        ] {
            let Nat64::Prefix(prefix) = prefix(addr, len) else {
                panic!("a prefix");
            };
            let ip = Ipv4Addr::new(192, 0, 2, 33);
            let embedded = prefix.embed(ip);
            assert_eq!(embedded, expected.parse::<Ipv6Addr>().unwrap());
            assert_eq!(prefix.extract(embedded), Some(ip));
            for stranger in ["2001:db8::1", "64:ff9b:1::c000:221", "::1"] {
                assert_eq!(
                    prefix.extract(stranger.parse().unwrap()),
                    None,
                    "{addr} {stranger}"
                );
            }
        }
    }

    #[test]
    fn ipv4_goes_behind_the_prefix_and_comes_back_and_nothing_else_does() {
        let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
        let prefix = Prefix::WELL_KNOWN;
        let (there, outside) = (addr("192.0.2.33:443"), addr("[64:ff9b::192.0.2.33]:443"));
        assert_eq!(prefix.outside(there), Some(outside));
        assert_eq!(prefix.inside(outside), Some(there));
        for as_it_is in ["127.0.0.1:443", "[2001:db8::1]:443"] {
            assert_eq!(prefix.outside(addr(as_it_is)), None, "{as_it_is}");
        }
        for nobody in ["127.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255"] {
            let from = addr(&format!("[64:ff9b::{nobody}]:443"));
            assert_eq!(prefix.inside(from), None, "{nobody}");
        }
        for from in ["192.0.2.33:443", "[2001:db8::1]:443"] {
            assert_eq!(prefix.inside(addr(from)), None, "{from}");
        }
    }

    #[test]
    fn a_prefix_is_shown_as_one() {
        let Nat64::Prefix(prefix) = answers(&["64:ff9b::192.0.0.170"]) else {
            panic!("a prefix");
        };
        assert_eq!(prefix.to_string(), "64:ff9b::/96");
    }

    proptest! {
        #[test]
        fn any_answers_are_harmless(list in proptest::collection::vec(any::<IpAddr>(), 0..50)) {
            let _ = Nat64::from_answers(list);
        }
    }
}
