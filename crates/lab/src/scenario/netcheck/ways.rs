//! Gateways, relays, and what may be in the way to them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use byway_sim::model::Access::{Open, PortRestricted, UdpBlocked};
use serde_json::{Value, json};

use super::super::ACCESS;
use super::{finds, ms, on_time, says};
use crate::harness::say;
use crate::process::Running;
use crate::programs::miniupnpd::{self, Miniupnpd, Speaks};
use crate::programs::{self, Authority, READY, Relay, byway, netcheck, netcheck_asking};
use crate::tool;
use crate::world::{RELAY, World};

const KEEPS: &str = "One server is not enough to tell how the NAT maps ports";
const NO_TURN: &str = "The NAT does not turn around";

/// For a report, with room for a busy machine.
const REPORT: Duration = Duration::from_secs(30);

pub(super) fn gateway() -> Result<()> {
    let world = World::with_delay(PortRestricted, PortRestricted, ACCESS)?;
    let relay = Relay::start(&world)?;
    let args = ["--relay", relay.url.as_str()];
    let state = |report: &Value| report["port_mapping_state"].clone();

    let report = netcheck(&world, &world.client, &args)?;
    ensure!(state(&report) == "not_asked", "not asked: {report}");
    shows(&world, false, &args, "not asked for")?;

    // Nobody on this router knows the question: that is known when nobody has answered for long enough, or has said so.
    let gate = world.client.gate()?;
    for silence in ["", SILENT] {
        gate.nft(silence)?;
        let report = netcheck_asking(&world, &world.client, &args)?;
        ensure!(
            state(&report) == "none" && report["port_mapping"].is_null(),
            "asked in vain: {report}"
        );
    }
    shows(&world, true, &args, "none")?;
    gate.nft("delete table inet silent\n")?;

    let (site, other) = (&world.client, &world.agent);
    let _gateway = Miniupnpd::start(&world, site, other, Speaks::Everything, 3_600)?;
    let report = netcheck_asking(&world, site, &args)?;
    let outside = miniupnpd::OUTSIDE;
    says(
        "gateway",
        &report,
        &[
            ("port_mapping_state", json!("held")),
            ("port_mapping.protocol", json!("pcp")),
            // What the gateway says of itself is not what servers see.
            ("double_nat", json!(true)),
        ],
    )?;
    let elsewhere =
        format!("The gateway says its outside address is {outside}, and servers see 203.0.113.65");
    finds("gateway", &report, &[KEEPS, &elsewhere, NO_TURN])?;
    shows(&world, true, &args, &format!("{outside}:"))
}

/// Whoever asks for a port is not even told that nobody listens there.
const SILENT: &str = "table inet silent {\n chain in { type filter hook input priority filter; policy accept;\n\
    udp dport { 1900, 5351 } drop\n }\n}\n";

/// The table for people has this behind the gateway's port.
fn shows(world: &World, ask: bool, args: &[&str], what: &str) -> Result<()> {
    let mut command = byway(world, &world.client, "netcheck")?;
    if ask {
        command.env_remove("BYWAY_NO_PORT_MAPPING");
    }
    command.arg("netcheck").args(args);
    let done = Running::run("byway netcheck", &mut command, REPORT)?.success()?;
    let out = done.stdout();
    let line = out
        .lines()
        .find(|line| line.starts_with("port given by the gateway"));
    ensure!(
        line.is_some_and(|line| line.contains(what)),
        "nothing of {what:?} in {line:?}: {out}"
    );
    Ok(())
}

/// Less than these, in milliseconds, is what a round trip of 10 takes, and one of 50, with a machine's own time.
const NEAR: f64 = 40.0;
const FAR: f64 = 90.0;

pub(super) fn two_relays() -> Result<()> {
    for (kind, over) in [(PortRestricted, "UDP"), (UdpBlocked, "TLS")] {
        let world = World::with_delay(kind, Open, ACCESS)?;
        world.emulator().link("stun2", "delay=20ms")?;
        let near = Relay::start(&world)?;
        let far = Relay::start_on(&world, &world.stun_2)?;
        // The farther one first: it is not the order that decides.
        let args = ["--relay", far.url.as_str(), "--relay", near.url.as_str()];
        let names: &[&str] = match over {
            "UDP" => &["stun_ms", "udp_ms", "tls_ms"],
            _ => &["tls_ms"],
        };
        let report = on_time(
            || netcheck(&world, &world.client, &args),
            |report| {
                let short =
                    |relay, name, most| ms(report, relay, name).map_or(true, |took| took < most);
                names
                    .iter()
                    .all(|name| short(0, name, FAR) && short(1, name, NEAR))
            },
        )?;
        for name in names {
            let (far, near) = (ms(&report, 0, name)?, ms(&report, 1, name)?);
            say(format!("{kind:?}: {name} {far} and {near}"));
            ensure!(
                (10.0..NEAR).contains(&near) && (50.0..FAR).contains(&far),
                "{kind:?}: {name} {far} and {near}: {report}"
            );
        }
        says(
            &format!("{kind:?}"),
            &report,
            &[("preferred_relay.url", json!(near.url))],
        )?;
        let reason = report["preferred_relay"]["reason"]
            .as_str()
            .unwrap_or_default();
        ensure!(
            reason.contains(&format!("lowest latency over {over}")),
            "{kind:?}: {reason}"
        );
        let preferred = format!("Preferred relay: 203.0.113.10:443, {reason}.");
        let findings = report["findings"].to_string();
        ensure!(findings.contains(&preferred), "{kind:?}: {findings}");
    }
    Ok(())
}

pub(super) fn narrow() -> Result<()> {
    let world = World::with_delay(PortRestricted, Open, ACCESS)?;
    world.emulator().link("client", "delay=5ms mtu=1340")?;
    let relay = Relay::start(&world)?;
    let report = netcheck(&world, &world.client, &["--relay", &relay.url])?;
    let mtu = report["mtu"]
        .as_u64()
        .with_context(|| format!("no mtu: {report}"))?;
    // IPv4 and UDP take 28 bytes; the search's steps are of 8.
    ensure!(
        (1_305..=1_312).contains(&mtu),
        "of 1312 bytes {mtu} pass: {report}"
    );
    finds(
        "narrow",
        &report,
        &[
            KEEPS,
            NO_TURN,
            &format!("Datagrams of more than {mtu} bytes do not come back"),
            // Nobody on this path says what is too large: TCP sends its certificates in vain.
            "TLS does not lead to https://203.0.113.10:443",
        ],
    )
}

/// The first bit of QUIC's long header, which begins every connection, is set; the first two of STUN's are not.
const NO_QUIC: &str = "add rule inet filter cut udp dport { 443, 3478 } @th,64,1 1 drop\n";

pub(super) fn quic_filtered() -> Result<()> {
    let world = World::with_delay(PortRestricted, Open, ACCESS)?;
    world
        .client
        .router
        .as_ref()
        .context("a router")?
        .nft(NO_QUIC)?;
    let relay = Relay::start(&world)?;
    let report = netcheck(&world, &world.client, &["--relay", &relay.url])?;
    says(
        "no QUIC",
        &report,
        &[
            ("udp_v4", json!(true)),
            ("quic_filtered", json!(true)),
            ("relays.0.carrier", json!("tls")),
            ("relays.0.udp", json!("silent")),
            ("relays.0.tls", json!("works")),
            ("mtu", Value::Null),
        ],
    )?;
    ms(&report, 0, "stun_ms")?;
    finds(
        "no QUIC",
        &report,
        &[
            "UDP gets out (STUN is answered), but QUIC does not",
            KEEPS,
            NO_TURN,
        ],
    )
}

/// Whoever asks for a page anywhere gets the router's.
const TO_THE_PORTAL: &str =
    "insert rule ip nat prerouting iifname \"lan0\" tcp dport { 80, 443 } redirect to :8008\n";

/// One that answers TLS with HTTP in clear, and one that ends it under a certificate of its own.
pub(super) fn portal() -> Result<()> {
    for (tls, who) in [
        (false, "somebody without TLS"),
        (true, "somebody with another certificate"),
    ] {
        told_of(tls, who)?;
    }
    Ok(())
}

fn told_of(tls: bool, who: &str) -> Result<()> {
    let world = World::with_delay(UdpBlocked, Open, ACCESS)?;
    let relay = Relay::start(&world)?;
    let router = world.client.router.as_ref().context("a router")?;
    router.nft(TO_THE_PORTAL)?;
    let mut args = vec!["0.0.0.0:8008".to_owned()];
    if tls {
        let own = Authority::new("portal")?.certify(&world, RELAY)?;
        args.extend([own.cert, own.key].map(|file| file.display().to_string()));
    }
    let portal = programs::tool(router, "portal", &args)?;
    portal.first_line("readiness", READY)?;
    let mut command = byway(&world, &world.client, "netcheck")?;
    command.args(["netcheck", "--json", "--relay", &relay.url]);
    let done = Running::run("byway netcheck", &mut command, REPORT)?;
    ensure!(
        done.code == Some(5),
        "nobody was reached, and it ended {:?}",
        done.code
    );
    let report: Value = serde_json::from_str(&done.stdout())?;
    says(
        "portal",
        &report,
        &[
            ("captive_portal", json!(true)),
            // Nobody answered at all: the servers might be down.
            ("udp_v4", Value::Null),
            ("relays.0.carrier", Value::Null),
            ("relays.0.tls", json!("failed")),
            ("preferred_relay", Value::Null),
        ],
    )?;
    let evidence = report["captive_portal_evidence"]
        .as_str()
        .unwrap_or_default();
    let told = format!(
        "{who} answers for 203.0.113.10: HTTP 302, go to {}",
        tool::LOGIN
    );
    ensure!(evidence == told, "portal: {evidence}");
    finds(
        "portal",
        &report,
        &[
            "A captive portal is in the way",
            "No server answered over UDP",
            "No link to https://203.0.113.10:443",
        ],
    )
}
