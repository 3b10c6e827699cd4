//! Forwarding TCP through a tunnel: what goes in at one end comes out at the other, bytes, ends and resets alike.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use byway::forward::{self, CarryError, Forward, TargetPolicy};
use byway::tunnel::StreamError;
use byway::{Refusal, Refused, Target};
use common::{Pair, pair, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// Our tunnel, the local end of a forward, and the listener at its far end.
struct Scene {
    pair: Pair,
    forward: Forward,
    far: TcpListener,
    refusals: mpsc::UnboundedReceiver<Refused>,
}

impl Scene {
    async fn new(policy: TargetPolicy) -> Self {
        let far = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = target(far.local_addr().unwrap());
        Self::to(policy, far, target).await
    }

    async fn to(policy: TargetPolicy, far: TcpListener, target: Target) -> Self {
        let pair = pair().await;
        pair.theirs.serve(policy);
        let (refused, refusals) = mpsc::unbounded_channel();
        let forward = Forward::listen(
            pair.ours.clone(),
            "127.0.0.1:0".parse().unwrap(),
            target,
            move |_, why| refused.send(why).unwrap(),
        )
        .await
        .unwrap();
        Self {
            pair,
            forward,
            far,
            refusals,
        }
    }

    /// One connection, seen from both ends.
    async fn connection(&self) -> (TcpStream, TcpStream) {
        let near = TcpStream::connect(self.forward.local_addr());
        let (near, far) = within(async { tokio::join!(near, self.far.accept()) }).await;
        (near.unwrap(), far.unwrap().0)
    }
}

fn target(addr: SocketAddr) -> Target {
    Target::Tcp {
        host: addr.ip().to_string(),
        port: addr.port(),
    }
}

/// Says something to a forward that is going to refuse. The reset may come at any moment: while still connecting, with
/// what was written, or in place of an answer.
async fn refused_by(local: SocketAddr) -> std::io::Error {
    let talk = async {
        let mut near = TcpStream::connect(local).await?;
        near.write_all(b"written before the answer is known")
            .await?;
        near.read_to_end(&mut Vec::new()).await
    };
    within(talk).await.expect_err("not an empty answer")
}

async fn read_all(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    within(stream.read_to_end(&mut bytes)).await.map(|_| bytes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_close_leaves_the_other_direction_open() {
    let scene = Scene::new(TargetPolicy::loopback()).await;
    let (mut near, mut far) = scene.connection().await;
    near.write_all(b"request").await.unwrap();
    near.shutdown().await.unwrap();
    assert_eq!(read_all(&mut far).await.unwrap(), b"request");
    far.write_all(b"late answer").await.unwrap();
    far.shutdown().await.unwrap();
    assert_eq!(read_all(&mut near).await.unwrap(), b"late answer");

    // And the other way round: the target ends first.
    let (mut near, mut far) = scene.connection().await;
    far.write_all(b"greeting").await.unwrap();
    far.shutdown().await.unwrap();
    assert_eq!(read_all(&mut near).await.unwrap(), b"greeting");
    near.write_all(b"upload").await.unwrap();
    near.shutdown().await.unwrap();
    assert_eq!(read_all(&mut far).await.unwrap(), b"upload");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_arrives_as_a_reset() {
    let scene = Scene::new(TargetPolicy::loopback()).await;

    let (mut near, far) = scene.connection().await;
    far.set_zero_linger().unwrap();
    drop(far);
    let error = read_all(&mut near).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);

    let (near, mut far) = scene.connection().await;
    near.set_zero_linger().unwrap();
    drop(near);
    let error = read_all(&mut far).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_that_ends_resets_its_connections() {
    let scene = Scene::new(TargetPolicy::loopback()).await;
    let (mut near, mut far) = scene.connection().await;
    near.write_all(b"x").await.unwrap();
    far.read_u8().await.unwrap();
    scene.pair.ours.close();
    // Truncated data must never look like an end.
    for end in [&mut near, &mut far] {
        let error = read_all(end).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_does_not_read_is_reset_when_its_tunnel_has_ended() {
    let scene = Scene::new(TargetPolicy::loopback()).await;
    let (mut near, far) = scene.connection().await;
    let (near_stuck, mut far_writes) = scene.connection().await;
    // Fill everything between the ends, one connection in each direction.
    let block = vec![7; 64 * 1024];
    for writer in [&mut near, &mut far_writes] {
        while tokio::time::timeout(Duration::from_millis(300), writer.write_all(&block))
            .await
            .is_ok()
        {}
    }
    scene.pair.ours.close();
    // Neither reads; both hear of it, as a reset rather than as an end.
    for reader in [&far, &near_stuck] {
        let error = within(async {
            loop {
                reader.ready(tokio::io::Interest::ERROR).await.unwrap();
                if let Some(error) = reader.take_error().unwrap() {
                    return error;
                }
            }
        })
        .await;
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_that_ends_under_many_connections_resets_each() {
    let scene = Scene::new(TargetPolicy::loopback()).await;
    let mut ends = Vec::new();
    for _ in 0..50 {
        let (mut near, mut far) = scene.connection().await;
        near.write_all(b"x").await.unwrap();
        far.read_u8().await.unwrap();
        ends.extend([near, far]);
    }
    scene.pair.ours.close();
    for end in &mut ends {
        let error = read_all(end).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_bytes_both_ways_at_once_arrive_unchanged() {
    const SIZE: usize = 8 << 20;
    let scene = Scene::new(TargetPolicy::loopback()).await;
    let (near, far) = scene.connection().await;
    let pattern = |seed: u32| -> Vec<u8> {
        let mut state = seed;
        (0..SIZE)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect()
    };
    let exchange = |stream: TcpStream, out: Vec<u8>| async move {
        let (mut read, mut write) = stream.into_split();
        let writing = tokio::spawn(async move {
            write.write_all(&out).await.unwrap();
            write.shutdown().await.unwrap();
        });
        let mut bytes = Vec::new();
        read.read_to_end(&mut bytes).await.unwrap();
        writing.await.unwrap();
        bytes
    };
    let (at_near, at_far) =
        within(async { tokio::join!(exchange(near, pattern(1)), exchange(far, pattern(2))) }).await;
    assert!(at_far == pattern(1), "what went up arrived changed");
    assert!(at_near == pattern(2), "what came down arrived changed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_connections_share_a_tunnel() {
    let scene = Scene::new(TargetPolicy::loopback()).await;
    let local = scene.forward.local_addr();
    let serving = async {
        for _ in 0..100 {
            let (mut far, _) = scene.far.accept().await.unwrap();
            tokio::spawn(async move {
                let (mut read, mut write) = far.split();
                tokio::io::copy(&mut read, &mut write).await.unwrap();
                write.shutdown().await.unwrap();
            });
        }
    };
    let asking = async {
        let mut all = tokio::task::JoinSet::new();
        for number in 0..100_u32 {
            all.spawn(async move {
                let mut near = TcpStream::connect(local).await.unwrap();
                near.write_all(&number.to_be_bytes()).await.unwrap();
                near.shutdown().await.unwrap();
                assert_eq!(read_all(&mut near).await.unwrap(), number.to_be_bytes());
            });
        }
        while let Some(result) = all.join_next().await {
            result.unwrap();
        }
    };
    within(async { tokio::join!(serving, asking) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_where_nothing_listens_is_refused_with_a_reset() {
    let mut scene = {
        let far = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = target(gone.local_addr().unwrap());
        drop(gone);
        Scene::to(TargetPolicy::loopback(), far, target).await
    };
    let error = refused_by(scene.forward.local_addr()).await;
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let refused = within(scene.refusals.recv()).await.unwrap();
    assert_eq!(refused.reason, Refusal::Refused);
    assert!(refused.detail.contains("nothing listens"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_reader_and_writer_are_carried_to_a_target_without_waiting_for_its_answer() {
    let scene = Scene::new(TargetPolicy::loopback()).await;
    let there = target(scene.far.local_addr().unwrap());
    let mut answer = Vec::new();
    let carrying = forward::carry(&scene.pair.ours, &there, &b"question"[..], &mut answer);
    let serving = async {
        let (mut far, _) = scene.far.accept().await.unwrap();
        assert_eq!(read_all(&mut far).await.unwrap(), b"question");
        far.write_all(b"answer").await.unwrap();
        far.shutdown().await.unwrap();
    };
    let (carried, ()) = within(async { tokio::join!(carrying, serving) }).await;
    assert_eq!(carried.unwrap(), (8, 6));
    assert_eq!(answer, b"answer");

    // A refusal is told as one, however much was to be said.
    let denied = Target::Tcp {
        host: "192.0.2.1".to_owned(),
        port: 1,
    };
    let endless = tokio::io::repeat(7);
    let refused = forward::carry(&scene.pair.ours, &denied, endless, tokio::io::sink());
    let refused = within(refused).await.unwrap_err();
    assert!(
        matches!(&refused, CarryError::Stream(StreamError::Refused(why)) if why.reason == Refusal::Denied),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_the_policy_does_not_name_is_denied() {
    let mut scene = Scene::new(TargetPolicy::loopback().allow("1").unwrap()).await;
    refused_by(scene.forward.local_addr()).await;
    assert_eq!(
        within(scene.refusals.recv()).await.unwrap().reason,
        Refusal::Denied
    );
    let error = scene
        .pair
        .ours
        .connect(&target(scene.far.local_addr().unwrap()))
        .await
        .unwrap_err();
    assert!(matches!(error, StreamError::Refused(refused) if refused.reason == Refusal::Denied));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_made_while_the_tunnel_is_gone_goes_on_over_the_next() {
    let scene = Scene::new(TargetPolicy::loopback()).await;
    scene.pair.ours.close();
    within(scene.forward.closed()).await;
    let mut near = TcpStream::connect(scene.forward.local_addr())
        .await
        .unwrap();
    near.write_all(b"patience").await.unwrap();

    let ticket = scene.pair.agent.ticket(None);
    let (ours, theirs) = common::tunnel(&scene.pair.client, &scene.pair.agent, &ticket).await;
    theirs.serve(TargetPolicy::loopback());
    scene.forward.redirect(ours);

    let (mut far, _) = within(scene.far.accept()).await.unwrap();
    let mut word = [0; 8];
    within(far.read_exact(&mut word)).await.unwrap();
    assert_eq!(&word, b"patience");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_a_forward_stops_listening_and_keeps_its_streams() {
    let scene = Scene::new(TargetPolicy::loopback()).await;
    let local = scene.forward.local_addr();
    let (mut near, mut far) = scene.connection().await;
    near.write_all(b"1").await.unwrap();
    far.read_u8().await.unwrap();
    drop(scene.forward);
    drop(scene.pair.ours);
    near.write_all(b"2").await.unwrap();
    assert_eq!(within(far.read_u8()).await.unwrap(), b'2');
    // The listener's task ends a moment after it is told to.
    within(async { while TcpStream::connect(local).await.is_ok() {} }).await;
}
