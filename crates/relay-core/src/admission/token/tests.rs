//! Each way in which a token can be wrong, refused.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must panic")]

use byway_wire::SecretKey;
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};

use super::*;

const NOW: u64 = 1_800_000_000;

fn node(n: u8) -> NodeId {
    SecretKey::from_bytes(&[n; 32]).node_id()
}

/// RFC 8410: an Ed25519 private key in PKCS #8.
fn pkcs8(n: u8) -> Vec<u8> {
    const PREFIX: [u8; 16] = [
        0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04,
        0x20,
    ];
    [&PREFIX[..], &[n; 32]].concat()
}

fn key(n: u8, id: Option<&str>) -> TokenKey {
    TokenKey::new(id.map(str::to_owned), *node(n).as_bytes()).unwrap()
}

/// Issuer 100 signs for "relay".
fn rules() -> TokenRules {
    TokenRules {
        keys: vec![key(100, None)],
        audiences: vec!["relay".into()],
        ..TokenRules::default()
    }
}

fn good() -> Value {
    json!({
        "sub": node(1).to_string(), "aud": "relay", "role": "client", "jti": "t-1", "iss": "hq",
        "nbf": NOW, "exp": NOW + 3_600,
    })
}

fn signed_as(claims: &Value, header: &Header, by: u8) -> String {
    jsonwebtoken::encode(header, claims, &EncodingKey::from_ed_der(&pkcs8(by))).unwrap()
}

fn signed(claims: &Value) -> String {
    signed_as(claims, &Header::new(Algorithm::EdDSA), 100)
}

fn judged(claims: &Value) -> Result<Grant, AdmissionError> {
    rules().judge(NOW, node(1), Role::Client, &signed(claims))
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = good();
    claims[name] = value;
    claims
}

/// A token of any header and payload, and any signature.
fn forged(header: &Value, signature: &[u8]) -> String {
    let part = |bytes: &[u8]| data_encoding::BASE64URL_NOPAD.encode(bytes);
    let [header, claims] = [header, &good()].map(|json| part(json.to_string().as_bytes()));
    format!("{header}.{claims}.{}", part(signature))
}

#[test]
fn a_good_token_admits_its_node_for_as_long_as_it_says() {
    let grant = judged(&good()).unwrap();
    assert_eq!(grant.holds_for(NOW), 3_600);
    assert!(grant.reaches(node(2)));
    let both = with("role", json!(["agent", "client"]));
    assert!(judged(&both).is_ok());
    let several = with("aud", json!(["elsewhere", "relay"]));
    assert!(judged(&several).is_ok());
}

#[test]
fn a_claim_that_is_missing_or_wrong_refuses() {
    for name in ["exp", "nbf", "aud", "sub", "role"] {
        let mut claims = good();
        claims.as_object_mut().unwrap().remove(name);
        let error = judged(&claims).unwrap_err();
        assert!(
            matches!(error, AdmissionError::Malformed(_)),
            "{name}: {error:?}"
        );
    }
    let cases = [
        ("aud", json!("another"), AdmissionError::Audience),
        ("aud", json!([]), AdmissionError::Audience),
        ("sub", json!(node(3).to_string()), AdmissionError::WrongNode),
        ("sub", json!(""), AdmissionError::WrongNode),
        ("role", json!("agent"), AdmissionError::Role),
        ("role", json!([]), AdmissionError::Role),
        ("nbf", json!(NOW + 61), AdmissionError::NotYet),
        ("exp", json!(NOW - EXPIRY_LEEWAY), AdmissionError::Expired),
        (
            "peers",
            json!(["nobody"]),
            AdmissionError::Malformed("a peer that is no NodeId"),
        ),
        (
            "peers",
            json!(vec![node(2).to_string(); 257]),
            AdmissionError::Malformed("too many peers"),
        ),
    ];
    for (name, value, expected) in cases {
        assert_eq!(judged(&with(name, value)), Err(expected), "{name}");
    }
    for (name, value) in [
        ("exp", json!("tomorrow")),
        ("exp", json!(-1)),
        ("nbf", json!(null)),
        ("role", json!(7)),
        ("peers", json!("all")),
    ] {
        let error = judged(&with(name, value)).unwrap_err();
        assert!(
            matches!(error, AdmissionError::Malformed(_)),
            "{name}: {error:?}"
        );
    }
}

/// Three years as well: the system's clock has no part in it.
#[test]
fn time_is_the_callers() {
    assert!(judged(&with("nbf", json!(NOW + 60))).is_ok());
    assert!(judged(&with("exp", json!(NOW - EXPIRY_LEEWAY + 1))).is_ok());
    for at in [1_000_000, NOW * 3] {
        let mut claims = with("nbf", json!(at));
        claims["exp"] = json!(at + 10);
        let token = signed(&claims);
        assert!(rules().judge(at, node(1), Role::Client, &token).is_ok());
        assert!(
            rules()
                .judge(at + 100, node(1), Role::Client, &token)
                .is_err()
        );
    }
}

#[test]
fn only_eddsa_is_taken_whatever_the_header_says() {
    for alg in ["none", "None", "HS256", "RS256", "ES256", "EdDSA2", ""] {
        for signature in [&[][..], &[0; 64]] {
            let token = forged(&json!({ "alg": alg, "typ": "JWT" }), signature);
            let verdict = rules().judge(NOW, node(1), Role::Client, &token);
            assert_eq!(verdict, Err(AdmissionError::Algorithm), "{alg}");
        }
    }
    // The public key as a shared secret.
    let public = EncodingKey::from_secret(node(100).as_bytes());
    let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &good(), &public).unwrap();
    let verdict = rules().judge(NOW, node(1), Role::Client, &token);
    assert_eq!(verdict, Err(AdmissionError::Algorithm));
}

#[test]
fn a_signature_of_another_key_or_none_or_over_something_else_refuses() {
    let by_another = signed_as(&good(), &Header::new(Algorithm::EdDSA), 101);
    let none = forged(&json!({ "alg": "EdDSA" }), &[]);
    let zeros = forged(&json!({ "alg": "EdDSA" }), &[0; 64]);
    let good = signed(&good());
    let (signed_part, signature) = good.rsplit_once('.').unwrap();
    let (header, _) = signed_part.split_once('.').unwrap();
    let other =
        data_encoding::BASE64URL_NOPAD.encode(with("sub", json!("x")).to_string().as_bytes());
    let exchanged = format!("{header}.{other}.{signature}");
    for token in [by_another, none, zeros, exchanged] {
        let verdict = rules().judge(NOW, node(1), Role::Client, &token);
        assert_eq!(verdict, Err(AdmissionError::Signature), "{token}");
    }
    // Its own key in the header is nobody's business.
    let mut header = Header::new(Algorithm::EdDSA);
    header.jku = Some("https://attacker.example/jwks".into());
    let verdict = rules().judge(
        NOW,
        node(1),
        Role::Client,
        &signed_as(&with("sub", json!(node(1).to_string())), &header, 101),
    );
    assert_eq!(verdict, Err(AdmissionError::Signature));
    let mut header = Header::new(Algorithm::EdDSA);
    header.crit = Some(vec!["b64".into()]);
    let verdict = rules().judge(
        NOW,
        node(1),
        Role::Client,
        &signed_as(&self::good(), &header, 100),
    );
    assert!(
        matches!(verdict, Err(AdmissionError::Malformed(_))),
        "{verdict:?}"
    );
}

#[test]
fn what_is_no_token_at_all_refuses() {
    for token in [
        "",
        ".",
        "..",
        "a.b.c",
        "....",
        "eyJhbGciOiJFZERTQSJ9",
        "\u{0}",
        &"x".repeat(8_000),
    ] {
        assert!(
            rules().judge(NOW, node(1), Role::Client, token).is_err(),
            "{token}"
        );
    }
}

#[test]
fn rules_without_keys_or_audiences_admit_nobody() {
    let token = signed(&good());
    let mut keyless = rules();
    keyless.keys.clear();
    assert_eq!(
        keyless.judge(NOW, node(1), Role::Client, &token),
        Err(AdmissionError::NoKeys)
    );
    let mut deaf = rules();
    deaf.audiences.clear();
    assert_eq!(
        deaf.judge(NOW, node(1), Role::Client, &token),
        Err(AdmissionError::Audience)
    );
    assert!(
        TokenKey::new(None, [0; 32]).is_err(),
        "anything can be signed with it"
    );
}

#[test]
fn a_kid_chooses_among_keys_and_a_wrong_one_refuses() {
    let mut rules = rules();
    rules.keys = vec![key(101, Some("old")), key(100, Some("new"))];
    let with_id = |id: &str| {
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(id.into());
        signed_as(&good(), &header, 100)
    };
    let judge = |token: &str| rules.judge(NOW, node(1), Role::Client, token);
    assert!(judge(&with_id("new")).is_ok());
    assert_eq!(judge(&with_id("old")), Err(AdmissionError::Signature));
    assert_eq!(judge(&with_id("other")), Err(AdmissionError::UnknownKey));
    assert!(
        judge(&signed(&good())).is_ok(),
        "without one every key is tried"
    );
}

/// A key without a name may have signed it, and if it did not, there may be a newer one of that name.
#[test]
fn a_kid_that_no_key_has_is_told_apart_from_a_bad_signature() {
    let mut header = Header::new(Algorithm::EdDSA);
    let mut judge = |keys: &[TokenKey], kid: Option<&str>| {
        header.kid = kid.map(str::to_owned);
        let keys = keys.to_vec();
        let rules = TokenRules { keys, ..rules() };
        let token = signed_as(&good(), &header, 100);
        let judged = rules.judge(NOW, node(1), Role::Client, &token);
        judged.map(|_| ())
    };
    let nameless = [key(101, None)];
    assert_eq!(
        judge(&nameless, Some("new")),
        Err(AdmissionError::UnknownKey)
    );
    assert_eq!(judge(&nameless, None), Err(AdmissionError::Signature));
    assert_eq!(judge(&[key(100, None)], Some("new")), Ok(()));
    for kid in [None, Some("new")] {
        assert_eq!(judge(&[], kid), Err(AdmissionError::NoKeys));
    }
}

/// A key that is renamed, or listed in another file as well, is the same key: nobody is cut for it.
#[test]
fn a_grant_stands_while_a_key_would_still_admit_its_token() {
    let granted = |kid: Option<&str>| {
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = kid.map(str::to_owned);
        let token = signed_as(&good(), &header, 100);
        rules().judge(NOW, node(1), Role::Client, &token).unwrap()
    };
    let stands = |keys: Vec<TokenKey>, grant: &Grant| {
        let changed = TokenRules { keys, ..rules() };
        changed.still_stands(grant)
    };
    for kid in [None, Some("a")] {
        let grant = granted(kid);
        let others = [key(101, None), key(102, Some("a"))];
        assert_eq!(stands(vec![key(100, None)], &grant), Ok(()));
        assert_eq!(stands(vec![key(100, Some("a"))], &grant), Ok(()));
        let renamed = stands(vec![key(100, Some("b"))], &grant);
        let again = stands(vec![key(100, Some("b")), key(100, Some("a"))], &grant);
        // As for a token that comes: one that names another key than this is none of it.
        let expected = if kid.is_none() {
            Ok(())
        } else {
            Err(AdmissionError::Signature)
        };
        assert_eq!((renamed, again), (expected, Ok(())), "{kid:?}");
        let gone = stands(others.to_vec(), &grant);
        assert_eq!(gone, Err(AdmissionError::Signature));
    }
}

#[test]
fn two_entries_for_one_key_are_one_that_admits_what_both_did() {
    let mut merged = key(100, Some("a"));
    assert!(!merged.merge(&key(101, Some("a"))));
    assert!(merged.merge(&key(100, Some("a"))));
    assert_eq!(merged, key(100, Some("a")));
    assert!(merged.merge(&key(100, Some("b"))));
    assert_eq!(merged, key(100, None));
    let mut rules = rules();
    rules.keys = vec![merged];
    for kid in ["a", "b"] {
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(kid.into());
        let token = signed_as(&good(), &header, 100);
        assert!(rules.judge(NOW, node(1), Role::Client, &token).is_ok());
    }
}

#[test]
fn what_was_revoked_refuses_by_its_id_or_its_node() {
    for entry in ["t-1".to_owned(), node(1).to_string()] {
        let mut rules = rules();
        rules.revoked.insert(entry);
        let verdict = rules.judge(NOW, node(1), Role::Client, &signed(&good()));
        assert_eq!(verdict, Err(AdmissionError::Revoked));
    }
    let mut rules = rules();
    rules.issuer = Some("somebody".into());
    let verdict = rules.judge(NOW, node(1), Role::Client, &signed(&good()));
    assert_eq!(verdict, Err(AdmissionError::Issuer));
}

#[test]
fn nobody_writes_lines_of_their_own_into_the_log() {
    let grant = judged(&with("owner", json!(format!("eve\n{}", "é".repeat(200))))).unwrap();
    let owner = grant.owner.unwrap();
    assert!(owner.starts_with("eveé") && owner.len() <= MAX_TEXT && !owner.contains('\n'));
}
