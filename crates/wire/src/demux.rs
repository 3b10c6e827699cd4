//! What a datagram is, by its first byte (design section 3; RFC 9443 leaves 128-191 to us because Byway switches the
//! greasing of the QUIC bit off).

use crate::classic_stun;

/// The magic cookie of STUN (RFC 8489 section 5).
const STUN_COOKIE: [u8; 4] = 0x2112_a442_u32.to_be_bytes();

/// The kinds of datagram that share one UDP port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// STUN: 0x00-0x03 with the magic cookie, or a whole classic binding request, which has none.
    Stun,
    /// QUIC: 0x40-0x7f and 0xc0-0xff.
    Quic,
    /// Relay data, 0x80.
    RelayData,
    /// A path probe, 0x81.
    Probe,
    /// A rebind cookie, 0x82.
    RebindCookie,
    /// One part of a fragmented datagram, 0x83.
    Fragment,
    /// None of these: counted and dropped.
    Unknown,
}

/// Tells what `datagram` claims to be. Costs a look at one byte (STUN: eight).
pub fn classify(datagram: &[u8]) -> Kind {
    match datagram.first() {
        Some(0x40..=0x7f | 0xc0..=0xff) => Kind::Quic,
        Some(0x80) => Kind::RelayData,
        Some(0x81) => Kind::Probe,
        Some(0x82) => Kind::RebindCookie,
        Some(0x83) => Kind::Fragment,
        Some(0x00..=0x03) if datagram.get(4..8) == Some(&STUN_COOKIE) => Kind::Stun,
        Some(0x00) if classic_stun::is_request(datagram) => Kind::Stun,
        _ => Kind::Unknown,
    }
}
