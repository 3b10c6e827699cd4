//! Tickets: a string that tells a client all it needs to reach one agent (design sections 1, 6 and 8).
//!
//! `byway1` + base32 of (protobuf, then the first 4 bytes of its SHA-256). It holds a secret: `Debug` hides it.
//!
//! The digit is the version; base32 has no 1, so a reader sees where the content begins. The checksum is for people who
//! copy half a line, not against forgers: who holds the secret can write any ticket he likes.

use std::net::SocketAddr;
use std::str::FromStr;

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use prost::Message as _;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::id::{NodeId, NodeInstance};
use crate::key::ProbePublic;
use crate::relay::RelayUrl;
use crate::{addr, text};

/// Most relays in a ticket; further ones are left out.
pub const MAX_RELAYS: usize = 8;
/// Most addresses beside a relay; further ones are left out.
pub const MAX_ADDRS: usize = 4;
/// Longest name, in bytes.
pub const MAX_NAME: usize = 64;
/// Longest ticket, in characters: eight relays with the longest names and four addresses each take about 5,500.
pub const MAX_TEXT: usize = 8 * 1024;

/// What every version of a ticket begins with.
const PREFIX: &str = "byway";
/// The version written here.
const VERSION: char = '1';
/// Length of the checksum, in bytes: one damaged ticket in four thousand million passes.
const CHECKSUM_LEN: usize = 4;

/// A relay as a ticket names it: the URL, and the addresses its name had, so that a DNS outage does not matter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TicketRelay {
    /// Where, and its pin.
    pub url: RelayUrl,
    /// Addresses known when the ticket was written; at most 4.
    pub addrs: Vec<SocketAddr>,
}

/// The secret a ticket's holder proves to know. Compared in constant time, zeroized, never shown.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
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
        self.mac(&[
            b"byway open proof v1\0",
            opener.node.as_bytes(),
            &opener.instance.0.to_be_bytes(),
            &opener_key.0,
            agent.as_bytes(),
        ])
    }
    /// Verifies [`TicketSecret::open_proof`] in constant time.
    pub fn verify_open_proof(
        &self,
        opener: NodeInstance,
        opener_key: &ProbePublic,
        agent: NodeId,
        proof: &[u8; 32],
    ) -> bool {
        self.open_proof(opener, opener_key, agent)
            .ct_eq(proof)
            .into()
    }
    /// The proof inside a tunnel: HMAC-SHA256 over a label and the TLS exporter of that very connection.
    pub fn tunnel_proof(&self, exporter: &[u8; 32]) -> [u8; 32] {
        self.mac(&[b"byway tunnel proof v1\0", exporter])
    }
    /// Verifies [`TicketSecret::tunnel_proof`] in constant time.
    pub fn verify_tunnel_proof(&self, exporter: &[u8; 32], proof: &[u8; 32]) -> bool {
        self.tunnel_proof(exporter).ct_eq(proof).into()
    }

    /// All parts but the label have fixed lengths, so they need no separators.
    fn mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        for part in parts {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}
/// In constant time.
impl PartialEq for TicketSecret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}
impl Eq for TicketSecret {}
impl std::fmt::Debug for TicketSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TicketSecret(..)")
    }
}

/// All a client needs to reach one agent.
#[derive(Clone, PartialEq, Eq, Debug)]
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
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let content = Content {
            node: Bytes::copy_from_slice(self.node.as_bytes()),
            relays: self.relays.iter().take(MAX_RELAYS).map(Relay::of).collect(),
            secret: self.secret.as_ref().map(|secret| secret.0.to_vec()),
            name: self
                .name
                .as_deref()
                .map(|name| text::truncated(name, MAX_NAME).to_owned()),
        };
        let mut bytes = Zeroizing::new(Vec::with_capacity(content.encoded_len() + CHECKSUM_LEN));
        content
            .encode(&mut *bytes)
            .expect("a vector grows as needed");
        let checksum = checksum(&bytes);
        bytes.extend_from_slice(&checksum);
        let body = Zeroizing::new(text::base32(&bytes));
        write!(f, "{PREFIX}{VERSION}{}", body.as_str())
    }
}
impl FromStr for Ticket {
    type Err = TicketError;
    fn from_str(s: &str) -> Result<Self, TicketError> {
        let s = s.trim();
        let rest = match s.split_at_checked(PREFIX.len()) {
            Some((prefix, rest)) if prefix.eq_ignore_ascii_case(PREFIX) => rest,
            _ => return Err(TicketError::Prefix),
        };
        let body = match rest.chars().next() {
            Some(VERSION) => &rest[1..],
            Some('0'..='9') => return Err(TicketError::Version),
            _ => return Err(TicketError::Prefix),
        };
        if body.len() > MAX_TEXT {
            return Err(TicketError::Text);
        }
        let bytes = Zeroizing::new(text::from_base32(body).ok_or(TicketError::Text)?);
        let (content, sum) = bytes
            .split_last_chunk::<CHECKSUM_LEN>()
            .ok_or(TicketError::Checksum)?;
        if checksum(content) != *sum {
            return Err(TicketError::Checksum);
        }
        Content::decode(content)
            .map_err(|_| TicketError::Malformed)?
            .into_ticket()
            .ok_or(TicketError::Malformed)
    }
}

fn checksum(content: &[u8]) -> [u8; CHECKSUM_LEN] {
    let full: [u8; 32] = Sha256::digest(content).into();
    let mut short = [0; CHECKSUM_LEN];
    short.copy_from_slice(&full[..CHECKSUM_LEN]);
    short
}

/// The protobuf of a ticket.
#[derive(Clone, PartialEq, prost::Message)]
struct Content {
    #[prost(bytes = "bytes", tag = "1")]
    node: Bytes,
    #[prost(message, repeated, tag = "2")]
    relays: Vec<Relay>,
    #[prost(bytes = "vec", optional, tag = "3")]
    secret: Option<Vec<u8>>,
    #[prost(string, optional, tag = "4")]
    name: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Relay {
    #[prost(string, tag = "1")]
    url: String,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    addrs: Vec<Bytes>,
}

impl Content {
    /// Checks every field; none if one is out of range.
    fn into_ticket(mut self) -> Option<Ticket> {
        let secret = match self.secret.take().map(Zeroizing::new) {
            Some(secret) => Some(TicketSecret(secret.as_slice().try_into().ok()?)),
            None => None,
        };
        let node = self.node.as_ref().try_into().ok()?;
        let name = self.name.take().filter(|name| !name.is_empty());
        if self.relays.len() > MAX_RELAYS || name.as_ref().is_some_and(|name| name.len() > MAX_NAME)
        {
            return None;
        }
        Some(Ticket {
            node: NodeId::from_bytes(node).ok()?,
            relays: self
                .relays
                .iter()
                .map(Relay::to_ticket)
                .collect::<Option<_>>()?,
            secret,
            name,
        })
    }
}
/// The secret is copied on its way into text; no copy outlives the call.
impl Drop for Content {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

impl Relay {
    fn of(relay: &TicketRelay) -> Self {
        Self {
            url: relay.url.to_string(),
            addrs: relay
                .addrs
                .iter()
                .take(MAX_ADDRS)
                .map(|addr| addr::encode(*addr).into())
                .collect(),
        }
    }
    fn to_ticket(&self) -> Option<TicketRelay> {
        if self.addrs.len() > MAX_ADDRS {
            return None;
        }
        Some(TicketRelay {
            url: self.url.parse().ok()?,
            addrs: self
                .addrs
                .iter()
                .map(|bytes| addr::decode(bytes))
                .collect::<Option<_>>()?,
        })
    }
}
