//! Random scenarios: a seed makes a network, faults and a workload (`generate`); it is played (`play`); the run says
//! what did not hold (`judge`).
//!
//! What must hold is independent of the details:
//!
//! - every task ends well: each byte in its place, however many faults there were on the way;
//! - when the faults are over and some time has passed, bytes pass both ways, and each side comes to send on the kind of
//!   path the model says, and stays there;
//! - no side ever sends on a direct path that the model says cannot exist;
//! - the tunnel is one connection from beginning to end.

mod generate;
mod judge;
mod play;

use std::time::Duration;

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
    /// Troubles that began while a transfer was under way, of how many.
    pub met: (usize, usize),
    /// What did not hold.
    pub failures: Vec<String>,
    /// If something failed: the last lines of the trace, and what both nodes went through.
    pub story: String,
}
