//! The shrinker: of a scenario that fails, the least that still does.
//!
//! It leaves out troubles and tasks and makes the networks plainer, one change at a time, and keeps each change after
//! which the run still fails in the same way. A part of the simulation draws from a generator of its own ([`crate::rng`]),
//! so a scenario with less in it is otherwise the run it was. What is left is usually one trouble, one task and the one
//! property of a network that it takes; it is not always the smallest there is, but nothing in it can be left out alone.

use std::time::Duration;

use super::Scenario;
use crate::model::Access;
use crate::net::link::LinkConfig;
use crate::scene::Setup;
use crate::shell::app::Task;

/// The least scenario found in which `fails` holds, with at most so many calls of it. `failing` is one in which it does.
pub fn shrink(
    failing: Scenario,
    runs: usize,
    mut fails: impl FnMut(&Scenario) -> bool,
) -> Scenario {
    let mut least = failing;
    let (mut at, mut in_vain) = (0, 0);
    for _ in 0..runs {
        let simpler = simpler(&least);
        // Once round without success: nothing can be left out alone.
        if in_vain >= simpler.len() {
            break;
        }
        // After a success the same place of the new list is next: what stands before it was tried a moment ago.
        at %= simpler.len();
        if fails(&simpler[at]) {
            least = simpler[at].clone();
            in_vain = 0;
        } else {
            at += 1;
            in_vain += 1;
        }
    }
    least
}

/// Everything that is simpler than this in one thing, what leaves out most first.
fn simpler(scenario: &Scenario) -> Vec<Scenario> {
    let mut out = Vec::new();
    let mut with = |change: &dyn Fn(&mut Scenario)| {
        let mut changed = scenario.clone();
        change(&mut changed);
        // A change that changes nothing would be kept for ever.
        if changed.to_string() != scenario.to_string() {
            out.push(changed);
        }
    };
    for n in 0..scenario.troubles.len() {
        with(&|s| {
            s.troubles.remove(n);
        });
    }
    if !scenario
        .troubles
        .iter()
        .any(|(.., t)| t.needs_second_relay())
    {
        with(&|s| s.setup.second_relay = None);
    }
    for n in 0..scenario.tasks.len() {
        with(&|s| {
            s.tasks.remove(n);
        });
    }
    for change in SETUP {
        with(&|s| change(&mut s.setup));
    }
    for link in [client_link, agent_link] {
        for change in LINK {
            with(&|s| change(link(&mut s.setup)));
        }
    }
    for kind in Access::ALL {
        // Only to a plainer kind, or two kinds that both fail would take turns.
        let rank = |access| Access::ALL.iter().position(|k| *k == access);
        let plainer = |own| rank(kind) < rank(own);
        with(&|s| {
            if plainer(s.setup.client) {
                s.setup.client = kind;
            }
        });
        with(&|s| {
            if plainer(s.setup.agent) {
                s.setup.agent = kind;
            }
        });
    }
    for n in 0..scenario.tasks.len() {
        with(&|s| s.tasks[n].1 = Task::Touch);
    }
    with(&|s| {
        for (at, lasts, _) in &mut s.troubles {
            (*at, *lasts) = (tenths(*at), tenths(*lasts));
        }
        for (at, _) in &mut s.tasks {
            *at = tenths(*at);
        }
    });
    out
}

const SETUP: [fn(&mut Setup); 10] = [
    |s| (s.client_link, s.agent_link) = (LinkConfig::default(), LinkConfig::default()),
    |s| s.second_relay = s.second_relay.map(|_| LinkConfig::default()),
    |s| s.stun = Setup::default().stun,
    |s| s.nat_timeout = None,
    |s| s.client_ip = Setup::default().client_ip,
    |s| s.agent_ip = Setup::default().agent_ip,
    |s| s.client_port = false,
    |s| s.agent_port = false,
    |s| s.links = Setup::default().links,
    |s| s.direct = true,
];

const LINK: [fn(&mut LinkConfig); 7] = [
    |l| l.loss = 0.0,
    |l| l.jitter = Duration::ZERO,
    |l| l.reorder = 0.0,
    |l| l.duplicate = 0.0,
    |l| l.mtu = LinkConfig::default().mtu,
    |l| l.rate = LinkConfig::default().rate,
    |l| l.delay = LinkConfig::default().delay,
];

fn client_link(setup: &mut Setup) -> &mut LinkConfig {
    &mut setup.client_link
}
fn agent_link(setup: &mut Setup) -> &mut LinkConfig {
    &mut setup.agent_link
}

/// Times a person reads at a glance.
fn tenths(time: Duration) -> Duration {
    Duration::from_millis((time.as_millis() as u64).next_multiple_of(100))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Trouble;

    /// Many troubles, many tasks, poor networks.
    fn rich() -> Scenario {
        let rich = |s: &Scenario| {
            let kinds: Vec<_> = s.troubles.iter().map(|(.., trouble)| *trouble).collect();
            s.troubles.len() == 3
                && kinds.contains(&Trouble::RelayKilled)
                && s.setup.client_link.loss > 0.0
                && s.setup.agent_link.mtu == 1280
                && s.setup.client == Access::Symmetric
        };
        let mut all = (0..100_000).map(Scenario::generate);
        all.find(rich)
            .unwrap_or_else(|| panic!("no seed makes such a scenario"))
    }

    #[test]
    fn of_everything_in_a_scenario_the_one_trouble_that_matters_is_left() {
        let least = shrink(rich(), 1_000, |s| {
            let kinds = s.troubles.iter().map(|(.., trouble)| *trouble);
            kinds.into_iter().any(|t| t == Trouble::RelayKilled)
        });
        let [(_, _, Trouble::RelayKilled)] = least.troubles[..] else {
            panic!("{least}")
        };
        assert!(least.tasks.is_empty(), "{least}");
        let Setup { client, agent, .. } = least.setup;
        assert_eq!((client, agent), (Access::Open, Access::Open));
        assert_eq!(least.setup.stun, Setup::default().stun);
        for link in [least.setup.client_link, least.setup.agent_link] {
            assert_eq!(link, LinkConfig::default());
        }
    }

    #[test]
    fn what_the_failure_needs_stays_and_nothing_else() {
        let least = shrink(rich(), 1_000, |s| {
            s.setup.agent_link.mtu < 1500 && s.setup.client == Access::Symmetric
        });
        let setup = &least.setup;
        assert_eq!(setup.client, Access::Symmetric);
        assert_eq!(setup.agent, Access::Open);
        assert_eq!(setup.client_link, LinkConfig::default());
        assert_eq!(setup.agent_link.mtu, 1280);
        assert_eq!(setup.agent_link.loss, 0.0);
        assert!(least.troubles.is_empty() && least.tasks.is_empty());
    }

    #[test]
    fn it_plays_no_more_often_than_it_may_and_stops_when_nothing_is_left() {
        let mut runs = 0;
        let unshrunk = rich();
        let least = shrink(unshrunk.clone(), 7, |_| {
            runs += 1;
            false
        });
        assert_eq!(runs, 7);
        assert_eq!(least.to_string(), unshrunk.to_string());
        let mut runs = 0;
        shrink(unshrunk, 100_000, |_| {
            runs += 1;
            true
        });
        assert!(runs < 100, "{runs}");
    }
}
