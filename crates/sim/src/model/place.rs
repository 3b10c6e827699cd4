//! A network as its hosts see it: the kind of access, which addresses there are, and whether the gateway gives ports.

use super::Access;
use crate::net::nat::{Dependence, Ports};

/// Which families a network gives its hosts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Families {
    /// IPv4.
    V4,
    /// IPv6 beside it.
    Both,
    /// IPv4, and IPv6 addresses to which nothing ever comes back.
    BrokenV6,
    /// IPv6 alone, and a translator to IPv4 (NAT64, RFC 6146), which hosts learn of by RFC 7050.
    Nat64,
    /// IPv6 alone.
    V6,
    /// IPv6 alone, and nothing ever comes back.
    DeadV6,
}

impl Families {
    /// Every kind that leads anywhere, the plainest first.
    pub const ALL: [Families; 5] = [
        Families::V4,
        Families::Both,
        Families::BrokenV6,
        Families::Nat64,
        Families::V6,
    ];

    /// True if hosts have IPv4 addresses. They work.
    pub fn has_v4(self) -> bool {
        matches!(self, Self::V4 | Self::Both | Self::BrokenV6)
    }
    /// True if hosts reach IPv4, by addresses of their own or through a translator.
    pub fn reaches_v4(self) -> bool {
        self.has_v4() || self == Self::Nat64
    }
    /// True if hosts have IPv6 addresses, working or not.
    pub fn has_v6(self) -> bool {
        self != Self::V4
    }
    /// True if IPv6 works.
    pub fn v6_works(self) -> bool {
        matches!(self, Self::Both | Self::Nat64 | Self::V6)
    }
}

/// A network as its hosts see it: what stands between them and the rest, and which families there are. A NAT is IPv4's
/// alone, and a translator's from IPv6; in front of IPv6 itself is a firewall that lets in what answers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place {
    /// What IPv4 goes through, and what gets out of either family.
    pub access: Access,
    /// What addresses there are.
    pub families: Families,
    /// The gateway gives a port to who asks for one (PCP, NAT-PMP, UPnP).
    pub gives_port: bool,
}

impl From<Access> for Place {
    fn from(access: Access) -> Self {
        Self::of(access)
    }
}

impl Place {
    /// A network of IPv4 alone, whose gateway gives no ports.
    pub const fn of(access: Access) -> Self {
        Self {
            access,
            families: Families::V4,
            gives_port: false,
        }
    }
    /// The same with other addresses.
    #[must_use]
    pub const fn families(mut self, families: Families) -> Self {
        self.families = families;
        self
    }
    /// The same with a gateway that gives a port.
    #[must_use]
    pub const fn gives_port(mut self) -> Self {
        self.gives_port = true;
        self
    }

    /// True if a relay can be reached from there, by UDP or TLS: relays have addresses of both families, and no kind of access drops
    /// TLS to 443.
    pub(super) fn reaches_relays(self) -> bool {
        self.families.reaches_v4() || self.families.v6_works()
    }
    /// True if a port of the gateway's leads in from everywhere. Behind a second NAT it leads in from between the two.
    fn is_let_in(self) -> bool {
        self.gives_port && self.families.has_v4() && self.access.routers() == 1
    }
    /// True if the node is reached at an IPv4 address that it tells, whoever calls and as far as filters let in.
    pub fn is_where_it_says(self) -> bool {
        let nat = self.access.nat();
        self.is_let_in() || nat.is_none_or(|nat| nat.mapping == Dependence::Endpoint)
    }
    /// True if, after probing an IPv4 address, the node hears every port of that address.
    pub(super) fn hears_any_port(self) -> bool {
        let nat = self.access.nat();
        self.is_let_in() || nat.is_none_or(|nat| nat.filtering != Dependence::AddressAndPort)
    }
    /// True if the ports at which the node will be seen follow from those before.
    pub(super) fn counts_ports(self) -> bool {
        let nat = self.access.nat();
        nat.is_some_and(|nat| matches!(nat.ports, Ports::Sequential(_)))
    }
    /// True if each socket that the node opens is one more port of its NAT. A translator's IPv4 all leaves by one socket.
    pub(super) fn opens_ports(self) -> bool {
        self.families.has_v4()
    }
}
