//! Behind an ingress that ends TLS: who may come in without it, whom it is believed to speak for, and what still holds.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must panic")]

mod common;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use byway_relay::{Server, ServerConfig};
use byway_wire::relay::control::{Control, Role, Welcome};
use common::tls::{Interceptor, TlsNode};
use common::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const HOST: &str = "relay.example";
const UPGRADE: &str = "GET /byway/v1 HTTP/1.1\r\nHost: relay.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n";

/// A relay with a plain listener at `ip`, which trusts `proxies`.
async fn relay(ip: IpAddr, proxies: &[&str], change: impl FnOnce(&mut ServerConfig)) -> Server {
    start_with(|c| {
        c.public_host = Some(HOST.to_owned());
        c.plain_http = vec![SocketAddr::new(ip, 0)];
        c.trusted_proxies = proxies.iter().map(|net| net.parse().unwrap()).collect();
        change(c);
    })
    .await
}
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// An address of this machine that is not loopback, as another machine's would not be.
fn own_ip() -> IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    let ip = socket
        .connect("198.51.100.1:9")
        .and_then(|()| socket.local_addr())
        .map(|addr| addr.ip());
    ip.expect("this machine has no address but loopback: ip addr add 198.51.100.1/32 dev lo")
}

fn plain(server: &Server) -> SocketAddr {
    server.plain_http_addrs()[0]
}

/// A node that came through an ingress, which lives as long.
struct Behind {
    node: TlsNode,
    _ingress: Interceptor,
}

/// Comes through an ingress which adds these headers.
async fn connect(server: &Server, headers: &str, dialled: &str) -> Behind {
    behind(Interceptor::plain(plain(server), headers).await, dialled).await
}
async fn behind(ingress: Interceptor, dialled: &str) -> Behind {
    Behind {
        node: TlsNode::connect_to(ingress.addr, ingress.pin, dialled).await,
        _ingress: ingress,
    }
}
async fn welcome(mut behind: Behind, n: u8) -> (Welcome, Behind) {
    let node = &mut behind.node;
    node.prove(n, n).await;
    node.say(hello(n, Role::Client)).await;
    match node.hear().await {
        Control::Welcome(welcome) => (welcome, behind),
        other => panic!("{other:?}"),
    }
}
async fn refusal(mut behind: Behind) -> String {
    let node = &mut behind.node;
    node.prove(1, 1).await;
    match node.hear().await {
        Control::Refused { detail, .. } => detail,
        other => panic!("{other:?}"),
    }
}

/// Sends a head in the clear, and reads the first line of the answer.
async fn status(to: SocketAddr, head: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.push(soon("an answer", stream.read_u8()).await.unwrap());
    }
    (stream, String::from_utf8(line).unwrap())
}

#[tokio::test]
async fn a_node_behind_a_trusted_ingress_is_known_by_its_own_address() {
    let server = relay(LOOPBACK, &["127.0.0.0/8", "10.0.0.0/8"], |_| {}).await;
    let headers =
        "X-Forwarded-For: 198.51.100.1, 203.0.113.9:4711\r\nX-Forwarded-For: 10.1.2.3\r\n";
    let (hello, mut at) = welcome(connect(&server, headers, "relay.example:443").await, 1).await;
    assert_eq!(hello.observed, "203.0.113.9:4711".parse().unwrap());
    assert!(hello.intercepted, "TLS ended before the relay");
    assert_eq!(server.stats().data.intercepted, 1);
    // It is a link like any other.
    at.node.say(Control::Ping { token: 8 }).await;
    assert!(matches!(at.node.hear().await, Control::Pong { token: 8 }));

    let headers = "X-Forwarded-For: 2001:db8::9\r\n";
    let (hello, _at) = welcome(connect(&server, headers, "relay.example:443").await, 2).await;
    assert_eq!(
        hello.observed.ip(),
        "2001:db8::9".parse::<IpAddr>().unwrap()
    );
}

#[tokio::test]
async fn an_ingress_that_is_not_trusted_is_not_believed() {
    // From this machine it may come; what it says of others is nothing.
    let server = relay(LOOPBACK, &["10.0.0.0/8"], |_| {}).await;
    let headers = "X-Forwarded-For: 203.0.113.9\r\n";
    let (hello, _at) = welcome(connect(&server, headers, "relay.example:443").await, 1).await;
    assert_eq!(hello.observed.ip(), LOOPBACK);
    assert_ne!(hello.observed.port(), 0);
}

#[tokio::test]
async fn from_elsewhere_only_trusted_proxies_may_come() {
    let ip = own_ip();
    let server = relay(ip, &["10.0.0.0/8"], |_| {}).await;
    // What it claims to be does not help.
    for headers in ["", "X-Forwarded-For: 10.0.0.1\r\n"] {
        let head = format!("{UPGRADE}{headers}\r\n");
        let (mut stream, line) = status(plain(&server), &head).await;
        assert_eq!(line, "HTTP/1.1 403 Forbidden\r\n");
        let mut rest = String::new();
        soon("the end", stream.read_to_string(&mut rest))
            .await
            .unwrap();
        assert!(rest.contains("trusted_proxies"), "{rest}");
    }
    let (_, line) = status(plain(&server), "GET / HTTP/1.1\r\nHost: r\r\n\r\n").await;
    assert_eq!(line, "HTTP/1.1 403 Forbidden\r\n");
    let stats = until(&server, "the refusals", |s| s.data.handshakes_failed == 3).await;
    assert_eq!(stats.control.links, 0);

    let server = relay(ip, &[&format!("{ip}/32")], |_| {}).await;
    let headers = "X-Forwarded-For: 203.0.113.9\r\n";
    let (hello, _at) = welcome(connect(&server, headers, "relay.example:443").await, 1).await;
    assert_eq!(
        hello.observed.ip(),
        "203.0.113.9".parse::<IpAddr>().unwrap()
    );
}

#[tokio::test]
async fn a_proxy_has_no_budget_but_each_of_its_clients_has() {
    let ip = own_ip();
    let server = relay(ip, &[&format!("{ip}/32")], |_| {}).await;
    let look = |from: &'static str| {
        let to = plain(&server);
        async move {
            let head = format!("GET / HTTP/1.1\r\nHost: r\r\nX-Forwarded-For: {from}\r\n\r\n");
            status(to, &head).await.1
        }
    };
    // A budget is 200 at once and 100 a second: so many in a row are beyond it on any machine.
    let mut refused = 0;
    let mut asked = 0;
    while refused == 0 {
        asked += 1;
        assert!(asked < 20_000, "nobody is refused");
        if look("203.0.113.9").await == "HTTP/1.1 429 Too Many Requests\r\n" {
            refused += 1;
        }
    }
    assert!(asked > 200, "{asked}");
    assert_eq!(look("203.0.113.10").await, "HTTP/1.1 200 OK\r\n");
    let stats = until(&server, "the count", |s| s.data.connections_limited == 1).await;
    assert_eq!(stats.data.handshakes_failed, 0);
    // The proxy's own health checks.
    for _ in 0..300 {
        assert_eq!(look("").await, "HTTP/1.1 200 OK\r\n");
    }
}

#[tokio::test]
async fn the_node_must_have_dialled_the_public_host() {
    let server = relay(LOOPBACK, &[], |_| {}).await;
    for other in ["other.example:443", "127.0.0.1:443"] {
        let detail = refusal(connect(&server, "", other).await).await;
        assert!(detail.contains("public_host"), "{detail}");
    }
    // Its own port may be any.
    welcome(connect(&server, "", "relay.example:8443").await, 1).await;
    assert_eq!(server.stats().control.links, 1);
}

#[tokio::test]
async fn channel_binding_cannot_be_had_there_whatever_the_node_claims() {
    let server = relay(LOOPBACK, &[], |c| c.require_channel_binding = true).await;
    let own = server.url().pin();
    for (certificate, exporter) in [(None, None), (own, None), (own, Some([0; 32]))] {
        let mut at = connect(&server, "", "relay.example:443").await;
        let claim = &mut at.node.claim;
        claim.certificate = certificate.unwrap_or(claim.certificate);
        claim.exporter = exporter.unwrap_or(claim.exporter);
        let detail = refusal(at).await;
        assert!(detail.contains("channel binding"), "{detail}");
    }
    assert_eq!(server.stats().control.links, 0);
}

#[tokio::test]
async fn other_requests_are_answered_as_they_are_over_tls() {
    let server = relay(LOOPBACK, &[], |_| {}).await;
    for (head, expected) in [
        ("GET / HTTP/1.1\r\nHost: r\r\n\r\n", "HTTP/1.1 200 OK\r\n"),
        (
            "GET /x HTTP/1.1\r\nHost: r\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\n",
        ),
        ("\u{16}\u{3}\u{1}\r\n\r\n", "HTTP/1.1 400 Bad Request\r\n"),
    ] {
        assert_eq!(status(plain(&server), head).await.1, expected);
    }
}

#[tokio::test]
async fn plain_http_without_a_public_host_or_on_a_port_in_use_is_an_error() {
    let mut config = ServerConfig::dev();
    config.plain_http = vec!["127.0.0.1:0".parse().unwrap()];
    let error = format!("{:#}", Server::start(config.clone()).await.unwrap_err());
    assert!(error.contains("public_host"), "{error}");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().map(|addr| (addr, taken)).unwrap();
    config.public_host = Some(HOST.to_owned());
    config.plain_http = vec![taken.0];
    let error = format!("{:#}", Server::start(config).await.unwrap_err());
    assert!(error.contains(&taken.0.to_string()), "{error}");
}

#[tokio::test]
async fn the_relay_s_own_listener_believes_no_header() {
    // Whoever speaks TLS with the relay wrote the header itself.
    let server = relay(LOOPBACK, &["127.0.0.0/8"], |_| {}).await;
    let headers = "X-Forwarded-For: 203.0.113.9\r\n";
    let ingress = Interceptor::encrypting(&server, headers).await;
    let at = behind(ingress, "relay.example:443").await;
    let (hello, _at) = welcome(at, 1).await;
    assert_eq!(hello.observed.ip(), LOOPBACK);
}
