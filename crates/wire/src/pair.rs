//! The symmetric keys of two node instances, and the replay window (design section 4).
//!
//! Key = HKDF-SHA256(X25519(a, b), info = label, version, both NodeIds, both instances, direction). One key for each
//! direction; XChaCha20-Poly1305 with random nonces under it, for probes and signals alike.
//!
//! The direction is the order in which the two instances stand in `info`: the sender's first. A message that is
//! reflected to its sender therefore does not open.

use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{KeyInit, Tag, XChaCha20Poly1305, XNonce};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::id::NodeInstance;
use crate::key::{ProbePublic, ProbeSecret};

/// In front of both instances in HKDF's `info`; the version is part of it.
const LABEL: &[u8] = b"byway pair v1\0";

/// Length of a random nonce, in bytes: long enough to be drawn at random for ever.
pub(crate) const NONCE_LEN: usize = 24;
/// Length of Poly1305's tag, in bytes.
pub(crate) const TAG_LEN: usize = 16;

/// The peer's probe key gives an all-zero shared secret, or the peer is this very instance (both directions would share
/// a key): refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the peer's probe key is weak (all-zero shared secret)")]
pub struct WeakProbeKey;

/// The two keys between this instance and one peer instance.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct PairKeys {
    seal: [u8; 32],
    open: [u8; 32],
}

impl PairKeys {
    /// Derives both directions' keys. `own` and `peer` say which side this is.
    pub fn derive(
        secret: &ProbeSecret,
        own: NodeInstance,
        public: &ProbePublic,
        peer: NodeInstance,
    ) -> Result<Self, WeakProbeKey> {
        if own == peer {
            return Err(WeakProbeKey);
        }
        let shared = secret.agree(public).ok_or(WeakProbeKey)?;
        let hkdf = Hkdf::<Sha256>::new(None, shared.as_slice());
        let key = |sender: NodeInstance, receiver: NodeInstance| {
            let mut key = [0; 32];
            let info: [&[u8]; 5] = [
                LABEL,
                sender.node.as_bytes(),
                &sender.instance.0.to_be_bytes(),
                receiver.node.as_bytes(),
                &receiver.instance.0.to_be_bytes(),
            ];
            hkdf.expand_multi_info(&info, &mut key)
                .expect("32 bytes are fewer than the 255 blocks HKDF can give");
            key
        };
        Ok(Self {
            seal: key(own, peer),
            open: key(peer, own),
        })
    }

    /// Encrypts everything in `message` from `header` on, and appends the tag.
    pub(crate) fn seal(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        message: &mut Vec<u8>,
        header: usize,
    ) {
        let tag = XChaCha20Poly1305::new((&self.seal).into())
            .encrypt_inout_detached(&XNonce::from(*nonce), aad, (&mut message[header..]).into())
            .expect("messages are far shorter than ChaCha20's 256 GiB");
        message.extend_from_slice(&tag);
    }

    /// Decrypts `sealed` (ciphertext and tag); none if it does not authenticate.
    pub(crate) fn open(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        sealed: &[u8],
    ) -> Option<Vec<u8>> {
        let (body, tag) = sealed.split_last_chunk::<TAG_LEN>()?;
        let mut body = body.to_vec();
        XChaCha20Poly1305::new((&self.open).into())
            .decrypt_inout_detached(
                &XNonce::from(*nonce),
                aad,
                body.as_mut_slice().into(),
                &Tag::from(*tag),
            )
            .ok()?;
        Some(body)
    }
}
impl std::fmt::Debug for PairKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PairKeys(..)")
    }
}

/// How many counters below the highest one can still be told apart: more than the probes and signals that can be in
/// flight between two nodes at once, even while one sprays.
pub const REPLAY_WINDOW: u64 = 2048;

/// One word more than the window holds, so that the word being filled never overlaps the one being forgotten.
const WORDS: usize = REPLAY_WINDOW as usize / 64 + 1;

/// Remembers which of the last 2,048 counters of one peer instance were seen (RFC 6479 style bitmap).
#[derive(Clone, Debug)]
pub struct ReplayWindow {
    /// The highest counter accepted.
    last: u64,
    /// A ring of words; the word of a counter is `counter / 64` modulo the ring's length.
    seen: [u64; WORDS],
}

impl ReplayWindow {
    /// An empty window: any counter is fresh.
    pub fn new() -> Self {
        Self {
            last: 0,
            seen: [0; WORDS],
        }
    }
    /// True exactly once per counter; false for a counter seen before or older than the window. Call only after the
    /// message authenticated.
    pub fn accept(&mut self, counter: u64) -> bool {
        if counter > self.last {
            // Words between the old and the new highest counter begin empty; a whole turn clears each once.
            let turns = (counter / 64 - self.last / 64).min(WORDS as u64);
            for step in 0..turns {
                self.seen[Self::word(counter / 64 - step)] = 0;
            }
            self.last = counter;
        } else if self.last - counter >= REPLAY_WINDOW {
            return false;
        }
        let word = &mut self.seen[Self::word(counter / 64)];
        let bit = 1u64 << (counter % 64);
        let fresh = *word & bit == 0;
        *word |= bit;
        fresh
    }

    fn word(index: u64) -> usize {
        (index % WORDS as u64) as usize
    }
}
impl Default for ReplayWindow {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
