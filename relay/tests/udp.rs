//! The UDP side, from outside: STUN, links, forwarding, rebinding.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must panic")]

mod common;

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use byway_wire::relay::control::{CloseReason, Control, Rebind, RefuseReason, Role};
use byway_wire::relay::cookie::Cookie;
use byway_wire::stun::{self, ChangeRequest, Message, TransactionId};
use common::udp::{UdpNode, client_config, join, pair, unfinished};
use common::*;
use tokio::net::UdpSocket;

const TXID: TransactionId = TransactionId([7; 12]);

async fn stranger(to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(SocketAddr::new(to.ip(), 0)).await.unwrap();
    socket.connect(to).await.unwrap();
    socket
}
async fn recv(socket: &UdpSocket) -> Vec<u8> {
    let mut buf = vec![0; 2_000];
    let n = soon("an answer", socket.recv(&mut buf)).await.unwrap();
    buf.truncate(n);
    buf
}

#[tokio::test]
async fn a_padded_stun_request_gets_an_answer_no_longer_than_itself() {
    let server = start().await;
    let socket = stranger(addr(&server)).await;
    // Freely: more often than the budget for bare requests allows.
    for _ in 0..50 {
        let request = stun::encode_request(TXID, true, None);
        socket.send(&request).await.unwrap();
        let answer = recv(&socket).await;
        assert!(
            answer.len() <= request.len(),
            "{} > {}",
            answer.len(),
            request.len()
        );
        let Ok(Message::Success { txid, mapped, .. }) = stun::decode(&answer) else {
            panic!("not a success");
        };
        assert_eq!((txid, mapped), (TXID, socket.local_addr().unwrap()));
    }
}

#[tokio::test]
async fn bare_stun_requests_get_the_address_only_and_have_a_budget() {
    let server = start().await;
    let socket = stranger(addr(&server)).await;
    let request = stun::encode_request(TXID, false, None);
    assert_eq!(request.len(), 20);
    for _ in 0..40 {
        socket.send(&request).await.unwrap();
    }
    let answer = recv(&socket).await;
    assert_eq!(answer.len(), 32, "a header and XOR-MAPPED-ADDRESS");
    let stats = until(&server, "all forty are decided", |s| {
        s.data.stun_answered + s.data.stun_limited == 40
    })
    .await;
    // Ten at once and ten a second: how many seconds this takes is the machine's affair.
    assert!(
        stats.data.stun_answered >= 10 && stats.data.stun_limited > 0,
        "{stats:?}"
    );
}

#[tokio::test]
async fn stun_attributes_we_must_understand_and_do_not_are_named_in_a_420() {
    let server = start().await;
    let socket = stranger(addr(&server)).await;
    let change = ChangeRequest {
        ip: true,
        port: true,
    };
    socket
        .send(&stun::encode_request(TXID, false, Some(change)))
        .await
        .unwrap();
    let answer = stun::decode(&recv(&socket).await).unwrap();
    assert_eq!(
        answer,
        Message::Failure {
            txid: TXID,
            code: 420
        }
    );
}

#[tokio::test]
async fn nothing_but_a_request_is_ever_answered() {
    let server = start().await;
    let socket = stranger(addr(&server)).await;
    let me = socket.local_addr().unwrap();
    let mut cut_off = stun::encode_request(TXID, true, None);
    cut_off.truncate(24);
    let hostile = [
        stun::encode_success(TXID, me, 100),
        stun::encode_unknown_attributes(TXID, &[0x0003]),
        cut_off,
        vec![0x80; 5],
        [vec![0x81], vec![0; 100]].concat(),
        [vec![0x82], vec![0; 60]].concat(),
        [vec![0x83], vec![0; 60]].concat(),
        vec![0xc0; 1],
        vec![0x40; 30],
        vec![],
    ];
    for datagram in &hostile {
        socket.send(datagram).await.unwrap();
    }
    // The answer to this one is the first that comes.
    socket
        .send(&stun::encode_request(TXID, true, None))
        .await
        .unwrap();
    assert!(matches!(
        stun::decode(&recv(&socket).await),
        Ok(Message::Success { .. })
    ));
    let stats = until(&server, "the answer is counted", |s| s.data.udp_out > 0).await;
    assert_eq!(stats.data.stun_ignored, 3);
    assert_eq!(stats.data.udp_out, 1);
}

#[tokio::test]
async fn a_node_without_a_key_is_not_let_in() {
    let server = start().await;
    let config = client_config(&server, None);
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let connecting = endpoint
        .connect_with(config, addr(&server), "relay.invalid")
        .unwrap();
    // TLS 1.3: the client believes in the connection until the server has seen that there is no key.
    if let Ok(connection) = soon("handshake", connecting).await {
        soon("the end", connection.closed()).await;
    }
    let stats = until(&server, "the refusal", |s| s.data.handshakes_failed == 1).await;
    assert_eq!(stats.control.links, 0);
}

#[tokio::test]
async fn a_record_of_another_key_ends_the_link() {
    let server = start().await;
    let mut node = UdpNode::connect(&server, 1).await;
    node.say(&hello(2, Role::Client)).await;
    let refused = node.hear().await;
    assert!(matches!(
        refused,
        Control::Refused {
            reason: RefuseReason::Identity,
            ..
        }
    ));
    assert!(node.try_hear().await.is_none());
    soon("the end", node.connection.closed()).await;
}

#[tokio::test]
async fn a_malformed_message_ends_its_link_and_no_other() {
    let server = start().await;
    let (mut client, mut agent) = pair(&server).await;
    let mut hostile = UdpNode::welcome(&server, 3, Role::Client).await;
    hostile
        .send
        .write_all(&[0, 0, 0, 3, 0xff, 0xff, 0xff])
        .await
        .unwrap();
    let refused = hostile.hear().await;
    assert!(matches!(
        refused,
        Control::Refused {
            reason: RefuseReason::Protocol,
            ..
        }
    ));
    soon("the end", hostile.connection.closed()).await;

    client.send_data(&data(9, 1, 100));
    assert_eq!(agent.recv_data().await, data(9, 1, 100));
    client.say(&Control::Ping { token: 4 }).await;
    assert!(matches!(client.hear().await, Control::Pong { token: 4 }));
}

#[tokio::test]
async fn a_message_longer_than_allowed_ends_the_link_before_it_is_read() {
    let server = start().await;
    let mut node = UdpNode::welcome(&server, 1, Role::Client).await;
    node.send
        .write_all(&(1u32 << 20).to_be_bytes())
        .await
        .unwrap();
    let refused = node.hear().await;
    assert!(matches!(
        refused,
        Control::Refused {
            reason: RefuseReason::Protocol,
            ..
        }
    ));
}

#[tokio::test]
async fn a_crowd_that_never_ends_its_handshakes_keeps_nobody_out() {
    let server = start().await;
    let crowd = unfinished(&server, 150);
    until(&server, "proof is asked for", |s| s.data.retried > 0).await;
    let mut node = UdpNode::welcome(&server, 1, Role::Client).await;
    assert!(node.echo().await.is_empty());
    assert_eq!(server.stats().data.connections_limited, 0);
    drop(crowd);
}

#[tokio::test]
async fn a_refused_node_that_takes_no_bytes_is_not_kept() {
    let server = start().await;
    let mut config = client_config(&server, Some(&key(1)));
    let mut transport = quinn::TransportConfig::default();
    transport
        .stream_receive_window(0u32.into())
        .keep_alive_interval(Some(Duration::from_secs(1)));
    config.transport_config(Arc::new(transport));
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let connecting = endpoint
        .connect_with(config, addr(&server), "relay.invalid")
        .unwrap();
    let connection = soon("handshake", connecting).await.unwrap();
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    send.write_all(&[0, 0, 0, 3, 0xff, 0xff, 0xff])
        .await
        .unwrap();
    soon("the end", connection.closed()).await;
}

#[tokio::test]
async fn quic_longer_than_the_endpoint_reads_is_dropped_at_the_door() {
    let server = start().await;
    let stranger = stranger(addr(&server)).await;
    stranger.send(&[0x40; 1_473]).await.unwrap();
    until(&server, "the drop", |s| s.data.quic_dropped == 1).await;
    stranger.send(&[0x40; 1_472]).await.unwrap();
    let stats = until(&server, "the other one", |s| s.data.quic_in == 2).await;
    assert_eq!(stats.data.quic_dropped, 1);
}

#[tokio::test]
async fn data_goes_both_ways_byte_for_byte() {
    let server = start().await;
    let (mut client, mut agent) = pair(&server).await;
    for len in [9, 60, 1_200, 1_452, 9_008] {
        client.send_data(&data(9, 1, len));
        assert_eq!(agent.recv_data().await, data(9, 1, len));
        agent.send_data(&data(9, 2, len));
        assert_eq!(client.recv_data().await, data(9, 2, len));
    }
}

#[tokio::test]
async fn a_batch_leaves_as_one_send() {
    let server = start().await;
    let (client, mut agent) = pair(&server).await;
    let sends = server.stats().data.udp_sends;
    // Forty segments and a short tail.
    let batch: Vec<u8> = (0..40)
        .flat_map(|n| data(9, n, 1_452))
        .chain(data(9, 40, 333))
        .collect();
    client.send_batch(&batch, 1_452);
    for n in 0..40 {
        assert_eq!(agent.recv_data().await, data(9, n, 1_452));
    }
    assert_eq!(agent.recv_data().await, data(9, 40, 333));
    let stats = until(&server, "the send is counted", |s| s.data.udp_sends > sends).await;
    assert_eq!(stats.data.udp_sends - sends, 1);
}

#[tokio::test]
async fn a_mixed_buffer_is_taken_apart() {
    let server = start().await;
    let mut one = UdpNode::welcome(&server, 2, Role::Agent).await;
    let mut two = UdpNode::welcome(&server, 3, Role::Agent).await;
    let mut client = UdpNode::welcome(&server, 1, Role::Client).await;
    join(&mut client, &mut one, 9).await;
    join(&mut client, &mut two, 10).await;
    // One GSO batch: two channels, an echo, STUN, QUIC that is none, a probe, and a short tail.
    let mut stun = stun::encode_request(TXID, true, None);
    let segment = stun.len().max(64);
    assert_eq!(stun.len() % 4, 0);
    if stun.len() < segment {
        // A SOFTWARE attribute makes up the length; FINGERPRINT must stay last, so start from a bare request.
        stun = stun::encode_request(TXID, false, None);
        let pad = segment - stun.len() - 4;
        stun.extend_from_slice(&[0x80, 0x22, 0, pad as u8]);
        stun.resize(segment, b'x');
        stun[3] = (segment - 20) as u8;
    }
    let mut probe = vec![0x81; segment];
    probe[1] = 0x11;
    let batch = [
        data(9, 1, segment),
        data(9, 2, segment),
        data(10, 3, segment),
        data(0, 4, segment),
        stun,
        vec![0x5a; segment],
        probe,
        data(9, 5, segment),
        data(9, 6, 30),
    ]
    .concat();
    client.send_batch(&batch, segment);
    for (tag, len) in [(1, segment), (2, segment), (5, segment), (6, 30)] {
        assert_eq!(one.recv_data().await, data(9, tag, len));
    }
    assert_eq!(two.recv_data().await, data(10, 3, segment));
    let mut answers = [client.recv_data().await, client.recv_data().await];
    answers.sort();
    assert!(matches!(
        stun::decode(&answers[0]),
        Ok(Message::Success { .. })
    ));
    assert_eq!(answers[1], data(0, 4, segment));
    let stats = until(&server, "the probe is dropped", |s| {
        s.data.dropped_unknown == 1
    })
    .await;
    assert!(stats.data.quic_in > 0);
}

#[tokio::test]
async fn a_full_size_echo_comes_back_to_a_link_and_to_nobody_else() {
    let server = start().await;
    let mut node = UdpNode::welcome(&server, 1, Role::Client).await;
    let probe = data(0, 3, 1_452);
    node.send_data(&probe);
    assert_eq!(node.recv_data().await, probe);

    let stranger = stranger(addr(&server)).await;
    stranger.send(&probe).await.unwrap();
    let answer = recv(&stranger).await;
    assert_eq!(answer[0], 0x82, "a cookie, not the echo");
    assert_eq!(server.stats().data.echoed, 1);
}

#[tokio::test]
async fn data_from_an_unbound_address_is_dropped_and_answered_with_a_cookie() {
    let server = start().await;
    let (mut client, mut agent) = pair(&server).await;
    let moved = stranger(addr(&server)).await;
    // The same for a channel that exists and one that does not.
    for id in [9, 77] {
        moved.send(&data(id, 1, 200)).await.unwrap();
        let answer = recv(&moved).await;
        assert!(answer.len() <= 200);
        let cookie = Cookie::decode(&answer).unwrap();
        assert_eq!(
            (cookie.channel, cookie.addr),
            (channel(id), moved.local_addr().unwrap())
        );
    }
    // Too short to be worth a cookie.
    moved.send(&data(9, 1, 20)).await.unwrap();
    until(&server, "the refusal", |s| s.data.cookies_limited == 1).await;
    assert!(agent.echo().await.is_empty(), "nothing was forwarded");

    // The node echoes the cookie on its link, and its data moves.
    moved.send(&data(9, 1, 200)).await.unwrap();
    let cookie = Cookie::decode(&recv(&moved).await).unwrap();
    client.say(&Control::Rebind(Rebind { cookie })).await;
    let Control::Rebound { observed } = client.hear().await else {
        panic!("not rebound");
    };
    assert_eq!(observed, moved.local_addr().unwrap());
    moved.send(&data(9, 2, 200)).await.unwrap();
    assert_eq!(agent.recv_data().await, data(9, 2, 200));
    agent.send_data(&data(9, 3, 200));
    assert_eq!(recv(&moved).await, data(9, 3, 200));
    // The old address is nobody now.
    client.send_data(&data(9, 4, 200));
    assert_eq!(client.recv_data().await[0], 0x82);
}

#[tokio::test]
async fn a_node_that_only_listens_is_asked_to_rebind_when_quic_sees_it_move() {
    let server = start().await;
    let (mut client, mut agent) = pair(&server).await;
    agent.change_port();
    let cookie = Cookie::decode(&agent.recv_data().await).unwrap();
    assert_eq!((cookie.channel, cookie.addr), (channel(0), agent.local()));
    // A hint is no proof: nothing has moved yet.
    client.send_data(&data(9, 1, 200));
    client.echo().await;
    assert_eq!(agent.pending_data(), None);
    agent.say(&Control::Rebind(Rebind { cookie })).await;
    assert!(
        matches!(agent.hear().await, Control::Rebound { observed } if observed == agent.local())
    );
    client.send_data(&data(9, 2, 200));
    assert_eq!(agent.recv_data().await, data(9, 2, 200));
}

#[tokio::test]
async fn a_stranger_with_a_genuine_cookie_moves_nothing() {
    let server = start().await;
    let (_client, mut agent) = pair(&server).await;
    let mut thief = UdpNode::welcome(&server, 3, Role::Client).await;
    thief.send_data(&data(9, 1, 200));
    let cookie = Cookie::decode(&thief.recv_data().await).unwrap();
    thief.say(&Control::Rebind(Rebind { cookie })).await;
    until(&server, "the refusal", |s| s.control.bad_cookies == 1).await;
    thief.send_data(&data(9, 2, 200));
    assert_eq!(thief.recv_data().await[0], 0x82);
    assert!(agent.echo().await.is_empty());
}

#[tokio::test]
async fn a_flood_from_unbound_addresses_gets_few_cookies() {
    let server = start().await;
    let socket = stranger(addr(&server)).await;
    for _ in 0..200 {
        socket.send(&data(1, 1, 60)).await.unwrap();
    }
    let stats = until(&server, "all are decided", |s| {
        s.data.dropped_unbound == 200
    })
    .await;
    assert!((20..100).contains(&stats.data.cookies), "{stats:?}");
}

#[tokio::test]
async fn what_is_too_long_is_dropped_and_counted() {
    let server = start_with(|c| c.max_datagram = 1_000).await;
    let (client, mut agent) = pair(&server).await;
    // So many that the relay receives several at once: what is too long takes nothing along.
    for n in 0..50 {
        client.send_data(&data(9, 200, 1_009));
        client.send_data(&data(9, n, 1_008));
    }
    for n in 0..50 {
        assert_eq!(agent.recv_data().await, data(9, n, 1_008));
    }
    assert_eq!(server.stats().data.dropped_oversize, 50);
    // Nor does it where the kernel has merged them, or the last one is too long as well.
    let batch = |last: usize| [data(9, 200, 1_100).repeat(3), data(9, 50, last)].concat();
    client.send_batch(&batch(1_009), 1_100);
    client.send_batch(&batch(1_008), 1_100);
    assert_eq!(agent.recv_data().await, data(9, 50, 1_008));
    assert_eq!(server.stats().data.dropped_oversize, 50 + 4 + 3);
}

#[tokio::test]
async fn a_header_without_a_payload_is_dropped() {
    let server = start().await;
    let (client, mut agent) = pair(&server).await;
    client.send_data(&data(9, 1, 8));
    client.send_data(&data(9, 2, 9));
    assert_eq!(agent.recv_data().await, data(9, 2, 9));
    assert_eq!(server.stats().data.dropped_unknown, 1);
}

#[tokio::test]
async fn an_absent_peer_is_offline_and_a_refusal_is_heard() {
    let server = start().await;
    let (mut client, mut agent) = pair(&server).await;
    client.say(&open(50, 200)).await;
    client.say(&open(51, 2)).await;
    assert!(matches!(client.hear().await, Control::Opened(_)));
    assert!(matches!(agent.hear().await, Control::Incoming(_)));
    let refusal = Control::Closed {
        channel: channel(51),
        reason: CloseReason::NotAllowed,
    };
    agent.say(&refusal).await;
    let heard = client.hear().await;
    assert!(matches!(
        heard,
        Control::Closed {
            reason: CloseReason::NotAllowed,
            ..
        }
    ));
    let heard = client.hear().await;
    assert!(matches!(
        heard,
        Control::Closed {
            reason: CloseReason::Offline,
            ..
        }
    ));
}

#[tokio::test]
async fn two_families_are_one_relay() {
    let server = start_with(|c| {
        c.listen.push(SocketAddr::from((Ipv6Addr::LOCALHOST, 0)));
    })
    .await;
    let [v4, v6] = server.local_addrs() else {
        panic!("two addresses");
    };
    assert_eq!(v4.port(), v6.port());
    let mut agent = UdpNode::welcome_at(&server, *v6, 2, Role::Agent).await;
    let mut client = UdpNode::welcome_at(&server, *v4, 1, Role::Client).await;
    join(&mut client, &mut agent, 9).await;
    client.send_data(&data(9, 1, 1_452));
    assert_eq!(agent.recv_data().await, data(9, 1, 1_452));
    agent.send_data(&data(9, 2, 1_452));
    assert_eq!(client.recv_data().await, data(9, 2, 1_452));
}

#[tokio::test]
async fn when_all_have_gone_nothing_is_left() {
    let server = start().await;
    let (client, agent) = pair(&server).await;
    client.connection.close(0u32.into(), b"");
    agent.connection.close(0u32.into(), b"");
    until(&server, "the links end", |s| s.load.links == 0).await;
    // The ends linger for ten seconds, which relay-core's tests look at.
}

#[tokio::test]
async fn stopping_tells_every_node() {
    let server = start().await;
    let mut node = UdpNode::welcome(&server, 1, Role::Client).await;
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
    soon("the stop", stop).await.unwrap();
    soon("the end", node.connection.closed()).await;
}

#[tokio::test]
async fn killing_tells_nobody_and_frees_the_port() {
    let server = start().await;
    let relay = addr(&server);
    let mut node = UdpNode::welcome(&server, 1, Role::Client).await;
    server.kill();
    let deadline = std::time::Instant::now() + SOON;
    let again = loop {
        let mut config = byway_relay::ServerConfig::dev();
        config.listen = vec![relay];
        match byway_relay::Server::start(config).await {
            Ok(server) => break server,
            Err(e) => assert!(std::time::Instant::now() < deadline, "{e:#}"),
        }
        tokio::task::yield_now().await;
    };
    assert!(node.connection.close_reason().is_none(), "it was not told");
    // The new relay has the port alone: whatever comes is answered by it.
    let socket = stranger(relay).await;
    for _ in 0..8 {
        socket
            .send(&stun::encode_request(TXID, true, None))
            .await
            .unwrap();
        recv(&socket).await;
    }
    assert_eq!(again.stats().data.stun_answered, 8);
    node.connection.close(0u32.into(), b"");
    assert!(node.pending_data().is_none());
}

#[tokio::test]
async fn two_relays_do_not_share_a_port() {
    let server = start().await;
    let mut config = byway_relay::ServerConfig::dev();
    config.listen = vec![addr(&server)];
    let error = byway_relay::Server::start(config).await.unwrap_err();
    assert!(format!("{error:#}").contains("--listen"), "{error:#}");
}

#[tokio::test]
async fn a_restarted_relay_ends_the_links_of_its_former_life() {
    let dir = std::env::temp_dir().join(format!("byway-relay-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let files = byway_relay::CertFiles {
        cert: dir.join("cert.pem"),
        key: dir.join("key.pem"),
    };
    std::fs::write(&files.cert, made.cert.pem()).unwrap();
    std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    let first = start_with(|c| c.cert = Some(files.clone())).await;
    let relay = addr(&first);
    let mut node = UdpNode::welcome(&first, 1, Role::Client).await;
    first.kill();
    let deadline = std::time::Instant::now() + SOON;
    let second = loop {
        let mut config = byway_relay::ServerConfig::dev();
        config.listen = vec![relay];
        config.cert = Some(files.clone());
        match byway_relay::Server::start(config).await {
            Ok(server) => break server,
            Err(e) => assert!(std::time::Instant::now() < deadline, "{e:#}"),
        }
        tokio::task::yield_now().await;
    };
    std::fs::remove_dir_all(&dir).unwrap();
    node.say(&Control::Ping { token: 1 }).await;
    let end = soon("the reset", node.connection.closed()).await;
    assert!(matches!(end, quinn::ConnectionError::Reset), "{end}");
    // And it is welcome again.
    UdpNode::welcome(&second, 1, Role::Client).await;
}
