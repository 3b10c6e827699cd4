//! A gateway that gives a port makes the hardest pair of networks an easy one; and the port is looked after until the end.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use byway_sim::model::Access::Symmetric;

use super::{ACCESS, SHORT};
use crate::harness::{Need, Scenario, say};
use crate::process::{Line, poll};
use crate::programs::miniupnpd::{self, Miniupnpd, Speaks};
use crate::programs::{self, Agent, Options, Relay};
use crate::world::World;

const NEEDS: &[Need] = &[Need::Namespaces, Need::Binaries, Need::Tool("miniupnpd")];

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "portmap::symmetric_to_symmetric_goes_direct_by_a_port_got_by_pcp",
        needs: NEEDS,
        run: || goes_direct(Speaks::Everything, "pcp"),
    },
    Scenario {
        name: "portmap::symmetric_to_symmetric_goes_direct_by_a_port_got_by_nat_pmp",
        needs: NEEDS,
        run: || goes_direct(Speaks::NoPcp, "nat_pmp"),
    },
    Scenario {
        name: "portmap::symmetric_to_symmetric_goes_direct_by_a_port_got_by_upnp",
        needs: NEEDS,
        run: || goes_direct(Speaks::UpnpAlone, "upnp"),
    },
    Scenario {
        name: "portmap::a_port_is_renewed_before_it_ends_and_ends_with_who_is_killed",
        needs: NEEDS,
        run: || {
            renewed(Speaks::Everything)?;
            renewed(Speaks::NoPcp)?;
            renewed(Speaks::UpnpAlone)
        },
    },
    Scenario {
        name: "portmap::a_router_that_was_restarted_gives_the_port_again",
        needs: NEEDS,
        run: || {
            forgotten(Speaks::Everything)?;
            forgotten(Speaks::NoPcp)?;
            forgotten(Speaks::UpnpAlone)
        },
    },
    Scenario {
        name: "portmap::what_a_slower_protocol_gives_as_well_does_not_stay_behind",
        needs: NEEDS,
        run: given_twice,
    },
];

/// The lifetime that is asked for, and that a gateway without a limit of its own gives.
const LONG_LIFE: u32 = 86_400;
/// To take a port away and give it again takes miniupnpd some ten milliseconds.
const REPLACED: Duration = Duration::from_secs(1);
/// In seconds. Several of them fit a scenario, and a busy machine fits one of them.
const SHORT_LIFE: u32 = 12;
/// More than what is forgiven a clock (2 s) and a router's start.
const UP: Duration = Duration::from_secs(6);
/// A port that is given back, or noticed to be lost, without delay: far less than half an hour, after which it would be renewed.
const SOON: Duration = Duration::from_secs(10);

const ASKING: Options = Options {
    no_direct: false,
    link: None,
    congestion: None,
    port_mapping: true,
};

/// For how long a port is asked. A gateway with a limit of its own has the last word; by UPnP miniupnpd has none, and nothing tells
/// that the router began anew.
fn asked(speaks: Speaks) -> Vec<String> {
    match speaks {
        Speaks::UpnpAlone => vec![format!("--port-mapping-lifetime={SHORT_LIFE}")],
        _ => Vec::new(),
    }
}

fn agent(world: &World, relay: &Relay, speaks: Speaks) -> Result<Agent> {
    let args = asked(speaks);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    Agent::start(world, &relay.url, ASKING, &args)
}

/// Waits for so many mapped ports.
fn until_mapped(world: &World, ports: usize, within: Duration) -> Result<()> {
    poll(&format!("{ports} mapped ports"), within, || {
        Ok((miniupnpd::mapped(&world.agent)? == ports).then_some(()))
    })
}

fn goes_direct(speaks: Speaks, protocol: &str) -> Result<()> {
    let world = World::with_delay(Symmetric, Symmetric, ACCESS)?;
    let relay = Relay::start(&world)?;
    let _gateway = Miniupnpd::start(&world, &world.agent, &world.client, speaks, LONG_LIFE)?;
    let options = ["--relay", relay.url.as_str()];
    let report = programs::netcheck_asking(&world, &world.agent, &options)?;
    let told = &report["port_mapping"];
    say(format!(
        "netcheck: {told}, {}",
        report["port_mapping_state"]
    ));
    ensure!(
        told["protocol"] == protocol && report["port_mapping_state"] == "held",
        "a port by {protocol}: {report}"
    );
    let outside = format!("{}:", miniupnpd::OUTSIDE);
    let external = told["external"].as_str().unwrap_or_default();
    ensure!(external.starts_with(&outside), "where it leads in: {told}");
    let left = miniupnpd::mapped(&world.agent)?;
    ensure!(left == 0, "netcheck left {left} ports behind");

    let agent = Agent::start(&world, &relay.url, ASKING, &[])?;
    // The search for UPnP alone takes seconds.
    until_mapped(&world, 1, SHORT)?;
    leads_in(&world, &agent)?;
    gives_back(&world, agent)
}

/// An agent that ends in its order leaves no port behind.
fn gives_back(world: &World, mut agent: Agent) -> Result<()> {
    agent.process.signal("TERM")?;
    poll("end of the agent", SOON, || {
        Ok((!agent.process.is_running()).then_some(()))
    })?;
    let left = miniupnpd::mapped(&world.agent)?;
    ensure!(left == 0, "{left} ports were not given back");
    Ok(())
}

fn renewed(speaks: Speaks) -> Result<()> {
    let world = World::with_delay(Symmetric, Symmetric, ACCESS)?;
    let relay = Relay::start(&world)?;
    let gateway = Miniupnpd::start(&world, &world.agent, &world.client, speaks, SHORT_LIFE)?;
    let agent = agent(&world, &relay, speaks)?;
    until_mapped(&world, 1, SHORT)?;
    let began = Instant::now();
    let lifetime = Duration::from_secs(SHORT_LIFE.into());
    // Longer than it would live by itself, and never without but for the moment in which miniupnpd replaces one.
    let mut seen = Instant::now();
    // The former by PCP and NAT-PMP, the latter by UPnP.
    let words = ["already redirected to", "updating existing port mapping"];
    let is_renewal = |line: &&Line| words.iter().any(|words| line.text.contains(words));
    poll("two lifetimes and three renewals", lifetime * 4, || {
        if miniupnpd::mapped(&world.agent)? > 0 {
            seen = Instant::now();
        }
        ensure!(
            seen.elapsed() < REPLACED,
            "no port after {:?}",
            began.elapsed()
        );
        let renewals = gateway.process.lines().iter().filter(is_renewal).count();
        Ok((began.elapsed() > lifetime * 2 && renewals >= 3).then_some(()))
    })?;
    say(format!("{speaks:?}: held for {:?}", began.elapsed()));
    // And the lifetime was a real one: nobody gives this port back.
    agent.process.signal("KILL")?;
    until_mapped(&world, 0, lifetime * 2 + SOON)
}

fn forgotten(speaks: Speaks) -> Result<()> {
    let world = World::with_delay(Symmetric, Symmetric, ACCESS)?;
    let relay = Relay::start(&world)?;
    let mut gateway = Miniupnpd::start(&world, &world.agent, &world.client, speaks, LONG_LIFE)?;
    let agent = agent(&world, &relay, speaks)?;
    until_mapped(&world, 1, SHORT)?;
    // One that had begun only just before has nothing by which its new time differs from the old one.
    let held = Instant::now();
    poll("a router that has been up for a while", SHORT, || {
        Ok((held.elapsed() > UP).then_some(()))
    })?;
    gateway.restart(&world, &world.agent)?;
    let began = Instant::now();
    until_mapped(&world, 1, SOON)?;
    say(format!(
        "{speaks:?}: mapped again after {:?}",
        began.elapsed()
    ));
    leads_in(&world, &agent)?;
    gives_back(&world, agent)
}

/// The way in is the mapped port; the agent's own way out may be seen as another.
fn leads_in(world: &World, agent: &Agent) -> Result<()> {
    let pongs = programs::until_direct(world, &agent.peer())?;
    let answers = pongs.len();
    say(format!("{answers} answers, the last by {:?}", pongs.last()));
    Ok(())
}

/// Longer than anybody asks by PCP: three requests, the last 0.75 s after the first, of which nobody hears more after 1.75 s. That
/// is the program's patience, not this scenario's.
const PCP_GIVES_UP: Duration = Duration::from_secs(3);
/// UPnP has half a second before PCP asks for the last time. On a busy machine that may not be enough, and now and then is no
/// failure.
const TRIES: usize = 10;

fn given_twice() -> Result<()> {
    for n in 1..=TRIES {
        if both_gave()? {
            return Ok(());
        }
        say(format!("try {n}: PCP gave up before UPnP had a port"));
    }
    bail!("UPnP was too slow each of {TRIES} times");
}

/// PCP has got a port, which nobody knows of before UPnP has got another. False if PCP had given up by then.
fn both_gave() -> Result<bool> {
    let world = World::with_delay(Symmetric, Symmetric, ACCESS)?;
    let relay = Relay::start(&world)?;
    let (site, other) = (&world.agent, &world.client);
    let gateway = Miniupnpd::start(&world, site, other, Speaks::MutePcp, LONG_LIFE)?;
    let agent = Agent::start(&world, &relay.url, ASKING, &[])?;
    // However long UPnP takes: nothing tells it that it is not needed.
    until_mapped(&world, 2, SHORT)?;
    gateway.answers(site)?;
    let began = Instant::now();
    let one_is_left = poll("one of two ports", PCP_GIVES_UP + SOON, || {
        if miniupnpd::mapped(site)? == 1 {
            return Ok(Some(true));
        }
        let unheard = began.elapsed() > PCP_GIVES_UP && !gateway.has_answered(site)?;
        Ok(unheard.then_some(false))
    })?;
    if !one_is_left {
        return Ok(false);
    }
    say(format!("one of two after {:?}", began.elapsed()));
    // It is the one that is used.
    leads_in(&world, &agent)?;
    // And no other was only being replaced.
    let left = miniupnpd::mapped(site)?;
    ensure!(left == 1, "{left} ports in the end");
    gives_back(&world, agent)?;
    Ok(true)
}
