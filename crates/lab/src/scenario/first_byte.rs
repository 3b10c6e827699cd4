//! How long the first answer takes, in round trips: with R the round trip from the client to the relay and T that from the
//! client through the relay to the agent (design section 6).
//!
//! | way | where the round trips go |
//! |---|---|
//! | warm link, 2 T | T the tunnel's handshake, its first flight inside `Open`; T question and answer |
//! | cold UDP link, R + 2 T | R the relay's handshake; T the tunnel's handshake, its first flight inside `Open`; T question and answer |
//! | cold TLS link, 3 R + 2 T | R TCP, R TLS, R the upgrade and the challenge; then as above |
//! | UDP blocked | the same after 300 ms, which UDP had to itself |
//! | the first relay dead | as UDP, after 300 ms, which the first relay had to itself |

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use byway_sim::model::Access::{self, PortRestricted, UdpBlocked};

use super::PROGRAMS;
use crate::figures::Figures;
use crate::harness::{self, Scenario, say};
use crate::programs::{self, Agent, Options, Relay};
use crate::world::{RELAY, RELAY_2, World};

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "first_byte::comes_after_as_many_round_trips_as_it_must",
    needs: PROGRAMS,
    run: || {
        for case in Case::ALL {
            let mut took = Vec::new();
            for _ in 0..TRIES {
                took.push(case.play()?);
            }
            let median = median(took).context("some tries")?;
            let line = case.line(median);
            say(line.clone());
            ensure!(median.in_time(case, BUSY), "{line}");
        }
        Ok(())
    },
}];

/// One way from a site to the middle.
pub(super) const ACCESS: Duration = Duration::from_millis(20);
/// Client to relay and back.
pub(super) const R: Duration = Duration::from_millis(40);
/// Client through the relay to the agent and back.
pub(super) const T: Duration = Duration::from_millis(80);
/// What TLS and a second relay wait for those before them.
const STAGGER: Duration = Duration::from_millis(300);
/// A machine that plays other scenarios meanwhile needs more than the 10 % that the table is judged by.
pub(super) const BUSY: f64 = 1.2;
/// Runs of each case, of which the one in the middle counts: another scenario on the same processor delays.
const TRIES: usize = 3;

#[derive(Clone, Copy, Debug)]
enum Case {
    WarmUdp,
    ColdUdp,
    ColdTls,
    UdpBlocked,
    FirstRelayDead,
}

impl Case {
    const ALL: [Self; 5] = [
        Self::WarmUdp,
        Self::ColdUdp,
        Self::ColdTls,
        Self::UdpBlocked,
        Self::FirstRelayDead,
    ];

    fn budget(self) -> Duration {
        match self {
            Self::WarmUdp => 2 * T,
            Self::ColdUdp => R + 2 * T,
            Self::ColdTls => 3 * R + 2 * T,
            Self::UdpBlocked => STAGGER + 3 * R + 2 * T,
            Self::FirstRelayDead => STAGGER + R + 2 * T,
        }
    }

    fn play(self) -> Result<Times> {
        let client: Access = match self {
            Self::UdpBlocked => UdpBlocked,
            _ => PortRestricted,
        };
        let world = World::with_delay(client, PortRestricted, ACCESS)?;
        let first = Relay::start_at(&world, &[format!("{RELAY}:443")])?;
        let second = Relay::start_at(&world, &[format!("{RELAY_2}:443")])?;
        let more: &[&str] = match self {
            Self::FirstRelayDead => {
                first.process.signal("KILL")?;
                &["--relay", &second.url]
            }
            _ => &[],
        };
        let agent = Agent::start(&world, &first.url, Options::default(), more)?;
        let options = Options {
            link: matches!(self, Self::ColdTls).then_some("tls"),
            no_direct: true,
            ..Options::default()
        };
        let args: &[&str] = match self {
            Self::WarmUdp => &["-c", "2", "--fresh"],
            _ => &["-c", "1"],
        };
        let pongs = programs::ping(&world, &agent.peer(), options, args)?;
        let pong = pongs.last().context("no answer")?;
        let is_warm = pong.link.is_zero();
        ensure!(
            is_warm == matches!(self, Self::WarmUdp),
            "{self:?}: the link was there after {:?}",
            pong.link
        );
        Ok(Times {
            link: pong.link,
            up: pong.up,
            answer: Duration::from_secs_f64(pong.at_ms / 1e3),
        })
    }

    fn line(self, took: Times) -> String {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let Times { link, up, answer } = took;
        let (took, budget) = (ms(answer), ms(self.budget()));
        format!(
            "{self:?}: {took:.0} ms of {budget:.0} ms ({:+.0} %): link {:.0}, tunnel {:.0}, question and answer {:.0}",
            (took / budget - 1.0) * 100.0,
            ms(link),
            ms(up.saturating_sub(link)),
            ms(answer.saturating_sub(up))
        )
    }
}

/// When what was there, from the first attempt.
#[derive(Clone, Copy, Debug)]
struct Times {
    link: Duration,
    up: Duration,
    answer: Duration,
}

impl Times {
    fn in_time(self, case: Case, margin: f64) -> bool {
        self.answer <= case.budget().mul_f64(margin)
    }
}

/// The one in the middle, by its answer.
fn median(mut took: Vec<Times>) -> Option<Times> {
    took.sort_by_key(|times| times.answer);
    took.get(took.len() / 2).copied()
}

/// Ten runs of each case, for a person. False if one failed, or took 10 % more than its round trips in the median.
pub fn table() -> bool {
    harness::by_hand(PROGRAMS, || {
        let mut fine = true;
        for case in Case::ALL {
            let mut took = Vec::new();
            for _ in 0..10 {
                match harness::quietly(move || case.play()) {
                    Ok(time) => took.push(time),
                    Err(why) => {
                        println!("{case:?}: FAILED: {why}");
                        fine = false;
                    }
                }
            }
            let answers = Figures::of(took.iter().map(|times| times.answer).collect());
            if let Some(median) = median(took) {
                println!("{}; {answers}", case.line(median));
                fine &= median.in_time(case, 1.1);
            }
        }
        fine
    })
}
