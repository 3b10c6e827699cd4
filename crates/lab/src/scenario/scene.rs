//! What several groups begin with: a forward that is direct, and a transfer through it to which something happens.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use byway_sim::model::Access::PortRestricted;

use super::matrix::wait_until_direct;
use super::{ACCESS, LONG, SHORT, WEB_PORT};
use crate::harness::say;
use crate::process::{Running, poll};
use crate::programs::{self, Agent, Forward, Options, Relay};
use crate::tool::sha256_of;
use crate::world::World;

/// Longer than this and a person would call it broken. What a hole costs is measured in `holes`.
pub(super) const STALL: Duration = Duration::from_secs(3);

/// A forward to a web server, and all it needs.
pub(super) struct Scene {
    pub(super) forward: Forward,
    pub(super) agent: Agent,
    _web: Running,
    pub(super) relay: Relay,
    // Last, so that it is dropped after what runs in it.
    pub(super) world: World,
}

/// A forward that is direct already.
pub(super) fn direct_forward() -> Result<Scene> {
    let world = World::with_delay(PortRestricted, PortRestricted, ACCESS)?;
    direct_forward_in(world, &[])
}

/// The same in this world, where both programs are given these arguments as well.
pub(super) fn direct_forward_in(world: World, args: &[&str]) -> Result<Scene> {
    let relay = Relay::start(&world)?;
    let (web, _) = programs::web(&world.agent, WEB_PORT)?;
    let agent = Agent::start(&world, &relay.url, Options::default(), args)?;
    let (peer, options) = (agent.peer(), Options::default());
    let forward = Forward::start_with(&world, &peer, WEB_PORT, options, args)?;
    wait_until_direct(&world, &forward.url)?;
    say("the tunnel is direct");
    Ok(Scene {
        world,
        relay,
        agent,
        _web: web,
        forward,
    })
}

impl Scene {
    /// What is asked for now comes through the relay.
    pub(super) fn is_relayed(&self) -> Result<()> {
        const SIZE: u64 = 100_000;
        let before = self.world.client.traffic()?;
        let url = format!("{}/{SIZE}", self.forward.url);
        programs::curl(
            &self.world,
            &self.world.client,
            &url,
            "afterwards",
            &[],
            SHORT,
        )?;
        let moved = self.world.client.traffic()?.since(before);
        ensure!(
            moved.relay_udp > SIZE,
            "what was asked for afterwards should have come through the relay: {moved:?}"
        );
        Ok(())
    }
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
    /// time in which the file did not grow, from when that began.
    pub(super) fn disturbed(
        self,
        world: &World,
        forward: &str,
        at_a_third: impl FnOnce() -> Result<()>,
    ) -> Result<Duration> {
        self.run(world, forward, || {
            let began = Instant::now();
            at_a_third().map(|()| began)
        })
    }

    /// The same with something that takes its time and is over then: what counts is what comes after.
    pub(super) fn interrupted(
        self,
        world: &World,
        forward: &str,
        at_a_third: impl FnOnce() -> Result<()>,
    ) -> Result<Duration> {
        self.run(world, forward, || at_a_third().map(|()| Instant::now()))
    }

    fn run(
        self,
        world: &World,
        forward: &str,
        at_a_third: impl FnOnce() -> Result<Instant>,
    ) -> Result<Duration> {
        let Self { size: whole, pace } = self;
        let url = format!("{forward}/paced/{pace}/{whole}");
        let file = world.dir().join("bulk");
        let mut curl = programs::start_curl(world, &world.client, &url, "bulk", &["--no-buffer"])?;
        let growth = Growth::default();
        let since = thread::scope(|scope| {
            scope.spawn(|| growth.watch(&file));
            // Ends the watch however this goes.
            let _over = growth.until_dropped();
            poll("a third of the transfer", LONG, || {
                Ok((growth.size() > whole / 3).then_some(()))
            })?;
            let since = at_a_third()?;
            poll("the end of the transfer", LONG, || {
                Ok((!curl.is_running()).then_some(()))
            })?;
            Ok::<_, anyhow::Error>(since)
        })?;
        curl.finish(LONG)?.success()?;
        programs::check_body(world, &url, "bulk")?;
        Ok(growth.longest_pause(since))
    }
}

/// A server on the agent's host that takes uploads and answers with their checksum.
pub(super) struct Digest {
    _server: Running,
}

impl Digest {
    const AT: &str = "127.0.0.1:9100";

    pub(super) fn start(world: &World) -> Result<Self> {
        let server = &world.agent.namespace;
        let digest = programs::tool(server, "digest", &[Self::AT.to_owned()])?;
        digest.first_line("readiness", SHORT)?;
        Ok(Self { _server: digest })
    }

    /// The forward by which the client reaches it, at the same address.
    pub(super) fn forwarded(&self) -> String {
        let at = Self::AT;
        format!("{at}:{at}")
    }

    /// Sends so many bytes up through that, compares the checksum, and gives how long it took.
    pub(super) fn upload(&self, world: &World, size: u64) -> Result<Duration> {
        self.upload_within(world, size, LONG)
    }

    /// The same where it may take so long.
    pub(super) fn upload_within(
        &self,
        world: &World,
        size: u64,
        deadline: Duration,
    ) -> Result<Duration> {
        let source = world.dir().join("source");
        let mut bytes = b"byway".repeat(size as usize / 5 + 1);
        bytes.truncate(size as usize);
        fs::write(&source, bytes)?;
        let args = [Self::AT.to_owned(), source.display().to_string()];
        let done = programs::tool(&world.client.namespace, "upload", &args)?
            .finish(deadline)?
            .success()?;
        ensure!(
            done.stdout().trim() == sha256_of(&source)?,
            "what was sent up arrived changed"
        );
        Ok(done.took)
    }
}

/// When a file grew.
#[derive(Debug, Default)]
struct Growth {
    /// And how long it was then.
    grown: Mutex<Vec<(Instant, u64)>>,
    over: AtomicBool,
}

/// Ends a watch.
struct Watched<'a>(&'a Growth);

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

impl Growth {
    /// As often as this.
    const LOOK: Duration = Duration::from_millis(1);

    fn until_dropped(&self) -> Watched<'_> {
        Watched(self)
    }

    fn watch(&self, file: &Path) {
        while !self.over.load(Ordering::Relaxed) {
            let size = fs::metadata(file).map_or(0, |m| m.len());
            if size != self.size() {
                self.lock().push((Instant::now(), size));
            }
            thread::sleep(Self::LOOK);
        }
    }

    fn size(&self) -> u64 {
        self.lock().last().map_or(0, |(_, size)| *size)
    }

    fn longest_pause(&self, since: Instant) -> Duration {
        let grown = self.lock();
        let pauses = grown.windows(2).map(|two| {
            let begin = two[0].0.max(since);
            two[1].0.saturating_duration_since(begin)
        });
        pauses.max().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Instant, u64)>> {
        self.grown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
