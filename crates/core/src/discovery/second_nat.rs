//! Is there a second NAT, the carrier's or another router's, outside of the one that can be asked for a port?
//!
//! Servers see only the outermost address, so a second NAT shows in what the inside knows of itself: the address range
//! that carriers keep for their customers (RFC 6598), or the outside address that the gateway gives beside a port.

use std::net::IpAddr;

use super::NatReport;
use crate::addr::{is_inside, is_shared};

/// What speaks for a second NAT, or against one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SecondNat {
    /// This host's address is of the range kept for what lies between a carrier and its customers: the one NAT there is
    /// seems to be the carrier's.
    Carrier(IpAddr),
    /// The gateway's own outside address is of that range: it is behind the carrier's NAT.
    GatewayAtCarrier(IpAddr),
    /// The gateway's own outside address is private: it is behind another router's NAT.
    Behind(IpAddr),
    /// The gateway's own outside address is not the one that servers see.
    Elsewhere {
        /// What the gateway says.
        gateway: IpAddr,
        /// What servers see.
        seen: IpAddr,
    },
    /// The gateway's own outside address is the one that servers see, or there is no NAT at all.
    No,
}

impl SecondNat {
    /// What the report shows of it; none if it shows nothing. Of IPv4.
    pub fn of(report: &NatReport) -> Option<Self> {
        let gateway = report
            .port_mapping
            .held()
            .map(|mapping| mapping.external.ip());
        if let Some(gateway) = gateway
            && is_inside(gateway)
        {
            return Some(match is_shared(gateway) {
                true => Self::GatewayAtCarrier(gateway),
                false => Self::Behind(gateway),
            });
        }
        let seen = report.reflexive_v4?.ip();
        if report.public == Some(true) {
            return Some(Self::No);
        }
        if let Some(gateway) = gateway {
            return Some(if gateway == seen {
                Self::No
            } else {
                Self::Elsewhere { gateway, seen }
            });
        }
        // The address that answers came to, not any of the host's: private networks laid over the internet use the same
        // range for interfaces of theirs.
        let believed = report.servers.iter().filter(|row| row.believed);
        let mut local = believed.filter_map(|row| row.local);
        let carrier = local.find(|local| is_shared(*local) && !is_inside(seen));
        carrier.map(Self::Carrier)
    }

    /// Whether it speaks for a second NAT, or a carrier's.
    pub fn is_suspected(self) -> bool {
        self != Self::No
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::{GatewayPort, MappingProtocol, PortMapping, ServerRow};

    fn report(seen: Option<&str>, gateway: Option<&str>, local: Option<&str>) -> NatReport {
        NatReport {
            reflexive_v4: seen.map(|seen| seen.parse().unwrap()),
            public: seen.map(|_| false),
            port_mapping: gateway.map_or(GatewayPort::NotAsked, |external| {
                GatewayPort::Held(PortMapping {
                    protocol: MappingProtocol::Pcp,
                    external: external.parse().unwrap(),
                })
            }),
            servers: vec![ServerRow {
                label: "a".to_owned(),
                addr: "198.51.100.1:3478".parse().unwrap(),
                mapped: None,
                rtt_ms: None,
                fault: None,
                believed: true,
                local: local.map(|local| local.parse().unwrap()),
            }],
            ..NatReport::default()
        }
    }

    const SEEN: Option<&str> = Some("203.0.113.9:7000");

    fn verdict(seen: Option<&str>, gateway: Option<&str>, local: &str) -> Option<bool> {
        SecondNat::of(&report(seen, gateway, Some(local))).map(SecondNat::is_suspected)
    }

    #[test]
    fn nothing_known_is_nothing_said() {
        assert_eq!(verdict(None, None, "192.168.1.5"), None);
        assert_eq!(verdict(SEEN, None, "192.168.1.5"), None);
    }

    #[test]
    fn a_gateway_with_another_address_than_servers_see_is_behind_another() {
        for gateway in ["10.0.0.2:7", "192.168.0.9:7", "100.64.3.4:7", "192.0.2.1:7"] {
            assert_eq!(
                verdict(SEEN, Some(gateway), "192.168.1.5"),
                Some(true),
                "{gateway}"
            );
        }
        // Even where no server answers.
        assert_eq!(
            verdict(None, Some("100.64.3.4:7"), "192.168.1.5"),
            Some(true)
        );
        assert_eq!(verdict(None, Some("192.0.2.1:7"), "192.168.1.5"), None);
    }

    #[test]
    fn a_carriers_nat_in_front_of_the_gateway_is_told_from_another_routers() {
        let of = |gateway| SecondNat::of(&report(SEEN, Some(gateway), Some("192.168.1.5")));
        let at = |ip: &str| ip.parse().unwrap();
        assert_eq!(
            of("100.64.3.4:7"),
            Some(SecondNat::GatewayAtCarrier(at("100.64.3.4")))
        );
        assert_eq!(of("10.0.0.2:7"), Some(SecondNat::Behind(at("10.0.0.2"))));
        assert_eq!(of("100.128.0.1:7").map(SecondNat::is_suspected), Some(true));
    }

    #[test]
    fn a_gateway_that_servers_see_is_the_only_nat_whatever_port_it_gives() {
        assert_eq!(
            verdict(SEEN, Some("203.0.113.9:1"), "192.168.1.5"),
            Some(false)
        );
    }

    #[test]
    fn a_carriers_range_counts_where_answers_come_to_it() {
        assert_eq!(verdict(SEEN, None, "100.64.0.7"), Some(true));
        // A server of the carrier's own sees us there rightly.
        assert_eq!(verdict(Some("100.64.0.7:9"), None, "100.64.0.7"), None);
        assert_eq!(verdict(SEEN, None, "100.128.0.7"), None);
    }

    #[test]
    fn a_host_without_a_nat_has_no_second_one() {
        let mut report = report(SEEN, None, Some("203.0.113.9"));
        report.public = Some(true);
        assert_eq!(SecondNat::of(&report), Some(SecondNat::No));
    }
}
