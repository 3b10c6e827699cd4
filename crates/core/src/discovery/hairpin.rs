//! Does what this host sends to its own outside address come back? Two nodes behind one NAT need that where they know
//! each other's outside addresses alone (RFC 4787 section 6, RFC 5780 section 4.6).
//!
//! The data socket sends binding requests to its own reflexive address. One that comes back proves that the NAT turns
//! datagrams around: only who has that address can know its transaction id. Where it seems to come from is of no account:
//! RFC 4787 (REQ-9) asks for the outside address, and there are NATs that show the inner one, or their own. It leaves by
//! the mapping it is addressed to, so a NAT that lets in only those who were called lets it in, and the answer is about
//! turning around alone. Nothing answers it.
//!
//! An address that servers named may be a stranger's, should they lie: it gets three datagrams of 52 bytes, only when
//! somebody asked for the whole truth about this network, and never while it is in doubt whether there is a NAT.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use byway_wire::stun::TransactionId;

/// After the first: the way to one's own NAT and back is short, and loss on it is rare.
const LADDER: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_millis(100),
    Duration::from_millis(300),
];
/// From the first to the verdict, at least: the nearest server's round trip is waited for after the last, for the NAT is not
/// farther than that.
const PATIENCE: Duration = Duration::from_millis(600);

/// One test.
#[derive(Debug)]
pub(super) struct Hairpin {
    target: SocketAddr,
    began: Instant,
    patience: Duration,
    sent: Vec<TransactionId>,
}

/// What became of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// One came back.
    Returned,
    /// None did.
    Silent,
}

impl Hairpin {
    /// `nearest`: the least round trip to a server.
    pub(super) fn new(now: Instant, target: SocketAddr, nearest: Duration) -> Self {
        Self {
            target,
            began: now,
            patience: PATIENCE.max(LADDER[LADDER.len() - 1] + nearest),
            sent: Vec::new(),
        }
    }
    pub(super) fn target(&self) -> SocketAddr {
        self.target
    }
    pub(super) fn knows(&self, txid: TransactionId) -> bool {
        self.sent.contains(&txid)
    }
    /// True if a request is to be sent now; [`Self::sent`] follows.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        let due = LADDER.get(self.sent.len());
        due.is_some_and(|after| self.began + *after <= now)
    }
    pub(super) fn sent(&mut self, txid: TransactionId) {
        self.sent.push(txid);
    }
    /// When to look again.
    pub(super) fn next(&self) -> (Instant, &'static str) {
        match LADDER.get(self.sent.len()) {
            Some(after) => (self.began + *after, "hairpin test"),
            None => (self.began + self.patience, "hairpin verdict"),
        }
    }
    /// The verdict when none came back, once it is time.
    pub(super) fn expired(&self, now: Instant) -> Option<Verdict> {
        (self.sent.len() >= LADDER.len() && now >= self.began + self.patience)
            .then_some(Verdict::Silent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_sends_three_and_then_gives_up() {
        #[expect(
            clippy::disallowed_methods,
            reason = "any instant will do to begin with"
        )]
        let start = Instant::now();
        let mut test = Hairpin::new(start, "203.0.113.9:7000".parse().unwrap(), Duration::ZERO);
        let mut now = start;
        let mut sent = 0;
        while test.expired(now).is_none() {
            if test.is_due(now) {
                sent += 1;
                test.sent(TransactionId([sent; 12]));
                continue;
            }
            let (next, _) = test.next();
            assert!(next > now, "would spin");
            now = next;
        }
        assert_eq!((sent, now - start), (3, PATIENCE));
    }
}
