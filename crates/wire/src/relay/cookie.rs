//! `0x82`: rebind cookies (design section 7). Proof that a channel's node receives at a new address before data goes there.
//!
//! `0x82 | channel (7) | family (1: 4 or 6) | address (4 or 16) | port (2) | MAC (16)`. MAC = HMAC-SHA256 truncated,
//! over channel, address and minute. Stateless at the relay. 31 bytes for IPv4, 43 for IPv6.

use std::net::SocketAddr;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::ChannelId;
use crate::addr;

/// In front of what the MAC covers.
const LABEL: &[u8] = b"byway rebind v1\0";

/// Length of the truncated MAC, in bytes: 128 bits are out of reach of guessing online, and keep a cookie short.
pub const MAC_LEN: usize = 16;

/// Longest cookie, in bytes (IPv6).
pub const MAX_LEN: usize = 8 + 1 + 16 + 2 + MAC_LEN;

/// Length of a cookie for `addr`, in bytes. A relay sends none for a shorter trigger.
pub fn len(addr: SocketAddr) -> usize {
    if addr::canonical(addr).is_ipv4() {
        MAX_LEN - 12
    } else {
        MAX_LEN
    }
}

/// The relay's MAC key; drawn at random at each start.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct CookieKey([u8; 32]);

/// A cookie as the node sees it and echoes it in [`super::control::Rebind`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cookie {
    /// The channel whose data came from an unbound address.
    pub channel: ChannelId,
    /// That address.
    pub addr: SocketAddr,
    /// The relay's proof that it sent the cookie there.
    pub mac: [u8; MAC_LEN],
}

impl CookieKey {
    /// From 32 random bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
    /// Makes the cookie for `addr`; `minute` counts minutes on the relay's own clock.
    pub fn make(&self, channel: ChannelId, addr: SocketAddr, minute: u64) -> Cookie {
        let addr = addr::canonical(addr);
        Cookie {
            channel,
            addr,
            mac: self.mac(channel, addr, minute),
        }
    }
    /// True for a cookie of this minute or the one before; constant time.
    pub fn verify(&self, cookie: &Cookie, minute: u64) -> bool {
        let of = |minute| {
            self.mac(cookie.channel, cookie.addr, minute)
                .ct_eq(&cookie.mac)
        };
        let now = of(minute);
        // In minute 0 there is no minute before, and asking twice for the same one changes nothing.
        let before = of(minute.saturating_sub(1));
        (now | before).into()
    }

    fn mac(&self, channel: ChannelId, addr: SocketAddr, minute: u64) -> [u8; MAC_LEN] {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        mac.update(LABEL);
        mac.update(&channel.as_u64().to_be_bytes());
        mac.update(&addr::encode_fixed(addr));
        mac.update(&minute.to_be_bytes());
        let full: [u8; 32] = mac.finalize().into_bytes().into();
        let mut short = [0; MAC_LEN];
        short.copy_from_slice(&full[..MAC_LEN]);
        short
    }
}
impl std::fmt::Debug for CookieKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CookieKey(..)")
    }
}

impl Cookie {
    /// The datagram.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(MAX_LEN);
        out.extend_from_slice(&self.channel.as_u64().to_be_bytes());
        out[0] = 0x82;
        out.push(if addr::canonical(self.addr).is_ipv4() {
            4
        } else {
            6
        });
        addr::write(&mut out, self.addr);
        out.extend_from_slice(&self.mac);
        out
    }
    /// Reads one; none if malformed.
    pub fn decode(datagram: &[u8]) -> Option<Self> {
        let (header, rest) = datagram.split_first_chunk::<8>()?;
        let bits = u64::from_be_bytes(*header);
        let (family, rest) = rest.split_first()?;
        let (place, mac) = rest.split_last_chunk::<MAC_LEN>()?;
        let expected = match family {
            4 => 6,
            6 => 18,
            _ => return None,
        };
        if bits >> 56 != 0x82 || place.len() != expected {
            return None;
        }
        Some(Self {
            channel: ChannelId::from_u64(bits),
            addr: addr::decode(place)?,
            mac: *mac,
        })
    }
}
