//! What an operator's programs see: metrics, status, health.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must panic")]

mod common;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use byway_relay::Server;
use byway_wire::ChannelId;
use byway_wire::relay::control::Role;
use byway_wire::relay::frame::data_header;
use common::tls::{TlsNode, tls};
use common::udp::{UdpNode, pair};
use common::*;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

async fn observed() -> (Server, SocketAddr) {
    let server = start_with(|config| config.observe = Some(([127, 0, 0, 1], 0).into())).await;
    let addr = server.observe_addr().unwrap();
    (server, addr)
}

/// Status line and body of a request's answer.
async fn ask<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, request: &str) -> (String, String) {
    let request = format!("{request} HTTP/1.1\r\nHost: relay\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A TLS peer may end without a farewell.
    let _ = soon("an answer", stream.read_to_end(&mut answer)).await;
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

async fn get(addr: SocketAddr, path: &str) -> (String, String) {
    ask(
        TcpStream::connect(addr).await.unwrap(),
        &format!("GET {path}"),
    )
    .await
}

/// Every sample by its name and labels.
async fn samples(addr: SocketAddr) -> BTreeMap<String, f64> {
    let (status, text) = get(addr, "/metrics").await;
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(text.ends_with("# EOF\n"), "{text}");
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let parsed = samples.map(|line| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap())
    });
    parsed.collect()
}

#[tokio::test]
async fn metrics_say_what_passed_and_what_was_dropped_and_why() {
    let (server, addr) = observed().await;
    let (client, mut agent) = pair(&server).await;
    let _tls = TlsNode::welcome(&server, 3, Role::Client).await;
    client.send_data(&data(9, 7, 500));
    agent.recv_data().await;
    client.send_data(&data(77, 7, 300));
    until(&server, "the stray one is dropped", |s| {
        s.data.dropped_unbound == 1
    })
    .await;
    let seen = samples(addr).await;
    let is = |name: &str| {
        seen.get(name)
            .copied()
            .unwrap_or_else(|| panic!("no {name} in {seen:#?}"))
    };
    let links = |carrier: &str, role: &str| {
        is(&format!(
            "byway_relay_links{{carrier=\"{carrier}\",role=\"{role}\"}}"
        ))
    };
    assert_eq!((links("udp", "client"), links("udp", "agent")), (1.0, 1.0));
    assert_eq!((links("tls", "client"), links("tls", "agent")), (1.0, 0.0));
    assert_eq!((links("udp", "none"), links("tls", "none")), (0.0, 0.0));
    assert_eq!(is("byway_relay_channels"), 1.0);
    assert_eq!(is("byway_relay_ready"), 1.0);
    assert_eq!(is("byway_relay_certificate_renewals_total"), 0.0);
    assert_eq!(is("byway_relay_certificate_failures_total"), 0.0);
    assert_eq!(is("byway_relay_dropped_total{reason=\"unbound\"}"), 1.0);
    assert_eq!(
        is("byway_relay_handshake_seconds_count{carrier=\"udp\"}"),
        2.0
    );
    assert_eq!(
        is("byway_relay_handshake_seconds_count{carrier=\"tls\"}"),
        1.0
    );
    assert!(is("byway_relay_bytes_total{direction=\"in\",carrier=\"udp\"}") >= 800.0);
    assert!(is("byway_relay_bytes_total{direction=\"out\",carrier=\"udp\"}") >= 500.0);
    assert!(is("process_open_fds") < is("process_max_fds"));
    assert!(is("process_resident_memory_bytes") > 1e6);
    // Every counter there is comes out.
    let (control, counters) = (server.stats().control, server.stats().data);
    let counted = control.iter().chain(counters.iter()).count();
    let families = ["datagrams", "bytes", "dropped", "refused", "events"]
        .map(|f| format!("byway_relay_{f}_total"));
    let shown = seen
        .keys()
        .filter(|name| families.iter().any(|f| name.starts_with(f)))
        .count();
    assert_eq!(shown, counted);
}

/// What goes to TLS links is counted by datagram, as everything else is: three of them in one frame are three.
#[tokio::test]
async fn datagrams_to_tls_links_are_counted_one_by_one() {
    let (server, addr) = observed().await;
    let mut node = TlsNode::welcome(&server, 3, Role::Client).await;
    let mut echo = data_header(ChannelId::ECHO, 100).to_vec();
    echo.resize(echo.len() + 250, 7);
    node.send(echo.into()).await;
    soon("the echo", node.try_hear()).await.unwrap();
    let seen = samples(addr).await;
    for direction in ["in", "out"] {
        let name =
            format!("byway_relay_datagrams_total{{direction=\"{direction}\",carrier=\"tls\"}}");
        assert_eq!(seen.get(&name), Some(&3.0), "{name}");
    }
    assert_eq!(seen["byway_relay_tls_queue_seconds_count"], 1.0);
}

/// Nodes that come send a dozen batches and more to two shards.
#[tokio::test]
async fn of_many_batches_few_are_timed() {
    let (server, addr) = observed().await;
    let _nodes = pair(&server).await;
    let timed = samples(addr).await["byway_relay_forward_seconds_count"];
    assert!((1.0..=2.0).contains(&timed), "{timed}");
}

#[tokio::test]
async fn a_link_that_was_not_welcomed_has_no_role() {
    let (server, addr) = observed().await;
    let _node = UdpNode::connect(&server, 1).await;
    until(&server, "a link", |s| s.load.links == 1).await;
    let seen = samples(addr).await;
    assert_eq!(
        seen["byway_relay_links{carrier=\"udp\",role=\"none\"}"],
        1.0
    );
}

#[tokio::test]
async fn status_is_one_object_and_nothing_else_is_answered() {
    let (server, addr) = observed().await;
    let _node = UdpNode::welcome(&server, 1, Role::Client).await;
    let (status, body) = get(addr, "/status").await;
    assert_eq!(status, "HTTP/1.1 200 OK");
    let said: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(said["links"]["udp"], 1);
    assert_eq!(said["counts"]["welcomed"], 1);
    assert_eq!(said["ready"], true);
    assert_eq!(
        said["certificate"]["pin"],
        server.certificate().pin.to_string()
    );
    assert_eq!(said["certificate"]["stand_in"], false);
    assert!(said["certificate"]["expires"].as_str().unwrap() > "2026");
    for (request, expected) in [
        ("GET /", "200"),
        ("GET /byway/v1", "404"),
        ("GET /metrics/x", "404"),
        ("POST /metrics", "405"),
        ("nonsense", "400"),
    ] {
        let (status, _) = ask(TcpStream::connect(addr).await.unwrap(), request).await;
        assert!(status.contains(expected), "{request}: {status}");
    }
}

#[tokio::test]
async fn health_is_answered_where_nodes_come_in_and_metrics_are_not() {
    let server = start().await;
    for (path, expected) in [
        ("/healthz", "200"),
        ("/readyz", "200"),
        ("/metrics", "404"),
        ("/status", "404"),
    ] {
        let (status, _) = ask(tls(&server).await, &format!("GET {path}")).await;
        assert!(status.contains(expected), "{path}: {status}");
    }
    assert_eq!(server.observe_addr(), None);
}

/// Whoever asks by HEAD takes what follows the head for the next answer.
#[tokio::test]
async fn head_is_answered_without_a_body() {
    let (server, addr) = observed().await;
    for path in ["/healthz", "/readyz", "/", "/nothing"] {
        let at = || async { TcpStream::connect(addr).await.unwrap() };
        let (got, text) = ask(at().await, &format!("GET {path}")).await;
        let (status, body) = ask(at().await, &format!("HEAD {path}")).await;
        assert_eq!((status, body.as_str()), (got.clone(), ""), "{path}");
        assert!(!text.is_empty(), "{path}");
        let by_tls = ask(tls(&server).await, &format!("HEAD {path}")).await;
        assert_eq!(by_tls, (got, String::new()), "{path}");
    }
}

/// A balancer must send nobody here any more while those who are here still leave.
#[tokio::test]
async fn a_relay_that_stops_is_not_ready_and_still_works() {
    let (server, addr) = observed().await;
    // It does not read the relay's last words, so that stopping takes its time.
    let _node = TlsNode::welcome(&server, 3, Role::Client).await;
    assert!(get(addr, "/readyz").await.0.contains("200"));
    let stopped = tokio::spawn(server.stop());
    let unready = async { while !get(addr, "/readyz").await.0.contains("503") {} };
    soon("not ready", unready).await;
    assert!(get(addr, "/healthz").await.0.contains("200"));
    let body = get(addr, "/status").await.1;
    let said: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(said["ready"], false);
    soon("the end", stopped).await.unwrap();
}

/// Whoever opens connections and says nothing keeps nobody else from looking for long.
#[tokio::test]
async fn silent_connections_end() {
    let (_server, addr) = observed().await;
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(TcpStream::connect(addr).await.unwrap());
    }
    let (status, _) = get(addr, "/healthz").await;
    assert_eq!(status, "HTTP/1.1 200 OK");
}

/// The newest of one address are answered, at once, and what says nothing is soon gone.
#[tokio::test]
async fn silence_neither_lasts_nor_takes_more_than_its_share() {
    let (_server, addr) = observed().await;
    let ended = async |mut silent: TcpStream| {
        let within = std::time::Duration::from_secs(3);
        let read = tokio::time::timeout(within, silent.read_u8()).await;
        assert!(read.expect("it is still open").is_err());
    };
    let mut silent = Vec::new();
    for _ in 0..5 {
        silent.push(TcpStream::connect(addr).await.unwrap());
    }
    let begun = std::time::Instant::now();
    ended(silent.remove(0)).await;
    let first = begun.elapsed();
    for stream in silent {
        ended(stream).await;
    }
    // The fifth connection ended the first, and time the others.
    assert!(first < begun.elapsed() / 2, "{first:?}");
}
