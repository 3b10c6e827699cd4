//! `punch REFLECTOR OWN_FILE PEER_FILE HELD_BACK_MS`: the least that hole punching needs, to check that two
//! NATs of the laboratory can (or cannot) be crossed at all. Its mapped address goes into one file, the peer's
//! comes out of the other; it sends there and says whether a datagram came from the other side that shows it
//! had heard ours. Held back, it lets the peer's packets hit its router for so long before it sends its first.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process::poll;

/// A hole opens within a round trip of both sides having sent; this is a thousand of the laboratory's.
const PATIENCE: Duration = Duration::from_millis(1_500);

pub(super) fn punch(args: &[String]) -> Result<()> {
    let [reflector, own_file, peer_file, held_back] = args else {
        bail!("punch REFLECTOR OWN_FILE PEER_FILE HELD_BACK_MS")
    };
    let held_back = Duration::from_millis(held_back.parse()?);
    let reflector: SocketAddr = reflector.parse()?;
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    // Short, so that sending goes on while nothing comes.
    socket.set_read_timeout(Some(Duration::from_millis(10)))?;
    let mapped = poll("answer of the reflector", PATIENCE, || {
        socket.send_to(b"where", reflector)?;
        Ok(receive(&socket)
            .filter(|(_, from)| *from == reflector)
            .map(|(text, _)| text))
    })?;
    // Whole or not at all: the other side polls for it.
    fs::write(format!("{own_file}.part"), &mapped)?;
    fs::rename(format!("{own_file}.part"), own_file)?;
    let peer: SocketAddr = poll("address of the peer", Duration::from_secs(10), || {
        Ok(fs::read_to_string(peer_file).ok())
    })?
    .parse()
    .context("the peer's address")?;

    let start = Instant::now();
    while start.elapsed() < held_back {
        if receive(&socket).is_some_and(|(_, from)| from == peer) {
            bail!("a stray packet came through the filter");
        }
    }
    let end = Instant::now() + PATIENCE;
    let (mut heard, mut crossed) = (false, false);
    while Instant::now() < end {
        // `heard` tells the peer that its own datagrams arrive.
        socket.send_to(if heard { b"heard" } else { b"hello" }, peer)?;
        if let Some((text, from)) = receive(&socket).filter(|(_, from)| *from == peer) {
            heard |= from == peer;
            crossed |= text == "heard";
        }
        if crossed && heard {
            // Once more, for a peer that has not been told yet.
            socket.send_to(b"heard", peer)?;
            break;
        }
    }
    println!("{}", if crossed { "crossed" } else { "not crossed" });
    Ok(())
}

fn receive(socket: &UdpSocket) -> Option<(String, SocketAddr)> {
    let mut buffer = [0; 64];
    let (n, from) = socket.recv_from(&mut buffer).ok()?;
    Some((String::from_utf8_lossy(&buffer[..n]).into_owned(), from))
}
