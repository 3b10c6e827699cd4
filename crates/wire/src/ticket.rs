//! Tickets: a string that tells a client all it needs to reach one agent (design sections 1, 6 and 8).
//!
//! `byway1` + base32 of (protobuf, then the first 4 bytes of its SHA-256). It holds a secret: `Debug` hides it.

use std::net::SocketAddr;
use std::str::FromStr;

use crate::id::{NodeId, NodeInstance};
use crate::key::ProbePublic;
use crate::relay::RelayUrl;

/// A relay as a ticket names it: the URL, and the addresses its name had, so that a DNS outage does not matter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TicketRelay {
    /// Where, and its pin.
    pub url: RelayUrl,
    /// Addresses known when the ticket was written; at most 4.
    pub addrs: Vec<SocketAddr>,
}

/// The secret a ticket's holder proves to know. Compared in constant time, zeroized, never shown.
#[derive(Clone)]
pub struct TicketSecret([u8; 32]);

impl TicketSecret {
    /// From 32 random bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
    /// The secret bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
    /// The proof inside `Open`: HMAC-SHA256 over a label, the opener's id, instance and probe key, and the agent's id.
    /// Bound to the opener's probe key, so that a relay that replays it learns nothing: what the agent then sends is
    /// sealed to that key. (The opener cannot know the agent's probe key before the relay has answered.)
    pub fn open_proof(
        &self,
        opener: NodeInstance,
        opener_key: &ProbePublic,
        agent: NodeId,
    ) -> [u8; 32] {
        let _ = (opener, opener_key, agent);
        unimplemented!()
    }
    /// Verifies [`TicketSecret::open_proof`] in constant time.
    pub fn verify_open_proof(
        &self,
        opener: NodeInstance,
        opener_key: &ProbePublic,
        agent: NodeId,
        proof: &[u8; 32],
    ) -> bool {
        let _ = (opener, opener_key, agent, proof);
        unimplemented!()
    }
    /// The proof inside a tunnel: HMAC-SHA256 over a label and the TLS exporter of that very connection.
    pub fn tunnel_proof(&self, exporter: &[u8; 32]) -> [u8; 32] {
        let _ = exporter;
        unimplemented!()
    }
    /// Verifies [`TicketSecret::tunnel_proof`] in constant time.
    pub fn verify_tunnel_proof(&self, exporter: &[u8; 32], proof: &[u8; 32]) -> bool {
        let _ = (exporter, proof);
        unimplemented!()
    }
}
impl std::fmt::Debug for TicketSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TicketSecret(..)")
    }
}

/// All a client needs to reach one agent.
#[derive(Clone, Debug)]
pub struct Ticket {
    /// The agent.
    pub node: NodeId,
    /// Its relays, best first; at most 8.
    pub relays: Vec<TicketRelay>,
    /// Admits the holder; none when the agent admits by an allow-list only.
    pub secret: Option<TicketSecret>,
    /// What the agent calls itself, for people; at most 64 bytes.
    pub name: Option<String>,
}

/// Why a text is not a ticket.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TicketError {
    /// It does not begin like a ticket.
    #[error("not a ticket: it must begin with 'byway1'")]
    Prefix,
    /// A ticket of a later version.
    #[error("this ticket was written by a newer version of Byway; upgrade to use it")]
    Version,
    /// A character that base32 does not have, or a wrong length.
    #[error("not a ticket: a character does not belong; was it copied whole?")]
    Text,
    /// The checksum is wrong: some characters were lost or changed.
    #[error("the ticket is damaged (checksum): was it copied whole?")]
    Checksum,
    /// The checksum is right but the content is not a ticket's.
    #[error("malformed ticket")]
    Malformed,
}
impl std::fmt::Display for Ticket {
    fn fmt(&self, _f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        unimplemented!()
    }
}
impl FromStr for Ticket {
    type Err = TicketError;
    fn from_str(_s: &str) -> Result<Self, TicketError> {
        unimplemented!()
    }
}
