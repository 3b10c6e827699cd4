//! Regions that are far from each other, a relay in each.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use byway_sim::model::Access::{CarrierGrade, PortRestricted};

use super::{ACCESS, PROGRAMS};
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
/// Of which one will find it free enough.
const TRIES: usize = 3;

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
        // A link to the relay that is near, then the handshake and the answer, each over the ocean and back.
        let way = 2 * (access + OCEAN + ACCESS);
        let answered = 2 * access + 2 * way;
        let mut took = [f64::INFINITY; 2];
        for _ in 0..TRIES {
            let pongs = programs::ping_from(&net, place, &agent.peer(), &["--until-direct"])?;
            let (first, last) = pongs.first().zip(pongs.last()).context("no answer")?;
            say(format!("from {}: {first:?}, then {last:?}", place.name));
            ensure!(first.kind == "relay_udp", "the first answer: {first:?}");
            ensure!(
                first.relay.as_deref() == Some(eu.url.as_str()),
                "the first answer came by the other region's relay: {first:?}"
            );
            ensure!(last.kind == "direct", "the last answer: {last:?}");
            ensure!(
                last.rtt_ms >= ms(way),
                "{last:?}, sooner than over a way of {way:?}"
            );
            took = [took[0].min(first.at_ms), took[1].min(last.rtt_ms)];
            if took[0] <= BUSY * ms(answered) && took[1] <= BUSY * ms(way) {
                break;
            }
        }
        ensure!(
            took[0] <= BUSY * ms(answered) && took[1] <= BUSY * ms(way),
            "{took:?} ms for the first answer, and directly, where {answered:?} and {way:?} are needed"
        );
    }
    Ok(())
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
