//! What `byway netcheck` finds out about a network, against what the laboratory made it.

mod intercepted;
mod kinds;
mod ways;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::harness::{Need, Scenario, say};
use crate::process::Running;
use crate::programs::{COTURN_PORT, coturn};
use crate::world::{STUN_1, STUN_2, World};

const WITH_STUN: &[Need] = &[
    Need::Namespaces,
    Need::Binaries,
    Need::Tool("turnserver"),
    Need::Tool("tinyproxy"),
    Need::Tool("tayga"),
    Need::Tool("dnsmasq"),
];
const WITH_IPV6: &[Need] = &[
    Need::Namespaces,
    Need::Binaries,
    Need::Tool("turnserver"),
    Need::Tool("bash"),
];
const WITH_GATEWAY: &[Need] = &[
    Need::Namespaces,
    Need::Binaries,
    Need::Tool("turnserver"),
    Need::Tool("miniupnpd"),
];

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "netcheck::every_kind_of_network_is_told_for_what_it_is",
        needs: WITH_STUN,
        run: kinds::all,
    },
    Scenario {
        name: "netcheck::a_nat_that_turns_around_and_a_carriers_address_are_told",
        needs: WITH_STUN,
        run: kinds::variants,
    },
    Scenario {
        name: "netcheck::both_families_are_told_each_by_itself",
        needs: WITH_IPV6,
        run: kinds::dual_stack,
    },
    Scenario {
        name: "netcheck::a_port_of_the_gateways_is_told_apart_from_silence_and_not_asked",
        needs: WITH_GATEWAY,
        run: ways::gateway,
    },
    Scenario {
        name: "netcheck::the_nearer_of_two_relays_is_preferred_by_udp_and_by_tls",
        needs: super::PROGRAMS,
        run: ways::two_relays,
    },
    Scenario {
        name: "netcheck::a_narrow_path_is_measured",
        needs: super::PROGRAMS,
        run: ways::narrow,
    },
    Scenario {
        name: "netcheck::a_firewall_that_lets_udp_out_and_quic_not_is_told",
        needs: super::PROGRAMS,
        run: ways::quic_filtered,
    },
    Scenario {
        name: "netcheck::a_captive_portal_is_told_by_what_it_answers",
        needs: super::PROGRAMS,
        run: ways::portal,
    },
    Scenario {
        name: "netcheck::tls_that_an_inspecting_proxy_ends_is_told_and_tunnels_pass_it",
        needs: super::PROGRAMS,
        run: intercepted::told,
    },
    Scenario {
        name: "netcheck::tls_that_an_inspecting_proxy_ends_is_refused_by_a_pin_and_by_a_strict_relay",
        needs: super::PROGRAMS,
        run: intercepted::refused,
    },
];

/// Both STUN servers, the first of which has the two addresses that RFC 5780 asks for.
fn servers(world: &World) -> Result<[Running; 2]> {
    Ok([
        coturn(world, &world.stun_1, &STUN_1)?,
        coturn(world, &world.stun_2, &[STUN_2])?,
    ])
}

/// A relay and both STUN servers, as arguments.
fn asked(relay_url: &str) -> Vec<String> {
    let stun = |ip| format!("{ip}:{COTURN_PORT}");
    [
        "--relay",
        relay_url,
        "--stun",
        &stun(STUN_1[0]),
        "--stun",
        &stun(STUN_2),
    ]
    .map(str::to_owned)
    .to_vec()
}

/// What was asked, or the last of three reports none of which is on time: a busy machine makes latencies longer, and never
/// shorter.
fn on_time(ask: impl Fn() -> Result<Value>, is_on_time: impl Fn(&Value) -> bool) -> Result<Value> {
    let mut report = ask()?;
    for _ in 1..3 {
        if is_on_time(&report) {
            break;
        }
        say("late: asked again".to_owned());
        report = ask()?;
    }
    Ok(report)
}

/// A report says this in these fields; the field `a.0.b` is `b` of the first of `a`.
fn says(what: &str, report: &Value, fields: &[(&str, Value)]) -> Result<()> {
    for (name, wanted) in fields {
        let found = name
            .split('.')
            .fold(report, |value, key| match key.parse::<usize>() {
                Ok(n) => &value[n],
                Err(_) => &value[key],
            });
        ensure!(
            found == wanted,
            "{what}: {name} should be {wanted}, not {found}: {report}"
        );
    }
    Ok(())
}

/// Its findings begin with these words, in this order, and there are no others.
fn finds(what: &str, report: &Value, beginnings: &[&str]) -> Result<()> {
    let findings = report["findings"].as_array().context("no findings")?;
    let findings: Vec<&str> = findings.iter().filter_map(Value::as_str).collect();
    let same = findings.len() == beginnings.len()
        && findings
            .iter()
            .zip(beginnings)
            .all(|(found, begins)| found.starts_with(begins));
    ensure!(
        same,
        "{what}: wanted {beginnings:#?}, found {findings:#?} in {report}"
    );
    say(format!("{what}: {findings:#?}"));
    Ok(())
}

/// A number of the report.
fn ms(report: &Value, relay: usize, name: &str) -> Result<f64> {
    report["relays"][relay][name]
        .as_f64()
        .with_context(|| format!("no {name} of relay {relay}: {report}"))
}
