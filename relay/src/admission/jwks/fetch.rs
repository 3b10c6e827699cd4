//! One request for a URL's keys, and what its answer must be to count.

use std::time::Duration;

use bytes::Bytes;
use byway_relay_core::TokenKey;
use http::header::{ACCEPT, LOCATION, USER_AGENT};
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::Empty;
use thiserror::Error;

use super::super::keys::{self, TooManyKeys};
use super::schedule::fresh_for;
use super::url::shown;
use super::{Jwks, JwksUrl};
use crate::https::{Https, HttpsError};

/// Longest key set that is read, in bytes: a set of RSA keys with their certificates has some kilobytes for each.
const MAX_BODY: usize = 256 * 1024;
/// What RFC 7517 calls a set (section 8.5.2), and what many say instead.
const ACCEPTED: &str = "application/jwk-set+json, application/json;q=0.9";

/// Why a request brought no keys, and whose it is to mend.
#[derive(Debug, Error)]
pub(super) enum FetchError {
    /// The provider, or the way there.
    #[error("no answer within {0:?}")]
    TooSlow(Duration),
    /// No connection, no trust, or no whole answer.
    #[error(transparent)]
    Https(#[from] HttpsError),
    /// The operator names the place itself.
    #[error("it leads elsewhere ({status}{}), and redirects are not followed; name the place where the keys are", to(.location.as_deref()))]
    Redirect {
        status: StatusCode,
        /// Without what may be a secret.
        location: Option<String>,
    },
    /// The provider does not want to, or cannot.
    #[error("it answers {0}")]
    Status(StatusCode),
    /// The provider.
    #[error("what it answers is no text")]
    NoText,
    /// What it publishes.
    #[error("what it answers holds no keys for this relay")]
    Keys(#[source] anyhow::Error),
    /// What it publishes; or the operator names the URL of something else.
    #[error(transparent)]
    TooMany(#[from] TooManyKeys),
}

fn to(location: Option<&str>) -> String {
    location.map_or_else(String::new, |location| format!(" to {location}"))
}

/// What an answer holds.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) keys: Vec<TokenKey>,
    /// What was left out.
    pub(super) notes: Vec<String>,
    pub(super) fresh: Duration,
}

/// Asks for keys, by these settings.
#[derive(Debug)]
pub(super) struct Client {
    https: Https,
    patience: Duration,
    refresh: Duration,
}

impl Client {
    pub(super) fn new(jwks: &Jwks) -> Result<Self, HttpsError> {
        Ok(Self {
            https: Https::new(&jwks.extra_roots)?,
            patience: jwks.patience,
            refresh: jwks.refresh,
        })
    }

    pub(super) async fn fetch(&self, url: &JwksUrl) -> Result<Fetched, FetchError> {
        let fetched = tokio::time::timeout(self.patience, self.ask(url)).await;
        fetched.unwrap_or(Err(FetchError::TooSlow(self.patience)))
    }

    async fn ask(&self, url: &JwksUrl) -> Result<Fetched, FetchError> {
        let request = Request::get(url.uri().clone())
            .header(ACCEPT, ACCEPTED)
            .header(
                USER_AGENT,
                concat!("byway-relay/", env!("CARGO_PKG_VERSION")),
            )
            .body(Empty::<Bytes>::new())
            .map_err(HttpsError::Request)?;
        let answer = self.https.ask(request).await?;
        // What else it says is for people with browsers.
        judge(answer.parts.status, &answer.parts.headers)?;
        let (parts, body) = answer.read(MAX_BODY).await?;
        let (keys, notes) = parse(&body)?;
        Ok(Fetched {
            keys,
            notes,
            fresh: fresh_for(&parts.headers, self.refresh),
        })
    }
}

fn judge(status: StatusCode, headers: &HeaderMap) -> Result<(), FetchError> {
    if status == StatusCode::OK {
        return Ok(());
    }
    let location = headers.get(LOCATION).and_then(|v| v.to_str().ok());
    // Others with a 3 in front (304) lead nowhere.
    if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) || location.is_none() {
        return Err(FetchError::Status(status));
    }
    let location = location.and_then(|text| text.parse::<Uri>().ok());
    Err(FetchError::Redirect {
        status,
        location: location.map(|uri| shown(&uri)),
    })
}

fn parse(body: &[u8]) -> Result<(Vec<TokenKey>, Vec<String>), FetchError> {
    let text = str::from_utf8(body).map_err(|_| FetchError::NoText)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut notes = Vec::new();
    let found = keys::parse(text, &mut notes).map_err(FetchError::Keys)?;
    let mut keys = Vec::new();
    keys::add(&mut keys, found);
    keys::not_too_many(&keys)?;
    Ok((keys, notes))
}

#[cfg(test)]
mod tests {
    use super::super::super::issue::SigningKey;
    use super::*;

    fn set(keys: usize) -> String {
        let jwks = (0..keys).map(|_| SigningKey::generate().unwrap().jwk());
        format!("{{\"keys\": [{}]}}", jwks.collect::<Vec<_>>().join(","))
    }
    fn error(body: &[u8]) -> String {
        format!("{:#}", anyhow::Error::new(parse(body).unwrap_err()))
    }

    #[test]
    fn a_set_is_taken_up_to_its_bound_and_each_key_once() {
        let most = set(keys::MAX_KEYS);
        assert_eq!(parse(most.as_bytes()).unwrap().0.len(), keys::MAX_KEYS);
        let more = error(set(keys::MAX_KEYS + 1).as_bytes());
        assert!(more.contains("17 keys") && more.contains("16"), "{more}");
        let key = SigningKey::generate().unwrap().jwk();
        let twice = format!("\u{feff}{{\"keys\": [{key}, {key}, {{}}]}}");
        let (keys, notes) = parse(twice.as_bytes()).unwrap();
        assert_eq!((keys.len(), notes.len()), (1, 1));
    }

    #[test]
    fn what_holds_no_key_is_an_error_that_says_why() {
        for (body, expected) in [
            (&b"{\"keys\": []}"[..], "no Ed25519 key among 0"),
            (
                b"{\"keys\": [{\"kty\": \"RSA\"}]}",
                "no Ed25519 key among 1",
            ),
            (b"<html>", "neither PEM"),
            (b"", "neither PEM"),
            (b"{", "neither a JWK nor a JWKS"),
            (b"\xff\xfe", "no text"),
        ] {
            let error = error(body);
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn only_200_brings_keys_and_a_redirect_says_where_it_leads() {
        let judged = |status: u16, location: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            if let Some(location) = location {
                headers.insert(LOCATION, location.parse().unwrap());
            }
            let judged = judge(StatusCode::from_u16(status).unwrap(), &headers);
            judged.map_err(|e| e.to_string())
        };
        assert_eq!(judged(200, None), Ok(()));
        for status in [201, 204, 304, 404, 429, 500, 503] {
            let error = judged(status, Some("https://elsewhere.example/")).unwrap_err();
            assert!(
                error.starts_with(&format!("it answers {status}")),
                "{error}"
            );
        }
        for (location, expected) in [
            (
                Some("https://u:hunter2@b.example/k?c=hunter2"),
                " to https://b.example/k)",
            ),
            (Some("/login?c=hunter2"), " to /login)"),
            (Some("not a URL"), "Found),"),
        ] {
            let error = judged(302, location).unwrap_err();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        let error = judged(302, None).unwrap_err();
        assert!(error.starts_with("it answers 302"), "{error}");
        let long = format!("https://b.example/{}", "k".repeat(60_000));
        let error = judged(302, Some(long.leak())).unwrap_err();
        assert!(error.len() < 500, "{}", error.len());
    }
}
