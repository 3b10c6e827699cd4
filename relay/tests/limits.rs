//! Limits that an operator set hold at their edge and beyond, are counted, and are told to whoever meets them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must panic")]

mod common;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use byway_relay::{Server, ServerConfig};
use byway_wire::relay::control::{CloseReason, Control, RefuseReason, Role};
use byway_wire::relay::frame::Frame;
use byway_wire::stun::{self, TransactionId};
use common::tls::{TlsNode, bridged};
use common::udp::UdpNode;
use common::*;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

#[tokio::test]
async fn channels_end_at_the_limit_that_was_set() {
    let server = start_with(|config| config.limits.channels = 2).await;
    let mut agent = UdpNode::welcome(&server, 2, Role::Agent).await;
    let mut client = UdpNode::connect(&server, 1).await;
    client.say(&hello(1, Role::Client)).await;
    let Control::Welcome(welcome) = client.hear().await else {
        panic!("not welcome");
    };
    assert_eq!(welcome.max_channels, 2, "a node is told");
    for id in [1, 2] {
        client.say(&open(id, 2)).await;
        assert!(matches!(client.hear().await, Control::Opened(_)));
        assert!(matches!(agent.hear().await, Control::Incoming(_)));
    }
    client.say(&open(3, 2)).await;
    let beyond = client.hear().await;
    let limit = matches!(
        beyond,
        Control::Closed {
            reason: CloseReason::Limit,
            ..
        }
    );
    assert!(limit, "{beyond:?}");
    until(&server, "it is counted", |s| s.control.open_channels == 1).await;
}

#[tokio::test]
async fn unanswered_opens_end_at_the_limit_that_was_set() {
    let server = start_with(|config| config.limits.unanswered_opens = 1).await;
    let _agent = UdpNode::welcome(&server, 2, Role::Agent).await;
    let mut client = UdpNode::welcome(&server, 1, Role::Client).await;
    client.say(&open(1, 2)).await;
    assert!(matches!(client.hear().await, Control::Opened(_)));
    client.say(&open(2, 2)).await;
    let beyond = client.hear().await;
    let limit = matches!(
        beyond,
        Control::Closed {
            reason: CloseReason::Limit,
            ..
        }
    );
    assert!(limit, "{beyond:?}");
    until(&server, "it is counted", |s| s.control.open_unanswered == 1).await;
}

#[tokio::test]
async fn links_end_at_the_limits_that_were_set() {
    let server = start_with(|config| {
        config.limits.links_per_process = 2;
        config.limits.links_per_node = 3;
    })
    .await;
    let mut first = UdpNode::welcome(&server, 1, Role::Client).await;
    let _second = UdpNode::welcome(&server, 1, Role::Client).await;
    let _third = UdpNode::welcome(&server, 1, Role::Client).await;
    // The process's oldest went for it.
    let told = soon("the oldest link's end", first.hear()).await;
    let limit = matches!(
        told,
        Control::Refused {
            reason: RefuseReason::Limit,
            ..
        }
    );
    assert!(limit, "{told:?}");
    until(&server, "it is counted", |s| s.control.refused_links == 1).await;
}

#[tokio::test]
async fn bare_stun_requests_are_answered_as_often_as_was_set() {
    let server = start_with(|config| config.limits.stun = 2).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(addr(&server)).await.unwrap();
    let request = stun::encode_request(TransactionId([7; 12]), false, None);
    for _ in 0..20 {
        socket.send(&request).await.unwrap();
    }
    let stats = until(&server, "all are decided", |s| {
        s.data.stun_answered + s.data.stun_limited == 20
    })
    .await;
    // Two at once, and two a second on a machine that is slow.
    assert!((2..=10).contains(&stats.data.stun_answered), "{stats:?}");
}

#[tokio::test]
async fn bare_stun_requests_of_everybody_are_answered_as_often_as_was_set() {
    let server = start_with(|config| config.limits.stun_in_all = 3).await;
    let request = stun::encode_request(TransactionId([7; 12]), false, None);
    for host in 1..=20 {
        // Each a network of its own.
        let socket = UdpSocket::bind(SocketAddr::from(([127, 0, host, 1], 0)))
            .await
            .unwrap();
        socket.send_to(&request, addr(&server)).await.unwrap();
    }
    let stats = until(&server, "all are decided", |s| {
        s.data.stun_answered + s.data.stun_limited == 20
    })
    .await;
    assert!((3..=15).contains(&stats.data.stun_answered), "{stats:?}");
}

/// Until whoever is at the other end has had enough.
async fn ends(stream: &mut (impl AsyncRead + Unpin)) {
    let mut rest = Vec::new();
    // A reset is an end as well.
    let _ = soon("the end", stream.read_to_end(&mut rest)).await;
}

#[tokio::test]
async fn handshakes_end_at_the_times_that_were_set() {
    // Neither is to be had from the defaults within a test's patience.
    let server = start_with(|config| {
        config.limits.handshakes.within = Duration::from_millis(300);
        config.limits.handshakes.welcome_within = Duration::from_secs(60);
    })
    .await;
    let began = Instant::now();
    let mut mute = TlsNode::connect(&server).await;
    let mut silent = TcpStream::connect(addr(&server)).await.unwrap();
    ends(&mut silent).await;
    assert!(began.elapsed() >= Duration::from_millis(300));
    until(&server, "it is counted", |s| s.data.handshakes_failed == 1).await;
    // Who has TLS has more time.
    mute.prove(1, 1).await;
    mute.say(hello(1, Role::Client)).await;
    assert!(matches!(mute.hear().await, Control::Welcome(_)));

    let server = start_with(|config| {
        config.limits.handshakes.welcome_within = Duration::from_millis(600);
    })
    .await;
    let mut half = tls::tls(&server).await;
    let mut slow = TlsNode::connect(&server).await;
    slow.prove(1, 1).await;
    let quic = UdpNode::connect(&server, 2).await;
    ends(&mut half).await;
    let Control::Refused { detail, .. } = slow.hear().await else {
        panic!("not refused");
    };
    assert!(detail.contains("Hello"), "{detail}");
    // Without a stream there is nothing on which it could be said.
    soon("the link's end", quic.connection.closed()).await;
}

#[tokio::test]
async fn an_address_is_proved_from_the_first_handshake_on_if_that_was_set() {
    let server = start_with(|config| config.limits.handshakes.prove_above = 0).await;
    let _node = UdpNode::welcome(&server, 1, Role::Client).await;
    until(&server, "it was asked for", |s| s.data.retried == 1).await;
}

#[tokio::test]
async fn there_is_no_more_room_for_handshakes_than_was_set() {
    let server = start_with(|config| {
        config.limits.handshakes.under_way = 8;
        config.trusted_proxies.clear();
    })
    .await;
    // A host's part of it is tested where it is judged: this machine's own has none.
    let mut held = Vec::new();
    for _ in 0..8 {
        held.push(TcpStream::connect(addr(&server)).await.unwrap());
    }
    let mut ninth = TcpStream::connect(addr(&server)).await.unwrap();
    ends(&mut ninth).await;
    until(&server, "it is counted", |s| {
        s.data.connections_limited == 1
    })
    .await;
    drop(held);
}

/// Somebody who does not read: what waits for it is what was set, it is dropped as soon, and the link ends as soon.
#[tokio::test]
async fn what_waits_for_a_tls_link_ends_at_the_limits_that_were_set() {
    let server = start_with(|config| {
        config.limits.egress.age = Duration::from_secs(10);
        config.limits.egress.bytes = 128 * 1024;
        config.limits.egress.stall = Duration::from_millis(500);
    })
    .await;
    let (_client, agent) = bridged(&server).await;
    let cut = async {
        until(&server, "it is stuck", |s| s.data.tls_dropped_full > 0).await;
        let stuck = Instant::now();
        let stats = until(&server, "the cut", |s| s.data.stalled == 1).await;
        (stats, stuck.elapsed())
    };
    let (stats, took) = tokio::select! {
        () = agent.flood(9) => unreachable!("it has no end"),
        cut = cut => cut,
    };
    assert_eq!(stats.data.tls_dropped_old, 0, "{stats:?}");
    // The usual would be two seconds.
    assert!(took < Duration::from_millis(1_500), "{took:?}");
}

#[tokio::test]
async fn echoes_of_a_tls_link_have_a_budget() {
    let server = start().await;
    let mut client = TlsNode::welcome(&server, 1, Role::Client).await;
    let echo = Frame::Data {
        channel: channel(0),
        segment: 10,
        payload: vec![1; 10].into(),
    };
    for _ in 0..1_300 {
        client.send(echo.encode()).await;
    }
    let stats = until(&server, "all are decided", |s| {
        s.data.echoed + s.data.dropped_rate == 1_300
    })
    .await;
    assert!(
        stats.data.echoed >= 1_000 && stats.data.dropped_rate > 0,
        "{stats:?}"
    );
}

/// 8 Mbit/s: a megabyte a second.
fn megabyte(config: &mut ServerConfig) {
    config.limits.node_rate.bytes = Some(1_000_000);
}

#[tokio::test]
async fn what_a_node_sends_beyond_its_rate_by_udp_is_dropped_and_it_is_told() {
    let server = start_with(megabyte).await;
    let (mut client, agent) = udp::pair(&server).await;
    // Half a megabyte at once, of which a quarter may go.
    for _ in 0..400 {
        client.send_data(&data(9, 1, 1_308));
    }
    let stats = until(&server, "all are decided", |s| s.data.udp_in >= 400).await;
    let passed = 400 - stats.data.dropped_rate;
    assert!((150..=350).contains(&passed), "{passed}");
    let told = soon("it is told", client.hear()).await;
    let rate = matches!(
        told,
        Control::Throttled {
            bytes: Some(1_000_000),
            datagrams: None
        }
    );
    assert!(rate, "{told:?}");
    // What the other side sends is another account.
    agent.send_data(&data(9, 2, 1_000));
    assert_eq!(client.recv_data().await, data(9, 2, 1_000));
}

#[tokio::test]
async fn all_links_of_a_node_share_its_rate() {
    let server = start_with(megabyte).await;
    let (client, mut agent) = udp::pair(&server).await;
    let mut second = UdpNode::welcome(&server, 1, Role::Client).await;
    udp::join(&mut second, &mut agent, 10).await;
    for _ in 0..200 {
        client.send_data(&data(9, 1, 1_308));
        second.send_data(&data(10, 1, 1_308));
    }
    let stats = until(&server, "all are decided", |s| s.data.udp_in >= 400).await;
    assert!(stats.data.dropped_rate >= 50, "{stats:?}");
}

#[tokio::test]
async fn a_tls_link_is_read_no_faster_than_its_node_may_send_and_loses_nothing() {
    let server = start_with(megabyte).await;
    let mut agent = UdpNode::welcome(&server, 2, Role::Agent).await;
    let mut client = TlsNode::welcome(&server, 1, Role::Client).await;
    client.say(open(9, 2)).await;
    assert!(matches!(agent.hear().await, Control::Incoming(_)));
    let began = Instant::now();
    let batch = Frame::Data {
        channel: channel(9),
        segment: 1_000,
        payload: vec![7; 20_000].into(),
    };
    for _ in 0..40 {
        client.send(batch.encode()).await;
    }
    let stats = until(&server, "all came", |s| s.data.tls_in == 800).await;
    // 800 KB, of which 256 KiB may come at once.
    assert!(began.elapsed() >= Duration::from_millis(400));
    assert_eq!(stats.data.dropped_rate, 0);
    assert!(stats.data.tls_held_back > 0);
}

/// True if a connection is let in as far as TLS, which answers nonsense with an alert.
async fn is_let_in(to: SocketAddr) -> bool {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let mut alert = [0; 16];
    if stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.is_err() {
        return false;
    }
    stream.read(&mut alert).await.is_ok_and(|n| n > 0)
}

#[tokio::test]
async fn a_relay_that_uses_most_of_its_descriptors_lets_nobody_new_in_and_keeps_who_is_there() {
    let limit = rustix::process::Rlimit {
        current: Some(400),
        maximum: rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum,
    };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
    let server = start_with(|config| config.limits.shed_above = 50).await;
    let (client, mut agent) = udp::pair(&server).await;
    assert!(is_let_in(addr(&server)).await);
    let held: Vec<_> = (0..200)
        .map(|_| std::fs::File::open("/dev/null").unwrap())
        .collect();
    let shed = async { while is_let_in(addr(&server)).await {} };
    soon("it sheds", shed).await;
    assert!(server.stats().data.refused_pressure > 0, "it is counted");
    client.send_data(&data(9, 1, 500));
    assert_eq!(agent.recv_data().await, data(9, 1, 500));
    drop(held);
    let again = async { while !is_let_in(addr(&server)).await {} };
    soon("there is room again", again).await;
    UdpNode::welcome(&server, 7, Role::Client).await;
}

/// What is for nobody is decrypted all the same: whoever sends it is read more slowly, and no node's rate says so.
#[tokio::test]
async fn a_tls_link_that_sends_what_is_for_nobody_is_held_back() {
    let server = start().await;
    let mut client = TlsNode::welcome(&server, 1, Role::Client).await;
    let junk = Frame::Data {
        channel: channel(77),
        segment: 1_000,
        payload: vec![1; 60_000].into(),
    };
    // More than is read of them in a second.
    for _ in 0..100 {
        client.send(junk.encode()).await;
    }
    let stats = until(&server, "all are dropped", |s| {
        s.data.dropped_unbound == 100 * 60
    })
    .await;
    assert!(stats.data.tls_held_back > 0, "{stats:?}");
    client.say(Control::Ping { token: 4 }).await;
    assert!(matches!(client.hear().await, Control::Pong { token: 4 }));
}

#[tokio::test]
async fn a_relay_does_not_start_with_limits_that_it_cannot_keep() {
    let mut config = ServerConfig::dev();
    config.limits.connections = 0;
    let error = Server::start(config).await.unwrap_err().to_string();
    assert!(
        error.contains("'connections' is 0, and may be 1 to 10000"),
        "{error}"
    );
}
