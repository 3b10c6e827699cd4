//! `cargo bench -p byway-relay --bench scale -- [UDP LINKS] [TLS LINKS]`: what a relay holds for idle links. A relay process of its own; links
//! are made at 100 a second, and its memory is read at each step, so that a slope can be told from what it holds anyway.
#![allow(
    clippy::unwrap_used,
    reason = "a benchmark that cannot go on must panic"
)]

#[path = "../tests/common/mod.rs"]
mod common;
mod shared;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use byway_wire::RelayUrl;
use byway_wire::relay::control::{Control, Role};
use byway_wire::relay::frame::{StreamDecoder, encode_stream};
use common::{hello_of, key_of, tls, udp};
use shared::Relay;
use tokio::task::JoinSet;

/// New links in a second.
const RATE: u32 = 100;
const UDP_LINKS: u32 = 10_000;
const TLS_LINKS: u32 = 5_000;

#[tokio::main]
async fn main() {
    let numbers: Vec<u32> = std::env::args()
        .filter_map(|arg| arg.parse().ok())
        .collect();
    let links = [
        numbers.first().copied().unwrap_or(UDP_LINKS),
        numbers.get(1).copied().unwrap_or(TLS_LINKS),
    ];
    shared::raise_descriptors();
    println!(
        "| links | held | failed | KiB a link | since 1,000, KiB a link | relay CPU, ms a link |"
    );
    println!("|---|---|---|---|---|---|");
    hold("UDP", links[0], udp_link).await;
    hold("TLS", links[1], tls_link).await;
}

/// Makes links and holds them.
async fn hold<L: Held, F: Future<Output = Option<L>> + Send + 'static>(
    kind: &str,
    count: u32,
    link: impl Fn(Made, u32) -> F,
) {
    let relay = Relay::start(&[]);
    let made = Made {
        addr: relay.addr(),
        url: relay.url.clone(),
        endpoint: quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap(),
    };
    // What the first link of all costs is no link's.
    let first = link(made.clone(), 1_000_000).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (before, cpu) = (relay.resident(), relay.cpu());
    let (mut held, mut failed, mut at_thousand) = (Vec::new(), 0, None);
    let mut under_way = JoinSet::new();
    let began = Instant::now();
    for n in 0..count {
        under_way.spawn(link(made.clone(), 1_000 + n));
        let due = Duration::from_secs(1) * n / RATE;
        tokio::time::sleep_until((began + due).into()).await;
        while let Some(done) = under_way.try_join_next() {
            match done.unwrap() {
                Some(link) => held.push(link),
                None => failed += 1,
            }
        }
        if held.len() >= 1_000 && at_thousand.is_none() {
            at_thousand = Some((relay.resident(), held.len()));
        }
    }
    while let Some(done) = under_way.join_next().await {
        match done.unwrap() {
            Some(link) => held.push(link),
            None => failed += 1,
        }
    }
    // They are idle now.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let per = |bytes: u64, links: usize| bytes as f64 / 1024.0 / links.max(1) as f64;
    let now = relay.resident();
    let alive = held.iter().filter(|link| link.is_alive()).count();
    assert_eq!(
        alive,
        held.len(),
        "{kind} links ended while others were made"
    );
    let slope = at_thousand.map_or(f64::NAN, |(at, links)| {
        per(now.saturating_sub(at), held.len() - links)
    });
    println!(
        "| {kind} | {} | {failed} | {:.1} | {slope:.1} | {:.2} |",
        held.len(),
        per(now.saturating_sub(before), held.len()),
        (relay.cpu() - cpu) * 1e3 / held.len().max(1) as f64
    );
    drop((first, held));
}

/// A link that may end.
trait Held: Send + 'static {
    fn is_alive(&self) -> bool;
}

/// A UDP link, and the stream that must not be dropped.
struct UdpLink {
    connection: quinn::Connection,
    _stream: (quinn::SendStream, quinn::RecvStream),
}

impl Held for UdpLink {
    fn is_alive(&self) -> bool {
        self.connection.close_reason().is_none()
    }
}

/// A TLS link, read so that pings are answered.
struct TlsLink(tokio::task::JoinHandle<()>);

impl Held for TlsLink {
    fn is_alive(&self) -> bool {
        !self.0.is_finished()
    }
}

#[derive(Clone)]
struct Made {
    addr: SocketAddr,
    url: RelayUrl,
    endpoint: quinn::Endpoint,
}

async fn udp_link(made: Made, n: u32) -> Option<UdpLink> {
    let mut config = udp::client_config_for(made.url.pin()?, Some(&key_of(n)));
    // As nodes do: a link that is silent for half a minute ends.
    let mut transport = quinn::TransportConfig::default();
    transport.keep_alive_interval(Some(Duration::from_secs(20)));
    config.transport_config(std::sync::Arc::new(transport));
    let connecting = made
        .endpoint
        .connect_with(config, made.addr, "relay.invalid")
        .ok()?;
    let connection = connecting.await.ok()?;
    let (mut send, mut recv) = connection.open_bi().await.ok()?;
    let mut out = BytesMut::new();
    encode_stream(&hello_of(n, Role::Client), &mut out);
    send.write_all(&out).await.ok()?;
    let mut decoder = StreamDecoder::default();
    loop {
        match decoder.next().ok()? {
            Some(Control::Welcome(_)) => {
                return Some(UdpLink {
                    connection,
                    _stream: (send, recv),
                });
            }
            Some(_) => return None,
            None => decoder.push(&recv.read_chunk(65_536, true).await.ok()??.bytes),
        }
    }
}

async fn tls_link(made: Made, n: u32) -> Option<TlsLink> {
    let mut node = tls::TlsNode::welcome_at(&made.url, n, Role::Client).await?;
    Some(TlsLink(tokio::spawn(async move {
        while let Some(Ok(_)) = futures_util::StreamExt::next(&mut node.ws).await {}
    })))
}
