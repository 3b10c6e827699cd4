//! Keys that the relay fetches from an identity provider's URL: rotation while it runs, and whatever the provider does wrong.
#![cfg(feature = "jwks")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must panic")]

#[path = "../common/mod.rs"]
mod common;
mod provider;

use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use byway_relay::admission::issue::{Order, SigningKey};
use byway_relay::{AdmissionSource, Jwks, Server, TokenSources};
use byway_wire::relay::control::{AdmissionToken, Control, Hello, RefuseReason, Role};
use common::process::{Running, command, output};
use common::udp::UdpNode;
use common::*;
use provider::{Answer, Provider, SECRET, set};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Asked for as often as a test can wait for.
fn settings(providers: &[&Provider]) -> Jwks {
    let urls = providers.iter().map(|p| p.url().parse().unwrap());
    let mut jwks = Jwks::new(urls.collect());
    jwks.extra_roots = providers.iter().map(|p| p.root()).collect();
    jwks.refresh = Duration::from_millis(20);
    jwks.first_retry = Duration::from_millis(10);
    jwks
}

async fn relay(jwks: Jwks) -> Server {
    relay_with(jwks, Vec::new()).await
}
async fn relay_with(jwks: Jwks, keys: Vec<std::path::PathBuf>) -> Server {
    start_with(|config| {
        config.admission = AdmissionSource::Tokens(TokenSources {
            keys,
            jwks,
            audiences: vec!["byway-relay".into()],
            issuer: None,
            revoked: None,
        });
        config.observe = Some(([127, 0, 0, 1], 0).into());
    })
    .await
}

fn token(key: &SigningKey, n: u8) -> AdmissionToken {
    let order = Order {
        node: node(n),
        roles: vec![Role::Client],
        audience: "byway-relay".into(),
        lifetime: Duration::from_secs(3_600),
        peers: Vec::new(),
        issuer: None,
        id: None,
        max_bytes: None,
        max_datagrams: None,
        workspace: None,
        owner: None,
    };
    AdmissionToken::new(key.sign(order).unwrap()).unwrap()
}

async fn come(server: &Server, n: u8, key: &SigningKey) -> (UdpNode, Control) {
    let mut node = UdpNode::connect(server, n).await;
    let Control::Hello(hello) = hello(n, Role::Client) else {
        panic!("no hello");
    };
    let token = Some(token(key, n));
    node.say(&Control::Hello(Hello { token, ..hello })).await;
    let answer = node.hear().await;
    (node, answer)
}
async fn welcomed(server: &Server, n: u8, key: &SigningKey) -> UdpNode {
    let (node, answer) = come(server, n, key).await;
    assert!(matches!(answer, Control::Welcome(_)), "{answer:?}");
    node
}
/// Comes again until it is let in.
async fn admitted(server: &Server, n: u8, key: &SigningKey) -> UdpNode {
    let coming = async {
        loop {
            let (node, answer) = come(server, n, key).await;
            if matches!(answer, Control::Welcome(_)) {
                return node;
            }
        }
    };
    soon("it is admitted", coming).await
}
/// Why it is not.
async fn refused(server: &Server, n: u8, key: &SigningKey) -> String {
    refused_for(RefuseReason::NotAdmitted, server, n, key).await
}
/// Nobody is yet: it is to come again soon.
async fn not_yet(server: &Server, n: u8, key: &SigningKey) -> String {
    refused_for(RefuseReason::NotReady, server, n, key).await
}
async fn refused_for(why: RefuseReason, server: &Server, n: u8, key: &SigningKey) -> String {
    match come(server, n, key).await.1 {
        Control::Refused { reason, detail } if reason == why => detail,
        other => panic!("{other:?}"),
    }
}
async fn is_here(node: &mut UdpNode) {
    node.say(&Control::Ping { token: 4 }).await;
    let answer = node.hear().await;
    assert!(matches!(answer, Control::Pong { token: 4 }), "{answer:?}");
}
async fn is_cut(node: &mut UdpNode) {
    let told = soon("the cut", node.hear()).await;
    let why = RefuseReason::NotAdmitted;
    assert!(
        matches!(&told, Control::Refused { reason, .. } if *reason == why),
        "{told:?}"
    );
}

async fn get(addr: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    soon("an answer", read).await.unwrap();
    answer
}
async fn readyz(server: &Server) -> String {
    get(server.observe_addr().unwrap(), "/readyz").await
}
async fn status(server: &Server) -> serde_json::Value {
    let answer = get(server.observe_addr().unwrap(), "/status").await;
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(!body.contains(SECRET), "{body}");
    serde_json::from_str(body).unwrap()
}
async fn until_status(
    server: &Server,
    what: &str,
    condition: impl Fn(&serde_json::Value) -> bool,
) -> serde_json::Value {
    let deadline = Instant::now() + SOON;
    loop {
        let status = status(server).await;
        if condition(&status) {
            return status;
        }
        assert!(Instant::now() < deadline, "{what}: {status:#}");
    }
}
fn failures(server: &Server) -> u64 {
    server.stats().data.admission_fetches_failed
}

#[tokio::test]
async fn keys_are_rotated_while_the_relay_runs_and_one_that_is_gone_cuts_who_came_by_it() {
    let [old, new] = [(); 2].map(|()| SigningKey::generate().unwrap());
    let provider = Provider::start(set(&[&old]));
    let server = relay(settings(&[&provider])).await;
    assert!(readyz(&server).await.contains(" 200 "));
    let mut first = welcomed(&server, 1, &old).await;
    refused(&server, 2, &new).await;

    provider.answers(set(&[&old, &new]));
    let mut second = admitted(&server, 2, &new).await;
    // The same key without its name is the same key.
    let nameless = old.jwk().replacen("\"kid\"", "\"was\"", 1);
    let renamed = format!("{{\"keys\": [{nameless}, {}]}}", new.jwk());
    provider.answers(Answer::Text(renamed));
    provider.asked_twice().await;
    is_here(&mut first).await;
    is_here(&mut second).await;

    provider.answers(set(&[&new]));
    is_cut(&mut first).await;
    is_here(&mut second).await;
    refused(&server, 1, &old).await;
    assert_eq!(failures(&server), 0);
    let asked = provider.asked();
    assert!(
        asked
            .iter()
            .all(|path| *path == format!("/keys?client={SECRET}"))
    );
}

#[tokio::test]
async fn a_token_that_names_a_new_key_has_it_fetched_and_strangers_cannot_have_more() {
    let [old, new] = [(); 2].map(|()| SigningKey::generate().unwrap());
    let provider = Provider::start(set(&[&old]));
    let usual = || {
        let mut jwks = settings(&[&provider]);
        jwks.refresh = Jwks::default().refresh;
        jwks
    };
    let mut eager = usual();
    eager.apart = Duration::from_millis(10);
    let (eager, patient) = (relay(eager).await, relay(usual()).await);
    assert_eq!(provider.asked().len(), 2);
    provider.answers(set(&[&old, &new]));
    for _ in 0..20 {
        assert!(refused(&patient, 2, &new).await.contains("'kid'"));
    }
    assert_eq!(provider.asked().len(), 2);
    admitted(&eager, 2, &new).await;
    // A bad signature is no reason to ask.
    let asked = provider.asked().len();
    for _ in 0..20 {
        let forged = |key: &SigningKey| {
            let token = token(key, 3);
            let (signed, _) = token.as_str().rsplit_once('.').unwrap();
            AdmissionToken::new(format!("{signed}.AAAA")).unwrap()
        };
        let mut node = UdpNode::connect(&eager, 3).await;
        let Control::Hello(hello) = hello(3, Role::Client) else {
            panic!("no hello");
        };
        let token = Some(forged(&old));
        node.say(&Control::Hello(Hello { token, ..hello })).await;
        assert!(matches!(node.hear().await, Control::Refused { .. }));
    }
    // The last of those that came before may still have been on its way.
    assert!(provider.asked().len() <= asked + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_starts_without_its_provider_and_is_ready_when_the_first_keys_have_come() {
    let key = SigningKey::generate().unwrap();
    let mut provider = Provider::closed(set(&[&key]));
    let server = relay(settings(&[&provider])).await;
    let unready = readyz(&server).await;
    assert!(
        unready.contains(" 503 ") && unready.contains("no keys"),
        "{unready}"
    );
    let observe = server.observe_addr().unwrap();
    assert!(get(observe, "/healthz").await.contains(" 200 "));
    assert!(
        get(observe, "/metrics")
            .await
            .contains("byway_relay_ready 0\n")
    );
    let why = not_yet(&server, 1, &key).await;
    assert!(why.contains("not been able to fetch the keys"), "{why}");
    until(&server, "it is tried again", |s| {
        s.data.admission_fetches_failed >= 2
    })
    .await;
    let aged = |s: &serde_json::Value| s["admission_age_s"].as_u64() >= Some(1);
    let said = until_status(&server, "the age grows", aged).await;
    assert_eq!(said["health"], "no_keys");
    assert_eq!(said["jwks"][0]["url"], provider.shown());
    assert_eq!(said["jwks"][0]["fetched_s"], serde_json::Value::Null);
    let shown = output(&["status", &observe.to_string()]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    let expected = format!(
        "NONE YET from {}; the last try: no connection",
        provider.shown()
    );
    assert!(
        shown.contains(&expected) && shown.contains("NO KEYS YET"),
        "{shown}"
    );

    provider.open();
    let ready = |s: &serde_json::Value| s["ready"] == true;
    let said = until_status(&server, "it is ready", ready).await;
    assert!(readyz(&server).await.contains(" 200 "));
    assert_eq!(said["jwks"][0]["keys"], 1);
    welcomed(&server, 1, &key).await;
    let known = |s: &serde_json::Value| s["admission_age_s"].as_u64() == Some(0);
    until_status(&server, "the age is that of the answer", known).await;
}

#[tokio::test]
async fn a_provider_that_does_not_answer_holds_up_a_start_for_its_patience_and_no_longer() {
    let key = SigningKey::generate().unwrap();
    let provider = Provider::start(Answer::Slow);
    let mut jwks = settings(&[&provider]);
    jwks.patience = Duration::from_millis(200);
    let server = soon("the start", relay(jwks)).await;
    let said = status(&server).await;
    assert_eq!(said["jwks"][0]["error"], "no answer within 200ms");
    not_yet(&server, 1, &key).await;
    provider.answers(set(&[&key]));
    admitted(&server, 1, &key).await;
}

/// A file on a network's disk whose server went away: it says nothing, and nothing of it is heard for ever.
#[tokio::test]
async fn a_file_that_hangs_keeps_no_key_in_force_that_its_provider_withdrew() {
    let [in_file, old, new] = [(); 3].map(|()| SigningKey::generate().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys");
    std::fs::write(&file, in_file.public_pem()).unwrap();
    let provider = Provider::start(set(&[&old]));
    let server = relay_with(settings(&[&provider]), vec![file.clone()]).await;
    let mut first = welcomed(&server, 1, &old).await;

    let pipe = folder.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    std::fs::rename(&pipe, &file).unwrap();
    // Nobody can write to a pipe until somebody reads of it.
    let writer = soon("a look at the file", async {
        loop {
            let mut options = std::fs::OpenOptions::new();
            options
                .write(true)
                .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32);
            match options.open(&file) {
                Ok(writer) => return writer,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    })
    .await;

    provider.answers(set(&[&new]));
    is_cut(&mut first).await;
    admitted(&server, 2, &new).await;
    let mut third = welcomed(&server, 3, &in_file).await;
    // It goes on where it was.
    drop(writer);
    is_here(&mut third).await;
}

/// The failure of one provider must not take away the nodes of another, or of a file.
#[tokio::test]
async fn one_key_from_anywhere_is_enough_to_be_ready() {
    let [in_file, published] = [(); 2].map(|()| SigningKey::generate().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys");
    std::fs::write(&file, in_file.public_pem()).unwrap();
    let mut gone = Provider::closed(set(&[&published]));
    let server = relay_with(settings(&[&gone]), vec![file]).await;
    assert!(readyz(&server).await.contains(" 200 "));
    let mut first = welcomed(&server, 1, &in_file).await;
    gone.open();
    admitted(&server, 2, &published).await;
    is_here(&mut first).await;

    let other = Provider::start(set(&[&in_file]));
    let still_gone = Provider::closed(set(&[&published]));
    let server = relay(settings(&[&still_gone, &other])).await;
    assert!(readyz(&server).await.contains(" 200 "));
    welcomed(&server, 1, &in_file).await;
    refused(&server, 2, &published).await;
}

#[tokio::test]
async fn whatever_a_provider_does_wrong_leaves_its_last_keys_in_force() {
    let key = SigningKey::generate().unwrap();
    let provider = Provider::start(set(&[&key]));
    let mut jwks = settings(&[&provider]);
    jwks.patience = Duration::from_millis(500);
    let server = relay(jwks).await;
    let mut node = welcomed(&server, 1, &key).await;
    let private = key.jwk().replacen('{', "{\"d\": \"AAAA\",", 1);
    let crowd: Vec<SigningKey> = (0..17).map(|_| SigningKey::generate().unwrap()).collect();
    let crowd: Vec<&SigningKey> = crowd.iter().collect();
    let elsewhere = format!("Location: https://{SECRET}@127.0.0.1:1/there?{SECRET}\r\n");
    for (answer, expected) in [
        (Answer::Status(500, String::new()), "it answers 500"),
        (Answer::Status(404, String::new()), "it answers 404"),
        (
            Answer::Status(302, elsewhere),
            "leads elsewhere (302 Found to https://127.0.0.1:1/there), and redirects are not followed",
        ),
        (
            Answer::Status(302, "Location: /there\r\n".into()),
            "to /there)",
        ),
        (
            Answer::Text("<html>".into()),
            "holds no keys for this relay: no public key",
        ),
        (Answer::Text(String::new()), "no public key"),
        (
            Answer::Text("{\"keys\": []}".into()),
            "no Ed25519 key among 0",
        ),
        (
            Answer::Text("{\"keys\": [{\"kty\": \"RSA\"}]}".into()),
            "no Ed25519 key among 1",
        ),
        (
            Answer::Text(format!("{{\"keys\": [{private}]}}")),
            "private key",
        ),
        (set(&crowd), "17 keys"),
        (Answer::Endless, "longer than 262144 bytes"),
        (Answer::Slow, "no answer within 500ms"),
        (Answer::HangUp, "HTTP with 127.0.0.1"),
    ] {
        let what = format!("{answer:?}");
        let before = failures(&server);
        provider.answers(answer);
        let says = |s: &serde_json::Value| {
            let error = s["jwks"][0]["error"].as_str();
            error.is_some_and(|error| error.contains(expected))
        };
        let said = until_status(&server, &what, says).await;
        assert_eq!(said["jwks"][0]["keys"], 1, "{what}");
        assert!(failures(&server) > before, "{what}");
        is_here(&mut node).await;
        welcomed(&server, 2, &key).await;
        assert!(readyz(&server).await.contains(" 200 "), "{what}");
        provider.answers(set(&[&key]));
        let good = |s: &serde_json::Value| s["jwks"][0]["error"].is_null();
        until_status(&server, "it is good again", good).await;
    }
    assert!(!provider.asked().iter().any(|path| path.contains("there")));
}

#[tokio::test]
async fn a_provider_whose_certificate_is_not_trusted_is_asked_nothing() {
    let key = SigningKey::generate().unwrap();
    let [provider, other] = [(); 2].map(|()| Provider::start(set(&[&key])));
    let mut jwks = settings(&[&provider]);
    jwks.extra_roots = vec![other.root()];
    let server = relay(jwks).await;
    not_yet(&server, 1, &key).await;
    let said = status(&server).await;
    let error = said["jwks"][0]["error"].as_str().unwrap();
    assert!(
        error.contains("TLS with 127.0.0.1: invalid peer certificate"),
        "{error}"
    );
    assert!(provider.asked().is_empty() && failures(&server) > 0);
}

/// A configuration of a relay with these lines about tokens.
fn configuration(folder: &tempfile::TempDir, tokens: &str) -> String {
    let file = folder.path().join("relay.toml");
    let text = format!("admission = \"tokens\"\nlisten = [\"127.0.0.1:0\"]\n[tokens]\n{tokens}");
    std::fs::write(&file, text).unwrap();
    file.display().to_string()
}
fn lines(provider: &Provider) -> String {
    let (url, root) = (provider.url(), provider.root());
    format!("jwks = [\"{url}\"]\njwks_roots = [{root:?}]\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_check_of_a_configuration_asks_for_the_keys_and_says_what_is_there() {
    let keys = [(); 2].map(|()| SigningKey::generate().unwrap());
    let provider = Provider::start(set(&[&keys[0], &keys[1]]));
    let folder = tempfile::tempdir().unwrap();
    let config = configuration(&folder, &lines(&provider));
    let checked = || {
        let checked = output(&["check-config", &config]);
        assert!(checked.status.success(), "{checked:?}");
        String::from_utf8(checked.stdout).unwrap()
    };
    let said = checked();
    assert!(said.contains("by token: 2 keys for byway-relay"), "{said}");
    let there = format!("2 keys at {}\n", provider.shown());
    assert!(said.contains(&there) && !said.contains("warning"), "{said}");
    // What does not come is no reason for a relay not to start.
    provider.answers(Answer::Status(503, String::new()));
    let said = checked();
    let warning = format!("warning      {}: it answers 503", provider.shown());
    assert!(said.contains(&warning) && said.contains("0 keys"), "{said}");
    assert!(!said.contains(SECRET), "{said}");
    // All of them by flags and by the environment.
    provider.answers(set(&[&keys[0]]));
    let empty = configuration(&folder, "");
    let root = provider.root().display().to_string();
    let said = command(&["check-config", &empty, "--token-jwks-root", &root])
        .env("BYWAY_RELAY_TOKEN_JWKS", provider.url())
        .output()
        .unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.contains("1 key at"), "{said}");
    // What a start refuses, the check refuses.
    for (tokens, code, expected) in [
        ("jwks = [\"http://127.0.0.1/keys\"]\n", 2, "https://"),
        (
            "jwks = [\"https://127.0.0.1/keys\"]\njwks_roots = [\"/nonexistent\"]\n",
            1,
            "/nonexistent",
        ),
    ] {
        let config = configuration(&folder, tokens);
        let (checked, started) = (
            output(&["check-config", &config]),
            output(&["--config", &config]),
        );
        let codes = (checked.status.code(), started.status.code());
        assert_eq!(codes, (Some(2), Some(code)), "{tokens}");
        for output in [checked, started] {
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(said.contains(expected), "{said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_says_what_cannot_be_fetched_and_no_secret() {
    let key = SigningKey::generate().unwrap();
    let mut provider = Provider::closed(set(&[&key]));
    let folder = tempfile::tempdir().unwrap();
    let config = configuration(&folder, &lines(&provider));
    let relay = Running::logging(&["--config", &config]);
    let mut said = relay.log_until("keys cannot be fetched");
    assert!(said.last().unwrap().contains(&provider.shown()));
    said.extend(relay.log_until("nobody is admitted until one can be fetched"));
    said.extend(relay.log_until("ready"));
    provider.open();
    said.extend(relay.log_until("keys fetched"));
    said.extend(relay.log_until("admission reloaded"));
    let said = said.join("\n");
    assert!(!said.contains(SECRET), "{said}");
}
