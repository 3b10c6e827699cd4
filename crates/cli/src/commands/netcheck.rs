//! `byway netcheck`: what the network around this machine allows.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use byway::discovery::{Mapping, MappingProtocol, NatReport, PortPattern};
use byway::endpoint::LinkStatus;
use byway::proxy::{ProxyInUse, ProxySource};
use byway::{Admission, Carrier, Endpoint};
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::args;
use crate::client;
use crate::failure::{Code, Failure};
use crate::output::{self, json_line, print_line};

/// How long a relay may take to be linked, over UDP or, 300 ms later, over TLS.
const LINK: Duration = Duration::from_secs(5);

/// How long the other carrier of a relay is waited for when one has failed: TLS begins at once then.
const OTHER_CARRIER: Duration = Duration::from_secs(1);

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
    port_mapping: Option<PortMapping>,
    /// What TLS links go through.
    proxy: Option<Proxy>,
    servers: Vec<Server<'a>>,
    relays: Vec<Relay<'a>>,
    /// Names of servers that do not resolve.
    unresolved: &'a [String],
    generation: u64,
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
    carrier: Option<&'static str>,
    observed: Option<SocketAddr>,
    tls_intercepted: bool,
    /// TLS to it goes through the proxy.
    proxied: bool,
    error: Option<&'a str>,
}

pub(crate) async fn run(args: args::Netcheck) -> Result<(), Failure> {
    if args.relays.is_empty() && args.stun.is_empty() {
        return Err(Failure::new(Code::Usage, "nobody to ask")
            .why("what a network does to packets can only be seen from outside of it")
            .hint(
                "byway netcheck --relay URL, or --stun HOST:PORT; two servers tell more than one",
            ));
    }
    // An endpoint that accepts keeps links to its relays; this one admits nobody.
    let mut builder = Endpoint::builder()
        .accept(Admission::default())
        .proxy(client::proxy(args.proxy.as_ref())?)
        .port_mapping(!args.no_port_mapping);
    for relay in &args.relays {
        builder = builder.relay(relay.clone());
    }
    for server in &args.stun {
        builder = builder.stun_server(server.clone());
    }
    let endpoint = builder
        .bind()
        .await
        .map_err(|error| Failure::bind(&error))?;
    let check = async {
        if args.relays.is_empty() {
            return endpoint.discover().await;
        }
        let (report, ()) = tokio::join!(endpoint.discover(), links(&endpoint));
        report
    };
    let report: Arc<NatReport> = tokio::select! {
        report = check => report,
        interrupted = client::interrupted() => {
            endpoint.close().await;
            return Err(interrupted);
        }
    };
    let links = endpoint.links().borrow().clone();
    let unresolved = endpoint.unresolved();
    let seen = Seen {
        report: &report,
        links: &links,
        unresolved: &unresolved,
        proxy: endpoint.proxy(),
        proxied: links
            .iter()
            .map(|link| endpoint.is_proxied(&link.relay))
            .collect(),
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
    let silent = args.relays.is_empty() && asked.len() > 0;
    if answered || silent || links.iter().any(|link| link.carrier.is_some()) {
        return Ok(());
    }
    Err(
        Failure::new(Code::NoPath, "nobody who was asked could be reached")
            .hint("is this machine online, and are the names and addresses right?"),
    )
}

/// Waits until every relay is linked or has said why not, or until it is too late.
async fn links(endpoint: &Endpoint) {
    let mut links = endpoint.links();
    let known = |link: &LinkStatus| link.carrier.is_some() || link.error.is_some();
    let all = links.wait_for(|links| links.iter().all(known));
    // Whichever are up by then are reported as up.
    let _ = tokio::time::timeout(LINK, all).await;
    // Where one carrier has failed the other may still be on its way.
    let up = links.wait_for(|links| links.iter().all(|link| link.carrier.is_some()));
    let _ = tokio::time::timeout(OTHER_CARRIER, up).await;
}

/// All there is to tell.
struct Seen<'a> {
    report: &'a NatReport,
    links: &'a [LinkStatus],
    unresolved: &'a [String],
    proxy: Option<ProxyInUse>,
    /// Beside `links`.
    proxied: Vec<bool>,
}

impl Seen<'_> {
    /// The links, and whether TLS to their relays goes through the proxy.
    fn links(&self) -> impl Iterator<Item = (&LinkStatus, bool)> {
        self.links.iter().zip(self.proxied.iter().copied())
    }
}

fn for_scripts<'a>(seen: &'a Seen<'a>) -> Report<'a> {
    let report = seen.report;
    let (ports, port_delta) = ports(report.ports);
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
        port_mapping: report.port_mapping.map(|mapping| PortMapping {
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
                rtt_ms: row.rtt_ms.map(|ms| (ms * 1e3).round() / 1e3),
                fault: row.fault.as_deref(),
                believed: row.believed,
                local: row.local,
            })
            .collect(),
        relays: seen
            .links()
            .map(|(link, proxied)| Relay {
                url: link.relay.to_string(),
                carrier: link.carrier.map(client::carrier_name),
                observed: link.observed,
                tls_intercepted: link.intercepted,
                proxied,
                error: link.error.as_deref(),
            })
            .collect(),
        unresolved: seen.unresolved,
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

fn ports(pattern: PortPattern) -> (&'static str, Option<i32>) {
    match pattern {
        PortPattern::Preserving => ("preserving", None),
        PortPattern::Sequential { delta } => ("sequential", Some(delta)),
        PortPattern::Random => ("random", None),
        _ => ("unknown", None),
    }
}

fn show(seen: &Seen<'_>) {
    let (report, links) = (seen.report, seen.links);
    let style = output::stdout();
    let yes_no = |fact: Option<bool>| match fact {
        Some(true) => style.green("yes"),
        Some(false) => style.red("no"),
        None => style.dim("unknown"),
    };
    let addr = |addr: Option<SocketAddr>| match addr {
        Some(addr) => addr.to_string(),
        None => style.dim("unknown"),
    };
    let (pattern, delta) = ports(report.ports);
    let pattern = delta.map_or_else(
        || pattern.to_owned(),
        |delta| format!("{pattern}, {delta:+}"),
    );
    for (name, value) in [
        ("UDP over IPv4", yes_no(report.udp_v4)),
        ("UDP over IPv6", yes_no(report.udp_v6)),
        ("public IPv4 address", addr(report.reflexive_v4)),
        ("public IPv6 address", addr(report.reflexive_v6)),
        ("NAT mapping", mapping(report.mapping).replace('_', " ")),
        (
            "NAT mapping, IPv6",
            mapping(report.mapping_v6).replace('_', " "),
        ),
        ("external ports", pattern),
        ("address is this host's own", yes_no(report.public)),
        (
            "port given by the gateway",
            report.port_mapping.map_or_else(
                || "none".to_owned(),
                |m| format!("{} by {}", m.external, protocol(m.protocol)),
            ),
        ),
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
    ] {
        print_line(&format!("{name:<28}{value}"));
    }
    if !report.servers.is_empty() {
        let mut table = table(["STUN server", "address", "sees us as", "ms", "remark"]);
        for row in &report.servers {
            table.add_row([
                row.label.clone(),
                row.addr.to_string(),
                row.mapped.map_or_else(String::new, |addr| addr.to_string()),
                row.rtt_ms.map_or_else(String::new, |ms| format!("{ms:.1}")),
                row.fault.clone().unwrap_or_default(),
            ]);
        }
        print_line(&format!("\n{table}"));
    }
    if !links.is_empty() {
        let mut table = table(["relay", "link", "sees us as", "remark"]);
        for link in links {
            table.add_row([
                format!("{}:{}", link.relay.host(), link.relay.port()),
                link.carrier.map_or("none", client::carrier_name).to_owned(),
                link.observed
                    .map_or_else(String::new, |addr| addr.to_string()),
                link.error.clone().unwrap_or_default(),
            ]);
        }
        print_line(&format!("\n{table}"));
    }
    for finding in findings(seen) {
        print_line(&format!("\n{} {finding}", style.bold("*")));
    }
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header);
    table
}

/// What it means for a person.
fn findings(seen: &Seen<'_>) -> Vec<String> {
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
    let udp = report.udp_v4 == Some(true) || report.udp_v6 == Some(true);
    let linked = |wanted| links.iter().any(|link| link.carrier == Some(wanted));
    if !udp && linked(Carrier::Tls) {
        findings.push(
            "UDP does not get out of this network. Tunnels run over TLS, slower, and never direct."
                .to_owned(),
        );
    } else if !udp && !report.servers.is_empty() {
        findings.push(
            "No server answered over UDP: it is blocked here, or the servers are down.".to_owned(),
        );
    }
    match report.mapping {
        Mapping::EndpointIndependent => findings.push(
            "The NAT keeps one port for all destinations: direct paths work with most networks."
                .to_owned(),
        ),
        Mapping::AddressDependent | Mapping::AddressAndPortDependent => findings.push(
            "The NAT takes another port for each destination: direct paths need an easier network at the other end."
                .to_owned(),
        ),
        _ if udp && report.public != Some(true) => findings.push(
            "One server is not enough to tell how the NAT maps ports: name a second with --stun or --relay."
                .to_owned(),
        ),
        _ => {}
    }
    if report.port_mapping.is_some_and(|m| !m.leads_outside()) {
        findings.push(
            "The gateway gives a port, but is itself behind another NAT: the port leads nowhere."
                .to_owned(),
        );
    }
    if report.public == Some(true) {
        findings.push("There is no NAT between this host and the servers asked.".to_owned());
    }
    for link in links.iter().filter(|link| link.intercepted) {
        findings.push(format!(
            "TLS to {} is ended on the way, by an ingress or an inspecting proxy. Tunnels stay sealed end to end.",
            link.relay
        ));
    }
    for link in links.iter().filter(|link| link.carrier.is_none()) {
        let why = link.error.as_deref().unwrap_or("no answer");
        findings.push(format!("No link to {}: {why}.", link.relay));
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
            link.relay
        )),
        true if link.carrier == Some(Carrier::Tls) => Some(format!(
            "The link to {} goes through the proxy.",
            link.relay
        )),
        true => None,
    });
    unusable.into_iter().chain(of_links).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn nothing(report: &NatReport) -> Seen<'_> {
        Seen {
            report,
            links: &[],
            unresolved: &[],
            proxy: None,
            proxied: Vec::new(),
        }
    }

    #[test]
    fn scripts_find_the_names_they_rely_on() {
        let report = NatReport::default();
        let names = ["nosuch.invalid:3478".to_owned()];
        let seen = Seen {
            unresolved: &names,
            ..nothing(&report)
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
            "proxy",
            "servers",
            "generation",
        ] {
            assert!(json.get(name).is_some(), "{name}");
        }
        assert_eq!(json["mapping"], "unknown");
        assert!(json["udp_v4"].is_null(), "unknown is null, never a guess");
    }

    #[test]
    fn nothing_is_claimed_of_a_network_nobody_looked_at() {
        assert!(findings(&nothing(&NatReport::default())).is_empty());
    }
}
