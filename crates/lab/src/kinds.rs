//! The kinds of network that the laboratory builds: those of the reference model ([`byway_sim::model`]), by the names that its
//! scenarios and tables have for them.

use std::fmt;

use byway_sim::model::{Access, Families, Place};

/// A kind of network, as the model speaks of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kind(pub Place);

/// No IPv4 on the host: the router translates (NAT64), and is as port-restricted as ever.
pub const IPV6_ONLY: Kind = Kind(Place::of(Access::PortRestricted).families(Families::Nat64));

impl Kind {
    /// A network of IPv4 alone.
    pub const fn of(access: Access) -> Self {
        Self(Place::of(access))
    }

    /// All that the laboratory builds, by name.
    pub const ALL: [(&str, Self); 16] = [
        ("open", Self::of(Access::Open)),
        ("full_cone", Self::of(Access::FullCone)),
        ("address_restricted", Self::of(Access::AddressRestricted)),
        ("restricted", Self::of(Access::PortRestricted)),
        ("carrier_grade", Self::of(Access::CarrierGrade)),
        ("sequential", Self::of(Access::Sequential)),
        ("symmetric", Self::of(Access::Symmetric)),
        ("udp_blocked", Self::of(Access::UdpBlocked)),
        ("proxy_only", Self::of(Access::ProxyOnly)),
        ("ipv6_only", IPV6_ONLY),
        ("address_dependent", Self::of(Access::AddressDependent)),
        ("preserving", Self::of(Access::Preserving)),
        ("only_443", Self::of(Access::Only443)),
        ("only_443_quic", Self::of(Access::Only443WithQuic)),
        ("random_cone", Self::of(Access::RandomCone)),
        ("sequential_down", Self::of(Access::SequentialDown)),
    ];

    /// How many of them, from the first on, are each for many of its sort. The others differ from one of these for some pairs
    /// alone.
    pub const COMMON: usize = 10;

    /// The kind of this name.
    pub fn named(name: &str) -> Option<Self> {
        let known = Self::ALL.iter().find(|(of, _)| *of == name);
        known.map(|(_, kind)| *kind)
    }

    /// True if the laboratory builds it. Other families and given ports are added to a site by a scenario.
    pub(crate) fn is_built(self) -> bool {
        Self::ALL.iter().any(|(_, kind)| *kind == self)
    }
}

impl From<Access> for Kind {
    fn from(access: Access) -> Self {
        Self::of(access)
    }
}

impl From<Kind> for Place {
    fn from(kind: Kind) -> Self {
        kind.0
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::ALL.iter().find(|(_, kind)| kind == self) {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "{:?}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_access_is_built_and_has_a_name_of_its_own() {
        for access in Access::ALL {
            assert!(Kind::from(access).is_built(), "{access:?}");
        }
        for (name, kind) in Kind::ALL {
            assert_eq!(Kind::named(name), Some(kind));
            assert_eq!(kind.to_string(), name);
        }
        assert_eq!(Kind::named("moon"), None);
        let six = Place::from(Access::Open).families(Families::V6);
        assert!(!Kind(six).is_built());
    }
}
