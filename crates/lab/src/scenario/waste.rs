//! What a tunnel costs when nothing happens, and what it leaves behind.

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use byway_sim::model::Access::PortRestricted;

use super::matrix::wait_until_direct;
use super::{PROGRAMS, WEB_PORT, WITH_CURL};
use crate::harness::{Scenario, say};
use crate::process::Running;
use crate::programs::{self, Agent, Forward, Options, Relay};
use crate::world::World;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "waste::an_idle_tunnel_sleeps_but_for_its_keep_alives",
        needs: WITH_CURL,
        run: idle,
    },
    Scenario {
        name: "waste::tunnels_that_came_and_went_leave_nothing",
        needs: PROGRAMS,
        run: come_and_go,
    },
];

/// Long enough to hold several rounds of every keep-alive shorter than a NAT's patience, and then some of each.
const WATCHED: Duration = Duration::from_secs(25);
/// Wake-ups of all threads in that time. Keep-alives (link, direct path, channel, at 20 s) and the discovery each 25 s
/// make about fifteen; a timer that ticks every 100 ms would make 250.
const WAKE_UPS: u64 = 60;

fn idle() -> Result<()> {
    let world = World::new(PortRestricted, PortRestricted)?;
    let relay = Relay::start(&world)?;
    let (_web, _) = programs::web(&world.agent, WEB_PORT)?;
    let agent = Agent::start(&world, &relay.url, Options::default(), &[])?;
    let forward = Forward::start(&world, &agent.peer(), WEB_PORT, Options::default())?;
    wait_until_direct(&world, &forward.url)?;
    // This is no waiting for a state: the time itself is what is watched. First the last acknowledgements settle.
    thread::sleep(Duration::from_secs(3));
    let programs = [
        ("forward", &forward.process),
        ("agent", &agent.process),
        ("relay", &relay.process),
    ];
    let before = programs.map(|(_, p)| wake_ups(p));
    thread::sleep(WATCHED);
    let mut worst = 0;
    for ((name, process), before) in programs.into_iter().zip(before) {
        let (before, after) = (before?, wake_ups(process)?);
        let by_thread: BTreeMap<&str, u64> = after
            .iter()
            .map(|((id, thread), n)| {
                (
                    thread.as_str(),
                    n - before.get(&(*id, thread.clone())).copied().unwrap_or(0),
                )
            })
            .fold(BTreeMap::new(), |mut all, (thread, n)| {
                *all.entry(thread).or_default() += n;
                all
            });
        let sum = by_thread.values().sum::<u64>();
        say(format!(
            "{name}: {sum} wake-ups in {WATCHED:?} {by_thread:?}"
        ));
        worst = worst.max(sum);
    }
    ensure!(
        worst <= WAKE_UPS,
        "{worst} wake-ups in {WATCHED:?} with nothing to do"
    );
    Ok(())
}

/// Times each thread went to sleep of its own accord, by thread.
fn wake_ups(process: &Running) -> Result<BTreeMap<(u32, String), u64>> {
    let mut all = BTreeMap::new();
    for task in fs::read_dir(format!("/proc/{}/task", process.pid()))?.flatten() {
        let status = fs::read_to_string(task.path().join("status"))?;
        let field = |name: &str| {
            status
                .lines()
                .find_map(|l| l.strip_prefix(name))
                .map(str::trim)
        };
        let id = task.file_name().to_string_lossy().parse()?;
        let name = field("Name:").context("no name")?.to_owned();
        all.insert(
            (id, name),
            field("voluntary_ctxt_switches:")
                .context("no switches")?
                .parse()?,
        );
    }
    Ok(all)
}

fn come_and_go() -> Result<()> {
    // The first tunnels grow the allocator's arenas; what counts is what the later ones add.
    const WARM: usize = 40;
    const MORE: usize = 120;
    let world = World::new(PortRestricted, PortRestricted)?;
    let relay = Relay::start(&world)?;
    let agent = Agent::start(&world, &relay.url, Options::default(), &[])?;
    let rounds = |n: usize| {
        (0..n).try_for_each(|_| {
            programs::ping(&world, &agent.peer(), Options::default(), &["-c", "1"]).map(drop)
        })
    };
    rounds(WARM)?;
    let before = [footprint(&agent.process)?, footprint(&relay.process)?];
    rounds(MORE)?;
    let after = [footprint(&agent.process)?, footprint(&relay.process)?];
    for (name, (before, after)) in ["agent", "relay"]
        .into_iter()
        .zip(before.into_iter().zip(after))
    {
        say(format!(
            "{name}: {before:?} after {WARM} tunnels, {after:?} after {}",
            WARM + MORE
        ));
        ensure!(
            after.files <= before.files + 2 && after.threads <= before.threads + 2,
            "{name}: {before:?}, {after:?}"
        );
        // 4 KiB a tunnel at most: one forgotten connection is tens of KiB.
        ensure!(
            after.rss_kib <= before.rss_kib + 4 * MORE as u64,
            "{name} grew: {before:?}, {after:?}"
        );
    }
    Ok(())
}

#[derive(Debug)]
struct Footprint {
    rss_kib: u64,
    files: usize,
    threads: usize,
}

/// Bytes of memory that a process holds.
pub(super) fn resident(process: &Running) -> Result<u64> {
    Ok(footprint(process)?.rss_kib * 1024)
}

fn footprint(process: &Running) -> Result<Footprint> {
    let dir = format!("/proc/{}", process.pid());
    let status = fs::read_to_string(format!("{dir}/status"))?;
    let rss = status
        .lines()
        .find_map(|l| l.strip_prefix("VmRSS:"))
        .context("no VmRSS")?;
    Ok(Footprint {
        rss_kib: rss.trim().trim_end_matches(" kB").parse()?,
        files: fs::read_dir(format!("{dir}/fd"))?.count(),
        threads: fs::read_dir(format!("{dir}/task"))?.count(),
    })
}
