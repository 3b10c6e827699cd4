//! Tokens while their nodes are here: fresh ones, expiry, rules that change, whom a token reaches.

use std::time::Duration;

use byway_wire::SecretKey;
use byway_wire::relay::control::*;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::bench::*;
use crate::io::*;
use crate::relay::Config;
use crate::{Admission, TokenKey, TokenRules};

const HOUR: u64 = 3_600;

fn rules(issuer: u8) -> TokenRules {
    let public = *node(issuer).as_bytes();
    TokenRules {
        keys: vec![TokenKey::new(None, public).unwrap()],
        audiences: vec!["relay".into()],
        ..TokenRules::default()
    }
}

/// A token of issuer 100 for node `n` until then, with these claims besides.
fn token(n: u8, exp: u64, more: Value) -> AdmissionToken {
    signed(n, exp, more, &Header::new(Algorithm::EdDSA))
}

fn signed(n: u8, exp: u64, more: Value, header: &Header) -> AdmissionToken {
    const PREFIX: [u8; 16] = [
        0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04,
        0x20,
    ];
    let mut claims = json!({
        "sub": SecretKey::from_bytes(&[n; 32]).node_id().to_string(),
        "aud": "relay", "role": ["agent", "client"], "nbf": 0, "exp": exp,
    });
    for (name, value) in more.as_object().unwrap() {
        claims[name] = value.clone();
    }
    let key = EncodingKey::from_ed_der(&[&PREFIX[..], &[100; 32]].concat());
    let token = jsonwebtoken::encode(header, &claims, &key).unwrap();
    AdmissionToken::new(token).unwrap()
}

fn bench() -> Bench {
    Bench::with(Config {
        admission: Admission::Tokens(rules(100)),
        ..Config::default()
    })
}

fn come(
    bench: &mut Bench,
    link: u64,
    n: u8,
    role: Role,
    token: Option<AdmissionToken>,
) -> Vec<Event> {
    bench.link_up(link, n);
    let hello = Hello {
        token,
        ..hello(n, u64::from(n), 1, role)
    };
    bench.say(link, Control::Hello(hello))
}

/// Client 1 and agent 2 with channel 9 between them, with these claims.
fn joined(client: Value, agent: Value) -> Bench {
    let mut bench = bench();
    come(
        &mut bench,
        2,
        2,
        Role::Agent,
        Some(token(2, 1_000 + HOUR, agent)),
    );
    come(
        &mut bench,
        1,
        1,
        Role::Client,
        Some(token(1, 1_000 + HOUR, client)),
    );
    bench.say(1, open(9, 2));
    let channel = channel(9);
    bench.say(2, Control::Accept { channel });
    bench
}

/// Lets time pass as a shell would: it wakes when it is told to.
fn pass(bench: &mut Bench, time: Duration) -> Vec<Event> {
    let end = bench.now + time;
    let mut events = Vec::new();
    while let Some((at, _)) = bench.relay.poll_timeout().filter(|(at, _)| *at <= end) {
        let step = at.saturating_duration_since(bench.now);
        events.extend(bench.pass(step));
    }
    let step = end - bench.now;
    events.extend(bench.pass(step));
    events
}

#[test]
fn nobody_comes_in_without_a_token_or_with_another_nodes() {
    let mut bench = bench();
    let events = come(&mut bench, 1, 1, Role::Client, None);
    assert_eq!(refused(&events, 1), Some(RefuseReason::NotAdmitted));
    let stolen = token(2, 1_000 + HOUR, json!({}));
    let events = come(&mut bench, 2, 1, Role::Client, Some(stolen));
    assert_eq!(refused(&events, 2), Some(RefuseReason::NotAdmitted));
    assert_eq!(bench.relay.counters().refused_admission, 2);
    let events = come(
        &mut bench,
        3,
        1,
        Role::Client,
        Some(token(1, 1_000 + HOUR, json!({}))),
    );
    let welcome = sent(&events, 3).into_iter().find_map(|m| match m {
        Control::Welcome(welcome) => Some(welcome),
        _ => None,
    });
    assert_eq!(welcome.unwrap().admitted_for, Some(HOUR as u32));
}

/// Also from who is here already; and only of keys that are unknown.
#[test]
fn a_token_that_names_an_unknown_key_is_told_to_who_fetches_keys() {
    let told = |events: &[Event]| events.iter().any(|e| matches!(e, Event::UnknownKey));
    let mut bench = bench();
    let mut rules = rules(100);
    let public = *node(101).as_bytes();
    rules.keys = vec![TokenKey::new(Some("old".into()), public).unwrap()];
    let admission = Admission::Tokens(rules);
    bench.relay.set_admission(bench.now, admission);
    let named = |kid: &str| {
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(kid.into());
        signed(1, 1_000 + HOUR, json!({}), &header)
    };
    for (link, kid, expected) in [(1, "old", false), (2, "new", true)] {
        let events = come(&mut bench, link, 1, Role::Client, Some(named(kid)));
        assert_eq!(refused(&events, link), Some(RefuseReason::NotAdmitted));
        assert_eq!(told(&events), expected, "{kid}");
    }
    let mut bench = joined(json!({}), json!({}));
    let fresh = |bench: &mut Bench, token| bench.say(1, Control::Token(token));
    assert!(!told(&fresh(&mut bench, named("new"))), "it is good");
    let mut header = Header::new(Algorithm::EdDSA);
    header.kid = Some("new".into());
    let mut bad = signed(1, 1_000 + HOUR, json!({}), &header)
        .as_str()
        .to_owned();
    bad.truncate(bad.rfind('.').unwrap() + 1);
    let bad = AdmissionToken::new(bad).unwrap();
    assert!(told(&fresh(&mut bench, bad)));
}

#[test]
fn whose_token_expires_is_cut_within_a_minute_with_all_its_channels() {
    let mut bench = joined(json!({}), json!({}));
    assert_eq!(bench.table.entries.len(), 1);
    let events = pass(&mut bench, Duration::from_secs(HOUR - 1));
    assert_eq!(refused(&events, 1), None);
    let fresh = Control::Token(token(2, 1_000 + 2 * HOUR, json!({})));
    assert!(has(&bench.say(2, fresh), 2, "TokenTaken"));
    let events = pass(&mut bench, Duration::from_secs(61));
    assert_eq!(refused(&events, 1), Some(RefuseReason::NotAdmitted));
    assert_eq!(closed(&events, 2), Some(CloseReason::PeerGone));
    assert_eq!(refused(&events, 2), None);
    // Nothing lingers that would go on to carry data.
    assert!(bench.table.entries.is_empty());
    assert_eq!(bench.relay.counters().tokens_expired, 1);
    assert_eq!(bench.relay.load().sessions, 1);
}

#[test]
fn the_wall_clock_decides_even_if_it_is_set() {
    let mut bench = joined(json!({}), json!({}));
    bench.wall += HOUR + 60;
    let events = pass(&mut bench, Duration::from_secs(3));
    assert_eq!(refused(&events, 1), Some(RefuseReason::NotAdmitted));
    assert_eq!(refused(&events, 2), Some(RefuseReason::NotAdmitted));
}

#[test]
fn a_fresh_token_that_does_not_admit_changes_nothing() {
    let mut bench = joined(json!({}), json!({}));
    for bad in [
        token(3, 1_000 + 9 * HOUR, json!({})),
        token(1, 0, json!({})),
        token(1, 1_000 + HOUR, json!({ "role": "agent" })),
    ] {
        assert!(has(&bench.say(1, Control::Token(bad)), 1, "TokenRefused"));
    }
    assert_eq!(bench.relay.counters().tokens_refused, 3);
    assert_eq!(bench.table.entries.len(), 1);
    let events = pass(&mut bench, Duration::from_secs(HOUR + 60));
    assert_eq!(refused(&events, 1), Some(RefuseReason::NotAdmitted));
}

#[test]
fn a_token_reaches_the_peers_it_names_and_nobody_else() {
    let to = |n: u8| json!({ "peers": [node(n).to_string()] });
    for (client, agent) in [(to(3), json!({})), (json!({}), to(3))] {
        let mut bench = joined(client, agent);
        assert!(bench.table.entries.is_empty());
        assert!(bench.relay.counters().open_forbidden >= 1);
        assert_eq!(
            closed(&bench.say(1, open(10, 2)), 1),
            Some(CloseReason::NotAllowed)
        );
    }
    let bench = joined(to(2), to(1));
    assert_eq!(bench.table.entries.len(), 1);
}

#[test]
fn a_fresh_token_that_names_fewer_peers_ends_channels_to_the_others_on_both_sides() {
    let mut bench = joined(json!({}), json!({}));
    bench.say(1, open(11, 5));
    let fewer = token(1, 1_000 + HOUR, json!({ "peers": [node(7).to_string()] }));
    let events = bench.say(1, Control::Token(fewer));
    assert_eq!(closed(&events, 1), Some(CloseReason::NotAllowed));
    assert_eq!(closed(&events, 2), Some(CloseReason::NotAllowed));
    assert!(bench.table.entries.is_empty());
    let forbidden = |event: &Event| {
        matches!(
            event,
            Event::Audit(Audit::Ended {
                why: EndReason::Forbidden,
                ..
            })
        )
    };
    assert_eq!(events.iter().filter(|event| forbidden(event)).count(), 1);
    assert_eq!(bench.relay.load().channels, 0, "nor does one wait");
}

#[test]
fn rules_that_change_send_away_whom_they_would_not_admit() {
    let mut bench = joined(json!({ "jti": "gone" }), json!({}));
    let mut revoking = rules(100);
    revoking.revoked.insert("gone".into());
    bench
        .relay
        .set_admission(bench.now, Admission::Tokens(revoking));
    let events = bench.drain();
    assert_eq!(refused(&events, 1), Some(RefuseReason::NotAdmitted));
    assert_eq!(refused(&events, 2), None);
    // A key beside the old one changes nothing for who is here; without the old one they go.
    let mut both = rules(100);
    both.keys.extend(rules(101).keys);
    bench
        .relay
        .set_admission(bench.now, Admission::Tokens(both));
    assert_eq!(refused(&bench.drain(), 2), None);
    bench
        .relay
        .set_admission(bench.now, Admission::Tokens(rules(101)));
    assert_eq!(refused(&bench.drain(), 2), Some(RefuseReason::NotAdmitted));
    assert_eq!(bench.relay.load(), crate::relay::Load::default());
    assert_eq!(bench.relay.poll_timeout(), None);
}

#[test]
fn a_token_is_no_violation_where_none_is_asked_for() {
    let mut bench = Bench::joined();
    let events = bench.say(1, Control::Token(token(1, 5, json!({}))));
    assert!(
        sent(&events, 1)
            .iter()
            .any(|m| matches!(m, Control::TokenTaken { admitted_for: None }))
    );
    assert_eq!(refused(&events, 1), None);
}

#[test]
fn who_may_not_come_in_is_not_told_where_else_to_go() {
    let mut bench = bench();
    bench
        .relay
        .handle_going_away(bench.now, Duration::from_secs(30), Vec::new());
    let events = come(&mut bench, 1, 1, Role::Client, None);
    assert_eq!(refused(&events, 1), Some(RefuseReason::NotAdmitted));
    assert!(!has(&events, 1, "GoingAway"));
    let good = token(2, 1_000 + HOUR, json!({}));
    let events = come(&mut bench, 2, 2, Role::Client, Some(good));
    assert!(has(&events, 2, "GoingAway"));
    assert_eq!(refused(&events, 2), Some(RefuseReason::Shutdown));
}
