//! The reference model: what must come about between two networks, said without looking at the implementation:
//! [`must_connect`], [`direct_possible`] and [`direct_within`] for two [`Place`]s.
//!
//! It is the simulation's and the laboratory's: both build the kinds of network that are named here ([`Access`], [`Families`]).
//!
//! **Connected** are two nodes if each reaches the relays, which have addresses of both families: by UDP, or by TLS where
//! that is dropped. Only from a network that leads nowhere there is no way.
//!
//! **Direct.** UDP must get out of both networks to any port, for no peer is at 443. A path is of one family, so both must have
//! it, and datagrams must come back to both. Over IPv6 nobody translates: both are where they say, a firewall opens to whom was
//! probed, and two that probe each other meet. Over IPv4, which a translator (NAT64) leads to as well, it is the NATs' question.
//!
//! Two nodes that tell each other their reflexive addresses and then probe both ways get a direct path if each one's
//! probes can reach the other:
//!
//! - A side whose mapping is endpoint-independent is at the address it was told to be at. Both such sides open their own
//!   filters by probing, and meet.
//! - A side whose mapping depends on the destination is *not* where it said: towards the other side it has another,
//!   unknown port. It can still reach the other side, if that side is where it said and lets a stranger's port in: its
//!   filter must not look at ports. The answer goes to where the probe came from.
//! - Where that side's filter looks at ports, the two meet by trying many of them (design section 6, "Hard NATs"), or by ports
//!   that follow from those before: surely enough to be expected, not surely enough to be required of every run. Behind a
//!   translator a node has one socket for all of IPv4, so that without counting one port is all there is to be hit.
//! - Two sides that both depend on the destination know of each other nothing that is true, unless both count their ports.
//! - A port that the gateway gives is where it is said to be and lets everyone in, whatever the NAT does otherwise.
//!
//! That mapping depends on addresses is seen by servers at two of them (docs/decisions/0015): with one alone the model promises
//! too much of such a NAT.

mod kind;
mod place;

use std::time::Duration;

pub use byway_core::io::PathKind;
pub use kind::Access;
pub use place::{Families, Place};

/// Whether two networks get a direct path.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Direct {
    /// There is none.
    Never,
    /// By luck: nobody may expect one, and none is wrong. A hard translator's one port was hit in 5 of 150 runs; two NATs that
    /// count were never seen to guess each other's ports, in 450, but nothing keeps them from it.
    Perhaps,
    /// By trying ports: with 2,048 pings and 256 open ports of 64,512, in 99.97 of 100 cases.
    ByChance,
    /// One side's ping reaches the other.
    Surely,
}

/// What the two come to, over the better family.
pub fn direct(a: impl Into<Place>, b: impl Into<Place>) -> Direct {
    let (a, b) = (a.into(), b.into());
    if ![a, b].iter().all(|place| place.access.exit().every_udp()) {
        Direct::Never
    } else if a.families.v6_works() && b.families.v6_works() {
        Direct::Surely
    } else if a.families.reaches_v4() && b.families.reaches_v4() {
        direct_v4(a, b)
    } else {
        Direct::Never
    }
}

fn direct_v4(a: Place, b: Place) -> Direct {
    let meet = |easy: Place, hard: Place| {
        if easy.hears_any_port() {
            Direct::Surely
        } else if hard.opens_ports() || hard.counts_ports() {
            Direct::ByChance
        } else {
            Direct::Perhaps
        }
    };
    match (a.is_where_it_says(), b.is_where_it_says()) {
        (true, true) => Direct::Surely,
        (true, false) => meet(a, b),
        (false, true) => meet(b, a),
        (false, false) if a.counts_ports() && b.counts_ports() => Direct::Perhaps,
        (false, false) => Direct::Never,
    }
}

/// True if a tunnel must come up between the two; otherwise it cannot.
pub fn must_connect(a: impl Into<Place>, b: impl Into<Place>) -> bool {
    a.into().reaches_relays() && b.into().reaches_relays()
}

/// True if the two may get a direct path.
pub fn direct_possible(a: impl Into<Place>, b: impl Into<Place>) -> bool {
    direct(a, b) > Direct::Never
}

/// In how many round trips of the path, after the candidates have crossed, a side must send on the direct path, where nothing
/// is lost: one finds the way, one proves that it carries full-size datagrams. The candidates cross in one round trip through
/// the relay at the most.
const ROUND_TRIPS: u32 = 2;
/// What is not a matter of round trips: the discovery of a side's own address may have to be waited for.
const MOMENT: Duration = Duration::from_millis(50);

/// How long after the tunnel is up both must send on a direct path, on an undisturbed network with these round trips between
/// them, by the path and through the relay; none where the model does not say that there surely is one.
pub fn direct_within(
    a: impl Into<Place>,
    b: impl Into<Place>,
    path: Duration,
    relayed: Duration,
) -> Option<Duration> {
    (direct(a, b) == Direct::Surely).then(|| relayed + path * ROUND_TRIPS + MOMENT)
}

/// The kind of path on which the node behind `own` is to be expected to end up sending to one behind `other`.
pub fn expected_path(own: impl Into<Place>, other: impl Into<Place>) -> PathKind {
    let own = own.into();
    if direct(own, other) > Direct::Perhaps {
        PathKind::Direct
    } else if own.access.is_tls_only() {
        PathKind::RelayTls
    } else {
        PathKind::RelayUdp
    }
}

#[cfg(test)]
mod tests {
    use super::Access::*;
    use super::Direct::*;
    use super::*;

    fn nat64(access: Access) -> Place {
        Place::from(access).families(Families::Nat64)
    }

    #[test]
    fn the_four_kinds_give_the_table_of_the_design() {
        let kinds = [Open, PortRestricted, Symmetric, UdpBlocked];
        let row = |a| kinds.map(|b| direct(a, b));
        assert_eq!(row(Open), [Surely, Surely, Surely, Never]);
        assert_eq!(row(PortRestricted), [Surely, Surely, ByChance, Never]);
        assert_eq!(row(Symmetric), [Surely, ByChance, Never, Never]);
        assert_eq!(row(UdpBlocked), [Never; 4]);
    }

    #[test]
    fn a_nat_that_depends_on_the_destination_gets_through_a_filter_that_does_not_look_at_ports() {
        for hard in [Symmetric, Sequential, AddressDependent, Preserving] {
            for easy in [AddressRestricted, FullCone] {
                assert_eq!(direct(hard, easy), Surely, "{hard:?} {easy:?}");
            }
            for easy in [PortRestricted, RandomCone, CarrierGrade] {
                assert_eq!(direct(hard, easy), ByChance, "{hard:?} {easy:?}");
            }
        }
    }

    #[test]
    fn two_nats_that_depend_on_the_destination_meet_by_luck_where_both_count_and_else_never() {
        assert_eq!(direct(Sequential, SequentialDown), Perhaps);
        assert_eq!(expected_path(Sequential, Sequential), PathKind::RelayUdp);
        for hard in [Symmetric, AddressDependent, Preserving] {
            assert_eq!(direct(hard, Sequential), Never, "{hard:?}");
            assert_eq!(direct(hard, AddressDependent), Never, "{hard:?}");
        }
    }

    #[test]
    fn where_not_all_udp_gets_out_no_peer_is_called_and_the_relay_by_what_does() {
        for (own, relayed) in [
            (Only443WithQuic, PathKind::RelayUdp),
            (UdpBlocked, PathKind::RelayTls),
            (Only443, PathKind::RelayTls),
            (ProxyOnly, PathKind::RelayTls),
        ] {
            for other in Access::ALL {
                assert_eq!(direct(own, other), Never, "{own:?} {other:?}");
                assert_eq!(expected_path(own, other), relayed, "{own:?} {other:?}");
            }
        }
    }

    #[test]
    fn a_port_of_the_gateways_makes_a_hard_nat_an_easy_one_unless_another_nat_is_before_it() {
        let given = Place::from(Symmetric).gives_port();
        assert_eq!(direct(given, Symmetric), Surely);
        assert_eq!(direct(given, PortRestricted), Surely);
        assert_eq!(direct(given, UdpBlocked), Never);
        let between = Place::from(CarrierGrade).gives_port();
        assert_eq!(direct(between, Symmetric), direct(CarrierGrade, Symmetric));
    }

    #[test]
    fn a_translator_leads_to_ipv4_as_its_nat_does_and_has_one_port_to_be_hit() {
        assert_eq!(direct(nat64(PortRestricted), PortRestricted), Surely);
        assert_eq!(direct(nat64(PortRestricted), Symmetric), ByChance);
        assert_eq!(direct(nat64(Symmetric), PortRestricted), Perhaps);
        assert_eq!(direct(nat64(Sequential), PortRestricted), ByChance);
        assert_eq!(direct(nat64(Symmetric), FullCone), Surely);
        let six = nat64(Symmetric).families(Families::V6);
        assert_eq!(direct(nat64(Symmetric), six), Surely, "over IPv6");
        assert_eq!(direct(six, Open), Never);
    }

    #[test]
    fn all_are_connected_but_those_whose_network_leads_nowhere() {
        for access in Access::ALL {
            let of = |families| Place::from(access).families(families);
            for families in Families::ALL {
                assert!(must_connect(of(families), Open), "{access:?} {families:?}");
                assert!(!must_connect(of(families), of(Families::DeadV6)));
                assert!(!direct_possible(of(families), of(Families::DeadV6)));
            }
        }
    }

    #[test]
    fn the_model_does_not_care_who_is_called_a() {
        for a in Access::ALL {
            for b in Access::ALL {
                assert_eq!(direct(a, b), direct(b, a), "{a:?} {b:?}");
                assert_eq!(direct(nat64(a), b), direct(b, nat64(a)), "{a:?} {b:?}");
            }
        }
    }
}
