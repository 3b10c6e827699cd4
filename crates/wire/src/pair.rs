//! The symmetric keys of two node instances, and the replay window (design section 4).
//!
//! Key = HKDF-SHA256(X25519(a, b), info = label, version, both NodeIds, both instances, direction). One key for each
//! direction; XChaCha20-Poly1305 with random nonces under it, for probes and signals alike.

use crate::id::NodeInstance;
use crate::key::{ProbePublic, ProbeSecret};

/// The peer's probe key gives an all-zero shared secret: refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the peer's probe key is weak (all-zero shared secret)")]
pub struct WeakProbeKey;

/// The two keys between this instance and one peer instance.
#[derive(Clone)]
pub struct PairKeys {
    _private: (),
}

impl PairKeys {
    /// Derives both directions' keys. `own` and `peer` say which side this is.
    pub fn derive(
        secret: &ProbeSecret,
        own: NodeInstance,
        public: &ProbePublic,
        peer: NodeInstance,
    ) -> Result<Self, WeakProbeKey> {
        let _ = (secret, own, public, peer);
        unimplemented!()
    }
}

/// Remembers which of the last 2,048 counters of one peer instance were seen (RFC 6479 style bitmap).
#[derive(Clone, Debug)]
pub struct ReplayWindow {
    _private: (),
}

impl ReplayWindow {
    /// An empty window: any counter is fresh.
    pub fn new() -> Self {
        unimplemented!()
    }
    /// True exactly once per counter; false for a counter seen before or older than the window. Call only after the
    /// message authenticated.
    pub fn accept(&mut self, counter: u64) -> bool {
        let _ = counter;
        unimplemented!()
    }
}
impl Default for ReplayWindow {
    fn default() -> Self {
        Self::new()
    }
}
