//! Sockets that whoever started the process had bound before (systemd's socket activation, `sd_listen_fds(3)`).
//!
//! They stay bound while the process is replaced: connections wait in their backlog, datagrams in their buffers, and no port needs a
//! privilege of the relay's own. An address has as many UDP shards as it was handed UDP sockets, because a socket of another user
//! cannot join their group.

use std::net::{SocketAddr, TcpListener, UdpSocket};

use anyhow::Context;
use socket2::SockRef;

/// Sockets handed over, by their addresses.
#[derive(Debug, Default)]
pub struct Inherited {
    tcp: Vec<(SocketAddr, TcpListener)>,
    udp: Vec<(SocketAddr, UdpSocket)>,
}

impl Inherited {
    /// What the environment names (`LISTEN_FDS`); nothing where it names nothing. It is to be called once, at the start, for it
    /// takes the sockets, and the variables out of the environment.
    pub fn from_env() -> anyhow::Result<Self> {
        let mut given = listenfd::ListenFd::from_env();
        let mut inherited = Self::default();
        for n in 0..given.len() {
            if let Ok(Some(tcp)) = given.take_tcp_listener(n) {
                inherited.add_tcp(tcp)?;
            } else if let Ok(Some(udp)) = given.take_udp_socket(n) {
                inherited.add_udp(udp)?;
            } else {
                anyhow::bail!(
                    "of the sockets that were handed over, number {} is neither TCP nor UDP; \
                     give the relay ListenStream= and ListenDatagram= with addresses",
                    n + 1
                );
            }
        }
        Ok(inherited)
    }

    fn add_tcp(&mut self, tcp: TcpListener) -> anyhow::Result<()> {
        let addr = tcp
            .local_addr()
            .context("a socket that was handed over has no address")?;
        anyhow::ensure!(
            SockRef::from(&tcp).is_listener()?,
            "the socket for {addr} that was handed over does not listen"
        );
        tcp.set_nonblocking(true)?;
        self.tcp.push((addr, tcp));
        Ok(())
    }

    fn add_udp(&mut self, udp: UdpSocket) -> anyhow::Result<()> {
        let addr = udp
            .local_addr()
            .context("a socket that was handed over has no address")?;
        udp.set_nonblocking(true)?;
        self.udp.push((addr, udp));
        Ok(())
    }

    pub(crate) fn take_tcp(&mut self, addr: SocketAddr) -> Option<TcpListener> {
        let at = self.tcp.iter().position(|(a, _)| *a == addr)?;
        Some(self.tcp.remove(at).1)
    }
    pub(crate) fn take_udp(&mut self, addr: SocketAddr) -> Vec<UdpSocket> {
        let (of, others) = std::mem::take(&mut self.udp)
            .into_iter()
            .partition(|(a, _)| *a == addr);
        self.udp = others;
        let of: Vec<(SocketAddr, UdpSocket)> = of;
        of.into_iter().map(|(_, udp)| udp).collect()
    }
    /// An address for which a socket was handed over that nobody took.
    pub(crate) fn left(&self) -> Option<SocketAddr> {
        let tcp = self.tcp.iter().map(|(addr, _)| *addr);
        tcp.chain(self.udp.iter().map(|(addr, _)| *addr)).next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_found_by_their_address_and_what_nobody_takes_is_told() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = tcp.local_addr().unwrap();
        let mut inherited = Inherited::default();
        inherited.add_tcp(tcp).unwrap();
        inherited.add_udp(UdpSocket::bind(addr).unwrap()).unwrap();
        assert_eq!(inherited.left(), Some(addr));
        assert!(inherited.take_tcp("127.0.0.1:1".parse().unwrap()).is_none());
        assert!(inherited.take_tcp(addr).is_some());
        assert_eq!(inherited.left(), Some(addr));
        assert_eq!(inherited.take_udp(addr).len(), 1);
        assert_eq!(inherited.left(), None);
    }

    #[test]
    fn a_tcp_socket_that_does_not_listen_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let stream = TcpListener::from(std::os::fd::OwnedFd::from(stream));
        let error = Inherited::default().add_tcp(stream).unwrap_err();
        assert!(error.to_string().contains("does not listen"), "{error}");
    }
}
