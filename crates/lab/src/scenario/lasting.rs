//! What tunnels outlast: the death of agents, relays and clients.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use byway_sim::model::Access::PortRestricted;

use super::matrix::wait_until_direct;
use super::scene::Transfer;
use super::{ACCESS, SHORT, WEB_PORT, WITH_CURL};
use crate::harness::{Scenario, say};
use crate::process::poll;
use crate::programs::{self, Agent, Forward, Options, Relay};
use crate::world::{RELAY, RELAY_2, World};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "lasting::a_forward_tells_of_an_agent_that_was_killed_and_goes_on_with_the_next",
        needs: WITH_CURL,
        run: agent_killed,
    },
    Scenario {
        name: "lasting::a_transfer_survives_the_death_of_the_relay_that_carries_it",
        needs: WITH_CURL,
        run: relay_in_use_killed,
    },
    Scenario {
        name: "lasting::a_direct_tunnel_goes_on_for_minutes_when_all_relays_are_dead",
        needs: WITH_CURL,
        run: relays_dead,
    },
    Scenario {
        name: "lasting::clients_that_are_hung_up_on_leave_nothing_behind",
        needs: WITH_CURL,
        run: hung_up,
    },
    Scenario {
        name: "lasting::where_443_is_blocked_for_udp_the_second_port_carries",
        needs: WITH_CURL,
        run: second_port,
    },
];

/// An idle tunnel asks for its peer every 20 s.
const NOTICED: Duration = Duration::from_secs(60);

fn agent_killed() -> Result<()> {
    let world = World::with_delay(PortRestricted, PortRestricted, ACCESS)?;
    let relay = Relay::start(&world)?;
    let (_web, _) = programs::web(&world.agent, WEB_PORT)?;
    let agent = Agent::start(&world, &relay.url, Options::default(), &[])?;
    let forward = Forward::start(&world, &agent.peer(), WEB_PORT, Options::default())?;
    wait_until_direct(&world, &forward.url)?;
    agent.process.signal("KILL")?;
    let told = |line: &crate::process::Line| {
        line.text
            .contains("nothing is heard any more")
            .then_some(line.at)
    };
    let at = forward
        .process
        .wait_for("word of the silence", NOTICED, told)?;
    say(format!(
        "the silence was told of {at:?} after the forward began"
    ));
    // The same key: clients find it by the ticket they have.
    let _agent = Agent::start(&world, &relay.url, Options::default(), &[])?;
    let url = format!("{}/1000000", forward.url);
    poll("a forward that works again", NOTICED, || {
        let again = programs::curl(&world, &world.client, &url, "again", &[], SHORT);
        Ok(again.is_ok().then_some(()))
    })
}

fn relay_in_use_killed() -> Result<()> {
    let world = World::with_delay(PortRestricted, PortRestricted, ACCESS)?;
    let at = |addr: std::net::Ipv4Addr| [format!("{addr}:443")];
    let relays = [
        Relay::start_at(&world, &at(RELAY))?,
        Relay::start_at(&world, &at(RELAY_2))?,
    ];
    let (_web, _) = programs::web(&world.agent, WEB_PORT)?;
    let both = ["--relay", &relays[1].url];
    let agent = Agent::start(&world, &relays[0].url, Options::default(), &both)?;
    let options = Options {
        no_direct: true,
        ..Options::default()
    };
    let forward = Forward::start(&world, &agent.peer(), WEB_PORT, options)?;
    for relay in &relays {
        let opened =
            |line: &crate::process::Line| line.text.contains("channel opened").then_some(());
        relay.process.wait_for("a channel", SHORT, opened)?;
    }
    say("a channel through each relay");
    let path = forward
        .process
        .wait_for("word of the path", SHORT, |line| {
            line.text.contains("path is").then(|| line.text.clone())
        })?;
    let used = usize::from(path.contains(&RELAY_2.to_string()));
    let stall =
        Transfer::LARGE.disturbed(&world, &forward.url, || relays[used].process.signal("KILL"))?;
    say(format!(
        "the relay in use was killed: stalled for {:.0} ms",
        stall.as_secs_f64() * 1e3
    ));
    ensure!(stall < PROMPT, "stalled for {stall:?}");
    let reported = |line: &crate::process::Line| {
        line.text
            .contains("without an answer")
            .then(|| line.text.clone())
    };
    say(forward
        .process
        .wait_for("word of the stall", SHORT, reported)?);
    Ok(())
}

/// How long nothing must happen.
const ALONE: Duration = Duration::from_secs(120);
/// A moment's pause is the machine's; the tunnel's would be longer.
const PROMPT: Duration = Duration::from_secs(1);

/// The relays are the STUN servers too: with them everything is gone that is not the tunnel itself.
fn relays_dead() -> Result<()> {
    let world = World::with_delay(PortRestricted, PortRestricted, ACCESS)?;
    let at = |addr: std::net::Ipv4Addr| [format!("{addr}:443"), format!("{addr}:3478")];
    let relays = [
        Relay::start_at(&world, &at(RELAY))?,
        Relay::start_at(&world, &at(RELAY_2))?,
    ];
    let (_web, _) = programs::web(&world.agent, WEB_PORT)?;
    let both = ["--relay", &relays[1].url];
    let agent = Agent::start(&world, &relays[0].url, Options::default(), &both)?;
    let forward = Forward::start(&world, &agent.peer(), WEB_PORT, Options::default())?;
    wait_until_direct(&world, &forward.url)?;
    let told = forward.process.lines().len();
    for relay in &relays {
        relay.process.signal("KILL")?;
    }
    let url = format!("{}/1000", forward.url);
    let end = Instant::now() + ALONE;
    let mut slowest = Duration::ZERO;
    while Instant::now() < end {
        let asked = Instant::now();
        programs::curl(&world, &world.client, &url, "small", &[], SHORT)?;
        slowest = slowest.max(asked.elapsed());
        // The pace of somebody who uses it.
        std::thread::sleep(Duration::from_millis(500));
    }
    say(format!("the slowest of {ALONE:?} took {slowest:?}"));
    ensure!(slowest < PROMPT, "{slowest:?}");
    let lines = forward.process.lines();
    let moved = |line: &&crate::process::Line| line.text.contains("path is");
    let moved = lines.iter().skip(told).find(moved);
    ensure!(moved.is_none(), "the tunnel moved: {moved:?}");
    Ok(())
}

/// More than a relay gives one node at a time.
const CLIENTS: usize = 24;

fn hung_up() -> Result<()> {
    let world = World::with_delay(PortRestricted, PortRestricted, Duration::ZERO)?;
    let relay = Relay::start(&world)?;
    let agent = Agent::start(&world, &relay.url, Options::default(), &[])?;
    for _ in 0..CLIENTS {
        let ping = programs::start_ping(&world, &agent.peer(), Options::default(), &[])?;
        ping.first_line("an answer", SHORT)?;
        // As OpenSSH does to its ProxyCommand when it is done.
        ping.signal("HUP")?;
        ping.finish(Duration::from_secs(30))?;
    }
    let closed = || {
        let lines = agent.process.lines();
        let ends = lines
            .iter()
            .filter(|l| l.text.contains("\"event\":\"closed\""));
        ends.count()
    };
    poll("word of each end", SHORT, || {
        Ok((closed() >= CLIENTS).then_some(()))
    })?;
    let last = programs::ping(&world, &agent.peer(), Options::default(), &["-c", "1"])?;
    ensure!(last.len() == 1, "the relay has no room for one more client");
    Ok(())
}

fn second_port() -> Result<()> {
    let world = World::with_delay(PortRestricted, PortRestricted, ACCESS)?;
    let relay = Relay::start(&world)?;
    let agent = Agent::start(&world, &relay.url, Options::default(), &[])?;
    let router = world.client.router.as_ref().context("a routed site")?;
    router.nft("add rule inet filter cut udp dport 443 drop\n")?;
    let options = Options {
        no_direct: true,
        ..Options::default()
    };
    let pongs = programs::ping(&world, &agent.peer(), options, &["-c", "3"])?;
    ensure!(
        pongs.iter().all(|p| p.kind == "relay_udp"),
        "UDP passes on the second port: {pongs:?}"
    );
    let remote = pongs.last().and_then(|p| p.remote.clone());
    ensure!(
        remote.as_deref().is_some_and(|r| r.ends_with(":3478")),
        "the link leads to {remote:?}"
    );
    Ok(())
}
