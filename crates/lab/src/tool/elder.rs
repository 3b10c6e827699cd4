//! A gateway from before PCP, as far as PCP's requests go: NAT-PMP's answer to what it does not know (RFC 6886 section 3.5).
//! Whatever is of NAT-PMP itself goes to a real server.

use std::net::UdpSocket;

use anyhow::{Context, Result};

/// Unsupported version.
const RESULT: u8 = 1;
/// Longest message of PCP (RFC 6887 section 7).
const BUFFER: usize = 1100;

/// `elder ADDR`: prints `ready`, answers until ended.
pub(super) fn serve(args: &[String]) -> Result<()> {
    let addr = args.first().context("elder ADDR")?;
    let socket = UdpSocket::bind(addr).with_context(|| format!("binding {addr}"))?;
    println!("ready");
    let mut buffer = [0; BUFFER];
    loop {
        let (len, from) = socket.recv_from(&mut buffer)?;
        if len >= 2 {
            // Version, opcode of an answer, result, seconds since the table was begun.
            let answer = [0, 128 | buffer[1], 0, RESULT, 0, 0, 0, 1];
            // Who asks again is answered again.
            let _ = socket.send_to(&answer, from);
        }
    }
}
