//! Random scenarios: a seed makes a network, faults and a workload; the run says what did not hold.
//!
//! What must hold is independent of the details:
//!
//! - every task ends well: each byte in its place, however many faults there were on the way;
//! - when the faults are over and some time has passed, each side sends on the kind of path the model says;
//! - no side ever sends on a direct path that the model says cannot exist;
//! - the tunnel is one connection from beginning to end.

use std::time::{Duration, Instant};

use byway_core::io::{LinkMode, PathKind};

use crate::model::{Access, direct_possible, expected_path};
use crate::net::link::LinkConfig;
use crate::net::{Hole, Traffic};
use crate::rng::Rng;
use crate::scene::{Scene, Setup};
use crate::shell::app::Task;
use crate::shell::node::Note;
use crate::shell::stun::Manner;
use crate::world::Fault;

/// What a scenario's faults are about; made concrete when the scene exists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// Nothing passes between client and agent, either way.
    DirectDead,
    /// Nothing passes from client to agent.
    DirectDeadOneWay,
    /// No datagram passes between client and relay.
    RelayUdpDead,
    /// The client's site is cut off.
    Offline,
    /// The relay's process is dead.
    RelayKilled,
    /// The client's NAT restarts (lasts no time).
    ClientRebinds,
    /// The agent's NAT restarts (lasts no time).
    AgentRebinds,
}

/// A scenario.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The network and its ends.
    pub setup: Setup,
    /// When which trouble begins, and how long it lasts. Times count from the tunnel's first answer.
    pub troubles: Vec<(Duration, Duration, Trouble)>,
    /// What is done when. Times count from the tunnel's first answer.
    pub tasks: Vec<(Duration, Task)>,
}

/// What came of a scenario.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// The trace's hash: the same for the same seed.
    pub hash: u64,
    /// Events in the trace.
    pub events: u64,
    /// What did not hold.
    pub failures: Vec<String>,
    /// If something failed: the last lines of the trace, and what both nodes went through.
    pub story: String,
}

/// After the last trouble, tasks have this long.
const PATIENCE: Duration = Duration::from_secs(90);
/// And paths this long to become what the model says. Longer than the longest back-off of a quarantined path.
const SETTLE: Duration = Duration::from_secs(180);
/// Seconds for which the right paths are watched to stay.
const STAYS: u32 = 5;
/// Moved each way when all troubles are over, in bytes.
const AFTERWARDS: u64 = 50_000;

impl Scenario {
    /// The scenario of a seed.
    pub fn generate(seed: u64) -> Self {
        let mut rng = Rng::new(seed, "scenario");
        let ms = Duration::from_millis;
        let link = |rng: &mut Rng| {
            let poor = rng.chance(0.4);
            let some = |rng: &mut Rng, per_mille: u64| {
                if poor {
                    rng.below(per_mille) as f64 / 1000.0
                } else {
                    0.0
                }
            };
            LinkConfig {
                delay: ms(rng.between(1, 40)),
                jitter: ms(if poor { rng.below(6) } else { 0 }),
                loss: some(rng, 20),
                reorder: some(rng, 50),
                duplicate: some(rng, 20),
                mtu: rng.pick(&[1500, 1500, 1500, 1420, 1280]),
                rate: rng.pick(&[None, Some(1_000_000), Some(12_500_000)]),
                queue: ms(100),
            }
        };
        let client = rng.pick(&Access::ALL);
        let agent = rng.pick(&Access::ALL);
        let links = match rng.below(10) {
            0 => LinkMode::Tls,
            1 if client != Access::UdpBlocked => LinkMode::Udp,
            _ => LinkMode::Auto,
        };
        let (mut client_link, mut agent_link) = (link(&mut rng), link(&mut rng));
        if links == LinkMode::Tls {
            // A TLS link carries what a narrow network does not, and a node does not leave it for a path that carries
            // less (docs/decisions/0008).
            client_link.mtu = 1500;
            agent_link.mtu = 1500;
        }
        let setup = Setup {
            seed,
            client,
            agent,
            client_link,
            agent_link,
            links,
            direct: rng.chance(0.9),
            stun: vec![
                Manner::Honest,
                rng.pick(&[
                    Manner::Honest,
                    Manner::Dead,
                    Manner::Slow(ms(400)),
                    Manner::Repeating,
                    Manner::WrongTransaction,
                    Manner::Garbage,
                    Manner::Oversized,
                ]),
            ],
            together: false,
            trace: 300,
        };
        let mut troubles = Vec::new();
        for _ in 0..rng.below(4) {
            let what = rng.pick(&[
                Trouble::DirectDead,
                Trouble::DirectDead,
                Trouble::DirectDeadOneWay,
                Trouble::RelayUdpDead,
                Trouble::Offline,
                Trouble::RelayKilled,
                Trouble::ClientRebinds,
                Trouble::AgentRebinds,
            ]);
            // One after the other: two at once can cut every path, which says nothing.
            let free = troubles
                .last()
                .map_or(ms(100), |(at, lasts, _)| *at + *lasts + ms(3000));
            let at = free + rng.up_to(ms(4000));
            troubles.push((at, ms(rng.between(100, 6000)), what));
        }
        let task = |rng: &mut Rng| {
            let amount = rng.between(1, 200_000);
            rng.pick(&[Task::Touch, Task::Upload(amount), Task::Download(amount)])
        };
        let mut tasks: Vec<(Duration, Task)> = (0..rng.between(1, 4))
            .map(|_| (rng.up_to(ms(12_000)), task(&mut rng)))
            .collect();
        // And one for each trouble that begins a moment before it: what is under way when it comes is what matters.
        for (at, ..) in &troubles {
            let early = ms(rng.between(1, 100));
            let bulk = rng.between(500_000, 2_000_000);
            let task = rng.pick(&[Task::Upload(bulk), Task::Download(bulk)]);
            tasks.push((at.saturating_sub(early), task));
        }
        Self {
            setup,
            troubles,
            tasks,
        }
    }

    /// Plays it.
    pub fn run(&self, base: Instant) -> Outcome {
        let mut scene = Scene::new(base, &self.setup);
        let mut failures = Vec::new();
        let peer = scene.dial(vec![Task::Touch]);
        if !scene.finish(PATIENCE) {
            failures.push("the tunnel never came up".to_owned());
        }
        let start = scene.world.net.now();
        for (at, lasts, trouble) in &self.troubles {
            for (when, fault) in concrete(&scene, *trouble, start + *at, *lasts) {
                scene.world.at(when, fault);
            }
        }
        let mut tasks = self.tasks.clone();
        tasks.sort_by_key(|(at, _)| *at);
        for (at, task) in tasks {
            scene.world.run_until(start + at, |_| false);
            scene.begin(peer, task);
        }
        let over = self
            .troubles
            .iter()
            .map(|(at, lasts, _)| start + *at + *lasts)
            .max()
            .unwrap_or(start)
            .max(scene.world.net.now());
        scene.world.run_until(over, |_| false);
        if !scene.finish(PATIENCE) {
            failures.push("what was begun under the troubles did not end".to_owned());
        }
        // Whatever happened: it works now, both ways, and on the path it should.
        scene.begin(peer, Task::Upload(AFTERWARDS));
        scene.begin(peer, Task::Download(AFTERWARDS));
        if !scene.finish(PATIENCE) {
            failures.push("nothing passes after the troubles".to_owned());
        }
        self.check_paths(&mut scene, peer, &mut failures);
        let reports = scene.reports();
        // The first touch, the tasks, and the two at the end; touches while paths settle come on top.
        let begun = 1 + self.tasks.len() + 2;
        if reports.len() < begun {
            failures.push(format!("{} of {begun} tasks began", reports.len()));
        }
        for report in reports {
            if report.done.is_none() {
                failures.push(format!("a task did not end well: {report:?}"));
            }
        }
        for (host, name) in [(scene.client, "client"), (scene.agent, "agent")] {
            for (at, note) in &scene.world.node(host).0.notes {
                if matches!(note, Note::TunnelLost(..) | Note::Failed(..)) {
                    failures.push(format!("{name} at {:.3}: {note:?}", at.as_secs_f64()));
                }
            }
        }
        let story = if failures.is_empty() {
            String::new()
        } else {
            let story = scene.story();
            format!("{}\n{story}", scene.world.net.trace)
        };
        let trace = &scene.world.net.trace;
        Outcome {
            hash: trace.hash(),
            events: trace.events(),
            failures,
            story,
        }
    }

    fn check_paths(
        &self,
        scene: &mut Scene,
        peer: byway_core::io::PeerId,
        failures: &mut Vec<String>,
    ) {
        let Setup {
            client,
            agent,
            direct,
            links,
            ..
        } = self.setup;
        let side = |own, other, mode| {
            if direct && direct_possible(client, agent) {
                PathKind::Direct
            } else if mode == LinkMode::Tls {
                PathKind::RelayTls
            } else if direct {
                expected_path(own, other)
            } else {
                expected_path(own, Access::UdpBlocked)
            }
        };
        let expected = (
            Some(side(client, agent, links)),
            Some(side(agent, client, LinkMode::Auto)),
        );
        // The measured loss of a path decides over it too, and a few pings measure a few per cent badly.
        for site in [scene.client_site, scene.agent_site] {
            scene.world.inflict(Fault::Loss(site, 0.0));
        }
        // Something must flow, or a path that could be better would not be looked at. Right once is not enough: a path
        // must stay so while it is used.
        let end = scene.world.net.now() + SETTLE;
        let mut stayed = 0;
        while stayed < STAYS && scene.world.net.now() < end {
            scene.begin(peer, Task::Touch);
            scene.world.run_for(Duration::from_secs(1));
            stayed = if scene.paths(peer) == expected {
                stayed + 1
            } else {
                0
            };
        }
        if stayed < STAYS {
            let got = scene.paths(peer);
            failures.push(format!("paths at the end: {got:?} instead of {expected:?}"));
        }
        if !scene.finish(PATIENCE) {
            failures.push("a touch at the end was not answered".to_owned());
        }
        if !direct || !direct_possible(client, agent) {
            for host in [scene.client, scene.agent] {
                let notes = &scene.world.node(host).0.notes;
                let went_direct = notes.iter().any(|(_, n)| {
                    matches!(n, Note::Route(_, r, _)
                        if r.primary.map(|w| w.kind()) == Some(PathKind::Direct))
                });
                if went_direct {
                    failures.push("a direct path that cannot exist".to_owned());
                }
            }
        }
    }
}

/// The faults that make a trouble.
fn concrete(
    scene: &Scene,
    trouble: Trouble,
    at: Duration,
    lasts: Duration,
) -> Vec<(Duration, Fault)> {
    let hole = |from, to, what| {
        let hole = Hole { from, to, what };
        [(at, Fault::Open(hole)), (at + lasts, Fault::Close(hole))]
    };
    let (client, agent) = (Some(scene.client_site), Some(scene.agent_site));
    let relay = Some(scene.relay_site);
    match trouble {
        Trouble::DirectDead => [
            hole(client, agent, Traffic::Udp),
            hole(agent, client, Traffic::Udp),
        ]
        .concat(),
        Trouble::DirectDeadOneWay => hole(client, agent, Traffic::Udp).to_vec(),
        Trouble::RelayUdpDead => [
            hole(client, relay, Traffic::Udp),
            hole(relay, client, Traffic::Udp),
        ]
        .concat(),
        Trouble::Offline => [
            hole(client, None, Traffic::All),
            hole(None, client, Traffic::All),
        ]
        .concat(),
        Trouble::RelayKilled => vec![
            (at, Fault::KillRelay(scene.relay)),
            (at + lasts, Fault::StartRelay(scene.relay)),
        ],
        Trouble::ClientRebinds => vec![(at, Fault::Rebind(scene.client_site))],
        Trouble::AgentRebinds => vec![(at, Fault::Rebind(scene.agent_site))],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_always_makes_the_same_scenario_and_seeds_differ() {
        let text = |seed| format!("{:?}", Scenario::generate(seed));
        assert_eq!(text(3), text(3));
        assert_ne!(text(3), text(4));
    }

    #[test]
    fn troubles_never_overlap() {
        for seed in 0..200 {
            let scenario = Scenario::generate(seed);
            for pair in scenario.troubles.windows(2) {
                assert!(pair[0].0 + pair[0].1 < pair[1].0);
            }
        }
    }
}
