//! A gateway's word that it began anew, and has forgotten whom it gave ports to (RFC 6886 section 3.2.1, RFC 6887 section
//! 14.1). Without it a port that a restarted router took back would be missed for half of its lifetime.
//!
//! Anybody on the local network can say so. It has the gateway asked once more for what it should hold already, or for what
//! it did not give before, at most every few seconds.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use socket2::{Domain, Socket, Type};
use tokio::net::UdpSocket;

use super::SHORTEST_RENEWAL;

/// Where hosts listen.
const PORT: u16 = 5350;
/// Every host of the network.
const ALL_HOSTS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
/// Longer than any announcement; of which the beginning counts.
const BUFFER: usize = 64;
/// An answer (of both protocols) to the request with the number 0: NAT-PMP's outside address, PCP's `ANNOUNCE`.
const ANNOUNCED: u8 = 0x80;

#[derive(Debug)]
pub(super) struct Announcements {
    /// None where another program has the port to itself.
    socket: Option<UdpSocket>,
    /// They are looked at from then on: a gateway repeats itself for minutes.
    next: Instant,
}

impl Announcements {
    pub(super) fn listen() -> Self {
        let socket = listen();
        if let Err(error) = &socket {
            tracing::debug!(%error, "a gateway that restarts will not be heard");
        }
        Self {
            socket: socket.ok(),
            next: Instant::now(),
        }
    }

    /// Who announced that it began anew. Never ends where nobody is heard.
    pub(super) async fn heard(&mut self) -> IpAddr {
        let mut buffer = [0; BUFFER];
        loop {
            let Some(socket) = &self.socket else {
                return std::future::pending().await;
            };
            tokio::time::sleep_until(self.next.into()).await;
            match socket.recv_from(&mut buffer).await {
                Ok((len, from)) if is_announcement(&buffer[..len]) => {
                    self.next = Instant::now() + SHORTEST_RENEWAL;
                    return from.ip();
                }
                Ok(_) => {}
                // A socket that receives from anybody has no errors of single datagrams: the system has ended it.
                Err(_) => {
                    *self = Self::listen();
                    self.next = Instant::now() + SHORTEST_RENEWAL;
                }
            }
        }
    }
}

/// NAT-PMP is version 0, PCP version 2.
fn is_announcement(data: &[u8]) -> bool {
    matches!(data, [0 | 2, ANNOUNCED, ..])
}

/// Beside whatever other program listens there.
fn listen() -> std::io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    socket.set_reuse_address(true)?;
    #[cfg(unix)]
    socket.set_reuse_port(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)).into())?;
    // Every host is a member already; some systems want to hear it from the socket too.
    let _ = socket.join_multicast_v4(&ALL_HOSTS, &Ipv4Addr::UNSPECIFIED);
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announcements_of_both_protocols_are_known_and_nothing_else_is() {
        // NAT-PMP: version, opcode, result, epoch, outside address.
        assert!(is_announcement(&[0, 128, 0, 0, 0, 0, 0, 1, 203, 0, 113, 9]));
        // PCP: version, response to ANNOUNCE, ..., epoch.
        let mut pcp = [0; 24];
        pcp[..2].copy_from_slice(&[2, 128]);
        assert!(is_announcement(&pcp));
        for other in [&[2, 129][..], &[0, 0], &[1, 128], &[0], &[]] {
            assert!(!is_announcement(other), "{other:?}");
        }
    }
}
