//! Issuers' public keys: PEM as `byway-relay keygen` and OpenSSL write it, a JWK, or a JWKS (RFC 7517) as control planes publish it.

use anyhow::Context;
use byway_relay_core::TokenKey;
use byway_wire::NodeId;
use data_encoding::BASE64URL_NOPAD;
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;

/// Most keys: a token that names none is checked against each in turn while every other node waits, and a rotation needs two.
pub(super) const MAX_KEYS: usize = 16;

/// What matters of a JWK.
#[derive(Debug, Deserialize)]
struct Jwk {
    kty: String,
    crv: Option<String>,
    kid: Option<String>,
    x: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    alg: Option<String>,
    d: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Json {
    Set { keys: Vec<Jwk> },
    One(Jwk),
}

/// The keys of a file. Keys of a JWKS that are none of ours (RSA, for encryption) are left out; everything else that is wrong is an error.
pub(super) fn parse(text: &str) -> anyhow::Result<Vec<TokenKey>> {
    anyhow::ensure!(
        !text.contains("PRIVATE KEY"),
        "this is a private key, which signs tokens and belongs on no relay; name the public key's file"
    );
    if text.trim_start().starts_with('{') {
        return jwks(text);
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

fn jwks(text: &str) -> anyhow::Result<Vec<TokenKey>> {
    let keys = match serde_json::from_str(text).context("neither a JWK nor a JWKS")? {
        Json::Set { keys } => keys,
        Json::One(key) => vec![key],
    };
    let signs = |key: &&Jwk| {
        let kind = key.kty == "OKP" && key.crv.as_deref() == Some("Ed25519");
        let signature = key.usage.as_deref().is_none_or(|usage| usage == "sig");
        let alg = key.alg.as_deref();
        kind && signature && alg.is_none_or(|alg| matches!(alg, "EdDSA" | "Ed25519"))
    };
    let mut found = Vec::new();
    for key in keys.iter().filter(signs) {
        anyhow::ensure!(
            key.d.is_none(),
            "this holds a private key ('d'), which belongs on no relay; publish the set without it"
        );
        let x = key.x.as_deref().context("a key without 'x'")?;
        let bytes = BASE64URL_NOPAD.decode(x.as_bytes());
        let bytes: Option<[u8; 32]> = bytes.ok().and_then(|b| b.try_into().ok());
        let bytes = bytes.context("'x' is not 32 bytes in base64url")?;
        found.push(TokenKey::new(key.kid.clone(), bytes)?);
    }
    anyhow::ensure!(
        !found.is_empty(),
        "no Ed25519 key among {} (tokens are signed with EdDSA, and nothing else is taken)",
        keys.len()
    );
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::issue;
    use super::*;

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
