//! The kinds of network, each with all that is to be found out about it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use anyhow::{Context, Result, ensure};
use byway_sim::model::Access::*;
use serde_json::{Value, json};

use super::super::ACCESS;
use super::{asked, finds, ms, on_time, says, servers};
use crate::Kind;
use crate::kinds::IPV6_ONLY;
use crate::programs::{self, Relay};
use crate::world::ipv6::RELAY_V6;
use crate::world::{CLIENT_PUBLIC, Site, World};

/// Mapping and filtering, as the report names them.
const ENDPOINT: &str = "endpoint_independent";
const ADDRESS: &str = "address_dependent";
const PORT: &str = "address_and_port_dependent";
const UNKNOWN: &str = "unknown";

/// Beginnings of findings.
const KEEPS: &str = "The NAT keeps one port for all destinations";
const ANOTHER: &str = "This network gives every destination another port";
const ANYBODY: &str = "Nothing filters what comes in";
const CALLED: &str = "Only addresses that this host has called";
const VERY: &str = "Only the very address and port";
const NO_TURN: &str = "The NAT does not turn around";
const TURNS: &str = "The NAT turns around";

/// What a kind of network is.
struct Truth {
    kind: Kind,
    mapping: &'static str,
    ports: &'static str,
    filtering: &'static str,
    hairpin: Option<bool>,
    findings: &'static [&'static str],
}

const TRUTHS: [Truth; 11] = [
    Truth {
        kind: Kind::of(Open),
        mapping: ENDPOINT,
        ports: "preserving",
        filtering: ENDPOINT,
        hairpin: None,
        findings: &["There is no NAT", ANYBODY],
    },
    Truth {
        kind: Kind::of(FullCone),
        mapping: ENDPOINT,
        ports: "preserving",
        filtering: ENDPOINT,
        hairpin: Some(false),
        findings: &[KEEPS, ANYBODY, NO_TURN],
    },
    Truth {
        kind: Kind::of(AddressRestricted),
        mapping: ENDPOINT,
        ports: "preserving",
        filtering: ADDRESS,
        hairpin: Some(false),
        findings: &[KEEPS, CALLED, NO_TURN],
    },
    Truth {
        kind: Kind::of(PortRestricted),
        mapping: ENDPOINT,
        ports: "preserving",
        filtering: PORT,
        hairpin: Some(false),
        findings: &[KEEPS, VERY, NO_TURN],
    },
    Truth {
        kind: Kind::of(CarrierGrade),
        mapping: ENDPOINT,
        ports: "preserving",
        filtering: PORT,
        hairpin: Some(false),
        findings: &[KEEPS, VERY, NO_TURN],
    },
    Truth {
        kind: Kind::of(Sequential),
        mapping: PORT,
        ports: "sequential",
        // Calling one port of a server opens none to another (the tests of RFC 5780 cannot tell).
        filtering: UNKNOWN,
        hairpin: None,
        findings: &[ANOTHER],
    },
    Truth {
        kind: Kind::of(AddressDependent),
        mapping: ADDRESS,
        ports: "random",
        filtering: PORT,
        hairpin: None,
        findings: &[ANOTHER, VERY],
    },
    Truth {
        kind: Kind::of(Symmetric),
        mapping: PORT,
        ports: "random",
        filtering: UNKNOWN,
        hairpin: None,
        findings: &[ANOTHER],
    },
    Truth {
        kind: Kind::of(UdpBlocked),
        mapping: UNKNOWN,
        ports: UNKNOWN,
        filtering: UNKNOWN,
        hairpin: None,
        findings: &["UDP does not get out of this network. Tunnels run over TLS"],
    },
    Truth {
        kind: Kind::of(ProxyOnly),
        mapping: UNKNOWN,
        ports: UNKNOWN,
        filtering: UNKNOWN,
        hairpin: None,
        findings: &[
            "The link to https://203.0.113.10:443",
            "UDP does not get out of this network. Tunnels run over TLS",
        ],
    },
    Truth {
        kind: IPV6_ONLY,
        mapping: ENDPOINT,
        // It is the translator that has a port of IPv4.
        ports: UNKNOWN,
        filtering: UNKNOWN,
        hairpin: Some(false),
        findings: &[
            KEEPS,
            NO_TURN,
            "IPv4 is reached from this network by a translator (NAT64), behind 2001:db8:64::/96",
        ],
    },
];

pub(super) fn all() -> Result<()> {
    // All that is wrong, not what is wrong first.
    let mut wrong = Vec::new();
    for truth in &TRUTHS {
        let world = World::with_delay(truth.kind, Open, ACCESS)?;
        let relay = Relay::start(&world)?;
        let _servers = servers(&world)?;
        let args = asked(&relay.url);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let report = on_time(
            || programs::netcheck(&world, &world.client, &args),
            |report| truth.is_on_time(report),
        )?;
        if let Err(error) = truth.judge(&report) {
            wrong.push(format!("{error:#}"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

impl Truth {
    fn judge(&self, report: &Value) -> Result<()> {
        let what = self.kind.to_string();
        let udp = !self.kind.0.access.is_tls_only();
        let open = self.kind == Kind::of(Open);
        let translated = self.kind == IPV6_ONLY;
        let proxied = self.kind == Kind::of(ProxyOnly);
        let carrier = if udp { "udp" } else { "tls" };
        let way = |works: bool| if works { "works" } else { "silent" };
        let null = Value::Null;
        says(
            &what,
            report,
            &[
                ("udp_v4", json!(udp)),
                ("udp_v6", null.clone()),
                ("reflexive_v6", null.clone()),
                ("mapping", json!(self.mapping)),
                ("mapping_v6", json!(UNKNOWN)),
                ("ports", json!(self.ports)),
                ("public", if udp { json!(open) } else { null.clone() }),
                ("filtering", json!(self.filtering)),
                ("hairpin", json!(self.hairpin)),
                ("double_nat", if open { json!(false) } else { null.clone() }),
                ("port_mapping", null.clone()),
                ("port_mapping_state", json!("not_asked")),
                ("mtu", if udp { json!(1_452) } else { null.clone() }),
                // Elsewhere there is nobody to ask.
                (
                    "nat64",
                    if translated {
                        json!(true)
                    } else {
                        null.clone()
                    },
                ),
                (
                    "quic_filtered",
                    if udp { json!(false) } else { null.clone() },
                ),
                ("captive_portal", json!(false)),
                ("captive_portal_evidence", null.clone()),
                ("preferred_relay.reason", json!("the only one asked")),
                ("relays.0.carrier", json!(carrier)),
                ("relays.0.tls_intercepted", json!(false)),
                ("relays.0.proxied", json!(proxied)),
                ("relays.0.error", null.clone()),
                ("relays.0.udp", json!(way(udp))),
                ("relays.0.tls", json!("works")),
            ],
        )?;
        let prefix = if translated {
            json!("2001:db8:64::/96")
        } else {
            null.clone()
        };
        says(&what, report, &[("nat64_prefix", prefix)])?;
        let source = if proxied { json!("HTTPS_PROXY") } else { null };
        says(&what, report, &[("proxy.source", source)])?;
        self.judge_addresses(&what, report)?;
        self.judge_latencies(&what, report)?;
        finds(&what, report, self.findings)
    }

    /// Where others see it, and who says so.
    fn judge_addresses(&self, what: &str, report: &Value) -> Result<()> {
        let own = format!("{CLIENT_PUBLIC}:");
        let is_own = |addr: &Value| addr.as_str().is_some_and(|addr| addr.starts_with(&own));
        let udp = !self.kind.0.access.is_tls_only();
        let seen = &report["reflexive_v4"];
        ensure!(
            is_own(seen) == udp && seen.is_null() != udp,
            "{what}: seen at {seen}"
        );
        // The relay at its two ports, the two servers, and where else the first of these says that it is. Who was not waited for,
        // because others had told enough, has no fault.
        let servers = report["servers"].as_array().context("no servers")?;
        ensure!(servers.len() >= 4, "{what}: who was asked? {report}");
        let mut believed = 0;
        for server in servers {
            let heard = is_own(&server["mapped"]) && server["rtt_ms"].is_number();
            let not_heard = server["mapped"].is_null() && server["believed"] == false;
            ensure!(
                if udp {
                    heard || not_heard && server["fault"].is_null()
                } else {
                    not_heard
                },
                "{what}: {server}"
            );
            believed += usize::from(server["believed"] == true);
        }
        ensure!(
            (believed >= 2) == udp,
            "{what}: {believed} believed: {report}"
        );
        let delta = &report["port_delta"];
        ensure!(
            (self.kind == Kind::of(Sequential)) == (*delta == json!(1))
                && (self.kind == Kind::of(Sequential)) != delta.is_null(),
            "{what}: it counts by {delta}"
        );
        // Whether ports matter is seen by two of one server; without, who had told enough was one of each.
        let heard = servers.iter().filter(|server| is_own(&server["mapped"]));
        let hosts = heard.filter_map(|server| server["addr"].as_str()?.rsplit_once(':'));
        let mut hosts: Vec<&str> = hosts.map(|(host, _)| host).collect();
        hosts.sort_unstable();
        let by_two = hosts.windows(2).any(|two| two[0] == two[1]);
        let dependent = match self.mapping {
            UNKNOWN => Value::Null,
            mapping if by_two => json!(mapping == PORT),
            mapping => {
                ensure!(
                    mapping != PORT,
                    "{what}: it was seen by no server: {report}"
                );
                Value::Null
            }
        };
        says(what, report, &[("port_dependent", dependent)])
    }

    /// A round trip to the relay takes 10 ms, and a busy machine's time.
    fn judge_latencies(&self, what: &str, report: &Value) -> Result<()> {
        let udp = !self.kind.0.access.is_tls_only();
        for name in ["stun_ms", "udp_ms"] {
            let is_there = report["relays"][0][name].is_number();
            ensure!(is_there == udp, "{what}: {name} of {report}");
        }
        for name in self.latencies() {
            let (took, most) = (ms(report, 0, name)?, self.longest());
            ensure!((10.0..most).contains(&took), "{what}: {name} is {took}");
        }
        Ok(())
    }

    /// Those that are measured.
    fn latencies(&self) -> &'static [&'static str] {
        if self.kind.0.access.is_tls_only() {
            &["tls_ms"]
        } else {
            &["stun_ms", "udp_ms", "tls_ms"]
        }
    }

    /// The longest that each of them may be, in milliseconds. A proxy takes its own time.
    fn longest(&self) -> f64 {
        if self.kind == Kind::of(ProxyOnly) {
            500.0
        } else {
            60.0
        }
    }

    /// Whether none is longer; what is not there is no matter of time.
    fn is_on_time(&self, report: &Value) -> bool {
        let short = |took: f64| took < self.longest();
        let mut latencies = self.latencies().iter();
        latencies.all(|name| ms(report, 0, name).map_or(true, short))
    }
}

/// What is not a kind of its own.
pub(super) fn variants() -> Result<()> {
    turns_around()?;
    carriers_address()
}

/// Both families, each with a relay and another server: a NAT for the one, and a firewall that translates nothing for the other.
pub(super) fn dual_stack() -> Result<()> {
    let world = World::with_delay(PortRestricted, PortRestricted, ACCESS)?;
    world.add_ipv6()?;
    let relay = Relay::start_dual(&world)?;
    let second = Ipv6Addr::from(RELAY_V6.to_bits() + 1);
    world
        .relay
        .namespace
        .ip(&format!("addr add {second}/64 dev eth0 nodad\n"))?;
    let stun = SocketAddr::new(second.into(), 3478).to_string();
    let _second = Relay::start_at(&world, std::slice::from_ref(&stun))?;
    let _servers = servers(&world)?;
    let mut args = asked(&relay.url);
    args.extend(["--stun".to_owned(), stun]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let report = programs::netcheck(&world, &world.client, &args)?;
    says(
        "dual stack",
        &report,
        &[
            ("udp_v4", json!(true)),
            ("udp_v6", json!(true)),
            ("mapping", json!(ENDPOINT)),
            ("mapping_v6", json!(ENDPOINT)),
            ("public", json!(false)),
        ],
    )?;
    for (field, own) in [
        ("reflexive_v4", IpAddr::V4(CLIENT_PUBLIC)),
        ("reflexive_v6", world.client.v6()?.into()),
    ] {
        let seen: Option<SocketAddr> = report[field].as_str().and_then(|at| at.parse().ok());
        ensure!(
            seen.is_some_and(|seen| seen.ip() == own),
            "{field} should be of {own}: {report}"
        );
    }
    finds("dual stack", &report, &[KEEPS, VERY, NO_TURN])
}

fn turns_around() -> Result<()> {
    let client = Site::behind(PortRestricted).access(ACCESS).hairpins();
    let world = World::of(
        World::servers()
            .site("client", client)
            .site("agent", Site::behind(Open).access(ACCESS)),
    )?;
    let report = check(&world)?;
    says("hairpin", &report, &[("hairpin", json!(true))])?;
    finds("hairpin", &report, &[KEEPS, VERY, TURNS])
}

/// A host on a carrier's own network, as a telephone is.
fn carriers_address() -> Result<()> {
    let world = World::with_delay(PortRestricted, Open, ACCESS)?;
    let router = world.client.router.as_ref().context("a router")?;
    router.ip("addr add 100.64.9.1/24 dev lan0\n")?;
    world.client.namespace.ip(
        "addr flush dev eth0 scope global\naddr add 100.64.9.2/24 dev eth0\nroute replace default via 100.64.9.1\n",
    )?;
    let report = check(&world)?;
    says("carrier", &report, &[("double_nat", json!(true))])?;
    finds(
        "carrier",
        &report,
        &[
            KEEPS,
            VERY,
            "This host's address, 100.64.9.2, is of the range kept for",
            NO_TURN,
        ],
    )
}

fn check(world: &World) -> Result<Value> {
    let relay = Relay::start(world)?;
    let _servers = servers(world)?;
    let args = asked(&relay.url);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    programs::netcheck(world, &world.client, &args)
}
