//! The echo test: does plain relay data pass where QUIC does?

use std::time::{Duration, Instant};

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::cx::Cx;

/// Payload of a full-size echo: with the header of 8 bytes it makes a datagram of 1,452 bytes, the largest a tunnel
/// sends through a relay by default.
const FULL: usize = 1_444;
/// Payload of the fallback: a network too narrow for a full datagram may still carry QUIC's minimum of 1,200.
const SMALL: usize = 1_200;
/// Three attempts, so that loss is not taken for a firewall.
const ATTEMPTS: u8 = 3;
/// Between attempts; the verdict falls four gaps, one second, after the first.
const GAP: Duration = Duration::from_millis(250);

/// One test of one link.
#[derive(Debug)]
pub(super) struct EchoTest {
    token: [u8; 16],
    sent: u8,
    next: Instant,
}

impl EchoTest {
    pub(super) fn new(cx: &mut Cx<'_>) -> Self {
        Self {
            token: cx.rng.bytes(),
            sent: 0,
            next: cx.now,
        }
    }
    /// When to send again, or to give up.
    pub(super) fn next(&self) -> Instant {
        self.next
    }
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.sent >= ATTEMPTS && now >= self.next
    }
    /// The payloads to send now: the first attempt is full-size, later ones try the small size beside it.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Bytes> {
        if now < self.next || self.sent >= ATTEMPTS {
            return Vec::new();
        }
        self.sent += 1;
        self.next = now + if self.sent < ATTEMPTS { GAP } else { 2 * GAP };
        let sizes: &[usize] = if self.sent == 1 {
            &[FULL]
        } else {
            &[FULL, SMALL]
        };
        sizes.iter().map(|&size| self.payload(size)).collect()
    }
    /// True for a whole echo of this test.
    pub(super) fn matches(&self, payload: &[u8]) -> bool {
        (payload.len() == FULL || payload.len() == SMALL) && payload.starts_with(&self.token)
    }
    fn payload(&self, size: usize) -> Bytes {
        let mut payload = BytesMut::with_capacity(size);
        payload.extend_from_slice(&self.token);
        payload.put_bytes(0, size - self.token.len());
        payload.freeze()
    }
}
