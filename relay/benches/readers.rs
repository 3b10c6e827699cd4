//! `cargo bench -p byway-relay --bench readers -- [READERS]`: what nodes cost that stop reading. A relay process of its own, whose stalled links are
//! kept (they end after two seconds by default); all readers have a TLS link and a channel to one sender, who sends to all of them as fast as the relay
//! reads. Counted is what the relay holds for them, in its own memory and in the kernel's, beside what the idle links took. Somebody types meanwhile.
#![allow(
    clippy::unwrap_used,
    reason = "a benchmark that cannot go on must panic"
)]

#[path = "../tests/common/mod.rs"]
mod common;
mod shared;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use byway_wire::relay::control::Role;
use byway_wire::relay::frame::Frame;
use common::tls::{Socket, TlsNode, join};
use common::{channel, typist};
use futures_util::SinkExt;
use shared::Relay;
use tokio::task::JoinSet;
use tokio_websockets::Message;

const READERS: u32 = 1_000;
/// The channels of the readers begin here, and so do their numbers.
const FIRST: u32 = 1_000;
const TYPIST: u64 = 1;
const EVERY: Duration = Duration::from_millis(50);
const KEYSTROKES: u32 = 200;
const LOST: Duration = Duration::from_secs(1);
/// How often memory is read.
const LOOK: Duration = Duration::from_millis(250);
/// Bytes of a frame: a batch of eleven datagrams.
const FRAME: usize = 16 * 1024;
/// Frames between two flushes.
const BURST: u64 = 16;

#[tokio::main]
async fn main() {
    let readers = std::env::args().find_map(|arg| arg.parse().ok());
    let readers: u32 = readers.unwrap_or(READERS);
    assert!(
        (1..=1_000).contains(&readers),
        "one process has 1,024 channels"
    );
    shared::raise_descriptors();
    let relay = Relay::start(&["--max-stall-seconds", "60"]);
    let mut tasks = JoinSet::new();
    let mut echo = node(&relay, 2, Role::Agent).await;
    let mut typing = node(&relay, 1, Role::Client).await;
    join(&mut typing, &mut echo, 2, TYPIST).await;
    tasks.spawn(typist::send_back(echo.ws, TYPIST));
    let mut sender = node(&relay, 3, Role::Client).await;
    let mut held = Vec::new();
    for n in FIRST..FIRST + readers {
        let mut reader = node(&relay, n, Role::Agent).await;
        join(&mut sender, &mut reader, n, n.into()).await;
        held.push(reader);
    }
    println!(
        "| | KiB a reader, the relay's | the kernel's | both | keystrokes lost | p50 ms | p99 ms |"
    );
    println!("|---|---|---|---|---|---|---|");
    // What handshakes left behind is given back.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut bench = Bench {
        idle: Memory::of(&relay),
        relay,
        readers,
        typing: typing.ws,
    };
    bench.measure("idle").await;
    let sent = Arc::<AtomicU64>::default();
    tasks.spawn(flood(sender.ws, readers, Arc::clone(&sent)));
    bench.measure("nobody reads").await;
    println!(
        "\n{} MiB sent",
        (sent.load(Ordering::Relaxed) * FRAME as u64) >> 20
    );
    // Before the relay ends, for which they are not made.
    tasks.shutdown().await;
    drop(held);
}

struct Bench {
    relay: Relay,
    idle: Memory,
    readers: u32,
    typing: Socket,
}

impl Bench {
    /// The most that is held while somebody types.
    async fn measure(&mut self, name: &str) {
        let mut most = Memory::default();
        let back = {
            let typist = typist::type_on(&mut self.typing, TYPIST, (EVERY, KEYSTROKES), LOST);
            tokio::pin!(typist);
            let mut looks = tokio::time::interval(LOOK);
            loop {
                tokio::select! {
                    back = &mut typist => break back,
                    _ = looks.tick() => {
                        let now = Memory::of(&self.relay);
                        most.own = most.own.max(now.own.saturating_sub(self.idle.own));
                        most.kernel = most.kernel.max(now.kernel.saturating_sub(self.idle.kernel));
                    }
                }
            }
        };
        let per = |bytes: u64| bytes as f64 / 1024.0 / f64::from(self.readers);
        println!(
            "| {name} | {:.1} | {:.1} | {:.1} | {} of {KEYSTROKES} | {:.2} | {:.2} |",
            per(most.own),
            per(most.kernel),
            per(most.own + most.kernel),
            KEYSTROKES as usize - back.len(),
            shared::percentile_ms(&back, 50),
            shared::percentile_ms(&back, 99),
        );
    }
}

/// What a relay holds, in bytes.
#[derive(Clone, Copy, Default)]
struct Memory {
    own: u64,
    /// For its TCP sockets.
    kernel: u64,
}

impl Memory {
    fn of(relay: &Relay) -> Self {
        Self {
            own: relay.resident(),
            kernel: kernel_memory(relay.url.port()),
        }
    }
}

/// What the kernel holds for the TCP sockets of this port: received, queued to be sent, and set aside (`ss -m`: r, w, f).
fn kernel_memory(port: u16) -> u64 {
    let output = Command::new("ss")
        .args(["-tnmH", &format!("sport = :{port}")])
        .output()
        .expect("ss, of iproute2");
    let text = String::from_utf8(output.stdout).unwrap();
    let sockets = text.split("skmem:(").skip(1);
    let fields = sockets.flat_map(|socket| socket.split(')').next().unwrap_or_default().split(','));
    let counted = fields.filter_map(|field| {
        let number = field.trim_start_matches(|c: char| c.is_ascii_alphabetic());
        let name = &field[..field.len() - number.len()];
        matches!(name, "r" | "w" | "f").then(|| number.parse::<u64>().unwrap())
    });
    counted.sum()
}

/// Sends to each reader in turn, for ever.
async fn flood(mut ws: Socket, readers: u32, sent: Arc<AtomicU64>) {
    let frames: Vec<Bytes> = (FIRST..FIRST + readers).map(frame).collect();
    for (n, frame) in (1..).zip(frames.iter().cycle()) {
        ws.feed(Message::binary(frame.clone())).await.unwrap();
        if n % BURST == 0 {
            ws.flush().await.unwrap();
            sent.fetch_add(BURST, Ordering::Relaxed);
        }
    }
}

fn frame(reader: u32) -> Bytes {
    let frame = Frame::Data {
        channel: channel(reader.into()),
        segment: 1_444,
        payload: vec![7; FRAME].into(),
    };
    frame.encode()
}

async fn node(relay: &Relay, n: u32, role: Role) -> TlsNode {
    let node = TlsNode::welcome_at(&relay.url, n, role).await;
    node.expect("it is welcome")
}
