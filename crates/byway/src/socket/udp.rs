//! One real UDP socket.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker, ready};

use byway_core::io::SocketId;
use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;

/// What the kernel is asked to buffer: 10 ms at 1 Gbit/s and a margin. The kernel caps it (`net.core.rmem_max`).
const BUFFER: usize = 2 * 1024 * 1024;

/// The longest UDP payload IPv4 carries.
pub(crate) const MAX_PAYLOAD: usize = 65_507;

#[derive(Debug)]
pub(crate) struct UdpSocket {
    pub(crate) id: SocketId,
    pub(crate) addr: SocketAddr,
    io: tokio::net::UdpSocket,
    state: UdpSocketState,
    /// As found at the start. quinn-udp lowers its own figure for the whole socket when one destination refuses a batch;
    /// here that is a fact about a route.
    gso_segments: usize,
    /// The runtime has seen the socket writable. Until then, a moment after it was bound, it takes every send for one that
    /// would block.
    seen: AtomicBool,
    /// The system has said that nothing will come of it any more.
    ended: AtomicBool,
    /// The system has reset it: the runtime has to take it anew.
    reset: AtomicBool,
}

impl UdpSocket {
    pub(crate) fn bind(id: SocketId, addr: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
        if addr.is_ipv6() {
            // IPv4 has a socket of its own: no v4-mapped addresses anywhere.
            socket.set_only_v6(true)?;
        }
        // Too little is slower, not wrong.
        let _ = socket.set_recv_buffer_size(BUFFER);
        let _ = socket.set_send_buffer_size(BUFFER);
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        Self::of(id, socket)
    }

    fn of(id: SocketId, socket: Socket) -> io::Result<Self> {
        let io = tokio::net::UdpSocket::from_std(socket.into())?;
        let state = UdpSocketState::new((&io).into())?;
        Ok(Self {
            id,
            addr: io.local_addr()?,
            gso_segments: state.max_gso_segments(),
            io,
            state,
            seen: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            reset: AtomicBool::new(false),
        })
    }

    /// False if the system has ended or reset it.
    pub(crate) fn is_sound(&self) -> bool {
        !self.has_ended() && !self.reset.load(Ordering::Relaxed) && self.has_port()
    }

    fn has_port(&self) -> bool {
        let port = self.io.local_addr().map(|addr| addr.port());
        port.is_ok_and(|port| port == self.addr.port())
    }

    /// Whether this error, of a send or a receive, was the end of it.
    pub(crate) fn ends_by(&self, error: &io::Error) -> bool {
        match error.kind() {
            // What a socket that is connected to nobody says only when the system took it away (iOS, after the app was
            // suspended).
            io::ErrorKind::NotConnected | io::ErrorKind::BrokenPipe => {
                self.ended.store(true, Ordering::Relaxed);
                true
            }
            // Linux says so once, to whoever comes first. A socket that was bound to no certain port loses it, and gets
            // another with what it sends next. One that keeps it counts as always writable with the runtime from then on.
            io::ErrorKind::ConnectionAborted => {
                self.reset.store(true, Ordering::Relaxed);
                true
            }
            _ => false,
        }
    }

    /// True if the system has said so: every further call would only repeat it.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// As if the system had said so.
    #[cfg(test)]
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Returns when the system has something to say that concerns no datagram. Nobody else waits for it: a socket that has
    /// lost its port has nothing to receive, and who only receives sends nothing for a while.
    pub(crate) async fn failed(&self) -> io::Error {
        loop {
            if self.io.ready(Interest::ERROR).await.is_err() {
                // The runtime ends.
                std::future::pending::<()>().await;
            }
            let taken = self.io.try_io(Interest::ERROR, || {
                self.io
                    .take_error()?
                    .ok_or(io::ErrorKind::WouldBlock.into())
            });
            if let Ok(error) = taken {
                return error;
            }
        }
    }

    /// One to take its place: the same where it still has its port, else one at its port, else at any.
    pub(crate) fn renewed(&self) -> io::Result<Self> {
        if !self.has_ended() && self.has_port() {
            return Self::of(self.id, socket2::SockRef::from(&self.io).try_clone()?);
        }
        let any_port = SocketAddr::new(self.addr.ip(), 0);
        Self::bind(self.id, self.addr).or_else(|_| Self::bind(self.id, any_port))
    }

    /// Most segments of one send; 1 without segmentation offload.
    pub(crate) fn gso_segments(&self) -> usize {
        self.gso_segments
    }

    /// Most segments of one received buffer.
    pub(crate) fn gro_segments(&self) -> usize {
        self.state.gro_segments()
    }

    pub(crate) fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }

    /// One `sendmsg`.
    pub(crate) fn send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let send = || self.state.try_send((&self.io).into(), transmit);
        if self.seen.load(Ordering::Relaxed) {
            return self.io.try_io(Interest::WRITABLE, send);
        }
        match self.io.try_io(Interest::WRITABLE, send) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => send(),
            result => {
                self.seen.store(true, Ordering::Relaxed);
                result
            }
        }
    }

    /// Whether it can send, without waiting and without an allocation: quinn asks before every send, and mostly it can.
    pub(crate) fn is_writable(&self) -> bool {
        let ready = std::pin::pin!(self.io.writable());
        let mut nobody = Context::from_waker(Waker::noop());
        ready.poll(&mut nobody).is_ready()
    }

    /// Returns when it can send.
    pub(crate) async fn writable(self: Arc<Self>) {
        // An error is met by who sends.
        let _ = self.io.writable().await;
    }

    /// One `recvmmsg`.
    pub(crate) fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.io.poll_recv_ready(cx))?;
            match self.io.try_io(Interest::READABLE, || {
                self.state.recv((&self.io).into(), bufs, metas)
            }) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_a_dead_socket_says_is_the_end() {
        let ends = |kind: io::ErrorKind| {
            let socket = UdpSocket::bind(SocketId(0), ([127, 0, 0, 1], 0).into()).unwrap();
            (socket.ends_by(&kind.into()), socket.is_sound())
        };
        for kind in [
            io::ErrorKind::NotConnected,
            io::ErrorKind::BrokenPipe,
            io::ErrorKind::ConnectionAborted,
        ] {
            assert_eq!(ends(kind), (true, false), "{kind}");
        }
        // An answer of somebody's to an earlier datagram, by ICMP.
        for kind in [
            io::ErrorKind::ConnectionRefused,
            io::ErrorKind::ConnectionReset,
            io::ErrorKind::HostUnreachable,
        ] {
            assert_eq!(ends(kind), (false, true), "{kind}");
        }
    }

    #[tokio::test]
    async fn one_that_was_reset_and_kept_its_port_goes_on_with_it() {
        let old = UdpSocket::bind(SocketId(0), ([127, 0, 0, 1], 0).into()).unwrap();
        old.ends_by(&io::ErrorKind::ConnectionAborted.into());
        let new = old.renewed().unwrap();
        assert_eq!((new.addr, new.id), (old.addr, old.id));
        assert!(new.is_sound());
        drop(old);
        let peer = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        peer.send_to(b"still here", new.addr).await.unwrap();
        let mut space = [0; 64];
        let mut metas = [RecvMeta::default()];
        let received = std::future::poll_fn(|cx| {
            new.poll_recv(cx, &mut [IoSliceMut::new(&mut space)], &mut metas)
        });
        assert_eq!(received.await.unwrap(), 1);
        assert_eq!(&space[..metas[0].len], b"still here");
    }
}
