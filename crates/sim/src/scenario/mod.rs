//! Random scenarios: a seed makes a network, faults and a workload (`generate`); it is played (`play`); the run says
//! what did not hold (`judge`).
//!
//! What must hold is independent of the details:
//!
//! - every task ends well: each byte in its place, however many faults there were on the way;
//! - when the faults are over and some time has passed, bytes pass both ways, and each side comes to send on the kind of
//!   path the model says, and stays there; where it says that there surely is a direct one, in time;
//! - no side ever sends on a direct path that the model says cannot exist;
//! - the tunnel is one connection from beginning to end.

//!
//! A scenario that fails is made smaller ([`shrink`](fn@shrink)) and said in a line that plays it again ([`text`]).

mod generate;
mod judge;
mod play;
mod shrink;
pub mod text;
mod trouble;

use std::fmt;
use std::time::Duration;

pub use shrink::shrink;

use crate::scene::Setup;
use crate::shell::app::Task;

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
    /// The client's site and the agent's are both cut off from everything.
    Partition,
    /// The relay's process is dead.
    RelayKilled,
    /// The second relay's process is dead.
    SecondRelayKilled,
    /// Both relays' processes are dead.
    BothRelaysKilled,
    /// The relay's process dies and is never started again (lasts no time). Only where there is a second one.
    RelayLost,
    /// The client's NAT restarts (lasts no time).
    ClientRebinds,
    /// The agent's NAT restarts (lasts no time).
    AgentRebinds,
    /// The client's NAT restarts now and each minute after.
    ClientRebindsEachMinute,
    /// The client's site gets another public address (lasts no time).
    ClientMoves,
    /// The agent's site gets another public address (lasts no time).
    AgentMoves,
    /// The client's machine sleeps; its monotonic clock stands still meanwhile.
    ClientSleeps,
    /// The client's machine sleeps; its clock goes on.
    ClientSleepsCounted,
    /// The agent's machine sleeps; its monotonic clock stands still meanwhile.
    AgentSleeps,
    /// The agent's machine sleeps; its clock goes on.
    AgentSleepsCounted,
    /// The wall clock of the client's machine is set forwards, by the trouble's length (lasts no time).
    ClientClockForwards,
    /// It is set back.
    ClientClockBackwards,
    /// That of the agent's machine is set forwards.
    AgentClockForwards,
    /// It is set back.
    AgentClockBackwards,
    /// That of the relay's machine is set forwards.
    RelayClockForwards,
    /// It is set back.
    RelayClockBackwards,
    /// The client's access link loses a third of everything.
    LossBurst,
    /// The client's access link takes 150 ms longer, in each direction.
    SlowSpell,
}

impl Trouble {
    /// Every kind.
    pub const ALL: [Trouble; 26] = [
        Trouble::DirectDead,
        Trouble::DirectDeadOneWay,
        Trouble::RelayUdpDead,
        Trouble::Offline,
        Trouble::Partition,
        Trouble::RelayKilled,
        Trouble::SecondRelayKilled,
        Trouble::BothRelaysKilled,
        Trouble::RelayLost,
        Trouble::ClientRebinds,
        Trouble::AgentRebinds,
        Trouble::ClientRebindsEachMinute,
        Trouble::ClientMoves,
        Trouble::AgentMoves,
        Trouble::ClientSleeps,
        Trouble::ClientSleepsCounted,
        Trouble::AgentSleeps,
        Trouble::AgentSleepsCounted,
        Trouble::ClientClockForwards,
        Trouble::ClientClockBackwards,
        Trouble::AgentClockForwards,
        Trouble::AgentClockBackwards,
        Trouble::RelayClockForwards,
        Trouble::RelayClockBackwards,
        Trouble::LossBurst,
        Trouble::SlowSpell,
    ];

    /// True if a machine sleeps.
    pub fn is_sleep(self) -> bool {
        matches!(
            self,
            Self::ClientSleeps
                | Self::ClientSleepsCounted
                | Self::AgentSleeps
                | Self::AgentSleepsCounted
        )
    }
    /// True if a wall clock is set. The trouble's length says by how much, and it lasts no time.
    pub fn is_clock(self) -> bool {
        matches!(
            self,
            Self::ClientClockForwards
                | Self::ClientClockBackwards
                | Self::AgentClockForwards
                | Self::AgentClockBackwards
                | Self::RelayClockForwards
                | Self::RelayClockBackwards
        )
    }
    /// How long one of that length lasts.
    pub fn lasts(self, length: Duration) -> Duration {
        if self.is_clock() {
            Duration::ZERO
        } else {
            length
        }
    }
    /// True if it takes a second relay.
    pub fn needs_second_relay(self) -> bool {
        matches!(
            self,
            Self::SecondRelayKilled | Self::BothRelaysKilled | Self::RelayLost
        )
    }
}

/// A scenario.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The network and its ends.
    pub setup: Setup,
    /// When which trouble begins, and how long it lasts ([`Trouble::lasts`]). Times count from the tunnel's first answer.
    pub troubles: Vec<(Duration, Duration, Trouble)>,
    /// What is done when. Times count from the tunnel's first answer.
    pub tasks: Vec<(Duration, Task)>,
}

/// What must hold in every scenario.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule {
    /// The tunnel comes up.
    ComesUp,
    /// What was begun under the troubles ends.
    Ends,
    /// Bytes pass both ways when the troubles are over.
    Passes,
    /// Every task is there, and went well.
    Tasks,
    /// Both sides come to send on the paths the model says, and stay there.
    Paths,
    /// Where the model says that there surely is a direct path, both come to send on it in time.
    DirectInTime,
    /// Nobody sends on a path that cannot exist.
    NoSuchPath,
    /// The tunnel is one connection from beginning to end.
    OneConnection,
    /// No program panics.
    NoPanic,
}

/// A rule that did not hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// Which.
    pub rule: Rule,
    /// In what way.
    pub detail: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.detail)
    }
}

/// What came of a scenario.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// The trace's hash: the same for the same seed.
    pub hash: u64,
    /// Events in the trace.
    pub events: u64,
    /// Troubles that began while a transfer was under way, of how many.
    pub met: (usize, usize),
    /// Where nothing disturbs a new tunnel that surely has a direct path: how long after it was up each side first sent on
    /// it, in round trips of that path: a second stands for one.
    pub opened: Vec<Duration>,
    /// The same where full-size datagrams do not pass.
    pub opened_narrow: Vec<Duration>,
    /// Where there surely is a direct path: how long after the last trouble, or the tunnel's first answer, both sides were on
    /// it.
    pub direct_after: Option<Duration>,
    /// There could be no direct path, and nobody was to be on one.
    pub barred: bool,
    /// What did not hold.
    pub failures: Vec<Failure>,
    /// If something failed: the last lines of the trace, and what both nodes went through.
    pub story: String,
}

impl Outcome {
    /// True if this rule did not hold.
    pub fn broke(&self, rule: Rule) -> bool {
        self.failures.iter().any(|failure| failure.rule == rule)
    }
}
