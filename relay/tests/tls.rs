//! The TLS side, from outside: HTTP, proof, frames, bridging, and clients that do not keep time.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must panic")]

mod common;

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use byway_wire::key::Purpose;
use byway_wire::relay::control::{Control, LinkClaim, Prove, RefuseReason, Role};
use byway_wire::relay::frame::{Frame, data_header};
use common::tls::{Interceptor, TlsNode, bridged, tls};
use common::udp::{UdpNode, pair};
use common::*;
use futures_util::SinkExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_websockets::Message;

fn frame(id: u64, segment: u16, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::from(&data_header(channel(id), segment)[..]);
    out.extend_from_slice(payload);
    out.freeze()
}

async fn request(server: &byway_relay::Server, head: &str) -> String {
    let mut stream = tls(server).await;
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    // The relay closes; whether politely or not is not the point here.
    let _ = soon("an answer", stream.read_to_string(&mut answer)).await;
    answer
}

#[tokio::test]
async fn a_browser_sees_what_this_is() {
    let server = start().await;
    let answer = request(&server, "GET / HTTP/1.1\r\nHost: r\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("Byway relay"));
}

#[tokio::test]
async fn other_paths_and_other_methods_are_refused() {
    let server = start().await;
    let answer = request(&server, "GET /admin HTTP/1.1\r\nHost: r\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    let answer = request(&server, "POST /byway/v1 HTTP/1.1\r\nHost: r\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    let answer = request(&server, "GET /byway/v1 HTTP/1.1\r\nHost: r\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 426 "), "{answer}");
}

#[tokio::test]
async fn an_endless_header_is_refused() {
    let server = start().await;
    let head = format!("GET / HTTP/1.1\r\nX: {}", "y".repeat(20_000));
    let answer = request(&server, &head).await;
    assert!(
        answer.starts_with("HTTP/1.1 400 ") || answer.is_empty(),
        "{answer}"
    );
    until(&server, "nobody is left", |s| s.load.links == 0).await;
}

#[tokio::test]
async fn an_upgrade_that_is_none_is_refused() {
    let server = start().await;
    let head = "GET /byway/v1 HTTP/1.1\r\nHost: r\r\nUpgrade: websocket\r\n\r\n";
    let answer = request(&server, head).await;
    assert!(answer.starts_with("HTTP/1.1 426 "), "{answer}");
}

#[tokio::test]
async fn slow_clients_are_cut() {
    let server = start().await;
    // One says nothing at all, one stops in the middle of a request, one does not prove its key.
    let mut silent = TcpStream::connect(addr(&server)).await.unwrap();
    let mut half = tls(&server).await;
    half.write_all(b"GET /byway/v1 HTTP/1.1\r\nHost:")
        .await
        .unwrap();
    let mut mute = TlsNode::connect(&server).await;
    // One takes its time for the proof, and says no Hello.
    let mut slow = TlsNode::connect(&server).await;
    let start = Instant::now();
    let limit = Duration::from_secs(15);
    let mut buf = [0; 16];
    let end = tokio::time::timeout(limit, silent.read(&mut buf))
        .await
        .unwrap();
    assert!(matches!(end, Ok(0) | Err(_)));
    assert!(
        start.elapsed() < Duration::from_secs(8),
        "TLS has five seconds"
    );
    slow.prove(1, 1).await;
    let end = tokio::time::timeout(limit, half.read(&mut buf))
        .await
        .unwrap();
    assert!(matches!(end, Ok(0) | Err(_)));
    let end = tokio::time::timeout(limit, futures_util::StreamExt::next(&mut mute.ws))
        .await
        .unwrap();
    assert!(matches!(end, None | Some(Err(_))));
    match slow.hear().await {
        Control::Refused { detail, .. } => assert!(detail.contains("Hello"), "{detail}"),
        other => panic!("{}", other.name()),
    }
    assert!(
        start.elapsed() < Duration::from_secs(13),
        "the way to Welcome has ten seconds in all"
    );
    until(&server, "all are counted", |s| {
        s.data.handshakes_failed == 3
    })
    .await;
}

/// The relay says why it refuses, and ends the link.
async fn refused_for(node: &mut TlsNode, why: &str) {
    match node.hear().await {
        Control::Refused {
            reason: RefuseReason::Identity,
            detail,
        } => assert!(detail.contains(why), "{detail}"),
        other => panic!("{}", other.name()),
    }
    assert!(node.try_hear().await.is_none());
}

#[tokio::test]
async fn a_node_proves_its_key_and_is_welcomed() {
    let server = start().await;
    let mut node = TlsNode::welcome(&server, 1, Role::Client).await;
    node.say(Control::Ping { token: 8 }).await;
    assert!(matches!(node.hear().await, Control::Pong { token: 8 }));
    assert_eq!(server.stats().data.intercepted, 0);
}

#[tokio::test]
async fn a_proof_by_another_key_is_refused() {
    let server = start().await;
    let mut node = TlsNode::connect(&server).await;
    node.prove(1, 2).await;
    refused_for(&mut node, "does not verify").await;
    until(&server, "the refusal", |s| s.data.handshakes_failed == 1).await;
    assert_eq!(server.stats().control.links, 0);
}

#[tokio::test]
async fn a_proof_for_another_challenge_is_refused() {
    let server = start().await;
    let mut node = TlsNode::connect(&server).await;
    node.challenge.nonce[0] ^= 1;
    node.prove(1, 1).await;
    refused_for(&mut node, "does not verify").await;
    assert_eq!(server.stats().control.links, 0);
}

#[tokio::test]
async fn something_else_than_a_proof_is_refused() {
    let server = start().await;
    let mut node = TlsNode::connect(&server).await;
    node.say(hello(1, Role::Client)).await;
    assert!(node.try_hear().await.is_none());
    assert_eq!(server.stats().control.links, 0);
}

#[tokio::test]
async fn a_ping_instead_of_a_proof_is_refused() {
    let server = start().await;
    let mut node = TlsNode::connect(&server).await;
    node.ws.send(Message::ping(Bytes::new())).await.unwrap();
    until(&server, "the refusal", |s| s.data.handshakes_failed == 1).await;
}

#[tokio::test]
async fn a_node_that_floods_the_relay_with_pings_is_refused() {
    let server = start().await;
    let mut node = TlsNode::welcome(&server, 1, Role::Client).await;
    for _ in 0..30 {
        node.ws.feed(Message::ping(Bytes::new())).await.unwrap();
    }
    node.ws.flush().await.unwrap();
    let refused = node.hear().await;
    assert!(matches!(
        refused,
        Control::Refused {
            reason: RefuseReason::Protocol,
            ..
        }
    ));
    assert!(node.try_hear().await.is_none());
}

#[tokio::test]
async fn intercepted_tls_is_noted_and_refused_only_on_demand() {
    let server = start().await;
    let mut node = TlsNode::connect(&server).await;
    node.claim.exporter = [9; 32];
    node.prove(1, 1).await;
    node.say(hello(1, Role::Client)).await;
    let Control::Welcome(welcome) = node.hear().await else {
        panic!("not welcome");
    };
    assert!(welcome.intercepted, "the node is told");
    assert_eq!(server.stats().data.intercepted, 1);

    let strict = start_with(|c| c.require_channel_binding = true).await;
    let mut node = TlsNode::connect(&strict).await;
    node.claim.exporter = [9; 32];
    node.prove(1, 1).await;
    refused_for(&mut node, "channel binding").await;
    assert_eq!(strict.stats().control.links, 0);
}

#[tokio::test]
async fn another_relay_that_hands_on_the_challenge_gets_a_proof_of_no_use() {
    let server = start().await;
    let other = Interceptor::start(&server).await;
    let mut node = TlsNode::connect_to(other.addr, other.pin, "other.example:443").await;
    node.prove(1, 1).await;
    // What the other relay would say in the node's name comes too late.
    node.say(hello(1, Role::Client)).await;
    refused_for(&mut node, "public_host").await;
    let stats = until(&server, "the refusal", |s| s.data.handshakes_failed == 1).await;
    assert_eq!((stats.data.proofs_refused, stats.control.links), (1, 0));
}

#[tokio::test]
async fn another_relay_cannot_change_what_was_signed() {
    let server = start().await;
    let other = Interceptor::start(&server).await;
    let ours = server.url();
    let changes: [&dyn Fn(&mut LinkClaim); 3] = [
        &|c| c.dialled = ours.authority(),
        &|c| c.certificate = ours.pin().unwrap(),
        &|c| c.role = Role::Agent,
    ];
    for change in changes {
        let mut node = TlsNode::connect_to(other.addr, other.pin, "other.example:443").await;
        let signed = Prove::signed_bytes(&node.challenge, &node.claim);
        change(&mut node.claim);
        let forged = Prove {
            node: key(1).node_id(),
            claim: node.claim.clone(),
            signature: key(1).sign(Purpose::LinkProof, &signed),
        };
        node.say(Control::Prove(forged)).await;
        refused_for(&mut node, "does not verify").await;
    }
    assert_eq!(server.stats().control.links, 0);
}

#[tokio::test]
async fn tls_that_ends_before_the_relay_under_its_name_is_noted_and_refused_only_on_demand() {
    let server = start().await;
    let proxy = Interceptor::start(&server).await;
    let name = server.url().authority();
    let mut node = TlsNode::connect_to(proxy.addr, proxy.pin, &name).await;
    node.prove(1, 1).await;
    node.say(hello(1, Role::Client)).await;
    let Control::Welcome(welcome) = node.hear().await else {
        panic!("not welcome");
    };
    assert!(welcome.intercepted, "the node is told");
    assert_eq!(server.stats().data.intercepted, 1);

    let strict = start_with(|c| c.require_channel_binding = true).await;
    let proxy = Interceptor::start(&strict).await;
    let name = strict.url().authority();
    let mut node = TlsNode::connect_to(proxy.addr, proxy.pin, &name).await;
    node.prove(1, 1).await;
    refused_for(&mut node, "channel binding").await;
    assert_eq!(strict.stats().control.links, 0);
}

#[tokio::test]
async fn behind_an_ingress_the_public_host_is_the_relay_s_only_name() {
    let server = start_with(|c| c.public_host = Some("Relay.example".into())).await;
    let ingress = Interceptor::start(&server).await;
    // The ingress has a port of its own.
    let mut node = TlsNode::connect_to(ingress.addr, ingress.pin, "relay.example:8443").await;
    node.prove(1, 1).await;
    node.say(hello(1, Role::Client)).await;
    assert!(matches!(node.hear().await, Control::Welcome(w) if w.intercepted));

    let listen = addr(&server).to_string();
    let mut node = TlsNode::connect_to(ingress.addr, ingress.pin, &listen).await;
    node.prove(2, 2).await;
    refused_for(&mut node, "public_host").await;
}

#[tokio::test]
async fn a_name_that_the_relay_does_not_know_is_fine_where_its_own_certificate_was_shown() {
    let server = start_with(|c| c.require_channel_binding = true).await;
    let pin = server.url().pin().unwrap();
    let mut node = TlsNode::connect_to(addr(&server), pin, "alias.example:443").await;
    node.prove(1, 1).await;
    node.say(hello(1, Role::Client)).await;
    assert!(matches!(node.hear().await, Control::Welcome(w) if !w.intercepted));
    assert_eq!(server.stats().data.intercepted, 0);
}

#[tokio::test]
async fn a_role_other_than_the_signed_one_is_refused() {
    let server = start().await;
    let mut node = TlsNode::connect(&server).await;
    node.prove(1, 1).await;
    node.say(hello(1, Role::Agent)).await;
    refused_for(&mut node, "role").await;
}

#[tokio::test]
async fn a_malformed_frame_ends_its_link_and_no_other() {
    let server = start().await;
    let mut other = TlsNode::welcome(&server, 3, Role::Client).await;
    for bad in [
        Bytes::from_static(&[0x00, 0xff, 0xff]),
        Bytes::from_static(&[0x80, 1, 2]),
        frame(9, 0, b"x"),
        // 64 Ki datagrams of one byte.
        frame(9, 1, &[0; 60_000]),
    ] {
        let mut node = TlsNode::welcome(&server, 1, Role::Client).await;
        node.send(bad).await;
        let refused = node.hear().await;
        assert!(
            matches!(
                refused,
                Control::Refused {
                    reason: RefuseReason::Protocol,
                    ..
                }
            ),
            "{refused:?}"
        );
        assert!(node.try_hear().await.is_none());
    }
    other.say(Control::Ping { token: 1 }).await;
    assert!(matches!(other.hear().await, Control::Pong { token: 1 }));
}

#[tokio::test]
async fn data_of_a_channel_that_is_not_ours_is_dropped() {
    let server = start().await;
    let (_client, mut agent) = pair(&server).await;
    let mut thief = TlsNode::welcome(&server, 3, Role::Client).await;
    thief.send(frame(9, 100, &[1; 100])).await;
    until(&server, "the drop", |s| s.data.dropped_unbound == 1).await;
    assert!(agent.echo().await.is_empty());
}

#[tokio::test]
async fn a_batch_from_udp_becomes_one_frame() {
    let server = start().await;
    let (mut client, agent) = bridged(&server).await;
    let batch: Vec<u8> = (0..10)
        .flat_map(|n| data(9, n, 1_452))
        .chain(data(9, 10, 100))
        .collect();
    agent.send_batch(&batch, 1_452);
    let heard = client.try_hear().await;
    let Some(Frame::Data {
        channel: id,
        segment,
        payload,
    }) = heard
    else {
        panic!("no data, but {heard:?}");
    };
    assert_eq!((id, segment), (channel(9), 1_444));
    let expected: Vec<u8> = (0..10u8).flat_map(|n| [n; 1_444]).chain([10; 92]).collect();
    assert_eq!(payload, expected);
}

#[tokio::test]
async fn a_frame_becomes_a_batch_to_udp() {
    let server = start().await;
    let (mut client, mut agent) = bridged(&server).await;
    let before = server.stats().data.udp_sends;
    let payload: Vec<u8> = (0..10u8).flat_map(|n| [n; 1_444]).chain([10; 92]).collect();
    client.send(frame(9, 1_444, &payload)).await;
    for n in 0..10 {
        assert_eq!(agent.recv_data().await, data(9, n, 1_452));
    }
    assert_eq!(agent.recv_data().await, data(9, 10, 100));
    let stats = until(&server, "the send is counted", |s| {
        s.data.udp_sends > before
    })
    .await;
    assert_eq!(stats.data.udp_sends - before, 1);
}

#[tokio::test]
async fn frames_between_two_tls_links_pass_unchanged_and_echo_comes_back() {
    let server = start().await;
    let mut agent = TlsNode::welcome(&server, 2, Role::Agent).await;
    let mut client = TlsNode::welcome(&server, 1, Role::Client).await;
    client.say(open(9, 2)).await;
    assert!(matches!(client.hear().await, Control::Opened(_)));
    assert!(matches!(agent.hear().await, Control::Incoming(_)));
    client.send(frame(9, 700, &[3; 2_000])).await;
    let Some(Frame::Data {
        segment: 700,
        payload,
        ..
    }) = agent.try_hear().await
    else {
        panic!("no data");
    };
    assert_eq!(payload, vec![3; 2_000]);
    client.send(frame(0, 700, &[4; 700])).await;
    let Some(Frame::Data {
        channel: id,
        payload,
        ..
    }) = client.try_hear().await
    else {
        panic!("no echo");
    };
    assert_eq!((id.as_u64(), payload.len()), (0, 700));
}

#[tokio::test]
async fn what_is_too_long_for_the_relay_is_dropped() {
    let server = start_with(|c| c.max_datagram = 1_000).await;
    let (mut client, mut agent) = bridged(&server).await;
    client.send(frame(9, 1_001, &[1; 1_001])).await;
    client.send(frame(9, 1_000, &[2; 1_000])).await;
    assert_eq!(agent.recv_data().await, data(9, 2, 1_008));
    assert_eq!(server.stats().data.dropped_oversize, 1);
}

#[tokio::test]
async fn a_side_moves_from_tls_to_udp_without_losing_the_channel() {
    let server = start().await;
    let (mut tls, agent) = bridged(&server).await;
    let mut udp = UdpNode::welcome(&server, 1, Role::Client).await;
    udp.say(&Control::Attach {
        channel: channel(9),
    })
    .await;
    assert!(matches!(udp.hear().await, Control::Attached { .. }));
    agent.send_data(&data(9, 1, 500));
    assert_eq!(udp.recv_data().await, data(9, 1, 500));
    // The old link is not bound any more.
    tls.send(frame(9, 100, &[1; 100])).await;
    until(&server, "the drop", |s| s.data.dropped_unbound == 1).await;
}

#[tokio::test]
async fn a_node_that_does_not_read_is_cut_and_others_go_on() {
    let server = start().await;
    let (client, agent) = bridged(&server).await;
    let mut other = UdpNode::welcome(&server, 4, Role::Client).await;
    // The client stops reading; the agent goes on sending more than any buffer holds.
    tokio::select! {
        () = agent.flood(9) => {}
        stats = until(&server, "the cut", |s| s.data.stalled == 1) => {
            assert!(stats.data.tls_dropped_full > 0, "{stats:?}");
            assert!(matches!(stats.load.links, 2 | 3), "{stats:?}");
        }
    }
    assert!(other.echo().await.is_empty());
    drop(client);
}

#[tokio::test]
async fn stopping_tells_nodes_on_tls_too() {
    let server = start().await;
    let mut node = TlsNode::welcome(&server, 1, Role::Client).await;
    let stop = tokio::spawn(server.stop());
    assert!(matches!(node.hear().await, Control::GoingAway { .. }));
    let refused = node.hear().await;
    assert!(matches!(
        refused,
        Control::Refused {
            reason: RefuseReason::Shutdown,
            ..
        }
    ));
    assert!(node.try_hear().await.is_none());
    soon("the stop", stop).await.unwrap();
}
