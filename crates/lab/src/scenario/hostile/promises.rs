//! Peers that were let in promise ten thousand paths, to third parties, to the agent itself, to everybody at once and to the relay,
//! and never answer. Each address gets what the design grants one that nobody attests, all together what a peer may have tried, and
//! the agent's other client goes on.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Result, ensure};
use byway_sim::model::Access::PortRestricted;

use super::{Counted, Gone, PING, PINGS, VICTIMS, count, dropped, gone, until_dropped, world};
use crate::harness::{Scenario, say};
use crate::process::{Running, poll};
use crate::programs::{self, Options};
use crate::scenario::scene::{STALL, Scene, Transfer, direct_forward_in};
use crate::scenario::{SHORT, WITH_CURL};
use crate::world::{CLIENT_PUBLIC, RELAY};

pub(in crate::scenario) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "hostile::ten_thousand_promised_paths_cost_others_the_designs_budget",
        needs: WITH_CURL,
        run: ten_thousand,
    },
    Scenario {
        name: "hostile::one_address_that_many_peers_promise_gets_the_budget_of_four",
        needs: WITH_CURL,
        run: many_peers,
    },
];

const PROMISED: usize = 10_000;
/// By so many peers: of each the relay passes on 32 signals at once, of 32 candidates each, and ten a second afterwards.
const PEERS: usize = 10;
/// For so many of them one address is asked in a minute (docs/protocol.md).
const CALLERS: u64 = 4;
/// Addresses that nobody attests of which a node tries those of one peer in a minute (core, `path/addresses.rs`).
const TRIED: u64 = 128;
/// Ports of one host that are asked for strangers in that time (core, `asked.rs`).
const PORTS: u64 = 64;
/// A second and more; the last of an address's three pings leaves 0.4 s after the first.
const SERVED: &[&str] = &["-c", "3"];
/// Two seconds at 32 Mbit/s.
const TRANSFER: Transfer = Transfer {
    size: 8_000_000,
    pace: 4_000_000,
};
/// Those whom no datagram may be sent to because a peer says so.
const NOBODYS: [&str; 6] = [
    "127.0.0.1",
    "224.0.0.1",
    "239.255.255.250",
    "255.255.255.255",
    "169.254.1.1",
    "0.0.0.0",
];

/// What is promised: by turns, so that every signal has some of all.
fn promised() -> Vec<String> {
    let mut all: Vec<String> = VICTIMS.map(|ip| ip.to_string()).into();
    all.extend(NOBODYS.map(str::to_owned));
    all.extend([
        "203.0.113.255".to_owned(),
        "10.2.0.1".to_owned(),
        "10.2.0.2".to_owned(),
    ]);
    all.extend([
        format!("{RELAY}:443"),
        format!("{RELAY}:3478"),
        RELAY.to_string(),
    ]);
    all.push(CLIENT_PUBLIC.to_string());
    all
}

/// Has a peer promise paths from the host that means harm.
fn promise(scene: &Scene, count: usize, opens: usize, addrs: &[String]) -> Result<Running> {
    let ticket = scene.agent.ticket.display().to_string();
    let mut args = vec![
        ticket,
        "right".to_owned(),
        count.to_string(),
        opens.to_string(),
    ];
    args.extend(addrs.iter().cloned());
    let evil = scene.world.host("evil")?;
    let peer = programs::tool(&evil.namespace, "opener", &args)?;
    let mut done = 0;
    peer.wait_for("last promise", SHORT, |line| {
        done += usize::from(line.text.starts_with("promised "));
        (done == opens).then_some(())
    })?;
    // It was let in: it knows where the agent is.
    peer.wait_for("the agent's candidates", SHORT, |line| {
        line.text.starts_with("candidate ").then_some(())
    })?;
    Ok(peer)
}

fn scene() -> Result<Scene> {
    let scene = direct_forward_in(world(PortRestricted)?, &["-v"])?;
    count(&scene.world.host("victim")?.namespace, Counted::Arrivals)?;
    count(&scene.world.agent.namespace, Counted::Probes)?;
    Ok(scene)
}

fn ten_thousand() -> Result<()> {
    let scene = scene()?;
    let world = &scene.world;
    let addrs = promised();
    let mut peer = None;
    let before = world.client.traffic()?;
    let stall = TRANSFER.disturbed(world, &scene.forward.url, || {
        peer = Some(promise(&scene, PROMISED / PEERS, PEERS, &addrs)?);
        Ok(())
    })?;
    let moved = world.client.traffic()?.since(before);
    // Of each round of addresses some are nobody's. When the last was refused, the probes have been sent long since.
    let refused = (PROMISED / addrs.len() * NOBODYS.len()) as u64;
    let refused = until_dropped(&scene.agent.process, "candidate_refused", refused)?;
    let left = until_dropped(&scene.agent.process, "candidate_waits", 1)?;
    say(format!(
        "{refused} were refused, {left} left alone; the client's transfer stalled for {} ms: {moved:?}",
        stall.as_millis()
    ));
    ensure!(
        moved.direct > TRANSFER.size && stall < STALL,
        "the other client was disturbed: {stall:?}, {moved:?}"
    );
    let at_victims = gone(&world.host("victim")?.namespace)?;
    ensure!(!at_victims.is_empty(), "nothing was probed: was it let in?");
    within_budget(&at_victims)?;
    let probes = probes_to_others(&scene)?;
    within_budget(&probes)?;
    for ip in VICTIMS {
        let to_host = probes.iter().filter(|gone| gone.to.ip() == IpAddr::V4(ip));
        let packets: u64 = to_host.map(|gone| gone.packets).sum();
        // No port is named twice.
        ensure!(packets <= PORTS * PINGS, "{packets} to {ip}");
    }
    let all: u64 = probes.iter().map(|gone| gone.packets).sum();
    say(format!("{all} probes to {} addresses", probes.len()));
    ensure!(all <= PEERS as u64 * TRIED * PINGS, "{all} probes");
    for gone in probes {
        let nobodys = NOBODYS.iter().any(|ip| gone.to.ip().to_string() == *ip);
        ensure!(!nobodys, "probed: {gone:?}");
    }
    drop(peer);
    Ok(())
}

fn many_peers() -> Result<()> {
    let scene = scene()?;
    let victim = vec![format!("{}:53", VICTIMS[0])];
    let _peers = promise(&scene, 64, 8, &victim)?;
    // Each of them is another node with keys of its own: together they may not have more, and the others wait.
    until_dropped(&scene.agent.process, "candidate_waits", 8 - CALLERS)?;
    let victim = &scene.world.host("victim")?.namespace;
    poll("the pings of four peers", SHORT, || {
        let pings: u64 = gone(victim)?.iter().map(|gone| gone.packets).sum();
        Ok((pings >= CALLERS * PINGS).then_some(()))
    })?;
    // Were the others asked for too, the last of their pings would have left while a client that means well is served.
    let pongs = programs::ping(
        &scene.world,
        &scene.agent.peer(),
        Options::default(),
        SERVED,
    )?;
    ensure!(pongs.len() == 3, "{pongs:?}");
    let at_victim = gone(victim)?;
    say(format!("{at_victim:?}"));
    ensure!(at_victim.len() == 1, "{at_victim:?}");
    ensure!(
        dropped(&scene.agent.process, "open_refused") == 0,
        "not all were let in"
    );
    within_budget(&at_victim)?;
    within_budget(&probes_to_others(&scene)?)
}

fn within_budget(all: &[Gone]) -> Result<()> {
    for gone in all {
        ensure!(
            gone.packets <= CALLERS * PINGS && gone.bytes <= CALLERS * PINGS * PING,
            "beyond the budget: {gone:?}"
        );
    }
    Ok(())
}

/// Probes of the agent's to those who do not answer: all but the client, whose path is in use.
fn probes_to_others(scene: &Scene) -> Result<Vec<Gone>> {
    let client: [Ipv4Addr; 2] = [CLIENT_PUBLIC, scene.world.client.addr];
    // It has one port, and what is promised of its address many.
    let own = client.map(IpAddr::V4);
    let mut all = gone(&scene.world.agent.namespace)?;
    let in_use = all
        .iter()
        .filter(|gone| own.contains(&gone.to.ip()))
        .max_by_key(|gone| gone.bytes)
        .map(|gone| gone.to);
    all.retain(|gone| Some(gone.to) != in_use);
    Ok(all)
}
