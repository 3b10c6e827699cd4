//! The reference model: what must come about between two kinds of network, said without looking at the implementation.
//!
//! Two nodes that tell each other their reflexive addresses and then probe both ways get a direct path if each one's
//! probes can reach the other:
//!
//! - A side whose mapping is endpoint-independent is at the address it was told to be at. Both such sides open their own
//!   filters by probing, and meet.
//! - A side whose mapping depends on the destination is *not* where it said: towards the other side it has another,
//!   unknown port. It can still reach the other side, if that side is where it said and lets a stranger's port in: its
//!   filter must not look at ports. The answer goes to where the probe came from.
//! - Where that side's filter looks at ports, the two meet by trying many of them (design section 6, "Hard NATs"): surely
//!   enough to be expected, not surely enough to be required of every run.
//! - Two sides that both depend on the destination know of each other nothing that is true.

use byway_core::io::PathKind;

use crate::net::nat::{Dependence, NatConfig};

/// What stands between a node and the network.
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
    /// A symmetric NAT with random ports.
    Symmetric,
    /// A firewall that drops UDP.
    UdpBlocked,
}

impl Access {
    /// The four kinds of the matrix.
    pub const MATRIX: [Access; 4] = [
        Access::Open,
        Access::PortRestricted,
        Access::Symmetric,
        Access::UdpBlocked,
    ];
    /// Every kind, the plainest first.
    pub const ALL: [Access; 7] = [
        Access::Open,
        Access::FullCone,
        Access::AddressRestricted,
        Access::PortRestricted,
        Access::RandomCone,
        Access::Symmetric,
        Access::UdpBlocked,
    ];

    /// The NAT, if there is one.
    pub fn nat(self) -> Option<NatConfig> {
        match self {
            Self::Open => None,
            // A network that blocks UDP has a NAT too, as a rule; no datagram ever gets to know it.
            Self::FullCone | Self::UdpBlocked => Some(NatConfig::full_cone()),
            Self::AddressRestricted => Some(NatConfig::address_restricted()),
            Self::PortRestricted => Some(NatConfig::port_restricted()),
            Self::RandomCone => Some(NatConfig::port_restricted().random_ports()),
            Self::Symmetric => Some(NatConfig::symmetric()),
        }
    }
    /// True if the node is reached at the address STUN told it, whoever calls.
    fn is_where_it_says(self) -> bool {
        self.nat().is_none_or(|n| n.mapping == Dependence::Endpoint)
    }
    /// True if, after probing an address, the node hears every port of that address.
    fn hears_any_port(self) -> bool {
        self.nat()
            .is_none_or(|n| n.filtering != Dependence::AddressAndPort)
    }
}

/// Whether two networks get a direct path.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Direct {
    /// There is none.
    Never,
    /// By trying ports: with 2,048 pings and 256 open ports of 64,512, in 99.97 of 100 cases.
    ByChance,
    /// One side's ping reaches the other.
    Surely,
}

/// What the two come to.
pub fn direct(a: Access, b: Access) -> Direct {
    if a == Access::UdpBlocked || b == Access::UdpBlocked {
        return Direct::Never;
    }
    let hears = |easy: Access| {
        if easy.hears_any_port() {
            Direct::Surely
        } else {
            Direct::ByChance
        }
    };
    match (a.is_where_it_says(), b.is_where_it_says()) {
        (true, true) => Direct::Surely,
        (true, false) => hears(a),
        (false, true) => hears(b),
        (false, false) => Direct::Never,
    }
}

/// True if the two may get a direct path.
pub fn direct_possible(a: Access, b: Access) -> bool {
    direct(a, b) > Direct::Never
}

/// The kind of path on which the node behind `own` is to end up sending to one behind `other`.
pub fn expected_path(own: Access, other: Access) -> PathKind {
    if direct_possible(own, other) {
        PathKind::Direct
    } else if own == Access::UdpBlocked {
        PathKind::RelayTls
    } else {
        PathKind::RelayUdp
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_four_kinds_give_the_table_of_the_design() {
        use Access::*;
        use Direct::*;
        let row = |a| Access::MATRIX.map(|b| direct(a, b));
        assert_eq!(row(Open), [Surely, Surely, Surely, Never]);
        assert_eq!(row(PortRestricted), [Surely, Surely, ByChance, Never]);
        assert_eq!(row(Symmetric), [Surely, ByChance, Never, Never]);
        assert_eq!(row(UdpBlocked), [Never; 4]);
    }

    #[test]
    fn a_symmetric_nat_gets_through_a_filter_that_does_not_look_at_ports() {
        for easy in [Access::AddressRestricted, Access::FullCone] {
            assert_eq!(direct(Access::Symmetric, easy), Direct::Surely, "{easy:?}");
        }
    }

    #[test]
    fn the_model_does_not_care_who_is_called_a() {
        for a in Access::ALL {
            for b in Access::ALL {
                assert_eq!(direct(a, b), direct(b, a), "{a:?} {b:?}");
            }
        }
    }
}
