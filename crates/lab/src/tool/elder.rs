//! A gateway from before PCP, as far as PCP's requests go: NAT-PMP's answer to what it does not know (RFC 6886 section 3.5).
//! Whatever is of NAT-PMP itself goes to a real server; or, where this one is told an outside address, is answered as by a router
//! at which it is of no consequence: one behind a carrier's NAT gives ports to whoever asks, and nobody comes to them.

use std::net::{Ipv4Addr, UdpSocket};

use anyhow::{Context, Result};

/// Unsupported version.
const RESULT: u8 = 1;
/// Longest message of PCP (RFC 6887 section 7).
const BUFFER: usize = 1100;
/// Seconds since the table was begun.
const EPOCH: [u8; 4] = [0, 0, 0, 1];

/// `elder ADDR [OUTSIDE]`: prints `ready`, answers until ended.
pub(super) fn serve(args: &[String]) -> Result<()> {
    let addr = args.first().context("elder ADDR [OUTSIDE]")?;
    let outside: Option<Ipv4Addr> = args.get(1).map(|ip| ip.parse()).transpose()?;
    let socket = UdpSocket::bind(addr).with_context(|| format!("binding {addr}"))?;
    println!("ready");
    let mut buffer = [0; BUFFER];
    loop {
        let (len, from) = socket.recv_from(&mut buffer)?;
        // Who asks again is answered again.
        if let Some(answer) = answer(&buffer[..len], outside) {
            let _ = socket.send_to(&answer, from);
        }
    }
}

fn answer(asked: &[u8], outside: Option<Ipv4Addr>) -> Option<Vec<u8>> {
    // Version, operation.
    let &[version, operation, ..] = asked else {
        return None;
    };
    let head = |result| [&[0, 128 | operation, 0, result][..], &EPOCH].concat();
    match (version, operation, outside) {
        (0, 0, Some(outside)) => Some([head(0), outside.octets().to_vec()].concat()),
        // Two reserved bytes, inside port, suggested outside port, lifetime: which is 0 to take it back.
        (0, 1, Some(_)) if asked.len() == 12 => {
            let (inside, lifetime) = (&asked[4..6], &asked[8..12]);
            let given = if lifetime == [0; 4] { &[0, 0] } else { inside };
            Some([&head(0), inside, given, lifetime].concat())
        }
        _ => Some(head(RESULT)),
    }
}
