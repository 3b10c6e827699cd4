//! The record: what a node says of itself, signed (design section 4).
//!
//! A fixed signed prefix `{version, node_id, instance, probe_key, epoch, seq}` plus numbered fields that relays forward
//! unparsed; at most [`MAX_LEN`] bytes. Verified over the received bytes, which are kept and passed on unchanged.
//!
//! `version (1) | node id (32) | instance (8) | probe key (32) | epoch (8) | seq (8) | fields | signature (64)`. The
//! fields are protobuf; the signature ([`Purpose::Record`]) covers everything before it.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message as _;

use crate::id::{Instance, NodeId, NodeInstance};
use crate::key::{ProbePublic, Purpose, SecretKey};
use crate::relay::RelayUrl;

/// Longest record with its signature, in bytes.
pub const MAX_LEN: usize = 1024;
/// Most relays a record names; further ones are ignored.
pub const MAX_RELAYS: usize = 8;

/// The version written here.
const VERSION: u8 = 1;
/// Length of the fixed part in front of the fields, in bytes.
const PREFIX_LEN: usize = 1 + 32 + 8 + 32 + 8 + 8;
/// Length of the signature behind the fields, in bytes.
const SIGNATURE_LEN: usize = 64;

/// The numbered fields. Those of a newer version are skipped in reading, and kept in the bytes that are passed on.
#[derive(Clone, PartialEq, prost::Message)]
struct Fields {
    #[prost(string, repeated, tag = "1")]
    relays: Vec<String>,
}

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
    /// Signs a record. Relays beyond what fits [`MAX_LEN`] are left out, last first. A node speaks for itself only:
    /// `record.id.node` becomes the key's.
    pub fn sign(key: &SecretKey, mut record: Record) -> Self {
        record.id.node = key.node_id();
        record.relays.truncate(MAX_RELAYS);
        let mut fields = Fields {
            relays: record.relays.iter().map(RelayUrl::to_string).collect(),
        };
        while fields.encoded_len() > MAX_LEN - PREFIX_LEN - SIGNATURE_LEN {
            fields.relays.pop();
            record.relays.pop();
        }
        let mut bytes = BytesMut::with_capacity(MAX_LEN);
        bytes.put_u8(VERSION);
        bytes.put_slice(record.id.node.as_bytes());
        bytes.put_u64(record.id.instance.0);
        bytes.put_slice(&record.probe_key.0);
        bytes.put_u64(record.epoch);
        bytes.put_u64(record.seq);
        bytes.put_slice(&fields.encode_to_vec());
        let signature = key.sign(Purpose::Record, &bytes);
        bytes.put_slice(&signature);
        Self {
            record,
            bytes: bytes.freeze(),
        }
    }
    /// Verifies the signature over the received bytes and reads the content.
    pub fn decode(bytes: Bytes) -> Result<Self, RecordError> {
        if bytes.is_empty() || bytes.len() > MAX_LEN {
            return Err(RecordError::Length);
        }
        // Before the length: another version may be laid out differently.
        if bytes[0] != VERSION {
            return Err(RecordError::Version(bytes[0]));
        }
        if bytes.len() < PREFIX_LEN + SIGNATURE_LEN {
            return Err(RecordError::Length);
        }
        let (signed, signature) = bytes
            .split_last_chunk::<SIGNATURE_LEN>()
            .ok_or(RecordError::Length)?;
        let mut rest = &signed[1..];
        let node = NodeId::from_bytes(&take(&mut rest)).map_err(|_| RecordError::Key)?;
        node.verify(Purpose::Record, signed, signature)
            .map_err(|_| RecordError::Signature)?;
        let id = NodeInstance {
            node,
            instance: Instance(rest.get_u64()),
        };
        let probe_key = ProbePublic(take(&mut rest));
        let epoch = rest.get_u64();
        let seq = rest.get_u64();
        let fields = Fields::decode(rest).map_err(|_| RecordError::Malformed)?;
        let record = Record {
            id,
            probe_key,
            epoch,
            seq,
            // Best first; a form of URL that only newer nodes know does not spoil the others.
            relays: fields
                .relays
                .iter()
                .take(MAX_RELAYS)
                .filter_map(|url| url.parse().ok())
                .collect(),
        };
        Ok(Self { record, bytes })
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
/// Takes 32 bytes of the fixed part, whose length was checked.
fn take(rest: &mut &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    rest.copy_to_slice(&mut out);
    out
}
impl std::fmt::Debug for SignedRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.record.fmt(f)
    }
}
