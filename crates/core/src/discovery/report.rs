//! What discovery found out, for people and for the rest of the node.

use std::net::{IpAddr, SocketAddr};

use super::{Filtering, Mapping, Nat64, Preferred, RelayRow};

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

/// How a gateway was asked for a port.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum MappingProtocol {
    /// Port Control Protocol (RFC 6887).
    Pcp,
    /// NAT-PMP (RFC 6886).
    NatPmp,
    /// UPnP, an Internet Gateway Device.
    Upnp,
}

/// A port that the gateway holds for us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortMapping {
    /// How it was got.
    pub protocol: MappingProtocol,
    /// Where it leads in from. Where another NAT is in front of the gateway, a private address.
    pub external: SocketAddr,
}

impl PortMapping {
    /// False if another NAT is in front of the gateway: then the port leads nowhere.
    pub fn leads_outside(&self) -> bool {
        !crate::addr::is_inside(self.external.ip())
    }
}

/// What is known of a port of the gateway's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum GatewayPort {
    /// The gateway was not asked: the settings forbid it, or nothing could come in by the port.
    #[default]
    NotAsked,
    /// It is asked, and has not answered yet.
    Unknown,
    /// It gives none, by any protocol.
    None,
    /// It holds one for us.
    Held(PortMapping),
}

impl GatewayPort {
    /// The port, if there is one.
    pub fn held(self) -> Option<PortMapping> {
        match self {
            Self::Held(mapping) => Some(mapping),
            Self::NotAsked | Self::Unknown | Self::None => None,
        }
    }
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
    /// The report rests on its word, among others. False for one that was outvoted, that said nothing of use, or that
    /// sits inside our own network while others are outside.
    pub believed: bool,
    /// The local address its answer came to, where the socket tells.
    pub local: Option<IpAddr>,
}

/// What is known of the network around the node. `None` and `Unknown` mean unknown: never a guess.
#[derive(Clone, PartialEq, Debug, Default)]
#[non_exhaustive]
pub struct NatReport {
    /// UDP over IPv4 reaches the outside.
    pub udp_v4: Option<bool>,
    /// UDP over IPv6 reaches the outside.
    pub udp_v6: Option<bool>,
    /// Our address from outside. Where the mapping depends on the destination, the address holds for all and the port
    /// is the one the server asked last saw.
    pub reflexive_v4: Option<SocketAddr>,
    /// Our address from outside.
    pub reflexive_v6: Option<SocketAddr>,
    /// Mapping behaviour (RFC 4787 section 4.1), of IPv4.
    pub mapping: Mapping,
    /// Mapping behaviour of IPv6, where address translation is the exception.
    pub mapping_v6: Mapping,
    /// Two ports of one server see different mappings of ours (IPv4).
    pub port_dependent: Option<bool>,
    /// Port pattern (IPv4).
    pub ports: PortPattern,
    /// The reflexive address, port included, is one of the host's own. Of IPv4; of IPv6 where there is no IPv4.
    pub public: Option<bool>,
    /// Who is let in by the NAT or a firewall once this host has called out (RFC 4787 section 5), of IPv4. Unknown unless a
    /// whole check was asked for and a server offers RFC 5780.
    pub filtering: Filtering,
    /// Datagrams that this host sends to its own reflexive IPv4 address come back to it. Unknown unless a whole check was
    /// asked for, without a NAT, and where the mapping depends on the destination: then the address is not everyone's.
    pub hairpin: Option<bool>,
    /// A second NAT, a carrier's or another router's, is suspected ([`SecondNat`](super::SecondNat) says on what evidence).
    /// False where the gateway's own outside address is the one that servers see, or there is no NAT.
    pub double_nat: Option<bool>,
    /// A port that the gateway holds for us.
    pub port_mapping: GatewayPort,
    /// The largest datagram that came back whole from a relay over UDP, in bytes of UDP payload; at most
    /// [`FULL_DATAGRAM`](super::FULL_DATAGRAM), for no more is tried. Unknown unless a whole check was asked for, and
    /// without a UDP link.
    pub mtu: Option<u16>,
    /// Whether the network reaches IPv4 by a translator, and behind which prefix. Known to a whole check alone.
    pub nat64: Nat64,
    /// The network lets UDP through and QUIC not: relays answer STUN and their QUIC is silent. Known to a whole check alone.
    pub quic_filtered: Option<bool>,
    /// Someone on the way answers for a relay with a page to log in at. False where TLS led to a relay whose certificate is
    /// the right one. Known to a whole check alone.
    pub captive_portal: Option<bool>,
    /// What the answer was, in words, where a captive portal is suspected.
    pub captive_portal_evidence: Option<String>,
    /// Every relay, with its latency over each carrier. Known to a whole check alone.
    pub relays: Vec<RelayRow>,
    /// The relay to use from here; none if none was reached.
    pub preferred_relay: Option<Preferred>,
    /// Every server asked.
    pub servers: Vec<ServerRow>,
    /// Counts changes.
    pub generation: u64,
}

/// Why a datagram that looked like a STUN answer changed nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Ignored {
    /// Not a STUN binding message.
    Malformed,
    /// Longer than a STUN message may be.
    Oversized,
    /// A request: a node answers none.
    Request,
    /// The transaction is not one of this round.
    UnknownTransaction,
    /// It came from another address than the one asked.
    WrongSource,
    /// It came to another socket than the one that asked.
    WrongSocket,
    /// The server had answered before.
    Duplicate,
    /// The round was over.
    Late,
    /// The address it names is of another family than the one asked over.
    WrongFamily,
    /// The address it names cannot be ours.
    AbsurdAddress,
    /// The server answered with an error, or without an address.
    Refused,
}

/// How many datagrams were ignored, by reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IgnoredAnswers([u64; Ignored::ALL.len()]);

impl Ignored {
    /// Every reason.
    pub const ALL: [Self; 11] = [
        Self::Malformed,
        Self::Oversized,
        Self::Request,
        Self::UnknownTransaction,
        Self::WrongSource,
        Self::WrongSocket,
        Self::Duplicate,
        Self::Late,
        Self::WrongFamily,
        Self::AbsurdAddress,
        Self::Refused,
    ];
}

impl IgnoredAnswers {
    /// How many for this reason.
    pub fn get(&self, reason: Ignored) -> u64 {
        self.0[reason as usize]
    }

    /// How many in all.
    pub fn total(&self) -> u64 {
        self.0.iter().fold(0, |sum, n| sum.saturating_add(*n))
    }

    pub(super) fn count(&mut self, reason: Ignored) {
        let n = &mut self.0[reason as usize];
        *n = n.saturating_add(1);
    }
}
