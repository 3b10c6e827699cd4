//! Certificates that the relay orders: against an authority of the tests' own, which comes to see.
#![cfg(feature = "acme")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must panic")]

mod authority;
mod challenge;
#[path = "../common/mod.rs"]
mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use authority::{Authority, Plan};
use byway_relay::{Acme, CertificateStatus, Server, ServerConfig};
use byway_wire::relay::control::{Control, Role};
use common::tls::TlsNode;
use common::udp::UdpNode;
use common::*;
use rustls::pki_types::ServerName;
use serde_json::json;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn settings(authority: &Authority, cache: &Path) -> Acme {
    let domains = vec!["Relay.example".to_owned(), "alias.example".to_owned()];
    let mut acme = Acme::new(domains, cache.to_owned());
    acme.contact = vec!["ops@relay.example".to_owned()];
    acme.directory_url.clone_from(&authority.directory_url);
    acme.extra_roots = vec![authority.root_file.clone()];
    acme.first_retry = Duration::from_millis(10);
    acme
}

/// A relay to which the domains lead.
async fn relay(authority: &Authority, acme: Acme) -> Server {
    let server = start_with(|c| c.acme = Some(acme)).await;
    authority.leads_to(addr(&server));
    server
}

async fn until_certificate(
    server: &Server,
    what: &str,
    condition: impl Fn(CertificateStatus) -> bool,
) -> CertificateStatus {
    let deadline = Instant::now() + SOON;
    loop {
        let status = server.certificate();
        if condition(status) {
            return status;
        }
        assert!(
            Instant::now() < deadline,
            "did not happen in time: {what}; {status:?}"
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Whether somebody who trusts the authority, and knows the relay by this name alone, gets in.
async fn is_trusted(server: &Server, authority: &Authority, name: &str) -> bool {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.root.clone()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = TcpStream::connect(addr(server)).await.unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connect = TlsConnector::from(Arc::new(config)).connect(name, tcp);
    soon("a handshake", connect).await.is_ok()
}

#[tokio::test]
async fn a_relay_orders_its_certificate_and_shows_it() {
    let authority = Authority::start(&[Plan::Issue(0, 90)]).await;
    let dir = tempfile::tempdir().unwrap();
    let server = start_with(|c| c.acme = Some(settings(&authority, dir.path()))).await;
    // Known by its first name, and not by a pin.
    assert_eq!(server.url().host(), "relay.example");
    assert_eq!(server.url().pin(), None);
    assert!(!is_trusted(&server, &authority, "relay.example").await);
    authority.leads_to(addr(&server));

    let status = until_certificate(&server, "the certificate", |s| s.renewed == 1).await;
    let left = status.expires.duration_since(SystemTime::now()).unwrap();
    assert!(left > DAY * 89 && left < DAY * 91);
    for name in ["relay.example", "alias.example"] {
        assert!(is_trusted(&server, &authority, name).await);
    }
    assert!(!is_trusted(&server, &authority, "other.example").await);
    // Nodes come in by both ways.
    let mut node = TlsNode::connect_to(addr(&server), status.pin, "relay.example:443").await;
    node.prove(1, 1).await;
    node.say(hello(1, Role::Client)).await;
    assert!(matches!(node.hear().await, Control::Welcome(w) if !w.intercepted));
    UdpNode::welcome(&server, 2, Role::Client).await;

    let report = authority.report();
    assert_eq!(report.faults, Vec::<String>::new());
    assert_eq!((report.orders, report.accounts), (1, 1));
    assert_eq!(report.contacts, [json!(["mailto:ops@relay.example"])]);
    // The authority's proofs were for it alone.
    assert_eq!(report.seen.len(), 2);
    for seen in report.seen {
        assert_ne!(seen.by_authority, seen.by_others);
    }
}

#[tokio::test]
async fn without_an_order_nobody_is_shown_a_proof() {
    let authority = Authority::start(&[Plan::Issue(0, 90)]).await;
    let dir = tempfile::tempdir().unwrap();
    let server = relay(&authority, settings(&authority, dir.path())).await;
    until_certificate(&server, "the certificate", |s| s.renewed == 1).await;
    for name in ["relay.example", "other.example"] {
        let refused = challenge::shown(addr(&server), name, &[b"acme-tls/1"]).await;
        assert!(refused.is_err(), "{name}");
    }
    until(&server, "the refusals", |s| s.data.handshakes_failed >= 2).await;
}

#[tokio::test]
async fn a_certificate_and_its_account_outlive_the_process() {
    let authority = Authority::start(&[Plan::Issue(0, 90)]).await;
    let dir = tempfile::tempdir().unwrap();
    let acme = settings(&authority, dir.path());
    let first = relay(&authority, acme.clone()).await;
    let status = until_certificate(&first, "the certificate", |s| s.renewed == 1).await;
    // It is kept behind the back of who looks at it.
    let kept = |dir: &Path| {
        let folder = std::fs::read_dir(dir).unwrap().next().unwrap().unwrap();
        folder.path().join("certificate.pem")
    };
    let deadline = Instant::now() + SOON;
    while !kept(dir.path()).exists() {
        assert!(Instant::now() < deadline, "it is not kept");
        tokio::task::yield_now().await;
    }
    first.stop().await;

    let second = relay(&authority, acme.clone()).await;
    let again = second.certificate();
    assert_eq!((again.pin, again.expires), (status.pin, status.expires));
    assert!(is_trusted(&second, &authority, "relay.example").await);
    assert_eq!(authority.report().orders, 1);
    second.stop().await;

    // For other domains it is of no use, but the account is.
    let mut other = acme;
    other.domains.push("third.example".to_owned());
    let third = relay(&authority, other).await;
    until_certificate(&third, "another one", |s| s.renewed == 1).await;
    assert!(is_trusted(&third, &authority, "third.example").await);
    let report = authority.report();
    assert_eq!((report.orders, report.accounts), (2, 1));
    assert_eq!(report.faults, Vec::<String>::new());
}

#[tokio::test]
async fn a_renewal_that_fails_leaves_the_old_certificate_and_is_tried_again() {
    // Each is due at once, for it has less than a third left.
    let plans = [
        Plan::Issue(80, 10),
        Plan::Lost,
        Plan::Lost,
        Plan::Issue(0, 90),
    ];
    let authority = Authority::start(&plans).await;
    let dir = tempfile::tempdir().unwrap();
    let server = relay(&authority, settings(&authority, dir.path())).await;
    let old = until_certificate(&server, "the first", |s| s.renewed == 1).await;
    let mut node = TlsNode::connect_to(addr(&server), old.pin, "relay.example:443").await;
    node.prove(1, 1).await;
    node.say(hello(1, Role::Client)).await;
    assert!(matches!(node.hear().await, Control::Welcome(_)));

    let status = until_certificate(&server, "a failure", |s| s.refused > 0).await;
    assert_eq!(status.expires, old.expires);
    assert!(is_trusted(&server, &authority, "relay.example").await);
    let new = until_certificate(&server, "the second", |s| s.renewed == 2).await;
    assert_eq!(new.refused, 2);
    assert!(new.expires > old.expires + DAY * 70);
    // The key stays, so that the pin does.
    assert_eq!(new.pin, old.pin);
    assert!(is_trusted(&server, &authority, "relay.example").await);
    node.say(Control::Ping { token: 8 }).await;
    assert!(matches!(node.hear().await, Control::Pong { token: 8 }));
    assert_eq!(authority.report().faults, Vec::<String>::new());
}

#[tokio::test]
async fn an_authority_that_wants_to_be_left_alone_is_also_after_a_restart() {
    let authority = Authority::start(&[Plan::Busy(3_600)]).await;
    let dir = tempfile::tempdir().unwrap();
    let acme = settings(&authority, dir.path());
    let server = relay(&authority, acme.clone()).await;
    until_certificate(&server, "the refusal", |s| s.refused == 1).await;
    let requests = authority.report().requests;
    server.stop().await;
    let server = relay(&authority, acme).await;
    // It answers nodes meanwhile. Left to itself, it would have come back a hundred times.
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(1) {
        assert!(!is_trusted(&server, &authority, "relay.example").await);
    }
    assert_eq!(server.certificate().refused, 0);
    assert_eq!(authority.report().requests, requests);
    assert_eq!(authority.report().orders, 1);
}

#[tokio::test]
async fn an_authority_that_is_not_trusted_hears_nothing() {
    let authority = Authority::start(&[Plan::Issue(0, 90)]).await;
    let other = Authority::start(&[Plan::Issue(0, 90)]).await;
    let dir = tempfile::tempdir().unwrap();
    let mut acme = settings(&authority, dir.path());
    acme.extra_roots = vec![other.root_file.clone()];
    let server = relay(&authority, acme).await;
    until_certificate(&server, "a failure", |s| s.refused > 0).await;
    assert_eq!(authority.report().requests, 0);
}

#[tokio::test]
async fn settings_that_cannot_work_are_errors_at_the_start() {
    let authority = Authority::start(&[Plan::Issue(0, 90)]).await;
    let dir = tempfile::tempdir().unwrap();
    let good = settings(&authority, dir.path());
    type Change = fn(&mut ServerConfig, &mut Acme);
    let cases: [(&str, Change); 5] = [
        ("domains", |_, acme| acme.domains.clear()),
        ("*.example", |_, acme| acme.domains[0] = "*.example".into()),
        ("https", |_, acme| {
            acme.directory_url = "http://ca.example/".into();
        }),
        ("/nonexistent", |_, acme| {
            acme.extra_roots = vec!["/nonexistent".into()];
        }),
        ("exclude", |config, _| {
            config.identity = Some("relay.pem".into());
        }),
    ];
    for (expected, change) in cases {
        let (mut config, mut acme) = (ServerConfig::dev(), good.clone());
        change(&mut config, &mut acme);
        config.acme = Some(acme);
        let error = format!("{:#}", Server::start(config).await.unwrap_err());
        assert!(error.contains(expected), "{error}");
    }
    assert_eq!(authority.report().requests, 0);
}
