//! `cargo bench -p byway-relay --bench forward`: what forwarding costs a UDP shard, beside a bare forwarder (receive with GRO, send with
//! GSO, look at nothing) in the same run. One sender keeps either of them busy over loopback; what counts is the CPU time of the thread that
//! forwards, for each GiB and each datagram that it sent. Nobody reads what arrives, in either case.
#![allow(
    clippy::unwrap_used,
    reason = "a benchmark that cannot go on must panic"
)]

#[path = "../tests/common/mod.rs"]
mod common;
mod shared;

use std::io::IoSliceMut;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use byway_relay::{Server, ServerConfig};
use byway_wire::relay::control::Role;
use common::udp::{UdpNode, join};
use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};
use shared::cpu_seconds;

/// How long each case is measured.
const TIME: Duration = Duration::from_secs(3);
/// Rounds, in turn, of which the median counts.
const ROUNDS: usize = 3;
const BUFFER: usize = 65_535;

/// What the sender sends.
#[derive(Clone, Copy)]
struct Load {
    /// Bytes of a datagram, the relay's header included.
    datagram: usize,
    /// Datagrams of one send.
    batch: usize,
    /// Channels that take turns, a send each.
    channels: u64,
}

/// What a forwarder did.
#[derive(Clone, Copy)]
struct Done {
    cpu: f64,
    time: f64,
    datagrams: f64,
    bytes: f64,
}

impl Done {
    fn cpu_per_gib(self) -> f64 {
        self.cpu / (self.bytes / (1u64 << 30) as f64)
    }
    fn per_second(self) -> f64 {
        self.datagrams / self.time
    }
}

fn main() {
    let loads = [
        (
            "1,452 bytes, 44 a send, 1 channel",
            Load {
                datagram: 1_452,
                batch: 44,
                channels: 1,
            },
        ),
        (
            "1,452 bytes, 16 a send, 4 channels",
            Load {
                datagram: 1_452,
                batch: 16,
                channels: 4,
            },
        ),
        (
            "1,452 bytes, 4 a send, 20 channels",
            Load {
                datagram: 1_452,
                batch: 4,
                channels: 20,
            },
        ),
        (
            "120 bytes, 16 a send, 1 channel",
            Load {
                datagram: 120,
                batch: 16,
                channels: 1,
            },
        ),
        (
            "120 bytes, one by one",
            Load {
                datagram: 120,
                batch: 1,
                channels: 1,
            },
        ),
    ];
    println!(
        "| load | relay CPU-s/GiB | bare CPU-s/GiB | ratio | relay datagrams/s | bare datagrams/s | ratio |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (name, load) in loads {
        let (mut relay, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            bare.push(through_bare(load));
            relay.push(through_relay(load));
        }
        let cpu = |of: &[Done]| median(of.iter().map(|d| d.cpu_per_gib()).collect());
        let rate = |of: &[Done]| median(of.iter().map(|d| d.per_second()).collect());
        println!(
            "| {name} | {:.2} | {:.2} | {:.2} | {:.0} | {:.0} | {:.2} |",
            cpu(&relay),
            cpu(&bare),
            cpu(&relay) / cpu(&bare),
            rate(&relay),
            rate(&bare),
            rate(&relay) / rate(&bare)
        );
    }
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// CPU seconds of this process's threads of that name.
fn cpu_of(name: &str) -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let tasks = tasks.map(|task| task.unwrap().path());
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    tasks
        .filter(|task| read(task.join("comm")).trim() == name)
        .map(|task| cpu_seconds(&read(task.join("stat"))))
        .sum()
}

/// Keeps whoever is at `to` busy until told to stop.
fn send(
    socket: UdpSocket,
    to: SocketAddr,
    load: Load,
    stop: Arc<AtomicBool>,
) -> thread::JoinHandle<()> {
    let state = UdpSocketState::new((&socket).into()).unwrap();
    let sends: Vec<Vec<u8>> = (1..=load.channels)
        .map(|channel| common::data(channel, 7, load.datagram).repeat(load.batch))
        .collect();
    thread::spawn(move || {
        for contents in sends.iter().cycle() {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let transmit = Transmit {
                destination: to,
                ecn: None,
                contents,
                segment_size: (load.batch > 1).then_some(load.datagram),
                src_ip: None,
            };
            // A full buffer is the receiver's to empty.
            if state.try_send((&socket).into(), &transmit).is_err() {
                thread::yield_now();
            }
        }
    })
}

fn through_relay(load: Load) -> Done {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let mut config = ServerConfig::dev();
    config.shards = 1;
    let server = runtime.block_on(Server::start(config)).unwrap();
    // A runtime that stands still while it is measured, so that nobody reads what arrives.
    let nodes = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (_agent, client) = nodes.block_on(async {
        let mut agent = UdpNode::welcome(&server, 2, Role::Agent).await;
        let mut client = UdpNode::welcome(&server, 1, Role::Client).await;
        for channel in 1..=load.channels {
            join(&mut client, &mut agent, channel).await;
        }
        (agent, client)
    });
    let stop = Arc::new(AtomicBool::new(false));
    let sender = send(client.raw(), client.relay, load, Arc::clone(&stop));
    thread::sleep(TIME / 6);
    let (cpu, before, began) = (cpu_of("udp-0-0"), server.stats().data, Instant::now());
    thread::sleep(TIME);
    let (after, time) = (server.stats().data, began.elapsed().as_secs_f64());
    let cpu = cpu_of("udp-0-0") - cpu;
    stop.store(true, Ordering::Relaxed);
    sender.join().unwrap();
    runtime.block_on(server.stop());
    Done {
        cpu,
        time,
        datagrams: (after.udp_out - before.udp_out) as f64,
        bytes: (after.udp_out_bytes - before.udp_out_bytes) as f64,
    }
}

fn through_bare(load: Load) -> Done {
    let bind = || UdpSocket::bind("127.0.0.1:0").unwrap();
    let (from, middle, sink) = (bind(), bind(), bind());
    // Where nobody takes merged datagrams, the kernel takes them apart at the forwarder's expense; a node's socket takes them.
    let _ = UdpSocketState::new((&sink).into()).unwrap();
    let (to, out) = (middle.local_addr().unwrap(), sink.local_addr().unwrap());
    let stop = Arc::new(AtomicBool::new(false));
    let counts = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
    let forwarder = {
        let (stop, counts) = (Arc::clone(&stop), Arc::clone(&counts));
        thread::Builder::new()
            .name("bare".into())
            .spawn(move || forward(&middle, out, &stop, &counts))
            .unwrap()
    };
    from.set_nonblocking(true).unwrap();
    let sender = send(from, to, load, Arc::clone(&stop));
    thread::sleep(TIME / 6);
    let read = |n: usize| counts[n].load(Ordering::Relaxed) as f64;
    let (cpu, datagrams, bytes, began) = (cpu_of("bare"), read(0), read(1), Instant::now());
    thread::sleep(TIME);
    let (cpu, time) = (cpu_of("bare") - cpu, began.elapsed().as_secs_f64());
    let done = Done {
        cpu,
        time,
        datagrams: read(0) - datagrams,
        bytes: read(1) - bytes,
    };
    stop.store(true, Ordering::Relaxed);
    sender.join().unwrap();
    forwarder.join().unwrap();
    done
}

/// Passes on what comes in, as it came.
fn forward(socket: &UdpSocket, to: SocketAddr, stop: &AtomicBool, counts: &[AtomicU64; 2]) {
    let state = UdpSocketState::new(socket.into()).unwrap();
    let _ = state.set_recv_buffer_size(socket.into(), 15 * 512 * 1024);
    let _ = state.set_send_buffer_size(socket.into(), 15 * 512 * 1024);
    // `quinn-udp` makes it non-blocking: what waits for the descriptor is a runtime, as in the relay.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let io = tokio::net::UdpSocket::from_std(socket.try_clone().unwrap()).unwrap();
        let mut memory = vec![0; BUFFER * BATCH_SIZE];
        let mut meta = [RecvMeta::default(); BATCH_SIZE];
        while !stop.load(Ordering::Relaxed) {
            let received = {
                let mut chunks = memory.chunks_mut(BUFFER);
                let mut buffers: [IoSliceMut<'_>; BATCH_SIZE] =
                    std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap()));
                let receive = io.async_io(tokio::io::Interest::READABLE, || {
                    state.recv((&io).into(), &mut buffers, &mut meta)
                });
                match tokio::time::timeout(Duration::from_millis(100), receive).await {
                    Ok(received) => received.unwrap(),
                    Err(_) => continue,
                }
            };
            for (buffer, meta) in memory.chunks(BUFFER).zip(&meta[..received]) {
                let transmit = Transmit {
                    destination: to,
                    ecn: meta.ecn,
                    contents: &buffer[..meta.len],
                    segment_size: (meta.len > meta.stride).then_some(meta.stride),
                    src_ip: None,
                };
                if io
                    .try_io(tokio::io::Interest::WRITABLE, || {
                        state.try_send((&io).into(), &transmit)
                    })
                    .is_ok()
                {
                    counts[0].fetch_add(meta.len.div_ceil(meta.stride) as u64, Ordering::Relaxed);
                    counts[1].fetch_add(meta.len as u64, Ordering::Relaxed);
                }
            }
        }
    });
}
