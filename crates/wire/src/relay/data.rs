//! `0x80`: relay data, `0x80 | channel (7) | payload`. The payload is end-to-end encrypted already.

/// Length of the header in front of a payload, in bytes.
pub const HEADER_LEN: usize = 8;

/// Names a channel on one relay: 56 bits, chosen at random by the opener; the same on both sides.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ChannelId(u64);

impl ChannelId {
    /// Channel 0 is an echo to the relay itself.
    pub const ECHO: ChannelId = ChannelId(0);
    /// Keeps the lower 56 bits.
    pub const fn from_u64(bits: u64) -> Self {
        Self(bits & ((1 << 56) - 1))
    }
    /// The 56 bits.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
    /// The eight bytes in front of a payload.
    pub const fn header(self) -> [u8; HEADER_LEN] {
        let mut h = self.0.to_be_bytes();
        h[0] = 0x80;
        h
    }
}

/// Splits a relay-data datagram; none if it is not one (wrong first byte, or shorter than a header).
pub fn decode(datagram: &[u8]) -> Option<(ChannelId, &[u8])> {
    let (header, payload) = datagram.split_first_chunk::<HEADER_LEN>()?;
    let bits = u64::from_be_bytes(*header);
    (bits >> 56 == 0x80).then_some((ChannelId::from_u64(bits), payload))
}
