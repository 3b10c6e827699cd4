//! `0x83`: a QUIC datagram larger than its path carries, in two parts (design section 6, "Under QUIC").
//!
//! `0x83 | id (2, big endian) | part (1: 0 or 1) | payload`.

/// One part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fragment<'a> {
    /// Names the datagram among the sender's last ones.
    pub id: u16,
    /// False for the first part, true for the second.
    pub second: bool,
    /// Its bytes.
    pub payload: &'a [u8],
}

/// Not a fragment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("malformed fragment")]
pub struct FragmentError;

/// Cuts `datagram` into two parts, each with its header.
pub fn split(id: u16, datagram: &[u8]) -> [Vec<u8>; 2] {
    let _ = (id, datagram);
    unimplemented!()
}
/// Reads one part.
pub fn decode(datagram: &[u8]) -> Result<Fragment<'_>, FragmentError> {
    let _ = datagram;
    unimplemented!()
}
