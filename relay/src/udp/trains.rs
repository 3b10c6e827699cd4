//! Gathers what one receive brought into packet trains: datagrams of one channel that leave by one send.
//!
//! A node's QUIC sends ten datagrams at a time, and so the kernel delivers them: one buffer for each send. A relay that is a little behind finds several of
//! them in one receive. Sent on one by one each costs a system call, a walk through the kernel's tables and firewalls, and as much again wherever it passes
//! and where it arrives; sent as one they cost it once. Not a byte is copied for it, nor anything waited for: what did not come with this receive is
//! of the next one.
//!
//! Datagrams of a channel leave in the order in which they came; between channels there is none to keep.

use byway_wire::ChannelId;
use byway_wire::relay::data::HEADER_LEN;

use crate::plane::Origin;
use crate::udp::runs::Run;
use crate::udp::socket::MAX_SEND;

/// Trains that are open at the same time: the ends of a few busy tunnels. A longer search would cost more than it finds.
const OPEN: usize = 8;
/// Pieces of one train. A full one has five of quinn's sends.
pub(crate) const MAX_PIECES: usize = 8;

/// Datagrams of one channel from one source, headers included.
#[derive(Clone, Debug)]
pub(crate) struct Train<'a> {
    pub(crate) channel: ChannelId,
    pub(crate) from: Origin,
    /// Length of each datagram but the last.
    pub(crate) segment: usize,
    pieces: [&'a [u8]; MAX_PIECES],
    len: usize,
    /// In bytes, of all pieces.
    pub(crate) bytes: usize,
    /// Datagrams.
    pub(crate) count: u64,
}

impl<'a> Train<'a> {
    pub(crate) fn new(channel: ChannelId, from: Origin, run: &Run<'a>) -> Self {
        let mut pieces = [&[][..]; MAX_PIECES];
        pieces[0] = run.bytes;
        Self {
            channel,
            from,
            segment: run.segment,
            pieces,
            len: 1,
            bytes: run.bytes.len(),
            count: run.count(),
        }
    }

    /// What it is made of: whole datagrams each, and all but the last of full ones only.
    pub(crate) fn pieces(&self) -> &[&'a [u8]] {
        &self.pieces[..self.len]
    }

    pub(crate) fn datagrams(&self) -> impl Iterator<Item = &'a [u8]> {
        let pieces = self.pieces().iter();
        pieces.flat_map(|piece| piece.chunks(self.segment))
    }

    /// Bytes without the headers.
    pub(crate) fn payload(&self) -> u64 {
        self.bytes as u64 - self.count * HEADER_LEN as u64
    }

    fn is_of(&self, channel: ChannelId, from: &Origin) -> bool {
        self.channel == channel && self.from == *from
    }

    /// Appends a run of the same channel and source. False if it does not fit behind the others.
    fn append(&mut self, run: &Run<'a>, most: u64) -> bool {
        let full = self.bytes.is_multiple_of(self.segment);
        // A last one may be shorter.
        let alike = run.segment == self.segment || (run.count() == 1 && run.segment < self.segment);
        let fits = self.len < MAX_PIECES
            && self.bytes + run.bytes.len() <= MAX_SEND
            && self.count + run.count() <= most;
        if !(full && alike && fits) {
            return false;
        }
        self.pieces[self.len] = run.bytes;
        self.len += 1;
        self.bytes += run.bytes.len();
        self.count += run.count();
        true
    }
}

/// The trains of one receive.
#[derive(Debug)]
pub(crate) struct Trains<'a> {
    /// Datagrams of one train.
    most: u64,
    open: Vec<Train<'a>>,
}

impl<'a> Trains<'a> {
    /// `most`: as many datagrams as the kernel takes in one send.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most: most as u64,
            open: Vec::new(),
        }
    }

    /// Adds a run. Gives a train that has to leave now: an older one of the same channel, or the first of too many.
    pub(crate) fn push(
        &mut self,
        channel: ChannelId,
        from: &Origin,
        run: &Run<'a>,
    ) -> Option<Train<'a>> {
        let same = self.open.iter_mut().find(|t| t.is_of(channel, from));
        if let Some(train) = same {
            if train.append(run, self.most) {
                return None;
            }
            return Some(std::mem::replace(train, Train::new(channel, *from, run)));
        }
        let first = (self.open.len() >= OPEN).then(|| self.open.remove(0));
        self.open.push(Train::new(channel, *from, run));
        first
    }

    /// What is left at the end.
    pub(crate) fn rest(self) -> impl Iterator<Item = Train<'a>> {
        self.open.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::udp::runs::{What, runs};

    fn from(port: u16) -> Origin {
        Origin {
            addr: ([192, 0, 2, 1], port).into(),
            local_ip: None,
            listener: 0,
            shard: 0,
            ecn: None,
        }
    }

    /// Datagrams of a channel, numbered from `first` on.
    fn batch(channel: u64, first: u8, count: u8, len: usize) -> Vec<u8> {
        let datagram = |n: u8| {
            let mut datagram = ChannelId::from_u64(channel).header().to_vec();
            datagram.resize(len, first + n);
            datagram
        };
        (0..count).flat_map(datagram).collect()
    }

    /// What leaves, in order, when these buffers were one receive: the channel, its pieces, and the numbers of its datagrams.
    fn sent(buffers: &[(u16, Vec<u8>, usize)], most: usize) -> Vec<(u64, usize, Vec<u8>)> {
        let mut trains = Trains::new(most);
        let mut out = Vec::new();
        for (port, buffer, stride) in buffers {
            for run in runs(buffer, *stride) {
                let What::Relay(channel) = run.what else {
                    panic!("not relay data");
                };
                out.extend(trains.push(channel, &from(*port), &run));
            }
        }
        out.extend(trains.rest());
        let told = |train: Train<'_>| {
            let numbers: Vec<u8> = train.datagrams().map(|d| d[d.len() - 1]).collect();
            assert_eq!(numbers.len() as u64, train.count);
            let bytes: usize = train.datagrams().map(<[u8]>::len).sum();
            assert_eq!(bytes, train.bytes);
            assert_eq!(train.payload(), (bytes - 8 * numbers.len()) as u64);
            (train.channel.as_u64(), train.pieces().len(), numbers)
        };
        out.into_iter().map(told).collect()
    }

    #[test]
    fn sends_of_one_channel_leave_as_one_whatever_came_between() {
        let buffers = [
            (1, batch(5, 0, 3, 100), 100),
            (2, batch(6, 0, 1, 40), 40),
            (1, batch(5, 3, 3, 100), 100),
            (2, batch(6, 1, 1, 40), 40),
            (1, batch(5, 6, 1, 100), 100),
        ];
        assert_eq!(
            sent(&buffers, 64),
            [(5, 3, vec![0, 1, 2, 3, 4, 5, 6]), (6, 2, vec![0, 1]),]
        );
    }

    #[test]
    fn behind_a_short_datagram_comes_none() {
        let short = [batch(5, 1, 1, 100), batch(5, 2, 1, 60)].concat();
        let buffers = [
            (1, batch(5, 0, 1, 100), 100),
            (1, short, 100),
            (1, batch(5, 3, 2, 100), 100),
        ];
        assert_eq!(
            sent(&buffers, 64),
            [(5, 2, vec![0, 1, 2]), (5, 1, vec![3, 4])]
        );
    }

    #[test]
    fn a_single_short_datagram_is_the_last_and_a_longer_one_begins_anew() {
        let buffers = [
            (1, batch(5, 0, 2, 100), 100),
            (1, batch(5, 2, 1, 60), 60),
            (1, batch(5, 3, 1, 60), 60),
            (1, batch(5, 4, 1, 100), 100),
            (1, batch(5, 5, 2, 60), 60),
        ];
        assert_eq!(
            sent(&buffers, 64),
            [
                (5, 2, vec![0, 1, 2]),
                (5, 1, vec![3]),
                (5, 1, vec![4]),
                (5, 1, vec![5, 6]),
            ]
        );
    }

    #[test]
    fn a_train_is_no_longer_than_the_kernel_takes() {
        let lens = |buffers: &[(u16, Vec<u8>, usize)], most| {
            let sent = sent(buffers, most);
            let numbers: Vec<u8> = sent.iter().flat_map(|(_, _, n)| n.clone()).collect();
            assert!(numbers.is_sorted(), "{numbers:?}");
            sent.iter().map(|(_, _, n)| n.len()).collect::<Vec<_>>()
        };
        let tens = |len: usize| {
            let ten = |n: u8| (1, batch(5, n * 10, 10, len), len);
            (0..12).map(ten).collect::<Vec<_>>()
        };
        // In datagrams, in bytes, and in pieces.
        assert_eq!(lens(&tens(100), 64), [60, 60]);
        assert_eq!(lens(&tens(1_452), 64), [40, 40, 40]);
        assert_eq!(lens(&tens(100), 128), [80, 40]);
        // Nothing is put together where the kernel takes one at a time.
        let ones: Vec<_> = (0..3).map(|n| (1, batch(5, n, 1, 100), 100)).collect();
        assert_eq!(lens(&ones, 1), [1, 1, 1]);
    }

    #[test]
    fn sources_are_not_mixed() {
        let mut marked = Trains::new(64);
        let buffer = batch(5, 0, 1, 100);
        let run = runs(&buffer, 100).next().unwrap();
        let channel = ChannelId::from_u64(5);
        let ecn = Some(quinn_udp::EcnCodepoint::Ce);
        for from in [from(1), from(2), Origin { ecn, ..from(1) }] {
            assert!(marked.push(channel, &from, &run).is_none());
        }
        assert_eq!(marked.rest().count(), 3);
    }

    #[test]
    fn of_many_channels_the_first_leaves_for_the_next() {
        let buffers: Vec<_> = (0..10).map(|n| (1, batch(n, 0, 1, 100), 100)).collect();
        let channels: Vec<u64> = sent(&buffers, 64).iter().map(|(c, _, _)| *c).collect();
        assert_eq!(channels, (0..10).collect::<Vec<_>>());
    }
}
