//! A transfer goes on when its path dies under it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::scene::{STALL, Transfer, direct_forward};
use super::{SHORT, WITH_CURL};
use crate::harness::{Scenario, say};
use crate::process::poll;
use crate::programs;
use crate::world::AGENT_PUBLIC;

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

const SIZE: u64 = Transfer::LARGE.size;
fn direct_path_dies() -> Result<()> {
    let scene = direct_forward()?;
    let world = &scene.world;
    let before = world.client.traffic()?;
    let stall = Transfer::LARGE.disturbed(world, &scene.forward.url, || {
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
    let stall = Transfer::LARGE.disturbed(world, &scene.forward.url, || {
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
