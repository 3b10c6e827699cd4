//! One link, from the dial on.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

use super::echo::EchoTest;
use super::question::Question;
use crate::cx::{Wake, earliest};
use crate::io::{Carrier, LinkUp, RelayId, SocketId};

/// One dial, and the link it became.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) relay: RelayId,
    pub(crate) carrier: Carrier,
    pub(super) state: LinkState,
    /// The number of the token that the relay admits us by, or was asked to.
    pub(super) shown: Option<u64>,
    /// Those of fresh tokens that were sent on it and not answered yet.
    pub(super) tokens_out: VecDeque<u64>,
}

#[derive(Debug)]
pub(super) enum LinkState {
    /// The shell connects.
    Dialing { until: Instant },
    /// Connected; `Hello` is out.
    Greeting { up: LinkUp, until: Instant },
    /// Welcomed.
    Ready {
        up: LinkUp,
        observed: SocketAddr,
        proof: Proof,
        /// Cookies echoed that were not answered: a relay may not tell us of moves we did not prove.
        rebinds: u8,
        /// It was asked whether it is still there.
        question: Option<Question>,
    },
}

/// Whether a link is known to carry data.
#[derive(Debug)]
pub(super) enum Proof {
    Testing(EchoTest),
    Proven,
    Failed,
}

impl Link {
    /// For a UDP link, the socket and the relay's address.
    pub(crate) fn udp(&self) -> Option<(SocketId, SocketAddr)> {
        match &self.state {
            LinkState::Dialing { .. } => None,
            LinkState::Greeting { up, .. } | LinkState::Ready { up, .. } => up.udp,
        }
    }
    /// Where the relay sees us, once it has said so.
    pub(crate) fn observed(&self) -> Option<SocketAddr> {
        match &self.state {
            LinkState::Ready { observed, .. } => Some(*observed),
            _ => None,
        }
    }
    pub(super) fn is_usable(&self) -> bool {
        !matches!(self.state, LinkState::Dialing { .. })
    }
    pub(super) fn is_ready(&self) -> bool {
        matches!(self.state, LinkState::Ready { .. })
    }
    /// Good enough to replace another: welcomed, and for UDP proven to carry data.
    pub(super) fn is_proven(&self) -> bool {
        matches!(
            &self.state,
            LinkState::Ready {
                proof: Proof::Proven,
                ..
            }
        )
    }
    /// Welcomed, and not known to carry no data.
    pub(super) fn may_carry_data(&self) -> bool {
        match &self.state {
            LinkState::Dialing { .. } | LinkState::Greeting { .. } => false,
            LinkState::Ready { proof, .. } => !matches!(proof, Proof::Failed),
        }
    }
    /// When it wants to be looked at, and why.
    pub(super) fn deadline(&self) -> Option<Wake> {
        match &self.state {
            LinkState::Dialing { until } => Some((*until, "link dial limit")),
            LinkState::Greeting { until, .. } => Some((*until, "link welcome limit")),
            LinkState::Ready {
                proof, question, ..
            } => {
                let echo = match proof {
                    Proof::Testing(test) => Some((test.next(), "link echo")),
                    Proof::Proven | Proof::Failed => None,
                };
                earliest(echo, question.map(|asked| (asked.until, "link question")))
            }
        }
    }
}
