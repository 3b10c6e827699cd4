//! Bad links, emulated: a path that shrinks, and a ladder of loss, reordering and copies beside plain TCP.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use byway_sim::model::Access::{Open, PortRestricted};

use super::matrix::wait_until_direct;
use super::scene::{Digest, STALL, Transfer, direct_forward};
use super::{ACCESS, LONG, WEB_PORT, WITH_CURL};
use crate::harness::{self, Scenario, say};
use crate::programs::{self, Agent, Forward, Options, Relay};
use crate::world::World;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "links::a_path_that_shrinks_under_a_transfer_costs_a_moment_and_no_byte",
        needs: WITH_CURL,
        run: shrinks,
    },
    Scenario {
        name: "links::five_per_cent_loss_with_disorder_and_copies_changes_no_byte",
        needs: WITH_CURL,
        run: || {
            for congestion in CONTROLLERS {
                let rung = Rung::play(congestion, 5, 1 << 20)?;
                let Rung { down, up, tcp, .. } = rung;
                say(format!(
                    "{congestion}: down {down:.2} MiB/s, up {up:.2} MiB/s, plain TCP ({}) down {tcp:.2} MiB/s",
                    rung.tcp_kind
                ));
            }
            Ok(())
        },
    },
];

fn shrinks() -> Result<()> {
    let scene = direct_forward()?;
    let emulator = scene.world.emulator();
    let stall = Transfer::LARGE.disturbed(&scene.world, &scene.forward.url, || {
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
/// What decides how much is sent at once, here and by plain TCP.
const CONTROLLERS: [&str; 3] = ["tolerant", "cubic", "bbr"];
/// What is moved each way on the ladder.
const SIZE: u64 = 10 << 20;
const MIB: f64 = 1_048_576.0;
/// What curl ends with when `--max-time` is over.
const CURL_TIMED_OUT: i32 = 28;
/// Runs of each rung.
const RUNS: usize = 20;
/// What does not end in this time does not end for a person either.
const PATIENCE: Duration = Duration::from_secs(240);
/// Plain TCP is not waited for longer: over the worst links it takes an hour, and its goodput shows before.
const TCP_TIME: Duration = Duration::from_secs(20);

/// One run over a link that loses so much: goodputs in MiB a second.
#[derive(Clone)]
struct Rung {
    down: f64,
    up: f64,
    /// The same download over plain TCP, or as much of it as came in time.
    tcp: f64,
    /// By what the kernel's TCP goes: not every kernel has every controller.
    tcp_kind: String,
}

impl Rung {
    fn play(congestion: &'static str, loss: u8, size: u64) -> Result<Self> {
        let options = Options {
            congestion: Some(congestion),
            ..Options::default()
        };
        // The agent is open, so that plain TCP reaches it over the same link.
        let world = World::with_delay(PortRestricted, Open, ACCESS)?;
        let relay = Relay::start(&world)?;
        let (_web, plain) = programs::web(&world.agent, WEB_PORT)?;
        let digest = Digest::start(&world)?;
        let server = &world.agent.namespace;
        // Plain TCP too is to be of this kind, if it can.
        let _ = server.sysctl("net.ipv4.tcp_congestion_control", congestion);
        let asked = server
            .command("cat")
            .arg("/proc/sys/net/ipv4/tcp_congestion_control")
            .output()?;
        let tcp_kind = String::from_utf8_lossy(&asked.stdout).trim().to_owned();
        let agent = Agent::start(&world, &relay.url, options, &[])?;
        let to_digest = digest.forwarded();
        let forward = Forward::start_with(&world, &agent.peer(), WEB_PORT, options, &[&to_digest])?;
        wait_until_direct(&world, &forward.url)?;
        let settings = format!("delay=5ms loss={loss} reorder=1 duplicate=1");
        world.emulator().link("client", &settings)?;

        let mib_s = |took: Duration| size as f64 / MIB / took.as_secs_f64();
        let began = Instant::now();
        let url = format!("{}/{size}", forward.url);
        programs::curl(&world, &world.client, &url, "tunnelled", &[], PATIENCE)?;
        let down = mib_s(began.elapsed());
        let up = mib_s(digest.upload(&world, size)?);
        Ok(Self {
            down,
            up,
            tcp: plain_tcp(&world, &format!("{plain}/{size}"))?,
            tcp_kind,
        })
    }
}

/// MiB a second over plain TCP, by what came in time.
fn plain_tcp(world: &World, url: &str) -> Result<f64> {
    let limit = TCP_TIME.as_secs().to_string();
    let args = ["--no-buffer", "--max-time", &limit];
    let done = programs::start_curl(world, &world.client, url, "plain", &args)?.finish(LONG)?;
    match done.code {
        Some(0) => programs::check_body(world, url, "plain")?,
        Some(CURL_TIMED_OUT) => {}
        _ => drop(done.clone().success()?),
    }
    let came = fs::metadata(world.dir().join("plain")).map_or(0, |file| file.len());
    Ok(came as f64 / MIB / done.took.as_secs_f64())
}

/// The whole ladder as a table, for a person: it takes long. `runs` of each rung, or the usual number. False if one failed.
pub fn ladder(runs: Option<usize>) -> bool {
    harness::by_hand(WITH_CURL, || climb(runs.unwrap_or(RUNS)))
}

fn climb(runs: usize) -> bool {
    println!("goodput in MiB/s, the median of {runs} runs (the least)");
    let mut whole = true;
    let rungs = CONTROLLERS.map(|congestion| LADDER.map(|loss| (congestion, loss)));
    for (congestion, loss) in rungs.concat() {
        let (rungs, failures) =
            harness::quietly_often(runs, move |_| Rung::play(congestion, loss, SIZE));
        failures.iter().for_each(|why| println!("FAILED: {why}"));
        whole &= failures.is_empty();
        let spread = |of: fn(&Rung) -> f64| {
            let mut all: Vec<f64> = rungs.iter().map(of).collect();
            all.sort_by(f64::total_cmp);
            let median = all.get(all.len() / 2).copied().unwrap_or_default();
            format!(
                "{median:.2} ({:.2})",
                all.first().copied().unwrap_or_default()
            )
        };
        println!(
            "{congestion}, {loss:>2} % loss, {} of {runs} whole: down {}, up {}, plain TCP ({}) down {}",
            rungs.len(),
            spread(|rung| rung.down),
            spread(|rung| rung.up),
            rungs.first().map_or("none", |rung| &rung.tcp_kind),
            spread(|rung| rung.tcp)
        );
    }
    whole
}
