//! Other people's STUN: our discovery against coturn, and other clients against our relay.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Result, ensure};
use byway_sim::model::Access::{self, Open, PortRestricted, Symmetric, UdpBlocked};
use serde_json::Value;

use super::SHORT;
use crate::harness::{Need, Scenario, say};
use crate::process::Running;
use crate::programs::{COTURN_PORT, Relay, coturn, netcheck};
use crate::world::{CLIENT_PUBLIC, STUN_1, STUN_2, World};

const COTURN_ALONE: &[Need] = &[
    Need::Namespaces,
    Need::Tool("turnserver"),
    Need::Tool("turnutils_stunclient"),
];
const WITH_COTURN: &[Need] = &[
    Need::Namespaces,
    Need::Binaries,
    Need::Tool("turnserver"),
    Need::Tool("turnutils_stunclient"),
];
const WITH_STUN: &[Need] = &[Need::Namespaces, Need::Binaries, Need::Tool("stun")];

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "interop::coturn_and_its_client_agree_with_the_laboratory",
        needs: COTURN_ALONE,
        run: coturn_alone,
    },
    Scenario {
        name: "interop::netcheck_names_every_mapping_with_two_coturns",
        needs: WITH_COTURN,
        run: mappings_with_coturn,
    },
    Scenario {
        name: "interop::netcheck_names_a_mapping_with_coturn_beside_our_relay",
        needs: WITH_COTURN,
        run: coturn_beside_relay,
    },
    Scenario {
        name: "interop::netcheck_says_unknown_with_one_stun_server",
        needs: WITH_COTURN,
        run: one_server,
    },
    Scenario {
        name: "interop::a_dead_stun_server_changes_nothing_but_its_own_row",
        needs: WITH_COTURN,
        run: dead_server,
    },
    Scenario {
        name: "interop::coturns_client_is_answered_by_our_relay",
        needs: WITH_COTURN,
        run: turnutils,
    },
    Scenario {
        name: "interop::the_rfc_3489_client_is_answered_by_our_relay",
        needs: WITH_STUN,
        run: stun_client,
    },
];

fn server(ip: Ipv4Addr) -> String {
    format!("{ip}:{COTURN_PORT}")
}

fn mappings_with_coturn() -> Result<()> {
    for (kind, expected) in [
        (Open, "endpoint_independent"),
        (PortRestricted, "endpoint_independent"),
        (Symmetric, "address_and_port_dependent"),
        (UdpBlocked, "unknown"),
    ] {
        let world = World::new(kind, Open)?;
        let _one = coturn(&world, &world.stun_1, &STUN_1)?;
        let _two = coturn(&world, &world.stun_2, &[STUN_2])?;
        // Two ports of one server show port dependence, two servers show address dependence.
        let (one, two) = (server(STUN_1[0]), server(STUN_2));
        let other_port = format!("{}:{}", STUN_1[0], COTURN_PORT + 1);
        let args = ["--stun", &one, "--stun", &other_port, "--stun", &two];
        let report = netcheck(&world, &world.client, &args)?;
        judge(kind, &report, expected)?;
    }
    Ok(())
}

fn coturn_beside_relay() -> Result<()> {
    for (kind, expected, carrier) in [
        (PortRestricted, "endpoint_independent", "udp"),
        (Symmetric, "address_and_port_dependent", "udp"),
        (UdpBlocked, "unknown", "tls"),
    ] {
        let world = World::new(kind, Open)?;
        let relay = Relay::start(&world)?;
        let _coturn = coturn(&world, &world.stun_2, &[STUN_2])?;
        let (other_port, two) = (format!("{}:3478", world.relay.addr), server(STUN_2));
        let args = ["--relay", &relay.url, "--stun", &other_port, "--stun", &two];
        let report = netcheck(&world, &world.client, &args)?;
        ensure!(report["mapping"] == expected, "behind {kind:?}: {report}");
        let row = &report["relays"][0];
        ensure!(
            row["carrier"] == carrier,
            "behind {kind:?}, the link should be by {carrier}: {report}"
        );
        say(format!("{kind:?}: mapping {expected}, link {row}"));
    }
    Ok(())
}

fn one_server() -> Result<()> {
    let world = World::new(PortRestricted, Open)?;
    let _coturn = coturn(&world, &world.stun_2, &[STUN_2])?;
    let report = netcheck(&world, &world.client, &["--stun", &server(STUN_2)])?;
    judge(PortRestricted, &report, "unknown")
}

fn dead_server() -> Result<()> {
    let world = World::new(PortRestricted, Open)?;
    let _one = coturn(&world, &world.stun_1, &STUN_1)?;
    let _two = coturn(&world, &world.stun_2, &[STUN_2])?;
    let dead = format!("{}:{COTURN_PORT}", crate::world::NOBODY);
    let args = [
        "--stun",
        &dead,
        "--stun",
        &server(STUN_1[0]),
        "--stun",
        &server(STUN_2),
    ];
    judge(
        PortRestricted,
        &netcheck(&world, &world.client, &args)?,
        "endpoint_independent",
    )
}

fn judge(kind: Access, report: &Value, mapping: &str) -> Result<()> {
    say(format!("{kind:?}: {report}"));
    ensure!(
        report["mapping"] == mapping,
        "behind {kind:?}, mapping should be {mapping}: {report}"
    );
    let text = report.to_string();
    ensure!(
        (kind == UdpBlocked) != text.contains(&CLIENT_PUBLIC.to_string()),
        "the reflexive address should be {}: {report}",
        if kind == UdpBlocked {
            "unknown"
        } else {
            "203.0.113.65"
        }
    );
    Ok(())
}

fn coturn_alone() -> Result<()> {
    let world = World::new(PortRestricted, Open)?;
    let _coturn = coturn(&world, &world.stun_1, &STUN_1)?;
    ask_with_coturns_client(&world, STUN_1[0], COTURN_PORT)
}

fn turnutils() -> Result<()> {
    let world = World::new(PortRestricted, Open)?;
    let _relay = Relay::start(&world)?;
    ask_with_coturns_client(&world, world.relay.addr, 443)?;
    ask_with_coturns_client(&world, world.relay.addr, 3478)
}

fn ask_with_coturns_client(world: &World, server: Ipv4Addr, port: u16) -> Result<()> {
    let mut command = world.client.namespace.command("turnutils_stunclient");
    command.args(["-p", &port.to_string(), &server.to_string()]);
    // Its first answer is enough; it may go on to RFC 5780's other address, which a server need not have.
    let client = Running::start("turnutils_stunclient", &mut command)?;
    let seen = client.wait_for("reflexive address", SHORT, |l| {
        l.text
            .split_once("UDP reflexive addr: ")
            .and_then(|(_, a)| a.trim().parse::<SocketAddr>().ok())
    })?;
    ensure!(seen.ip() == CLIENT_PUBLIC, "{server}:{port}: {seen}");
    say(format!("{server}:{port}: coturn's client saw {seen}"));
    Ok(())
}

fn stun_client() -> Result<()> {
    let world = World::new(PortRestricted, Open)?;
    let _relay = Relay::start(&world)?;
    let mut command = world.client.namespace.command("stun");
    // Test 1 of RFC 3489 asks for the mapped address, from the same address and port.
    command.args([&format!("{}:3478", world.relay.addr), "1", "-v"]);
    let done = Running::run("stun", &mut command, SHORT)?;
    let all = done.stdout() + &done.stderr();
    let mapped = all.lines().find_map(|l| {
        l.trim()
            .strip_prefix("MappedAddress = ")?
            .parse::<SocketAddr>()
            .ok()
    });
    ensure!(
        mapped.is_some_and(|m| m.ip() == CLIENT_PUBLIC),
        "the client saw {mapped:?}:\n{all}"
    );
    say(format!("the RFC 3489 client saw {mapped:?}"));
    Ok(())
}
