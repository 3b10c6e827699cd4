//! A ladder of loss, reordering and copies: what a tunnel carries over ever worse links, beside plain TCP.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::Result;
use byway_sim::model::Access::{Open, PortRestricted};

use super::matrix::wait_until_direct;
use super::scene::Digest;
use super::{ACCESS, LONG, SHORT, WEB_PORT, WITH_CURL};
use crate::harness;
use crate::process::poll;
use crate::programs::{self, Agent, Forward, Options, Relay};
use crate::world::World;

/// The rungs of the ladder, in per cent of loss each way.
const LADDER: [u8; 5] = [1, 5, 10, 20, 30];
/// What decides how much is sent at once, here and by plain TCP.
pub(super) const CONTROLLERS: [&str; 3] = ["tolerant", "cubic", "bbr"];
/// What is moved each way on the ladder.
const SIZE: u64 = 10 << 20;
const MIB: f64 = 1_048_576.0;
/// What curl ends with when `--max-time` is over.
const CURL_TIMED_OUT: i32 = 28;
/// Runs of each rung.
const RUNS: usize = 20;
/// For one way. Where three of ten packets are lost, Cubic needs minutes: what counts is that each byte comes.
const PATIENCE: Duration = Duration::from_secs(900);
/// For both ways and what is beside them.
const RUN: Duration = PATIENCE.saturating_mul(2).saturating_add(LONG);
/// Plain TCP is not waited for longer: over the worst links it takes an hour, and its goodput shows before.
const TCP_TIME: Duration = Duration::from_secs(20);

/// One run over a link that loses so much: goodputs in MiB a second.
#[derive(Clone)]
pub(super) struct Rung {
    pub(super) down: f64,
    pub(super) up: f64,
    /// The same download over plain TCP, or as much of it as came in time.
    pub(super) tcp: f64,
    /// What the kernel's TCP was seen to send by.
    pub(super) tcp_kind: String,
}

impl Rung {
    pub(super) fn play(congestion: &'static str, loss: u8, size: u64) -> Result<Self> {
        let options = Options {
            congestion: Some(congestion),
            ..Options::default()
        };
        // The agent is open, so that plain TCP reaches it over the same link.
        let world = World::with_delay(PortRestricted, Open, ACCESS)?;
        let relay = Relay::start(&world)?;
        let (_web, plain) = programs::web(&world.agent, WEB_PORT)?;
        let digest = Digest::start(&world)?;
        // Plain TCP beside it is of the same kind; nothing in a kernel is like the tolerant one.
        let alike = if congestion == "tolerant" {
            "cubic"
        } else {
            congestion
        };
        world.agent.namespace.send_tcp_by(alike)?;
        let agent = Agent::start(&world, &relay.url, options, &[])?;
        let to_digest = digest.forwarded();
        let forward = Forward::start_with(&world, &agent.peer(), WEB_PORT, options, &[&to_digest])?;
        wait_until_direct(&world, &forward.url)?;
        let settings = format!("delay=5ms loss={loss} reorder=1 duplicate=1");
        world.emulator().link("client", &settings)?;

        let mib_s = |took: Duration| size as f64 / MIB / took.as_secs_f64();
        let began = Instant::now();
        let url = format!("{}/{size}", forward.url);
        let limit = PATIENCE.as_secs().to_string();
        let args = ["--max-time", &limit];
        programs::curl(&world, &world.client, &url, "tunnelled", &args, PATIENCE)?;
        let down = mib_s(began.elapsed());
        let up = mib_s(digest.upload_within(&world, size, PATIENCE)?);
        let (tcp, tcp_kind) = plain_tcp(&world, &format!("{plain}/{size}"))?;
        Ok(Self {
            down,
            up,
            tcp,
            tcp_kind,
        })
    }
}

/// MiB a second over plain TCP, by what came in time, and what the kernel sent by.
fn plain_tcp(world: &World, url: &str) -> Result<(f64, String)> {
    let limit = TCP_TIME.as_secs().to_string();
    let args = ["--no-buffer", "--max-time", &limit];
    let mut curl = programs::start_curl(world, &world.client, url, "plain", &args)?;
    // A short one may be over before anybody looks.
    let kind = poll("connection of plain TCP", SHORT, || {
        let seen = world.agent.namespace.tcp_sends_by(WEB_PORT)?;
        Ok(seen.or_else(|| (!curl.is_running()).then(|| "not seen".to_owned())))
    })?;
    let done = curl.finish(LONG)?;
    match done.code {
        Some(0) => programs::check_body(world, url, "plain")?,
        Some(CURL_TIMED_OUT) => {}
        _ => drop(done.clone().success()?),
    }
    let came = fs::metadata(world.dir().join("plain")).map_or(0, |file| file.len());
    Ok((came as f64 / MIB / done.took.as_secs_f64(), kind))
}

/// The ladder as a table, for a person: it takes long. Those rungs that have all of `words` in their titles ("cubic, 20 %
/// loss"), `runs` of each, or the usual number. False if one failed.
pub fn table(runs: Option<usize>, words: &[&str]) -> bool {
    harness::by_hand(WITH_CURL, || climb(runs.unwrap_or(RUNS), words))
}

fn climb(runs: usize, words: &[&str]) -> bool {
    let rungs: Vec<(&str, u8, String)> = CONTROLLERS
        .iter()
        .flat_map(|congestion| LADDER.map(|loss| (*congestion, loss)))
        .map(|(congestion, loss)| (congestion, loss, format!("{congestion}, {loss:>2} % loss")))
        .filter(|(_, _, title)| words.iter().all(|word| title.contains(word)))
        .collect();
    if rungs.is_empty() {
        println!("no rung is called {}", words.join(" "));
        return false;
    }
    println!("goodput in MiB/s, the median of {runs} runs (the least)");
    let mut whole = true;
    for (congestion, loss, title) in rungs {
        let (rungs, failures) =
            harness::patiently_often(RUN, runs, move |_| Rung::play(congestion, loss, SIZE));
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
            "{title}, {} of {runs} whole: down {}, up {}, plain TCP ({}) down {}",
            rungs.len(),
            spread(|rung| rung.down),
            spread(|rung| rung.up),
            rungs.first().map_or("none", |rung| &rung.tcp_kind),
            spread(|rung| rung.tcp)
        );
    }
    whole
}
