//! What strangers do to a relay on the public internet: they hold connections open and say next to nothing, begin handshakes in
//! other people's names, and use up its file descriptors. Honest nodes must not notice, and nobody may be made to send
//! much to a third party.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use byway_sim::model::Access::PortRestricted;

use super::hostile::{Counted, EVIL, VICTIMS, count, gone};
use super::waste::resident;
use super::{ACCESS, PROGRAMS, SHORT};
use crate::harness::{Scenario, say};
use crate::process::Running;
use crate::programs::{self, Agent, Options, Relay};
use crate::world::{Site, World};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "abuse::two_thousand_connections_that_say_nothing_are_cut_and_keep_nobody_out",
        needs: PROGRAMS,
        run: slow_loris,
    },
    Scenario {
        name: "abuse::handshakes_begun_in_other_names_cost_little_memory_and_keep_nobody_out",
        needs: PROGRAMS,
        run: forged_handshakes,
    },
    Scenario {
        name: "abuse::a_relay_without_descriptors_keeps_its_links_and_recovers_in_a_second",
        needs: PROGRAMS,
        run: no_descriptors,
    },
];

/// Connections of the slow one.
const SLOW: usize = 2_000;
/// To `Welcome` from a connection's first packet, and a busy machine's delay.
const CUT: Duration = Duration::from_secs(12);
/// New links of honest nodes while it lasts: none may fail.
const HONEST: usize = 20;
/// Handshakes in other names, and how many of them in a second.
const FORGED: u32 = 4_000;
const FORGED_PER_SECOND: u32 = 800;
/// Other names, which nobody has, beside those of the victims.
const OTHERS: u64 = 120;
/// What 1,024 handshakes under way may hold, in bytes: 64 KiB each.
const HELD: u64 = 64 << 20;

/// Client, agent, and an `evil` host with several addresses.
fn world() -> Result<World> {
    let site = || Site::behind(PortRestricted).access(ACCESS);
    let evil: Vec<_> = (0..4).map(|n| [203, 0, 113, 30 + n].into()).collect();
    let plan = World::servers()
        .host("evil", &evil)
        .host("victim", &VICTIMS)
        .site("client", site())
        .site("agent", site());
    World::of(plan)
}

/// So many times a client that is not linked yet gets through to the agent.
fn honest(world: &World, agent: &Agent, link: &'static str) -> Result<Vec<f64>> {
    let options = Options {
        link: Some(link),
        no_direct: true,
        ..Options::default()
    };
    let mut took = Vec::new();
    for n in 0..HONEST {
        let pongs = programs::ping(world, &agent.peer(), options, &["-c", "1"])
            .with_context(|| format!("honest link {n} by {link}"))?;
        took.push(pongs.first().context("no answer")?.at_ms);
    }
    took.sort_by(f64::total_cmp);
    Ok(took)
}

fn slow_loris() -> Result<()> {
    let world = world()?;
    let relay = Relay::start(&world)?;
    let agent = Agent::start(&world, &relay.url, Options::default(), &[])?;
    let usual = honest(&world, &agent, "tls")?;
    let evil = world.host("evil")?;
    let to = world.relay.at(443).to_string();
    let mut args = vec![to, SLOW.to_string()];
    args.extend((0..4).map(|n| format!("203.0.113.{}", 30 + n)));
    let loris = programs::tool(&evil.namespace, "loris", &args)?;
    let opened = loris.wait_for("all connections", SHORT, |line| {
        line.text.strip_prefix("opened ").map(str::to_owned)
    })?;
    let beside = honest(&world, &agent, "tls")?;
    let cut = loris.wait_for("the end of all", 2 * SHORT, |line| {
        line.text.strip_prefix("cut ").map(str::to_owned)
    })?;
    let (cut, longest) = cut.split_once(" longest ").context("how long they lived")?;
    say(format!(
        "{opened} slow connections; the longest lived {longest} ms; {HONEST} honest links by TLS, median {:.0} ms, {:.0} ms without",
        beside[HONEST / 2],
        usual[HONEST / 2]
    ));
    ensure!(cut == opened, "{cut} of {opened} were cut");
    ensure!(
        opened.parse::<usize>()? >= SLOW * 9 / 10,
        "only {opened} came"
    );
    let longest = Duration::from_millis(longest.parse()?);
    ensure!(longest <= CUT, "one lived for {longest:?}");
    Ok(())
}

fn forged_handshakes() -> Result<()> {
    let world = world()?;
    let victim = &world.host("victim")?.namespace;
    count(victim, Counted::Arrivals)?;
    let relay = Relay::start(&world)?;
    let agent = Agent::start(&world, &relay.url, Options::default(), &[])?;
    honest(&world, &agent, "udp")?;
    let before = resident(&relay.process)?;
    let evil = world.host("evil")?;
    let to = world.relay.at(443).to_string();
    let mut args = vec![to, FORGED.to_string(), FORGED_PER_SECOND.to_string()];
    args.extend(VICTIMS.map(|ip| ip.to_string()));
    // More names than the budget of any one of them reaches for.
    args.extend((0..OTHERS).map(|n| format!("203.0.113.{}", 64 + n)));
    let forger = programs::tool(&evil.namespace, "initials", &args)?;
    let beside = honest(&world, &agent, "udp")?;
    let sent = forger.finish(3 * SHORT)?.success()?.stdout();
    let bytes: u64 = sent
        .trim()
        .rsplit_once(' ')
        .context("how much was sent")?
        .1
        .parse()?;
    let grown = resident(&relay.process)?.saturating_sub(before);
    let at_victim = gone(victim)?;
    let answered: u64 = at_victim.iter().map(|g| g.bytes).sum();
    // The counter has the headers of IP and UDP in it.
    let sent = bytes + u64::from(FORGED) * 28;
    let sent = sent * VICTIMS.len() as u64 / (VICTIMS.len() as u64 + OTHERS);
    let factor = answered as f64 / sent as f64;
    say(format!(
        "{FORGED} handshakes in others' names: {HONEST} honest links, median {:.0} ms; the relay grew by {} MiB; {factor:.2} bytes came to the victims for each that was sent",
        beside[HONEST / 2],
        grown >> 20
    ));
    ensure!(
        answered > 0,
        "the flood did not arrive, or nothing was answered"
    );
    ensure!(factor <= 3.0, "{factor} bytes for each byte");
    ensure!(grown <= HELD, "the relay grew by {grown} bytes");
    Ok(())
}

fn no_descriptors() -> Result<()> {
    let world = world()?;
    let relay = Relay::start(&world)?;
    let agent = Agent::start(&world, &relay.url, Options::default(), &[])?;
    let options = Options {
        link: Some("tls"),
        no_direct: true,
        ..Options::default()
    };
    let steady = programs::start_ping(&world, &agent.peer(), options, &["-c", "20"])?;
    steady.wait_for("an answer", SHORT, |line| {
        line.text.contains("rtt_ms").then_some(())
    })?;
    let pid = relay.process.pid().to_string();
    let mut limit = std::process::Command::new("prlimit");
    limit.args(["--pid", &pid, "--nofile=100:100"]);
    Running::run("prlimit", &mut limit, SHORT)?.success()?;
    let evil = world.host("evil")?;
    let to = world.relay.at(443).to_string();
    let mut args = vec![to, "400".to_owned()];
    args.extend((0..4).map(|n| format!("203.0.113.{}", 30 + n)));
    let loris = programs::tool(&evil.namespace, "loris", &args)?;
    relay
        .process
        .wait_for("the end of its descriptors", SHORT, |line| {
            // It sheds newcomers before the last one is gone, unless they come faster than it looks.
            let (none, shed) = ("accept fails", "no new nodes are let in");
            (line.text.contains(none) || line.text.contains(shed)).then_some(())
        })?;
    // Nobody new gets in by TCP for the moment; who is here notices nothing.
    let done = steady.finish(3 * SHORT)?.success()?;
    let pongs = programs::pongs(&done)?;
    let worst = pongs.iter().map(|p| p.rtt_ms).fold(0.0, f64::max);
    ensure!(pongs.len() == 20, "{} of 20 answers", pongs.len());
    drop(loris.kill()?);
    let first = programs::ping(&world, &agent.peer(), options, &["-c", "1"])?;
    let again = first.first().context("no answer")?.at_ms;
    say(format!(
        "no descriptors: 20 answers of 20 on a link that was there, the slowest after {worst:.0} ms; a new link {again:.0} ms after the end"
    ));
    ensure!(worst < 1_000.0, "an answer took {worst} ms");
    // A second until it looks again.
    ensure!(again < 1_000.0 + 1_000.0, "a new link took {again} ms");
    Ok(())
}

const _: () = assert!(EVIL.octets()[3] == 30, "the first of its addresses");
