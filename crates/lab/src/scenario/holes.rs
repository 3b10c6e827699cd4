//! Silent black holes on the direct path: how long nothing arrives, under a transfer and while somebody types.

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::scene::{Transfer, direct_forward};
use super::{SHORT, WITH_CURL};
use crate::figures::Figures;
use crate::harness::{self, Scenario, say};
use crate::programs::Typist;

macro_rules! scenarios {
    ($($name:literal $load:ident $dies:ident;)*) => {
        pub(super) const SCENARIOS: &[Scenario] = &[$(Scenario {
            name: $name,
            needs: WITH_CURL,
            run: || Case { load: Load::$load, dies: Dies::$dies }.hold(),
        }),*];
    };
}

scenarios! {
    "holes::a_transfer_goes_on_a_quarter_of_a_second_after_its_path_died" Transfer Both;
    "holes::a_transfer_goes_on_a_quarter_of_a_second_after_its_path_to_the_client_died" Transfer ToClient;
    "holes::a_transfer_goes_on_a_quarter_of_a_second_after_its_path_to_the_agent_died" Transfer ToAgent;
    "holes::typing_goes_on_a_quarter_of_a_second_after_its_path_died" Typing Both;
    "holes::typing_goes_on_a_quarter_of_a_second_after_its_path_to_the_client_died" Typing ToClient;
    "holes::typing_goes_on_a_quarter_of_a_second_after_its_path_to_the_agent_died" Typing ToAgent;
}

/// What is asked (design section 6), at a round trip of 20 ms: as a rule, and nearly always.
const AS_A_RULE: Duration = Duration::from_millis(250);
const NEARLY_ALWAYS: Duration = Duration::from_millis(500);
/// Runs of a scenario, of which the one in the middle counts: another on the same processor delays, and never hastens.
const TRIES: usize = 3;
/// Runs of each case of the table, where nothing else is said.
const RUNS: usize = 50;

/// Two seconds at 32 Mbit/s.
const TRANSFER: Transfer = Transfer {
    size: 8_000_000,
    pace: 4_000_000,
};
/// Messages before the hole, and after it: two seconds of them.
const BEFORE: usize = 10;
const AFTER: usize = 40;
/// Moments between two messages, and how far they are from each other.
const PHASES: u32 = 50;
const PHASE: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Load {
    Transfer,
    Typing,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Dies {
    Both,
    ToClient,
    ToAgent,
}

impl Dies {
    fn ways(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Both => &[("agent", "client"), ("client", "agent")],
            Self::ToClient => &[("agent", "client")],
            Self::ToAgent => &[("client", "agent")],
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Case {
    load: Load,
    dies: Dies,
}

impl Case {
    const ALL: [Self; 6] = {
        const fn all(load: Load) -> [Case; 3] {
            [
                Case {
                    load,
                    dies: Dies::Both,
                },
                Case {
                    load,
                    dies: Dies::ToClient,
                },
                Case {
                    load,
                    dies: Dies::ToAgent,
                },
            ]
        }
        let ([a, b, c], [d, e, f]) = (all(Load::Transfer), all(Load::Typing));
        [a, b, c, d, e, f]
    };

    /// The longest time in which nothing arrived. Each run's hole opens at another moment between two messages.
    fn play(self, run: usize) -> Result<Duration> {
        let scene = direct_forward()?;
        let world = &scene.world;
        let emulator = world.emulator();
        let kill = || {
            thread::sleep(PHASE * (run as u32 % PHASES));
            let mut ways = self.dies.ways().iter();
            ways.try_for_each(|(from, to)| emulator.hole(from, to))
        };
        let silence = match self.load {
            Load::Transfer => TRANSFER.disturbed(world, &scene.forward.url, kill)?,
            Load::Typing => {
                let mut typist = Typist::start(&world.client, &scene.forward.url)?;
                typist.wait(typist.now(), BEFORE, SHORT)?;
                let moment = typist.now();
                kill()?;
                typist.wait(moment, AFTER, SHORT)?;
                typist.silence(moment)?
            }
        };
        scene.is_relayed()?;
        Ok(silence)
    }

    fn hold(self) -> Result<()> {
        let mut silences = Vec::new();
        for run in 0..TRIES {
            silences.push(self.play(run)?);
        }
        let figures = Figures::of(silences);
        say(format!("silence: {figures}"));
        ensure!(figures.percentile(50) <= AS_A_RULE, "{figures}");
        Ok(())
    }
}

/// Every case many times, as a table. False if one failed, or took longer than is asked.
pub fn table(runs: Option<usize>) -> bool {
    harness::by_hand(WITH_CURL, || {
        let mut fine = true;
        for case in Case::ALL {
            let (silences, failures) =
                harness::quietly_often(runs.unwrap_or(RUNS), move |run| case.play(run));
            failures
                .iter()
                .for_each(|why| println!("{case:?}: FAILED: {why}"));
            let figures = Figures::of(silences);
            println!("{:?}, dies {:?}: {figures}", case.load, case.dies);
            fine &= failures.is_empty()
                && figures.percentile(50) <= AS_A_RULE
                && figures.percentile(99) <= NEARLY_ALWAYS;
        }
        fine
    })
}
