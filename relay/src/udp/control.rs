//! The socket that the QUIC control endpoint believes in: a queue that the shards fill, and one shard's descriptor to
//! send from.

use std::fmt;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, ready};

use quinn::udp::{EcnCodepoint, RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::sync::mpsc;

use crate::udp::socket::{Socket, sendable};

/// Datagrams of QUIC that may wait for the control endpoint: a few thousand handshakes' worth, 6 MiB at most.
pub(crate) const QUEUE: usize = 4_096;
/// Longest QUIC datagram that the endpoint reads, in bytes: an Ethernet frame's worth, and quinn's own default.
pub(crate) const MAX_DATAGRAM: usize = 1_472;

/// One QUIC datagram on its way from a shard.
#[derive(Debug)]
pub(crate) struct QuicDatagram {
    pub(crate) addr: SocketAddr,
    pub(crate) local_ip: Option<IpAddr>,
    pub(crate) ecn: Option<EcnCodepoint>,
    pub(crate) bytes: Box<[u8]>,
}

pub(crate) struct ControlSocket {
    queue: Mutex<mpsc::Receiver<QuicDatagram>>,
    /// The endpoint outlives the relay by the time its connections take to end; the socket must not.
    socket: Weak<Socket>,
    local: SocketAddr,
    /// When true nothing is sent any more: the relay died, as far as anyone can see.
    dead: Arc<AtomicBool>,
}

impl ControlSocket {
    pub(crate) fn new(
        queue: mpsc::Receiver<QuicDatagram>,
        socket: &Arc<Socket>,
        dead: Arc<AtomicBool>,
    ) -> Arc<Self> {
        Arc::new(Self {
            queue: Mutex::new(queue),
            socket: Arc::downgrade(socket),
            local: socket.local_addr(),
            dead,
        })
    }
}

impl fmt::Debug for ControlSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlSocket").finish_non_exhaustive()
    }
}

impl AsyncUdpSocket for ControlSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable {
            socket: Weak::clone(&self.socket),
            waiting: Mutex::new(None),
        })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if self.dead.load(Ordering::Relaxed) || !sendable(transmit.destination) {
            return Ok(());
        }
        let Some(socket) = self.socket.upgrade() else {
            return Ok(());
        };
        match socket.send_control(transmit) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Err(e),
            // Any other error would end the connection's driver; a lost datagram is QUIC's daily bread.
            _ => Ok(()),
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let room = bufs.len().min(meta.len());
        let mut n = 0;
        while n < room {
            let datagram = match queue.poll_recv(cx) {
                Poll::Ready(Some(datagram)) => datagram,
                // The shards are gone: the endpoint waits for its own end.
                Poll::Ready(None) | Poll::Pending => break,
            };
            let Some(buf) = bufs[n].get_mut(..datagram.bytes.len()) else {
                continue; // Longer than the endpoint takes.
            };
            buf.copy_from_slice(&datagram.bytes);
            meta[n] = RecvMeta {
                addr: datagram.addr,
                len: buf.len(),
                stride: buf.len(),
                ecn: datagram.ecn,
                dst_ip: datagram.local_ip,
            };
            n += 1;
        }
        if n == 0 {
            Poll::Pending
        } else {
            Poll::Ready(Ok(n))
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }
    fn may_fragment(&self) -> bool {
        false
    }
}

type Waiting = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

/// Waits for the descriptor to take more.
struct Writable {
    socket: Weak<Socket>,
    /// Behind a lock only because a poller must be `Sync`.
    waiting: Mutex<Option<Waiting>>,
}

impl fmt::Debug for Writable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writable").finish_non_exhaustive()
    }
}

impl UdpPoller for Writable {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(socket) = self.socket.upgrade() else {
            return Poll::Ready(Ok(()));
        };
        let future =
            waiting.get_or_insert_with(|| Box::pin(async move { socket.writable().await }));
        // An error is no reason to end a connection; the next send will tell.
        let _ = ready!(future.as_mut().poll(cx));
        *waiting = None;
        Poll::Ready(Ok(()))
    }
}
