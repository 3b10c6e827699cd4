//! Connecting: tunnels beside tunnels, and why one does not come about.

use super::*;

#[tokio::test]
async fn whoever_connects_while_a_tunnel_waits_for_the_network_waits_with_it() {
    use std::sync::atomic::Ordering::Relaxed;
    let relay = relay().await;
    let agent = agent(&relay, builder()).await;
    let client = builder().bind().await.unwrap();
    let ticket = agent.ticket(None);
    let (near, far) = pair(&client, &agent, &ticket).await;
    let block = |blocked| {
        for side in [&client, &agent] {
            side.inner.socket.peers_blocked.store(blocked, Relaxed);
        }
    };
    block(true);
    let mut path = near.path();
    within(path.wait_for(|path| path.health == byway_core::io::Health::Lost))
        .await
        .unwrap();
    let both = async {
        let connecting = async { client.connect(&ticket).await.unwrap() };
        let returning = async {
            // The new tunnel's first packets are lost as well.
            tokio::task::yield_now().await;
            block(false);
            agent.accept().await.unwrap()
        };
        tokio::join!(connecting, returning)
    };
    let (near2, far2) = within(both).await;
    let peers = |endpoint: &Endpoint| endpoint.inner.socket.tables.sizes().peers;
    assert_eq!(
        (peers(&client), peers(&agent)),
        (1, 1),
        "one node, one peer"
    );
    exchange(&near2, &far2).await;
    exchange(&near, &far).await;
}

#[tokio::test]
async fn two_tunnels_to_one_agent_share_its_path() {
    let relay = relay().await;
    let agent = agent(&relay, builder()).await;
    let client = builder().bind().await.unwrap();
    let ticket = agent.ticket(None);
    let (near, far) = pair(&client, &agent, &ticket).await;
    within(near.wait_for(PathKind::Direct)).await.unwrap();
    let (near2, far2) = pair(&client, &agent, &ticket).await;
    assert_eq!(near2.path().borrow().kind, PathKind::Direct);
    exchange(&near2, &far2).await;
    near.close();
    within(far.closed()).await;
    exchange(&near2, &far2).await;
}

#[tokio::test]
async fn two_nodes_that_dial_each_other_have_two_tunnels() {
    let relay = relay().await;
    let one = agent(&relay, builder()).await;
    let two = agent(&relay, builder()).await;
    let (near, far) = pair(&one, &two, &two.ticket(None)).await;
    within(near.wait_for(PathKind::Direct)).await.unwrap();
    let (back_near, back_far) = pair(&two, &one, &one.ticket(None)).await;
    within(back_near.wait_for(PathKind::Direct)).await.unwrap();
    within(far.wait_for(PathKind::Direct)).await.unwrap();
    within(back_far.wait_for(PathKind::Direct)).await.unwrap();
    // Without the relay, each lives by the one address that they share.
    relay.stop().await;
    for _ in 0..3 {
        exchange(&near, &far).await;
        exchange(&back_near, &back_far).await;
    }
}

#[tokio::test]
async fn connecting_on_a_warm_link_takes_no_timeout() {
    let relay = relay().await;
    let client = builder().bind().await.unwrap();
    let first = agent(&relay, builder()).await;
    let _warm = pair(&client, &first, &first.ticket(None)).await;
    for _ in 0..3 {
        let agent = agent(&relay, builder()).await;
        let began = Instant::now();
        let (near, far) = pair(&client, &agent, &agent.ticket(None)).await;
        within(near.ping()).await.unwrap();
        // QUIC sends a lost first flight again after a second at the earliest.
        assert!(
            began.elapsed() < Duration::from_millis(900),
            "{:?}",
            began.elapsed()
        );
        drop((near, far));
    }
}

#[tokio::test]
async fn a_wrong_secret_is_refused() {
    let relay = relay().await;
    let agent = agent(&relay, builder()).await;
    let client = builder().bind().await.unwrap();
    let mut ticket = agent.ticket(None);
    ticket.secret = Some(secret(2));
    let error = within(client.connect(&ticket)).await.unwrap_err();
    assert!(matches!(error, ConnectError::NotAllowed(_)), "{error}");
    // And one with the right secret is not disturbed.
    let (near, far) = pair(&client, &agent, &agent.ticket(None)).await;
    exchange(&near, &far).await;
}

#[tokio::test]
async fn an_agent_that_is_not_there_is_offline() {
    let relay = relay().await;
    let client = builder().bind().await.unwrap();
    let ticket = Ticket {
        node: SecretKey::from_bytes(&[9; 32]).node_id(),
        relays: vec![TicketRelay {
            url: relay.url(),
            addrs: Vec::new(),
        }],
        secret: None,
        name: None,
    };
    let error = within(client.connect(&ticket)).await.unwrap_err();
    assert!(matches!(error, ConnectError::Offline(_)), "{error}");
    assert!(error.to_string().contains(&relay.url().to_string()));
}

#[tokio::test]
async fn a_relay_with_another_key_than_the_pin_is_refused() {
    let relay = relay().await;
    let url = relay.url();
    let mut pin = url.pin().unwrap();
    pin.0[0] ^= 1;
    let wrong = RelayUrl::new(url.host(), url.port(), Some(pin)).unwrap();
    for mode in [LinkMode::Udp, LinkMode::Tls] {
        let agent = builder()
            .relay(wrong.clone())
            .links(mode)
            .accept(admission())
            .bind()
            .await
            .unwrap();
        let mut links = agent.links();
        let failed = within(links.wait_for(|links| links.iter().any(|link| link.error.is_some())))
            .await
            .unwrap()
            .clone();
        let error = failed[0].error.clone().unwrap();
        assert!(error.contains("certificate"), "{mode:?}: {error}");
    }
}

#[tokio::test]
async fn a_relay_that_is_down_is_named() {
    let client = builder().bind().await.unwrap();
    let gone = {
        let socket = std::net::TcpListener::bind(LOOPBACK).unwrap();
        socket.local_addr().unwrap()
    };
    let url = RelayUrl::new("127.0.0.1", gone.port(), None).unwrap();
    let ticket = Ticket {
        node: SecretKey::from_bytes(&[9; 32]).node_id(),
        relays: vec![TicketRelay {
            url: url.clone(),
            addrs: Vec::new(),
        }],
        secret: None,
        name: None,
    };
    // One round of silence is enough: 5 s over UDP, while TLS is refused at once.
    let error = timeout(Duration::from_secs(8), client.connect(&ticket))
        .await
        .unwrap()
        .unwrap_err();
    assert!(
        matches!(error, ConnectError::RelayUnreachable(_)),
        "{error}"
    );
    assert!(
        error.to_string().contains(&gone.port().to_string()),
        "{error}"
    );
}

#[tokio::test]
async fn a_ticket_without_a_relay_leads_nowhere() {
    let client = builder().bind().await.unwrap();
    let ticket = Ticket {
        node: client.node_id(),
        relays: Vec::new(),
        secret: None,
        name: None,
    };
    assert!(matches!(
        client.connect(&ticket).await,
        Err(ConnectError::NoRelay)
    ));
}
