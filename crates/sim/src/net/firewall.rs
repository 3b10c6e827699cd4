//! A stateful firewall without translation: what stands in front of IPv6 hosts (RFC 6092, "simple security").
//!
//! A datagram comes in if one left for exactly where it comes from, from exactly where it goes to, not long ago (section
//! 3.2: endpoint-dependent filtering, two minutes at least). What goes out always goes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// One firewall with its table.
#[derive(Debug)]
pub(super) struct Firewall {
    timeout: Duration,
    /// (inside, outside) -> when a datagram last left that way.
    flows: BTreeMap<(SocketAddr, SocketAddr), Duration>,
    /// When old flows are next cleared away.
    sweep: Duration,
}

impl Firewall {
    pub(super) fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            flows: BTreeMap::new(),
            sweep: Duration::ZERO,
        }
    }
    /// A datagram leaves.
    pub(super) fn outbound(&mut self, now: Duration, inside: SocketAddr, outside: SocketAddr) {
        if self.sweep <= now {
            let timeout = self.timeout;
            self.flows
                .retain(|_, last| now.saturating_sub(*last) < timeout);
            self.sweep = now + timeout;
        }
        self.flows.insert((inside, outside), now);
    }
    /// True if a datagram is let in now.
    pub(super) fn lets_in(&self, now: Duration, inside: SocketAddr, outside: SocketAddr) -> bool {
        let last = self.flows.get(&(inside, outside));
        last.is_some_and(|last| now.saturating_sub(*last) < self.timeout)
    }
    /// It restarts, and has forgotten everything.
    pub(super) fn restart(&mut self) {
        self.flows.clear();
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn only_answers_come_in_and_only_for_a_while() {
        let addr = |text: &str| -> SocketAddr { text.parse().unwrap() };
        let s = Duration::from_secs;
        let (inside, other) = (addr("[2001:db8::2]:5000"), addr("[2001:db8::2]:5001"));
        let (peer, port) = (addr("[2001:db8:1::1]:443"), addr("[2001:db8:1::1]:444"));
        let mut wall = Firewall::new(s(30));
        assert!(!wall.lets_in(s(0), inside, peer));
        wall.outbound(s(1), inside, peer);
        assert!(wall.lets_in(s(30), inside, peer));
        assert!(!wall.lets_in(s(2), inside, port), "another port there");
        assert!(!wall.lets_in(s(2), other, peer), "another port here");
        assert!(!wall.lets_in(s(31), inside, peer), "too late");
        wall.outbound(s(31), inside, peer);
        wall.restart();
        assert!(!wall.lets_in(s(31), inside, peer));
    }
}
