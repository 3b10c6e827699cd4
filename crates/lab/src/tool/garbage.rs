//! `garbage ADDR DATAGRAMS CONNECTIONS`: what the internet throws at an open port, a bounded amount of it: datagrams
//! of noise that begin like each of the formats a node or relay speaks, and TCP connections that send noise or
//! nothing and linger. Prints `done` and keeps the silent connections until ended.

use std::io::Write;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::noise::Noise;

/// First bytes of every kind of datagram, and of none.
const FIRST: [u8; 10] = [0x00, 0x01, 0x40, 0x80, 0x81, 0x82, 0x83, 0x90, 0xc0, 0xff];
/// Sends this many before it lets others have the processor: a flood would only measure the machine.
const BURST: u64 = 64;

pub(super) fn throw(args: &[String]) -> Result<()> {
    let [addr, datagrams, connections] = args else {
        bail!("garbage ADDR DATAGRAMS CONNECTIONS")
    };
    let addr: SocketAddr = addr.parse()?;
    let datagrams: u64 = datagrams.parse()?;
    let connections: usize = connections.parse()?;
    let mut noise = Noise::new();
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    for n in 0..datagrams {
        let len = usize::try_from(noise.next() % 1_452)?;
        let mut datagram = noise.bytes(len);
        if let Some(first) = datagram.first_mut() {
            *first = FIRST[usize::try_from(n)? % FIRST.len()];
        }
        // Half of those that look like STUN get the cookie, so that they are looked into.
        if n % 20 < 2 && datagram.len() >= 20 {
            datagram[4..8].copy_from_slice(&0x2112_a442_u32.to_be_bytes());
        }
        // A full buffer or an answer by ICMP is of no interest.
        let _ = socket.send_to(&datagram, addr);
        if n % BURST == 0 {
            thread::sleep(Duration::from_millis(1));
        }
    }
    let mut open = Vec::new();
    for n in 0..connections {
        let mut stream =
            TcpStream::connect_timeout(&addr, Duration::from_secs(2)).context("connecting")?;
        match n % 3 {
            // Says nothing.
            0 => {}
            // Not TLS.
            1 => drop(stream.write_all(&noise.bytes(300))),
            // A TLS record header that promises more than comes.
            _ => drop(stream.write_all(&[0x16, 0x03, 0x01, 0x40, 0x00, 0x01])),
        }
        open.push(stream);
    }
    println!("done");
    loop {
        thread::park();
    }
}
