//! The bytes the demo downloads: pseudo-random, so that nothing on the way can compress them, and the same for both
//! ends, so that the client knows the checksum without being told.

use sha2::{Digest, Sha256};

/// Endless bytes (SplitMix64; Steele, Lea, Flood 2014): fast enough not to be what is measured.
#[derive(Debug, Clone)]
pub(super) struct Content {
    state: u64,
}

/// Any number would do; this one is the generator's own increment.
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

impl Content {
    pub(super) fn new() -> Self {
        Self { state: SEED }
    }

    /// The next bytes. The sequence does not depend on how it is cut, as long as all but the last cut are multiples of 8.
    pub(super) fn fill(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            self.state = self.state.wrapping_add(SEED);
            let mut z = self.state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^= z >> 31;
            chunk.copy_from_slice(&z.to_le_bytes()[..chunk.len()]);
        }
    }
}

/// The checksum of the first `size` bytes.
pub(super) fn sha256(size: u64) -> [u8; 32] {
    let mut content = Content::new();
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut left = size;
    while left > 0 {
        let take = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        content.fill(&mut buffer[..take]);
        hash.update(&buffer[..take]);
        left -= take as u64;
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_the_same_however_they_are_cut() {
        let mut whole = [0; 100];
        Content::new().fill(&mut whole);
        let mut parts = [0; 100];
        let mut content = Content::new();
        let (a, rest) = parts.split_at_mut(8);
        let (b, c) = rest.split_at_mut(64);
        content.fill(a);
        content.fill(b);
        content.fill(c);
        assert_eq!(whole, parts);
        assert_eq!(sha256(100), <[u8; 32]>::from(Sha256::digest(whole)));
    }
}
