//! Cuts a GRO buffer into runs.
//!
//! The kernel merges datagrams by address and size only, so one buffer may hold QUIC, relay data of several channels
//! and probes, each `stride` bytes long and the last one possibly shorter. The header is read at every stride; what
//! follows each other and goes to the same place becomes one run, which is one GSO send later.

use byway_wire::ChannelId;
use byway_wire::demux::{self, Kind};
use byway_wire::relay::data;

/// What a run is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum What {
    /// Relay data of one channel, headers included.
    Relay(ChannelId),
    /// Any other kind; runs of these are only cut to be walked through.
    Other(Kind),
}

/// Datagrams that follow each other and belong together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Run<'a> {
    pub(crate) what: What,
    pub(crate) bytes: &'a [u8],
    /// Length of each datagram but the last; not above `bytes.len()`.
    pub(crate) segment: usize,
}

impl<'a> Run<'a> {
    pub(crate) fn datagrams(&self) -> impl Iterator<Item = &'a [u8]> {
        self.bytes.chunks(self.segment)
    }
    pub(crate) fn count(&self) -> u64 {
        self.bytes.len().div_ceil(self.segment) as u64
    }
    /// The last datagram, if it is shorter than the others.
    pub(crate) fn shorter_last(&self) -> Option<Self> {
        let len = self.bytes.len() % self.segment;
        (len > 0).then(|| Self {
            bytes: &self.bytes[self.bytes.len() - len..],
            segment: len,
            ..*self
        })
    }
    /// Its first `count` datagrams; none if that is none.
    pub(crate) fn first(&self, count: u64) -> Option<Self> {
        let len = self
            .segment
            .saturating_mul(count as usize)
            .min(self.bytes.len());
        (len > 0).then(|| Self {
            bytes: &self.bytes[..len],
            segment: self.segment.min(len),
            ..*self
        })
    }
}

/// The runs of a received buffer.
pub(crate) fn runs(buffer: &[u8], stride: usize) -> Runs<'_> {
    Runs {
        rest: buffer,
        // A stride of zero would never come to an end.
        stride: if stride == 0 {
            buffer.len().max(1)
        } else {
            stride
        },
    }
}

#[derive(Debug)]
pub(crate) struct Runs<'a> {
    rest: &'a [u8],
    stride: usize,
}

impl<'a> Iterator for Runs<'a> {
    type Item = Run<'a>;

    fn next(&mut self) -> Option<Run<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let mut datagrams = self.rest.chunks(self.stride);
        let first = datagrams.next()?;
        let what = what(first);
        let mut len = first.len();
        for datagram in datagrams {
            if self::what(datagram) != what {
                break;
            }
            len += datagram.len();
        }
        let (bytes, rest) = self.rest.split_at(len);
        self.rest = rest;
        Some(Run {
            what,
            bytes,
            segment: self.stride.min(len),
        })
    }
}

fn what(datagram: &[u8]) -> What {
    match data::decode(datagram) {
        Some((channel, _)) => What::Relay(channel),
        None => match demux::classify(datagram) {
            // The first byte of relay data, and then too short for a header.
            Kind::RelayData => What::Other(Kind::Unknown),
            kind => What::Other(kind),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relay(channel: u64, len: usize) -> Vec<u8> {
        let mut datagram = ChannelId::from_u64(channel).header().to_vec();
        datagram.resize(len, 0xaa);
        datagram
    }
    fn quic(len: usize) -> Vec<u8> {
        vec![0x40; len]
    }
    fn cut(datagrams: &[Vec<u8>], stride: usize) -> Vec<(What, usize, usize)> {
        let buffer = datagrams.concat();
        let runs: Vec<_> = runs(&buffer, stride).collect();
        assert_eq!(
            runs.iter().map(|r| r.bytes).collect::<Vec<_>>().concat(),
            buffer
        );
        runs.iter()
            .map(|r| (r.what, r.bytes.len(), r.segment))
            .collect()
    }
    fn of(channel: u64) -> What {
        What::Relay(ChannelId::from_u64(channel))
    }

    #[test]
    fn equal_channels_become_one_run_with_a_short_tail() {
        let buffer = [relay(5, 100), relay(5, 100), relay(5, 40)];
        assert_eq!(cut(&buffer, 100), [(of(5), 240, 100)]);
    }

    #[test]
    fn a_mixed_buffer_is_cut_where_it_changes() {
        let buffer = [
            relay(5, 100),
            relay(5, 100),
            quic(100),
            relay(6, 100),
            relay(5, 100),
            vec![0x81; 60],
        ];
        let other = |kind| What::Other(kind);
        assert_eq!(
            cut(&buffer, 100),
            [
                (of(5), 200, 100),
                (other(Kind::Quic), 100, 100),
                (of(6), 100, 100),
                (of(5), 100, 100),
                (other(Kind::Probe), 60, 60),
            ]
        );
    }

    #[test]
    fn of_a_run_the_first_datagrams_are_a_run() {
        let buffer = [relay(5, 100), relay(5, 100), relay(5, 40)].concat();
        let run = runs(&buffer, 100).next().unwrap();
        let first = |n| run.first(n).map(|r| (r.bytes.len(), r.segment, r.count()));
        assert_eq!(first(0), None);
        assert_eq!(first(1), Some((100, 100, 1)));
        assert_eq!(first(2), Some((200, 100, 2)));
        assert_eq!(first(3), Some((240, 100, 3)));
        assert_eq!(first(u64::MAX), Some((240, 100, 3)));
    }

    #[test]
    fn one_datagram_is_one_run() {
        assert_eq!(cut(&[relay(7, 60)], 60), [(of(7), 60, 60)]);
        assert_eq!(cut(&[relay(7, 60)], 1_500), [(of(7), 60, 60)]);
    }

    #[test]
    fn a_stride_of_zero_and_an_empty_buffer_end() {
        assert_eq!(cut(&[relay(7, 60)], 0), [(of(7), 60, 60)]);
        assert!(cut(&[], 0).is_empty());
        assert!(cut(&[], 100).is_empty());
    }

    #[test]
    fn a_relay_datagram_without_a_whole_header_is_unknown() {
        assert_eq!(
            cut(&[vec![0x80; 7]], 7),
            [(What::Other(Kind::Unknown), 7, 7)]
        );
    }
}
