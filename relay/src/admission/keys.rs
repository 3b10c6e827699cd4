//! Issuers' public keys: PEM as `byway-relay keygen` and OpenSSL write it, a JWK, or a JWKS (RFC 7517) as control planes publish it; from
//! files and from elsewhere, all of them together.

use anyhow::Context;
use byway_relay_core::{KeyError, TokenKey, TokenRules};
use byway_wire::NodeId;
use data_encoding::BASE64URL_NOPAD;
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;

use super::jwks::Sets;

/// Most keys, those of all files and URLs together: a token that names none is checked against each in turn while every other node waits, and
/// a rotation needs two.
pub(super) const MAX_KEYS: usize = 16;

/// More keys than a relay takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0} keys, and every token may be checked against each: {MAX_KEYS} at the most")]
pub(super) struct TooManyKeys(usize);

pub(super) fn not_too_many(keys: &[TokenKey]) -> Result<(), TooManyKeys> {
    if keys.len() > MAX_KEYS {
        return Err(TooManyKeys(keys.len()));
    }
    Ok(())
}

/// Adds keys to others. One that is listed twice is one, and tried once.
pub(super) fn add(keys: &mut Vec<TokenKey>, more: impl IntoIterator<Item = TokenKey>) {
    for key in more {
        if !keys.iter_mut().any(|known| known.merge(&key)) {
            keys.push(key);
        }
    }
}

/// The rules that follow from what files say and from keys that were fetched.
pub(super) fn together(files: &TokenRules, sets: &Sets) -> Result<TokenRules, TooManyKeys> {
    let mut rules = files.clone();
    for set in sets.iter().flatten() {
        add(&mut rules.keys, set.iter().cloned());
    }
    not_too_many(&rules.keys)?;
    Ok(rules)
}

/// The keys of a file, or of a URL. Entries of a JWKS that are none of ours (RSA, for encryption), or are no keys, are left out; everything else that is wrong is an error.
///
/// Says in `notes` what was left out though it seems to be meant for us.
pub(super) fn parse(text: &str, notes: &mut Vec<String>) -> anyhow::Result<Vec<TokenKey>> {
    anyhow::ensure!(
        !text.contains("PRIVATE KEY"),
        "this is a private key, which signs tokens and belongs on no relay; name the public key's file"
    );
    if text.trim_start().starts_with('{') {
        return jwks(text, notes);
    }
    let mut keys = Vec::new();
    for spki in SubjectPublicKeyInfoDer::pem_slice_iter(text.as_bytes()) {
        let spki = spki.context("not PEM")?;
        let public = NodeId::from_spki_der(&spki).context("not an Ed25519 public key")?;
        // Without an id: another issuer's tokens may name it as they like.
        keys.push(TokenKey::new(None, *public.as_bytes())?);
    }
    anyhow::ensure!(
        !keys.is_empty(),
        "no public key: neither PEM (PUBLIC KEY) nor JSON (JWK, JWKS)"
    );
    Ok(keys)
}

/// RFC 7517 section 5: what a set holds that is not understood, lacks something or has values of another kind is ignored. Otherwise an
/// entry that a control plane adds for others would keep every key that it adds for us from being taken.
fn jwks(text: &str, notes: &mut Vec<String>) -> anyhow::Result<Vec<TokenKey>> {
    let json: Value = serde_json::from_str(text).context("neither a JWK nor a JWKS")?;
    let (entries, set) = match json.get("keys") {
        Some(Value::Array(entries)) => (entries.as_slice(), true),
        Some(_) => anyhow::bail!("neither a JWK nor a JWKS: 'keys' is no list"),
        None => (std::slice::from_ref(&json), false),
    };
    let mut found = Vec::new();
    for (n, entry) in entries.iter().enumerate() {
        match jwk(entry) {
            Ok(key) => found.push(key),
            Err(JwkError::Private) => anyhow::bail!(JwkError::Private),
            // Its only one: whoever wrote it wants to know.
            Err(error) if !set => anyhow::bail!(error),
            Err(JwkError::Foreign) => {}
            Err(error) => notes.push(format!("entry {} is left out: {error}", n + 1)),
        }
    }
    anyhow::ensure!(
        !found.is_empty(),
        "no Ed25519 key among {} (tokens are signed with EdDSA, and nothing else is taken)",
        entries.len()
    );
    Ok(found)
}

/// Why an entry is no key of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
enum JwkError {
    #[error(
        "this holds a private key ('d'), which belongs on no relay; publish the set without it"
    )]
    Private,
    #[error(
        "a key of another kind, or for another use, than Ed25519 signatures (tokens are signed with EdDSA, and nothing else is taken)"
    )]
    Foreign,
    #[error("neither a JWK nor a JWKS: there is no 'kty'")]
    NoKind,
    #[error("'{0}' is no text")]
    Type(&'static str),
    #[error("a key without 'x'")]
    NoX,
    #[error("'x' is not 32 bytes in base64url")]
    X,
    #[error(transparent)]
    Key(#[from] KeyError),
}

fn jwk(entry: &Value) -> Result<TokenKey, JwkError> {
    // Whatever else it is: who publishes one private key has a mistake to mend.
    if entry.get("d").is_some() {
        return Err(JwkError::Private);
    }
    let text = |name: &'static str| match entry.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(JwkError::Type(name)),
    };
    let kind = text("kty")?.ok_or(JwkError::NoKind)?;
    let ours = kind == "OKP"
        && text("crv")? == Some("Ed25519")
        && text("use")?.is_none_or(|usage| usage == "sig")
        && text("alg")?.is_none_or(|alg| matches!(alg, "EdDSA" | "Ed25519"));
    if !ours {
        return Err(JwkError::Foreign);
    }
    let x = text("x")?.ok_or(JwkError::NoX)?;
    let bytes = BASE64URL_NOPAD.decode(x.as_bytes());
    let bytes: Option<[u8; 32]> = bytes.ok().and_then(|b| b.try_into().ok());
    // A name that cannot be read is not left out: then the key would take tokens of any name.
    let kid = text("kid")?.map(str::to_owned);
    Ok(TokenKey::new(kid, bytes.ok_or(JwkError::X)?)?)
}

#[cfg(test)]
mod tests {
    use super::super::issue;
    use super::*;

    fn parse(text: &str) -> anyhow::Result<Vec<TokenKey>> {
        super::parse(text, &mut Vec::new())
    }

    fn error(text: &str) -> String {
        format!("{:#}", parse(text).unwrap_err())
    }

    #[test]
    fn the_three_forms_of_one_key_are_one_key() {
        let pair = issue::SigningKey::generate().unwrap();
        let pem = parse(&pair.public_pem()).unwrap();
        let jwk = parse(&pair.jwk()).unwrap();
        let jwks = parse(&format!("{{\"keys\": [{}]}}", pair.jwk())).unwrap();
        assert_eq!((pem.len(), jwk.len()), (1, 1));
        assert_eq!(jwk, jwks);
        let two = format!(
            "{}{}",
            pair.public_pem(),
            issue::SigningKey::generate().unwrap().public_pem()
        );
        assert_eq!(parse(&two).unwrap().len(), 2);
    }

    #[test]
    fn a_set_may_hold_keys_of_other_kinds_beside_ours() {
        let ours = issue::SigningKey::generate().unwrap().jwk();
        let rsa = r#"{"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "1"}"#;
        let encrypts = ours.replacen('{', "{\"use\": \"enc\",", 1);
        let keys = parse(&format!("{{\"keys\": [{rsa}, {ours}, {encrypts}]}}")).unwrap();
        assert_eq!(keys.len(), 1);
        assert!(error(&format!("{{\"keys\": [{rsa}]}}")).contains("no Ed25519 key among 1"));
    }

    #[test]
    fn an_odd_entry_of_a_set_spoils_no_other() {
        let ours = issue::SigningKey::generate().unwrap().jwk();
        let set = |entry: &str| parse(&format!("{{\"keys\": [{entry}, {ours}]}}"));
        for odd in [
            "{}",
            "7",
            "null",
            r#"{"kid": "no kind"}"#,
            r#"{"kty": 7}"#,
            r#"{"kty": "OKP", "crv": ["Ed25519"], "x": "AAAA"}"#,
            r#"{"kty": "OKP", "crv": "Ed25519"}"#,
            r#"{"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}"#,
            r#"{"kty": "OKP", "crv": "Ed25519", "x": "!"}"#,
            r#"{"kty": "OKP", "crv": "Ed25519", "x": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}"#,
            &ours.replacen("\"kid\":\"", "\"kid\":7,\"was\":\"", 1),
        ] {
            assert_eq!(set(odd).unwrap().len(), 1, "{odd}");
            let mut notes = Vec::new();
            let text = format!("{{\"keys\": [{ours}, {odd}]}}");
            super::parse(&text, &mut notes).unwrap();
            assert!(
                notes.len() == 1 && notes[0].starts_with("entry 2 "),
                "{notes:?}"
            );
            let alone = error(&format!("{{\"keys\": [{odd}]}}"));
            assert!(alone.contains("no Ed25519 key among 1"), "{odd}: {alone}");
        }
        // A private key is none of those, whatever its kind.
        for private in [
            ours.replacen('{', "{\"d\": \"AAAA\",", 1),
            r#"{"kty": "RSA", "n": "AQAB", "e": "AQAB", "d": "AQAB"}"#.to_owned(),
        ] {
            let error = format!("{:#}", set(&private).unwrap_err());
            assert!(error.contains("private key"), "{error}");
        }
        assert!(error(r#"{"keys": 7}"#).contains("no list"));
    }

    #[test]
    fn what_is_no_public_key_is_refused_with_the_reason() {
        let pair = issue::SigningKey::generate().unwrap();
        assert!(error(&pair.private_pem()).contains("private key"));
        assert!(error(&pair.jwk().replacen('{', "{\"d\": \"AAAA\",", 1)).contains("private key"));
        assert!(error("").contains("no public key"));
        assert!(error("{}").contains("JWK"));
        assert!(error(r#"{"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}"#).contains("32 bytes"));
        assert!(error(r#"{"kty": "OKP", "crv": "Ed25519"}"#).contains("without 'x'"));
        let weak = format!(
            r#"{{"kty": "OKP", "crv": "Ed25519", "x": "{}"}}"#,
            BASE64URL_NOPAD.encode(&[0; 32])
        );
        assert!(error(&weak).contains("not an Ed25519"));
        let ec = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n-----END PUBLIC KEY-----\n";
        assert!(error(ec).contains("Ed25519"));
    }
}
