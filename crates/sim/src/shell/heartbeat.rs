//! How both ends of a TLS link keep it and find out that it is dead: `PING` and `SILENCE` in `byway`'s `links/tls.rs` and
//! in `byway-relay`'s `tls/link.rs`.

use std::time::{Duration, Instant};

use bytes::Bytes;

/// Between two pings.
const PING: Duration = Duration::from_secs(20);
/// Nothing at all came for two pings and a margin.
const SILENCE: Duration = Duration::from_secs(50);
/// WebSocket's own ping and pong (RFC 6455 section 5.5), which no frame of Byway's begins like.
const PING_FRAME: &[u8] = &[0x89, 0];
const PONG_FRAME: &[u8] = &[0x8a, 0];

#[derive(Debug)]
pub(crate) struct Heartbeat {
    next_ping: Instant,
    heard: Instant,
}

/// What a message was to the heartbeat.
#[derive(Debug)]
pub(crate) enum Beat {
    /// Answer it with this.
    Ping(Bytes),
    Pong,
    /// Somebody else's.
    Other,
}

impl Heartbeat {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            next_ping: now + PING,
            heard: now,
        }
    }
    /// A message came.
    pub(crate) fn hear(&mut self, now: Instant, message: &[u8]) -> Beat {
        self.heard = now;
        match message {
            PING_FRAME => Beat::Ping(Bytes::from_static(PONG_FRAME)),
            PONG_FRAME => Beat::Pong,
            _ => Beat::Other,
        }
    }
    /// The ping to send now, if it is time.
    pub(crate) fn ping(&mut self, now: Instant) -> Option<Bytes> {
        (self.next_ping <= now).then(|| {
            self.next_ping = now + PING;
            Bytes::from_static(PING_FRAME)
        })
    }
    /// True if nothing came for too long.
    pub(crate) fn is_silent(&self, now: Instant) -> bool {
        self.heard + SILENCE <= now
    }
    pub(crate) fn poll_timeout(&self) -> Instant {
        self.next_ping.min(self.heard + SILENCE)
    }
}
