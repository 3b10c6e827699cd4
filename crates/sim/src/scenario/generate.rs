//! The generator: a seed makes a network, troubles one after the other, and a workload that lies across their beginnings.

use std::time::Duration;

use byway_core::io::LinkMode;

use super::{Scenario, Trouble};
use crate::model::{Access, Families};
use crate::net::link::LinkConfig;
use crate::rng::Rng;
use crate::scene::Setup;
use crate::shell::app::Task;
use crate::shell::stun::Manner;

/// In milliseconds: eight hours.
const FARTHEST_JUMP: u64 = 8 * 3_600_000;
/// In milliseconds. What QUIC takes a sleep for still holds a transfer up for longer after longer ones (`play.rs`); eight hours
/// are played in `tests/faults/asleep.rs`.
const LONGEST_SLEEP: u64 = 600_000;

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
        let families = |rng: &mut Rng| match rng.below(20) {
            0..=11 => Families::V4,
            12..=14 => Families::Both,
            15..=16 => Families::BrokenV6,
            17..=18 => Families::Nat64,
            _ => Families::V6,
        };
        let (client_ip, agent_ip) = (families(&mut rng), families(&mut rng));
        // Where there is a NAT, and something comes in by it at all.
        let gives = |rng: &mut Rng, access: Access, families: Families| {
            let may = access.routers() > 0 && access.exit().every_udp() && families.has_v4();
            may && rng.chance(0.2)
        };
        let client_port = gives(&mut rng, client, client_ip);
        let agent_port = gives(&mut rng, agent, agent_ip);
        let links = match rng.below(10) {
            0 => LinkMode::Tls,
            1 if !client.is_tls_only() => LinkMode::Udp,
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
            client_ip,
            agent_ip,
            client_port,
            agent_port,
            client_link,
            agent_link,
            links,
            // RFC 4787 asks for two minutes; many keep a mapping hardly longer than our keep-alives are apart.
            nat_timeout: rng.chance(0.3).then(|| ms(rng.between(20_500, 30_000))),
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
            second_relay: rng.chance(0.4).then(|| LinkConfig {
                delay: ms(rng.between(1, 30)),
                ..LinkConfig::default()
            }),
            mapped: false,
            together: false,
            trace: 0,
        };
        let mut troubles = Vec::new();
        for _ in 0..rng.below(4) {
            let what = trouble(&mut rng, &setup, &troubles);
            // One after the other: two at once can cut every path, which says nothing.
            let free = troubles.last().map_or(ms(100), |(at, lasts, what)| {
                *at + what.lasts(*lasts) + ms(3000)
            });
            let at = free + rng.up_to(ms(4000));
            let lasts = lasts(&mut rng, what);
            troubles.push((at, lasts, what));
        }
        let task = |rng: &mut Rng| {
            let amount = rng.between(1, 200_000);
            rng.pick(&[Task::Touch, Task::Upload(amount), Task::Download(amount)])
        };
        let mut tasks: Vec<(Duration, Task)> = (0..rng.between(1, 4))
            .map(|_| (rng.up_to(ms(12_000)), task(&mut rng)))
            .collect();
        // And one for each trouble that begins a moment before it: what is under way when it comes is what matters.
        for (at, lasts, what) in &troubles {
            if *what == Trouble::ClientRebindsEachMinute {
                // Each time something is under way.
                for n in 1..=lasts.as_secs() / 60 {
                    let amount = rng.between(200_000, 500_000);
                    let task =
                        rng.pick(&[Task::Touch, Task::Upload(amount), Task::Download(amount)]);
                    tasks.push((*at + Duration::from_secs(60 * n) - ms(20), task));
                }
            }
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
}

/// One that can come in this setup, after these.
fn trouble(rng: &mut Rng, setup: &Setup, before: &[(Duration, Duration, Trouble)]) -> Trouble {
    let possible = |what: Trouble| {
        let once = matches!(
            what,
            Trouble::RelayLost | Trouble::ClientMoves | Trouble::AgentMoves
        );
        let again = before.iter().any(|(.., earlier)| *earlier == what);
        (setup.second_relay.is_some() || !what.needs_second_relay()) && !(once && again)
    };
    // A path that dies silently is what Byway is about.
    let mut all = vec![Trouble::DirectDead; 2];
    all.extend(Trouble::ALL);
    all.retain(|what| possible(*what));
    rng.pick(&all)
}

fn lasts(rng: &mut Rng, what: Trouble) -> Duration {
    let ms = Duration::from_millis;
    match what {
        // Two of the clock in ten stay below what is taken for a sleep.
        what if what.is_clock() => ms(match rng.below(10) {
            0..=1 => rng.between(1, 4_900),
            2..=5 => rng.between(4_900, 60_000),
            _ => rng.between(60_000, FARTHEST_JUMP),
        }),
        what if what.is_sleep() => ms(match rng.below(10) {
            0..=3 => rng.between(60_000, LONGEST_SLEEP),
            _ => rng.between(1_000, 60_000),
        }),
        Trouble::ClientRebindsEachMinute => ms(rng.between(60_000, 200_000)),
        Trouble::RelayLost
        | Trouble::ClientRebinds
        | Trouble::AgentRebinds
        | Trouble::ClientMoves
        | Trouble::AgentMoves => Duration::ZERO,
        _ => ms(rng.between(100, 6_000)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Place;

    #[test]
    fn a_seed_always_makes_the_same_scenario_and_seeds_differ() {
        let text = |seed| format!("{:?}", Scenario::generate(seed));
        assert_eq!(text(3), text(3));
        assert_ne!(text(3), text(4));
    }

    #[test]
    fn every_trouble_comes_and_none_that_takes_a_relay_there_is_not() {
        let mut seen = Vec::new();
        for seed in 0..500 {
            let scenario = Scenario::generate(seed);
            for (.., what) in scenario.troubles {
                let second = scenario.setup.second_relay.is_some();
                assert!(second || !what.needs_second_relay(), "{seed}: {what:?}");
                seen.push(what);
            }
        }
        for what in Trouble::ALL {
            assert!(seen.contains(&what), "{what:?}");
        }
    }

    #[test]
    fn every_kind_of_network_comes_on_both_sides_with_all_families_and_with_given_ports() {
        let setups: Vec<Setup> = (0..1_000).map(|n| Scenario::generate(n).setup).collect();
        let places = setups.iter().map(|s| [s.client_place(), s.agent_place()]);
        let all: Vec<[Place; 2]> = places.collect();
        for side in 0..2 {
            let there = |is: &dyn Fn(Place) -> bool| all.iter().any(|of| is(of[side]));
            for access in Access::ALL {
                assert!(there(&|place| place.access == access), "{access:?}");
            }
            for families in Families::ALL {
                assert!(there(&|place| place.families == families), "{families:?}");
            }
            let hard = |place: Place| !Place::from(place.access).is_where_it_says();
            assert!(there(&|place| place.gives_port && hard(place)));
        }
    }

    #[test]
    fn troubles_never_overlap() {
        for seed in 0..200 {
            let scenario = Scenario::generate(seed);
            for pair in scenario.troubles.windows(2) {
                assert!(pair[0].0 + pair[0].2.lasts(pair[0].1) < pair[1].0);
            }
        }
    }
}
