//! Limits that an operator may set; the defaults are design section 12's. Each is enforced where its subject lives, counted, and its
//! refusal is told to whoever met it.

use std::ops::RangeInclusive;
use std::time::Duration;

use byway_relay_core::io::NodeRate;
use byway_wire::relay::egress;

/// What each may be, by the name and in the unit of its setting. Less would not work, and more would bound nothing.
pub(crate) mod ranges {
    use std::ops::RangeInclusive;

    pub(crate) const CHANNELS: RangeInclusive<u32> = 1..=65_536;
    pub(crate) const LINKS_PER_NODE: RangeInclusive<u32> = 1..=1_024;
    pub(crate) const LINKS_PER_PROCESS: RangeInclusive<u32> = 2..=64;
    pub(crate) const UNANSWERED_OPENS: RangeInclusive<u32> = 1..=1_024;
    pub(crate) const SHED_ABOVE: RangeInclusive<u32> = 10..=100;
    pub(crate) const CONNECTIONS: RangeInclusive<u32> = 1..=10_000;
    pub(crate) const STUN: RangeInclusive<u32> = 1..=10_000;
    pub(crate) const STUN_IN_ALL: RangeInclusive<u32> = 1..=1_000_000;
    pub(crate) const HANDSHAKES: RangeInclusive<u32> = 8..=65_536;
    pub(crate) const UNPROVED: RangeInclusive<u32> = 0..=65_536;
    pub(crate) const HANDSHAKE_SECONDS: RangeInclusive<u32> = 1..=60;
    pub(crate) const WELCOME_SECONDS: RangeInclusive<u32> = 1..=120;
    pub(crate) const HANDSHAKE_KIB: RangeInclusive<u32> = 2..=1_024;
    pub(crate) const EGRESS_KIB: RangeInclusive<u32> = 128..=16_384;
    pub(crate) const EGRESS_MS: RangeInclusive<u32> = 1..=10_000;
    pub(crate) const STALL_SECONDS: RangeInclusive<u32> = 1..=60;
}

/// A limit that cannot be kept.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the limit '{name}' is {value}, and may be {} to {}", range.start(), range.end())]
pub struct LimitError {
    /// Of its setting.
    pub name: &'static str,
    /// In the unit of its setting, rounded up.
    pub value: u32,
    /// In the same.
    pub range: RangeInclusive<u32>,
}

/// Bytes in a second, of megabits.
pub fn mbit(n: u32) -> u64 {
    u64::from(n) * 1_000_000 / 8
}
/// Datagrams in a second, of thousands.
pub fn kpps(n: u32) -> u64 {
    u64::from(n) * 1_000
}

/// What a node, or an address that nobody knows yet, may take of the relay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Channels of one node process, 1-65,536. Beyond it an open is closed with *limit*.
    pub channels: u32,
    /// Links of one NodeId, all its processes together, 1-1,024. Beyond it a link is refused.
    pub links_per_node: u32,
    /// Links of one process, 2-64: less would leave none to move to. Beyond it the oldest is ended.
    pub links_per_process: u32,
    /// Opens to one target that it has not answered, 1-1,024. Beyond it an open is closed with *limit*.
    pub unanswered_opens: u32,
    /// What one node may send in a second, all its links together, in bytes without the relay's headers and in datagrams. Beyond it what
    /// comes by UDP is dropped, TLS links are read later, and the node is told. A node's token may say otherwise. None: not limited.
    pub node_rate: NodeRate,
    /// How much of its memory (its control group's, or the machine's) and of its file descriptors the relay may use, in percent, 10-100.
    /// Above it nobody new is let in.
    pub shed_above: u32,
    /// New connections of one IPv4 address, or IPv6 /64, in a second, 1-10,000 (which is what all hosts together may have), and twice as many
    /// at once. Beyond it UDP asks for proof of the address, and TCP is refused before TLS. Trusted proxies are exempt.
    pub connections: u32,
    /// Answers in a second to bare STUN requests, which are shorter than their answer, of one /24 or /56, 1-10,000. Beyond it there is
    /// none.
    pub stun: u32,
    /// The same of all networks together, 1-1,000,000.
    pub stun_in_all: u32,
    /// What is spent on those who have not proved a key yet.
    pub handshakes: HandshakeLimits,
    /// What waits for one node's TLS link.
    pub egress: EgressLimits,
}

/// What is spent on handshakes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct HandshakeLimits {
    /// How long TLS or QUIC may take, 1-60 s. Beyond it the connection is closed.
    pub within: Duration,
    /// How long everything may take until the node is welcomed, 1-120 s and not less than `within`. Beyond it the connection is closed.
    pub welcome_within: Duration,
    /// QUIC handshakes under way beyond which whoever begins another must prove its address first (Retry), 0 (always) to half of `under_way`, as
    /// which more counts: those who forge addresses must not fill all places.
    pub prove_above: u32,
    /// Handshakes under way, of QUIC and at each listener of TLS, 8-65,536. Beyond it nobody may begin another. One host may have an eighth of
    /// them, and one IPv6 /48 a quarter.
    pub under_way: u32,
    /// Bytes buffered for a QUIC handshake that waits to be judged, 2 KiB to 1 MiB. Beyond it what comes is dropped.
    pub buffered: u32,
}

/// What waits for one node's TLS link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct EgressLimits {
    /// Bytes of data, 128 KiB (two of the largest frames) to 16 MiB. A link that takes more than that in ten milliseconds has room for as much as
    /// it takes, up to four times this. Beyond it the oldest of the longest lane is dropped.
    pub bytes: u32,
    /// How long data waits, 1 ms to 10 s. What is older is dropped.
    pub age: Duration,
    /// How long a node may take no byte of what is written to it, 1-60 s. Beyond it the link is closed.
    pub stall: Duration,
}

impl Default for HandshakeLimits {
    fn default() -> Self {
        Self {
            within: Duration::from_secs(5),
            welcome_within: Duration::from_secs(10),
            prove_above: 128,
            under_way: 1_024,
            buffered: 128 * 1024,
        }
    }
}

impl Default for EgressLimits {
    fn default() -> Self {
        Self {
            bytes: egress::LEAST_BYTES as u32,
            age: egress::MAX_AGE,
            stall: Duration::from_secs(2),
        }
    }
}

impl Limits {
    /// An error if one of them is none that a relay can keep.
    pub fn check(&self) -> Result<(), LimitError> {
        let rounded = |n: u128, of: u128| u32::try_from(n.div_ceil(of)).unwrap_or(u32::MAX);
        let seconds = |time: Duration| rounded(time.as_nanos(), 1_000_000_000);
        let ms = |time: Duration| rounded(time.as_nanos(), 1_000_000);
        let kib = |bytes: u32| bytes.div_ceil(1_024);
        let (handshakes, egress) = (&self.handshakes, &self.egress);
        for (name, value, range) in [
            ("channels", self.channels, ranges::CHANNELS),
            (
                "links_per_node",
                self.links_per_node,
                ranges::LINKS_PER_NODE,
            ),
            (
                "links_per_process",
                self.links_per_process,
                ranges::LINKS_PER_PROCESS,
            ),
            (
                "unanswered_opens",
                self.unanswered_opens,
                ranges::UNANSWERED_OPENS,
            ),
            ("shed_above", self.shed_above, ranges::SHED_ABOVE),
            ("connections", self.connections, ranges::CONNECTIONS),
            ("stun", self.stun, ranges::STUN),
            ("stun_in_all", self.stun_in_all, ranges::STUN_IN_ALL),
            ("handshakes", handshakes.under_way, ranges::HANDSHAKES),
            ("unproved", handshakes.prove_above, ranges::UNPROVED),
            (
                "handshake_seconds",
                seconds(handshakes.within),
                ranges::HANDSHAKE_SECONDS,
            ),
            (
                "welcome_seconds",
                seconds(handshakes.welcome_within),
                ranges::WELCOME_SECONDS,
            ),
            (
                "handshake_kib",
                kib(handshakes.buffered),
                ranges::HANDSHAKE_KIB,
            ),
            ("egress_kib", kib(egress.bytes), ranges::EGRESS_KIB),
            ("egress_ms", ms(egress.age), ranges::EGRESS_MS),
            (
                "stall_seconds",
                seconds(egress.stall),
                ranges::STALL_SECONDS,
            ),
        ] {
            if !range.contains(&value) {
                return Err(LimitError { name, value, range });
            }
        }
        Ok(())
    }
    /// What a node of a relay that is open to anybody may send if nothing else is said: a video call of ten, and a tenth of what one core
    /// forwards (design section 12).
    pub fn public_rate() -> NodeRate {
        NodeRate {
            bytes: Some(mbit(100)),
            datagrams: Some(kpps(20)),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // An agent serves a team; a hundred times that is still 1 MB of state.
            channels: 1_024,
            // Four processes of one key at their own limit.
            links_per_node: 16,
            // Two carriers, twice: the old pair and the new one while a node moves.
            links_per_process: 4,
            // One honest client opens one channel and waits; several tabs of a tool open a few at once.
            unanswered_opens: 8,
            node_rate: NodeRate::default(),
            shed_above: 80,
            // An office behind one address that comes back after an outage.
            connections: 100,
            stun: 10,
            stun_in_all: 1_000,
            handshakes: HandshakeLimits::default(),
            egress: EgressLimits::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_can_be_kept_and_what_cannot_is_named() {
        assert_eq!(Limits::default().check(), Ok(()));
        let wrong = |change: fn(&mut Limits)| {
            let mut limits = Limits::default();
            change(&mut limits);
            let error = limits.check().unwrap_err();
            (error.name, error.value)
        };
        assert_eq!(wrong(|l| l.connections = 0), ("connections", 0));
        assert_eq!(wrong(|l| l.stun_in_all = 0), ("stun_in_all", 0));
        assert_eq!(wrong(|l| l.handshakes.under_way = 7), ("handshakes", 7));
        assert_eq!(wrong(|l| l.egress.age = Duration::ZERO), ("egress_ms", 0));
        let max = u32::MAX;
        assert_eq!(
            wrong(|l| l.egress.stall = Duration::MAX),
            ("stall_seconds", max)
        );
        assert_eq!(wrong(|l| l.egress.bytes = 65_536), ("egress_kib", 64));
        let error = wrong(|l| l.handshakes.welcome_within = Duration::from_millis(120_001));
        assert_eq!(error, ("welcome_seconds", 121));
        let mut short = Limits::default();
        short.egress.stall = Duration::from_millis(1);
        assert_eq!(short.check(), Ok(()), "a part of a second is no mistake");
    }
}
