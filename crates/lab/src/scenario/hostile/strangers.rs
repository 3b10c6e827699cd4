//! Who calls without permission is told nothing of where the agent is, and the agent sends nothing to it nor to anybody whom it names.

use std::fs;
use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use byway_sim::model::Access::PortRestricted;
use byway_wire::{SecretKey, Ticket, TicketSecret};
use data_encoding::HEXLOWER;

use super::{Counted, VICTIMS, count, gone, until_dropped, world};
use crate::harness::{Scenario, say};
use crate::process::Running;
use crate::programs::{self, Agent, Options, Relay};
use crate::scenario::{PROGRAMS, SHORT};
use crate::world::{AGENT_PUBLIC, World};

pub(in crate::scenario) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "hostile::whoever_lacks_the_tickets_secret_learns_no_address_and_causes_no_probe",
        needs: PROGRAMS,
        run: || turned_away(false),
    },
    Scenario {
        name: "hostile::whoever_is_not_on_the_list_learns_no_address_and_causes_no_probe",
        needs: PROGRAMS,
        run: || turned_away(true),
    },
];

/// Promised by each caller, let in or not.
const PROMISED: usize = 320;

fn turned_away(by_list: bool) -> Result<()> {
    let world = world(PortRestricted)?;
    let victim = &world.host("victim")?.namespace;
    count(victim, Counted::Arrivals)?;
    let relay = Relay::start(&world)?;
    // One that never comes.
    let listed = SecretKey::from_bytes(&[9; 32]).node_id().to_string();
    let list = ["-v", "--allow-node", &listed];
    let args = if by_list { &list[..] } else { &list[..1] };
    let agent = Agent::start(&world, &relay.url, Options::default(), args)?;
    count(&world.agent.namespace, Counted::Probes)?;
    let text = fs::read_to_string(&agent.ticket)?;
    let mut ticket: Ticket = text.parse()?;
    ensure!(
        ticket.secret.is_none() == by_list,
        "whom does it let in? {text}"
    );

    // A real client, which has no permission either.
    if !by_list {
        ticket.secret = Some(TicketSecret::from_bytes([7; 32]));
    }
    let mut command = programs::byway(&world, &world.client, "client")?;
    command.args(["ping", &ticket.to_string(), "-c", "1"]);
    let done = Running::run("byway ping", &mut command, SHORT)?;
    ensure!(done.code == Some(4), "{:?}: {}", done.code, done.stderr());

    for proof in ["wrong", "none"] {
        let stranger = call(&world, &agent, proof)?;
        stranger.wait_for("refusal", SHORT, |line| {
            line.text.starts_with("heard Closed ").then_some(())
        })?;
        knows_nothing(&world, &stranger)?;
    }
    let refused = until_dropped(&agent.process, "open_refused", 3)?;
    let at_victim = gone(victim)?;
    let probes = gone(&world.agent.namespace)?;
    say(format!("{refused} were turned away; probes {probes:?}"));
    ensure!(
        at_victim.is_empty() && probes.is_empty(),
        "{at_victim:?} {probes:?}"
    );
    for who in [&world.client, world.host("evil")?] {
        let direct = who.traffic()?.direct;
        ensure!(
            direct == 0,
            "{direct} bytes between {} and the agent",
            who.name
        );
    }
    if by_list {
        return Ok(());
    }
    // What these tests look for is there to be found by whoever is let in.
    let friend = call(&world, &agent, "right")?;
    friend.wait_for("the agent's candidates", SHORT, |line| {
        line.text.starts_with("candidate ").then_some(())
    })?;
    ensure!(
        knows_nothing(&world, &friend).is_err(),
        "who was let in was told nothing"
    );
    ensure!(
        friend
            .lines()
            .iter()
            .any(|line| line.text.starts_with("heard PeerMoved "))
    );
    Ok(())
}

fn call(world: &World, agent: &Agent, proof: &str) -> Result<Running> {
    let ticket = agent.ticket.display().to_string();
    let mut args = vec![
        ticket,
        proof.to_owned(),
        PROMISED.to_string(),
        "1".to_owned(),
    ];
    args.extend(VICTIMS.map(|ip| ip.to_string()));
    let evil = world.host("evil")?;
    let caller = programs::tool(&evil.namespace, "opener", &args)?;
    caller.wait_for("last promise", SHORT, |line| {
        line.text.starts_with("promised ").then_some(())
    })?;
    Ok(caller)
}

/// Nothing that it heard has an address of the agent's in it, and none of it was a signal.
fn knows_nothing(world: &World, caller: &Running) -> Result<()> {
    let addrs: [Ipv4Addr; 2] = [AGENT_PUBLIC, world.agent.addr];
    for line in caller.lines() {
        let Some(heard) = line.text.strip_prefix("heard ") else {
            ensure!(
                !line.text.starts_with("candidate "),
                "it knows a {}",
                line.text
            );
            continue;
        };
        let (name, hex) = heard.split_once(' ').context("a message without bytes")?;
        ensure!(name != "Signal" && name != "PeerMoved", "it heard {name}");
        let bytes = HEXLOWER.decode(hex.as_bytes())?;
        for addr in addrs {
            let named = bytes.windows(4).any(|four| four == addr.octets());
            ensure!(!named, "{name} tells it {addr}");
        }
    }
    Ok(())
}
