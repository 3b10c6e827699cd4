//! What a report means for a person, in sentences: a pure function. Nothing is said of what is not known, but where one more
//! server would tell.

use byway::discovery::{
    FULL_DATAGRAM, Filtering, Mapping, Nat64, NatReport, PortPattern, PreferredReason, Reach,
    RelayRow, SecondNat, ServerRow,
};
use byway::endpoint::LinkStatus;
use byway::{Carrier, RelayUrl};

use super::{Seen, source};

/// In the order of what a person would want to know first.
pub(super) fn findings(seen: &Seen<'_>) -> Vec<String> {
    let (report, links) = (seen.report, seen.links);
    let mut findings: Vec<String> = seen
        .unresolved
        .iter()
        .map(|name| format!("{name} does not resolve: a wrong name, or no DNS here."))
        .collect();
    findings.extend(of_the_proxy(seen));
    let asked = &report.servers;
    if !asked.is_empty() && asked.iter().all(|row| row.addr.ip().is_loopback()) {
        findings.push(
            "Everyone asked is on this host, which says nothing of the network: name a server outside."
                .to_owned(),
        );
        return findings;
    }
    findings.extend(portal(report));
    findings.extend(udp(report, links));
    findings.extend(quic(report));
    findings.extend(mapping(report));
    findings.extend(filtering(report));
    findings.extend(gateway(report));
    findings.extend(second_nat(report));
    findings.extend(hairpin(report));
    findings.extend(mtu(report));
    findings.extend(nat64(report));
    findings.extend(preferred(report));
    findings.extend(links_to_relays(report, links));
    findings
}

fn is_udp_up(report: &NatReport) -> bool {
    report.udp_v4 == Some(true) || report.udp_v6 == Some(true)
}

fn portal(report: &NatReport) -> Option<String> {
    let evidence = report.captive_portal_evidence.as_deref()?;
    Some(format!(
        "A captive portal is in the way: {evidence}. Log in with a browser and try again."
    ))
}

fn udp(report: &NatReport, links: &[LinkStatus]) -> Option<String> {
    let over_tls = links.iter().any(|link| link.carrier == Some(Carrier::Tls));
    let over_udp = links.iter().any(|link| link.carrier == Some(Carrier::Udp));
    let answered = |row: &ServerRow| row.mapped.is_some() && !row.addr.ip().is_loopback();
    let any_answer = report.servers.iter().any(answered);
    if is_udp_up(report) || over_udp || any_answer || report.servers.is_empty() {
        return None;
    }
    let text = if over_tls {
        "UDP does not get out of this network. Tunnels run over TLS, slower, and never direct."
    } else {
        "No server answered over UDP: it is blocked here, or the servers are down."
    };
    Some(text.to_owned())
}

fn quic(report: &NatReport) -> Option<String> {
    (report.quic_filtered == Some(true)).then(|| {
        "UDP gets out (STUN is answered), but QUIC does not come back from any relay: a firewall filters it. Links to relays run over TLS; direct connections, which are QUIC too, may fail."
            .to_owned()
    })
}

fn mapping(report: &NatReport) -> Option<String> {
    if report.public == Some(true) {
        return Some("There is no NAT between this host and the servers asked.".to_owned());
    }
    let text = match report.mapping {
        Mapping::EndpointIndependent => {
            "The NAT keeps one port for all destinations: direct connections work with most networks.".to_owned()
        }
        Mapping::AddressDependent | Mapping::AddressAndPortDependent => {
            let pattern = match report.ports {
                PortPattern::Sequential { delta } => {
                    format!(" Its ports count ({delta:+}), so the next one is predicted and tried.")
                }
                PortPattern::Random => {
                    " Its ports are random: many are tried, which takes a second or two.".to_owned()
                }
                _ => String::new(),
            };
            format!(
                "This network gives every destination another port: direct connections need the other side to be easy.{pattern}"
            )
        }
        _ if is_udp_up(report) => {
            "One server is not enough to tell how the NAT maps ports: name a second with --stun or --relay."
                .to_owned()
        }
        _ => return None,
    };
    Some(text)
}

fn filtering(report: &NatReport) -> Option<String> {
    let text = match report.filtering {
        Filtering::EndpointIndependent => {
            "Nothing filters what comes in: whoever knows this host's outside port gets through."
        }
        Filtering::AddressDependent => {
            "Only addresses that this host has called get in, by any of their ports."
        }
        Filtering::AddressAndPortDependent => {
            "Only the very address and port that this host has called gets in, as behind most NATs and firewalls."
        }
        _ => return None,
    };
    Some(text.to_owned())
}

fn gateway(report: &NatReport) -> Option<String> {
    let mapping = report.port_mapping.held().filter(|m| m.leads_outside())?;
    // That it leads nowhere is the second NAT's finding.
    let elsewhere = report.double_nat == Some(true);
    (!elsewhere).then(|| {
        format!(
            "The gateway lets peers in at {}: direct connections work whatever the NAT does otherwise.",
            mapping.external
        )
    })
}

fn second_nat(report: &NatReport) -> Option<String> {
    match SecondNat::of(report)? {
        SecondNat::Carrier(local) => Some(format!(
            "This host's address, {local}, is of the range kept for what lies between a carrier and its customers: a carrier's NAT is suspected."
        )),
        SecondNat::GatewayAtCarrier(gateway) => Some(format!(
            "The gateway gives a port, but its own outside address, {gateway}, is of the range kept for what lies between a carrier and its customers: it is behind a carrier's NAT, and the port leads nowhere."
        )),
        SecondNat::Behind(gateway) => Some(format!(
            "The gateway gives a port, but its own outside address is {gateway}: it is behind another NAT, and the port leads nowhere."
        )),
        SecondNat::Elsewhere { gateway, seen } => Some(format!(
            "The gateway says its outside address is {gateway}, and servers see {seen}: another NAT, or a second way out, is suspected. The port it gives may lead nowhere."
        )),
        _ => None,
    }
}

fn hairpin(report: &NatReport) -> Option<String> {
    let text = match report.hairpin? {
        true => {
            "The NAT turns around what is sent to its own outside address: machines behind it meet there too."
        }
        false => {
            "The NAT does not turn around what is sent to its own outside address: machines behind it meet by their inside addresses only."
        }
    };
    Some(text.to_owned())
}

fn mtu(report: &NatReport) -> Option<String> {
    let mtu = report.mtu.filter(|mtu| *mtu < FULL_DATAGRAM)?;
    Some(format!(
        "Datagrams of more than {mtu} bytes do not come back from the relay ({FULL_DATAGRAM} would be usual): a VPN or another tunnel on the way is the usual reason. Byway's tunnels use smaller ones."
    ))
}

fn nat64(report: &NatReport) -> Option<String> {
    match report.nat64 {
        Nat64::Prefix(prefix) => Some(format!(
            "IPv4 is reached from this network by a translator (NAT64), behind {prefix}."
        )),
        _ => None,
    }
}

fn preferred(report: &NatReport) -> Option<String> {
    let preferred = report.preferred_relay.as_ref()?;
    if preferred.reason == PreferredReason::OnlyOne {
        return None;
    }
    let (host, port) = (preferred.relay.host(), preferred.relay.port());
    Some(format!(
        "Preferred relay: {host}:{port}, {}.",
        preferred.reason
    ))
}

/// A relay's URL without its pin, which fills a line and tells nothing here.
fn shown(relay: &RelayUrl) -> String {
    format!("https://{}", relay.authority())
}

fn links_to_relays(report: &NatReport, links: &[LinkStatus]) -> Vec<String> {
    let mut findings = Vec::new();
    let ended = |row: &&RelayRow| row.tls_intercepted == Some(true);
    for row in report.relays.iter().filter(ended) {
        findings.push(format!(
            "TLS to {} is ended on the way, by an ingress or an inspecting proxy. Tunnels stay sealed end to end.",
            shown(&row.url)
        ));
    }
    for row in &report.relays {
        let why = match &row.tls {
            Reach::Silent => "no answer",
            Reach::Failed(why) => why,
            _ => continue,
        };
        if row.udp == Reach::Works {
            findings.push(format!(
                "TLS does not lead to {} ({why}): should UDP be blocked, it cannot be fallen back on.",
                shown(&row.url)
            ));
        }
    }
    for link in links.iter().filter(|link| link.carrier.is_none()) {
        let why = link.error.as_deref().unwrap_or("no answer");
        findings.push(format!("No link to {}: {why}.", shown(&link.relay)));
    }
    findings
}

/// What of the proxy a person would not expect.
fn of_the_proxy(seen: &Seen<'_>) -> Vec<String> {
    let Some(proxy) = &seen.proxy else {
        return Vec::new();
    };
    let unusable = proxy.url.as_ref().err();
    let unusable =
        unusable.map(|error| format!("The proxy of {} is none: {error}.", source(proxy)));
    let of_links = seen.links().filter_map(|(link, proxied)| match proxied {
        false => Some(format!(
            "TLS to {} goes without the proxy: NO_PROXY names it, or it is on this host.",
            shown(&link.relay)
        )),
        true if link.carrier == Some(Carrier::Tls) => Some(format!(
            "The link to {} goes through the proxy.",
            shown(&link.relay)
        )),
        true => None,
    });
    unusable.into_iter().chain(of_links).collect()
}

#[cfg(test)]
mod tests;
