//! A STUN server that lies, answers what was not asked, or floods, beside two that are honest: it is asked as a relay is asked that
//! the agent was told to use, and as `netcheck --stun`. Nobody believes it, the tunnel goes direct as ever, and a flood costs little.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use byway_sim::model::Access::PortRestricted;

use super::{Counted, VICTIMS, count, gone, until_dropped, world};
use crate::harness::{Scenario, say};
use crate::process::Running;
use crate::programs::{self, Agent, Options, Relay};
use crate::scenario::{PROGRAMS, SHORT};
use crate::world::{CLIENT_PUBLIC, RELAY, RELAY_2, STUN_2, World};

pub(in crate::scenario) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "hostile::a_stun_server_that_names_a_third_party_is_not_believed",
        needs: PROGRAMS,
        run: || Manner::Lie.play(),
    },
    Scenario {
        name: "hostile::a_stun_server_that_answers_what_was_not_asked_is_not_heard",
        needs: PROGRAMS,
        run: || Manner::Other.play(),
    },
    Scenario {
        name: "hostile::a_stun_server_that_floods_costs_little_and_changes_nothing",
        needs: PROGRAMS,
        run: || Manner::Flood.play(),
    },
];

/// Whom it names.
const LIE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(VICTIMS[0]), 4_444);
/// Pings, a quarter of a second apart or a second: long enough for a flood to be one.
const PINGS: &str = "6";
/// Of a processor, per second of the flood: thousands of datagrams a second are read and thrown away.
const BUSY: f64 = 0.5;
/// Datagrams a second at the agent, from which on it is a flood: half of what one question brings.
const FLOOD: f64 = 500.0;
/// Bytes of memory that a flood may cost.
const GROWTH: u64 = 32 << 20;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Manner {
    Lie,
    Other,
    Flood,
}

impl Manner {
    fn argument(self) -> String {
        match self {
            Self::Lie => format!("lie={LIE}"),
            Self::Other => "other".to_owned(),
            Self::Flood => "flood".to_owned(),
        }
    }

    fn play(self) -> Result<()> {
        let world = world(PortRestricted)?;
        let victim = &world.host("victim")?.namespace;
        count(victim, Counted::Arrivals)?;
        count(&world.agent.namespace, Counted::Arrivals)?;
        let relays = [RELAY, RELAY_2].map(|ip| honest(&world, ip));
        let [first, second] = relays;
        let (first, second) = (first?, second?);
        let at = [443, 3478].map(|port| format!("{STUN_2}:{port}"));
        let args = [&[self.argument()], &at[..]].concat();
        let liar = programs::tool(&world.stun_2.namespace, "liar", &args)?;
        liar.first_line("readiness", SHORT)?;
        // It says that it is a relay, and answers as one is asked for STUN; nobody can link to it.
        let (_, pin) = first.url.split_once('#').context("a URL with a pin")?;
        let third = format!("https://{STUN_2}:443#{pin}");
        let args = ["-v", "--relay", &second.url, "--relay", &third];
        let agent = Agent::start(&world, &first.url, Options::default(), &args)?;
        let before = usage(&agent.process)?;

        let began = std::time::Instant::now();
        let ping = ["-v", "--until-direct"];
        let pongs = programs::ping(&world, &agent.peer(), Options::default(), &ping)?;
        let direct = pongs.last().context("no answer at all")?;
        ensure!(direct.kind == "direct", "it did not go direct: {direct:?}");
        let steady = programs::ping(&world, &agent.peer(), Options::default(), &["-c", PINGS])?;
        let last = steady.last().context("no answer at all")?;
        ensure!(last.kind == "direct", "it did not stay direct: {last:?}");
        asked(&liar, world.agent.public)?;

        let (took, after) = (began.elapsed(), usage(&agent.process)?);
        let busy = after
            .processor
            .saturating_sub(before.processor)
            .as_secs_f64();
        let growth = after.memory.saturating_sub(before.memory);
        say(format!(
            "{:.1} s of processor in {:.1} s, {growth} bytes more",
            busy,
            took.as_secs_f64()
        ));
        ensure!(busy < BUSY * took.as_secs_f64(), "{busy} s in {took:?}");
        ensure!(growth < GROWTH, "{growth} bytes");
        if self == Self::Flood {
            let came = gone(&world.agent.namespace)?;
            let came: u64 = came.iter().map(|gone| gone.packets).sum();
            let came = came as f64 / took.as_secs_f64();
            say(format!("{came:.0} datagrams a second came to the agent"));
            ensure!(came > FLOOD, "no flood: {came} a second");
        }
        if self == Self::Other {
            until_dropped(&agent.process, "stun_unexpected", 1)?;
        }
        // Under a flood it is known to fail on a busy machine (docs/testing.md).
        if self != Self::Flood {
            self.netcheck(&world, [&first, &second])?;
        }
        let at_victim = gone(victim)?;
        ensure!(at_victim.is_empty(), "the third party got {at_victim:?}");
        Ok(())
    }

    /// What a person is told.
    fn netcheck(self, world: &World, relays: [&Relay; 2]) -> Result<()> {
        let liar = format!("{STUN_2}:3478");
        let [one, other] = relays.map(|relay| relay.url.as_str());
        let args = ["--relay", one, "--relay", other, "--stun", &liar];
        let report = programs::netcheck(world, &world.client, &args)?;
        let seen = report["reflexive_v4"].as_str().context("seen nowhere")?;
        ensure!(
            seen.starts_with(&format!("{CLIENT_PUBLIC}:")),
            "seen at {seen}"
        );
        ensure!(
            report["mapping"] == "endpoint_independent",
            "mapping: {}",
            report["mapping"]
        );
        let rows = report["servers"].as_array().context("no servers")?;
        let row = rows.iter().find(|row| row["addr"] == liar.as_str());
        let row = row.context("it was not asked")?;
        say(format!("netcheck of it: {row}"));
        // A lie is told as such. Whoever answers something else has not answered, and is not waited for where two others have.
        let is_told = match self {
            Self::Lie => row["fault"].is_string(),
            _ => row["mapped"].is_null(),
        };
        ensure!(row["believed"] == false && is_told, "{row}");
        Ok(())
    }
}

/// A relay at one of the two addresses of the relays' host.
fn honest(world: &World, ip: Ipv4Addr) -> Result<Relay> {
    Relay::start_at(world, &[443, 3478].map(|port| format!("{ip}:{port}")))
}

fn asked(liar: &Running, who: Ipv4Addr) -> Result<()> {
    let by = format!("asked by {who}:");
    liar.wait_for(&by, SHORT, |line| line.text.starts_with(&by).then_some(()))
}

/// What a process has used so far.
struct Usage {
    processor: Duration,
    /// Bytes that are in memory now.
    memory: u64,
}

/// By proc(5).
fn usage(process: &Running) -> Result<Usage> {
    /// Of the kernel's clock for processes, a second. It is the same on all of Linux's common machines.
    const TICKS: f64 = 100.0;
    let dir = format!("/proc/{}", process.pid());
    let stat = fs::read_to_string(format!("{dir}/stat"))?;
    // The name before it may hold anything, and ends with the last bracket.
    let (_, stat) = stat.rsplit_once(") ").context("no name in stat")?;
    let field = |n: usize| -> Result<f64> {
        let text = stat.split(' ').nth(n).context("a short stat")?;
        Ok(text.parse()?)
    };
    // `utime` and `stime`, fields 14 and 15 of all.
    let ticks = field(11)? + field(12)?;
    let status = fs::read_to_string(format!("{dir}/status"))?;
    let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let memory = memory.context("no VmRSS")?.trim().trim_end_matches(" kB");
    Ok(Usage {
        processor: Duration::from_secs_f64(ticks / TICKS),
        memory: memory.parse::<u64>()? << 10,
    })
}
