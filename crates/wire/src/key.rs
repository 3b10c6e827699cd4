//! Secret keys, and what they sign (design section 4). Secrets are zeroized on drop and never shown.

use zeroize::Zeroizing;

use crate::id::NodeId;

/// What a signature is for. Each begins with its own `byway <purpose> v1\0`, so that none can pass for another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// A node's [`crate::Record`].
    Record,
    /// The proof of key possession on a TLS link ([`crate::relay::control::Prove`]).
    LinkProof,
}

/// The bytes are not a usable public key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Not a point of the curve.
    #[error("not an Ed25519 public key")]
    Invalid,
    /// A point of small order, for which anyone can forge signatures.
    #[error("a weak Ed25519 public key (small order)")]
    Weak,
    /// The text is not 52 characters of base32.
    #[error("a node id is 52 characters of base32 (a-z, 2-7)")]
    Text,
}

/// The signature does not belong to this key, purpose and message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("signature does not verify")]
pub struct BadSignature;

/// A node's Ed25519 signing key.
#[derive(Clone)]
pub struct SecretKey(ed25519_dalek::SigningKey);

impl SecretKey {
    /// Makes the key from 32 secret random bytes.
    pub fn from_bytes(seed: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }
    /// The 32 secret bytes, for storing.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        unimplemented!()
    }
    /// The public half.
    pub fn node_id(&self) -> NodeId {
        unimplemented!()
    }
    /// Signs `message` for `purpose`.
    pub fn sign(&self, purpose: Purpose, message: &[u8]) -> [u8; 64] {
        let _ = (purpose, message);
        unimplemented!()
    }
    /// The key as PKCS#8 DER, which TLS libraries read.
    pub fn to_pkcs8_der(&self) -> Zeroizing<Vec<u8>> {
        unimplemented!()
    }
    /// Derives an independent 32-byte secret for `label` by HKDF-SHA256 (reset keys, connection-id keys).
    pub fn derive(&self, label: &str) -> Zeroizing<[u8; 32]> {
        let _ = label;
        unimplemented!()
    }
}

/// A process's X25519 secret for probes and signals; never converted from the Ed25519 key.
#[derive(Clone)]
pub struct ProbeSecret(x25519_dalek::StaticSecret);

impl ProbeSecret {
    /// Makes the key from 32 secret random bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(x25519_dalek::StaticSecret::from(bytes))
    }
    /// The public half, published in the node's record.
    pub fn public(&self) -> ProbePublic {
        unimplemented!()
    }
}

/// The public half of a [`ProbeSecret`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ProbePublic(pub [u8; 32]);

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretKey(..)")
    }
}
