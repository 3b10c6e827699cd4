//! The socket beneath quinn: real UDP sockets and TLS links below, virtual addresses above.
//!
//! quinn knows each peer by one address that never changes ([`addr`]); which path carries a datagram is decided here,
//! for each batch, by reading the peer's route ([`route`], [`tables`]): no lock is taken for that, and one of the
//! peer's own for what is held of it ([`together`]). [`send`] and [`recv`] are the two directions, [`demux`] tells what a
//! received datagram is.
//!
//! The socket never returns an error but `WouldBlock` (quinn would end the connection or the endpoint), and it is
//! writable only when all its UDP sockets are, because quinn's poller cannot say for which destination it waits.

mod addr;
mod counters;
mod demux;
mod extra;
mod header;
mod list;
mod nat64;
mod own;
mod reassemble;
mod recent;
mod recv;
mod route;
mod send;
mod tables;
#[cfg(test)]
mod tests;
mod together;
mod udp;

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use byway_core::io::{PeerId, SocketId, Way};
use extra::Extra;
use list::AllWritable;
use own::Own;
use quinn::udp::{RecvMeta, Transmit};
use together::Waiting;
use tokio::sync::mpsc;

pub(crate) use addr::Virtual;
pub(crate) use counters::Counters;
pub(crate) use nat64::Nat64;
pub(crate) use reassemble::Reassembler;
pub(crate) use recv::Injected;
pub(crate) use route::PeerRoute;
#[cfg(test)]
pub(crate) use tables::TableSizes;
pub(crate) use tables::Tables;
use udp::UdpSocket;

/// Most segments in one send: 44 x (1,444 + 8) bytes is just below 65,507 (quinn itself stops at 10).
const MAX_SEGMENTS: usize = 44;

/// Datagrams for the driver that may wait. STUN answers and probes of all peers together are a few hundred in the worst
/// second; a flood is dropped here and costs nothing above.
pub(crate) const DRIVER_QUEUE: usize = 512;

/// What the data path hands to the driver.
#[derive(Debug)]
pub(crate) enum ToDriver {
    /// STUN, a probe, a rebind cookie, an echo.
    Datagram {
        way: Way,
        to: Option<IpAddr>,
        data: Bytes,
    },
    /// A datagram of a peer that has no route yet.
    First { peer: PeerId, data: Bytes },
    /// A peer whose evidence timer slept sends again.
    FlowActive(PeerId),
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Socket {
    own: Own,
    extra: Extra,
    pub(crate) nat64: Arc<Nat64>,
    pub(crate) tables: Tables,
    pub(crate) counters: Counters,
    receiving: Mutex<recv::Receiving>,
    inject: mpsc::Sender<Injected>,
    driver: mpsc::Sender<ToDriver>,
    max_receive_segments: usize,
    waiting: Waiting,
    /// Nothing leaves for direct paths: a firewall rule, for tests.
    #[cfg(test)]
    pub(crate) direct_blocked: std::sync::atomic::AtomicBool,
    /// Nothing leaves for any peer, by whatever way, while the links go on.
    #[cfg(test)]
    pub(crate) peers_blocked: std::sync::atomic::AtomicBool,
    /// The kernel has no room for what was held.
    #[cfg(test)]
    full: std::sync::atomic::AtomicBool,
}

impl Socket {
    /// Binds one UDP socket to each address, numbered in that order. `max_payload` is the largest QUIC datagram.
    pub(crate) fn bind(
        addrs: &[SocketAddr],
        max_payload: u16,
    ) -> Result<(Arc<Self>, mpsc::Receiver<ToDriver>), (SocketAddr, io::Error)> {
        let own = Own::bind(addrs)?;
        let gro = own
            .list
            .load()
            .iter()
            .map(|socket| socket.gro_segments())
            .max()
            .unwrap_or(1);
        let (inject, injected) = mpsc::channel(recv::INJECT_QUEUE);
        let (driver, to_driver) = mpsc::channel(DRIVER_QUEUE);
        let socket = Self {
            own,
            extra: Extra::default(),
            nat64: Arc::default(),
            tables: Tables::default(),
            counters: Counters::default(),
            receiving: Mutex::new(recv::Receiving::new(injected)),
            inject,
            driver,
            // quinn's receive memory is payload x segments x 32; a buffer of the kernel's is never above 64 KiB.
            max_receive_segments: if max_payload > 1500 { gro.min(8) } else { gro },
            waiting: Waiting::default(),
            #[cfg(test)]
            direct_blocked: std::sync::atomic::AtomicBool::new(false),
            #[cfg(test)]
            peers_blocked: std::sync::atomic::AtomicBool::new(false),
            #[cfg(test)]
            full: std::sync::atomic::AtomicBool::new(false),
        };
        Ok((Arc::new(socket), to_driver))
    }

    /// Where the UDP sockets are bound.
    pub(crate) fn bound(&self) -> impl Iterator<Item = (SocketId, SocketAddr)> + use<> {
        let own = Vec::clone(&self.own.list.load());
        own.into_iter().map(|socket| (socket.id, socket.addr))
    }

    /// Returns when the system had ended a socket and it is bound anew, maybe to another port.
    pub(crate) async fn rebound(&self) {
        self.own.rebound.notified().await;
    }

    /// Waits for sockets beside the own ones that the system ended and that are closed for it.
    pub(crate) async fn extra_ended(&self) -> Vec<SocketId> {
        self.extra.ended().await
    }

    /// Binds sockets anew that the system ends, or closes them, for ever.
    pub(crate) async fn watch(&self) {
        tokio::join!(self.own.watch(), self.extra.watch());
    }

    /// The system has ended a socket: it is bound anew, or closed.
    fn take_out(&self, id: SocketId) {
        if usize::from(id.0) < self.own.list.load().len() {
            self.own.revive();
        } else {
            // It belongs to a path through a hard NAT, which nothing but it could keep.
            self.extra.end(id);
        }
    }

    /// Tries again to bind what could not be bound anew.
    pub(crate) fn revive(&self) {
        if self.own.is_dead() {
            self.own.revive();
        }
    }

    /// Opens sockets for IPv4 beside the endpoint's own, as many as the host has to spare.
    pub(crate) fn open_extra(&self, count: u16) -> Vec<SocketId> {
        // Through NAT64 all IPv4 leaves by one socket.
        if self.nat64.prefix().is_some() {
            return Vec::new();
        }
        self.extra.open(count)
    }

    pub(crate) fn close_extra(&self, sockets: &[SocketId]) {
        self.extra.close(sockets);
    }

    #[cfg(test)]
    pub(crate) fn extra_sockets(&self) -> usize {
        self.extra.len()
    }

    /// Calls `f` with a socket, if it is there.
    fn with_socket<T>(&self, id: SocketId, f: impl FnOnce(&UdpSocket) -> T) -> Option<T> {
        match self.own.list.load().get(usize::from(id.0)) {
            Some(socket) => Some(f(socket)),
            None => self.extra.get(id).map(|socket| f(&socket)),
        }
    }

    /// The socket that reaches destinations of this family.
    pub(crate) fn for_remote(&self, remote: SocketAddr) -> Option<SocketId> {
        self.own
            .list
            .load()
            .iter()
            .find(|socket| socket.addr.is_ipv4() == remote.is_ipv4())
            .map(|socket| socket.id)
    }

    /// Where datagrams for quinn go that did not come by a UDP socket.
    pub(crate) fn inject(&self) -> &mpsc::Sender<Injected> {
        &self.inject
    }

    /// False: there was no room.
    pub(crate) fn to_driver(&self, message: ToDriver) -> bool {
        let sent = self.driver.try_send(message).is_ok();
        if !sent {
            self.counters.driver_full.add();
        }
        sent
    }
}

impl quinn::AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn quinn::UdpPoller>> {
        Box::pin(Poller {
            own: AllWritable::default(),
            extra: AllWritable::default(),
            socket: self,
        })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.send_batch(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.poll_receive(cx, bufs, metas)
    }

    /// Any virtual address: quinn only wants to know that it is IPv6.
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(Virtual::Peer(PeerId(u32::MAX)).to_addr())
    }

    fn max_transmit_segments(&self) -> usize {
        let sockets = self.own.list.load();
        let most = sockets.iter().map(|socket| socket.gso_segments()).max();
        most.unwrap_or(1).min(MAX_SEGMENTS)
    }

    fn max_receive_segments(&self) -> usize {
        self.max_receive_segments
    }

    fn may_fragment(&self) -> bool {
        self.own
            .list
            .load()
            .iter()
            .any(|socket| socket.may_fragment())
    }
}

/// Ready when every UDP socket can send.
struct Poller {
    own: AllWritable,
    extra: AllWritable,
    socket: Arc<Socket>,
}

impl std::fmt::Debug for Poller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Poller").finish_non_exhaustive()
    }
}

impl quinn::UdpPoller for Poller {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { own, extra, socket } = &mut *self;
        std::task::ready!(own.poll(&socket.own.list, cx));
        std::task::ready!(extra.poll(&socket.extra.list, cx));
        Poll::Ready(Ok(()))
    }
}
