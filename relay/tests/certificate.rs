//! The relay's certificate over its life: files that are renewed while links are up.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must panic")]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use byway_relay::{CertFiles, CertificateStatus, Server, ServerConfig};
use byway_wire::relay::Pin;
use byway_wire::relay::control::{Control, Role};
use common::tls::{TlsNode, tls_to};
use common::udp::UdpNode;
use common::*;
use rustls::pki_types::ServerName;
use rustls::server::ParsedCertificate;
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A certificate's two files.
struct Files {
    dir: tempfile::TempDir,
}

/// Their contents.
struct Made {
    chain: String,
    key: String,
    pin: Pin,
}

impl Made {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["relay.example".into()]).unwrap();
        let parsed = ParsedCertificate::try_from(made.cert.der()).unwrap();
        Self {
            chain: made.cert.pem(),
            key: made.signing_key.serialize_pem(),
            pin: Pin(Sha256::digest(parsed.subject_public_key_info()).into()),
        }
    }
}

impl Files {
    fn new(made: &Made) -> Self {
        let files = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        files.write(made);
        files
    }
    fn config(&self) -> CertFiles {
        CertFiles {
            cert: self.dir.path().join("cert.pem"),
            key: self.dir.path().join("key.pem"),
        }
    }
    fn write(&self, made: &Made) {
        self.put("key.pem", &made.key);
        self.put("cert.pem", &made.chain);
    }
    fn put(&self, name: &str, contents: &str) {
        // In one step, or the relay might look in the middle and count that, too.
        let whole = self.dir.path().join("whole");
        std::fs::write(&whole, contents).unwrap();
        std::fs::rename(whole, self.dir.path().join(name)).unwrap();
    }
    async fn relay(&self, change: impl FnOnce(&mut ServerConfig)) -> Server {
        start_with(|c| {
            c.cert = Some(self.config());
            c.reload_every = Duration::from_millis(5);
            change(c);
        })
        .await
    }
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

/// Whether the link still answers.
async fn ping_tls(node: &mut TlsNode, token: u64) {
    node.say(Control::Ping { token }).await;
    assert!(matches!(node.hear().await, Control::Pong { token: t } if t == token));
}
async fn ping_udp(node: &mut UdpNode, token: u64) {
    node.say(&Control::Ping { token }).await;
    assert!(matches!(node.hear().await, Control::Pong { token: t } if t == token));
}

#[tokio::test]
async fn renewed_files_are_shown_to_both_kinds_of_links_and_end_none() {
    let (first, second) = (Made::new(), Made::new());
    let files = Files::new(&first);
    let server = files.relay(|_| {}).await;
    assert_eq!(server.url().pin(), Some(first.pin));
    let mut tls = TlsNode::welcome(&server, 1, Role::Client).await;
    let mut udp = UdpNode::welcome(&server, 2, Role::Client).await;

    files.write(&second);
    let status = until_certificate(&server, "the new one", |s| s.pin == second.pin).await;
    assert_eq!(status.renewed, 1);
    assert_eq!(server.url().pin(), Some(second.pin));
    // These know the relay by the new pin, and nothing else.
    TlsNode::welcome(&server, 3, Role::Client).await;
    UdpNode::welcome(&server, 4, Role::Client).await;
    ping_tls(&mut tls, 7).await;
    ping_udp(&mut udp, 7).await;
}

#[tokio::test]
async fn a_proof_goes_by_the_certificate_that_its_own_handshake_showed() {
    let (first, second) = (Made::new(), Made::new());
    let files = Files::new(&first);
    let server = files.relay(|c| c.require_channel_binding = true).await;
    // A name that the relay does not know: only the certificate speaks for it.
    let connect = |pin| TlsNode::connect_to(addr(&server), pin, "alias.example:443");
    let mut early = connect(first.pin).await;
    let mut wrong = connect(first.pin).await;
    files.write(&second);
    until_certificate(&server, "the new one", |s| s.pin == second.pin).await;

    early.prove(1, 1).await;
    early.say(hello(1, Role::Client)).await;
    assert!(matches!(early.hear().await, Control::Welcome(w) if !w.intercepted));
    // It saw the first, so who says that it saw the second had somebody between.
    wrong.claim.certificate = second.pin;
    wrong.prove(2, 2).await;
    assert!(matches!(wrong.hear().await, Control::Refused { .. }));
    // And the other way round.
    let mut late = connect(second.pin).await;
    late.claim.certificate = first.pin;
    late.prove(3, 3).await;
    assert!(matches!(late.hear().await, Control::Refused { .. }));
}

#[tokio::test]
async fn what_does_not_fit_or_is_not_whole_leaves_the_old_certificate() {
    let (first, second) = (Made::new(), Made::new());
    let files = Files::new(&first);
    let server = files.relay(|_| {}).await;
    let refused = |n| {
        let server = &server;
        async move {
            let status = until_certificate(server, "the refusal", |s| s.refused == n).await;
            assert_eq!((status.pin, status.renewed), (first.pin, 0));
            TlsNode::welcome(server, u8::try_from(n).unwrap(), Role::Client).await;
        }
    };
    // A new certificate with the old key.
    files.put("cert.pem", &second.chain);
    refused(1).await;
    // Half of it.
    files.put("cert.pem", &second.chain[..second.chain.len() / 2]);
    refused(2).await;
    std::fs::remove_file(files.config().cert).unwrap();
    refused(3).await;
    files.write(&second);
    until_certificate(&server, "the new one", |s| s.pin == second.pin).await;
}

#[tokio::test]
async fn sighup_looks_at_once() {
    let (first, second) = (Made::new(), Made::new());
    let files = Files::new(&first);
    let hour = Duration::from_secs(3_600);
    let server = files.relay(|c| c.reload_every = hour).await;
    files.write(&second);
    let pid = std::process::id().to_string();
    let kill = std::process::Command::new("kill")
        .args(["-HUP", &pid])
        .status();
    assert!(kill.unwrap().success());
    until_certificate(&server, "the new one", |s| s.pin == second.pin).await;
}

#[tokio::test]
async fn a_relay_does_not_start_with_files_that_do_not_fit() {
    let (first, second) = (Made::new(), Made::new());
    let files = Files::new(&first);
    files.put("key.pem", &second.key);
    let mut config = ServerConfig::dev();
    config.cert = Some(files.config());
    let error = format!("{:#}", Server::start(config).await.unwrap_err());
    let cert = files.config().cert.display().to_string();
    assert!(
        error.contains(&cert) && error.contains("does not fit"),
        "{error}"
    );
}

#[tokio::test]
async fn an_identity_survives_a_restart_and_none_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("relay.pem");
    let mut pins = Vec::new();
    for identity in [Some(&path), Some(&path), None, None] {
        let server = start_with(|c| c.identity = identity.cloned()).await;
        TlsNode::welcome(&server, 1, Role::Client).await;
        UdpNode::welcome(&server, 2, Role::Client).await;
        pins.push(server.url().pin().unwrap());
        server.stop().await;
    }
    assert_eq!(pins[0], pins[1]);
    assert!(pins[1] != pins[2] && pins[2] != pins[3]);
}

#[tokio::test]
async fn a_broken_identity_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("relay.pem");
    std::fs::write(&path, "").unwrap();
    let mut config = ServerConfig::dev();
    config.identity = Some(path.clone());
    let error = format!("{:#}", Server::start(config).await.unwrap_err());
    assert!(error.contains(&path.display().to_string()), "{error}");
}

#[tokio::test]
async fn a_certificate_and_an_identity_exclude_each_other() {
    let files = Files::new(&Made::new());
    let mut config = ServerConfig::dev();
    config.cert = Some(files.config());
    config.identity = Some(files.dir.path().join("relay.pem"));
    let error = format!("{:#}", Server::start(config).await.unwrap_err());
    assert!(error.contains("exclude"), "{error}");
}

/// A TLS handshake with this ALPN.
async fn offer(server: &Server, protocols: &[&[u8]]) -> std::io::Result<Option<Vec<u8>>> {
    let pin = server.url().pin().unwrap();
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinVerifier(pin)))
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
    let tcp = TcpStream::connect(addr(server)).await?;
    let name = ServerName::try_from("relay.invalid").unwrap();
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await?;
    Ok(stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec))
}

#[tokio::test]
async fn the_tls_listener_speaks_http_1_1_and_nothing_else() {
    let server = start().await;
    let chosen = offer(&server, &[b"h2", b"http/1.1"]).await.unwrap();
    assert_eq!(chosen.as_deref(), Some(&b"http/1.1"[..]));
    // Old tools do not say what they speak.
    assert_eq!(offer(&server, &[]).await.unwrap(), None);
    for other in [&b"h2"[..], b"byway-relay/1", b"acme-tls/1"] {
        let error = offer(&server, &[other]).await.unwrap_err();
        let alert = error
            .get_ref()
            .and_then(|e| e.downcast_ref::<rustls::Error>());
        assert_eq!(
            alert,
            Some(&rustls::Error::AlertReceived(
                rustls::AlertDescription::NoApplicationProtocol
            )),
            "{error}"
        );
    }
    until(&server, "the refusals are counted", |s| {
        // These, and the two that ended without a request.
        s.data.handshakes_failed == 5
    })
    .await;
}

#[tokio::test]
async fn a_plain_request_on_the_tls_port_ends_without_harm() {
    let server = start().await;
    let mut tcp = TcpStream::connect(addr(&server)).await.unwrap();
    tcp.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    until(&server, "the refusal", |s| s.data.handshakes_failed == 1).await;
    tls_to(addr(&server), server.url().pin().unwrap()).await;
}
