//! The player: sets the scene, begins the tasks in their time, lets the troubles come, and gives the judge what is left.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::judge::Judge;
use super::trouble::concrete;
use super::{Failure, Outcome, Rule, Scenario, Trouble};
use crate::scene::Scene;
use crate::shell::app::Task;

/// After the last trouble, tasks have this long, and what their bytes take over a link that loses some.
const PATIENCE: Duration = Duration::from_secs(90);
/// What a machine slept over, and what is begun when it wakes up, takes this long, and what its bytes take over a link that
/// loses some. Most take a second or two; a sleep too short to be noticed is a hole as any other.
const SLEPT_OVER: Duration = Duration::from_secs(20);
/// Longer than any machine sleeps here.
const LONGEST_SLEEP: Duration = Duration::from_secs(9 * 3600);
/// Moved each way when all troubles are over, in bytes.
const AFTERWARDS: u64 = 50_000;

impl Scenario {
    /// Plays it. A panic on the way is a failure as any other, so that it can be shrunk; it has no story.
    pub fn run(&self, base: Instant) -> Outcome {
        // Everything the run made is gone with it.
        catch_unwind(AssertUnwindSafe(|| self.play(base))).unwrap_or_else(|panic| {
            let said = panic.downcast_ref::<String>().cloned();
            let said = said.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            let text = said.unwrap_or_default();
            Outcome {
                hash: 0,
                events: 0,
                met: (0, 0),
                opened: Vec::new(),
                opened_narrow: Vec::new(),
                direct_after: None,
                barred: false,
                failures: vec![Failure {
                    rule: Rule::NoPanic,
                    detail: text.lines().next().unwrap_or_default().to_owned(),
                }],
                story: text,
            }
        })
    }

    fn play(&self, base: Instant) -> Outcome {
        let mut scene = Scene::new(base, &self.setup);
        let mut judge = Judge::default();
        let peer = scene.dial(vec![Task::Touch]);
        let came = scene.finish(PATIENCE);
        let start = scene.world.net.now();
        judge.comes_up(
            &self.setup,
            came.then_some(start.saturating_sub(scene.dialled_at())),
        );
        let patience = PATIENCE + self.lossy_pace();
        for (at, lasts, trouble) in &self.troubles {
            for (when, fault) in concrete(&scene, &self.setup, *trouble, start + *at, *lasts) {
                scene.world.at(when, fault);
            }
        }
        let mut tasks = self.tasks.clone();
        tasks.sort_by_key(|(at, _)| *at);
        for (at, task) in tasks {
            scene.world.run_until(start + at, |_| false);
            // Nobody begins anything on a machine that sleeps.
            let client = scene.client;
            scene.world.run_within(LONGEST_SLEEP, |w| !w.sleeps(client));
            scene.begin(peer, task);
        }
        let ends = self.troubles.iter();
        let ends = ends.map(|(at, lasts, what)| *at + what.lasts(*lasts));
        let over = start + ends.max().unwrap_or_default();
        scene.world.run_until(over, |_| false);
        judge.require(
            scene.finish(self.ends_within().unwrap_or(patience)),
            Rule::Ends,
            "what was begun under the troubles did not",
        );
        // Whatever happened: it works now, both ways, and on the path it should.
        scene.begin(peer, Task::Upload(AFTERWARDS));
        scene.begin(peer, Task::Download(AFTERWARDS));
        judge.require(
            scene.finish(patience),
            Rule::Passes,
            "nothing after the troubles",
        );
        let touches = judge.paths(&self.setup, &mut scene, peer);
        let first = self.troubles.iter().map(|(at, ..)| *at);
        let first = first.chain(self.tasks.iter().map(|(at, _)| *at)).min();
        let quiet_until = start + first.unwrap_or(Duration::MAX - start);
        judge.opening(&self.setup, &mut scene, quiet_until);
        judge.in_time(&self.setup, &mut scene, over);
        judge.require(
            scene.finish(patience),
            Rule::Passes,
            "a touch at the end was not answered",
        );
        // The first touch, the tasks, the two afterwards, and those while paths settled.
        judge.tasks(&mut scene, 1 + self.tasks.len() + 2 + touches);
        judge.tunnel(&mut scene);
        let onsets = self.troubles.iter().map(|(at, ..)| start + *at);
        let met = met(&mut scene, onsets);
        judge.outcome(scene, met)
    }
}

/// What a congestion controller keeps under way that takes every loss for congestion: this over the root of the share that is
/// lost, in packets (Mathis and others, 1997).
const MATHIS: f64 = 1.22;
/// Bytes of data in a packet, at the least.
const PACKET: f64 = 1_100.0;
/// Timers that back off, and relays on the way, are not in that figure. Of what is overtaken not all counts as lost, and what does is
/// there: without this, 3,500 packets of 100004059 took a third of the figure.
const SLACK: f64 = 3.0;

impl Scenario {
    /// How long what was begun may take if the last trouble was a sleep; none if it was anything else.
    fn ends_within(&self) -> Option<Duration> {
        let (.., last) = self.troubles.last()?;
        let sleep = matches!(
            last,
            Trouble::ClientSleeps
                | Trouble::ClientSleepsCounted
                | Trouble::AgentSleeps
                | Trouble::AgentSleepsCounted
        );
        sleep.then(|| SLEPT_OVER + self.lossy_pace())
    }

    /// What all tasks together take at the pace that losses allow, and packets that others overtake: QUIC takes what three did for
    /// lost (RFC 9002 section 6.1.1). On a clean network, nothing.
    fn lossy_pace(&self) -> Duration {
        let bytes: u64 = self.tasks.iter().map(|(_, task)| task.bytes()).sum();
        let [near, far] = [&self.setup.client_link, &self.setup.agent_link];
        let of = |near: f64, far: f64| (1.0 - (1.0 - near) * (1.0 - far)).sqrt();
        let lost = of(near.loss, far.loss) * SLACK;
        let overtaken = of(near.reorder, far.reorder);
        let round_trip = (near.delay + near.jitter + far.delay + far.jitter) * 2;
        let round_trips = bytes as f64 / PACKET * (lost + overtaken) / MATHIS;
        round_trip.mul_f64(round_trips)
    }
}

/// How many of the troubles began while a transfer was under way, and how many there were.
fn met(scene: &mut Scene, onsets: impl Iterator<Item = Duration>) -> (usize, usize) {
    let reports = scene.reports();
    let under_way = |at: Duration| {
        reports.iter().any(|report| {
            report.task != Task::Touch
                && report.began < at
                && report.done.is_none_or(|done| done > at)
        })
    };
    let mut met = (0, 0);
    for at in onsets {
        met.0 += usize::from(under_way(at));
        met.1 += 1;
    }
    met
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario(text: &str) -> Scenario {
        let read = text.parse::<Scenario>();
        read.unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn what_a_machine_slept_over_is_waited_for_less_whatever_its_clock_did_and_however_often() {
        for (text, least) in [
            ("seed=1 ClientSleeps@1+600", true),
            ("seed=1 ClientSleepsCounted@1+600", true),
            ("seed=1 client=UdpBlocked ClientSleepsCounted@1+60", true),
            ("seed=1 AgentSleeps@1+30 ClientSleepsCounted@40+60", true),
            ("seed=1 ClientSleeps@1+30 AgentSleeps@40+60", true),
            ("seed=1 AgentSleepsCounted@1+60", true),
            ("seed=1 ClientSleeps@1+60 Offline@90+1", false),
        ] {
            let within = scenario(text).ends_within();
            assert_eq!(within, least.then_some(SLEPT_OVER), "{text}");
        }
    }

    #[test]
    fn losses_and_what_quic_takes_for_losses_have_their_time() {
        let pace = |text: &str| scenario(text).lossy_pace();
        let clean = "seed=1 client-link=delay:0.02 Upload:1000000@1";
        assert_eq!(pace(clean), Duration::ZERO);
        let lost = pace("seed=1 client-link=delay:0.02,loss:0.01 Upload:1000000@1");
        let overtaken = pace("seed=1 client-link=delay:0.02,reorder:0.01 Upload:1000000@1");
        assert!(lost.abs_diff(overtaken * 3) < Duration::from_millis(1));
        assert!(overtaken > Duration::from_secs(2), "{overtaken:?}");
    }
}
