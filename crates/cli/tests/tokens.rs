//! A relay that asks for tokens, and programs that have one, or none.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::time::Duration;

use byway_relay::admission::issue::{Order, Role, SigningKey};
use byway_relay::{AdmissionSource, Jwks, ServerConfig, TokenSources};
use common::{Home, Relay};

/// A relay by tokens, and who signs them.
fn relay(home: &Home) -> (Relay, SigningKey) {
    let issuer = SigningKey::generate().unwrap();
    fs::write(home.file("issuer.pub"), issuer.public_pem()).unwrap();
    let mut config = ServerConfig::dev();
    config.admission = AdmissionSource::Tokens(TokenSources {
        keys: vec![home.file("issuer.pub")],
        jwks: Jwks::default(),
        audiences: vec!["byway-relay".into()],
        issuer: None,
        revoked: None,
    });
    (Relay::with(config), issuer)
}

fn token(issuer: &SigningKey, id: &str, role: Role) -> String {
    let order = Order {
        node: id.trim().parse().unwrap(),
        roles: vec![role],
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
    issuer.sign(order).unwrap()
}

#[test]
fn who_has_a_token_comes_through_and_who_has_none_is_told_what_to_do() {
    let home = Home::new();
    let (relay, issuer) = relay(&home);
    let id = |args: &[&str]| home.run(args).succeeds().stdout.clone();
    let for_agent = token(&issuer, &id(&["id", "--agent"]), Role::Agent);
    let for_client = token(&issuer, &id(&["id"]), Role::Client);

    home.run(&["agent", "--relay", &relay.url])
        .fails(4, &["token", "--token"]);
    fs::write(home.file("agent-token"), for_agent).unwrap();
    let agent = home.agent(&relay.url, &["--token-file", "agent-token"]);

    fs::write(home.file("client-token"), &for_client).unwrap();
    let ping = ["ping", &agent.peer, "-c", "1"];
    home.run(&ping).fails(4, &["not allowed", "--token"]);
    for flags in [
        ["--token", &for_client],
        ["--token-file", "client-token"],
        ["--token-command", "cat client-token"],
    ] {
        let mut all = ping.to_vec();
        all.extend(flags);
        home.run(&all).succeeds();
    }
    // Another node's is of no use.
    let mut all = ping.to_vec();
    all.extend(["--token-file", "agent-token"]);
    home.run(&all).fails(4, &["another node"]);
    let mut all = ping.to_vec();
    all.extend(["--token-command", "exit 3"]);
    home.run(&all).fails(1, &["token", "3"]);
}
