//! A UDP reflector, and an observer that asks it how its own NAT maps and filters.
//!
//! The reflector holds several sockets. A request is `where` (answered, from the socket asked, with the
//! source address it saw) or `via N` (answered first by socket N, then by the socket asked). The second kind
//! shows filtering without waiting for silence: a cable between namespaces keeps order, so when the answer of
//! the socket asked is in and the other is not, the other was filtered.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// Long enough on cables between namespaces, on a machine that is busy building.
const TIMEOUT: Duration = Duration::from_millis(150);
/// A datagram can be lost on a busy machine; a NAT's drop is repeated each time.
const TRIES: usize = 3;

/// What an observer saw of its NAT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// The observer's own port.
    pub local_port: u16,
    /// How each of the reflector's sockets saw it; none where no answer came.
    pub mapped: Vec<Option<SocketAddr>>,
    /// Whether an answer from each socket came after only the first had been spoken to.
    pub passed: Vec<bool>,
}

impl Observation {
    /// From the observer's line of output.
    pub fn parse(line: &str) -> Result<Self> {
        let json: Value = serde_json::from_str(line)?;
        let addrs = json["mapped"].as_array().context("no mapped")?;
        Ok(Self {
            local_port: u16::try_from(json["local_port"].as_u64().context("no local_port")?)?,
            mapped: addrs
                .iter()
                .map(|a| a.as_str().and_then(|a| a.parse().ok()))
                .collect(),
            passed: json["passed"]
                .as_array()
                .context("no passed")?
                .iter()
                .map(|p| p == true)
                .collect(),
        })
    }
}

/// `reflect ADDR...`: prints `ready`, answers until ended.
pub(super) fn reflect(addrs: &[String]) -> Result<()> {
    let sockets: Vec<UdpSocket> = addrs
        .iter()
        .map(|a| UdpSocket::bind(a).with_context(|| format!("binding {a}")))
        .collect::<Result<_>>()?;
    println!("ready");
    thread::scope(|scope| {
        for own in &sockets {
            scope.spawn(|| answer(own, &sockets));
        }
    });
    Ok(())
}

fn answer(own: &UdpSocket, all: &[UdpSocket]) {
    let mut buffer = [0; 64];
    while let Ok((n, from)) = own.recv_from(&mut buffer) {
        let Ok(request) = std::str::from_utf8(&buffer[..n]) else {
            continue;
        };
        if let Some(other) = request
            .strip_prefix("via ")
            .and_then(|i| all.get(i.parse::<usize>().ok()?))
        {
            let _ = other.send_to(b"other", from);
        }
        let _ = own.send_to(from.to_string().as_bytes(), from);
    }
}

/// `observe LOCAL ADDR...`: prints one JSON object.
pub(super) fn observe(args: &[String]) -> Result<()> {
    let (local, addrs) = args.split_first().context("observe LOCAL ADDR...")?;
    let servers: Vec<SocketAddr> = addrs.iter().map(|a| a.parse()).collect::<Result<_, _>>()?;
    let first = *servers.first().context("observe needs a reflector")?;
    // Filtering first: afterwards the NAT has seen this socket speak to all of them.
    let socket = UdpSocket::bind(local)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    let passed: Vec<bool> = (0..servers.len())
        .map(|i| comes_through(&socket, first, servers[i], i))
        .collect::<Result<_>>()?;
    let mapped: Vec<Option<String>> = servers
        .iter()
        .map(|s| ask(&socket, *s))
        .collect::<Result<_>>()?;
    println!(
        "{}",
        json!({"local_port": socket.local_addr()?.port(), "mapped": mapped, "passed": passed})
    );
    Ok(())
}

/// Whether an answer from `other` comes through after a request to `asked`.
fn comes_through(
    socket: &UdpSocket,
    asked: SocketAddr,
    other: SocketAddr,
    index: usize,
) -> Result<bool> {
    let mut other_came = false;
    for _ in 0..TRIES {
        socket.send_to(format!("via {index}").as_bytes(), asked)?;
        while let Some((text, from)) = receive(socket)? {
            other_came |= from == other && (text == "other");
            if from == asked && text != "other" {
                return Ok(other_came);
            }
        }
    }
    Ok(other_came)
}

fn ask(socket: &UdpSocket, server: SocketAddr) -> Result<Option<String>> {
    for _ in 0..TRIES {
        socket.send_to(b"where", server)?;
        while let Some((text, from)) = receive(socket)? {
            if from == server && text != "other" {
                return Ok(Some(text));
            }
        }
    }
    Ok(None)
}

fn receive(socket: &UdpSocket) -> Result<Option<(String, SocketAddr)>> {
    let mut buffer = [0; 64];
    match socket.recv_from(&mut buffer) {
        Ok((n, from)) => Ok(Some((
            String::from_utf8_lossy(&buffer[..n]).into_owned(),
            from,
        ))),
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(None),
        // A port where nothing listens answers by ICMP, which arrives as this; it is silence for us.
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => Ok(None),
        Err(e) => bail!("receiving: {e}"),
    }
}
