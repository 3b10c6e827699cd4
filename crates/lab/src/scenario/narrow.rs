//! Hosts whose way out is a VPN: an interface with a small MTU, beyond which nobody says that a packet was too large.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use byway_sim::model::Access::PortRestricted;

use super::matrix::wait_until_direct;
use super::scene::Digest;
use super::{ACCESS, LONG, WEB_PORT, WITH_BASH_AND_CURL};
use crate::figures::Figures;
use crate::harness::{Scenario, say};
use crate::programs::{self, Agent, Forward, Options, Relay};
use crate::world::{AGENT_PUBLIC, RELAY, World};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "narrow::a_client_behind_a_vpn_of_1420_bytes_goes_direct_and_moves_every_byte",
        needs: WITH_BASH_AND_CURL,
        run: || vpn(1_420),
    },
    Scenario {
        name: "narrow::a_client_behind_a_vpn_of_1280_bytes_goes_direct_and_moves_every_byte",
        needs: WITH_BASH_AND_CURL,
        run: || vpn(1_280),
    },
];

/// Between the two, by any path.
const ROUND_TRIP: Duration = Duration::from_millis(20);
/// From the tunnel to the direct path: six round trips and a moment, as in the simulation, and what the machine takes.
const DIRECT: Duration = Duration::from_millis(6 * 20 + 50 + 50);
/// Runs, of which the median counts.
const RUNS: usize = 5;
/// What is moved each way. A datagram that is lost for its size each time it is sent stops a stream for good; this many of them
/// meet every size there is.
const SIZE: u64 = 16 << 20;
/// At a round trip of 20 ms and without loss that is a second or two, on a busy machine too.
const MOVED: Duration = Duration::from_secs(20);
/// Bytes on the wire for each that was asked for, both ways. Headers and acknowledgements make it 1.04 with 1,420 bytes and 1.07
/// with 1,280; a busy machine drops packets of its own, and 1.22 was seen on one.
const ONCE: f64 = 1.5;

fn vpn(mtu: u16) -> Result<()> {
    let world = World::with_delay(PortRestricted, PortRestricted, ACCESS)?;
    world.client.enter_vpn(mtu)?;
    world.client.until_answered_at(RELAY.into())?;
    let relay = Relay::start(&world)?;
    let (_web, _) = programs::web(&world.agent, WEB_PORT)?;
    let digest = Digest::start(&world)?;
    let agent = Agent::start(&world, &relay.url, Options::default(), &[])?;
    let direct = (0..RUNS)
        .map(|_| until_direct(&world, &agent))
        .collect::<Result<Vec<_>>>()?;
    let direct = Figures::of(direct);
    say(format!(
        "{mtu} bytes: direct after the tunnel was up: {direct}; a round trip is {ROUND_TRIP:?}"
    ));
    let median = direct.percentile(50);
    ensure!(median <= DIRECT, "direct after {median:?}");

    let options = Options::default();
    let forward = Forward::start_with(
        &world,
        &agent.peer(),
        WEB_PORT,
        options,
        &[&digest.forwarded()],
    )?;
    wait_until_direct(&world, &forward.url)?;
    let before = world.client.traffic()?;
    let began = Instant::now();
    let url = format!("{}/{SIZE}", forward.url);
    programs::curl(&world, &world.client, &url, "down", &[], LONG)?;
    let down = began.elapsed();
    let up = digest.upload(&world, SIZE)?;
    let traffic = world.client.traffic()?.since(before);
    let (moved, parts) = (traffic.direct, traffic.parts);
    let of_what_was_asked = moved as f64 / (2 * SIZE) as f64;
    say(format!(
        "{} MiB down in {down:?}, up in {up:?}, {moved} bytes by the direct path ({of_what_was_asked:.3} times that), {parts} of \
         them in parts",
        SIZE >> 20
    ));
    ensure!(moved >= 2 * SIZE, "only {moved} bytes went direct");
    ensure!(
        of_what_was_asked < ONCE,
        "much was sent twice: {moved} bytes, {of_what_was_asked:.3} times what was asked for"
    );
    ensure!(parts == 0, "{parts} bytes went in small parts");
    ensure!(
        sees_parts(&world)?,
        "the counter of parts sees none that was sent by hand"
    );
    ensure!(down.max(up) < MOVED, "down {down:?}, up {up:?}");
    Ok(())
}

/// Whether a datagram that begins as a part does is counted as one.
fn sees_parts(world: &World) -> Result<bool> {
    let before = world.client.traffic()?;
    let mut send = world.client.namespace.command("bash");
    send.args(["-c", &format!("printf '\\x83' >/dev/udp/{AGENT_PUBLIC}/9")]);
    ensure!(send.status()?.success(), "bash could not send");
    Ok(world.client.traffic()?.since(before).parts > 0)
}

/// How long after the tunnel was up data went direct.
fn until_direct(world: &World, agent: &Agent) -> Result<Duration> {
    let pongs = programs::until_direct(world, &agent.peer())?;
    let last = pongs.last().context("no answer at all")?;
    Ok(last.path_since.saturating_sub(last.up))
}
