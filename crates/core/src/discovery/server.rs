//! One server in one round: when it is asked, and what became of it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use byway_wire::stun::TransactionId;

use super::ServerRow;

/// When a silent server is asked, after the round began. Tight at first: most answers come within 100 ms, and a lost
/// datagram should cost no more than that. The last two are for networks with a round trip of a second.
pub(super) const LADDER: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_millis(700),
    Duration::from_millis(1500),
];

/// Nobody is asked twice within this time, however late the timers run.
const MIN_GAP: Duration = Duration::from_millis(50);

/// A server that has not answered by now will not: beyond it a path is of no use to a person who types.
pub(super) const GIVE_UP: Duration = Duration::from_secs(3);

/// How many of [`LADDER`] are sent when the answer is settled already: the row should not say "no answer" for one lost
/// datagram.
pub(super) const ATTEMPTS_WHEN_SETTLED: usize = 3;

/// A server, as configured or found.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) label: String,
    /// Canonical.
    pub(super) addr: SocketAddr,
    /// Found by OTHER-ADDRESS of the server with this number; not configured.
    pub(super) found_by: Option<u32>,
    /// Whose voice it is: the smallest number among those that share a label or an IP address.
    pub(super) voter: u32,
    /// What the report says of it.
    pub(super) row: ServerRow,
    pub(super) state: State,
}

/// What became of it in the round that runs, or ran last.
#[derive(Clone, Debug)]
pub(super) enum State {
    /// Not asked.
    Idle,
    /// Asked, no answer yet.
    Asking(Asking),
    /// Answered, for good or ill: further answers are duplicates.
    Answered {
        /// Its first request, among those of all servers.
        order: u32,
        /// What it said, if believable by itself.
        mapped: Option<SocketAddr>,
        took: Duration,
    },
    /// Silent to the end.
    Silent,
}

/// The requests to one server.
#[derive(Clone, Debug)]
pub(super) struct Asking {
    began: Instant,
    pub(super) order: u32,
    sent: Vec<(TransactionId, Instant)>,
    /// What was wrong with answers so far; a good one may still come.
    fault: Option<Fault>,
}

/// What is wrong with a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    NoAnswer,
    NoSocket,
    WrongSource(SocketAddr),
    WrongSocket,
    Malformed,
    Oversized(usize),
    NoAddress,
    Error(u16),
    Absurd(SocketAddr),
    WrongFamily(SocketAddr),
    Outvoted,
    OnThisHost,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAnswer => write!(f, "no answer"),
            Self::NoSocket => write!(f, "not asked: no local socket for its address family"),
            Self::WrongSource(from) => write!(f, "answers come from another address, {from}"),
            Self::WrongSocket => {
                write!(f, "answers come to another socket than the one that asked")
            }
            Self::Malformed => write!(f, "answers are malformed"),
            Self::Oversized(len) => write!(f, "answers are too long for STUN ({len} bytes)"),
            Self::NoAddress => write!(f, "its answer names no address"),
            Self::Error(code) => write!(f, "it answers with error {code}"),
            Self::Absurd(mapped) => write!(f, "it claims to see us at {mapped}, which cannot be"),
            Self::WrongFamily(mapped) => {
                write!(
                    f,
                    "it claims to see us at {mapped}, of another address family"
                )
            }
            Self::Outvoted => write!(f, "it sees us elsewhere than most servers do"),
            Self::OnThisHost => write!(f, "on this host: it says nothing of the network"),
        }
    }
}

impl Server {
    pub(super) fn new(label: String, addr: SocketAddr, found_by: Option<u32>) -> Self {
        let row = ServerRow {
            label: label.clone(),
            addr,
            mapped: None,
            rtt_ms: None,
            fault: None,
            believed: false,
            local: None,
        };
        Self {
            label,
            addr,
            found_by,
            voter: 0,
            row,
            state: State::Idle,
        }
    }

    /// Starts asking. The first request is due at once.
    pub(super) fn ask(&mut self, now: Instant, order: u32) {
        self.state = State::Asking(Asking {
            began: now,
            order,
            sent: Vec::new(),
            fault: None,
        });
    }

    pub(super) fn is_asking(&self) -> bool {
        matches!(self.state, State::Asking(_))
    }

    /// When the next request is due, if one is.
    pub(super) fn next_request(&self, settled: bool) -> Option<Instant> {
        let State::Asking(asking) = &self.state else {
            return None;
        };
        let most = if settled {
            ATTEMPTS_WHEN_SETTLED
        } else {
            LADDER.len()
        };
        let after = LADDER[..most].get(asking.sent.len())?;
        let due = asking.began + *after;
        let last = asking.sent.last().map(|(_, sent)| *sent + MIN_GAP);
        Some(last.map_or(due, |last| due.max(last)))
    }

    /// When asking began, while it goes on.
    pub(super) fn asking_since(&self) -> Option<Instant> {
        match &self.state {
            State::Asking(asking) => Some(asking.began),
            _ => None,
        }
    }

    /// Notes a request sent now.
    pub(super) fn sent(&mut self, now: Instant, txid: TransactionId) {
        if let State::Asking(asking) = &mut self.state {
            asking.sent.push((txid, now));
        }
    }

    /// Takes an answer: what it names, or what is wrong with it.
    pub(super) fn answer(
        &mut self,
        now: Instant,
        txid: TransactionId,
        said: Result<SocketAddr, Fault>,
        local: Option<IpAddr>,
    ) {
        let State::Asking(asking) = &self.state else {
            return;
        };
        let sent = asking.sent.iter().find(|(id, _)| *id == txid);
        let took = sent.map_or(Duration::ZERO, |(_, sent)| {
            now.saturating_duration_since(*sent)
        });
        self.row = ServerRow {
            mapped: said.ok(),
            rtt_ms: Some(took.as_secs_f64() * 1e3),
            fault: said.err().map(|fault| fault.to_string()),
            believed: false,
            local,
            ..self.row.clone()
        };
        self.state = State::Answered {
            order: asking.order,
            mapped: said.ok(),
            took,
        };
    }

    /// Notes something wrong that a good answer may still make up for.
    pub(super) fn suspect(&mut self, fault: Fault) {
        if let State::Asking(asking) = &mut self.state {
            asking.fault = Some(fault);
        }
    }

    /// The round is over, or it was not asked in it: says so in the row unless it answered.
    pub(super) fn conclude(&mut self, otherwise: Fault) {
        let fault = match &self.state {
            State::Answered { .. } => return,
            State::Asking(asking) => asking.fault.unwrap_or(otherwise),
            State::Idle | State::Silent => otherwise,
        };
        self.row = ServerRow {
            mapped: None,
            rtt_ms: None,
            fault: Some(fault.to_string()),
            believed: false,
            local: None,
            ..self.row.clone()
        };
        self.state = State::Silent;
    }

    /// What it said in this round, if believable by itself.
    pub(super) fn observation(&self) -> Option<(u32, SocketAddr)> {
        match self.state {
            State::Answered {
                order,
                mapped: Some(mapped),
                ..
            } => Some((order, mapped)),
            _ => None,
        }
    }
}
