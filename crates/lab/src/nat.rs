//! The kinds of NAT a site's router can be. How each is made of nftables rules, [`Router`] says.
//!
//! In the terms of RFC 4787:
//!
//! | kind | mapping | filtering |
//! |---|---|---|
//! | open | none: the host has a public address | none |
//! | full cone | endpoint-independent | endpoint-independent |
//! | address-restricted | endpoint-independent | address-dependent |
//! | port-restricted | endpoint-independent, keeps the source port | address and port-dependent |
//! | carrier-grade | as port-restricted, twice in a row | as port-restricted |
//! | address-dependent | address-dependent, random ports | address and port-dependent |
//! | preserving | address and port-dependent: the source port for the first destination, random ports for all others | address and port-dependent |
//! | sequential | address and port-dependent, the next port each time | address and port-dependent |
//! | symmetric | address and port-dependent, random ports | address and port-dependent |
//! | UDP blocked | TCP as port-restricted | all UDP dropped |
//! | only 443 | TCP as port-restricted | all dropped but TCP to port 443 |
//! | only 443 with QUIC | as port-restricted | all dropped but TCP and UDP to port 443 |
//! | proxy only | nothing is forwarded; a proxy on the router is the way out | all dropped |
//! | IPv6 only | NAT64, then port-restricted | as port-restricted |

mod rules;

use std::fmt;

pub use rules::Router;

/// What stands between a site's host and the public segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NatKind {
    /// Nothing: the host has a public address.
    Open,
    /// Endpoint-independent mapping and filtering.
    FullCone,
    /// Endpoint-independent mapping, address-dependent filtering.
    AddressRestricted,
    /// Endpoint-independent mapping, address and port-dependent filtering.
    PortRestricted,
    /// A port-restricted router behind another one.
    CarrierGrade,
    /// The next port for every destination, address and port-dependent filtering.
    Sequential,
    /// A fresh random port for every destination, address and port-dependent filtering.
    Symmetric,
    /// No UDP at all; TCP is translated.
    UdpBlocked,
    /// Nothing at all but through a proxy on the router.
    ProxyOnly,
    /// No IPv4 on the host: the router translates (NAT64), and is as port-restricted as ever.
    Ipv6Only,
    /// A random port for every destination address, the same for all ports there; address and port-dependent filtering.
    AddressDependent,
    /// The host's own port for the first destination and a random one for every other, since the first holds it; address and
    /// port-dependent filtering.
    Preserving,
    /// Nothing gets out but TCP to port 443. Names are the router's to resolve, as on most such networks.
    Only443,
    /// The same, and UDP to port 443: a network that knows of QUIC.
    Only443WithQuic,
}

impl NatKind {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Open,
        Self::FullCone,
        Self::AddressRestricted,
        Self::PortRestricted,
        Self::CarrierGrade,
        Self::Sequential,
        Self::Symmetric,
        Self::UdpBlocked,
        Self::ProxyOnly,
        Self::Ipv6Only,
        Self::AddressDependent,
        Self::Preserving,
        Self::Only443,
        Self::Only443WithQuic,
    ];

    /// The first ten, each for many of its sort. The others differ from one of these for some pairs alone.
    pub const COMMON: &'static [Self] = Self::ALL.split_at(10).0;

    /// How many routers stand in a row.
    pub fn routers(self) -> usize {
        match self {
            Self::Open => 0,
            Self::CarrierGrade => 2,
            _ => 1,
        }
    }

    /// True if the host is found where STUN says it is, whoever looks.
    pub fn is_where_it_says(self) -> bool {
        let moves = matches!(
            self,
            Self::AddressDependent | Self::Preserving | Self::Sequential | Self::Symmetric
        );
        !moves && self.reaches_any_port()
    }

    /// True if no UDP gets out.
    pub fn is_tls_only(self) -> bool {
        matches!(self, Self::UdpBlocked | Self::ProxyOnly | Self::Only443)
    }

    /// True if UDP gets out, to whatever port.
    pub fn reaches_any_port(self) -> bool {
        !self.is_tls_only() && self != Self::Only443WithQuic
    }

    /// True if whoever was called is heard from every port of its address.
    pub fn hears_any_port(self) -> bool {
        matches!(self, Self::Open | Self::FullCone | Self::AddressRestricted)
    }
}

impl fmt::Display for NatKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::FullCone => "full_cone",
            Self::AddressRestricted => "address_restricted",
            Self::PortRestricted => "restricted",
            Self::CarrierGrade => "carrier_grade",
            Self::Sequential => "sequential",
            Self::Symmetric => "symmetric",
            Self::UdpBlocked => "udp_blocked",
            Self::ProxyOnly => "proxy_only",
            Self::Ipv6Only => "ipv6_only",
            Self::AddressDependent => "address_dependent",
            Self::Preserving => "preserving",
            Self::Only443 => "only_443",
            Self::Only443WithQuic => "only_443_quic",
        })
    }
}
