//! Over UDP, through one shard. The flooder sends small datagrams one by one, as fast as one thread can, which is half as much again as a shard forwards;
//! or as two can, which leave the shard less than a processor.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use byway_relay::Server;
use byway_wire::relay::control::Role;

use crate::common::udp::{UdpNode, join};
use crate::common::{self};
use crate::typed::{EVERY, FLOOD, KEYSTROKES, LOST, Row, TYPIST};

/// How often a socket is looked at that does not block.
const LOOK: Duration = Duration::from_micros(100);

/// Beside a flood by so many threads.
pub(crate) fn measure(server: &Server, flooders: usize) -> Row {
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
        join(&mut flooder, &mut sink, FLOOD).await;
        (typist, echo, flooder, sink)
    });
    let stop = Arc::new(AtomicBool::new(false));
    let echoes = {
        let (socket, relay, stop) = (echo.raw(), echo.relay, Arc::clone(&stop));
        thread::spawn(move || send_back(&socket, relay, &stop))
    };
    let over = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(AtomicU64::new(0));
    let floods: Vec<_> = (0..flooders)
        .map(|_| {
            let (socket, relay) = (flooder.raw(), flooder.relay);
            let (over, sent) = (Arc::clone(&over), Arc::clone(&sent));
            thread::spawn(move || {
                let datagram = common::data(FLOOD, 7, 120);
                while !over.load(Ordering::Relaxed) {
                    if socket.send_to(&datagram, relay).is_ok() {
                        sent.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    let (before, began) = (server.stats().data, Instant::now());
    let back = type_on(&typist.raw(), typist.relay);
    let (after, time) = (server.stats().data, began.elapsed().as_secs_f64());
    over.store(true, Ordering::Relaxed);
    for flood in floods {
        flood.join().unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    echoes.join().unwrap();
    let rate = |n: u64| n as f64 / time;
    Row {
        back,
        sent: rate(sent.load(Ordering::Relaxed)),
        forwarded: rate(after.udp_out - before.udp_out),
        dropped: rate(after.dropped_share - before.dropped_share),
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
