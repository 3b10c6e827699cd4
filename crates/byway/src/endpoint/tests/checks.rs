//! What an endpoint finds out of its network, and settings that are refused.

use super::*;

#[tokio::test]
async fn discovery_asks_the_relay_and_named_servers() {
    let relay = relay().await;
    let url = relay.url();
    let client = builder()
        .relay(url.clone())
        .stun_server(format!("localhost:{}", url.port()))
        .bind()
        .await
        .unwrap();
    let began = Instant::now();
    let report = within(client.discover()).await;
    assert!(!report.servers.is_empty(), "{report:?}");
    let mapped = report.servers.iter().find_map(|server| server.mapped);
    let (_, own) = client.inner.socket.bound().next().unwrap();
    assert_eq!(mapped, Some(own));
    // On loopback they say nothing of the network.
    assert_eq!(report.udp_v4, None);
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn settings_out_of_range_are_refused() {
    let error = builder().max_datagram(9000).bind().await.unwrap_err();
    assert!(matches!(error, BindError::Setting(_)));
    let error = builder()
        .bind_addr(LOOPBACK.parse().unwrap())
        .bind()
        .await
        .unwrap_err();
    assert!(matches!(error, BindError::Setting(_)));
    let taken = std::net::UdpSocket::bind(LOOPBACK).unwrap();
    let error = Endpoint::builder()
        .bind_addr(taken.local_addr().unwrap())
        .bind()
        .await
        .unwrap_err();
    assert!(matches!(error, BindError::Socket { .. }), "{error}");
}

#[tokio::test]
async fn a_whole_check_measures_every_relay_and_claims_nothing_of_this_host() {
    let (first, second) = (relay().await, relay().await);
    let client = builder()
        .relay(first.url())
        .relay(second.url())
        .bind()
        .await
        .unwrap();
    let report = within(client.netcheck()).await;
    let urls: Vec<_> = report.relays.iter().map(|row| row.url.clone()).collect();
    assert_eq!(urls, [first.url(), second.url()]);
    for row in &report.relays {
        assert!(row.stun_ms.is_some() && row.udp_ms.is_some() && row.tls_ms.is_some());
    }
    assert!(report.preferred_relay.is_some());
    // On loopback they say nothing of the network.
    assert_eq!(report.quic_filtered, None);
    assert_eq!(report.captive_portal, None);
    assert_eq!(report.mtu, None);
    assert_eq!(report.hairpin, None);
}

#[tokio::test]
async fn a_check_has_the_gateway_asked_that_a_client_would_leave_alone_at_first() {
    let client = builder().bind().await.unwrap();
    within(client.netcheck()).await;
    let asked = client.inner.map_now.notified();
    assert!(timeout(Duration::ZERO, asked).await.is_ok());
}

#[tokio::test]
async fn a_lifetime_that_no_gateway_should_be_asked_for_is_refused() {
    for seconds in [0, 9, 86_401] {
        let builder = builder().port_mapping_lifetime(Duration::from_secs(seconds));
        let error = builder.bind().await.unwrap_err();
        assert!(error.to_string().contains("10 to 86400"), "{error}");
    }
}
