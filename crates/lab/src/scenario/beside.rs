//! A tunnel's transfer and one of plain TCP at one narrow place: what share each gets of it.
//!
//! Both go the same way, from the agent's host to the client's, whose link is the narrow place. Whoever is first has filled
//! the queue when the other comes, so both orders are played.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use byway_sim::model::Access::{Open, PortRestricted};

use super::scene::{Scene, direct_forward_in};
use super::{ACCESS, LONG, WEB_PORT, WITH_CURL};
use crate::harness::{self, Scenario, say};
use crate::process::poll;
use crate::programs;
use crate::world::World;

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "beside::plain_tcp_and_a_tunnel_leave_each_other_a_share_of_a_narrow_link",
    needs: WITH_CURL,
    run: || {
        for first in [Way::Tunnel, Way::Tcp] {
            let share = Pair::COMMON.play(first)?;
            say(format!("{first:?} first: {share}"));
            ensure!(
                FAIR.contains(&share.tunnel()),
                "{first:?} first: the tunnel had {share}"
            );
        }
        Ok(())
    },
}];

/// What a tunnel by Cubic may have beside TCP by Cubic in [`MEASURED`]: two of a kind are within these over one draw of chance.
const FAIR: std::ops::RangeInclusive<f64> = 0.2..=0.8;
/// The narrow place, in bits a second.
const RATE: u64 = 32_000_000;
/// So much the first brings before the other comes: two seconds.
const ALONE: u64 = RATE / 8 * 2;
/// So much both bring before it counts, four seconds: slow start is over then, and the first has given way.
const SETTLED: u64 = RATE / 8 * 4;
/// Shares are of so much, eight seconds.
const MEASURED: u64 = RATE / 8 * 8;
/// More than the narrow place carries in all that time, for each.
const SIZE: u64 = 256 << 20;
/// How often a table plays each.
const RUNS: usize = 5;

/// One of the two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Tunnel,
    Tcp,
}

impl Way {
    fn other(self) -> Self {
        match self {
            Self::Tunnel => Self::Tcp,
            Self::Tcp => Self::Tunnel,
        }
    }
    fn file(self) -> &'static str {
        match self {
            Self::Tunnel => "tunnelled",
            Self::Tcp => "plain",
        }
    }
}

/// Bytes that each brought, in how long.
#[derive(Clone, Copy, Debug)]
struct Share {
    tunnel: u64,
    tcp: u64,
    took: Duration,
}

impl Share {
    /// Of what both brought, from 0 to 1.
    fn tunnel(self) -> f64 {
        self.tunnel as f64 / (self.tunnel + self.tcp).max(1) as f64
    }
    /// Of what the narrow place can carry, from 0 to 1.
    fn used(self) -> f64 {
        (self.tunnel + self.tcp) as f64 * 8.0 / (RATE as f64 * self.took.as_secs_f64())
    }
}

impl std::fmt::Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let percent = |share: f64| share * 100.0;
        write!(
            f,
            "{:.0} % of what both had, {:.0} % of the link",
            percent(self.tunnel()),
            percent(self.used())
        )
    }
}

/// Who sends by what, and how long the queue is before the narrow place.
#[derive(Clone, Copy, Debug)]
struct Pair {
    tunnel: &'static str,
    tcp: &'static str,
    /// In milliseconds at [`RATE`].
    queue: u32,
}

impl Pair {
    /// What most tunnels meet: the defaults of both, and a queue of two and a half round trips.
    const COMMON: Self = Self {
        tunnel: "cubic",
        tcp: "cubic",
        queue: 50,
    };

    fn play(self, first: Way) -> Result<Share> {
        // The agent is open, so that plain TCP reaches it over the same link.
        let world = World::with_delay(PortRestricted, Open, ACCESS)?;
        let scene = direct_forward_in(world, &["--congestion", self.tunnel])?;
        let Scene { world, forward, .. } = &scene;
        world.agent.namespace.send_tcp_by(self.tcp)?;
        let plain = format!("http://{}", world.agent.at(WEB_PORT));
        let link = format!("delay=5ms rate={}kbit queue={}ms", RATE / 1000, self.queue);
        world.emulator().link("client", &link)?;

        let size = |way: Way| fs::metadata(world.dir().join(way.file())).map_or(0, |m| m.len());
        let start = |way: Way| {
            let from = match way {
                Way::Tunnel => &forward.url,
                Way::Tcp => &plain,
            };
            let url = format!("{from}/{SIZE}");
            programs::start_curl(world, &world.client, &url, way.file(), &["--no-buffer"])
        };
        // What both have when they have brought so much more.
        let carry = |bytes: u64| {
            let both = || (size(Way::Tunnel), size(Way::Tcp));
            let (tunnel, tcp) = both();
            poll("bytes of both transfers", LONG, || {
                let now = both();
                Ok((now.0 + now.1 >= tunnel + tcp + bytes).then_some(now))
            })
        };
        let _one = start(first)?;
        carry(ALONE)?;
        let _other = start(first.other())?;
        let settled = carry(SETTLED)?;
        let began = Instant::now();
        let sends_by = world.agent.namespace.tcp_sends_by(WEB_PORT)?;
        ensure!(
            sends_by.as_deref() == Some(self.tcp),
            "the kernel sends by {sends_by:?}, not by {}",
            self.tcp
        );
        let measured = carry(MEASURED)?;
        Ok(Share {
            tunnel: measured.0 - settled.0,
            tcp: measured.1 - settled.1,
            took: began.elapsed(),
        })
    }
}

/// Shares for a person: each controller of the tunnel's beside TCP's, with short and long queues. False if a run failed.
pub fn table(runs: Option<usize>) -> bool {
    harness::by_hand(WITH_CURL, || weigh(runs.unwrap_or(RUNS)))
}

fn weigh(runs: usize) -> bool {
    println!(
        "32 Mbit/s, round trip 20 ms: the tunnel's share in per cent, the median of {runs} runs (least, most), the tunnel first; TCP first"
    );
    let mut whole = true;
    for queue in [10, 50, 200] {
        for (tunnel, tcp) in [
            ("cubic", "cubic"),
            ("cubic", "bbr"),
            ("tolerant", "cubic"),
            ("tolerant", "bbr"),
            ("bbr", "cubic"),
        ] {
            let pair = Pair { tunnel, tcp, queue };
            let shares = [Way::Tunnel, Way::Tcp].map(|first| {
                let (shares, failures) = harness::quietly_often(runs, move |_| pair.play(first));
                failures.iter().for_each(|why| println!("FAILED: {why}"));
                whole &= failures.is_empty();
                spread(shares)
            });
            println!(
                "queue {queue:>3} ms, {tunnel} beside TCP's {tcp}: {}",
                shares.join("; ")
            );
        }
    }
    whole
}

fn spread(shares: Vec<Share>) -> String {
    let mut all: Vec<f64> = shares.iter().map(|share| share.tunnel() * 100.0).collect();
    all.sort_by(f64::total_cmp);
    match all.as_slice() {
        [] => "none".to_owned(),
        [least, .., most] => format!("{:.0} ({least:.0}, {most:.0})", all[all.len() / 2]),
        [one] => format!("{one:.0}"),
    }
}
