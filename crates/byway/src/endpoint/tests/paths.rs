//! The ways that a tunnel goes: either kind of link, directly, and from one to the other.

use super::*;

/// The client's end of a tunnel that has carried something by a relay, where the two are linked to it so, and the relay's URL.
async fn relayed(client: LinkMode, agent_by: LinkMode) -> (Tunnel, RelayUrl) {
    let relay = relay().await;
    let agent = agent(&relay, builder().direct(false).links(agent_by)).await;
    let client = builder().direct(false).links(client).bind().await.unwrap();
    let (near, far) = pair(&client, &agent, &agent.ticket(None)).await;
    assert_eq!(near.remote(), agent.node_id());
    assert_eq!(far.remote(), client.node_id());
    exchange(&near, &far).await;
    (near, relay.url())
}

#[tokio::test]
async fn a_tunnel_runs_over_either_kind_of_link_or_both() {
    use LinkMode::{Tls, Udp};
    for (client, agent, kind) in [
        (Udp, Udp, PathKind::RelayUdp),
        (Tls, Tls, PathKind::RelayTls),
        (Udp, Tls, PathKind::RelayUdp),
    ] {
        let (near, relay) = relayed(client, agent).await;
        assert_eq!(near.path().borrow().kind, kind);
        assert_eq!(near.path().borrow().relay, Some(relay));
        // All of it, and nothing by another kind.
        let sent = near.stats().sent_by_kind;
        let (by, total) = (sent.iter().max().unwrap(), sent.iter().sum::<u64>());
        assert!(*by > 1024 * 1024 && *by == total, "{sent:?}");
        let place = 1 + usize::from(kind == PathKind::RelayTls);
        assert_eq!(sent[place], *by);
    }
}

#[tokio::test]
async fn a_tunnel_goes_direct_and_survives_the_relays_death() {
    let relay = relay().await;
    let agent = agent(&relay, builder()).await;
    let client = builder().bind().await.unwrap();
    let (near, far) = pair(&client, &agent, &agent.ticket(None)).await;
    within(near.wait_for(PathKind::Direct)).await.unwrap();
    within(far.wait_for(PathKind::Direct)).await.unwrap();
    exchange(&near, &far).await;
    assert!(near.stats().sent_by_kind[0] > 0);
    relay.stop().await;
    exchange(&near, &far).await;
    within(near.ping()).await.unwrap();
}

#[tokio::test]
async fn a_blocked_direct_path_falls_back_to_the_relay_and_comes_back() {
    use std::sync::atomic::Ordering::Relaxed;
    let relay = relay().await;
    let agent = agent(&relay, builder()).await;
    let client = builder().bind().await.unwrap();
    let (near, far) = pair(&client, &agent, &agent.ticket(None)).await;
    within(near.wait_for(PathKind::Direct)).await.unwrap();
    within(far.wait_for(PathKind::Direct)).await.unwrap();
    let block = |blocked| {
        for side in [&client, &agent] {
            side.inner.socket.direct_blocked.store(blocked, Relaxed);
        }
    };
    let began = Instant::now();
    chatter(&near, &far, async {
        block(true);
        near.wait_for(PathKind::RelayUdp).await.unwrap();
    })
    .await;
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    exchange(&near, &far).await;
    let stall = near.stats().longest_stall;
    assert!(
        stall.is_some_and(|stall| stall < Duration::from_secs(1)),
        "{stall:?}"
    );
    chatter(&near, &far, async {
        block(false);
        near.wait_for(PathKind::Direct).await.unwrap();
    })
    .await;
    exchange(&near, &far).await;
}

#[tokio::test]
async fn strangers_do_not_disturb_a_tunnel() {
    let relay = relay().await;
    let agent = agent(&relay, builder()).await;
    let client = builder().bind().await.unwrap();
    let (near, far) = pair(&client, &agent, &agent.ticket(None)).await;
    let targets: Vec<SocketAddr> = [&client, &agent]
        .iter()
        .flat_map(|endpoint| endpoint.inner.socket.bound())
        .map(|(_, addr)| addr)
        .collect();
    let stranger = tokio::spawn(async move {
        let socket = tokio::net::UdpSocket::bind(LOOPBACK).await.unwrap();
        for n in 0u32.. {
            let first = (n % 256) as u8;
            let junk: Vec<u8> = std::iter::once(first)
                .chain((0..n % 1400).map(|at| (at ^ n) as u8))
                .collect();
            for target in &targets {
                let _ = socket.send_to(&junk, target).await;
            }
            tokio::task::yield_now().await;
        }
    });
    exchange(&near, &far).await;
    // Until junk that looks like QUIC has come, too, and some that looks like a probe: the socket counts the one, the node the other.
    let unknown = || {
        let drops = agent.drops();
        let counts = |of: &str| drops.iter().any(|(name, _)| *name == of);
        counts("unknown_source") && counts("probe_unknown_index")
    };
    within(async {
        while !unknown() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    within(near.ping()).await.unwrap();
    exchange(&near, &far).await;
    stranger.abort();
}
