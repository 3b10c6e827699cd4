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
//! - Two sides that both depend on the destination know of each other nothing that is true.
//!
//! Guessing ports (design section 6, "Hard NATs") is not part of this model yet.

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
    /// Every kind.
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

/// True if the two must get a direct path.
pub fn direct_possible(a: Access, b: Access) -> bool {
    if a == Access::UdpBlocked || b == Access::UdpBlocked {
        return false;
    }
    match (a.is_where_it_says(), b.is_where_it_says()) {
        (true, true) => true,
        (true, false) => a.hears_any_port(),
        (false, true) => b.hears_any_port(),
        (false, false) => false,
    }
}

/// The kind of path on which the node behind `own` must end up sending to one behind `other`.
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
        let row = |a| Access::MATRIX.map(|b| direct_possible(a, b));
        assert_eq!(row(Open), [true, true, true, false]);
        assert_eq!(row(PortRestricted), [true, true, false, false]);
        assert_eq!(row(Symmetric), [true, false, false, false]);
        assert_eq!(row(UdpBlocked), [false; 4]);
    }

    #[test]
    fn a_symmetric_nat_gets_through_a_filter_that_does_not_look_at_ports() {
        assert!(direct_possible(
            Access::Symmetric,
            Access::AddressRestricted
        ));
        assert!(direct_possible(Access::FullCone, Access::Symmetric));
    }

    #[test]
    fn the_model_does_not_care_who_is_called_a() {
        for a in Access::ALL {
            for b in Access::ALL {
                assert_eq!(direct_possible(a, b), direct_possible(b, a), "{a:?} {b:?}");
            }
        }
    }
}
