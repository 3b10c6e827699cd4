//! The report for people: facts, tables, and what they mean.

use std::net::SocketAddr;

use byway::discovery::{GatewayPort, MappingProtocol, Nat64, NatReport, Reach, RelayRow};
use comfy_table::{ColumnConstraint, ContentArrangement, Table, presets};

use super::{Seen, filtering, findings, mapping, measured, ports, source};
use crate::client;
use crate::output::{self, print_line};

pub(super) fn show(seen: &Seen<'_>) {
    let (report, links) = (seen.report, seen.links);
    for (name, value) in facts(seen) {
        print_line(&format!("{name:<28}{value}"));
    }
    if !report.servers.is_empty() {
        print_line(&format!("\n{}", servers(report)));
    }
    if !links.is_empty() {
        print_line(&format!("\n{}", relays(seen)));
    }
    let style = output::stdout();
    for finding in findings(seen) {
        print_line(&format!("\n{} {finding}", style.bold("*")));
    }
}

fn facts(seen: &Seen<'_>) -> Vec<(&'static str, String)> {
    let report = seen.report;
    let style = output::stdout();
    let unknown = || style.dim("unknown");
    let yes_no = |fact: Option<bool>| match fact {
        Some(true) => style.green("yes"),
        Some(false) => style.red("no"),
        None => unknown(),
    };
    // Yes is no good news here.
    let trouble = |fact: Option<bool>| match fact {
        Some(true) => style.red("suspected"),
        Some(false) => style.green("no"),
        None => unknown(),
    };
    let addr = |addr: Option<SocketAddr>| addr.map_or_else(unknown, |addr| addr.to_string());
    let words = |name: &str| name.replace('_', " ");
    let (pattern, delta) = ports(report.ports);
    let pattern = delta.map_or_else(
        || pattern.to_owned(),
        |delta| format!("{pattern}, {delta:+}"),
    );
    let gateway = match report.port_mapping {
        GatewayPort::NotAsked => style.dim("not asked for"),
        GatewayPort::None => "none".to_owned(),
        GatewayPort::Held(held) => {
            let by = match held.protocol {
                MappingProtocol::Pcp => "PCP",
                MappingProtocol::NatPmp => "NAT-PMP",
                MappingProtocol::Upnp => "UPnP",
                _ => "a protocol this version does not know",
            };
            format!("{} by {by}", held.external)
        }
        _ => unknown(),
    };
    let nat64 = match report.nat64 {
        Nat64::Absent => "none".to_owned(),
        Nat64::Prefix(prefix) => prefix.to_string(),
        _ => unknown(),
    };
    let mtu = report
        .mtu
        .map_or_else(unknown, |bytes| format!("{bytes} bytes"));
    let mut facts = vec![
        ("UDP over IPv4", yes_no(report.udp_v4)),
        ("UDP over IPv6", yes_no(report.udp_v6)),
        ("QUIC filtered", trouble(report.quic_filtered)),
        ("public IPv4 address", addr(report.reflexive_v4)),
        ("public IPv6 address", addr(report.reflexive_v6)),
        ("NAT mapping", words(mapping(report.mapping))),
        ("NAT mapping, IPv6", words(mapping(report.mapping_v6))),
        ("external ports", pattern),
        ("who is let in", words(filtering(report.filtering))),
        ("address is this host's own", yes_no(report.public)),
        ("hairpinning", yes_no(report.hairpin)),
        ("second or carrier's NAT", trouble(report.double_nat)),
        ("port given by the gateway", gateway),
        ("largest datagram to a relay", mtu),
        ("NAT64", nat64),
        ("captive portal", trouble(report.captive_portal)),
        (
            "proxy for TLS links",
            seen.proxy.as_ref().map_or_else(
                || "none".to_owned(),
                |proxy| {
                    let url = proxy.url.as_deref().unwrap_or("not usable");
                    format!("{url}, by {}", source(proxy))
                },
            ),
        ),
    ];
    // Where nobody was asked over IPv6 there is nothing to be told of it.
    if !report.servers.iter().any(|row| row.addr.is_ipv6()) {
        facts.retain(|(name, _)| !name.contains("IPv6"));
    }
    facts
}

fn servers(report: &NatReport) -> Table {
    let mut table = table(["STUN server", "address", "sees us as", "ms", "remark"]);
    for row in &report.servers {
        // Others had told enough before it answered.
        let unheard = row.mapped.is_none().then(|| "not waited for".to_owned());
        table.add_row([
            row.label.clone(),
            row.addr.to_string(),
            row.mapped.map_or_else(String::new, |addr| addr.to_string()),
            row.rtt_ms.map_or_else(String::new, |ms| format!("{ms:.1}")),
            row.fault.clone().or(unheard).unwrap_or_default(),
        ]);
    }
    table
}

/// Every relay's latency, and where its link stands; with its region, where a map names regions.
fn relays(seen: &Seen<'_>) -> Table {
    let report = seen.report;
    let mut table = table([
        "relay",
        "region",
        "STUN ms",
        "UDP ms",
        "TLS ms",
        "link",
        "sees us as",
        "remark",
    ]);
    for link in seen.links {
        let row = measured(report, link);
        let ms = |ms: fn(&RelayRow) -> Option<f64>, reach: Option<&Reach>| match (
            row.and_then(ms),
            reach,
        ) {
            (Some(ms), _) => format!("{ms:.1}"),
            (None, Some(Reach::Silent)) => "silent".to_owned(),
            (None, Some(Reach::Failed(_))) => "failed".to_owned(),
            _ => String::new(),
        };
        let preferred = report.preferred_relay.as_ref();
        let preferred = preferred.filter(|preferred| preferred.relay == link.relay);
        let error = link.error.clone();
        table.add_row([
            format!("{}:{}", link.relay.host(), link.relay.port()),
            seen.region(&link.relay).unwrap_or_default().to_owned(),
            ms(|row| row.stun_ms, None),
            ms(|row| row.udp_ms, row.map(|row| &row.udp)),
            ms(|row| row.tls_ms, row.map(|row| &row.tls)),
            link.carrier.map_or("none", client::carrier_name).to_owned(),
            link.observed
                .map_or_else(String::new, |addr| addr.to_string()),
            error.unwrap_or_else(|| preferred.map_or_else(String::new, |_| "preferred".to_owned())),
        ]);
    }
    if seen.map.is_none()
        && let Some(regions) = table.column_mut(1)
    {
        regions.set_constraint(ColumnConstraint::Hidden);
    }
    table
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header);
    table
}
