//! `byway netcheck`: what the network around this machine allows.

mod findings;
mod show;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use byway::discovery::{
    Filtering, GatewayPort, Mapping, MappingProtocol, Nat64, NatReport, PortPattern, Reach,
    RelayRow,
};
use byway::endpoint::LinkStatus;
use byway::proxy::{ProxyInUse, ProxySource};
use byway::{Admission, Endpoint, RelayMap, RelayUrl};
use serde::Serialize;

use crate::args;
use crate::client;
use crate::failure::{Code, Failure};
use crate::output::json_line;
use findings::findings;
use show::show;

/// The report for scripts: the names of `NatReport`.
#[derive(Serialize)]
struct Report<'a> {
    udp_v4: Option<bool>,
    udp_v6: Option<bool>,
    reflexive_v4: Option<SocketAddr>,
    reflexive_v6: Option<SocketAddr>,
    mapping: &'static str,
    mapping_v6: &'static str,
    port_dependent: Option<bool>,
    ports: &'static str,
    port_delta: Option<i32>,
    public: Option<bool>,
    filtering: &'static str,
    hairpin: Option<bool>,
    double_nat: Option<bool>,
    port_mapping: Option<PortMapping>,
    /// Why there is none: `not_asked`, `unknown` (asked, and no answer yet) or `none`; else `held`.
    port_mapping_state: &'static str,
    /// Bytes of UDP payload.
    mtu: Option<u16>,
    nat64: Option<bool>,
    nat64_prefix: Option<String>,
    quic_filtered: Option<bool>,
    captive_portal: Option<bool>,
    captive_portal_evidence: Option<&'a str>,
    preferred_relay: Option<Preferred>,
    /// What TLS links go through.
    proxy: Option<Proxy>,
    servers: Vec<Server<'a>>,
    relays: Vec<Relay<'a>>,
    /// Names of servers that do not resolve.
    unresolved: &'a [String],
    /// What it all means, in sentences.
    findings: Vec<String>,
    generation: u64,
}

#[derive(Serialize)]
struct Preferred {
    url: String,
    /// By the relay map.
    region: Option<String>,
    reason: String,
}

#[derive(Serialize)]
struct PortMapping {
    protocol: &'static str,
    external: SocketAddr,
}

#[derive(Serialize)]
struct Proxy {
    /// Without user name and password.
    url: Option<String>,
    /// `--proxy`, or the environment variable that names it.
    source: &'static str,
    /// Why it cannot be used.
    error: Option<String>,
}

#[derive(Serialize)]
struct Server<'a> {
    label: &'a str,
    addr: SocketAddr,
    mapped: Option<SocketAddr>,
    rtt_ms: Option<f64>,
    fault: Option<&'a str>,
    believed: bool,
    local: Option<IpAddr>,
}

#[derive(Serialize)]
struct Relay<'a> {
    url: String,
    /// By the relay map.
    region: Option<&'a str>,
    carrier: Option<&'static str>,
    observed: Option<SocketAddr>,
    /// Somebody ends TLS to it on the way.
    tls_intercepted: Option<bool>,
    /// TLS to it goes through the proxy.
    proxied: bool,
    error: Option<&'a str>,
    stun_ms: Option<f64>,
    udp_ms: Option<f64>,
    /// Through the proxy where there is one.
    tls_ms: Option<f64>,
    /// Whether each carrier leads to it: works, silent, failed or unknown.
    udp: &'static str,
    tls: &'static str,
}

pub(crate) async fn run(args: args::Netcheck) -> Result<(), Failure> {
    let map = match &args.relay_map {
        Some(path) => Some(RelayMap::load(path).map_err(|error| Failure::relay_map(&error))?),
        None => None,
    };
    let relays = !args.relays.is_empty() || map.is_some();
    if !relays && args.stun.is_empty() {
        return Err(Failure::new(Code::Usage, "nobody to ask")
            .why("what a network does to packets can only be seen from outside of it")
            .hint(
                "byway netcheck --relay URL, --relay-map FILE or --stun HOST:PORT; two servers tell more than one",
            ));
    }
    // An endpoint that accepts keeps links to its relays; this one admits nobody.
    let mut builder = Endpoint::builder()
        .accept(Admission::default())
        .proxy(client::proxy(args.proxy.as_ref())?)
        .port_mapping(!args.no_port_mapping);
    builder = client::with_token(builder, &args.token)?;
    for relay in &args.relays {
        builder = builder.relay(relay.clone());
    }
    if let Some(map) = &map {
        builder = builder.relay_map(map.clone());
    }
    for server in &args.stun {
        builder = builder.stun_server(server.clone());
    }
    let endpoint = builder
        .bind()
        .await
        .map_err(|error| Failure::bind(&error))?;
    let report: Arc<NatReport> = tokio::select! {
        report = endpoint.netcheck() => report,
        interrupted = client::interrupted() => {
            endpoint.close().await;
            return Err(interrupted);
        }
    };
    let links = endpoint.links().borrow().clone();
    let unresolved = without_address(&args.stun, &report, endpoint.unresolved());
    let seen = Seen {
        report: &report,
        links: &links,
        unresolved: &unresolved,
        proxy: endpoint.proxy(),
        proxied: links
            .iter()
            .map(|link| endpoint.is_proxied(&link.relay))
            .collect(),
        map: map.as_ref(),
    };
    if args.json {
        json_line(&for_scripts(&seen));
    } else {
        show(&seen);
    }
    endpoint.close().await;
    // That STUN servers alone stay silent is a finding: UDP does not pass. That not even TLS reaches a relay, or that
    // nobody could be asked, is a failure.
    let asked = report.servers.iter();
    let answered = asked.clone().any(|row| row.mapped.is_some());
    let silent = !relays && asked.len() > 0;
    if answered || silent || links.iter().any(|link| link.carrier.is_some()) {
        return Ok(());
    }
    Err(nobody(&report, &links))
}

/// Names of servers that do not resolve, or of which the resolver has said nothing in all this time.
fn without_address(asked: &[String], report: &NatReport, unresolved: Vec<String>) -> Vec<String> {
    let known = |name: &String| report.servers.iter().any(|row| row.label == *name);
    let mut names = unresolved;
    let named = |name: &&String| name.parse::<SocketAddr>().is_err();
    for name in asked.iter().filter(named).filter(|name| !known(name)) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

/// Nobody answered, or no relay that did takes a link.
fn nobody(report: &NatReport, links: &[LinkStatus]) -> Failure {
    if report.captive_portal == Some(true) {
        return Failure::new(Code::NoPath, "a captive portal is in the way")
            .hint("log in with a browser and try again");
    }
    let reached = |row: &RelayRow| row.udp == Reach::Works || row.tls == Reach::Works;
    if report.relays.iter().any(reached) {
        let failure = Failure::new(Code::NoPath, "no relay takes a link from here");
        let why = links.iter().find_map(|link| link.error.as_deref());
        return match why {
            Some(why) => failure.why(why),
            None => failure,
        };
    }
    Failure::new(Code::NoPath, "nobody who was asked could be reached")
        .hint("is this machine online, and are the names and addresses right?")
}

/// All there is to tell.
struct Seen<'a> {
    report: &'a NatReport,
    links: &'a [LinkStatus],
    unresolved: &'a [String],
    proxy: Option<ProxyInUse>,
    /// Beside `links`.
    proxied: Vec<bool>,
    /// Tells the regions.
    map: Option<&'a RelayMap>,
}

impl<'a> Seen<'a> {
    /// The region of a relay, where a map tells.
    fn region(&self, relay: &RelayUrl) -> Option<&'a str> {
        self.map?.region_of(relay)
    }
    /// The links, and whether TLS to their relays goes through the proxy.
    fn links(&self) -> impl Iterator<Item = (&LinkStatus, bool)> {
        self.links.iter().zip(self.proxied.iter().copied())
    }
}

fn for_scripts<'a>(seen: &'a Seen<'a>) -> Report<'a> {
    let report = seen.report;
    let (ports, port_delta) = ports(report.ports);
    let (nat64, nat64_prefix) = nat64(report.nat64);
    Report {
        udp_v4: report.udp_v4,
        udp_v6: report.udp_v6,
        reflexive_v4: report.reflexive_v4,
        reflexive_v6: report.reflexive_v6,
        mapping: mapping(report.mapping),
        mapping_v6: mapping(report.mapping_v6),
        port_dependent: report.port_dependent,
        ports,
        port_delta,
        public: report.public,
        filtering: filtering(report.filtering),
        hairpin: report.hairpin,
        double_nat: report.double_nat,
        mtu: report.mtu,
        nat64,
        nat64_prefix,
        quic_filtered: report.quic_filtered,
        captive_portal: report.captive_portal,
        captive_portal_evidence: report.captive_portal_evidence.as_deref(),
        preferred_relay: report.preferred_relay.as_ref().map(|preferred| Preferred {
            url: preferred.relay.to_string(),
            region: seen.region(&preferred.relay).map(str::to_owned),
            reason: preferred.reason.to_string(),
        }),
        port_mapping_state: gateway_port(report.port_mapping),
        port_mapping: report.port_mapping.held().map(|mapping| PortMapping {
            protocol: protocol(mapping.protocol),
            external: mapping.external,
        }),
        proxy: seen.proxy.as_ref().map(|proxy| Proxy {
            url: proxy.url.as_ref().ok().cloned(),
            source: source(proxy),
            error: proxy.url.as_ref().err().map(ToString::to_string),
        }),
        servers: report
            .servers
            .iter()
            .map(|row| Server {
                label: &row.label,
                addr: row.addr,
                mapped: row.mapped,
                rtt_ms: row.rtt_ms.map(rounded),
                fault: row.fault.as_deref(),
                believed: row.believed,
                local: row.local,
            })
            .collect(),
        relays: seen
            .links()
            .map(|(link, proxied)| {
                let measured = measured(report, link);
                let ms = |of: fn(&RelayRow) -> Option<f64>| measured.and_then(of).map(rounded);
                Relay {
                    url: link.relay.to_string(),
                    region: seen.region(&link.relay),
                    carrier: link.carrier.map(client::carrier_name),
                    observed: link.observed,
                    tls_intercepted: measured.and_then(|row| row.tls_intercepted),
                    proxied,
                    error: link.error.as_deref(),
                    stun_ms: ms(|row| row.stun_ms),
                    udp_ms: ms(|row| row.udp_ms),
                    tls_ms: ms(|row| row.tls_ms),
                    udp: reach(measured.map(|row| &row.udp)),
                    tls: reach(measured.map(|row| &row.tls)),
                }
            })
            .collect(),
        unresolved: seen.unresolved,
        findings: findings(seen),
        generation: report.generation,
    }
}

fn source(proxy: &ProxyInUse) -> &'static str {
    match proxy.source {
        ProxySource::Variable(name) => name,
        _ => "--proxy",
    }
}

fn mapping(mapping: Mapping) -> &'static str {
    match mapping {
        Mapping::EndpointIndependent => "endpoint_independent",
        Mapping::AddressDependent => "address_dependent",
        Mapping::AddressAndPortDependent => "address_and_port_dependent",
        _ => "unknown",
    }
}

fn protocol(protocol: MappingProtocol) -> &'static str {
    match protocol {
        MappingProtocol::Pcp => "pcp",
        MappingProtocol::NatPmp => "nat_pmp",
        MappingProtocol::Upnp => "upnp",
        _ => "unknown",
    }
}

fn gateway_port(port: GatewayPort) -> &'static str {
    match port {
        GatewayPort::NotAsked => "not_asked",
        GatewayPort::None => "none",
        GatewayPort::Held(_) => "held",
        _ => "unknown",
    }
}

fn ports(pattern: PortPattern) -> (&'static str, Option<i32>) {
    match pattern {
        PortPattern::Preserving => ("preserving", None),
        PortPattern::Sequential { delta } => ("sequential", Some(delta)),
        PortPattern::Random => ("random", None),
        _ => ("unknown", None),
    }
}

fn filtering(filtering: Filtering) -> &'static str {
    match filtering {
        Filtering::EndpointIndependent => "endpoint_independent",
        Filtering::AddressDependent => "address_dependent",
        Filtering::AddressAndPortDependent => "address_and_port_dependent",
        _ => "unknown",
    }
}

fn nat64(nat64: Nat64) -> (Option<bool>, Option<String>) {
    match nat64 {
        Nat64::Absent => (Some(false), None),
        Nat64::Prefix(prefix) => (Some(true), Some(prefix.to_string())),
        _ => (None, None),
    }
}

fn reach(reach: Option<&Reach>) -> &'static str {
    match reach {
        Some(Reach::Works) => "works",
        Some(Reach::Silent) => "silent",
        Some(Reach::Failed(_)) => "failed",
        _ => "unknown",
    }
}

/// What was measured of a link's relay.
fn measured<'a>(report: &'a NatReport, link: &LinkStatus) -> Option<&'a RelayRow> {
    report.relays.iter().find(|row| row.url == link.relay)
}

/// Microseconds are as exact as a round trip can be.
fn rounded(ms: f64) -> f64 {
    (ms * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn a_name_of_which_the_resolver_says_nothing_is_told_of() {
        let mut report = NatReport::default();
        report.servers = vec![byway::discovery::ServerRow {
            label: "192.0.2.1:3478".to_owned(),
            addr: "192.0.2.1:3478".parse().unwrap(),
            mapped: None,
            rtt_ms: None,
            fault: None,
            believed: false,
            local: None,
        }];
        let asked = ["192.0.2.1:3478", "silent.test:3478", "wrong.test:3478"].map(str::to_owned);
        let named = without_address(&asked, &report, vec!["wrong.test:3478".to_owned()]);
        assert_eq!(named, ["wrong.test:3478", "silent.test:3478"]);
    }

    #[test]
    fn that_nobody_was_reached_is_said_where_nobody_was() {
        let mut report = NatReport::default();
        let url: RelayUrl = "https://relay.test".parse().unwrap();
        report.relays = vec![RelayRow::new(url.clone())];
        let mut link = LinkStatus::unlinked(url);
        link.error = Some("the relay refuses".to_owned());
        let links = [link];
        let said = |report: &NatReport| nobody(report, &links).summary();
        assert!(said(&report).contains("nobody"), "{}", said(&report));
        report.relays[0].tls = Reach::Works;
        assert!(
            said(&report).contains("the relay refuses"),
            "{}",
            said(&report)
        );
        report.captive_portal = Some(true);
        assert!(
            said(&report).contains("captive portal"),
            "{}",
            said(&report)
        );
    }

    #[test]
    fn scripts_find_the_names_they_rely_on() {
        let report = NatReport::default();
        let names = ["nosuch.invalid:3478".to_owned()];
        let seen = Seen {
            report: &report,
            links: &[],
            unresolved: &names,
            proxy: None,
            proxied: Vec::new(),
            map: None,
        };
        let json = serde_json::to_value(for_scripts(&seen)).unwrap();
        assert_eq!(json["unresolved"][0], "nosuch.invalid:3478");
        for name in [
            "udp_v4",
            "udp_v6",
            "reflexive_v4",
            "reflexive_v6",
            "mapping",
            "mapping_v6",
            "port_dependent",
            "ports",
            "public",
            "filtering",
            "hairpin",
            "double_nat",
            "port_mapping",
            "port_mapping_state",
            "mtu",
            "nat64",
            "nat64_prefix",
            "quic_filtered",
            "captive_portal",
            "captive_portal_evidence",
            "preferred_relay",
            "proxy",
            "servers",
            "relays",
            "findings",
            "generation",
        ] {
            assert!(json.get(name).is_some(), "{name}");
        }
        assert_eq!(json["mapping"], "unknown");
        assert_eq!(json["filtering"], "unknown");
        assert_eq!(json["port_mapping_state"], "not_asked");
        for unknown in ["udp_v4", "hairpin", "double_nat", "mtu", "nat64"] {
            assert!(json[unknown].is_null(), "unknown is null, never a guess");
        }
    }
}
