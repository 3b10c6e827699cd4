//! TLS links through proxies, to a real relay whose name only the proxy knows.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod common;

use std::net::SocketAddr;

use byway::{
    Admission, Builder, ConnectError, Endpoint, LinkMode, PathKind, Proxy, RelayUrl, Ticket,
    TicketSecret,
};
use byway_relay::{Server, ServerConfig};
use common::proxy::{Kind, Proxy as TestProxy};
use common::{DEADLINE, agent, tunnel, within};

const OPEN: Kind = Kind::Http(None);
/// `me:open sesame`.
const BASIC: Kind = Kind::Http(Some("bWU6b3BlbiBzZXNhbWU="));
const SOCKS: Kind = Kind::Socks5(Some(("me", "open sesame")));

async fn relay() -> Server {
    Server::start(ServerConfig::dev()).await.unwrap()
}

/// The relay under a name that no resolver knows; its pin is all that a node needs.
fn unresolvable(relay: &Server) -> RelayUrl {
    let url = relay.url();
    RelayUrl::new("relay.invalid", url.port(), url.pin()).unwrap()
}

fn addr(relay: &Server) -> SocketAddr {
    let url = relay.url();
    SocketAddr::new(url.host().parse().unwrap(), url.port())
}

/// The agent's ticket with its relay under that name.
fn ticket(agent: &Endpoint, relay: &Server) -> Ticket {
    let mut ticket = agent.ticket(None);
    ticket.relays[0].url = unresolvable(relay);
    ticket.relays[0].addrs.clear();
    ticket
}

fn client(proxy: &str) -> Builder {
    Endpoint::builder()
        .port_mapping(false)
        .direct(false)
        .proxy(Proxy::Url(proxy.parse().unwrap()))
}

/// Why no tunnel comes up through this proxy.
async fn refused(kind: Kind, url: impl Fn(SocketAddr) -> String) -> ConnectError {
    let relay = relay().await;
    let agent = agent(&relay).await;
    let proxy = TestProxy::start(kind, addr(&relay)).await;
    let client = client(&url(proxy.addr)).bind().await.unwrap();
    let error = within(client.connect(&ticket(&agent, &relay))).await;
    assert_eq!(proxy.asked(), Vec::<String>::new());
    error.unwrap_err()
}

/// A tunnel through a proxy, and a megabyte each way.
async fn carries(kind: Kind, url: impl Fn(SocketAddr) -> String) {
    const BYTES: usize = 1024 * 1024;
    let relay = relay().await;
    let agent = agent(&relay).await;
    let proxy = TestProxy::start(kind, addr(&relay)).await;
    let client = client(&url(proxy.addr)).bind().await.unwrap();
    // In automatic mode: UDP does not find the relay, whose name does not resolve here.
    let (ours, theirs) = tunnel(&client, &agent, &ticket(&agent, &relay)).await;
    let sent: Vec<u8> = (0..BYTES).map(|n| (n % 251) as u8).collect();
    within(async {
        let (mut send, mut recv) = ours.open().await.unwrap();
        let there = async {
            send.write_all(&sent).await.unwrap();
            send.finish().unwrap();
            recv.read_to_end(BYTES).await.unwrap()
        };
        let back = async {
            let (mut send, mut recv) = theirs.accept().await.unwrap();
            let heard = recv.read_to_end(BYTES).await.unwrap();
            send.write_all(&heard).await.unwrap();
            send.finish().unwrap();
        };
        let (received, ()) = tokio::join!(there, back);
        assert!(received == sent, "what came back is not what was sent");
    })
    .await;
    let path = ours.path().borrow().clone();
    assert_eq!(path.kind, PathKind::RelayTls);
    // Neither the relay's address, which nobody here knows, nor the proxy's.
    assert_eq!(path.remote, None);
    let name = format!("relay.invalid:{}", relay.url().port());
    assert!(!proxy.asked().is_empty());
    assert!(
        proxy.asked().iter().all(|asked| *asked == name),
        "{:?}",
        proxy.asked()
    );
    assert!(client.is_proxied(&relay.url()));
    let shown = client.proxy().unwrap().url.unwrap();
    assert!(
        shown.ends_with(&proxy.addr.to_string()) && !shown.contains("sesame"),
        "{shown}"
    );
}

#[tokio::test]
async fn a_tunnel_runs_through_an_http_proxy() {
    carries(OPEN, |addr| format!("http://{addr}")).await;
}

#[tokio::test]
async fn a_tunnel_runs_through_an_http_proxy_that_asks_for_a_password() {
    carries(BASIC, |addr| format!("http://me:open%20sesame@{addr}")).await;
}

#[tokio::test]
async fn a_tunnel_runs_through_a_socks5_proxy_that_asks_for_a_password() {
    carries(SOCKS, |addr| format!("socks5h://me:open%20sesame@{addr}")).await;
}

#[tokio::test]
async fn a_ticket_of_an_agent_behind_a_proxy_holds_no_address_of_the_proxy() {
    let relay = relay().await;
    let proxy = TestProxy::start(OPEN, addr(&relay)).await;
    let admission = Admission {
        secrets: vec![TicketSecret::from_bytes([7; 32])],
        ..Admission::default()
    };
    let agent = client(&format!("http://{}", proxy.addr))
        .relay(unresolvable(&relay))
        .accept(admission)
        .bind()
        .await
        .unwrap();
    agent.online(DEADLINE).await.unwrap();
    assert_eq!(agent.links().borrow()[0].address, None);
    assert!(agent.ticket(None).relays[0].addrs.is_empty());
}

#[tokio::test]
async fn a_wrong_or_missing_password_is_reported_without_it() {
    let told = |error: ConnectError| {
        assert!(matches!(error, ConnectError::Proxy(_)), "{error:?}");
        let told = format!("{error} {error:?}");
        assert!(
            !told.contains("hunter2") && !told.contains("aHVudGVy"),
            "{told}"
        );
        told
    };
    for (kind, scheme) in [(BASIC, "http"), (SOCKS, "socks5")] {
        let error = refused(kind, |addr| format!("{scheme}://me:hunter2@{addr}")).await;
        let wrong = told(error);
        assert!(
            wrong.contains("does not accept the user name and password"),
            "{wrong}"
        );
        let missing = told(refused(kind, |addr| format!("{scheme}://{addr}")).await);
        assert!(
            missing.contains("asks for a user name and password"),
            "{missing}"
        );
        assert!(
            missing.contains(&format!("the proxy {scheme}://127.0.0.1:")),
            "{missing}"
        );
    }
}

#[tokio::test]
async fn a_proxy_that_forbids_and_one_that_is_none_are_told_apart() {
    let forbids = Kind::Says(b"HTTP/1.1 403 Filtered\r\nConnection: close\r\n\r\nno");
    let error = refused(forbids, |addr| format!("http://{addr}")).await;
    assert!(
        error
            .to_string()
            .contains("does not allow connections to the relay (403"),
        "{error}"
    );
    for (garbage, scheme) in [
        (&b"220 mail.test ESMTP\r\n"[..], "http"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "socks5"),
        (&[0xff; 4096], "socks5"),
    ] {
        let error = refused(Kind::Says(garbage), |addr| format!("{scheme}://{addr}")).await;
        assert!(matches!(error, ConnectError::Proxy(_)), "{error:?}");
        assert!(
            error.to_string().contains("does not speak as a proxy does"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_proxy_that_leads_elsewhere_meets_the_pin() {
    let (relay, other) = (relay().await, relay().await);
    let agent = agent(&relay).await;
    let proxy = TestProxy::start(OPEN, addr(&other)).await;
    let client = client(&format!("http://{}", proxy.addr))
        .bind()
        .await
        .unwrap();
    let error = within(client.connect(&ticket(&agent, &relay))).await;
    let error = error.unwrap_err();
    assert!(matches!(error, ConnectError::Certificate(_)), "{error:?}");
    assert!(!proxy.asked().is_empty());
}

#[tokio::test]
async fn udp_does_not_wait_for_a_proxy_that_fails() {
    let relay = relay().await;
    let agent = agent(&relay).await;
    let proxy = TestProxy::start(Kind::Says(b""), addr(&relay)).await;
    let client = client(&format!("http://{}", proxy.addr))
        .bind()
        .await
        .unwrap();
    let (ours, _theirs) = tunnel(&client, &agent, &agent.ticket(None)).await;
    assert_eq!(ours.path().borrow().kind, PathKind::RelayUdp);
}

#[tokio::test]
async fn a_link_never_goes_round_a_proxy_that_fails() {
    let relay = relay().await;
    let agent = agent(&relay).await;
    let proxy = TestProxy::start(Kind::Says(b""), addr(&relay)).await;
    let client = client(&format!("http://{}", proxy.addr))
        .links(LinkMode::Tls)
        .bind()
        .await
        .unwrap();
    // The relay itself is a connection away.
    let error = within(client.connect(&agent.ticket(None))).await;
    assert!(matches!(error, Err(ConnectError::Proxy(_))), "{error:?}");
}
