//! Over UDP, through one shard. The flood is of small datagrams, in one of two ways ([`Flood`]): twice as many as the shard forwards, which leaves it a
//! processor, as a flood from elsewhere does; or as fast as threads of this machine send, which compete with the shard for its processors as well.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use byway_relay::Server;
use byway_wire::relay::control::Role;
use quinn_udp::{Transmit, UdpSocketState};

use crate::common::udp::{UdpNode, join};
use crate::common::{self};
use crate::typed::{EVERY, FLOOD, KEYSTROKES, LOST, Row, TYPIST};

/// How often a socket is looked at that does not block.
const LOOK: Duration = Duration::from_micros(100);
/// Bytes of each datagram of the flood.
const DATAGRAM: usize = 120;
/// Channels that take turns in one send of [`Flood::Twice`], a datagram each: more than a shard keeps open to send them together again, so that each
/// costs it a send, and the flooder next to nothing.
const CHANNELS: u64 = 20;
/// Datagrams of one send, of the 64 that the kernel takes.
const BATCH: u64 = 60;
/// What [`Flood::Twice`] begins with, in datagrams a second, and by how much it grows until less comes through than of [`ALL`]: what came through at the
/// most is what the shard can do.
const BEGINNING: f64 = 20_000.0;
const GROWTH: f64 = 1.25;
const ALL: f64 = 0.9;
/// How long each of these is looked at.
const STEP: Duration = Duration::from_millis(300);

/// What there is beside who types.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flood {
    None,
    /// At least twice as many datagrams as the shard forwards.
    Twice,
    /// One by one, as fast as so many threads can.
    Threads(usize),
}

/// Beside such a flood.
pub(crate) fn measure(server: &Server, flood: Flood) -> Row {
    // Stands still afterwards: the sockets are ours then. Links outlive half a minute of that, which is longer than a phase.
    let nodes = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (typist, echo, flooder, _sink) = nodes.block_on(async {
        let mut echo = UdpNode::welcome(server, 2, Role::Agent).await;
        let mut sink = UdpNode::welcome(server, 4, Role::Agent).await;
        let mut typist = UdpNode::welcome(server, 1, Role::Client).await;
        let mut flooder = UdpNode::welcome(server, 3, Role::Client).await;
        join(&mut typist, &mut echo, TYPIST).await;
        for channel in FLOOD..FLOOD + CHANNELS {
            join(&mut flooder, &mut sink, channel).await;
        }
        (typist, echo, flooder, sink)
    });
    let stop = Arc::new(AtomicBool::new(false));
    let echoes = {
        let (socket, relay, stop) = (echo.raw(), echo.relay, Arc::clone(&stop));
        thread::spawn(move || send_back(&socket, relay, &stop))
    };
    let (over, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let flooding = &Flooding {
        socket: flooder.raw(),
        relay: flooder.relay,
        over: &over,
        sent: &sent,
    };
    let forwarded = || server.stats().data.udp_out;
    let twice = match flood {
        Flood::Twice => flooding.capacity(forwarded) * 2.0,
        Flood::None | Flood::Threads(_) => 0.0,
    };
    sent.store(0, Ordering::Relaxed);
    let over = || over.load(Ordering::Relaxed);
    let before = server.stats().data;
    let (back, after, time) = thread::scope(|scope| {
        match flood {
            Flood::None => {}
            Flood::Twice => drop(scope.spawn(|| flooding.evenly(twice, over))),
            Flood::Threads(threads) => {
                for _ in 0..threads {
                    scope.spawn(|| flooding.one_by_one());
                }
            }
        }
        let _ends = Ends(flooding.over);
        let began = Instant::now();
        let back = type_on(&typist.raw(), typist.relay);
        (back, server.stats().data, began.elapsed().as_secs_f64())
    });
    stop.store(true, Ordering::Relaxed);
    echoes.join().unwrap();
    let rate = |n: u64| n as f64 / time;
    if flood == Flood::Twice {
        let (sent, forwarded) = (sent.load(Ordering::Relaxed), after.udp_out - before.udp_out);
        assert!(
            sent as f64 > 1.9 * forwarded as f64,
            "{sent} sent, {forwarded} forwarded: no such flood"
        );
    }
    Row {
        back,
        sent: rate(sent.load(Ordering::Relaxed)),
        forwarded: rate(after.udp_out - before.udp_out),
        dropped: rate(after.dropped_share - before.dropped_share),
    }
}

/// Ends the flood with who types, also where that one panics: the scope waits for the flood.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The flooder at work.
struct Flooding<'a> {
    socket: UdpSocket,
    relay: SocketAddr,
    over: &'a AtomicBool,
    sent: &'a AtomicU64,
}

impl Flooding<'_> {
    fn one_by_one(&self) {
        let datagram = common::data(FLOOD, 7, DATAGRAM);
        while !self.over.load(Ordering::Relaxed) {
            if self.socket.send_to(&datagram, self.relay).is_ok() {
                self.sent.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// How many a second the shard forwards at the most, by `forwarded`.
    fn capacity(&self, forwarded: impl Fn() -> u64) -> f64 {
        let (mut most, mut rate) = (0.0_f64, BEGINNING);
        // One step that fails may be a pause of this very thread.
        let mut failed = 0;
        while failed < 2 {
            let (before, began) = (forwarded(), Instant::now());
            self.evenly(rate, || began.elapsed() >= STEP);
            let time = began.elapsed().as_secs_f64();
            let through = (forwarded() - before) as f64 / time;
            most = most.max(through);
            if through < rate * ALL {
                failed += 1;
            } else {
                failed = 0;
            }
            rate *= GROWTH;
        }
        most
    }

    /// Sends so many a second, by the clock, until it is over.
    fn evenly(&self, rate: f64, over: impl Fn() -> bool) {
        let state = UdpSocketState::new((&self.socket).into()).unwrap();
        let contents: Vec<u8> = (0..BATCH)
            .flat_map(|n| common::data(FLOOD + n % CHANNELS, 7, DATAGRAM))
            .collect();
        let transmit = Transmit {
            destination: self.relay,
            ecn: None,
            contents: &contents,
            segment_size: Some(DATAGRAM),
            src_ip: None,
        };
        let (began, mut sent) = (Instant::now(), 0.0);
        while !over() {
            let due = rate * began.elapsed().as_secs_f64();
            while sent < due {
                // What the kernel has no room for was sent as well: the room is the shard's to make.
                let _ = state.try_send((&self.socket).into(), &transmit);
                sent += BATCH as f64;
                self.sent.fetch_add(BATCH, Ordering::Relaxed);
            }
            thread::sleep(LOOK);
        }
    }
}

/// Types, and gives how long each keystroke was away that came back.
fn type_on(socket: &UdpSocket, relay: SocketAddr) -> Vec<Duration> {
    let mut under_way = BTreeMap::new();
    let mut back = Vec::new();
    let began = Instant::now();
    let mut buffer = [0; 2_048];
    let mut typed = 0u32;
    while typed < KEYSTROKES
        || (began.elapsed() < EVERY * KEYSTROKES + LOST && !under_way.is_empty())
    {
        if typed < KEYSTROKES && began.elapsed() >= EVERY * typed {
            let mut datagram = common::data(TYPIST, 0, 60);
            datagram[8..12].copy_from_slice(&typed.to_be_bytes());
            under_way.insert(typed, Instant::now());
            let _ = socket.send_to(&datagram, relay);
            typed += 1;
        }
        match socket.recv(&mut buffer) {
            Ok(n) if n >= 12 && buffer[0] & 0x40 == 0 => {
                let number = u32::from_be_bytes([buffer[8], buffer[9], buffer[10], buffer[11]]);
                let sent: Option<Instant> = under_way.remove(&number);
                back.extend(sent.map(|at| at.elapsed()).filter(|took| *took <= LOST));
            }
            Ok(_) => {}
            Err(_) => thread::sleep(LOOK),
        }
    }
    back
}

fn send_back(socket: &UdpSocket, relay: SocketAddr, stop: &AtomicBool) {
    let mut buffer = [0; 2_048];
    while !stop.load(Ordering::Relaxed) {
        match socket.recv(&mut buffer) {
            Ok(n) if buffer[0] & 0x40 == 0 => {
                let _ = socket.send_to(&buffer[..n], relay);
            }
            Ok(_) => {}
            Err(_) => thread::sleep(LOOK),
        }
    }
}
