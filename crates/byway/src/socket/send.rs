//! Sending: from quinn's batch for a virtual address to real sends.
//!
//! | route | a batch becomes |
//! |---|---|
//! | none yet | each datagram goes to the driver, which puts it into `Open` (the first flight) |
//! | direct | one `sendmsg` with segmentation offload, a full batch together with the next one ([`super::together`]) |
//! | channel on a UDP link | a header in front of each segment, then the same |
//! | channel on a TLS link | one data frame in the link's bounded queue, which drops by age and never blocks |
//!
//! Nothing but `WouldBlock` is ever returned, because quinn ends a connection for any other error: a refused send is
//! evidence about one path. Nor does it change the socket for others: sizes are checked before the kernel sees them,
//! and a destination that refuses a batch gets its datagrams one by one from then on.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use byway_core::io::{SocketId, Way};
use quinn::udp::{EcnCodepoint, Transmit};

use super::addr::Virtual;
use super::route::{Leg, PeerRoute, Via};
use super::tables::LinkRoute;
use super::udp::{MAX_PAYLOAD, UdpSocket};
use super::{Socket, ToDriver, header};
use byway_wire::demux::{Kind, classify};
use byway_wire::relay::data::HEADER_LEN;

/// A batch of datagrams of one size, the last possibly shorter.
#[derive(Clone, Copy)]
pub(super) struct Batch<'a> {
    pub(super) contents: &'a [u8],
    /// None: one datagram.
    pub(super) segment: Option<usize>,
    pub(super) ecn: Option<EcnCodepoint>,
}

impl<'a> Batch<'a> {
    /// One datagram, marked like this batch.
    fn single<'b>(&self, contents: &'b [u8]) -> Batch<'b> {
        Batch {
            contents,
            segment: None,
            ecn: self.ecn,
        }
    }

    fn datagrams(&self) -> impl Iterator<Item = &'a [u8]> {
        self.contents
            .chunks(self.segment.unwrap_or(self.contents.len()).max(1))
    }
}

thread_local! {
    /// Where headers are inserted; reused, because a batch is up to 64 KiB.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Socket {
    /// quinn sends.
    pub(super) fn send_batch(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if transmit.contents.is_empty() {
            return Ok(());
        }
        let batch = Batch {
            contents: transmit.contents,
            segment: transmit.segment_size.filter(|segment| *segment > 0),
            ecn: transmit.ecn,
        };
        match Virtual::from_addr(transmit.destination) {
            Some(Virtual::Peer(peer)) => {
                if let Some(route) = self.tables.peers.pin().get(&peer) {
                    return self.send_to_peer(route, batch);
                }
            }
            Some(Virtual::Link(link, attempt)) => {
                if let Some(LinkRoute::Udp { socket, relay }) =
                    self.tables.links.pin().get(&(link, attempt))
                {
                    return self.send_udp(*socket, *relay, batch, None);
                }
            }
            None => {}
        }
        self.counters.no_route.add();
        Ok(())
    }

    fn send_to_peer(&self, route: &PeerRoute, batch: Batch<'_>) -> io::Result<()> {
        let snapshot = route.snapshot.load();
        let Some(primary) = &snapshot.primary else {
            for datagram in batch.datagrams() {
                self.to_driver(ToDriver::First {
                    peer: route.peer(),
                    data: Bytes::copy_from_slice(datagram),
                });
            }
            return Ok(());
        };
        if route.flow_wanted.load(Ordering::Relaxed)
            && route.flow_wanted.swap(false, Ordering::Relaxed)
            && !self.to_driver(ToDriver::FlowActive(route.peer()))
        {
            route.want_flow();
        }
        let datagram = batch.segment.unwrap_or(batch.contents.len());
        // A single datagram above QUIC's MTU is a probe of its search for a larger one: not sending it is its answer. Cut in two it
        // would arrive, and so would everything after it have to be.
        let probes = batch.segment.is_none() && datagram > usize::from(route.mtu.get());
        if probes && datagram > snapshot.max_datagram {
            self.counters.probe_too_large.add();
            return Ok(());
        }
        self.send_primary(route, primary, &snapshot, batch)?;
        route
            .counters
            .add_sent(primary.kind(), batch.contents.len() as u64);
        route.recent.note(batch.contents, batch.segment);
        if snapshot.duplicate
            && let Some(standby) = &snapshot.standby
        {
            // The copy is a courtesy: if there is no room for it, QUIC must not send the batch again.
            let _ = self.send_fitting(route, standby, snapshot.standby_max, batch);
            route
                .counters
                .add_sent(standby.kind(), batch.contents.len() as u64);
        }
        Ok(())
    }

    /// Sends a batch by a path that carries `most` bytes in one piece; by a TLS link too, for the channel's other end may be a
    /// narrow network. What is larger is from before the path shrank: quinn
    /// cannot be told, and as the parts arrive it finds no black hole, so it goes in two parts for as long as data stays on
    /// this path.
    pub(super) fn send_fitting(
        &self,
        route: &PeerRoute,
        leg: &Leg,
        most: usize,
        batch: Batch<'_>,
    ) -> io::Result<()> {
        let datagram = batch.segment.unwrap_or(batch.contents.len());
        if datagram <= most {
            return self.send_by(leg, batch);
        }
        for datagram in batch.datagrams() {
            self.send_one(route, leg, most, batch.single(datagram))?;
        }
        Ok(())
    }

    /// Sends one datagram by a path that carries `most` bytes in one piece.
    fn send_one(
        &self,
        route: &PeerRoute,
        leg: &Leg,
        most: usize,
        datagram: Batch<'_>,
    ) -> io::Result<()> {
        // The last of a batch may be short.
        if datagram.contents.len() <= most {
            return self.send_by(leg, datagram);
        }
        let id = route.fragment_id.fetch_add(1, Ordering::Relaxed);
        for part in byway_wire::fragment::split(id, datagram.contents) {
            self.send_by(leg, datagram.single(&part))?;
        }
        self.counters.fragmented.add();
        Ok(())
    }

    /// Sends the last datagrams again, on primary and standby; while the primary is suspected only where they may have
    /// not been yet, for both may begin with the same slow access link.
    pub(crate) fn replay(&self, route: &PeerRoute) {
        let snapshot = route.snapshot.load();
        let suspected = snapshot.duplicate && snapshot.standby.is_some();
        let primary = snapshot.primary.as_ref().filter(|_| !suspected);
        let legs = [
            (primary, snapshot.primary_max),
            (snapshot.standby.as_ref(), snapshot.standby_max),
        ];
        for datagram in route.recent.newest() {
            let batch = Batch {
                contents: &datagram,
                segment: None,
                ecn: None,
            };
            for (leg, most) in legs {
                if let Some(leg) = leg {
                    let _ = self.send_fitting(route, leg, most, batch);
                }
            }
        }
    }

    /// Sends a datagram of the driver's: STUN, a probe, or QUIC that waited for a route. If there is no room it is lost, as
    /// on any network.
    pub(crate) fn send_control(&self, way: Way, data: &[u8]) {
        let Some(via) = self.tables.via(way) else {
            self.counters.no_route.add();
            return;
        };
        let leg = Leg {
            way,
            via,
            one_by_one: std::sync::Arc::default(),
        };
        let sent = self.send_by(
            &leg,
            Batch {
                contents: data,
                segment: None,
                // As QUIC would have marked it: one unmarked packet looks to it like a path that loses marks.
                ecn: (classify(data) == Kind::Quic).then_some(EcnCodepoint::Ect0),
            },
        );
        if sent.is_err() {
            self.counters.send_blocked.add();
        }
    }

    fn send_by(&self, leg: &Leg, batch: Batch<'_>) -> io::Result<()> {
        match &leg.via {
            #[cfg(test)]
            _ if self.is_blocked(leg) => Ok(()),
            Via::Direct { socket, remote } => self.send_udp(*socket, *remote, batch, Some(leg)),
            Via::Udp {
                socket,
                relay,
                header,
            } => SCRATCH.with_borrow_mut(|scratch| {
                let segment = batch.segment.unwrap_or(batch.contents.len());
                header::insert(scratch, header, batch.contents, segment);
                let batch = Batch {
                    contents: scratch,
                    segment: batch.segment.map(|segment| segment + HEADER_LEN),
                    ecn: batch.ecn,
                };
                self.send_udp(*socket, *relay, batch, Some(leg))
            }),
            Via::Tls { egress, channel } => {
                egress.push_data(*channel, batch.segment, batch.contents);
                Ok(())
            }
        }
    }

    #[cfg(test)]
    pub(super) fn is_blocked(&self, leg: &Leg) -> bool {
        let direct = matches!(leg.via, Via::Direct { .. });
        self.peers_blocked.load(Ordering::Relaxed)
            || direct && self.direct_blocked.load(Ordering::Relaxed)
    }

    /// One or a few `sendmsg`, none above what the kernel takes.
    pub(super) fn send_udp(
        &self,
        socket: SocketId,
        remote: SocketAddr,
        batch: Batch<'_>,
        leg: Option<&Leg>,
    ) -> io::Result<()> {
        let translated = self.nat64.outside(remote);
        let (socket, remote) = match translated.and_then(|to| Some((self.for_remote(to)?, to))) {
            Some(instead) => instead,
            None => (socket, remote),
        };
        let sent = self.with_socket(socket, |socket| self.send_from(socket, remote, batch, leg));
        sent.unwrap_or_else(|| {
            self.counters.no_route.add();
            Ok(())
        })
    }

    fn send_from(
        &self,
        socket: &UdpSocket,
        remote: SocketAddr,
        batch: Batch<'_>,
        leg: Option<&Leg>,
    ) -> io::Result<()> {
        if socket.has_ended() {
            self.counters.send_refused.add();
            return Ok(());
        }
        let one_by_one = || leg.is_some_and(|leg| leg.one_by_one.load(Ordering::Relaxed));
        let segment = batch.segment.unwrap_or(batch.contents.len()).max(1);
        let per_send = if one_by_one() {
            1
        } else {
            (MAX_PAYLOAD / segment).clamp(1, socket.gso_segments())
        };
        for part in batch.contents.chunks(per_send * segment) {
            let send = |contents: &[u8], segment_size| {
                socket.send(&Transmit {
                    destination: remote,
                    ecn: batch.ecn,
                    contents,
                    segment_size,
                    src_ip: None,
                })
            };
            let batched = part.len() > segment;
            match send(part, batched.then_some(segment)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
                Err(error) if batched && refuses_batches(&error) => {
                    if let Some(leg) = leg {
                        leg.one_by_one.store(true, Ordering::Relaxed);
                    }
                    for datagram in part.chunks(segment) {
                        match send(datagram, None) {
                            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                                return Err(error);
                            }
                            Err(error) => self.refused(socket, remote, &error),
                            Ok(()) => {}
                        }
                    }
                }
                Err(error) => self.refused(socket, remote, &error),
            }
        }
        Ok(())
    }

    fn refused(&self, socket: &UdpSocket, remote: SocketAddr, error: &io::Error) {
        tracing::trace!(%remote, %error, "send refused");
        self.counters.send_refused.add();
        if socket.ends_by(error) {
            self.take_out(socket.id);
        }
    }
}

/// EIO and EINVAL: a device or tunnel on the way that cannot segment.
fn refuses_batches(error: &io::Error) -> bool {
    // By number: std has no kind for EIO. The same on every Unix.
    matches!(error.raw_os_error(), Some(5 | 22))
}
