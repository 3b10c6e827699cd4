//! Regions that are far from each other, a relay in each.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{ACCESS, PROGRAMS};
use crate::NatKind::{CarrierGrade, PortRestricted};
use crate::harness::{Scenario, say};
use crate::programs::{self, Agent, Options, Relay};
use crate::world::{Plan, Site};

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "regions::each_prefers_its_own_relay_and_the_tunnel_goes_direct_between_them",
    needs: PROGRAMS,
    run: own_relay,
}];

/// Between the two regions, one way.
const OCEAN: Duration = Duration::from_millis(40);
/// A machine that plays other scenarios meanwhile.
const BUSY: f64 = 1.5;

fn own_relay() -> Result<()> {
    let net = Plan::new()
        .region("europe")
        .relay("relay-eu")
        .site("client", Site::behind(PortRestricted).access(ACCESS))
        .site("phone", Site::behind(CarrierGrade).access(3 * ACCESS))
        .region("america")
        .relay("relay-us")
        .site("agent", Site::behind(PortRestricted).access(ACCESS))
        .apart("europe", "america", OCEAN)
        .build()?;
    let [client, phone, agent] = ["client", "phone", "agent"].map(|name| net.host(name));
    let (client, phone, agent) = (client?, phone?, agent?);
    let eu = Relay::start_on(&net, net.host("relay-eu")?)?;
    let us = Relay::start_on(&net, net.host("relay-us")?)?;

    // The other one first: which is named first decides nothing.
    for (place, near, far) in [(client, &eu, &us), (phone, &eu, &us), (agent, &us, &eu)] {
        let relays = ["--relay", &far.url, "--relay", &near.url];
        let report = programs::netcheck(&net, place, &relays)?;
        let preferred = &report["preferred_relay"];
        say(format!("{} prefers {preferred}", place.name));
        ensure!(
            preferred["url"] == near.url.as_str(),
            "{} should prefer {}: {report}",
            place.name,
            near.url
        );
    }

    let second = ["--relay", us.url.as_str()];
    let agent = Agent::start_on(&net, agent, &eu.url, Options::default(), &second)?;
    for (place, access) in [(client, ACCESS), (phone, 3 * ACCESS)] {
        let pongs = programs::ping_from(&net, place, &agent.peer(), &["--until-direct"])?;
        let (first, last) = pongs.first().zip(pongs.last()).context("no answer")?;
        say(format!("from {}: {first:?}, then {last:?}", place.name));
        // By whichever relay: a link of its own, the handshake, the answer, each over the ocean and back.
        let way = 2 * (access + OCEAN + ACCESS);
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        ensure!(first.kind == "relay_udp", "the first answer: {first:?}");
        ensure!(
            first.at_ms <= BUSY * ms(3 * way),
            "{} ms for the first answer, over a way of {way:?}",
            first.at_ms
        );
        ensure!(last.kind == "direct", "the last answer: {last:?}");
        ensure!(
            last.rtt_ms >= ms(way) && last.rtt_ms <= BUSY * ms(way),
            "{} ms directly, over a way of {way:?}",
            last.rtt_ms
        );
    }
    Ok(())
}
