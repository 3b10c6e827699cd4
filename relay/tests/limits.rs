//! Limits that an operator set hold at their edge and beyond, are counted, and are told to whoever meets them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must panic")]

mod common;

use byway_wire::relay::control::{CloseReason, Control, RefuseReason, Role};
use byway_wire::stun::{self, TransactionId};
use common::udp::UdpNode;
use common::*;
use tokio::net::UdpSocket;

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
