//! What goes wrong, and how it is told: the exit code a script relies on, and words a person can act on.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anyhow::{Result, ensure};
use byway_sim::model::Access::{Open, UdpBlocked};

use super::PROGRAMS;
use crate::harness::{Scenario, say};
use crate::process::{Finished, Running};
use crate::programs::{self, Agent, Options, Relay};
use crate::world::World;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "errors::bad_usage_ends_2",
        needs: PROGRAMS,
        run: bad_usage,
    },
    Scenario {
        name: "errors::a_malformed_ticket_is_named_as_such",
        needs: PROGRAMS,
        run: malformed_ticket,
    },
    Scenario {
        name: "errors::an_offline_agent_ends_3",
        needs: PROGRAMS,
        run: offline,
    },
    Scenario {
        name: "errors::an_agent_that_was_killed_ends_3_or_5",
        needs: PROGRAMS,
        run: vanished,
    },
    Scenario {
        name: "errors::a_target_that_is_not_allowed_ends_4",
        needs: PROGRAMS,
        run: target_not_allowed,
    },
    Scenario {
        name: "errors::a_port_where_nothing_listens_ends_1",
        needs: PROGRAMS,
        run: refused,
    },
    Scenario {
        name: "errors::a_relay_that_is_down_ends_5",
        needs: PROGRAMS,
        run: relay_down,
    },
    Scenario {
        name: "errors::udp_only_where_udp_is_blocked_ends_5",
        needs: PROGRAMS,
        run: udp_only_blocked,
    },
    Scenario {
        name: "errors::a_wrong_pin_is_told_as_such",
        needs: PROGRAMS,
        run: wrong_pin,
    },
    Scenario {
        name: "errors::a_key_file_others_can_read_is_refused",
        needs: PROGRAMS,
        run: key_permissions,
    },
    Scenario {
        name: "errors::a_relay_without_a_configuration_does_not_start",
        needs: PROGRAMS,
        run: relay_without_config,
    },
];

/// An error may take as long as its time-outs, not longer.
const PATIENCE: Duration = Duration::from_secs(40);

/// Runs `byway` on the client's host, to its end.
fn byway(world: &World, args: &[&str]) -> Result<Finished> {
    let mut command = programs::byway(world, &world.client, "client")?;
    command.args(args);
    Running::run("byway", &mut command, PATIENCE)
}

/// Requires an exit code, and each of the words (any of its alternatives, split at `|`) in the message.
fn expect(done: &Finished, codes: &[i32], words: &[&str]) -> Result<()> {
    let message = done.stderr();
    say(format!(
        "{:?} after {:.1} s: {}",
        done.code,
        done.took.as_secs_f64(),
        message.trim()
    ));
    ensure!(
        done.code.is_some_and(|c| codes.contains(&c)),
        "exit code {:?}, not {codes:?}: {message}",
        done.code
    );
    ensure!(!message.contains("panicked"), "it panicked: {message}");
    let lower = message.to_lowercase();
    for word in words {
        ensure!(
            word.split('|').any(|w| lower.contains(w)),
            "the message says nothing of {word:?}: {message}"
        );
    }
    Ok(())
}

/// A relay and an agent in the open.
fn scene(agent_args: &[&str]) -> Result<(World, Relay, Agent)> {
    let world = World::new(Open, Open)?;
    let relay = Relay::start(&world)?;
    let agent = Agent::start(&world, &relay.url, Options::default(), agent_args)?;
    Ok((world, relay, agent))
}

fn bad_usage() -> Result<()> {
    let world = World::new(Open, Open)?;
    expect(&byway(&world, &["ping"])?, &[2], &["usage"])?;
    expect(&byway(&world, &["frobnicate"])?, &[2], &["frobnicate"])?;
    expect(
        &byway(&world, &["ping", "@/nonexistent", "-c", "many"])?,
        &[2],
        &["many"],
    )?;
    expect(
        &byway(&world, &["netcheck", "--stun", "not an address"])?,
        &[2],
        &["stun|not an address"],
    )
}

fn malformed_ticket() -> Result<()> {
    let (world, _relay, agent) = scene(&[])?;
    expect(
        &byway(&world, &["ping", "@/nonexistent/ticket"])?,
        &[1, 2],
        &["/nonexistent/ticket"],
    )?;
    let ticket = fs::read_to_string(&agent.ticket)?;
    let ticket = ticket.trim();
    let mut last = ticket.as_bytes().last().copied().unwrap_or(b'a');
    last = if last == b'a' { b'b' } else { b'a' };
    for bad in [
        ticket[..ticket.len() / 2].to_owned(),
        format!("{}{}", &ticket[..ticket.len() - 1], char::from(last)),
        format!("{ticket}{ticket}"),
    ] {
        expect(
            &byway(&world, &["ping", &bad, "-c", "1"])?,
            &[2],
            &["ticket"],
        )?;
    }
    Ok(())
}

fn offline() -> Result<()> {
    let (world, _relay, agent) = scene(&[])?;
    let peer = agent.peer();
    // As a person ends it: it says goodbye.
    agent.process.signal("INT")?;
    let ended = agent.process.finish(PATIENCE)?;
    ensure!(
        ended.code == Some(0),
        "the interrupted agent ended with {:?}",
        ended.code
    );
    expect(
        &byway(&world, &["ping", &peer, "-c", "1"])?,
        &[3],
        &["offline|not connected|not found"],
    )?;
    expect(
        &byway(&world, &["stdio", &peer, "127.0.0.1:22"])?,
        &[3],
        &["offline|not connected|not found"],
    )
}

fn vanished() -> Result<()> {
    let (world, _relay, agent) = scene(&[])?;
    let peer = agent.peer();
    agent.process.kill()?;
    // The relay may still believe in the agent's link; either way the client is told before it gives up on us.
    expect(
        &byway(&world, &["ping", &peer, "-c", "1"])?,
        &[3, 5],
        &["offline|not connected|not found|agent"],
    )
}

fn target_not_allowed() -> Result<()> {
    let (world, _relay, agent) = scene(&["--allow", "127.0.0.1:9000"])?;
    let peer = agent.peer();
    expect(
        &byway(&world, &["stdio", &peer, "127.0.0.1:22"])?,
        &[4],
        &["not allowed|denied", "127.0.0.1:22"],
    )?;
    // By default, loopback only.
    let (world, _relay, agent) = scene(&[])?;
    expect(
        &byway(&world, &["stdio", &agent.peer(), "203.0.113.10:443"])?,
        &[4],
        &["not allowed|denied"],
    )
}

fn refused() -> Result<()> {
    let (world, _relay, agent) = scene(&[])?;
    expect(
        &byway(&world, &["stdio", &agent.peer(), "127.0.0.1:9"])?,
        &[1],
        &["refused|nothing listens", "127.0.0.1:9"],
    )
}

fn relay_down() -> Result<()> {
    let (world, relay, agent) = scene(&[])?;
    relay.process.kill()?;
    expect(
        &byway(&world, &["ping", &agent.peer(), "-c", "1"])?,
        &[5],
        &["relay", "203.0.113.10"],
    )
}

fn udp_only_blocked() -> Result<()> {
    let world = World::new(UdpBlocked, Open)?;
    let relay = Relay::start(&world)?;
    let agent = Agent::start(&world, &relay.url, Options::default(), &[])?;
    expect(
        &byway(&world, &["ping", &agent.peer(), "-c", "1", "--link", "udp"])?,
        &[5],
        &["udp"],
    )
}

fn wrong_pin() -> Result<()> {
    // The relay comes back with another key at the same address, as an impostor would.
    let (world, relay, agent) = scene(&[])?;
    relay.process.kill()?;
    fs::remove_dir_all(world.dir().join("home-relay"))?;
    let impostor = Relay::start(&world)?;
    ensure!(
        impostor.url != relay.url,
        "the second relay has the first one's key"
    );
    for link in ["udp", "tls"] {
        let done = byway(&world, &["ping", &agent.peer(), "-c", "1", "--link", link])?;
        expect(&done, &[1, 4, 5], &["pin|key|certificate"])?;
    }
    Ok(())
}

fn key_permissions() -> Result<()> {
    let (world, relay, agent) = scene(&[])?;
    let key = world.dir().join("home-agent/agent.key");
    let mode = fs::metadata(&key)?.permissions().mode() & 0o777;
    ensure!(mode == 0o600, "the key file was created {mode:o}");
    agent.process.kill()?;
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644))?;
    let again = Agent::start_unlinked(&world, &relay.url, Options::default(), &[])?;
    expect(
        &again.process.finish(PATIENCE)?,
        &[1, 2],
        &["agent.key", "600|permission"],
    )
}

fn relay_without_config() -> Result<()> {
    let world = World::new(Open, Open)?;
    let relay = |args: &[&str]| {
        let mut command = world
            .relay
            .namespace
            .command(programs::binary("byway-relay"));
        command.current_dir(world.dir()).args(args);
        Running::run("byway-relay", &mut command, PATIENCE)
    };
    expect(&relay(&["serve"])?, &[1, 2], &["--config|--open"])?;
    expect(
        &relay(&["serve", "--config", "/nonexistent/relay.toml"])?,
        &[1, 2],
        &["/nonexistent/relay.toml|--config"],
    )
}
