//! `0x83`: a QUIC datagram larger than its path carries, in two parts (design section 6, "Under QUIC").
//!
//! `0x83 | id (2, big endian) | part (1: 0 or 1) | payload`. The parts are halves, so that either fits where the whole
//! missed by anything up to a factor of two.

/// First byte of a fragment.
const FIRST_BYTE: u8 = 0x83;
/// Length of the header in front of a part, in bytes.
pub const HEADER_LEN: usize = 4;

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

/// Cuts `datagram` (2 bytes or more) into two parts, each with its header.
pub fn split(id: u16, datagram: &[u8]) -> [Vec<u8>; 2] {
    let (first, second) = datagram.split_at(datagram.len().div_ceil(2));
    let [high, low] = id.to_be_bytes();
    [(0, first), (1, second)].map(|(part, payload)| {
        let mut out = Vec::with_capacity(HEADER_LEN + payload.len());
        out.extend_from_slice(&[FIRST_BYTE, high, low, part]);
        out.extend_from_slice(payload);
        out
    })
}
/// Reads one part.
pub fn decode(datagram: &[u8]) -> Result<Fragment<'_>, FragmentError> {
    match datagram {
        [FIRST_BYTE, high, low, part @ (0 | 1), payload @ ..] if !payload.is_empty() => {
            Ok(Fragment {
                id: u16::from_be_bytes([*high, *low]),
                second: *part == 1,
                payload,
            })
        }
        _ => Err(FragmentError),
    }
}
