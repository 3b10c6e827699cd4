//! Finding the network (design section 5): STUN servers in, a [`NatReport`] out.

use std::net::SocketAddr;

pub use byway_wire::signal::Mapping;

/// How external ports follow from internal ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum PortPattern {
    /// Not known.
    #[default]
    Unknown,
    /// The external port is the internal one.
    Preserving,
    /// Each new mapping's port is the last plus a small delta.
    Sequential {
        /// The delta, from -16 to 16, not 0.
        delta: i32,
    },
    /// No pattern.
    Random,
}

/// One STUN server's row in the report.
#[derive(Clone, PartialEq, Debug)]
pub struct ServerRow {
    /// As configured.
    pub label: String,
    /// Its address.
    pub addr: SocketAddr,
    /// What it said we look like; none if it did not answer (or not believably).
    pub mapped: Option<SocketAddr>,
    /// Its round-trip time in milliseconds.
    pub rtt_ms: Option<f64>,
    /// What was wrong with it, in words.
    pub fault: Option<String>,
}

/// What is known of the network around the node. `None` and `Unknown` mean unknown: never a guess.
#[derive(Clone, PartialEq, Debug, Default)]
#[non_exhaustive]
pub struct NatReport {
    /// UDP over IPv4 reaches the outside.
    pub udp_v4: Option<bool>,
    /// UDP over IPv6 reaches the outside.
    pub udp_v6: Option<bool>,
    /// Our address from outside.
    pub reflexive_v4: Option<SocketAddr>,
    /// Our address from outside.
    pub reflexive_v6: Option<SocketAddr>,
    /// Mapping behaviour (RFC 4787 section 4.1), of IPv4.
    pub mapping: Mapping,
    /// Port pattern.
    pub ports: PortPattern,
    /// The reflexive address is one of the host's own.
    pub public: Option<bool>,
    /// Every server asked.
    pub servers: Vec<ServerRow>,
    /// Counts changes.
    pub generation: u64,
}
