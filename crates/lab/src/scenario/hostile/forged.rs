//! Somebody on the path repeats all that client and agent say to each other, in the true sender's name and in a stranger's, back to
//! the sender, and damaged: while the direct path lives, and when it is dead. Datagrams with the peer's address must not make a
//! dead path look alive, and nobody answers the stranger.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use byway_sim::model::Access::FullCone;

use super::{Counted, PING, PINGS, VICTIMS, count, gone, until_dropped, world};
use crate::figures::Figures;
use crate::harness::{Scenario, say};
use crate::process::Running;
use crate::programs;
use crate::scenario::scene::{STALL, Scene, Transfer, direct_forward_in};
use crate::scenario::{SHORT, WITH_CURL};

pub(in crate::scenario) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "hostile::repeated_and_forged_datagrams_do_not_move_a_live_path",
        needs: WITH_CURL,
        run: alive,
    },
    Scenario {
        name: "hostile::datagrams_forged_with_the_peers_address_do_not_keep_a_dead_path_looking_alive",
        needs: WITH_CURL,
        run: dead,
    },
];

/// Between two forged datagrams.
const EVERY: Duration = Duration::from_millis(1);
/// As in `holes`: two seconds at 32 Mbit/s.
const TRANSFER: Transfer = Transfer {
    size: 8_000_000,
    pace: 4_000_000,
};
/// What a black hole may cost nearly always (design section 6); the middle of three runs is held to it.
const SILENCE: Duration = Duration::from_millis(500);
const TRIES: usize = 3;
/// What is asked for afterwards, to see which way it comes.
const AFTERWARDS: u64 = 100_000;
/// What the four ways of forging come to at a node.
const SEEN: [&str; 4] = [
    "probe_replayed",
    "probe_forged",
    "probe_unknown_index",
    "unknown_source",
];

/// Both sides behind NATs that let anybody in, or a stranger's datagrams would end there. The attacker hears everything from the
/// first probe on.
fn heard_forward() -> Result<Scene> {
    let world = world(FullCone)?;
    count(&world.host("victim")?.namespace, Counted::Arrivals)?;
    world.emulator().listen("client", "agent")?;
    direct_forward_in(world, &["-v"])
}

fn alive() -> Result<()> {
    let scene = heard_forward()?;
    let world = &scene.world;
    let paths = paths(&scene);
    let before = world.client.traffic()?;
    let stall = TRANSFER.disturbed(world, &scene.forward.url, || {
        world.emulator().forge(EVERY, VICTIMS[0])
    })?;
    seen_by_both(&scene)?;
    let url = format!("{}/{AFTERWARDS}", scene.forward.url);
    programs::curl(world, &world.client, &url, "afterwards", &[], SHORT)?;
    let moved = world.client.traffic()?.since(before);
    say(format!(
        "{:?} were forged, {} ms without a byte; {moved:?}",
        world.emulator().forged()?,
        stall.as_millis()
    ));
    ensure!(
        moved.direct > TRANSFER.size && moved.relay_udp < TRANSFER.size / 10,
        "it should all have come directly: {moved:?}"
    );
    ensure!(
        self::paths(&scene) == paths,
        "the path changed: {:?}",
        self::paths(&scene)
    );
    ensure!(stall < STALL, "stalled for {stall:?}");
    nobody_else_was_harmed(&scene)
}

fn dead() -> Result<()> {
    let mut silences = Vec::new();
    for run in 1..=TRIES {
        // The log comes every five seconds: once is enough to read it.
        silences.push(dies(run == TRIES)?);
    }
    let figures = Figures::of(silences);
    say(format!("silence: {figures}"));
    ensure!(figures.percentile(50) <= SILENCE, "{figures}");
    Ok(())
}

/// The longest time in which nothing arrived after the path died. `told`: what the programs say of it is looked at too.
fn dies(told: bool) -> Result<Duration> {
    let scene = heard_forward()?;
    let world = &scene.world;
    let emulator = world.emulator();
    let silence = TRANSFER.disturbed(world, &scene.forward.url, || {
        // What is said from now on goes into the hole: an attacker that carried it would be a network.
        emulator.stop_listening()?;
        emulator.hole("agent", "client")?;
        emulator.hole("client", "agent")?;
        emulator.forge(EVERY, VICTIMS[0])
    })?;
    if told {
        seen_by_both(&scene)?;
    }
    // They keep coming, and the path is as dead as before.
    scene.is_relayed()?;
    let last = paths(&scene).pop().context("no path was told")?;
    ensure!(last.contains("path is relay"), "the last path: {last}");
    nobody_else_was_harmed(&scene)?;
    Ok(silence)
}

/// What the client's program said of its paths.
fn paths(scene: &Scene) -> Vec<String> {
    let lines = scene.forward.process.lines();
    let of_paths = lines
        .into_iter()
        .filter(|line| line.text.contains("path is"));
    of_paths.map(|line| line.text).collect()
}

/// All of it came through to both programs, was counted there and explained.
fn seen_by_both(scene: &Scene) -> Result<()> {
    let all: [(&str, &Running); 2] = [
        ("client", &scene.forward.process),
        ("agent", &scene.agent.process),
    ];
    for (who, program) in all {
        let counts = SEEN.map(|name| until_dropped(program, name, 1));
        let counts = counts.into_iter().collect::<Result<Vec<u64>>>()?;
        say(format!("{who}: {SEEN:?} {counts:?}"));
    }
    let forged = scene.world.emulator().forged()?;
    ensure!(forged.iter().all(|n| *n > 100), "{forged:?}");
    Ok(())
}

/// The stranger got nothing, or no more than anybody gets from whom a first ping seems to come.
fn nobody_else_was_harmed(scene: &Scene) -> Result<()> {
    for gone in gone(&scene.world.host("victim")?.namespace)? {
        let most = 2 * PINGS;
        ensure!(
            gone.packets <= most && gone.bytes <= most * PING,
            "the third party got {gone:?}"
        );
    }
    Ok(())
}
