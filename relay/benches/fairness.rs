//! `cargo bench -p byway-relay --bench fairness`: somebody who types beside somebody who floods, through the same shard. A keystroke each
//! 50 ms goes through the relay and comes back; the flooder sends small datagrams one by one, as fast as a processor can, which is
//! more than a shard forwards. What counts is how many keystrokes are lost, and how much later the slowest come back.
#![allow(
    clippy::unwrap_used,
    reason = "a benchmark that cannot go on must panic"
)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use byway_relay::{Server, ServerConfig};
use byway_wire::relay::control::Role;
use common::udp::{UdpNode, join};

const EVERY: Duration = Duration::from_millis(50);
const KEYSTROKES: u32 = 400;
/// A keystroke that is not back by then is lost.
const LOST: Duration = Duration::from_secs(1);
/// How often a socket is looked at that does not block.
const LOOK: Duration = Duration::from_micros(100);
const TYPIST: u64 = 1;
const FLOOD: u64 = 2;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let mut config = ServerConfig::dev();
    config.shards = 1;
    let server = runtime.block_on(Server::start(config)).unwrap();
    println!(
        "| | keystrokes lost | p50 ms | p99 ms | flood sent /s | flood forwarded /s | shed /s |"
    );
    println!("|---|---|---|---|---|---|---|");
    for flooded in [false, true] {
        // Stands still afterwards: the sockets are ours then. Links outlive half a minute of that, which is longer than a phase.
        let nodes = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let (typist, echo, flooder, _sink) = nodes.block_on(async {
            let mut echo = UdpNode::welcome(&server, 2, Role::Agent).await;
            let mut sink = UdpNode::welcome(&server, 4, Role::Agent).await;
            let mut typist = UdpNode::welcome(&server, 1, Role::Client).await;
            let mut flooder = UdpNode::welcome(&server, 3, Role::Client).await;
            join(&mut typist, &mut echo, TYPIST).await;
            join(&mut flooder, &mut sink, FLOOD).await;
            (typist, echo, flooder, sink)
        });
        let stop = Arc::new(AtomicBool::new(false));
        let echoes = {
            let (socket, relay, stop) = (echo.raw(), echo.relay, Arc::clone(&stop));
            thread::spawn(move || send_back(&socket, relay, &stop))
        };
        let over = Arc::new(AtomicBool::new(!flooded));
        let sent = Arc::new(AtomicU64::new(0));
        let flood = {
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
        };
        let (before, began) = (server.stats().data, Instant::now());
        let back = type_on(&typist.raw(), typist.relay);
        let (after, time) = (server.stats().data, began.elapsed().as_secs_f64());
        over.store(true, Ordering::Relaxed);
        flood.join().unwrap();
        stop.store(true, Ordering::Relaxed);
        echoes.join().unwrap();
        let mut took: Vec<f64> = back.iter().map(|time| time.as_secs_f64() * 1e3).collect();
        took.sort_by(f64::total_cmp);
        let at = |share: usize| {
            took.get(took.len() * share / 100)
                .copied()
                .unwrap_or(f64::NAN)
        };
        let rate = |n: u64| n as f64 / time;
        println!(
            "| {} | {} of {KEYSTROKES} | {:.2} | {:.2} | {:.0} | {:.0} | {:.0} |",
            if flooded { "beside a flood" } else { "alone" },
            KEYSTROKES as usize - back.len(),
            at(50),
            at(99),
            rate(sent.load(Ordering::Relaxed)),
            rate(after.udp_out - before.udp_out),
            rate(after.dropped_share - before.dropped_share),
        );
    }
    runtime.block_on(server.stop());
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
