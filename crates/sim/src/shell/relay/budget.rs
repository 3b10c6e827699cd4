//! What the relay does for people it does not know, by their network: `Budgets::cookies` in `plane.rs`, by `limit.rs`.
//!
//! The bound for everybody together is left out; no scene has that many networks.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use byway_core::bucket::TokenBucket;

/// 20 a second, and as many at once.
const INTERVAL: Duration = Duration::from_millis(50);
const BURST: u32 = 20;

#[derive(Debug, Default)]
pub(super) struct Budget(BTreeMap<IpAddr, TokenBucket>);

impl Budget {
    /// True if there is budget left for the address's network; takes one.
    pub(super) fn take(&mut self, now: Instant, ip: IpAddr) -> bool {
        let new = || TokenBucket::full(now, BURST, INTERVAL);
        self.0.entry(network(ip)).or_insert_with(new).take(now)
    }
}

/// A /24, or a /56.
fn network(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => (ip & Ipv4Addr::new(255, 255, 255, 0)).into(),
        IpAddr::V6(ip) => (ip.to_bits() >> 72 << 72).to_be_bytes().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_twenty_at_once_and_then_one_each_fifty_milliseconds() {
        #[expect(
            clippy::disallowed_methods,
            reason = "a run needs one instant to start from; nothing depends on which"
        )]
        let now = Instant::now();
        let mut budget = Budget::default();
        let ip = |last: u8| IpAddr::from([203, 0, 113, last]);
        assert_eq!((0..99).filter(|n| budget.take(now, ip(*n))).count(), 20);
        assert!(
            budget.take(now, IpAddr::from([203, 0, 114, 1])),
            "another's"
        );
        assert!(!budget.take(now + INTERVAL - Duration::from_millis(1), ip(1)));
        assert!(budget.take(now + INTERVAL, ip(1)));
    }
}
