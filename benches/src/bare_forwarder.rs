//! The least that a relay could be: datagrams from one side go out to the other, as they came.
//!
//! It has a port for either side, and knows of a side nothing but the address that its first datagram came from. It receives
//! with GRO and sends with GSO, as everybody here does; looks at nothing; and waits where the kernel has no room, so that it
//! drops nothing itself.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;

use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Where the side that listens finds it, and where the side that dials does.
pub const PORTS: [u16; 2] = [4433, 4434];
/// The largest that a receive can put together.
const BUFFER: usize = 65_535;
/// As much as Byway's relay asks for.
const ROOM: usize = 15 * 512 * 1024;

/// One port, and who is on its side.
#[derive(Debug)]
struct Side {
    io: UdpSocket,
    state: UdpSocketState,
    heard_from: OnceLock<SocketAddr>,
}

impl Side {
    fn bind(addr: SocketAddr) -> io::Result<Self> {
        let socket = std::net::UdpSocket::bind(addr)?;
        let state = UdpSocketState::new((&socket).into())?;
        // Less is given where the system allows no more.
        let _ = state.set_recv_buffer_size((&socket).into(), ROOM);
        let _ = state.set_send_buffer_size((&socket).into(), ROOM);
        Ok(Self {
            io: UdpSocket::from_std(socket)?,
            state,
            heard_from: OnceLock::new(),
        })
    }

    async fn receive(
        &self,
        memory: &mut [u8],
        meta: &mut [RecvMeta; BATCH_SIZE],
    ) -> io::Result<usize> {
        let mut chunks = memory.chunks_mut(BUFFER);
        let mut buffers: [IoSliceMut<'_>; BATCH_SIZE] =
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        self.io
            .async_io(Interest::READABLE, || {
                self.state.recv((&self.io).into(), &mut buffers, meta)
            })
            .await
    }

    async fn send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.io
            .async_io(Interest::WRITABLE, || {
                self.state.try_send((&self.io).into(), transmit)
            })
            .await
    }
}

/// Forwards at an address of this host until a socket fails; `ready` is called once it is bound.
pub async fn run(ip: IpAddr, ready: impl FnOnce()) -> io::Result<()> {
    let [listening, dialling] = PORTS.map(|port| Side::bind(SocketAddr::new(ip, port)));
    let (listening, dialling) = (&listening?, &dialling?);
    ready();
    tokio::try_join!(pass(listening, dialling), pass(dialling, listening))?;
    Ok(())
}

/// What comes on one side goes out on the other, if anybody is there.
async fn pass(from: &Side, to: &Side) -> io::Result<()> {
    let mut memory = vec![0; BUFFER * BATCH_SIZE];
    let mut meta = [RecvMeta::default(); BATCH_SIZE];
    loop {
        let received = from.receive(&mut memory, &mut meta).await?;
        for (buffer, meta) in memory.chunks(BUFFER).zip(&meta[..received]) {
            from.heard_from.get_or_init(|| meta.addr);
            let Some(&destination) = to.heard_from.get() else {
                continue;
            };
            let transmit = Transmit {
                destination,
                ecn: meta.ecn,
                contents: &buffer[..meta.len],
                segment_size: (meta.len > meta.stride).then_some(meta.stride),
                src_ip: None,
            };
            to.send(&transmit).await?;
        }
    }
}
