//! How long one link is read before others have their turn.
//!
//! A runtime lets a task go on for so many reads of its socket. What was read ahead takes none: of 64 KiB each, so many reads would be half a second in
//! which nobody else on this thread is heard.

/// What is handled in one turn, in bytes: what is read at once. It takes some half a millisecond, be it in a few frames or in many small ones.
const TURN: usize = 64 * 1024;
/// What a frame costs beside its bytes, in bytes: a send to somebody on a UDP link, a few microseconds, takes as long as decrypting as many.
const FRAME: usize = 512;

/// What a link has handled in this turn.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    handled: usize,
}

impl Turn {
    /// A frame is about to be handled. True if others come first.
    pub(crate) fn is_over(&mut self, frame: usize) -> bool {
        self.handled += frame + FRAME;
        if self.handled <= TURN {
            return false;
        }
        self.handled = 0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_over_after_a_few_large_frames_or_many_small_ones() {
        let until_over = |frame: usize| {
            let mut turn = Turn::default();
            let first = (1..).find(|_| turn.is_over(frame)).unwrap();
            let second = (1..).find(|_| turn.is_over(frame)).unwrap();
            assert_eq!(first, second, "each turn is as long");
            first
        };
        assert_eq!(until_over(16 * 1024), 4);
        assert_eq!(until_over(0), 129);
        assert_eq!(until_over(TURN), 1);
    }
}
