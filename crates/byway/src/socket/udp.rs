//! One real UDP socket.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::{future::Future, pin::Pin};

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
        let io = tokio::net::UdpSocket::from_std(socket.into())?;
        let state = UdpSocketState::new((&io).into())?;
        Ok(Self {
            id,
            addr: io.local_addr()?,
            gso_segments: state.max_gso_segments(),
            io,
            state,
            seen: AtomicBool::new(false),
        })
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

/// Waits until a socket can send; one for each connection, so that all of them are woken.
pub(crate) struct Writable {
    socket: Arc<UdpSocket>,
    waiting: Option<Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>>,
}

impl Writable {
    pub(crate) fn new(socket: Arc<UdpSocket>) -> Self {
        Self {
            socket,
            waiting: None,
        }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.waiting.is_none() {
            // quinn asks before every send, and mostly the answer is yes: ask without an allocation first.
            let ready = std::pin::pin!(self.socket.io.writable());
            if ready
                .poll(&mut Context::from_waker(Waker::noop()))
                .is_ready()
            {
                return Poll::Ready(());
            }
        }
        let waiting = self.waiting.get_or_insert_with(|| {
            let socket = Arc::clone(&self.socket);
            Box::pin(async move { socket.io.writable().await })
        });
        let _ = ready!(waiting.as_mut().poll(cx));
        self.waiting = None;
        Poll::Ready(())
    }
}
