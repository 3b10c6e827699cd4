//! `sink ADDR` and `stream ADDR COUNT GAP_US SIZE`: numbered datagrams, and when each came, to measure a link with.
//!
//! The two are processes on one machine and have one clock. A datagram is its number, the time it was sent and zeros up to
//! SIZE, which is that of the IP packet.

use std::net::{SocketAddr, UdpSocket};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};

/// Number and time.
const HEADER: usize = 16;
/// IPv4 and UDP without options.
const ABOVE_PAYLOAD: usize = 28;

/// A datagram that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Its number, from 0.
    pub number: u64,
    /// When it was sent, on the machine's clock.
    pub sent: Duration,
    /// From there to here.
    pub took: Duration,
    /// Bytes of the IP packet.
    pub size: usize,
}

impl Arrival {
    /// From a line of the sink's.
    pub fn parse(line: &str) -> Result<Self> {
        let words: Vec<u64> = line.split(' ').map(str::parse).collect::<Result<_, _>>()?;
        let [number, sent, took, size] = words[..] else {
            bail!("{line}: four numbers are an arrival");
        };
        Ok(Self {
            number,
            sent: Duration::from_micros(sent),
            took: Duration::from_micros(took),
            size: usize::try_from(size)?,
        })
    }
}

/// Prints `ready`, then a line for each datagram until ended.
pub(super) fn sink(args: &[String]) -> Result<()> {
    let [addr] = args else { bail!("sink ADDR") };
    let socket = UdpSocket::bind(addr).with_context(|| format!("binding {addr}"))?;
    println!("ready");
    // Whoever reads the lines must not hold up the socket, whose buffer is short.
    let (noted, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in lines {
            println!("{line}");
        }
    });
    let mut buffer = [0; 2_048];
    loop {
        let n = socket.recv(&mut buffer)?;
        let now = clock()?;
        let Some((number, sent)) = parse(&buffer[..n]) else {
            continue;
        };
        let took = now.saturating_sub(sent).as_micros();
        let size = n + ABOVE_PAYLOAD;
        noted.send(format!("{number} {} {took} {size}", sent.as_micros()))?;
    }
}

/// Sends them, evenly over time: what is late is not made up for by a burst that the caller did not ask for, unless GAP_US is 0.
pub(super) fn stream(args: &[String]) -> Result<()> {
    let [addr, count, gap, size] = args else {
        bail!("stream ADDR COUNT GAP_US SIZE");
    };
    let addr: SocketAddr = addr.parse()?;
    let (count, gap): (u64, u64) = (count.parse()?, gap.parse()?);
    let size: usize = size.parse()?;
    ensure!(size >= HEADER + ABOVE_PAYLOAD, "{size} bytes are too few");
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    let mut datagram = vec![0; size - ABOVE_PAYLOAD];
    let gap = Duration::from_micros(gap);
    let mut next = Instant::now();
    for number in 0..count {
        thread::sleep(next.saturating_duration_since(Instant::now()));
        datagram[..8].copy_from_slice(&number.to_be_bytes());
        let now = u64::try_from(clock()?.as_micros())?;
        datagram[8..HEADER].copy_from_slice(&now.to_be_bytes());
        socket.send_to(&datagram, addr)?;
        next = (next + gap).max(Instant::now());
    }
    Ok(())
}

fn clock() -> Result<Duration> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?)
}

fn parse(datagram: &[u8]) -> Option<(u64, Duration)> {
    let number = datagram.get(..8)?.try_into().ok()?;
    let sent = datagram.get(8..HEADER)?.try_into().ok()?;
    let sent = Duration::from_micros(u64::from_be_bytes(sent));
    Some((u64::from_be_bytes(number), sent))
}
