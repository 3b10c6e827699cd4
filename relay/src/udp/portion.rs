//! How many buffers a shard receives at once.
//!
//! Thirty-two where each is a datagram or a send of one channel: then a receive costs next to nothing beside what it brings. But the kernel may put 64
//! datagrams in each, every one of another channel than the last: two thousand sends, which is eight milliseconds in which what else comes waits, and more
//! than a whole round of shares (`shares`). So a shard receives as many buffers as it is likely to be done with soon, by what the last ones took.

use quinn_udp::BATCH_SIZE;

/// Sends that one receive may cause: about half a millisecond.
const SENDS: usize = 128;

/// How many buffers the next receive is given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Portion(usize);

impl Portion {
    pub(crate) fn new() -> Self {
        Self(BATCH_SIZE)
    }
    pub(crate) fn buffers(self) -> usize {
        self.0
    }
    /// A receive gave so many buffers, which took so many sends. It becomes less at once, and more by doubling: one cheap receive between dear ones
    /// changes little.
    pub(crate) fn took(&mut self, received: usize, sends: usize) {
        let fits = (SENDS * received) / sends.max(1);
        self.0 = fits.clamp(1, (self.0 * 2).min(BATCH_SIZE));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_of_many_sends_are_received_a_few_at_a_time() {
        let mut portion = Portion::new();
        portion.took(BATCH_SIZE, BATCH_SIZE * 64);
        assert_eq!(portion.buffers(), 2);
        portion.took(2, 128);
        assert_eq!(portion.buffers(), 2);
        portion.took(1, 1_000);
        assert_eq!(portion.buffers(), 1, "never none");
    }

    #[test]
    fn where_a_buffer_is_a_send_all_are_received() {
        let mut portion = Portion::new();
        for sends in [BATCH_SIZE, 1, 0] {
            portion.took(BATCH_SIZE, sends);
            assert_eq!(portion.buffers(), BATCH_SIZE);
        }
        portion.took(BATCH_SIZE, BATCH_SIZE * 64);
        let grows: Vec<usize> = (0..5)
            .map(|_| {
                portion.took(portion.buffers(), portion.buffers());
                portion.buffers()
            })
            .collect();
        assert_eq!(grows, [4, 8, 16, 32, 32]);
    }
}
