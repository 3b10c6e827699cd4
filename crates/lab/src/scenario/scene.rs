//! What several groups begin with: a forward that is direct, and a transfer through it to which something happens.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::matrix::wait_until_direct;
use super::{ACCESS, LONG, WEB_PORT};
use crate::NatKind::PortRestricted;
use crate::harness::say;
use crate::process::{Running, poll};
use crate::programs::{self, Agent, Forward, Options, Relay};
use crate::world::World;

/// Longer than this and a person would call it broken. What a hole costs is measured in `holes`.
pub(super) const STALL: Duration = Duration::from_secs(3);

/// A forward to a web server, and all it needs.
pub(super) struct Scene {
    pub(super) forward: Forward,
    _agent: Agent,
    _web: Running,
    pub(super) relay: Relay,
    // Last, so that it is dropped after what runs in it.
    pub(super) world: World,
}

/// A forward that is direct already.
pub(super) fn direct_forward() -> Result<Scene> {
    let world = World::with_delay(PortRestricted, PortRestricted, ACCESS)?;
    let relay = Relay::start(&world)?;
    let (web, _) = programs::web(&world.agent, WEB_PORT)?;
    let agent = Agent::start(&world, &relay.url, Options::default(), &[])?;
    let forward = Forward::start(&world, &agent.peer(), WEB_PORT, Options::default())?;
    wait_until_direct(&world, &forward.url)?;
    say("the tunnel is direct");
    Ok(Scene {
        world,
        relay,
        _agent: agent,
        _web: web,
        forward,
    })
}

/// A download that is sent at a pace, so that there is a middle to disturb and a pause is the network's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transfer {
    /// Bytes.
    pub(super) size: u64,
    /// Bytes a second.
    pub(super) pace: u64,
}

impl Transfer {
    /// Four seconds at 200 Mbit/s.
    pub(super) const LARGE: Self = Self {
        size: 100 << 20,
        pace: 25_000_000,
    };

    /// Downloads through a forward, does something to the world after a third, and checks what arrived. Returns the longest
    /// time in which the file did not grow after that.
    pub(super) fn disturbed(
        self,
        world: &World,
        forward: &str,
        at_a_third: impl FnOnce() -> Result<()>,
    ) -> Result<Duration> {
        let Self { size: whole, pace } = self;
        let url = format!("{forward}/paced/{pace}/{whole}");
        let file = world.dir().join("bulk");
        let size = || fs::metadata(&file).map_or(0, |m| m.len());
        let mut curl = programs::start_curl(world, &world.client, &url, "bulk", &["--no-buffer"])?;
        poll("a third of the transfer", LONG, || {
            Ok((size() > whole / 3).then_some(()))
        })?;
        at_a_third()?;
        let (mut grown, mut last, mut stall) = (Instant::now(), size(), Duration::ZERO);
        while curl.is_running() {
            poll("growth of the file", Duration::from_secs(60), || {
                Ok((size() != last || !curl.is_running()).then_some(()))
            })?;
            if size() != last {
                stall = stall.max(grown.elapsed());
                (grown, last) = (Instant::now(), size());
            }
        }
        curl.finish(LONG)?.success()?;
        programs::check_body(world, &url, "bulk")?;
        Ok(stall)
    }
}
