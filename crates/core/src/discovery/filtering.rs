//! Whom does the NAT, or a firewall, let in? (RFC 4787 section 5, by the tests of RFC 5780 section 4.4.)
//!
//! A server with two addresses and two ports is asked from a socket of its own, which has spoken to nobody else, to answer
//! from elsewhere:
//!
//! 1. A plain request. The answer must name another address and another port of the server (OTHER-ADDRESS).
//! 2. "Answer from the other address and port." If that comes in, everybody does: filtering is *endpoint-independent*.
//! 3. "Answer from the other port." If that comes in, all ports of an address that was called do: *address-dependent*.
//! 4. Nothing came: is it the NAT, or does the server not do as it is asked? The other port is called, so that the NAT lets
//!    it in, and the server asked again to answer from it. Only if that comes is filtering *address-and-port-dependent*.
//!
//! Behind a NAT that gives every destination another port, calling the other port opens no way for the answer to the first:
//! there the last step fails, and filtering stays unknown.
//!
//! The other *address* is never called: a stranger could point us at a victim that way. That a server which answers from
//! its other port would from its other address too is all that is taken on trust, and matters in step 3 alone.
//!
//! At most fifteen datagrams to one address, in some three seconds, and then it is over whatever the server does.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use byway_wire::stun::{self, ChangeRequest, Message, TransactionId};

use super::screen;
use crate::rng::Rng;

/// When each step's question is sent, after the step began.
const LADDER: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_millis(100),
    Duration::from_millis(250),
];
/// How long a step waits at least, and at most; between them, twice the server's round trip after the last question.
const PATIENCE: Duration = Duration::from_millis(500);
const MOST_PATIENCE: Duration = Duration::from_millis(1_500);

/// Who is let in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Filtering {
    /// Not known: no server that was asked can answer from elsewhere.
    #[default]
    Unknown,
    /// Everybody, once anybody was called.
    EndpointIndependent,
    /// Every port of an address that was called.
    AddressDependent,
    /// Only the very address and port that was called.
    AddressAndPortDependent,
}

/// Asks one server. Driven as the crate's documentation says; the shell gives it a fresh socket.
pub struct FilterTest {
    rng: Rng,
    server: SocketAddr,
    /// Its other address and port, once it has named it.
    other: Option<SocketAddr>,
    step: Step,
    began: Instant,
    rtt: Duration,
    sent_in_step: usize,
    sent: Vec<(TransactionId, Step, Instant)>,
    verdict: Option<Filtering>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Step {
    Plain,
    FromElsewhere,
    FromOtherPort,
    CallOtherPort,
    FromCalledPort,
}

impl fmt::Debug for FilterTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FilterTest")
            .field("server", &self.server)
            .field("step", &self.step)
            .field("verdict", &self.verdict)
            .finish_non_exhaustive()
    }
}

impl FilterTest {
    /// `seed` makes the transaction ids, which nobody may foresee.
    pub fn new(now: Instant, seed: [u8; 32], server: SocketAddr) -> Self {
        Self {
            rng: Rng::new(seed),
            server,
            other: None,
            step: Step::Plain,
            began: now,
            rtt: Duration::ZERO,
            sent_in_step: 0,
            sent: Vec::new(),
            verdict: None,
        }
    }

    /// The next question that is due, and whom to send it to.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<(SocketAddr, Bytes)> {
        let after = LADDER.get(self.sent_in_step)?;
        if self.verdict.is_some() || now < self.began + *after {
            return None;
        }
        self.sent_in_step += 1;
        let txid = TransactionId(self.rng.bytes());
        self.sent.push((txid, self.step, now));
        let change = |ip, port| Some(ChangeRequest { ip, port });
        let (to, change) = match self.step {
            Step::Plain => (self.server, None),
            Step::FromElsewhere => (self.server, change(true, true)),
            Step::FromOtherPort | Step::FromCalledPort => (self.server, change(false, true)),
            Step::CallOtherPort => (self.other_port()?, None),
        };
        Some((to, stun::encode_request(txid, true, change).into()))
    }

    /// Takes a datagram that came to the socket.
    pub fn handle(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        let Ok(message) = stun::decode(datagram) else {
            return;
        };
        let txid = match &message {
            Message::Success { txid, .. } | Message::Failure { txid, .. } => *txid,
            Message::Request { .. } => return,
        };
        let Some(&(_, step, at)) = self.sent.iter().find(|(known, ..)| *known == txid) else {
            return;
        };
        if self.verdict.is_some() {
            return;
        }
        let from = byway_wire::canonical(from);
        let Message::Success { other, .. } = message else {
            // It does not know how to answer from elsewhere.
            if from == self.server || Some(from) == self.other_port() {
                self.verdict = Some(Filtering::Unknown);
            }
            return;
        };
        match step {
            Step::Plain if from == self.server && self.step == Step::Plain => {
                self.rtt = now.saturating_duration_since(at);
                self.other = other.filter(|other| self.is_other(*other));
                match self.other {
                    Some(_) => self.advance(now),
                    None => self.verdict = Some(Filtering::Unknown),
                }
            }
            // It answers, but not from where it was asked to.
            Step::FromElsewhere | Step::FromOtherPort | Step::FromCalledPort
                if from == self.server =>
            {
                self.verdict = Some(Filtering::Unknown);
            }
            Step::FromElsewhere if Some(from) == self.other => {
                self.verdict = Some(Filtering::EndpointIndependent);
            }
            Step::FromOtherPort if Some(from) == self.other_port() => {
                self.verdict = Some(Filtering::AddressDependent);
            }
            Step::CallOtherPort
                if Some(from) == self.other_port() && self.step == Step::CallOtherPort =>
            {
                self.advance(now);
            }
            Step::FromCalledPort if Some(from) == self.other_port() => {
                self.verdict = Some(Filtering::AddressAndPortDependent);
            }
            _ => {}
        }
    }

    /// Gives a step up whose time is over.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.verdict.is_some() || now < self.patience_ends() {
            return;
        }
        match self.step {
            // Nothing came from elsewhere: that is an answer, if the last step bears it out.
            Step::FromElsewhere | Step::FromOtherPort => self.advance(now),
            Step::Plain | Step::CallOtherPort | Step::FromCalledPort => {
                self.verdict = Some(Filtering::Unknown);
            }
        }
    }

    /// When to ask again; none when it is over.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.verdict.is_some() {
            return None;
        }
        let next = LADDER.get(self.sent_in_step);
        Some(next.map_or(self.patience_ends(), |after| self.began + *after))
    }

    /// What it found, once it is over.
    pub fn verdict(&self) -> Option<Filtering> {
        self.verdict
    }

    fn patience_ends(&self) -> Instant {
        let last = LADDER[LADDER.len() - 1];
        self.began + (last + 2 * self.rtt).clamp(PATIENCE, MOST_PATIENCE)
    }

    fn advance(&mut self, now: Instant) {
        self.step = match self.step {
            Step::Plain => Step::FromElsewhere,
            Step::FromElsewhere => Step::FromOtherPort,
            Step::FromOtherPort => Step::CallOtherPort,
            Step::CallOtherPort | Step::FromCalledPort => Step::FromCalledPort,
        };
        self.began = now;
        self.sent_in_step = 0;
    }

    /// Its own address with the other port.
    fn other_port(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.server.ip(), self.other?.port()))
    }

    /// RFC 5780 section 7.4 asks for another address and another port.
    fn is_other(&self, other: SocketAddr) -> bool {
        other.is_ipv4() == self.server.is_ipv4()
            && other.ip() != self.server.ip()
            && other.port() != self.server.port()
            && screen::is_askable(other)
    }
}

#[cfg(test)]
mod tests;
