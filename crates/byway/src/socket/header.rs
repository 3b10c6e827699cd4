//! The relay-data header in front of every segment of a GSO batch.

use byway_wire::relay::data::HEADER_LEN;

/// Writes `contents`, cut into segments of `segment` bytes (the last may be shorter), to `out` with `header` in front
/// of each. The result is a batch of segments of `segment + HEADER_LEN`.
pub(crate) fn insert(
    out: &mut Vec<u8>,
    header: &[u8; HEADER_LEN],
    contents: &[u8],
    segment: usize,
) {
    out.clear();
    append(out, header, contents, segment);
}

/// The same behind what `out` holds.
pub(crate) fn append(
    out: &mut Vec<u8>,
    header: &[u8; HEADER_LEN],
    contents: &[u8],
    segment: usize,
) {
    out.reserve(contents.len() + contents.len().div_ceil(segment.max(1)) * HEADER_LEN);
    for payload in contents.chunks(segment.max(1)) {
        out.extend_from_slice(header);
        out.extend_from_slice(payload);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: [u8; 8] = [0x80, 1, 2, 3, 4, 5, 6, 7];

    #[test]
    fn every_segment_gets_a_header_the_short_last_one_too() {
        let contents: Vec<u8> = (0..25).collect();
        let mut out = vec![0xff; 3];
        insert(&mut out, &HEADER, &contents, 10);
        let segments: Vec<&[u8]> = out.chunks(18).collect();
        assert_eq!(segments.len(), 3);
        for (n, segment) in segments.iter().enumerate() {
            assert_eq!(segment[..8], HEADER);
            assert_eq!(segment[8..], contents[n * 10..(n * 10 + 10).min(25)]);
        }
    }

    #[test]
    fn a_single_datagram_is_one_segment() {
        let mut out = Vec::new();
        insert(&mut out, &HEADER, b"abc", 3);
        assert_eq!(out, [&HEADER[..], b"abc"].concat());
    }
}
