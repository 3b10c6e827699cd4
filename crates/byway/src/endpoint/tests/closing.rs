//! What is left of tunnels and endpoints that ended.

use super::*;

#[tokio::test]
async fn fifty_tunnels_opened_and_closed_leave_the_tables_empty() {
    let relay = relay().await;
    let agent = agent(&relay, builder()).await;
    let idle = agent.inner.socket.tables.sizes();
    let ticket = agent.ticket(None);
    {
        let client = builder().bind().await.unwrap();
        for _ in 0..50 {
            let (near, far) = pair(&client, &agent, &ticket).await;
            within(near.ping()).await.unwrap();
            near.close();
            within(far.closed()).await;
        }
        empty(
            &client,
            TableSizes {
                links: client.inner.socket.tables.sizes().links,
                sources: client.inner.socket.tables.sizes().links,
                ..TableSizes::default()
            },
        )
        .await;
    }
    empty(&agent, idle).await;
    assert!(agent.inner.shared.peer(byway_core::io::PeerId(0)).is_none());
}

/// Waits until an endpoint's tables have shrunk to `expected`.
async fn empty(endpoint: &Endpoint, expected: TableSizes) {
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    let outcome = timeout(DEADLINE, async {
        loop {
            let sizes = endpoint.inner.socket.tables.sizes();
            if (sizes.peers, sizes.channels, sizes.sources)
                == (expected.peers, expected.channels, expected.sources)
            {
                return;
            }
            tick.tick().await;
        }
    })
    .await;
    assert!(
        outcome.is_ok(),
        "{:?} instead of {expected:?}",
        endpoint.inner.socket.tables.sizes()
    );
}

#[tokio::test]
async fn a_relay_knows_of_a_closed_endpoint_when_close_returns() {
    for mode in [LinkMode::Udp, LinkMode::Tls] {
        let relay = relay().await;
        let agent = agent(&relay, builder()).await;
        let client = builder().links(mode).bind().await.unwrap();
        let tunnels = pair(&client, &agent, &agent.ticket(None)).await;
        assert_eq!(relay.stats().load.channels, 1);
        within(client.close()).await;
        assert_eq!(relay.stats().load.channels, 0, "{mode:?}");
        assert_eq!(within(tunnels.1.closed()).await, TunnelClosed::Shutdown);
        let refused = within(client.connect(&agent.ticket(None))).await;
        assert!(matches!(refused, Err(ConnectError::Closed)));
    }
}

#[tokio::test]
async fn closing_an_endpoint_ends_its_tunnels_at_once() {
    let relay = relay().await;
    let agent = agent(&relay, builder()).await;
    let client = builder().bind().await.unwrap();
    let (near, far) = pair(&client, &agent, &agent.ticket(None)).await;
    within(agent.close()).await;
    assert_eq!(within(near.closed()).await, TunnelClosed::Shutdown);
    drop(far);
    assert!(agent.accept().await.is_none());
}
