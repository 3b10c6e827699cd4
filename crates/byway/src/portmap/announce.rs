//! A gateway's word that it began anew, and has forgotten whom it gave ports to (RFC 6886 section 3.2.1, RFC 6887 section
//! 14.1). Without it a port that a restarted router took back would be missed for half of its lifetime. Which of them counts,
//! [`Judge`] says.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use socket2::{Domain, Socket as Raw, Type};
use tokio::net::UdpSocket;

use super::SHORTEST_RENEWAL;
use super::restart::{Judge, Known, LONGEST};
use crate::socket::Socket;

/// Where hosts listen.
const PORT: u16 = 5350;
/// Every host of the network.
const ALL_HOSTS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
/// Longer than any announcement: what is cut short is none.
const BUFFER: usize = LONGEST + 1;

#[derive(Debug)]
pub(super) struct Announcements {
    /// None where another program has the port to itself.
    socket: Option<UdpSocket>,
    judge: Judge,
    /// They are looked at from then on, after one that counted or after the socket's end.
    next: Instant,
    /// Counts what is refused.
    counts: Arc<Socket>,
}

impl Announcements {
    pub(super) fn listen(counts: Arc<Socket>) -> Self {
        let now = Instant::now();
        Self {
            socket: bound(),
            judge: Judge::new(now),
            next: now,
            counts,
        }
    }

    /// Ends when this gateway announced that it began anew. Never ends where nobody is heard, nor without a gateway.
    pub(super) async fn heard(&mut self, known: Option<Known>) {
        let mut buffer = [0; BUFFER];
        loop {
            let (Some(socket), Some(known)) = (&self.socket, known) else {
                return std::future::pending().await;
            };
            tokio::time::sleep_until(self.next.into()).await;
            match socket.recv_from(&mut buffer).await {
                Ok((len, from)) => {
                    let now = Instant::now();
                    match self.judge.judge(now, known, from, &buffer[..len]) {
                        Ok(()) => {
                            self.next = now + SHORTEST_RENEWAL;
                            return;
                        }
                        Err(refusal) => {
                            tracing::trace!(?refusal, %from, "an announcement");
                            self.counts.counters.announcement_refused.add();
                        }
                    }
                }
                // A socket that receives from anybody has no errors of single datagrams: the system has ended it.
                Err(_) => {
                    self.socket = bound();
                    self.next = Instant::now() + SHORTEST_RENEWAL;
                }
            }
        }
    }
}

fn bound() -> Option<UdpSocket> {
    listen()
        .inspect_err(|error| tracing::debug!(%error, "a gateway that restarts will not be heard"))
        .ok()
}

/// Beside whatever other program listens there.
fn listen() -> std::io::Result<UdpSocket> {
    let socket = Raw::new(Domain::IPV4, Type::DGRAM, None)?;
    socket.set_reuse_address(true)?;
    #[cfg(unix)]
    socket.set_reuse_port(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)).into())?;
    // Every host is a member already; some systems want to hear it from the socket too.
    let _ = socket.join_multicast_v4(&ALL_HOSTS, &Ipv4Addr::UNSPECIFIED);
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket.into())
}
