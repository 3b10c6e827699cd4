//! How many buffers a shard receives at once.
//!
//! Thirty-two where each is a datagram or a send of one channel: then a receive costs next to nothing beside what it brings. But the kernel may put 64
//! datagrams in each, every one of another channel than the last: two thousand sends, which is eight milliseconds in which what else comes waits, and more
//! than a whole round of shares (`shares`). So a shard receives as many buffers as it is likely to be done with soon, by what the last ones took.

use quinn_udp::BATCH_SIZE;

/// Sends that one receive may cause: about half a millisecond.
const SENDS: usize = 128;
/// What is dropped on sight costs this part of a send. Whoever sends junk must not have everybody's datagrams received a few at a time.
const DROPS_OF_A_SEND: usize = 16;

/// What came of a receive.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Work {
    sends: usize,
    drops: usize,
}

impl Work {
    /// One more was sent on, or dropped.
    pub(crate) fn done(&mut self, sent: bool) {
        if sent {
            self.sends += 1;
        } else {
            self.drops += 1;
        }
    }
    fn sends(self) -> usize {
        self.sends + self.drops / DROPS_OF_A_SEND
    }
}

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
    /// A receive gave so many buffers, and took so much work. It becomes less at once, and more by doubling: one cheap receive between dear ones
    /// changes little.
    pub(crate) fn took(&mut self, received: usize, work: Work) {
        let fits = (SENDS * received) / work.sends().max(1);
        self.0 = fits.clamp(1, (self.0 * 2).min(BATCH_SIZE));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sends(sends: usize) -> Work {
        Work { sends, drops: 0 }
    }

    #[test]
    fn buffers_of_many_sends_are_received_a_few_at_a_time() {
        let mut portion = Portion::new();
        portion.took(BATCH_SIZE, sends(BATCH_SIZE * 64));
        assert_eq!(portion.buffers(), 2);
        portion.took(2, sends(128));
        assert_eq!(portion.buffers(), 2);
        portion.took(1, sends(1_000));
        assert_eq!(portion.buffers(), 1, "never none");
    }

    #[test]
    fn where_a_buffer_is_a_send_all_are_received() {
        let mut portion = Portion::new();
        for n in [BATCH_SIZE, 1, 0] {
            portion.took(BATCH_SIZE, sends(n));
            assert_eq!(portion.buffers(), BATCH_SIZE);
        }
        portion.took(BATCH_SIZE, sends(BATCH_SIZE * 64));
        let grows: Vec<usize> = (0..5)
            .map(|_| {
                portion.took(portion.buffers(), sends(portion.buffers()));
                portion.buffers()
            })
            .collect();
        assert_eq!(grows, [4, 8, 16, 32, 32]);
    }

    #[test]
    fn junk_is_received_as_it_comes() {
        let mut portion = Portion::new();
        let mut work = Work::default();
        (0..BATCH_SIZE * 64).for_each(|_| work.done(false));
        portion.took(BATCH_SIZE, work);
        assert_eq!(portion.buffers(), BATCH_SIZE);
    }
}
