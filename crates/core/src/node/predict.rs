//! Where a NAT will put us next (design section 6, hard NATs).
//!
//! A NAT that gives each destination another port, counting up or down by a steady step, is as hard as one that draws
//! ports at random only to who does not count along. The port that the server asked last saw is the newest mapping known;
//! the next ones follow from the step. They are offered as candidates like any other: the peer, whose own port stays the
//! same, probes them, and one of them is the mapping that our first probe to it makes.

use std::net::SocketAddr;

use byway_wire::signal::{Candidate, CandidateKind, Mapping};

use crate::discovery::{NatReport, PortPattern};

/// Ports predicted. Each other destination we turn to meanwhile (a relay, one more candidate of the peer) uses one up, and
/// so does every other flow of the network; more would cost probes that find nobody.
const PREDICTED: i32 = 8;
/// NATs map to unprivileged ports (RFC 4787 section 4.2.2).
const PORTS: std::ops::RangeInclusive<i32> = 1024..=65_535;

/// The addresses at which the next destinations will see us.
pub(super) fn predict(report: &NatReport) -> Vec<Candidate> {
    let dependent = matches!(
        report.mapping,
        Mapping::AddressDependent | Mapping::AddressAndPortDependent
    );
    let (Some(last), PortPattern::Sequential { delta }, true) =
        (report.reflexive_v4, report.ports, dependent)
    else {
        return Vec::new();
    };
    (1..=PREDICTED)
        .map(|step| i32::from(last.port()) + delta * step)
        .filter(|port| PORTS.contains(port))
        .map(|port| Candidate {
            kind: CandidateKind::Reflexive,
            addr: SocketAddr::new(last.ip(), port as u16),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(port: u16, mapping: Mapping, ports: PortPattern) -> Vec<u16> {
        let report = NatReport {
            reflexive_v4: Some(SocketAddr::from(([203, 0, 113, 9], port))),
            mapping,
            ports,
            ..NatReport::default()
        };
        predict(&report).iter().map(|c| c.addr.port()).collect()
    }

    #[test]
    fn the_next_ports_follow_from_the_step() {
        let step = |delta| PortPattern::Sequential { delta };
        let hard = Mapping::AddressAndPortDependent;
        assert_eq!(
            ports(40_000, hard, step(1)),
            (40_001..=40_008).collect::<Vec<_>>()
        );
        assert_eq!(ports(40_000, hard, step(-2))[..2], [39_998, 39_996]);
        assert_eq!(ports(65_533, hard, step(1)), [65_534, 65_535]);
    }

    #[test]
    fn where_there_is_nothing_to_count_nothing_is_predicted() {
        let step = PortPattern::Sequential { delta: 1 };
        assert!(ports(40_000, Mapping::EndpointIndependent, step).is_empty());
        assert!(ports(40_000, Mapping::Unknown, step).is_empty());
        let hard = Mapping::AddressDependent;
        assert!(ports(40_000, hard, PortPattern::Random).is_empty());
    }
}
