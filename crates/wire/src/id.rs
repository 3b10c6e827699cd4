//! Who a node is: the public key, and the process that holds it (design section 4).

use std::fmt;
use std::str::FromStr;

use crate::key::{BadSignature, KeyError, Purpose};

/// An Ed25519 public key: the name of a node. Shown as 52 characters of lower-case base32, so it fits a DNS label.
///
/// Holding a `NodeId` means that the key is a valid point of no small order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId([u8; 32]);

impl NodeId {
    /// Reads a public key; refuses bytes that are no point and points of small order (weak keys).
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, KeyError> {
        let _ = bytes;
        unimplemented!()
    }
    /// The 32 bytes of the key.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
    /// Verifies (`verify_strict`) a signature made with [`crate::SecretKey::sign`] for the same purpose.
    pub fn verify(
        &self,
        purpose: Purpose,
        message: &[u8],
        signature: &[u8; 64],
    ) -> Result<(), BadSignature> {
        let _ = (purpose, message, signature);
        unimplemented!()
    }
    /// `{id}.byway.invalid`: the TLS server name by which a tunnel's client pins the node it dials.
    pub fn server_name(&self) -> String {
        unimplemented!()
    }
    /// The inverse of [`NodeId::server_name`].
    pub fn from_server_name(name: &str) -> Result<Self, KeyError> {
        let _ = name;
        unimplemented!()
    }
    /// The key as a DER SubjectPublicKeyInfo (RFC 8410), which raw public keys in TLS use (RFC 7250).
    pub fn to_spki_der(&self) -> [u8; 44] {
        unimplemented!()
    }
    /// The inverse of [`NodeId::to_spki_der`].
    pub fn from_spki_der(der: &[u8]) -> Result<Self, KeyError> {
        let _ = der;
        unimplemented!()
    }
    /// The first ten characters, for people; never for comparing.
    pub fn short(&self) -> String {
        unimplemented!()
    }
}
impl fmt::Display for NodeId {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        unimplemented!()
    }
}
impl fmt::Debug for NodeId {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        unimplemented!()
    }
}
impl FromStr for NodeId {
    type Err = KeyError;
    fn from_str(_s: &str) -> Result<Self, KeyError> {
        unimplemented!()
    }
}

/// 64 random bits drawn at each start of a process: a node is not a process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Instance(pub u64);

/// One process of one node. All state is keyed by it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeInstance {
    /// The node's key.
    pub node: NodeId,
    /// The process.
    pub instance: Instance,
}
