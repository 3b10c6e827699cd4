//! Bad links, emulated: one-way black holes, and a ladder of loss, reordering and copies beside plain TCP.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::failover::{SIZE as TRANSFER, STALL, direct_forward, transfer};
use super::matrix::wait_until_direct;
use super::{ACCESS, LONG, SHORT, WEB_PORT, WITH_CURL};
use crate::NatKind::{Open, PortRestricted};
use crate::harness::{self, Scenario, say};
use crate::process::Running;
use crate::programs::{self, Agent, Forward, Options, Relay};
use crate::tool::sha256_of;
use crate::world::World;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "links::a_transfer_survives_a_hole_on_its_way_to_the_client",
        needs: WITH_CURL,
        run: || hole(&[("agent", "client")]),
    },
    Scenario {
        name: "links::a_transfer_survives_a_hole_on_its_way_to_the_agent",
        needs: WITH_CURL,
        run: || hole(&[("client", "agent")]),
    },
    Scenario {
        name: "links::a_path_that_shrinks_under_a_transfer_costs_a_moment_and_no_byte",
        needs: WITH_CURL,
        run: shrinks,
    },
    Scenario {
        name: "links::five_per_cent_loss_with_disorder_and_copies_changes_no_byte",
        needs: WITH_CURL,
        run: || {
            let rung = Rung::play(5, 1 << 20)?;
            say(rung.to_string());
            Ok(())
        },
    },
];

fn hole(ways: &[(&str, &str)]) -> Result<()> {
    let scene = direct_forward()?;
    let emulator = scene.world.emulator();
    let before = scene.world.client.traffic()?;
    let stall = transfer(&scene.world, &scene.forward.url, || {
        ways.iter()
            .try_for_each(|(from, to)| emulator.hole(from, to))
    })?;
    let moved = scene.world.client.traffic()?.since(before);
    say(format!(
        "a hole {ways:?}: stalled for {:.0} ms",
        stall.as_secs_f64() * 1e3
    ));
    ensure!(stall < STALL, "stalled for {stall:?}");
    // Two thirds of it were left when the hole opened.
    ensure!(
        moved.relay_udp > TRANSFER / 3,
        "it should have gone on through the relay: {moved:?}"
    );
    Ok(())
}

fn shrinks() -> Result<()> {
    let scene = direct_forward()?;
    let emulator = scene.world.emulator();
    let stall = transfer(&scene.world, &scene.forward.url, || {
        emulator.link("client", "delay=5ms mtu=1300")
    })?;
    say(format!(
        "1,300 bytes instead of 1,500: stalled for {:.0} ms",
        stall.as_secs_f64() * 1e3
    ));
    ensure!(stall < STALL, "stalled for {stall:?}");
    Ok(())
}

/// The rungs of the ladder, in per cent of loss each way.
const LADDER: [u8; 5] = [1, 5, 10, 20, 30];
/// What is moved each way on the ladder.
const SIZE: u64 = 10 << 20;
/// Runs of each rung.
const RUNS: usize = 20;
/// What does not end in this time does not end for a person either.
const PATIENCE: Duration = Duration::from_secs(240);

/// One run over a link that loses so much.
struct Rung {
    loss: u8,
    size: u64,
    down: Duration,
    up: Duration,
    /// The same download over plain TCP; none if it did not end.
    tcp: Option<Duration>,
}

impl Rung {
    fn play(loss: u8, size: u64) -> Result<Self> {
        // The agent is open, so that plain TCP reaches it over the same link.
        let world = World::with_delay(PortRestricted, Open, ACCESS)?;
        let relay = Relay::start(&world)?;
        let (_web, plain) = programs::web(&world.agent, WEB_PORT)?;
        let digest_at = "127.0.0.1:9100".to_owned();
        let digest = programs::tool(
            &world.agent.namespace,
            "digest",
            std::slice::from_ref(&digest_at),
        )?;
        digest.first_line("readiness", SHORT)?;
        let agent = Agent::start(&world, &relay.url, Options::default(), &[])?;
        let forward = Forward::start(&world, &agent.peer(), WEB_PORT, Options::default())?;
        wait_until_direct(&world, &forward.url)?;
        let settings = format!("delay=5ms loss={loss} reorder=1 duplicate=1");
        world.emulator().link("client", &settings)?;

        let download = |base: &str, file| -> Result<Duration> {
            let url = format!("{base}/{size}");
            let began = Instant::now();
            programs::curl(&world, &world.client, &url, file, &[], PATIENCE)?;
            Ok(began.elapsed())
        };
        let down = download(&forward.url, "tunnelled")?;
        let source = world.dir().join("source");
        fs::write(&source, b"byway".repeat(size as usize / 5))?;
        let mut command = programs::byway(&world, &world.client, "uploader")?;
        command
            .args(["stdio", &agent.peer(), &digest_at])
            .args(Options::default().args());
        let began = Instant::now();
        let done = Running::start_from(&source, "byway stdio", &mut command)?
            .finish(LONG)?
            .success()?;
        let up = began.elapsed();
        ensure!(
            done.stdout().trim() == sha256_of(&source)?,
            "what was sent up arrived changed"
        );
        let tcp = download(&plain, "plain").ok();
        Ok(Self {
            loss,
            size,
            down,
            up,
            tcp,
        })
    }
}

impl std::fmt::Display for Rung {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mib_s = |time: Duration| self.size as f64 / (1 << 20) as f64 / time.as_secs_f64();
        let tcp = self.tcp.map_or("did not end".to_owned(), |time| {
            format!("{:.2} MiB/s", mib_s(time))
        });
        write!(
            f,
            "{:>2} % loss: down {:.2} MiB/s, up {:.2} MiB/s, plain TCP down {tcp}",
            self.loss,
            mib_s(self.down),
            mib_s(self.up)
        )
    }
}

/// The whole ladder as a table, for a person: it takes long. `runs` of each rung, or the usual number. False if one failed.
pub fn ladder(runs: Option<usize>) -> bool {
    harness::by_hand(WITH_CURL, || climb(runs.unwrap_or(RUNS)))
}

fn climb(runs: usize) -> bool {
    let mut whole = true;
    for loss in LADDER {
        for n in 1..=runs {
            match harness::quietly(move || Rung::play(loss, SIZE)) {
                Ok(rung) => println!("{rung}   (run {n} of {runs})"),
                Err(why) => {
                    println!("{loss:>2} % loss: FAILED: {why}");
                    whole = false;
                }
            }
        }
    }
    whole
}
