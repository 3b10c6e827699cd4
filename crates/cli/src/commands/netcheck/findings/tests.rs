#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use byway::discovery::{GatewayPort, MappingProtocol, PortMapping, Preferred, RelayRow};

use super::*;

/// A report that says this and no more.
fn report(say: impl FnOnce(&mut NatReport)) -> NatReport {
    let mut report = NatReport::default();
    say(&mut report);
    report
}

fn server(addr: &str) -> ServerRow {
    ServerRow {
        label: addr.to_owned(),
        addr: addr.parse().unwrap(),
        mapped: None,
        rtt_ms: None,
        fault: None,
        believed: false,
        local: None,
    }
}

fn relay() -> RelayUrl {
    RelayUrl::new("relay.test", 443, None).unwrap()
}

fn link(carrier: Option<Carrier>) -> LinkStatus {
    let mut link = LinkStatus::unlinked(relay());
    link.carrier = carrier;
    link
}

fn findings(report: &NatReport, links: &[LinkStatus], unresolved: &[String]) -> Vec<String> {
    super::findings(&Seen {
        report,
        links,
        unresolved,
        proxy: None,
        proxied: vec![false; links.len()],
        map: None,
    })
}

/// The only sentence there is about this report.
fn only(report: &NatReport, links: &[LinkStatus]) -> String {
    let mut findings = findings(report, links, &[]);
    assert_eq!(findings.len(), 1, "{findings:?}");
    findings.remove(0)
}

fn says(say: impl FnOnce(&mut NatReport), beginning: &str) {
    let said = only(&report(say), &[]);
    assert!(said.starts_with(beginning), "{said}");
}

#[test]
fn nothing_is_claimed_of_a_network_nobody_looked_at() {
    assert!(findings(&NatReport::default(), &[], &[]).is_empty());
}

#[test]
fn a_name_that_does_not_resolve_is_named() {
    let names = ["nosuch.invalid:3478".to_owned()];
    let said = findings(&NatReport::default(), &[], &names);
    assert_eq!(
        said,
        ["nosuch.invalid:3478 does not resolve: a wrong name, or no DNS here."]
    );
}

#[test]
fn of_this_host_alone_nothing_but_that_is_said() {
    let report = report(|r| {
        r.servers = vec![server("127.0.0.1:3478"), server("[::1]:3478")];
        r.mapping = Mapping::EndpointIndependent;
        r.mtu = Some(1_300);
    });
    assert!(only(&report, &[]).starts_with("Everyone asked is on this host"));
}

#[test]
fn blocked_udp_is_said_by_what_is_left() {
    let blocked = report(|r| {
        r.servers = vec![server("192.0.2.1:3478")];
        r.udp_v4 = Some(false);
    });
    let over_tls = only(&blocked, &[link(Some(Carrier::Tls))]);
    assert!(over_tls.starts_with("UDP does not get out of this network."));
    let nothing = only(&blocked, &[]);
    assert!(nothing.starts_with("No server answered over UDP"));
    // The servers may be down: a link over UDP shows that UDP passes.
    assert!(findings(&blocked, &[link(Some(Carrier::Udp))], &[]).is_empty());
}

#[test]
fn quic_that_is_filtered_where_stun_passes_is_said() {
    says(
        |r| r.quic_filtered = Some(true),
        "UDP gets out (STUN is answered), but QUIC does not",
    );
    assert!(findings(&report(|r| r.quic_filtered = Some(false)), &[], &[]).is_empty());
}

#[test]
fn every_mapping_has_its_sentence() {
    says(
        |r| r.mapping = Mapping::EndpointIndependent,
        "The NAT keeps one port for all destinations",
    );
    for (mapping, ports, end) in [
        (
            Mapping::AddressDependent,
            PortPattern::Unknown,
            "the other side to be easy.",
        ),
        (
            Mapping::AddressAndPortDependent,
            PortPattern::Random,
            "which takes a second or two.",
        ),
        (
            Mapping::AddressAndPortDependent,
            PortPattern::Sequential { delta: 1 },
            "Its ports count (+1), so the next one is predicted and tried.",
        ),
    ] {
        let said = only(
            &report(|r| {
                r.mapping = mapping;
                r.ports = ports;
            }),
            &[],
        );
        assert!(
            said.starts_with("This network gives every destination another port: direct connections need the other side to be easy."),
            "{said}"
        );
        assert!(said.ends_with(end), "{said}");
    }
    says(|r| r.udp_v4 = Some(true), "One server is not enough");
}

#[test]
fn without_a_nat_nothing_is_said_of_one() {
    let public = report(|r| {
        r.udp_v4 = Some(true);
        r.public = Some(true);
        r.mapping = Mapping::EndpointIndependent;
        r.double_nat = Some(false);
    });
    assert!(only(&public, &[]).starts_with("There is no NAT"));
}

#[test]
fn every_filter_has_its_sentence() {
    for (filtering, beginning) in [
        (Filtering::EndpointIndependent, "Nothing filters"),
        (
            Filtering::AddressDependent,
            "Only addresses that this host has called",
        ),
        (
            Filtering::AddressAndPortDependent,
            "Only the very address and port",
        ),
    ] {
        says(|r| r.filtering = filtering, beginning);
    }
}

fn gateway(external: &str) -> GatewayPort {
    GatewayPort::Held(PortMapping {
        protocol: MappingProtocol::Pcp,
        external: external.parse().unwrap(),
    })
}

#[test]
fn a_port_of_the_gateways_is_good_news_unless_another_nat_is_outside_of_it() {
    says(
        |r| r.port_mapping = gateway("203.0.113.9:7000"),
        "The gateway lets peers in at 203.0.113.9:7000",
    );
    says(
        |r| {
            r.port_mapping = gateway("10.0.0.2:7000");
            r.double_nat = Some(true);
        },
        "The gateway gives a port, but its own outside address is 10.0.0.2: it is behind another NAT",
    );
    says(
        |r| {
            r.port_mapping = gateway("100.64.1.2:7000");
            r.double_nat = Some(true);
        },
        "The gateway gives a port, but its own outside address, 100.64.1.2, is of the range kept for",
    );
    says(
        |r| {
            r.port_mapping = gateway("192.0.2.9:7000");
            r.reflexive_v4 = Some("203.0.113.9:7000".parse().unwrap());
            r.double_nat = Some(true);
        },
        "The gateway says its outside address is 192.0.2.9, and servers see 203.0.113.9",
    );
}

#[test]
fn an_address_of_a_carriers_range_is_said_to_be_one() {
    says(
        |r| {
            let mut row = server("192.0.2.1:3478");
            row.believed = true;
            row.local = Some("100.64.0.7".parse().unwrap());
            r.servers = vec![row];
            r.reflexive_v4 = Some("203.0.113.9:7000".parse().unwrap());
            // That no server answered would be said too.
            r.servers[0].mapped = r.reflexive_v4;
        },
        "This host's address, 100.64.0.7, is of the range kept for",
    );
}

#[test]
fn hairpinning_is_said_both_ways() {
    says(|r| r.hairpin = Some(true), "The NAT turns around");
    says(|r| r.hairpin = Some(false), "The NAT does not turn around");
}

#[test]
fn a_narrow_path_is_said_in_bytes_and_a_full_one_not_at_all() {
    says(
        |r| r.mtu = Some(1_392),
        "Datagrams of more than 1392 bytes do not come back",
    );
    assert!(findings(&report(|r| r.mtu = Some(FULL_DATAGRAM)), &[], &[]).is_empty());
}

#[test]
fn a_translator_is_named_by_its_prefix() {
    let answers = ["64:ff9b::c000:aa".parse().unwrap()];
    says(
        |r| r.nat64 = Nat64::from_answers(answers),
        "IPv4 is reached from this network by a translator (NAT64), behind 64:ff9b::/96.",
    );
    assert!(findings(&report(|r| r.nat64 = Nat64::Absent), &[], &[]).is_empty());
}

#[test]
fn a_captive_portal_is_said_with_its_evidence() {
    says(
        |r| {
            r.captive_portal = Some(true);
            r.captive_portal_evidence = Some("it says HTTP 302, go to http://login.test/".into());
        },
        "A captive portal is in the way: it says HTTP 302, go to http://login.test/. Log in",
    );
}

#[test]
fn the_preferred_relay_is_said_with_the_reason() {
    says(
        |r| {
            r.preferred_relay = Some(Preferred {
                relay: relay(),
                reason: PreferredReason::LowestOverUdp(12.34),
            });
        },
        "Preferred relay: relay.test:443, lowest latency over UDP: 12.3 ms.",
    );
    let no_choice = report(|r| {
        r.preferred_relay = Some(Preferred {
            relay: relay(),
            reason: PreferredReason::OnlyOne,
        });
    });
    assert!(findings(&no_choice, &[], &[]).is_empty());
}

#[test]
fn a_relay_without_a_way_back_to_tls_is_said_to_be_one() {
    let mut row = RelayRow::new(relay());
    row.udp = Reach::Works;
    row.tls = Reach::Failed("connection refused".to_owned());
    let said = only(
        &report(|r| r.relays = vec![row]),
        &[link(Some(Carrier::Udp))],
    );
    assert!(
        said.starts_with("TLS does not lead to https://relay.test:443 (connection refused)"),
        "{said}"
    );
}

#[test]
fn a_relay_that_is_not_linked_says_why_and_an_inspected_one_that_it_is() {
    let mut dead = link(None);
    dead.error = Some("no answer from the relay".to_owned());
    let said = only(&NatReport::default(), &[dead]);
    assert_eq!(
        said,
        "No link to https://relay.test:443: no answer from the relay."
    );
    // Whatever the link goes by: TLS may be needed later.
    for carrier in [Carrier::Tls, Carrier::Udp] {
        let link = link(Some(carrier));
        let mut row = RelayRow::new(link.relay.clone());
        row.tls = Reach::Works;
        row.tls_intercepted = Some(true);
        let said = only(&report(|r| r.relays = vec![row]), &[link]);
        assert!(said.contains("is ended on the way"), "{said}");
    }
}
