//! All randomness of a run, from one seed.
//!
//! Each part of the simulation (a NAT's ports, a link's losses, a node's secrets) draws from a generator of its own,
//! derived from the seed and a label. So a change in one part does not shift the numbers of all the others, and a
//! shrunk scenario stays close to the one that failed.

use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

/// A generator derived from the run's seed.
#[derive(Clone, Debug)]
pub struct Rng(ChaCha8Rng);

impl Rng {
    /// The generator of `seed` for one purpose.
    pub fn new(seed: u64, label: &str) -> Self {
        let mut key = [0u8; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(&fnv(label.as_bytes(), FNV_OFFSET).to_le_bytes());
        Self(ChaCha8Rng::from_seed(key))
    }
    /// 64 uniform bits.
    pub fn u64(&mut self) -> u64 {
        self.0.next_u64()
    }
    /// 32 bytes, to seed something else.
    pub fn seed(&mut self) -> [u8; 32] {
        let mut out = [0; 32];
        self.0.fill_bytes(&mut out);
        out
    }
    /// Fills a buffer.
    pub fn fill(&mut self, out: &mut [u8]) {
        self.0.fill_bytes(out);
    }
    /// A number in `0..n`; 0 when `n` is 0. The bias of the modulo does not matter at the sizes used here.
    pub fn below(&mut self, n: u64) -> u64 {
        self.u64().checked_rem(n).unwrap_or(0)
    }
    /// A number in `low..=high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }
    /// True with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        // 53 bits: what a float holds exactly.
        p > 0.0 && ((self.u64() >> 11) as f64) < p * (1u64 << 53) as f64
    }
    /// A duration in `0..=max`.
    pub fn up_to(&mut self, max: Duration) -> Duration {
        if max.is_zero() {
            return max;
        }
        Duration::from_nanos(self.below(max.as_nanos() as u64 + 1))
    }
    /// One of the items; the list must not be empty.
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len() as u64) as usize]
    }
}

pub(crate) const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

/// A fast hash for traces and checksums; eight bytes a step, because payloads are hashed in debug builds too.
pub(crate) fn fnv(bytes: &[u8], mut state: u64) -> u64 {
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        let mut w = [0u8; 8];
        w.copy_from_slice(word);
        state = (state ^ u64::from_le_bytes(w)).wrapping_mul(PRIME);
        // FNV works bytewise; with whole words the high bits must be folded back or they never reach the low ones.
        state ^= state >> 29;
    }
    for &byte in words.remainder() {
        state = (state ^ u64::from(byte)).wrapping_mul(PRIME);
    }
    (state ^ bytes.len() as u64).wrapping_mul(PRIME) ^ (state >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_and_label_give_the_same_numbers_and_others_do_not() {
        let draw = |seed, label| Rng::new(seed, label).seed();
        assert_eq!(draw(7, "nat"), draw(7, "nat"));
        assert_ne!(draw(7, "nat"), draw(8, "nat"));
        assert_ne!(draw(7, "nat"), draw(7, "link"));
    }

    #[test]
    fn a_chance_comes_about_as_often_as_it_says() {
        let mut rng = Rng::new(1, "chance");
        let hits = (0..10_000).filter(|_| rng.chance(0.05)).count();
        assert!((400..600).contains(&hits), "{hits} of 10,000 at 5 %");
        assert!(!(0..1000).any(|_| rng.chance(0.0)));
        assert!((0..1000).all(|_| rng.chance(1.0)));
    }

    #[test]
    fn the_hash_sees_every_byte_and_the_length() {
        let base = fnv(b"0123456789abcdef!", FNV_OFFSET);
        for i in 0..17 {
            let mut other = *b"0123456789abcdef!";
            other[i] ^= 0x80;
            assert_ne!(fnv(&other, FNV_OFFSET), base, "byte {i}");
        }
        assert_ne!(fnv(&[], FNV_OFFSET), fnv(&[0], FNV_OFFSET));
    }
}
