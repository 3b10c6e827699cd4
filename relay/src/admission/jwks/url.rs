//! Where keys may be fetched from: a host whose certificate says that it is the one, and nothing that is a secret.

use std::fmt;
use std::str::FromStr;

use http::Uri;
use rustls::pki_types::ServerName;

/// An https URL of a key set. What it shows of itself, in logs too, is without its query, which may hold a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct JwksUrl(Uri);

/// Why a URL is none to fetch keys from. Names nothing of it: it may hold a secret.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JwksUrlError {
    /// No URL, or a part of one.
    #[error("no URL")]
    NotAUrl,
    /// Whoever answers in the host's place could let anybody in.
    #[error("a URL of another kind than https")]
    NotHttps,
    /// No certificate could be for it.
    #[error("a URL without a host")]
    NoHost,
    /// They would end up in logs.
    #[error("a URL with a user or a password in it")]
    Credentials,
}

impl FromStr for JwksUrl {
    type Err = JwksUrlError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let uri: Uri = text.parse().map_err(|_| JwksUrlError::NotAUrl)?;
        let scheme = uri.scheme_str().ok_or(JwksUrlError::NotAUrl)?;
        let authority = uri.authority().ok_or(JwksUrlError::NoHost)?;
        if authority.as_str().contains('@') {
            return Err(JwksUrlError::Credentials);
        }
        if scheme != "https" {
            return Err(JwksUrlError::NotHttps);
        }
        let host = authority.host();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if ServerName::try_from(bare).is_err() {
            return Err(JwksUrlError::NoHost);
        }
        // A port that is none would silently be the usual one.
        if authority.as_str() != host && authority.port_u16().is_none() {
            return Err(JwksUrlError::NotAUrl);
        }
        Ok(Self(uri))
    }
}

#[cfg(any(feature = "jwks", test))]
impl JwksUrl {
    pub(super) fn uri(&self) -> &Uri {
        &self.0
    }
}

impl fmt::Display for JwksUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.0))
    }
}

impl fmt::Debug for JwksUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Longest URL that is shown, in characters.
const MOST_SHOWN: usize = 256;

/// What may be shown of a URL that somebody else wrote: where it leads, without user, password and query.
pub(super) fn shown(uri: &Uri) -> String {
    let mut out = String::new();
    if let Some(scheme) = uri.scheme_str() {
        out += &format!("{scheme}://");
    }
    if let Some(authority) = uri.authority() {
        let bare = authority.as_str().rsplit('@').next();
        out += bare.unwrap_or_default();
    }
    out += uri.path();
    // Who answers may say anything, and it is logged at each try.
    out.chars().take(MOST_SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_https_url_is_taken_and_shown_without_its_query() {
        for (text, expected) in [
            (
                "https://idp.example/.well-known/jwks.json",
                "https://idp.example/.well-known/jwks.json",
            ),
            ("https://idp.example", "https://idp.example/"),
            ("HTTPS://idp.example:8443/k", "https://idp.example:8443/k"),
            ("https://[::1]:8443/k", "https://[::1]:8443/k"),
            ("https://192.0.2.1/k?key=hunter2", "https://192.0.2.1/k"),
        ] {
            let url: JwksUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), expected);
            assert_eq!(format!("{url:?}"), expected);
        }
        let url: JwksUrl = "https://idp.example/k?key=hunter2".parse().unwrap();
        assert_eq!(url.uri().query(), Some("key=hunter2"));
    }

    #[test]
    fn what_is_no_place_for_keys_is_refused_and_not_repeated() {
        use JwksUrlError::*;
        for (text, expected) in [
            ("", NotAUrl),
            ("idp.example", NotAUrl),
            ("/keys.json", NotAUrl),
            ("https://", NotAUrl),
            ("https://a b/", NotAUrl),
            ("https://idp.example:/k", NotAUrl),
            ("https://idp.example:99999/k", NotAUrl),
            ("http://idp.example/k", NotHttps),
            ("http://127.0.0.1:8080/k", NotHttps),
            ("file:///etc/keys", NotAUrl),
            ("https://a_b!/k", NoHost),
            ("https://hunter2@idp.example/k", Credentials),
            ("https://user:hunter2@idp.example/k", Credentials),
            ("http://user:hunter2@idp.example/k", Credentials),
        ] {
            let error = text.parse::<JwksUrl>().unwrap_err();
            assert_eq!(error, expected, "{text}");
            assert!(!error.to_string().contains("hunter2"));
        }
    }

    #[test]
    fn of_others_urls_no_secret_is_shown() {
        let uri: Uri = "https://user:hunter2@idp.example/k?key=hunter2"
            .parse()
            .unwrap();
        assert_eq!(shown(&uri), "https://idp.example/k");
        assert_eq!(shown(&"/login?from=x".parse().unwrap()), "/login");
    }
}
