//! What an embedding program does with a tunnel: streams, datagrams, pings, and how it ends.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use bytes::Bytes;
use byway::forward::TargetPolicy;
use byway::tunnel::{StreamError, TunnelClosed};
use byway::{PathKind, Refusal};
use common::{Pair, pair, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_go_both_ways_and_half_close() {
    let Pair { ours, theirs, .. } = &pair().await;
    for (opener, accepter) in [(ours, theirs), (theirs, ours)] {
        let (mut send, mut recv) = opener.open().await.unwrap();
        send.write_all(b"question").await.unwrap();
        send.finish().unwrap();
        let (mut back, mut from) = within(accepter.accept()).await.unwrap();
        assert_eq!(within(from.read_to_end(100)).await.unwrap(), b"question");
        back.write_all(b"answer").await.unwrap();
        back.finish().unwrap();
        assert_eq!(within(recv.read_to_end(100)).await.unwrap(), b"answer");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn datagrams_come_back_and_too_long_ones_are_refused() {
    let Pair { ours, theirs, .. } = &pair().await;
    // Datagrams are unreliable, even on loopback while the path changes: repeated until one is there.
    let read = tokio::spawn({
        let theirs = theirs.clone();
        async move { theirs.read_datagram().await }
    });
    while !read.is_finished() {
        ours.send_datagram(Bytes::from_static(b"ping")).unwrap();
        ours.ping().await.unwrap();
    }
    assert_eq!(read.await.unwrap().unwrap(), &b"ping"[..]);

    let longest = ours.max_datagram();
    assert!(longest >= 1_100, "{longest}");
    let error = ours
        .send_datagram(Bytes::from(vec![0; 10_000]))
        .unwrap_err();
    assert!(
        matches!(error, StreamError::DatagramTooLong { .. }),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_tells_its_path_and_its_counters() {
    let Pair {
        ours,
        theirs,
        agent,
        client,
        ..
    } = &pair().await;
    within(ours.wait_for(PathKind::Direct)).await.unwrap();
    within(ours.ping()).await.unwrap();
    let path = ours.path().borrow().clone();
    assert_eq!(path.kind, PathKind::Direct);
    assert!(path.remote.is_some());
    assert!(path.relay.is_none());
    let stats = ours.stats();
    assert!(stats.switches >= 1);
    // Through the relay there may have been the first flight alone, which rides inside `Open`: this host is near.
    assert!(stats.sent_by_kind[0] > 0);
    assert!(stats.sent_bytes > 0 && stats.received_bytes > 0);
    assert_eq!(theirs.remote(), client.node_id());
    assert_eq!(ours.remote(), agent.node_id());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_is_heard_at_the_other_end() {
    let Pair { ours, theirs, .. } = &pair().await;
    ours.close();
    assert_eq!(within(theirs.closed()).await, TunnelClosed::Done);
    assert_eq!(within(ours.closed()).await, TunnelClosed::Local);
    assert!(within(theirs.accept()).await.is_none());
    assert!(matches!(
        within(ours.open()).await,
        Err(StreamError::Closed(TunnelClosed::Local))
    ));
    assert!(matches!(
        within(theirs.ping()).await,
        Err(StreamError::Closed(TunnelClosed::Done))
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_last_clone_ends_the_tunnel() {
    let Pair {
        ours,
        theirs,
        relay: _relay,
        agent: _agent,
        client: _client,
    } = pair().await;
    let second = ours.clone();
    drop(ours);
    within(second.ping()).await.unwrap();
    drop(second);
    assert_eq!(within(theirs.closed()).await, TunnelClosed::Done);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_served_tunnel_lives_without_being_held() {
    let Pair {
        ours,
        theirs,
        relay: _relay,
        agent: _agent,
        client: _client,
    } = pair().await;
    theirs.serve(TargetPolicy::loopback());
    drop(theirs);
    within(ours.ping()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_side_that_does_not_serve_denies_targets() {
    let Pair { ours, .. } = &pair().await;
    let error = within(ours.connect(&"80".parse().unwrap()))
        .await
        .unwrap_err();
    let StreamError::Refused(refused) = error else {
        panic!("not a refusal: {error}");
    };
    assert_eq!(refused.reason, Refusal::Denied);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_never_accepts_is_not_flooded() {
    let Pair { ours, theirs, .. } = &pair().await;
    // More than the queue holds: the ones beyond are reset, and nothing else is disturbed.
    let mut held = Vec::new();
    let mut resets = tokio::task::JoinSet::new();
    for _ in 0..300 {
        let (mut send, mut recv) = within(ours.open()).await.unwrap();
        send.write_all(b"x").await.unwrap();
        held.push(send);
        resets.spawn(async move { recv.received_reset().await });
    }
    for _ in 0..300 - 256 {
        let reset = within(resets.join_next()).await.unwrap().unwrap();
        assert!(matches!(reset, Ok(Some(_))), "{reset:?}");
    }
    within(ours.ping()).await.unwrap();
    for _ in 0..256 {
        within(theirs.accept()).await.unwrap();
    }
    assert!(resets.try_join_next().is_none(), "no more than those");
}
