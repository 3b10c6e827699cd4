//! Stopping without anyone noticing: nodes are told, newcomers refused, and the last one out ends it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must panic")]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use byway_wire::relay::control::{Control, RefuseReason, Role};
use common::tls::TlsNode;
use common::udp::{UdpNode, pair};
use common::{SOON, data, hello, soon, start_with};

const LONG: Duration = Duration::from_secs(60);
const ALTERNATE: &str = "https://relay-b.example.com:443";

fn told(message: Control) -> (u32, usize) {
    match message {
        Control::GoingAway {
            deadline_ms,
            alternates,
        } => {
            assert!(alternates.iter().all(|url| url.to_string() == ALTERNATE));
            (deadline_ms, alternates.len())
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_relay_that_drains_names_where_to_go_and_ends_when_the_last_node_has_left() {
    let server = start_with(|config| config.alternates = vec![ALTERNATE.parse().unwrap()]).await;
    let server = Arc::new(server);
    let (mut client, mut agent) = pair(&server).await;
    let mut third = TlsNode::welcome(&server, 3, Role::Client).await;
    let began = Instant::now();
    let draining = {
        let server = Arc::clone(&server);
        tokio::spawn(async move { server.drain(LONG).await })
    };
    for said in [client.hear().await, agent.hear().await, third.hear().await] {
        assert_eq!(told(said), (60_000, 1));
    }
    // What is established goes on.
    client.send_data(&data(9, 1, 500));
    assert_eq!(agent.recv_data().await, data(9, 1, 500));
    // Newcomers are told where else to go and why they are refused, and do not keep it from ending.
    let mut late = UdpNode::connect(&server, 4).await;
    late.say(&hello(4, Role::Client)).await;
    let (left, named) = told(late.hear().await);
    assert!(left <= 60_000 && named == 1, "{left} ms, {named}");
    let refused = late.hear().await;
    let shutdown = RefuseReason::Shutdown;
    assert!(matches!(refused, Control::Refused { reason, .. } if reason == shutdown));
    assert_eq!(server.links(), 3);
    drop(third);
    client.connection.close(0u32.into(), b"");
    assert!(!draining.is_finished());
    agent.connection.close(0u32.into(), b"");
    assert!(soon("empty", draining).await.unwrap(), "it is empty");
    assert!(began.elapsed() < SOON);
    drop(late);
}

#[tokio::test]
async fn who_stays_is_cut_off_at_the_deadline() {
    let server = start_with(|_| ()).await;
    let mut node = UdpNode::welcome(&server, 1, Role::Agent).await;
    let began = Instant::now();
    let short = Duration::from_millis(300);
    assert!(!server.drain(short).await, "somebody is left");
    assert!(began.elapsed() >= short);
    assert_eq!(told(node.hear().await), (300, 0));
    let stopped = tokio::spawn(server.stop());
    loop {
        match node.hear().await {
            Control::GoingAway { .. } => {}
            Control::Refused { reason, .. } => {
                assert_eq!(reason, RefuseReason::Shutdown);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    soon("the stop", stopped).await.unwrap();
}

#[tokio::test]
async fn a_relay_without_nodes_has_drained_at_once() {
    let server = start_with(|_| ()).await;
    assert!(soon("nobody", server.drain(LONG)).await);
}
