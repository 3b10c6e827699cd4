//! Hosts with a global IPv6 address and a route, from which nothing comes back: what a provider's mistake looks like. The
//! relay's name leads to both families.
//!
//! UDP tries both families at once, so a dead one costs nothing; TCP has 250 ms between them (design section 7, RFC 8305).

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use byway_sim::model::Access::PortRestricted;

use super::first_byte::{ACCESS, BUSY, R, T};
use crate::figures::Figures;
use crate::harness::{Need, Scenario, say};
use crate::programs::{self, Agent, Options, Relay};
use crate::world::{AGENT_PUBLIC, World};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "broken_ipv6::costs_a_client_nothing_over_udp_and_a_stagger_over_tls",
        needs: WITH_BASH,
        run: client,
    },
    Scenario {
        name: "broken_ipv6::costs_an_agent_no_more_than_a_stagger_on_its_way_to_the_relay",
        needs: WITH_BASH,
        run: agent,
    },
    Scenario {
        name: "broken_ipv6::on_both_sides_leaves_the_direct_path_over_ipv4",
        needs: WITH_BASH,
        run: both,
    },
];

const WITH_BASH: &[Need] = &[Need::Namespaces, Need::Binaries, Need::Tool("bash")];

/// Between attempts at addresses of two families.
const STAGGER: Duration = Duration::from_millis(250);
/// Runs of what took too long: another scenario on the same processor delays, and never hastens.
const TRIES: usize = 5;
/// Runs of what others are compared with, of which the median is.
const HEALTHY: usize = 3;
/// From the first answer to the first by the direct path: two pings, and the time of one.
const SOON: Duration = Duration::from_millis(600);

/// Whose IPv6 leads nowhere.
#[derive(Clone, Copy, Debug)]
struct Broken {
    client: bool,
    agent: bool,
}

/// A world with both families, of which one is dead for some.
fn world(broken: Broken) -> Result<(World, Relay)> {
    let world = World::with_delay(PortRestricted, PortRestricted, ACCESS)?;
    world.add_ipv6()?;
    let relay = Relay::start_dual(&world)?;
    if broken.client {
        world.client.lose_ipv6()?;
    }
    if broken.agent {
        world.agent.lose_ipv6()?;
    }
    Ok((world, relay))
}

/// The least of a few runs, or the first that is within its time. Nothing can take less than what is waited for on the way.
fn within(
    what: &str,
    (floor, budget): (Duration, Duration),
    play: impl Fn() -> Result<Duration>,
) -> Result<()> {
    let mut least = Duration::MAX;
    for _ in 0..TRIES {
        least = least.min(play()?);
        if least <= budget {
            break;
        }
    }
    say(format!("{what}: {least:?} of {budget:?}"));
    ensure!(least <= budget, "{what}: {least:?} of {budget:?}");
    ensure!(
        least >= floor,
        "{what}: {least:?}, and the least there can be is {floor:?}"
    );
    Ok(())
}

fn client() -> Result<()> {
    let first_answer = |link| {
        let broken = Broken {
            client: true,
            agent: false,
        };
        let (world, relay) = world(broken)?;
        let agent = Agent::start(&world, &relay.url, Options::default(), &[])?;
        let options = Options {
            link: Some(link),
            no_direct: true,
            ..Options::default()
        };
        let pongs = programs::ping(&world, &agent.peer(), options, &["-c", "1"])?;
        let pong = pongs.first().context("no answer")?;
        Ok(Duration::from_secs_f64(pong.at_ms / 1e3))
    };
    let udp = R + 2 * T;
    within("over UDP", (udp, udp.mul_f64(BUSY)), || first_answer("udp"))?;
    let tls = 3 * R + 2 * T;
    // Without the floor a stagger that is never waited for would pass: so would no IPv6 at all.
    let tls = (STAGGER + tls, STAGGER + tls.mul_f64(BUSY));
    within("over TLS", tls, || first_answer("tls"))
}

fn agent() -> Result<()> {
    // The way to its ticket is more than round trips: so it is compared with that of an agent whose IPv6 works.
    let linked = |agent, link| {
        let broken = Broken {
            client: false,
            agent,
        };
        let (world, relay) = world(broken)?;
        let began = Instant::now();
        let options = Options {
            link: Some(link),
            ..Options::default()
        };
        let _agent = Agent::start(&world, &relay.url, options, &[])?;
        Ok(began.elapsed())
    };
    for (link, stagger) in [("udp", Duration::ZERO), ("tls", STAGGER)] {
        let healthy = (0..HEALTHY)
            .map(|_| linked(false, link))
            .collect::<Result<_>>()?;
        let healthy = Figures::of(healthy).percentile(50);
        say(format!("over {link}, where IPv6 works: {healthy:?}"));
        let bounds = (stagger + 2 * R, stagger + healthy.mul_f64(BUSY));
        within(&format!("over {link}"), bounds, || linked(true, link))?;
    }
    Ok(())
}

fn both() -> Result<()> {
    for (client, agent) in [(true, false), (false, true), (true, true)] {
        let broken = Broken { client, agent };
        within(
            &format!("{broken:?}, direct"),
            (Duration::ZERO, SOON),
            || {
                let (world, relay) = world(broken)?;
                let agent = Agent::start(&world, &relay.url, Options::default(), &[])?;
                let options = Options::default();
                let pongs = programs::ping(&world, &agent.peer(), options, &["--until-direct"])?;
                let (first, last) = pongs.first().zip(pongs.last()).context("no answer")?;
                ensure!(first.kind == "relay_udp", "the first by {}", first.kind);
                ensure!(last.kind == "direct", "the last by {}", last.kind);
                let leads_to = last.remote.as_deref().unwrap_or_default();
                ensure!(
                    leads_to.starts_with(&AGENT_PUBLIC.to_string()),
                    "the direct path leads to {leads_to}"
                );
                Ok(Duration::from_secs_f64((last.at_ms - first.at_ms) / 1e3))
            },
        )?;
    }
    Ok(())
}
