//! `0x82`: rebind cookies (design section 7). Proof that a channel's node receives at a new address before data goes there.
//!
//! `0x82 | channel (7) | family (1: 4 or 6) | address (4 or 16) | port (2) | MAC (16)`. MAC = HMAC-SHA256 truncated,
//! over channel, address and minute. Stateless at the relay.

use std::net::SocketAddr;

use super::ChannelId;

/// The relay's MAC key; drawn at random at each start.
#[derive(Clone)]
pub struct CookieKey {
    _private: (),
}

/// A cookie as the node sees it and echoes it in [`super::control::Rebind`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cookie {
    /// The channel whose data came from an unbound address.
    pub channel: ChannelId,
    /// That address.
    pub addr: SocketAddr,
    /// The relay's proof that it sent the cookie there.
    pub mac: [u8; 16],
}

impl CookieKey {
    /// From 32 random bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        let _ = bytes;
        unimplemented!()
    }
    /// Makes the cookie for `addr`; `minute` counts minutes on the relay's own clock.
    pub fn make(&self, channel: ChannelId, addr: SocketAddr, minute: u64) -> Cookie {
        let _ = (channel, addr, minute);
        unimplemented!()
    }
    /// True for a cookie of this minute or the one before; constant time.
    pub fn verify(&self, cookie: &Cookie, minute: u64) -> bool {
        let _ = (cookie, minute);
        unimplemented!()
    }
}
impl Cookie {
    /// The datagram.
    pub fn encode(&self) -> Vec<u8> {
        unimplemented!()
    }
    /// Reads one; none if malformed.
    pub fn decode(datagram: &[u8]) -> Option<Self> {
        let _ = datagram;
        unimplemented!()
    }
}
