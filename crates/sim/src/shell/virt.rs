//! Virtual addresses: the names by which quinn-proto knows peers and links, as the real shell has them.

use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};

use byway_core::io::{LinkId, PeerId};

/// `fd62:7977:6179::/48`, a unique local prefix (RFC 4193) that never appears on a wire.
const PREFIX: [u16; 3] = [0xfd62, 0x7977, 0x6179];

/// What a virtual address names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Virtual {
    Peer(PeerId),
    /// One attempt of a UDP link's dial; a name may have several addresses, tried side by side.
    Link(LinkId, u16),
}

impl Virtual {
    pub(crate) fn to_addr(self) -> SocketAddr {
        let (kind, id, port) = match self {
            Self::Peer(PeerId(id)) => (0, u64::from(id), 1),
            Self::Link(LinkId(id), attempt) => (1, id, attempt + 1),
        };
        let [p0, p1, p2] = PREFIX;
        let part = |shift: u32| (id >> shift) as u16;
        let ip = Ipv6Addr::new(p0, p1, p2, kind, part(48), part(32), part(16), part(0));
        SocketAddr::V6(SocketAddrV6::new(ip, port, 0, 0))
    }
    pub(crate) fn from_addr(addr: SocketAddr) -> Option<Self> {
        let SocketAddr::V6(addr) = addr else {
            return None;
        };
        let s = addr.ip().segments();
        if s[..3] != PREFIX {
            return None;
        }
        let id = s[4..]
            .iter()
            .fold(0, |id, part| id << 16 | u64::from(*part));
        match s[3] {
            0 => u32::try_from(id).ok().map(|id| Self::Peer(PeerId(id))),
            1 => Some(Self::Link(LinkId(id), addr.port().checked_sub(1)?)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtual_addresses_come_back_and_real_ones_are_none() {
        for virt in [
            Virtual::Peer(PeerId(0)),
            Virtual::Peer(PeerId(u32::MAX)),
            Virtual::Link(LinkId(0x0001_0002_0003_0004), 0),
            Virtual::Link(LinkId(7), 5),
        ] {
            assert_eq!(Virtual::from_addr(virt.to_addr()), Some(virt));
        }
        assert_eq!(
            Virtual::from_addr(SocketAddr::from(([198, 51, 100, 1], 443))),
            None
        );
    }
}
