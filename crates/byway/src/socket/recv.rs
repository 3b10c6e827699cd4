//! Receiving: real buffers are sorted ([`super::demux`]), and datagrams that came by other ways - the first flight
//! inside `Incoming`, frames of a TLS link - are handed to quinn between them.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::sync::PoisonError;
use std::task::{Context, Poll};

use bytes::Bytes;
use byway_core::io::{PeerId, Way};
use quinn::udp::{EcnCodepoint, RecvMeta};
use tokio::sync::mpsc;

use super::addr::Virtual;
use super::demux::{Demux, Spilled};
use super::reassemble::Reassembler;
use super::udp::UdpSocket;
use super::{Socket, ToDriver};

/// Batches that may wait for quinn from TLS links and from first flights. A TLS link's reader waits when it is full
/// (TCP then slows the relay); a first flight is dropped and QUIC sends it again.
pub(super) const INJECT_QUEUE: usize = 256;
/// Datagrams that may wait because their buffer had no place: more than one receive call can bring from 32 buffers
/// that all alternate between two channels.
const SPILL_QUEUE: usize = 2048;

/// Datagrams for quinn that did not come by a real socket.
#[derive(Debug)]
pub(crate) struct Injected {
    /// From this peer.
    pub(crate) peer: PeerId,
    /// Datagrams back to back.
    pub(crate) data: Bytes,
    /// Length of each but the last.
    pub(crate) segment: usize,
    /// As they were marked, if the way they came keeps marks.
    pub(crate) ecn: Option<EcnCodepoint>,
}

/// What only the receiving task touches.
#[derive(Debug)]
pub(super) struct Receiving {
    injected: mpsc::Receiver<Injected>,
    waiting: VecDeque<Spilled>,
    parts: Reassembler,
    /// Which source has its turn: a busy one must not starve the others.
    turn: usize,
}

impl Receiving {
    pub(super) fn new(injected: mpsc::Receiver<Injected>) -> Self {
        Self {
            injected,
            waiting: VecDeque::new(),
            parts: Reassembler::default(),
            turn: 0,
        }
    }
}

impl Socket {
    /// quinn receives. Never an error: one would end the whole endpoint.
    pub(super) fn poll_receive(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        // Whatever a panic left half done here are whole datagrams.
        let mut receiving = self
            .receiving
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let receiving = &mut *receiving;
        if !receiving.waiting.is_empty() {
            return Poll::Ready(Ok(fill(&mut receiving.waiting, bufs, metas)));
        }
        // One turn for each UDP socket and one for what is injected; asked in turn until all have nothing.
        let (own, extra) = (self.own.list.receiving(cx), self.extra.list.receiving(cx));
        let sockets = || {
            let all = own.iter().chain(extra.iter());
            all.filter(|socket| !socket.has_ended())
        };
        let sources = sockets().count() + 1;
        for _ in 0..sources {
            let turn = receiving.turn % sources;
            receiving.turn = turn + 1;
            let count = match sockets().nth(turn) {
                Some(socket) => self.poll_socket(socket, receiving, cx, bufs, metas),
                None => poll_injected(receiving, cx, bufs, metas),
            };
            if let Poll::Ready(count) = count {
                return Poll::Ready(Ok(count));
            }
        }
        Poll::Pending
    }

    fn poll_socket(
        &self,
        socket: &UdpSocket,
        receiving: &mut Receiving,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<usize> {
        let count = match std::task::ready!(socket.poll_recv(cx, bufs, metas)) {
            Ok(count) => count,
            Err(error) => {
                // An ICMP error of some earlier send, or a socket that is gone: nothing of it concerns quinn.
                tracing::trace!(%error, "receive failed");
                if socket.ends_by(&error) {
                    self.take_out(socket.id);
                }
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        };
        let Receiving { waiting, parts, .. } = receiving;
        let mut demux = Demux {
            tables: &self.tables,
            counters: &self.counters,
            parts,
            spill: &mut |spilled| {
                if waiting.len() < SPILL_QUEUE {
                    waiting.push_back(spilled);
                } else {
                    self.counters.spilled.add();
                }
            },
            to_driver: &|way: Way, meta: &RecvMeta, data: &[u8]| {
                self.to_driver(ToDriver::Datagram {
                    way,
                    to: meta.dst_ip,
                    data: Bytes::copy_from_slice(data),
                });
            },
        };
        for (buf, meta) in bufs.iter_mut().zip(metas.iter_mut()).take(count) {
            let mut id = socket.id;
            // What was addressed by its IPv6 address, before the prefix was known, is still known by it.
            if let Some(from) = self.nat64.inside(meta.addr)
                && !self.tables.owns(socket.id, meta.addr)
            {
                meta.addr = from;
                id = self.for_remote(from).unwrap_or(id);
            }
            demux.sort(id, buf, meta);
        }
        Poll::Ready(count)
    }
}

fn poll_injected(
    receiving: &mut Receiving,
    cx: &mut Context<'_>,
    bufs: &mut [IoSliceMut<'_>],
    metas: &mut [RecvMeta],
) -> Poll<usize> {
    while receiving.waiting.len() < bufs.len() {
        match receiving.injected.poll_recv(cx) {
            Poll::Ready(Some(injected)) => receiving.waiting.push_back(Spilled {
                from: Virtual::Peer(injected.peer).to_addr(),
                segment: injected.segment.max(1),
                data: injected.data,
                ecn: injected.ecn,
            }),
            // Closed: the endpoint is ending.
            Poll::Ready(None) | Poll::Pending => break,
        }
    }
    if receiving.waiting.is_empty() {
        return Poll::Pending;
    }
    Poll::Ready(fill(&mut receiving.waiting, bufs, metas))
}

/// Moves waiting datagrams into quinn's buffers, as many of a batch into one as fit.
fn fill(
    waiting: &mut VecDeque<Spilled>,
    bufs: &mut [IoSliceMut<'_>],
    metas: &mut [RecvMeta],
) -> usize {
    let mut count = 0;
    for (buf, meta) in bufs.iter_mut().zip(metas) {
        let Some(batch) = waiting.front_mut() else {
            break;
        };
        let fits = buf.len() / batch.segment * batch.segment;
        if fits == 0 {
            // Larger than any datagram this endpoint takes.
            waiting.pop_front();
            *meta = described(SocketAddr::from(([0, 0, 0, 0], 0)), 0, 0, None);
        } else {
            let taken = batch.data.split_to(fits.min(batch.data.len()));
            buf[..taken.len()].copy_from_slice(&taken);
            *meta = described(
                batch.from,
                taken.len(),
                batch.segment.min(taken.len()),
                batch.ecn,
            );
            if batch.data.is_empty() {
                waiting.pop_front();
            }
        }
        count += 1;
    }
    count
}

fn described(addr: SocketAddr, len: usize, stride: usize, ecn: Option<EcnCodepoint>) -> RecvMeta {
    RecvMeta {
        addr,
        len,
        stride,
        ecn,
        dst_ip: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(data: &'static [u8], segment: usize) -> Spilled {
        Spilled {
            from: Virtual::Peer(PeerId(1)).to_addr(),
            data: Bytes::from_static(data),
            segment,
            ecn: None,
        }
    }

    #[test]
    fn a_batch_larger_than_a_buffer_is_cut_between_datagrams() {
        let mut waiting = VecDeque::from([batch(b"aaabbbccd", 3), batch(b"ee", 2)]);
        let mut space = [[0u8; 7]; 4];
        let mut bufs: Vec<IoSliceMut<'_>> = space.iter_mut().map(|b| IoSliceMut::new(b)).collect();
        let mut metas = [RecvMeta::default(); 4];
        assert_eq!(fill(&mut waiting, &mut bufs, &mut metas), 3);
        assert!(waiting.is_empty());
        assert_eq!(&bufs[0][..metas[0].len], b"aaabbb");
        assert_eq!(metas[0].stride, 3);
        assert_eq!(&bufs[1][..metas[1].len], b"ccd");
        assert_eq!(&bufs[2][..metas[2].len], b"ee");
    }

    #[test]
    fn a_datagram_no_buffer_takes_is_dropped() {
        let mut waiting = VecDeque::from([batch(b"0123456789", 10), batch(b"ok", 2)]);
        let mut space = [[0u8; 7]; 2];
        let mut bufs: Vec<IoSliceMut<'_>> = space.iter_mut().map(|b| IoSliceMut::new(b)).collect();
        let mut metas = [RecvMeta::default(); 2];
        assert_eq!(fill(&mut waiting, &mut bufs, &mut metas), 2);
        assert_eq!(metas[0].len, 0);
        assert_eq!(&bufs[1][..metas[1].len], b"ok");
    }
}
