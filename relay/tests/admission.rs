//! Admission by token through real links: files that change while the relay runs, cuts, whom a token reaches.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must panic")]

mod common;

use std::time::Duration;

use byway_relay::admission::issue::{Order, SigningKey};
use byway_relay::{Jwks, Server, TokenSources};
use byway_wire::relay::control::{AdmissionToken, CloseReason, Control, Hello, RefuseReason, Role};
use common::tls::TlsNode;
use common::udp::UdpNode;
use common::*;
use tempfile::TempDir;

const HOUR: Duration = Duration::from_secs(3_600);

/// A folder with an operator's files; gone with it.
struct Office {
    folder: TempDir,
    key: SigningKey,
}

impl Office {
    fn new() -> Self {
        let office = Self {
            folder: tempfile::tempdir().unwrap(),
            key: SigningKey::generate().unwrap(),
        };
        office.write("keys", &office.key.public_pem());
        office.write("revoked", "# nobody yet\n");
        office
    }
    /// As an operator's tools do: all or nothing.
    fn write(&self, name: &str, text: &str) {
        let new = self.folder.path().join("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.folder.path().join(name)).unwrap();
    }
    async fn relay(&self) -> Server {
        let files = TokenSources {
            keys: vec![self.folder.path().join("keys")],
            jwks: Jwks::default(),
            audiences: vec!["byway-relay".into()],
            issuer: None,
            revoked: Some(self.folder.path().join("revoked")),
        };
        start_with(|config| {
            config.admission = byway_relay::AdmissionSource::Tokens(files);
            config.observe = Some(([127, 0, 0, 1], 0).into());
        })
        .await
    }
    fn order(n: u8) -> Order {
        Order {
            node: node(n),
            roles: vec![Role::Agent, Role::Client],
            audience: "byway-relay".into(),
            lifetime: HOUR,
            peers: Vec::new(),
            issuer: None,
            id: Some(format!("token-{n}")),
            max_bytes: None,
            max_datagrams: None,
            workspace: None,
            owner: None,
        }
    }
    fn token(&self, n: u8) -> AdmissionToken {
        self.sign(Self::order(n))
    }
    fn sign(&self, order: Order) -> AdmissionToken {
        AdmissionToken::new(self.key.sign(order).unwrap()).unwrap()
    }
}

fn showing(n: u8, role: Role, token: Option<AdmissionToken>) -> Control {
    match hello(n, role) {
        Control::Hello(hello) => Control::Hello(Hello { token, ..hello }),
        other => other,
    }
}

async fn come(
    server: &Server,
    n: u8,
    role: Role,
    token: Option<AdmissionToken>,
) -> (UdpNode, Control) {
    let mut node = UdpNode::connect(server, n).await;
    node.say(&showing(n, role, token)).await;
    let answer = node.hear().await;
    (node, answer)
}

async fn welcomed(server: &Server, n: u8, role: Role, token: AdmissionToken) -> UdpNode {
    let (node, answer) = come(server, n, role, Some(token)).await;
    assert!(matches!(answer, Control::Welcome(_)), "{answer:?}");
    node
}

/// For how long what is in force may not be what the files say, in seconds, as `byway-relay status` shows it.
fn age(server: &Server) -> u64 {
    let observe = server.observe_addr().unwrap().to_string();
    let relay = std::process::Command::new(env!("CARGO_BIN_EXE_byway-relay"))
        .args(["status", &observe])
        .output()
        .unwrap();
    let said = String::from_utf8(relay.stdout).unwrap();
    let line = said.lines().find_map(|l| l.strip_prefix("admission"));
    let words = line.unwrap_or_else(|| panic!("{said}")).split_whitespace();
    let age = words.rev().nth(1).unwrap();
    humantime::parse_duration(age).unwrap().as_secs()
}

fn reason(answer: &Control) -> Option<RefuseReason> {
    match answer {
        Control::Refused { reason, .. } => Some(*reason),
        _ => None,
    }
}

#[tokio::test]
async fn only_who_shows_a_token_of_their_own_comes_in() {
    let office = Office::new();
    let server = office.relay().await;
    for token in [None, Some(office.token(2))] {
        let (_, answer) = come(&server, 1, Role::Client, token).await;
        assert_eq!(
            reason(&answer),
            Some(RefuseReason::NotAdmitted),
            "{answer:?}"
        );
    }
    let (_node, answer) = come(&server, 1, Role::Client, Some(office.token(1))).await;
    let Control::Welcome(welcome) = answer else {
        panic!("{answer:?}");
    };
    let left = welcome.admitted_for.unwrap();
    assert!((3_590..=3_600).contains(&left), "{left}");
    // By TLS it is the same door.
    let mut tls = TlsNode::connect(&server).await;
    tls.prove(3, 3).await;
    tls.say(showing(3, Role::Client, Some(office.token(1))))
        .await;
    assert_eq!(reason(&tls.hear().await), Some(RefuseReason::NotAdmitted));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_and_a_key_that_is_gone_cut_who_is_here() {
    let office = Office::new();
    let server = office.relay().await;
    let mut first = welcomed(&server, 1, Role::Client, office.token(1)).await;
    let mut second = welcomed(&server, 2, Role::Agent, office.token(2)).await;
    office.write("revoked", "token-1  # lost laptop\n");
    let told = soon("the cut", first.hear()).await;
    assert_eq!(reason(&told), Some(RefuseReason::NotAdmitted));
    // A file that holds no key changes nothing, another key beside it neither.
    office.write("keys", "");
    // Seen, and seen again: otherwise the next write would come before the look.
    until(&server, "it is refused twice", |s| {
        s.data.admission_reloads_failed >= 2
    })
    .await;
    assert!(age(&server) >= 2);
    second.say(&Control::Ping { token: 4 }).await;
    assert!(matches!(second.hear().await, Control::Pong { token: 4 }));
    let other = SigningKey::generate().unwrap();
    office.write(
        "keys",
        &format!("{}{}", office.key.public_pem(), other.public_pem()),
    );
    let by_other = other.sign(Office::order(3)).unwrap();
    let by_other = AdmissionToken::new(by_other).unwrap();
    let admitted = async {
        loop {
            let (_, answer) = come(&server, 3, Role::Client, Some(by_other.clone())).await;
            if matches!(answer, Control::Welcome(_)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    soon("the other key admits", admitted).await;
    second.say(&Control::Ping { token: 5 }).await;
    assert!(matches!(second.hear().await, Control::Pong { token: 5 }));
    office.write("keys", &other.public_pem());
    let told = soon("the cut", second.hear()).await;
    assert_eq!(reason(&told), Some(RefuseReason::NotAdmitted));
}

#[tokio::test]
async fn a_token_is_renewed_in_band_and_who_lets_it_run_out_is_cut_with_its_channels() {
    let office = Office::new();
    let server = office.relay().await;
    let soon_over = |n| {
        // The leeway is 55 s, and no test waits for it.
        let order = Order {
            lifetime: Duration::from_secs(2),
            ..Office::order(n)
        };
        let claims = office.key.sign_at(
            order,
            std::time::SystemTime::now() - Duration::from_secs(55),
        );
        AdmissionToken::new(claims.unwrap()).unwrap()
    };
    let mut agent = welcomed(&server, 2, Role::Agent, office.token(2)).await;
    let mut client = welcomed(&server, 1, Role::Client, soon_over(1)).await;
    client.say(&open(9, 2)).await;
    assert!(matches!(client.hear().await, Control::Opened(_)));
    assert!(matches!(agent.hear().await, Control::Incoming(_)));
    let mut other = welcomed(&server, 3, Role::Client, soon_over(3)).await;
    other.say(&Control::Token(office.token(3))).await;
    let answer = other.hear().await;
    assert!(
        matches!(
            answer,
            Control::TokenTaken {
                admitted_for: Some(_)
            }
        ),
        "{answer:?}"
    );
    let told = soon("the cut", client.hear()).await;
    assert_eq!(reason(&told), Some(RefuseReason::NotAdmitted));
    let ended = soon("the channel's end", agent.hear()).await;
    assert!(
        matches!(
            ended,
            Control::Closed {
                reason: CloseReason::PeerGone,
                ..
            }
        ),
        "{ended:?}"
    );
    other.say(&Control::Token(office.token(1))).await;
    assert!(matches!(other.hear().await, Control::TokenRefused { .. }));
    other.say(&Control::Ping { token: 5 }).await;
    assert!(matches!(other.hear().await, Control::Pong { token: 5 }));
}

#[tokio::test]
async fn a_channel_to_whom_the_token_does_not_name_is_refused() {
    let office = Office::new();
    let server = office.relay().await;
    let _agent = welcomed(&server, 2, Role::Agent, office.token(2)).await;
    let order = Order {
        peers: vec![node(7)],
        ..Office::order(1)
    };
    let mut client = welcomed(&server, 1, Role::Client, office.sign(order)).await;
    client.say(&open(9, 2)).await;
    let answer = client.hear().await;
    assert!(
        matches!(
            answer,
            Control::Closed {
                reason: CloseReason::NotAllowed,
                ..
            }
        ),
        "{answer:?}"
    );
    until(&server, "it is counted", |s| s.control.open_forbidden == 1).await;
}

#[tokio::test]
async fn a_relay_without_its_keys_does_not_start() {
    let office = Office::new();
    office.write("keys", &office.key.private_pem());
    let mut config = byway_relay::ServerConfig::dev();
    config.admission = byway_relay::AdmissionSource::Tokens(TokenSources {
        keys: vec![office.folder.path().join("keys")],
        jwks: Jwks::default(),
        audiences: vec!["byway-relay".into()],
        issuer: None,
        revoked: None,
    });
    let error = format!("{:#}", Server::start(config).await.unwrap_err());
    assert!(
        error.contains("admission") && error.contains("private key"),
        "{error}"
    );
}

#[cfg(not(feature = "jwks"))]
#[tokio::test]
async fn a_relay_that_was_built_without_fetching_keys_says_so() {
    let mut config = byway_relay::ServerConfig::dev();
    config.admission = byway_relay::AdmissionSource::Tokens(TokenSources {
        keys: Vec::new(),
        jwks: Jwks::new(vec!["https://idp.example/keys".parse().unwrap()]),
        audiences: vec!["byway-relay".into()],
        issuer: None,
        revoked: None,
    });
    let checked = config.check_files().unwrap_err();
    let started = Server::start(config).await.unwrap_err();
    for error in [checked, started] {
        let error = format!("{error:#}");
        assert!(error.contains("this build has no JWKS by URL"), "{error}");
    }
}
