//! What stands between a node and the network, in the terms of RFC 4787.
//!
//! | kind | mapping | filtering | ports |
//! |---|---|---|---|
//! | open | none: the host has a public address | none | |
//! | full cone | endpoint-independent | endpoint-independent | preserved |
//! | address-restricted | endpoint-independent | address-dependent | preserved |
//! | port-restricted | endpoint-independent | address and port-dependent | preserved |
//! | random cone | endpoint-independent | address and port-dependent | random |
//! | carrier-grade | as port-restricted, twice in a row | as port-restricted | preserved |
//! | sequential | address and port-dependent | address and port-dependent | the next one each time, up or down |
//! | address-dependent | address-dependent | address and port-dependent | random |
//! | preserving | address and port-dependent | address and port-dependent | preserved for the first destination, random for all others |
//! | symmetric | address and port-dependent | address and port-dependent | random |
//!
//! The others are port-restricted for what gets out of them, which is not everything ([`Exit`]):
//!
//! | kind | what gets out |
//! |---|---|
//! | only 443 with QUIC | TCP and UDP to port 443 |
//! | UDP blocked | TCP |
//! | only 443 | TCP to port 443 |
//! | proxy only | nothing; a proxy at the border is the way out |

use crate::net::Exit;
use crate::net::nat::{Dependence, NatConfig, Ports};

/// A kind of access network.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Access {
    /// A public address, no filter.
    Open,
    /// A full-cone NAT.
    FullCone,
    /// An address-restricted cone NAT.
    AddressRestricted,
    /// A port-restricted cone NAT.
    PortRestricted,
    /// A port-restricted cone NAT that draws its ports at random.
    RandomCone,
    /// A port-restricted NAT behind another one, the carrier's. What is between them is of 100.64.0.0/10 (RFC 6598).
    CarrierGrade,
    /// A NAT that gives each destination the next port.
    Sequential,
    /// The same, counting down by two.
    SequentialDown,
    /// A NAT that gives each destination's address a random port, the same for all ports there.
    AddressDependent,
    /// A NAT that keeps the port for the first destination and gives every other a random one for as long as that lasts.
    Preserving,
    /// A symmetric NAT with random ports.
    Symmetric,
    /// A firewall that lets out TCP and UDP to port 443 and nothing else: a network that knows of QUIC.
    Only443WithQuic,
    /// A firewall that drops UDP.
    UdpBlocked,
    /// A firewall that lets out TCP to port 443 and nothing else.
    Only443,
    /// A firewall that lets out nothing, and a proxy beside it.
    ProxyOnly,
}

impl Access {
    /// Every kind, the plainest first.
    pub const ALL: [Access; 15] = [
        Access::Open,
        Access::FullCone,
        Access::AddressRestricted,
        Access::PortRestricted,
        Access::RandomCone,
        Access::CarrierGrade,
        Access::Sequential,
        Access::SequentialDown,
        Access::AddressDependent,
        Access::Preserving,
        Access::Symmetric,
        Access::Only443WithQuic,
        Access::UdpBlocked,
        Access::Only443,
        Access::ProxyOnly,
    ];

    /// The NAT, if there is one; of several in a row, what they come to.
    pub fn nat(self) -> Option<NatConfig> {
        let hard = |mapping, ports| NatConfig {
            mapping,
            ports,
            ..NatConfig::symmetric()
        };
        Some(match self {
            Self::Open => return None,
            Self::FullCone => NatConfig::full_cone(),
            Self::AddressRestricted => NatConfig::address_restricted(),
            Self::PortRestricted
            | Self::CarrierGrade
            | Self::Only443WithQuic
            | Self::UdpBlocked
            | Self::Only443
            | Self::ProxyOnly => NatConfig::port_restricted(),
            Self::RandomCone => NatConfig::port_restricted().random_ports(),
            Self::Sequential => hard(Dependence::AddressAndPort, Ports::Sequential(1)),
            Self::SequentialDown => hard(Dependence::AddressAndPort, Ports::Sequential(-2)),
            Self::AddressDependent => hard(Dependence::Address, Ports::Random),
            Self::Preserving => hard(Dependence::AddressAndPort, Ports::PreservingOnce),
            Self::Symmetric => NatConfig::symmetric(),
        })
    }
    /// How many NATs stand in a row.
    pub fn routers(self) -> usize {
        match self {
            Self::Open => 0,
            Self::CarrierGrade => 2,
            _ => 1,
        }
    }
    /// What gets out.
    pub fn exit(self) -> Exit {
        match self {
            Self::Only443WithQuic => Exit::Port443,
            Self::UdpBlocked => Exit::Tcp,
            Self::Only443 => Exit::Tcp443,
            Self::ProxyOnly => Exit::Proxy,
            _ => Exit::Everything,
        }
    }
    /// True if no UDP gets out, so that relays are reached over TLS alone.
    pub fn is_tls_only(self) -> bool {
        !self.exit().some_udp()
    }
}
