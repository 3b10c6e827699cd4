//! Limits that an operator may set; the defaults are design section 12's. Each is enforced where its subject lives, counted, and its
//! refusal is told to whoever met it.

use std::time::Duration;

use byway_relay_core::io::NodeRate;

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
    /// Bytes of data, 128 KiB (two of the largest frames) to 16 MiB. Beyond it the oldest of the longest lane is dropped.
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
            bytes: 256 * 1024,
            age: Duration::from_millis(50),
            stall: Duration::from_secs(2),
        }
    }
}

impl Limits {
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
