//! Datagrams that came in two parts (`0x83`): joined by [`byway_core::reassemble`], and counted where nothing comes of them.

use std::net::SocketAddr;

use byway_core::reassemble::{self, Joined};
use byway_wire::demux::{Kind, classify};
use byway_wire::fragment;

use super::Counters;

/// Parts that wait, by their peers' virtual addresses.
#[derive(Debug, Default)]
pub(crate) struct Reassembler(reassemble::Reassembler<SocketAddr>);

impl Reassembler {
    /// Takes a datagram that claims to be a part; gives the whole one if it is QUIC and the other part was here. What is
    /// no part, makes no QUIC, or had to leave is counted.
    pub(crate) fn join(
        &mut self,
        from: SocketAddr,
        datagram: &[u8],
        counters: &Counters,
    ) -> Option<Vec<u8>> {
        let Ok(part) = fragment::decode(datagram) else {
            counters.unknown_kind.add();
            return None;
        };
        match self.0.take(from, part) {
            Joined::Whole(whole) if classify(&whole) == Kind::Quic => return Some(whole),
            Joined::Whole(_) => counters.unknown_kind.add(),
            Joined::Waits => {}
            Joined::Displaced => counters.fragment_lost.add(),
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket::addr::Virtual;
    use byway_core::io::PeerId;

    #[test]
    fn a_datagram_in_two_parts_comes_out_whole_and_what_is_none_is_counted() {
        let from = Virtual::Peer(PeerId(1)).to_addr();
        let counters = Counters::default();
        let mut parts = Reassembler::default();
        let mut join = |datagram: &[u8]| parts.join(from, datagram, &counters);
        let quic: Vec<u8> = std::iter::repeat_n(0x40, 1_444).collect();
        let [one, two] = fragment::split(7, &quic);
        assert_eq!(join(&one), None);
        assert_eq!(join(&two), Some(quic));
        // Whole again it would be a part, which no path makes of a part.
        let [one, two] = fragment::split(8, &[0x83; 1_444]);
        assert_eq!((join(&one), join(&two), join(&[0x83])), (None, None, None));
        assert_eq!(counters.unknown_kind.get(), 2);
    }
}
