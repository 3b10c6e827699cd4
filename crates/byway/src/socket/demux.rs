//! What came in: sorts the datagrams of one received buffer.
//!
//! The kernel merges datagrams by address and size alone, so one buffer may mix channels, probes and QUIC: **every
//! segment's** first byte decides. quinn takes a buffer as one run of datagrams of one size from one address. So:
//!
//! - The datagrams of the first connection found stay in the buffer and are moved together in place (a relay header
//!   costs one `copy_within` for each; plain QUIC from one peer, the usual case, costs no copy at all).
//! - What does not fit that run - another peer's, or behind a shorter one - is copied out and follows in a later buffer.
//! - STUN, probes and rebind cookies go to the driver.
//!
//! - QUIC from an address with several owners ([`Owners`]) is copied for each of them.
//!
//! QUIC from an address that no path knows is dropped: only addresses that the node authenticated are mapped.

use std::net::SocketAddr;

use bytes::Bytes;
use byway_core::io::{SocketId, Way};
use byway_wire::demux::{Kind, classify};
use byway_wire::relay::data::{self, HEADER_LEN};
use byway_wire::{ChannelId, canonical};
use quinn::udp::RecvMeta;

use super::addr::Virtual;
use super::counters::Counters;
use super::reassemble::Reassembler;
use super::tables::{ChannelSource, Owners, Tables};

/// A datagram that found no place in its buffer.
#[derive(Debug)]
pub(super) struct Spilled {
    pub(super) from: SocketAddr,
    pub(super) data: Bytes,
    pub(super) segment: usize,
    pub(super) ecn: Option<quinn::udp::EcnCodepoint>,
}

/// Everything sorting needs besides the buffer.
pub(super) struct Demux<'a> {
    pub(super) tables: &'a Tables,
    pub(super) counters: &'a Counters,
    pub(super) parts: &'a mut Reassembler,
    pub(super) spill: &'a mut dyn FnMut(Spilled),
    pub(super) to_driver: &'a dyn Fn(Way, &RecvMeta, &[u8]),
}

/// The run that stays in the buffer.
#[derive(Default)]
struct Run {
    from: Option<SocketAddr>,
    stride: usize,
    len: usize,
}

impl Run {
    /// True if a datagram of this length may follow.
    fn takes(&self, from: SocketAddr, len: usize) -> bool {
        match self.from {
            None => true,
            Some(own) => own == from && len <= self.stride && self.len.is_multiple_of(self.stride),
        }
    }
}

impl Demux<'_> {
    /// Sorts the buffer that `socket` received. Afterwards `meta` describes what is left in it for quinn: maybe nothing.
    pub(super) fn sort(&mut self, socket: SocketId, buf: &mut [u8], meta: &mut RecvMeta) {
        let source = (socket, canonical(meta.addr));
        let received = meta.len.min(buf.len());
        // quinn loops for ever on a stride of 0.
        let stride = meta.stride.clamp(1, received.max(1));
        let mut run = Run::default();
        // Runs of one source and one channel are the rule: look each up once.
        let mut direct: Option<Option<Owners>> = None;
        let mut channel: Option<(ChannelId, Option<SocketAddr>)> = None;

        let mut start = 0;
        while start < received {
            let end = (start + stride).min(received);
            let segment = &buf[start..end];
            match classify(segment) {
                Kind::Quic => {
                    let owners = *direct.get_or_insert_with(|| self.direct(source));
                    let mut owners = owners.iter().flat_map(Owners::iter);
                    match owners.next() {
                        Some(first) => {
                            for other in owners {
                                self.copy(segment, other.to_addr(), meta);
                            }
                            self.keep(buf, start..end, first.to_addr(), &mut run, meta);
                        }
                        None => self.counters.unknown_source.add(),
                    }
                }
                Kind::RelayData => {
                    if let Some((id, payload)) = data::decode(segment) {
                        let from = match channel {
                            Some((known, from)) if known == id => from,
                            _ => {
                                let from = self.channel(source, id);
                                channel = Some((id, from));
                                from
                            }
                        };
                        match (classify(payload), from) {
                            (Kind::Quic, Some(from)) => {
                                self.keep(buf, start + HEADER_LEN..end, from, &mut run, meta);
                            }
                            (Kind::Fragment, Some(from)) => self.part(from, payload, meta),
                            (Kind::Probe, _) => self.channel_control(source, id, meta, payload),
                            _ if id == ChannelId::ECHO => {
                                self.channel_control(source, id, meta, payload);
                            }
                            (Kind::Quic | Kind::Fragment, None) => {
                                self.counters.unknown_channel.add();
                            }
                            _ => self.counters.unknown_kind.add(),
                        }
                    } else {
                        self.counters.unknown_kind.add();
                    }
                }
                Kind::Fragment => match *direct.get_or_insert_with(|| self.direct(source)) {
                    Some(owners) => {
                        for owner in owners.iter() {
                            self.part(owner.to_addr(), segment, meta);
                        }
                    }
                    None => self.counters.unknown_source.add(),
                },
                Kind::Stun | Kind::Probe | Kind::RebindCookie => {
                    let way = Way::Direct {
                        socket,
                        remote: source.1,
                    };
                    (self.to_driver)(way, meta, segment);
                }
                Kind::Unknown => self.counters.unknown_kind.add(),
            }
            start = end;
        }

        meta.len = run.len;
        meta.stride = run.stride;
        meta.dst_ip = None;
        if let Some(from) = run.from {
            meta.addr = from;
        }
    }

    fn direct(&self, source: (SocketId, SocketAddr)) -> Option<Owners> {
        self.tables.sources.pin().get(&source).copied()
    }

    fn channel(&self, source: (SocketId, SocketAddr), id: ChannelId) -> Option<SocketAddr> {
        self.tables
            .channels
            .pin()
            .get(&(ChannelSource::Udp(source.0, source.1), id))
            .map(|entry| Virtual::Peer(entry.peer).to_addr())
    }

    /// A probe or an echo through a channel: the node judges whether it belongs to one.
    fn channel_control(
        &self,
        source: (SocketId, SocketAddr),
        id: ChannelId,
        meta: &RecvMeta,
        payload: &[u8],
    ) {
        match self.tables.channel_way(source, id) {
            Some(way) => (self.to_driver)(way, meta, payload),
            None => self.counters.unknown_channel.add(),
        }
    }

    fn keep(
        &mut self,
        buf: &mut [u8],
        range: std::ops::Range<usize>,
        from: SocketAddr,
        run: &mut Run,
        meta: &RecvMeta,
    ) {
        let len = range.len();
        if run.takes(from, len) {
            if run.from.is_none() {
                run.from = Some(from);
                run.stride = len;
            }
            if range.start != run.len {
                buf.copy_within(range, run.len);
            }
            run.len += len;
        } else {
            self.copy(&buf[range], from, meta);
        }
    }

    fn copy(&mut self, datagram: &[u8], from: SocketAddr, meta: &RecvMeta) {
        (self.spill)(Spilled {
            from,
            data: Bytes::copy_from_slice(datagram),
            segment: datagram.len(),
            ecn: meta.ecn,
        });
    }

    fn part(&mut self, from: SocketAddr, datagram: &[u8], meta: &RecvMeta) {
        if let Some(whole) = self.parts.join(from, datagram, self.counters) {
            let segment = whole.len();
            (self.spill)(Spilled {
                from,
                data: whole.into(),
                segment,
                ecn: meta.ecn,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use byway_core::io::{Carrier, LinkId, PeerId};

    use super::*;

    const SOCKET: SocketId = SocketId(0);
    const LINK: LinkId = LinkId(9);

    fn relay() -> SocketAddr {
        "192.0.2.1:443".parse().unwrap()
    }
    fn peer_addr() -> SocketAddr {
        "198.51.100.7:4000".parse().unwrap()
    }
    fn channel(n: u64) -> ChannelId {
        ChannelId::from_u64(n)
    }
    fn virt(n: u32) -> SocketAddr {
        Virtual::Peer(PeerId(n)).to_addr()
    }

    /// Peer 1 is direct; peers 1 and 2 have channels 1 and 2 on the link.
    fn tables() -> Tables {
        let tables = Tables::default();
        tables.insert_dial(LINK, 0, SOCKET, relay());
        tables.learn(
            PeerId(1),
            Way::Direct {
                socket: SOCKET,
                remote: peer_addr(),
            },
        );
        for n in [1, 2] {
            tables.learn(
                PeerId(n),
                Way::Channel {
                    link: LINK,
                    carrier: Carrier::Udp,
                    channel: channel(n.into()),
                },
            );
        }
        tables
    }

    fn quic(fill: u8, len: usize) -> Vec<u8> {
        let mut datagram = vec![fill; len];
        datagram[0] = 0x40;
        datagram
    }
    fn relayed(n: u64, payload: &[u8]) -> Vec<u8> {
        [&channel(n).header()[..], payload].concat()
    }
    fn probe(len: usize) -> Vec<u8> {
        let mut datagram = vec![7; len];
        datagram[0] = 0x81;
        datagram
    }

    #[derive(Default)]
    struct Outcome {
        kept: Vec<Vec<u8>>,
        from: Option<SocketAddr>,
        spilled: Vec<(SocketAddr, Vec<u8>)>,
        control: Vec<(Way, Vec<u8>)>,
        dropped: Vec<(&'static str, u64)>,
        moved: bool,
    }

    fn sort(tables: &Tables, from: SocketAddr, segments: &[Vec<u8>]) -> Outcome {
        let stride = segments[0].len();
        let mut buf = segments.concat();
        let before = buf.clone();
        let mut meta = RecvMeta {
            addr: from,
            len: buf.len(),
            stride,
            ..RecvMeta::default()
        };
        let counters = Counters::default();
        let control = RefCell::new(Vec::new());
        let mut outcome = Outcome::default();
        let spilled = &mut outcome.spilled;
        Demux {
            tables,
            counters: &counters,
            parts: &mut Reassembler::default(),
            spill: &mut |spill| spilled.push((spill.from, spill.data.to_vec())),
            to_driver: &|way, _, data| control.borrow_mut().push((way, data.to_vec())),
        }
        .sort(SOCKET, &mut buf, &mut meta);
        outcome.control = control.into_inner();
        let dropped = counters.nonzero().into_iter();
        outcome.dropped = dropped.map(|(name, _, count)| (name, count)).collect();
        if meta.len > 0 {
            outcome.from = Some(meta.addr);
            outcome.kept = buf[..meta.len]
                .chunks(meta.stride)
                .map(<[u8]>::to_vec)
                .collect();
        }
        outcome.moved = buf != before;
        outcome
    }

    #[test]
    fn quic_from_one_peer_is_left_untouched() {
        let segments = [quic(1, 100), quic(2, 100), quic(3, 40)];
        let outcome = sort(&tables(), peer_addr(), &segments);
        assert_eq!(outcome.kept, segments);
        assert_eq!(outcome.from, Some(virt(1)));
        assert!(!outcome.moved);
        assert!(outcome.spilled.is_empty());
    }

    #[test]
    fn quic_of_a_link_goes_to_the_link() {
        let outcome = sort(&tables(), relay(), &[quic(1, 50)]);
        assert_eq!(outcome.from, Some(Virtual::Link(LINK, 0).to_addr()));
    }

    #[test]
    fn quic_from_an_unknown_address_is_dropped() {
        let outcome = sort(&tables(), "203.0.113.9:1".parse().unwrap(), &[quic(1, 50)]);
        assert_eq!(outcome.from, None);
        assert_eq!(outcome.dropped, [("unknown_source", 1)]);
    }

    #[test]
    fn a_run_of_one_channel_is_compacted_in_place() {
        let inner = [quic(1, 100), quic(2, 100), quic(3, 60)];
        let segments = inner.clone().map(|datagram| relayed(2, &datagram));
        let outcome = sort(&tables(), relay(), &segments);
        assert_eq!(outcome.kept, inner);
        assert_eq!(outcome.from, Some(virt(2)));
        assert!(outcome.spilled.is_empty());
    }

    #[test]
    fn a_buffer_of_two_channels_and_a_probe_is_taken_apart() {
        let segments = [
            relayed(1, &quic(1, 100)),
            relayed(2, &quic(2, 100)),
            relayed(1, &probe(100)),
            relayed(1, &quic(3, 100)),
            relayed(2, &quic(4, 30)),
        ];
        let outcome = sort(&tables(), relay(), &segments);
        assert_eq!(outcome.kept, [quic(1, 100), quic(3, 100)]);
        assert_eq!(outcome.from, Some(virt(1)));
        assert_eq!(
            outcome.spilled,
            [(virt(2), quic(2, 100)), (virt(2), quic(4, 30))]
        );
        let way = Way::Channel {
            link: LINK,
            carrier: Carrier::Udp,
            channel: channel(1),
        };
        assert_eq!(outcome.control, [(way, probe(100))]);
    }

    #[test]
    fn quic_relay_data_and_a_closing_probe_share_a_buffer() {
        // Equal lengths and one source: what the kernel merges when a relay is also a peer's address.
        let segments = [quic(1, 108), relayed(1, &quic(2, 100)), probe(60)];
        let outcome = sort(&tables(), relay(), &segments);
        assert_eq!(outcome.kept, [quic(1, 108)]);
        assert_eq!(outcome.spilled, [(virt(1), quic(2, 100))]);
        let way = Way::Direct {
            socket: SOCKET,
            remote: relay(),
        };
        assert_eq!(outcome.control, [(way, probe(60))]);
    }

    #[test]
    fn nobody_takes_an_address_from_another() {
        let tables = tables();
        for remote in [relay(), peer_addr()] {
            let claimed = Way::Direct {
                socket: SOCKET,
                remote,
            };
            tables.learn(PeerId(2), claimed);
            let outcome = sort(&tables, remote, &[quic(1, 100), quic(2, 100)]);
            assert_eq!(outcome.kept, [quic(1, 100), quic(2, 100)]);
            assert_ne!(outcome.from, Some(virt(2)));
            assert_eq!(
                outcome.spilled,
                [(virt(2), quic(1, 100)), (virt(2), quic(2, 100))]
            );
            tables.unlearn(PeerId(2), claimed);
            let outcome = sort(&tables, remote, &[quic(1, 100)]);
            assert_eq!((outcome.kept.len(), outcome.spilled.len()), (1, 0));
        }
    }

    #[test]
    fn a_shorter_datagram_ends_the_run() {
        let segments = [
            relayed(1, &quic(1, 100)),
            // The probe in between is what makes the kernel's stride longer than what stays.
            relayed(1, &probe(100)),
            relayed(1, &quic(2, 40)),
        ];
        let outcome = sort(&tables(), relay(), &segments);
        assert_eq!(outcome.kept, [quic(1, 100), quic(2, 40)]);
        assert!(outcome.spilled.is_empty());
    }

    #[test]
    fn relay_data_from_elsewhere_is_dropped() {
        let segments = [relayed(1, &quic(1, 100))];
        let outcome = sort(&tables(), peer_addr(), &segments);
        assert_eq!(outcome.from, None);
        assert_eq!(outcome.dropped, [("unknown_channel", 1)]);
    }

    #[test]
    fn an_echo_goes_to_the_driver() {
        let segments = [relayed(0, &[0; 92])];
        let outcome = sort(&tables(), relay(), &segments);
        let way = Way::Channel {
            link: LINK,
            carrier: Carrier::Udp,
            channel: ChannelId::ECHO,
        };
        assert_eq!(outcome.control, [(way, vec![0; 92])]);
    }

    #[test]
    fn the_parts_of_a_datagram_are_joined() {
        let whole = quic(5, 301);
        let [first, second] = byway_wire::fragment::split(3, &whole);
        let tables = tables();
        let counters = Counters::default();
        let mut parts = Reassembler::default();
        let mut spilled = Vec::new();
        for part in [second, relayed(1, &first)] {
            let relayed = part[0] == 0x80;
            let mut buf = part;
            let mut meta = RecvMeta {
                addr: if relayed { relay() } else { peer_addr() },
                len: buf.len(),
                stride: buf.len(),
                ..RecvMeta::default()
            };
            Demux {
                tables: &tables,
                counters: &counters,
                parts: &mut parts,
                spill: &mut |spill| spilled.push((spill.from, spill.data.to_vec())),
                to_driver: &|_, _, _| {},
            }
            .sort(SOCKET, &mut buf, &mut meta);
            assert_eq!(meta.len, 0);
        }
        assert_eq!(spilled, [(virt(1), whole)]);
    }

    #[test]
    fn any_bytes_are_sorted_without_harm() {
        let tables = tables();
        for first in 0..=255u8 {
            for len in [1, 2, 7, 8, 9, 20, 100] {
                let mut datagram = vec![first; len];
                datagram[len - 1] = 0x80;
                let outcome = sort(&tables, relay(), &[datagram.clone(), datagram]);
                let accounted = outcome.kept.len()
                    + outcome.spilled.len()
                    + outcome.control.len()
                    + outcome
                        .dropped
                        .iter()
                        .map(|(_, n)| *n as usize)
                        .sum::<usize>();
                // Fragments wait silently for their other part.
                assert!(accounted == 2 || first == 0x83, "{first:#x} {len}");
            }
        }
    }

    #[test]
    fn an_empty_buffer_stays_empty() {
        let tables = tables();
        let mut meta = RecvMeta {
            addr: relay(),
            ..RecvMeta::default()
        };
        Demux {
            tables: &tables,
            counters: &Counters::default(),
            parts: &mut Reassembler::default(),
            spill: &mut |_| panic!("nothing to spill"),
            to_driver: &|_, _, _| panic!("nothing to hand over"),
        }
        .sort(SOCKET, &mut [0; 10], &mut meta);
        assert_eq!(meta.len, 0);
    }
}
