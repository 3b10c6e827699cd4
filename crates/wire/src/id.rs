//! Who a node is: the public key, and the process that holds it (design section 4).

use std::fmt;
use std::str::FromStr;

use crate::key::{BadSignature, KeyError, Purpose};
use crate::text;

/// What stands behind a node id in a TLS server name: `invalid` never resolves (RFC 6761 section 6.4).
const SERVER_NAME_SUFFIX: &str = ".byway.invalid";

/// DER in front of an Ed25519 public key: SEQUENCE { SEQUENCE { OID 1.3.101.112 }, BIT STRING } (RFC 8410 section 4).
const SPKI_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// An Ed25519 public key: the name of a node. Shown as 52 characters of lower-case base32, so it fits a DNS label.
///
/// Holding a `NodeId` means that the key is a valid point of no small order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId([u8; 32]);

impl NodeId {
    /// Reads a public key; refuses bytes that are no point and points of small order (weak keys).
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, KeyError> {
        let key = ed25519_dalek::VerifyingKey::from_bytes(bytes).map_err(|_| KeyError::Invalid)?;
        if key.is_weak() {
            return Err(KeyError::Weak);
        }
        // Some points have a second encoding (y >= p). One node must have one name, so only the canonical one counts.
        if key.to_edwards().compress().as_bytes() != bytes {
            return Err(KeyError::Invalid);
        }
        Ok(Self(*bytes))
    }
    /// The name of a key that is known to be good, because a secret key made it.
    pub(crate) fn of(key: &ed25519_dalek::VerifyingKey) -> Self {
        Self(key.to_bytes())
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
        let key = ed25519_dalek::VerifyingKey::from_bytes(&self.0).map_err(|_| BadSignature)?;
        let signature = ed25519_dalek::Signature::from_bytes(signature);
        key.verify_strict(&purpose.labelled(message), &signature)
            .map_err(|_| BadSignature)
    }
    /// `{id}.byway.invalid`: the TLS server name by which a tunnel's client pins the node it dials.
    pub fn server_name(&self) -> String {
        format!("{self}{SERVER_NAME_SUFFIX}")
    }
    /// The inverse of [`NodeId::server_name`].
    pub fn from_server_name(name: &str) -> Result<Self, KeyError> {
        // DNS names compare without case, and a TLS library may hand one over as it came.
        let label = name
            .split_once('.')
            .filter(|(label, _)| name[label.len()..].eq_ignore_ascii_case(SERVER_NAME_SUFFIX))
            .ok_or(KeyError::Text)?
            .0;
        label.parse()
    }
    /// The key as a DER SubjectPublicKeyInfo (RFC 8410), which raw public keys in TLS use (RFC 7250).
    pub fn to_spki_der(&self) -> [u8; 44] {
        let mut der = [0; 44];
        der[..12].copy_from_slice(&SPKI_PREFIX);
        der[12..].copy_from_slice(&self.0);
        der
    }
    /// The inverse of [`NodeId::to_spki_der`].
    pub fn from_spki_der(der: &[u8]) -> Result<Self, KeyError> {
        let key = der.strip_prefix(&SPKI_PREFIX).ok_or(KeyError::Invalid)?;
        Self::from_bytes(key.try_into().map_err(|_| KeyError::Invalid)?)
    }
    /// The first ten characters, for people; never for comparing.
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(10);
        text
    }
}
impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text::base32(&self.0))
    }
}
impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({})", self.short())
    }
}
impl FromStr for NodeId {
    type Err = KeyError;
    fn from_str(s: &str) -> Result<Self, KeyError> {
        Self::from_bytes(&text::key_from_base32(s).ok_or(KeyError::Text)?)
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
