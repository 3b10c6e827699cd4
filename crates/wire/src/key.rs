//! Secret keys, and what they sign (design section 4). Secrets are zeroized on drop and never shown.

use ed25519_dalek::Signer;
use hkdf::Hkdf;
use sha2::Sha256;
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

impl Purpose {
    /// What stands in front of every signed message. The zero ends it, so no label is another's beginning.
    pub const fn label(self) -> &'static [u8] {
        match self {
            Self::Record => b"byway record v1\0",
            Self::LinkProof => b"byway link proof v1\0",
        }
    }
    /// Label and message, as they are signed.
    pub(crate) fn labelled(self, message: &[u8]) -> Vec<u8> {
        [self.label(), message].concat()
    }
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

/// DER in front of an Ed25519 seed: version 0, OID 1.3.101.112, the seed as an OCTET STRING within one (RFC 8410
/// section 7). Version 0 (no public key behind it) is what every TLS library reads.
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

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
        Zeroizing::new(self.0.to_bytes())
    }
    /// The public half.
    pub fn node_id(&self) -> NodeId {
        NodeId::of(&self.0.verifying_key())
    }
    /// Signs `message` for `purpose`.
    pub fn sign(&self, purpose: Purpose, message: &[u8]) -> [u8; 64] {
        self.0.sign(&purpose.labelled(message)).to_bytes()
    }
    /// Reads PKCS#8 DER, with or without a public key behind the seed (RFC 8410 section 7). None if it is no Ed25519 key, or its
    /// public key is another's.
    pub fn from_pkcs8_der(der: &[u8]) -> Option<Self> {
        use ed25519_dalek::pkcs8::DecodePrivateKey as _;
        ed25519_dalek::SigningKey::from_pkcs8_der(der)
            .ok()
            .map(Self)
    }
    /// The key as PKCS#8 DER, which TLS libraries read.
    pub fn to_pkcs8_der(&self) -> Zeroizing<Vec<u8>> {
        let seed = self.to_bytes();
        let mut der = Zeroizing::new(Vec::with_capacity(PKCS8_PREFIX.len() + seed.len()));
        der.extend_from_slice(&PKCS8_PREFIX);
        der.extend_from_slice(seed.as_slice());
        der
    }
    /// Derives an independent 32-byte secret for `label` by HKDF-SHA256 (reset keys, connection-id keys).
    pub fn derive(&self, label: &str) -> Zeroizing<[u8; 32]> {
        let seed = self.to_bytes();
        let mut out = Zeroizing::new([0; 32]);
        Hkdf::<Sha256>::new(None, seed.as_slice())
            .expand_multi_info(&[b"byway derive v1\0", label.as_bytes()], out.as_mut())
            .expect("32 bytes are fewer than the 255 blocks HKDF can give");
        out
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
        ProbePublic(x25519_dalek::PublicKey::from(&self.0).to_bytes())
    }
}

impl ProbeSecret {
    /// The Diffie-Hellman secret shared with `public`; none if it is all zero (RFC 7748 section 6.1), as a point of
    /// small order makes it whoever asks.
    pub(crate) fn agree(&self, public: &ProbePublic) -> Option<Zeroizing<[u8; 32]>> {
        let shared = self
            .0
            .diffie_hellman(&x25519_dalek::PublicKey::from(public.0));
        shared
            .was_contributory()
            .then(|| Zeroizing::new(shared.to_bytes()))
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
impl std::fmt::Debug for ProbeSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ProbeSecret(..)")
    }
}
