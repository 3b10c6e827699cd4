//! The URL of a proxy, with a user name and a password that nothing here shows.

use std::fmt;
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use url::{Host, Url};
use zeroize::Zeroizing;

/// RFC 1928 section 3.
const SOCKS_PORT: u16 = 1080;
/// RFC 1929 section 2: both are counted in one byte.
const SOCKS_FIELD: std::ops::RangeInclusive<usize> = 1..=255;

/// What a proxy speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Scheme {
    /// HTTP, of which `CONNECT` is used.
    Http,
    /// SOCKS version 5.
    Socks5,
}

/// A proxy: `http://[USER:PASSWORD@]HOST[:PORT]`, `socks5://` or `socks5h://`. Without a scheme it is HTTP; ports are 80 and
/// 1080 unless given. User name and password are percent-encoded, as in every URL.
///
/// Both `socks5` and `socks5h` let the proxy resolve the relay's name. [`Display`](fmt::Display) and `Debug` leave user
/// name and password out.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyUrl {
    pub(super) scheme: Scheme,
    pub(super) host: Host<String>,
    pub(super) port: u16,
    pub(super) credentials: Option<Credentials>,
}

/// Who asks.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    pub(super) user: String,
    pub(super) password: Zeroizing<String>,
}

/// Why a text is not the URL of a proxy. None of these repeats the text, for it may hold a password.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyUrlError {
    /// A scheme that names no proxy.
    #[error("a proxy's URL begins with http://, socks5:// or socks5h://")]
    Scheme,
    /// TLS to the proxy itself.
    #[error(
        "TLS to the proxy itself (https://) is not supported: if it takes plain connections as well, write http://; what passes is TLS to the relay either way"
    )]
    TlsProxy,
    /// The older SOCKS.
    #[error("SOCKS4 is not supported: if the proxy speaks SOCKS5 as well, write socks5://")]
    Socks4,
    /// No host, or one that is none.
    #[error(
        "the proxy's URL names no valid host (in user name and password, '/', '@', ':' and '#' are written %2F, %40, %3A, %23)"
    )]
    Host,
    /// The port is not a number from 1 to 65535.
    #[error(
        "the proxy's port must be from 1 to 65535 (in user name and password, '/', '@', ':' and '#' are written %2F, %40, %3A, %23)"
    )]
    Port,
    /// Something behind the host: a path, a query, a fragment.
    #[error(
        "a proxy's URL ends with its port (in user name and password, '/', '?' and '#' are written %2F, %3F, %23)"
    )]
    Path,
    /// A user name or password that the protocol cannot carry.
    #[error(
        "the proxy's user name or password cannot be sent: HTTP takes no colon in a user name, SOCKS5 takes 1 to 255 bytes of each, both take UTF-8"
    )]
    Credentials,
}

impl ProxyUrl {
    /// Name or address; IPv6 without brackets.
    pub fn host(&self) -> String {
        match &self.host {
            Host::Domain(name) => name.clone(),
            Host::Ipv4(ip) => ip.to_string(),
            Host::Ipv6(ip) => ip.to_string(),
        }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// Without user name and password.
impl fmt::Display for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Socks5 => "socks5",
        };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ProxyUrl {
    type Err = ProxyUrlError;
    fn from_str(text: &str) -> Result<Self, ProxyUrlError> {
        let text = text.trim();
        let whole = if text.contains("://") {
            Zeroizing::new(text.to_owned())
        } else {
            // `proxy:3128` is how many write it, and what curl reads as HTTP.
            Zeroizing::new(format!("http://{text}"))
        };
        let url = Url::parse(&whole).map_err(|error| match error {
            url::ParseError::InvalidPort => ProxyUrlError::Port,
            url::ParseError::RelativeUrlWithoutBase => ProxyUrlError::Scheme,
            _ => ProxyUrlError::Host,
        })?;
        let (scheme, default_port) = match url.scheme() {
            "http" => (Scheme::Http, 80),
            "socks5" | "socks5h" => (Scheme::Socks5, SOCKS_PORT),
            "https" => return Err(ProxyUrlError::TlsProxy),
            "socks4" | "socks4a" => return Err(ProxyUrlError::Socks4),
            _ => return Err(ProxyUrlError::Scheme),
        };
        let host = url.host().ok_or(ProxyUrlError::Host)?.to_owned();
        if matches!(&host, Host::Domain(name) if name.is_empty()) {
            return Err(ProxyUrlError::Host);
        }
        let port = url.port().unwrap_or(default_port);
        if port == 0 {
            return Err(ProxyUrlError::Port);
        }
        let bare = matches!(url.path(), "" | "/");
        if !bare || url.query().is_some() || url.fragment().is_some() {
            return Err(ProxyUrlError::Path);
        }
        let credentials = Credentials::of(&url)?;
        if let Some(credentials) = &credentials
            && !credentials.fit(scheme)
        {
            return Err(ProxyUrlError::Credentials);
        }
        Ok(Self {
            scheme,
            host,
            port,
            credentials,
        })
    }
}

impl Credentials {
    fn of(url: &Url) -> Result<Option<Self>, ProxyUrlError> {
        if url.username().is_empty() && url.password().is_none() {
            return Ok(None);
        }
        let decoded = |text| {
            let bytes = percent_decode_str(text).decode_utf8();
            bytes.map_err(|_| ProxyUrlError::Credentials)
        };
        Ok(Some(Self {
            user: decoded(url.username())?.into_owned(),
            password: Zeroizing::new(decoded(url.password().unwrap_or(""))?.into_owned()),
        }))
    }

    fn fit(&self, scheme: Scheme) -> bool {
        match scheme {
            // RFC 7617 section 2.
            Scheme::Http => !self.user.contains(':'),
            Scheme::Socks5 => {
                SOCKS_FIELD.contains(&self.user.len()) && SOCKS_FIELD.contains(&self.password.len())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<ProxyUrl, ProxyUrlError> {
        text.parse()
    }

    #[test]
    fn what_people_write_is_read() {
        for (text, shown) in [
            ("http://proxy.corp:3128", "http://proxy.corp:3128"),
            ("HTTP://Proxy.Corp:3128/", "http://proxy.corp:3128"),
            ("proxy:3128", "http://proxy:3128"),
            (" proxy ", "http://proxy:80"),
            ("http://192.0.2.1:8080", "http://192.0.2.1:8080"),
            ("socks5://[2001:db8::1]:1081", "socks5://[2001:db8::1]:1081"),
            ("socks5h://localhost", "socks5://localhost:1080"),
        ] {
            assert_eq!(parsed(text).unwrap().to_string(), shown, "{text}");
        }
        assert_eq!(parsed("socks5://[::1]").unwrap().host(), "::1");
    }

    #[test]
    fn user_and_password_are_decoded_and_shown_to_nobody() {
        let proxy = parsed("http://m%40e:s3cr%3At%2F@proxy:3128").unwrap();
        let credentials = proxy.credentials.as_ref().unwrap();
        assert_eq!(credentials.user, "m@e");
        assert_eq!(credentials.password.as_str(), "s3cr:t/");
        for shown in [
            format!("{proxy}"),
            format!("{proxy:?}"),
            format!("{proxy:#?}"),
        ] {
            assert_eq!(shown, "http://proxy:3128");
        }
        let alone = parsed("http://me@proxy").unwrap().credentials.unwrap();
        assert_eq!((alone.user.as_str(), alone.password.as_str()), ("me", ""));
        assert!(parsed("http://proxy").unwrap().credentials.is_none());
    }

    #[test]
    fn what_is_no_proxy_is_refused_without_repeating_it() {
        let long = format!("socks5://{}:pw@proxy", "u".repeat(256));
        for (text, error) in [
            ("https://me:hunter2@proxy", ProxyUrlError::TlsProxy),
            ("socks4://me:hunter2@proxy", ProxyUrlError::Socks4),
            ("ftp://me:hunter2@proxy", ProxyUrlError::Scheme),
            ("", ProxyUrlError::Host),
            ("http://", ProxyUrlError::Host),
            ("socks5://:1080", ProxyUrlError::Host),
            ("http://me:hunter2@", ProxyUrlError::Host),
            ("http://me:hunter2@pro xy", ProxyUrlError::Host),
            ("http://proxy:0", ProxyUrlError::Port),
            ("http://proxy:65536", ProxyUrlError::Port),
            ("http://me:hunter/2@proxy", ProxyUrlError::Port),
            ("http://proxy/path", ProxyUrlError::Path),
            ("http://proxy?hunter2", ProxyUrlError::Path),
            ("http://proxy#hunter2", ProxyUrlError::Path),
            ("http://a%3Ab:hunter2@proxy", ProxyUrlError::Credentials),
            ("http://%ff:hunter2@proxy", ProxyUrlError::Credentials),
            ("socks5://me@proxy", ProxyUrlError::Credentials),
            (long.as_str(), ProxyUrlError::Credentials),
        ] {
            assert_eq!(parsed(text), Err(error), "{text}");
            let told = format!("{error} {error:?}");
            assert!(!told.contains("hunter"), "{told}");
        }
    }
}
