//! A transfer goes on when its path dies under it.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::matrix::wait_until_direct;
use super::{ACCESS, LONG, SHORT, WEB_PORT, WITH_CURL};
use crate::NatKind::PortRestricted;
use crate::harness::{Scenario, say};
use crate::process::{Running, poll};
use crate::programs::{self, Agent, Forward, Options, Relay};
use crate::world::{AGENT_PUBLIC, World};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "failover::a_transfer_survives_the_silent_death_of_its_direct_path",
        needs: WITH_CURL,
        run: direct_path_dies,
    },
    Scenario {
        name: "failover::a_tunnel_returns_to_the_direct_path_when_that_lives_again",
        needs: WITH_CURL,
        run: direct_path_returns,
    },
    Scenario {
        name: "failover::a_transfer_survives_the_death_of_the_relay_while_direct",
        needs: WITH_CURL,
        run: relay_dies,
    },
];

/// The size of the transfers, and the pace in bytes a second at which they are sent, so that there is a middle to
/// cut at and a pause is the network's.
pub(super) const SIZE: u64 = 100 << 20;
const PACE: u64 = 25_000_000;
/// Longer than this and a person would call it broken. The benchmark has the real figure; the target is 250 ms.
pub(super) const STALL: Duration = Duration::from_secs(3);

pub(super) struct Scene {
    pub(super) forward: Forward,
    _agent: Agent,
    _web: Running,
    relay: Relay,
    // Last, so that it is dropped after what runs in it.
    pub(super) world: World,
}

/// A forward that is direct already.
pub(super) fn direct_forward() -> Result<Scene> {
    let world = World::with_delay(PortRestricted, PortRestricted, ACCESS)?;
    let relay = Relay::start(&world)?;
    let (web, _) = programs::web(&world.agent, WEB_PORT)?;
    let agent = Agent::start(&world, &relay.url, Options::default(), &[])?;
    let forward = Forward::start(&world, &agent.peer(), WEB_PORT, Options::default())?;
    wait_until_direct(&world, &forward.url)?;
    say("the tunnel is direct");
    Ok(Scene {
        world,
        relay,
        _agent: agent,
        _web: web,
        forward,
    })
}

fn direct_path_dies() -> Result<()> {
    let scene = direct_forward()?;
    let world = &scene.world;
    let before = world.client.traffic()?;
    let stall = transfer(world, &scene.forward.url, || {
        world.client.cut_udp(AGENT_PUBLIC)
    })?;
    let moved = world.client.traffic()?.since(before);
    say(format!(
        "the path was cut: stalled for {:.0} ms; {moved:?}",
        stall.as_secs_f64() * 1e3
    ));
    ensure!(
        moved.direct > SIZE / 10,
        "the transfer should have begun directly: {moved:?}"
    );
    ensure!(
        moved.relay_udp > SIZE / 3,
        "the transfer should have ended through the relay: {moved:?}"
    );
    ensure!(stall < STALL, "stalled for {stall:?}");
    Ok(())
}

fn direct_path_returns() -> Result<()> {
    let scene = direct_forward()?;
    scene.world.client.cut_udp(AGENT_PUBLIC)?;
    let url = format!("{}/1000000", scene.forward.url);
    let before = scene.world.client.traffic()?;
    programs::curl(
        &scene.world,
        &scene.world.client,
        &url,
        "relayed",
        &[],
        SHORT,
    )?;
    let moved = scene.world.client.traffic()?.since(before);
    ensure!(
        moved.relay_udp > 1_000_000,
        "the cut path carried it all the same: {moved:?}"
    );
    scene.world.client.mend()?;
    let mended = Instant::now();
    // A loser is quarantined with back-off, so this takes longer than the first time.
    poll("return to the direct path", Duration::from_secs(60), || {
        let before = scene.world.client.traffic()?;
        programs::curl(&scene.world, &scene.world.client, &url, "again", &[], SHORT)?;
        let moved = scene.world.client.traffic()?.since(before);
        Ok((moved.direct > 1_000_000).then_some(()))
    })?;
    say(format!(
        "direct again {:.1} s after the mend",
        mended.elapsed().as_secs_f64()
    ));
    Ok(())
}

fn relay_dies() -> Result<()> {
    let scene = direct_forward()?;
    let world = &scene.world;
    let before = world.client.traffic()?;
    let stall = transfer(world, &scene.forward.url, || {
        scene.relay.process.signal("KILL")
    })?;
    let moved = world.client.traffic()?.since(before);
    say(format!(
        "the relay was killed: longest pause {:.0} ms; {moved:?}",
        stall.as_secs_f64() * 1e3
    ));
    ensure!(
        moved.direct > SIZE && moved.relay_udp < SIZE / 10,
        "all of it should have gone directly: {moved:?}"
    );
    ensure!(stall < STALL, "paused for {stall:?}");
    // And the tunnel takes new streams, as nothing has happened to it.
    programs::curl(
        world,
        &world.client,
        &format!("{}/1000000", scene.forward.url),
        "after",
        &[],
        SHORT,
    )?;
    Ok(())
}

/// Downloads through a forward, does something to the world after a third, and checks what arrived. Returns the longest
/// time in which the file did not grow after that.
pub(super) fn transfer(
    world: &World,
    forward: &str,
    at_a_third: impl FnOnce() -> Result<()>,
) -> Result<Duration> {
    let url = format!("{forward}/paced/{PACE}/{SIZE}");
    let file = world.dir().join("bulk");
    let size = || fs::metadata(&file).map_or(0, |m| m.len());
    let mut curl = programs::start_curl(world, &world.client, &url, "bulk", &["--no-buffer"])?;
    poll("a third of the transfer", LONG, || {
        Ok((size() > SIZE / 3).then_some(()))
    })?;
    at_a_third()?;
    let (mut grown, mut last, mut stall) = (Instant::now(), size(), Duration::ZERO);
    while curl.is_running() {
        poll("growth of the file", Duration::from_secs(60), || {
            Ok((size() != last || !curl.is_running()).then_some(()))
        })?;
        if size() != last {
            stall = stall.max(grown.elapsed());
            (grown, last) = (Instant::now(), size());
        }
    }
    curl.finish(LONG)?.success()?;
    programs::check_body(world, &url, "bulk")?;
    Ok(stall)
}
