//! The reference model: what must come about between two networks, said without looking at the implementation:
//! [`must_connect`], [`direct_possible`] and [`direct_within`] for two [`Place`]s.
//!
//! **Connected** are two nodes if each reaches the relays, which have addresses of both families: by UDP, or by TLS where
//! that is dropped.
//!
//! **Direct.** A path is of one family, so both must have it, and datagrams must come back to both. Over IPv6 nobody
//! translates: both are where they say, a firewall opens to whom was probed, and two that probe each other meet. Over IPv4
//! it is the NATs' question.
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

use std::time::Duration;

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

/// Which families a network gives its hosts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Families {
    /// IPv4.
    V4,
    /// IPv6 beside it.
    Both,
    /// IPv4, and IPv6 addresses to which nothing ever comes back.
    BrokenV6,
    /// IPv6 alone.
    V6,
}

impl Families {
    /// Every kind, the plainest first.
    pub const ALL: [Families; 4] = [
        Families::V4,
        Families::Both,
        Families::BrokenV6,
        Families::V6,
    ];

    /// True if hosts have IPv4 addresses. They work.
    pub fn has_v4(self) -> bool {
        self != Self::V6
    }
    /// True if hosts have IPv6 addresses, working or not.
    pub fn has_v6(self) -> bool {
        self != Self::V4
    }
    /// True if IPv6 works.
    pub fn v6_works(self) -> bool {
        matches!(self, Self::Both | Self::V6)
    }
}

/// A network as its hosts see it: what stands between them and the rest, and which families there are. A NAT is IPv4's
/// alone; in front of IPv6 is a firewall that lets in what answers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place {
    /// What IPv4 goes through, and whether UDP passes at all.
    pub access: Access,
    /// What addresses there are.
    pub families: Families,
}

/// A network of IPv4 alone.
impl From<Access> for Place {
    fn from(access: Access) -> Self {
        Self {
            access,
            families: Families::V4,
        }
    }
}

impl Place {
    /// True if a relay can be reached from there, by UDP or TLS. No kind of network drops TLS on 443 of every family it has.
    fn reaches_relays(self) -> bool {
        self.families.has_v4() || self.families.v6_works()
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

/// What the two come to, over the better family.
pub fn direct(a: impl Into<Place>, b: impl Into<Place>) -> Direct {
    let (a, b) = (a.into(), b.into());
    if [a.access, b.access].contains(&Access::UdpBlocked) {
        return Direct::Never;
    }
    if a.families.v6_works() && b.families.v6_works() {
        Direct::Surely
    } else if a.families.has_v4() && b.families.has_v4() {
        direct_v4(a.access, b.access)
    } else {
        Direct::Never
    }
}

fn direct_v4(a: Access, b: Access) -> Direct {
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

/// True if a tunnel must come up between the two.
pub fn must_connect(a: impl Into<Place>, b: impl Into<Place>) -> bool {
    a.into().reaches_relays() && b.into().reaches_relays()
}

/// True if the two may get a direct path.
pub fn direct_possible(a: impl Into<Place>, b: impl Into<Place>) -> bool {
    direct(a, b) > Direct::Never
}

/// In how many round trips of the path, after the tunnel is up on a side, that side must send on the direct path, where
/// nothing is lost; none where there may be none. Candidates cross through the relay in one at the most, one finds the way,
/// one proves that it carries full-size datagrams, and one more is what p95 of the project's aim allows (3 in all) and
/// some moments more.
const ROUND_TRIPS: u32 = 4;
/// What is not a matter of round trips: the discovery of a side's own address may have to be waited for.
const MOMENT: Duration = Duration::from_millis(50);

/// How long after the tunnel is up both must send on a direct path, on an undisturbed network with this round trip between
/// them and through the relay; none where the model does not say that there surely is one.
pub fn direct_within(
    a: impl Into<Place>,
    b: impl Into<Place>,
    round_trip: Duration,
) -> Option<Duration> {
    (direct(a, b) == Direct::Surely).then(|| round_trip * ROUND_TRIPS + MOMENT)
}

/// The kind of path on which the node behind `own` is to end up sending to one behind `other`.
pub fn expected_path(own: impl Into<Place>, other: impl Into<Place>) -> PathKind {
    let own = own.into();
    if direct_possible(own, other) {
        PathKind::Direct
    } else if own.access == Access::UdpBlocked {
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
