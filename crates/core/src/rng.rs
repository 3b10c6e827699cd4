//! The node's only source of randomness: one generator from one seed, so that a failing run replays.

use std::time::Duration;

use byway_wire::ChannelId;
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore as _, SeedableRng as _};

/// A cryptographically strong generator: it makes instances, keys, nonces, transaction ids and channel ids.
#[derive(Debug)]
pub(crate) struct Rng(ChaCha20Rng);

impl Rng {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self(ChaCha20Rng::from_seed(seed))
    }
    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill_bytes(&mut bytes);
        bytes
    }
    pub(crate) fn u64(&mut self) -> u64 {
        self.0.next_u64()
    }
    /// A channel id; never the echo channel.
    pub(crate) fn channel(&mut self) -> ChannelId {
        loop {
            let channel = ChannelId::from_u64(self.u64());
            if channel != ChannelId::ECHO {
                return channel;
            }
        }
    }
    /// A duration from `low` to `high`, so that many nodes that lost one relay do not return in one instant.
    pub(crate) fn between(&mut self, low: Duration, high: Duration) -> Duration {
        let spread = high
            .saturating_sub(low)
            .as_micros()
            .min(u128::from(u64::MAX)) as u64;
        low + Duration::from_micros(self.u64() % (spread + 1))
    }
}
