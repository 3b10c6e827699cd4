//! The record: what a node says of itself, signed (design section 4).
//!
//! A fixed signed prefix `{version, node_id, instance, probe_key, epoch, seq}` plus numbered fields that relays forward
//! unparsed; at most [`MAX_LEN`] bytes. Verified over the received bytes, which are kept and passed on unchanged.

use bytes::Bytes;

use crate::id::{NodeId, NodeInstance};
use crate::key::{ProbePublic, SecretKey};
use crate::relay::RelayUrl;

/// Longest record with its signature, in bytes.
pub const MAX_LEN: usize = 1024;

/// The content of a record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Who.
    pub id: NodeInstance,
    /// The process's probe key.
    pub probe_key: ProbePublic,
    /// Rises with each start of the node's process (persisted; never falls).
    pub epoch: u64,
    /// Rises with each change within an epoch.
    pub seq: u64,
    /// Relays at which the node can be reached, best first; at most 8.
    pub relays: Vec<RelayUrl>,
}

/// A record whose signature was verified, with the bytes that were signed.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedRecord {
    record: Record,
    bytes: Bytes,
}

/// Why bytes are not a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Longer than [`MAX_LEN`], or cut off.
    #[error("record of a wrong length")]
    Length,
    /// A version from another time.
    #[error("unknown record version {0}")]
    Version(u8),
    /// The node's key is invalid or weak.
    #[error("record of an invalid key")]
    Key,
    /// The signature does not verify.
    #[error("record signature does not verify")]
    Signature,
    /// The signature is right but the content is malformed.
    #[error("malformed record")]
    Malformed,
}

impl SignedRecord {
    /// Signs a record. Relays beyond what fits [`MAX_LEN`] are left out, last first.
    pub fn sign(key: &SecretKey, record: Record) -> Self {
        let _ = (key, record);
        unimplemented!()
    }
    /// Verifies the signature over the received bytes and reads the content.
    pub fn decode(bytes: Bytes) -> Result<Self, RecordError> {
        let _ = bytes;
        unimplemented!()
    }
    /// The content.
    pub fn record(&self) -> &Record {
        &self.record
    }
    /// The signed bytes, for passing on.
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }
    /// The node it speaks of.
    pub fn node(&self) -> NodeId {
        self.record.id.node
    }
    /// True if this one was made after `other` (same node): by epoch, then seq.
    pub fn is_newer_than(&self, other: &SignedRecord) -> bool {
        (self.record.epoch, self.record.seq) > (other.record.epoch, other.record.seq)
    }
}
impl std::fmt::Debug for SignedRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.record.fmt(f)
    }
}
