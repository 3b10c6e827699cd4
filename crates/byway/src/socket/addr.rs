//! Virtual addresses: the names by which quinn knows peers and links.
//!
//! quinn binds a connection to one remote address. Paths come and go beneath it, so it gets an address that stays:
//! `[fd62:7977:6179::<peer>]:1` for a tunnel to a peer instance, `[fd62:7977:6179:1::<link>]:<attempt + 1>` for one
//! attempt to connect a UDP link. (The prefix is a unique local one, RFC 4193; it never appears on a wire.)

use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};

use byway_core::io::{LinkId, PeerId};

const PREFIX: [u16; 3] = [0xfd62, 0x7977, 0x6179];

/// What a virtual address names.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Virtual {
    /// A peer instance.
    Peer(PeerId),
    /// One attempt of a UDP link's dial; a name may have several addresses, tried side by side.
    Link(LinkId, u16),
}

impl Virtual {
    /// As an address. Scope and flow stay 0: quinn compares whole addresses.
    pub(crate) fn to_addr(self) -> SocketAddr {
        let [p0, p1, p2] = PREFIX;
        let (ip, port) = match self {
            Self::Peer(PeerId(id)) => {
                let [low0, low1] = [(id >> 16) as u16, id as u16];
                (Ipv6Addr::new(p0, p1, p2, 0, 0, 0, low0, low1), 1)
            }
            Self::Link(LinkId(id), attempt) => {
                let part = |shift: u32| (id >> shift) as u16;
                (
                    Ipv6Addr::new(p0, p1, p2, 1, part(48), part(32), part(16), part(0)),
                    attempt + 1,
                )
            }
        };
        SocketAddr::V6(SocketAddrV6::new(ip, port, 0, 0))
    }

    /// The inverse; none for any other address.
    pub(crate) fn from_addr(addr: SocketAddr) -> Option<Self> {
        let SocketAddr::V6(addr) = addr else {
            return None;
        };
        let s = addr.ip().segments();
        if s[..3] != PREFIX {
            return None;
        }
        match (s[3], s[4], s[5], addr.port()) {
            (0, 0, 0, 1) => Some(Self::Peer(PeerId(u32::from(s[6]) << 16 | u32::from(s[7])))),
            (1, .., port @ 1..) => {
                let id = s[4..]
                    .iter()
                    .fold(0, |id, part| id << 16 | u64::from(*part));
                Some(Self::Link(LinkId(id), port - 1))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtual_addresses_come_back() {
        for virt in [
            Virtual::Peer(PeerId(0)),
            Virtual::Peer(PeerId(0xdead_beef)),
            Virtual::Link(LinkId(0), 0),
            Virtual::Link(LinkId(u64::MAX), 7),
            Virtual::Link(LinkId(0x0001_0002_0003_0004), 1),
        ] {
            assert_eq!(Virtual::from_addr(virt.to_addr()), Some(virt));
        }
        assert_eq!(
            Virtual::Peer(PeerId(0x1_0002)).to_addr().to_string(),
            "[fd62:7977:6179::1:2]:1"
        );
    }

    #[test]
    fn real_addresses_are_not_virtual() {
        for addr in [
            "127.0.0.1:1",
            "[::1]:1",
            "[fd62:7977:6179:2::1]:1",
            "[fd62:7977:6179::1]:2",
        ] {
            assert_eq!(Virtual::from_addr(addr.parse().unwrap()), None, "{addr}");
        }
    }
}
