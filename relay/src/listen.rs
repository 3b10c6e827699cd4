//! Binding: for each address one TCP listener and one UDP socket per shard, on one port number.
//!
//! TCP comes first and without SO_REUSEPORT, so the port is ours or the start fails. Two relays in one UDP reuseport
//! group would steal each other's datagrams without any error.

use std::io;
use std::net::SocketAddr;

use crate::inherited::Inherited;
use anyhow::Context;
use socket2::{Domain, Protocol, Socket, Type};

/// Tries for a port that is free for both protocols when any will do.
const TRIES: usize = 32;
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1_024;

/// One address's sockets.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) addr: SocketAddr,
    pub(crate) tcp: std::net::TcpListener,
    pub(crate) udp: Vec<std::net::UdpSocket>,
}

/// Binds all addresses. Those with port 0 share the port that the first of them got.
pub(crate) fn bind_all(
    addrs: &[SocketAddr],
    shards: usize,
    mut inherited: Inherited,
) -> anyhow::Result<Vec<Bound>> {
    anyhow::ensure!(!addrs.is_empty(), "no address to listen on");
    let mut bound: Vec<Bound> = Vec::new();
    let mut picked = 0;
    for addr in addrs {
        let mut wanted = *addr;
        if addr.port() == 0 {
            wanted.set_port(picked);
        }
        let one = bind(wanted, shards, &mut inherited).with_context(|| hint(wanted))?;
        if addr.port() == 0 {
            picked = one.addr.port();
        }
        bound.push(one);
    }
    if let Some(addr) = inherited.left() {
        anyhow::bail!(
            "a socket for {addr} was handed over, and 'listen' does not name that address; make the two agree"
        );
    }
    Ok(bound)
}

fn hint(addr: SocketAddr) -> String {
    let port = addr.port();
    if (1..1024).contains(&port) {
        format!(
            "cannot listen on {addr} (ports below 1024 need root or CAP_NET_BIND_SERVICE; or choose another with --listen)"
        )
    } else {
        format!(
            "cannot listen on {addr} (is another relay running there? choose another with --listen)"
        )
    }
}

fn bind(addr: SocketAddr, shards: usize, inherited: &mut Inherited) -> io::Result<Bound> {
    let mut tries = 0;
    loop {
        tries += 1;
        match bind_once(addr, shards, inherited) {
            Err(e) if e.kind() == io::ErrorKind::AddrInUse && addr.port() == 0 && tries < TRIES => {
            }
            result => return result,
        }
    }
}

fn bind_once(addr: SocketAddr, shards: usize, inherited: &mut Inherited) -> io::Result<Bound> {
    let tcp = match inherited.take_tcp(addr) {
        Some(tcp) => tcp,
        None => tcp(addr)?,
    };
    let addr = tcp.local_addr()?;
    let udp = inherited.take_udp(addr);
    if !udp.is_empty() {
        return Ok(Bound { addr, tcp, udp });
    }
    let udp = (0..shards)
        .map(|_| {
            let udp = socket(addr, Type::DGRAM, Protocol::UDP)?;
            udp.set_reuse_port(true)?;
            udp.bind(&addr.into())?;
            Ok(std::net::UdpSocket::from(udp))
        })
        .collect::<io::Result<_>>()?;
    Ok(Bound { addr, tcp, udp })
}

/// A listener of its own, for TCP alone.
pub(crate) fn bind_tcp(
    addr: SocketAddr,
    what: &str,
) -> anyhow::Result<(SocketAddr, std::net::TcpListener)> {
    let failed = || format!("cannot listen for {what} on {addr}");
    let tcp = tcp(addr).with_context(failed)?;
    Ok((tcp.local_addr().with_context(failed)?, tcp))
}

fn tcp(addr: SocketAddr) -> io::Result<std::net::TcpListener> {
    let tcp = socket(addr, Type::STREAM, Protocol::TCP)?;
    // For a restart while old connections are in TIME_WAIT; does not let two listeners share the port on Linux.
    tcp.set_reuse_address(true)?;
    tcp.bind(&addr.into())?;
    tcp.listen(BACKLOG)?;
    Ok(tcp.into())
}

fn socket(addr: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), kind, Some(protocol))?;
    if addr.is_ipv6() {
        // An IPv4 node comes to the IPv4 listener and is known by its IPv4 address.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}
