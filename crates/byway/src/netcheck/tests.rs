//! Against a real relay, and against those who stand in for one.

use std::sync::Arc;

use byway_core::discovery::{Filtering, Reach};
use byway_relay::{Server, ServerConfig};
use byway_wire::RelayUrl;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

const REDIRECT: &str = "HTTP/1.1 302 Found\r\nLocation: http://login.test/\r\n\r\n";

fn no_proxy() -> Proxies {
    Proxies::from_process(&crate::proxy::Proxy::None)
}

fn url_of(listener: &TcpListener, pin: Option<Pin>) -> RelayUrl {
    let port = listener.local_addr().unwrap().port();
    RelayUrl::new("127.0.0.1", port, pin).unwrap()
}

/// Answers everyone with this, under a certificate of its own if `tls`.
async fn stand_in(answer: &'static str, tls: bool) -> RelayUrl {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = url_of(&listener, Some(Pin([7; 32])));
    let certified = rcgen::generate_simple_self_signed(vec!["portal.test".to_owned()]).unwrap();
    let key = certified.signing_key.serialize_der().try_into().unwrap();
    let config = rustls::ServerConfig::builder_with_provider(crate::tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                if tls {
                    let mut stream = acceptor.accept(tcp).await.unwrap();
                    let _ = stream.read(&mut buffer).await;
                    let _ = stream.write_all(answer.as_bytes()).await;
                    let _ = stream.shutdown().await;
                } else {
                    let _ = tcp.read(&mut buffer).await;
                    let _ = tcp.write_all(answer.as_bytes()).await;
                }
            });
        }
    });
    url
}

#[tokio::test]
async fn a_relay_is_reached_by_both_carriers_and_is_no_portal() {
    let relay = Server::start(ServerConfig::dev()).await.unwrap();
    let look = super::relay(relay.url(), &no_proxy(), &Nat64::default()).await;
    assert_eq!(
        (&look.row.udp, &look.row.tls),
        (&Reach::Works, &Reach::Works)
    );
    assert!(look.row.udp_ms.is_some_and(|ms| ms > 0.0 && ms < 1_000.0));
    assert!(look.row.tls_ms.is_some_and(|ms| ms > 0.0 && ms < 1_000.0));
    assert_eq!(look.portal, Some(None));
    assert_eq!(look.row.tls_intercepted, Some(false));
    assert!(look.here);
    // Nobody was admitted, and nothing is left.
    assert_eq!(relay.stats().load.links, 0);
}

#[test]
fn another_key_is_an_interception_only_at_the_same_address() {
    let ip = |last| IpAddr::from([192, 0, 2, last]);
    let pin = |byte| Pin([byte; 32]);
    let by_quic = [(ip(1), pin(1)), (ip(2), pin(2))];
    for (to, key, found) in [
        (Some(ip(1)), pin(1), Some(false)),
        (Some(ip(1)), pin(9), Some(true)),
        // Another server of the same name, which QUIC did not meet.
        (Some(ip(3)), pin(3), None),
        // Through a proxy that had the choice.
        (None, pin(3), None),
        (None, pin(2), Some(false)),
    ] {
        assert_eq!(intercepted(&by_quic, to, key), found, "{to:?} {key:?}");
    }
    assert_eq!(intercepted(&[], Some(ip(1)), pin(1)), None);
}

#[tokio::test]
async fn the_looks_tell_whom_they_met() {
    let relay = Server::start(ServerConfig::dev()).await.unwrap();
    let url = relay.url();
    let addr: SocketAddr = format!("127.0.0.1:{}", url.port()).parse().unwrap();
    let over_udp = quic::look(&url, &[addr]).await;
    let over_tls = tls::look(&url, &[addr], None, &Nat64::default()).await;
    assert_eq!(over_udp.keys, [(addr.ip(), over_tls.key.unwrap())]);
    assert_eq!(over_tls.to, Some(addr.ip()));
}

#[tokio::test]
async fn a_relay_under_another_pin_is_not_the_relay_and_no_portal_either() {
    let relay = Server::start(ServerConfig::dev()).await.unwrap();
    let other = RelayUrl::new(relay.url().host(), relay.url().port(), Some(Pin([7; 32])));
    let look = super::relay(other.unwrap(), &no_proxy(), &Nat64::default()).await;
    assert!(matches!(look.row.tls, Reach::Failed(_)), "{look:?}");
    assert!(matches!(look.row.udp, Reach::Failed(_)), "{look:?}");
    assert_eq!(look.row.tls_ms, None);
    assert_eq!(look.portal, None, "an inspecting proxy would look the same");
}

#[tokio::test]
async fn who_answers_for_a_relay_with_a_login_page_is_a_portal() {
    for tls in [true, false] {
        let url = stand_in(REDIRECT, tls).await;
        let addr = format!("127.0.0.1:{}", url.port()).parse().unwrap();
        let look = tls::look(&url, &[addr], None, &Nat64::default()).await;
        assert!(matches!(look.reach, Reach::Failed(_)), "{look:?}");
        let evidence = look.portal.unwrap().unwrap();
        assert!(evidence.contains("http://login.test/"), "{evidence}");
    }
}

#[tokio::test]
async fn who_answers_anything_else_is_not() {
    for answer in ["HTTP/1.1 200 OK\r\n\r\n", "no HTTP\r\n\r\n", ""] {
        for tls in [true, false] {
            let url = stand_in(answer, tls).await;
            let addr = format!("127.0.0.1:{}", url.port()).parse().unwrap();
            let look = tls::look(&url, &[addr], None, &Nat64::default()).await;
            assert!(matches!(look.reach, Reach::Failed(_)), "{look:?}");
            assert_eq!(look.portal, None, "{answer:?}");
        }
    }
}

#[tokio::test]
async fn nobody_there_is_a_failure_over_tcp_and_silence_over_udp() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = url_of(&listener, None);
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let look = tls::look(&url, &[addr], None, &Nat64::default()).await;
    assert!(matches!(look.reach, Reach::Failed(_)), "{look:?}");
    let look = quic::look(&url, &[addr]).await;
    assert_eq!((look.reach, look.ms), (Reach::Silent, None));
}

#[tokio::test]
async fn our_own_relay_cannot_tell_who_is_let_in() {
    let relay = Server::start(ServerConfig::dev()).await.unwrap();
    let addr = format!("127.0.0.1:{}", relay.url().port()).parse().unwrap();
    assert_eq!(filtering(vec![addr]).await, Filtering::Unknown);
    assert_eq!(filtering(Vec::new()).await, Filtering::Unknown);
}

#[tokio::test]
async fn a_proxy_that_applies_is_not_gone_round() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let relay = Server::start(ServerConfig::dev()).await.unwrap();
    let proxies = Proxies::from_process(&crate::proxy::Proxy::Url(dead.parse().unwrap()));
    let look = super::relay(relay.url(), &proxies, &Nat64::default()).await;
    assert!(matches!(look.row.tls, Reach::Failed(_)), "{look:?}");
    assert_eq!((look.row.tls_ms, look.portal), (None, None));
    assert_eq!(look.row.udp, Reach::Works, "UDP takes no proxy");
}
