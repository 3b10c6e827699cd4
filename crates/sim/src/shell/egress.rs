//! What waits to be written to a TLS link: `byway`'s `links/egress.rs`, and `byway-relay`'s `queue.rs` for one channel.
//!
//! Bounded in bytes (the oldest goes) and in age (what waited longer than 50 ms goes when its turn comes). Under it the
//! kernel takes no more than TCP_NOTSENT_LOWAT. A writer that makes no progress for two seconds gives the link up.
//!
//! The relay has a lane for each channel, which take turns; here they share one, because a simulated node has hardly more
//! than one channel with data on a link.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::net::Network;
use crate::net::pipe::{PipeId, Side};

/// Most bytes that wait (`MAX_BYTES` and `MAX_DATA` there).
const MAX_BYTES: usize = 256 * 1024;
/// Oldest age of data when it is written (`MAX_AGE` in both).
const MAX_AGE: Duration = Duration::from_millis(50);
/// `WRITE_STALL` and `STALL` there.
const STALL: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub(crate) struct Egress {
    frames: VecDeque<(Instant, Bytes)>,
    bytes: usize,
    stalled_since: Option<Instant>,
    /// Frames dropped for size or age.
    pub(crate) dropped: u64,
}

impl Egress {
    /// Queues a data frame and writes what the pipe takes.
    pub(crate) fn push(&mut self, net: &mut Network, pipe: PipeId, side: Side, frame: Bytes) {
        self.queue(net.instant(), frame);
        self.pump(net, pipe, side);
    }
    /// The pipe has room again.
    pub(crate) fn progress(&mut self, net: &mut Network, pipe: PipeId, side: Side) {
        self.stalled_since = None;
        self.pump(net, pipe, side);
    }
    /// When a writer that waits now gives up.
    pub(crate) fn stalls_at(&self) -> Option<Instant> {
        self.stalled_since.map(|since| since + STALL)
    }

    fn queue(&mut self, now: Instant, frame: Bytes) {
        self.bytes += frame.len();
        self.frames.push_back((now, frame));
        while self.bytes > MAX_BYTES
            && let Some((_, oldest)) = self.frames.pop_front()
        {
            self.bytes -= oldest.len();
            self.dropped += 1;
        }
    }
    fn pop(&mut self, now: Instant) -> Option<Bytes> {
        while let Some((at, frame)) = self.frames.pop_front() {
            self.bytes -= frame.len();
            if now.saturating_duration_since(at) <= MAX_AGE {
                return Some(frame);
            }
            self.dropped += 1;
        }
        None
    }
    fn pump(&mut self, net: &mut Network, pipe: PipeId, side: Side) {
        let now = net.instant();
        while !self.frames.is_empty() {
            if !net.pipe_room(pipe, side) {
                self.stalled_since.get_or_insert(now);
                return;
            }
            if let Some(frame) = self.pop(now) {
                net.pipe_send(pipe, side, frame);
            }
        }
        self.stalled_since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Instant {
        #[expect(
            clippy::disallowed_methods,
            reason = "a run needs one instant to start from; nothing depends on which"
        )]
        Instant::now()
    }
    fn frame(n: u8, len: usize) -> Bytes {
        Bytes::from(vec![n; len])
    }

    #[test]
    fn beyond_its_bytes_the_oldest_goes() {
        let (mut egress, now) = (Egress::default(), now());
        for n in 0..5 {
            egress.queue(now, frame(n, MAX_BYTES / 4));
        }
        assert_eq!(egress.dropped, 1);
        assert_eq!(egress.pop(now), Some(frame(1, MAX_BYTES / 4)));
    }

    #[test]
    fn what_waited_too_long_is_dropped_when_its_turn_comes() {
        let (mut egress, now) = (Egress::default(), now());
        let ms = Duration::from_millis;
        egress.queue(now, frame(1, 9));
        egress.queue(now + ms(1), frame(2, 9));
        assert_eq!(egress.pop(now + ms(51)), Some(frame(2, 9)));
        assert_eq!((egress.dropped, egress.bytes), (1, 0));
    }
}
