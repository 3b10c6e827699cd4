//! The judge: what must hold, and what did not.

use std::time::Duration;

use byway_core::io::{LinkMode, PathKind, PeerId};

use super::{Failure, Outcome, Rule};
use crate::model::{Access, direct_possible, expected_path};
use crate::scene::{Scene, Setup};
use crate::shell::app::Task;
use crate::shell::node::Note;
use crate::world::Fault;

/// Paths have this long to become what the model says: longer than the longest back-off of a quarantined path.
const SETTLE: Duration = Duration::from_secs(180);
/// Seconds for which the right paths are watched to stay.
const STAYS: u32 = 5;

#[derive(Default)]
pub(super) struct Judge {
    failures: Vec<Failure>,
}

impl Judge {
    pub(super) fn require(&mut self, held: bool, rule: Rule, what: &str) {
        if !held {
            self.fail(rule, what.to_owned());
        }
    }
    fn fail(&mut self, rule: Rule, detail: String) {
        self.failures.push(Failure { rule, detail });
    }

    /// Both sides come to send on the paths the model says, and stay there while they are used; neither was ever on one
    /// that cannot exist. Returns how many touches were begun for it.
    pub(super) fn paths(
        &mut self,
        setup: &Setup,
        moved: bool,
        scene: &mut Scene,
        peer: PeerId,
    ) -> usize {
        let expected = expected_paths(setup);
        let relayed = relayed_paths(setup);
        // Relays attest where a peer is when its channel is opened, not when it moved: its new address is given three
        // probes and no more, and behind a filter they may all come too early. Then the tunnel stays relayed.
        let fits = |got: Paths| {
            got == expected
                || moved
                    && [expected.0, relayed.0].contains(&got.0)
                    && [expected.1, relayed.1].contains(&got.1)
        };
        // The measured loss of a path decides over it too, and a few pings measure a few per cent badly.
        for site in [scene.client_site, scene.agent_site] {
            scene.world.inflict(Fault::Loss(site, 0.0));
        }
        // Something must flow, or a path that could be better would not be looked at. Right once is not enough: a path
        // must stay so while it is used.
        let end = scene.world.net.now() + SETTLE;
        let (mut stayed, mut touches) = (0, 0);
        while stayed < STAYS && scene.world.net.now() < end {
            scene.begin(peer, Task::Touch);
            touches += 1;
            let mut right = true;
            let second = scene.world.net.now() + Duration::from_secs(1);
            while scene.world.net.now() < second {
                scene.world.run_for(Duration::from_millis(100));
                right &= fits(scene.paths(peer));
            }
            stayed = if right { stayed + 1 } else { 0 };
        }
        if stayed < STAYS {
            let got = scene.paths(peer);
            let failure = format!("at the end {got:?} instead of {expected:?}");
            self.fail(Rule::Paths, failure);
        }
        if expected.0 != Some(PathKind::Direct) {
            for host in [scene.client, scene.agent] {
                let direct = scene.first_on(host, PathKind::Direct).is_some();
                self.require(!direct, Rule::NoSuchPath, "a direct path that cannot exist");
            }
        }
        touches
    }

    /// Everything that was begun is there, and is over, and was right.
    pub(super) fn tasks(&mut self, scene: &mut Scene, begun: usize) {
        let reports = scene.reports();
        if reports.len() != begun {
            let failure = format!("{} reports of {begun} tasks", reports.len());
            self.fail(Rule::Tasks, failure);
        }
        let mut bad = reports.into_iter().filter(|r| r.done.is_none());
        // One says what there is to know; where nothing passes, all of them say it.
        if let Some(first) = bad.next() {
            let more = bad.count();
            let failure = format!("one did not end well, nor {more} more: {first:?}");
            self.fail(Rule::Tasks, failure);
        }
    }

    /// One connection from beginning to end.
    pub(super) fn tunnel(&mut self, scene: &mut Scene) {
        for (host, name) in [(scene.client, "client"), (scene.agent, "agent")] {
            let notes = &scene.world.node(host).0.notes;
            let connected = notes
                .iter()
                .filter(|(_, n)| matches!(n, Note::Connected(_)));
            if connected.count() != 1 {
                let failure = format!("{name}: not one connection from beginning to end");
                self.fail(Rule::OneConnection, failure);
            }
            for (at, note) in notes {
                if matches!(note, Note::TunnelLost(..) | Note::Failed(..)) {
                    let failure = format!("{name} at {:.3}: {note:?}", at.as_secs_f64());
                    self.fail(Rule::OneConnection, failure);
                }
            }
        }
    }

    pub(super) fn outcome(self, mut scene: Scene, met: (usize, usize)) -> Outcome {
        let story = if self.failures.is_empty() {
            String::new()
        } else {
            let story = scene.story();
            format!("{}\n{story}", scene.world.net.trace)
        };
        let trace = &scene.world.net.trace;
        Outcome {
            hash: trace.hash(),
            events: trace.events(),
            met,
            failures: self.failures,
            story,
        }
    }
}

/// What client and agent send on.
type Paths = (Option<PathKind>, Option<PathKind>);

fn expected_paths(setup: &Setup) -> Paths {
    if setup.direct && direct_possible(setup.client, setup.agent) {
        (Some(PathKind::Direct), Some(PathKind::Direct))
    } else {
        relayed_paths(setup)
    }
}

/// Without a direct path.
fn relayed_paths(setup: &Setup) -> Paths {
    let side = |own, mode| {
        if mode == LinkMode::Tls {
            PathKind::RelayTls
        } else {
            // Nobody goes direct to a side whose UDP is blocked.
            expected_path(own, Access::UdpBlocked)
        }
    };
    (
        Some(side(setup.client, setup.links)),
        Some(side(setup.agent, LinkMode::Auto)),
    )
}
