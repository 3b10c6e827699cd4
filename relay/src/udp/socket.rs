//! One UDP socket of a shard: sends batches within the kernel's bounds, and keeps one destination's trouble away from
//! the others.
//!
//! `quinn-udp` remembers some errors for the whole socket: one EINVAL switches ECN off, one EIO or EINVAL says that
//! segmentation offload is gone. Here anybody's packet can meet a destination that fails, so sizes are checked before
//! sending, a refused batch is sent datagram by datagram, and after an EINVAL that state is made anew.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwap;
use quinn_udp::{EcnCodepoint, RecvMeta, Transmit, UdpSocketState};
use socket2::SockRef;
use tokio::io::Interest;

use crate::stats::{Counters, add, bump};
use crate::udp::vectored;

/// Most bytes of one send: the longest UDP payload over IPv4. Over IPv6 it would be 20 bytes more.
pub(crate) const MAX_SEND: usize = 65_507;
/// What we ask the kernel for, in bytes: 7 ms at 1 GiB/s, for as long a shard may be kept from its core. The kernel's own limit is
/// usually lower.
pub(crate) const BUFFER: usize = 15 * 512 * 1024;

// Errors of one destination, by number because `io::ErrorKind` has no names for them.
const EIO: i32 = 5;
const EINVAL: i32 = 22;
const EMSGSIZE: i32 = 90;

#[derive(Debug)]
pub(crate) struct Socket {
    io: tokio::net::UdpSocket,
    state: ArcSwap<UdpSocketState>,
    /// As the kernel said at the start; never lowered.
    max_segments: usize,
    /// True if a reply must name the local address it leaves from.
    wildcard: bool,
    local: SocketAddr,
}

/// Where a send goes, and from which of our addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Destination {
    pub(crate) addr: SocketAddr,
    pub(crate) local_ip: Option<IpAddr>,
}

impl Socket {
    /// Takes over a bound socket; must be called inside the runtime that will receive from it.
    pub(crate) fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        let state = UdpSocketState::new((&socket).into())?;
        // The kernel gives less than asked without saying so: a smaller buffer is still a buffer.
        let _ = state.set_recv_buffer_size((&socket).into(), BUFFER);
        let _ = state.set_send_buffer_size((&socket).into(), BUFFER);
        let local = socket.local_addr()?;
        Ok(Self {
            max_segments: state.max_gso_segments(),
            state: ArcSwap::from_pointee(state),
            wildcard: local.ip().is_unspecified(),
            local,
            io: tokio::net::UdpSocket::from_std(socket)?,
        })
    }
    /// What the kernel granted for receiving and for sending, in bytes of its own count.
    pub(crate) fn granted(&self) -> io::Result<(usize, usize)> {
        let socket = SockRef::from(&self.io);
        Ok((socket.recv_buffer_size()?, socket.send_buffer_size()?))
    }
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local
    }
    /// How many buffers were filled, and whether it had to wait for that.
    pub(crate) async fn recv(
        &self,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> io::Result<(usize, bool)> {
        let state = self.state.load_full();
        let mut waited = false;
        let received = self.io.async_io(Interest::READABLE, || {
            let received = state.recv((&self.io).into(), bufs, meta);
            let nothing = |e: &io::Error| e.kind() == io::ErrorKind::WouldBlock;
            waited |= received.as_ref().is_err_and(nothing);
            received
        });
        let received = received.await?;
        Ok((received, waited))
    }
    pub(crate) async fn writable(&self) -> io::Result<()> {
        self.io.writable().await
    }
    /// Sends one transmit of the control endpoint.
    pub(crate) fn send_control(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.try_send(transmit)
    }

    /// Datagrams that the kernel takes in one send.
    pub(crate) fn max_segments(&self) -> usize {
        self.max_segments.max(1)
    }

    /// Sends datagrams of `segment` bytes each, the last possibly shorter, in pieces of whole datagrams. Never blocks: what does not go is counted
    /// and gone, as in any router.
    pub(crate) fn send(
        &self,
        to: Destination,
        ecn: Option<EcnCodepoint>,
        pieces: &[&[u8]],
        segment: usize,
        counters: &Counters,
    ) {
        if !sendable(to.addr) || segment == 0 {
            add(&counters.dropped_send_error, 1);
            return;
        }
        if self.send_together(to, ecn, pieces, segment, counters) {
            return;
        }
        let batch = segment * (MAX_SEND / segment).clamp(1, self.max_segments());
        for contents in pieces.iter().flat_map(|piece| piece.chunks(batch)) {
            self.send_batch(to, ecn, contents, segment, counters);
        }
    }

    /// Sends several pieces as one. False if that is not possible, and nothing was sent.
    fn send_together(
        &self,
        to: Destination,
        ecn: Option<EcnCodepoint>,
        pieces: &[&[u8]],
        segment: usize,
        counters: &Counters,
    ) -> bool {
        if pieces.len() < 2 {
            return false;
        }
        let local_ip = to.local_ip.filter(|_| self.wildcard);
        let sent = self.io.try_io(Interest::WRITABLE, || {
            vectored::send(&self.io, (to.addr, local_ip), ecn, pieces, segment)
        });
        let bytes: usize = pieces.iter().map(|piece| piece.len()).sum();
        let count = bytes.div_ceil(segment) as u64;
        match sent {
            Ok(()) => went(counters, count, bytes),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => add(&counters.dropped_full, count),
            // Whoever is refused, and why, is found out one by one.
            Err(_) => return false,
        }
        true
    }

    fn send_batch(
        &self,
        to: Destination,
        ecn: Option<EcnCodepoint>,
        contents: &[u8],
        segment: usize,
        counters: &Counters,
    ) {
        let count = contents.len().div_ceil(segment) as u64;
        let transmit = Transmit {
            destination: to.addr,
            ecn,
            contents,
            segment_size: (contents.len() > segment).then_some(segment),
            src_ip: to.local_ip.filter(|_| self.wildcard),
        };
        let Err(e) = self.try_send(&transmit) else {
            return went(counters, count, contents.len());
        };
        match e.raw_os_error() {
            Some(EIO | EINVAL | EMSGSIZE) if count > 1 => {
                bump(&counters.gso_refused);
                for contents in contents.chunks(segment) {
                    self.send_batch(to, ecn, contents, segment, counters);
                }
            }
            Some(EMSGSIZE) => add(&counters.dropped_mtu, count),
            _ if e.kind() == io::ErrorKind::WouldBlock => add(&counters.dropped_full, count),
            _ => add(&counters.dropped_send_error, count),
        }
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let state = self.state.load();
        let sent = self.io.try_io(Interest::WRITABLE, || {
            state.try_send((&self.io).into(), transmit)
        });
        if let Err(e) = &sent
            && e.raw_os_error() == Some(EINVAL)
            && let Ok(fresh) = UdpSocketState::new((&self.io).into())
        {
            self.state.store(Arc::new(fresh));
        }
        sent
    }
}

/// One send took so many datagrams, and bytes.
fn went(counters: &Counters, count: u64, bytes: usize) {
    bump(&counters.udp_sends);
    add(&counters.udp_out, count);
    add(&counters.udp_out_bytes, bytes as u64);
}

/// False for addresses to which a send fails in ways that concern the whole socket, or that nobody should get answers at.
pub(crate) fn sendable(addr: SocketAddr) -> bool {
    let ip_ok = match addr.ip() {
        IpAddr::V4(ip) => !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast(),
        IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_multicast(),
    };
    addr.port() != 0 && ip_ok
}
