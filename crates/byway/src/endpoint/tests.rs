//! Endpoints with a real relay, all on loopback.

use std::time::Duration;

use byway_core::io::{Admission, LinkMode, PathKind};
use byway_relay::{Server, ServerConfig};
use byway_wire::SecretKey;
use tokio::time::timeout;

use super::*;
use crate::socket::TableSizes;
use crate::tunnel::TunnelClosed;

mod relay_map;

const DEADLINE: Duration = Duration::from_secs(20);
const LOOPBACK: &str = "127.0.0.1:0";

async fn relay() -> Server {
    // Shown only for a test that fails, or with --nocapture; what, RUST_LOG says.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_test_writer()
        .try_init();
    Server::start(ServerConfig::dev()).await.unwrap()
}

fn builder() -> Builder {
    Endpoint::builder().bind_addr(LOOPBACK.parse().unwrap())
}

fn secret(n: u8) -> TicketSecret {
    TicketSecret::from_bytes([n; 32])
}

fn admission() -> Admission {
    Admission {
        secrets: vec![secret(1)],
        ..Admission::default()
    }
}

async fn agent(relay: &Server, builder: Builder) -> Endpoint {
    let agent = builder
        .relay(relay.url())
        .accept(admission())
        .bind()
        .await
        .unwrap();
    agent.online(DEADLINE).await.unwrap();
    agent
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.expect("in time")
}

async fn pair(client: &Endpoint, agent: &Endpoint, ticket: &Ticket) -> (Tunnel, Tunnel) {
    within(async {
        let (near, far) = tokio::join!(client.connect(ticket), agent.accept());
        (near.unwrap(), far.unwrap())
    })
    .await
}

/// A megabyte each way on one stream, compared.
async fn exchange(near: &Tunnel, far: &Tunnel) {
    const BYTES: usize = 1024 * 1024;
    let sent: Vec<u8> = (0..BYTES).map(|n| (n % 251) as u8).collect();
    within(async {
        let opening = async {
            let (mut send, mut recv) = near.open().await.unwrap();
            let writing = async {
                send.write_all(&sent).await.unwrap();
                send.finish().unwrap();
            };
            let reading = recv.read_to_end(BYTES);
            tokio::join!(writing, reading).1.unwrap()
        };
        let echoing = async {
            let (mut send, mut recv) = far.accept().await.unwrap();
            while let Some(chunk) = recv.read_chunk(64 * 1024, true).await.unwrap() {
                send.write_chunk(chunk.bytes).await.unwrap();
            }
            send.finish().unwrap();
        };
        let (received, ()) = tokio::join!(opening, echoing);
        assert!(received == sent, "what came back is not what was sent");
    })
    .await;
}

#[tokio::test]
async fn a_tunnel_runs_over_the_udp_link() {
    let relay = relay().await;
    let agent = agent(&relay, builder().direct(false).links(LinkMode::Udp)).await;
    let client = builder()
        .direct(false)
        .links(LinkMode::Udp)
        .bind()
        .await
        .unwrap();
    let (near, far) = pair(&client, &agent, &agent.ticket(None)).await;
    assert_eq!(near.remote(), agent.node_id());
    assert_eq!(far.remote(), client.node_id());
    exchange(&near, &far).await;
    assert_eq!(near.path().borrow().kind, PathKind::RelayUdp);
    assert_eq!(near.path().borrow().relay, Some(relay.url()));
    let sent = near.stats().sent_by_kind;
    assert!(
        sent[1] > 1024 * 1024 && sent[0] == 0 && sent[2] == 0,
        "{sent:?}"
    );
}

#[tokio::test]
async fn a_tunnel_runs_over_the_tls_link() {
    let relay = relay().await;
    let agent = agent(&relay, builder().direct(false).links(LinkMode::Tls)).await;
    let client = builder()
        .direct(false)
        .links(LinkMode::Tls)
        .bind()
        .await
        .unwrap();
    let (near, far) = pair(&client, &agent, &agent.ticket(None)).await;
    exchange(&near, &far).await;
    assert_eq!(near.path().borrow().kind, PathKind::RelayTls);
    let sent = near.stats().sent_by_kind;
    assert!(
        sent[2] > 1024 * 1024 && sent[0] == 0 && sent[1] == 0,
        "{sent:?}"
    );
}

#[tokio::test]
async fn one_side_on_udp_and_one_on_tls_meet_at_the_relay() {
    let relay = relay().await;
    let agent = agent(&relay, builder().direct(false).links(LinkMode::Tls)).await;
    let client = builder()
        .direct(false)
        .links(LinkMode::Udp)
        .bind()
        .await
        .unwrap();
    let (near, far) = pair(&client, &agent, &agent.ticket(None)).await;
    exchange(&near, &far).await;
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

/// A byte goes round and round while something happens; the longest round.
async fn chatter(near: &Tunnel, far: &Tunnel, during: impl Future<Output = ()>) -> Duration {
    let (mut send, mut recv) = within(near.open()).await.unwrap();
    let echoing = async {
        let (mut send, mut recv) = far.accept().await.unwrap();
        while let Ok(Some(chunk)) = recv.read_chunk(1024, true).await {
            send.write_chunk(chunk.bytes).await.unwrap();
        }
    };
    let mut longest = Duration::ZERO;
    let mut byte = [7];
    let asking = async {
        let mut pause = tokio::time::interval(Duration::from_millis(5));
        loop {
            pause.tick().await;
            let began = Instant::now();
            send.write_all(&byte).await.unwrap();
            recv.read_exact(&mut byte).await.unwrap();
            longest = longest.max(began.elapsed());
        }
    };
    tokio::select! {
        () = within(during) => {}
        () = echoing => panic!("the stream ended"),
        () = asking => {}
    }
    longest
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
