//! A relay's URL: `https://host:port#PIN`.

use std::str::FromStr;

use crate::text;

/// A relay's first port, TCP and UDP, and that of a URL which names none: the one that firewalls let through.
pub const HTTPS_PORT: u16 = 443;
/// A relay's second port beside [`HTTPS_PORT`] (design section 7): STUN's (RFC 8489 section 14), for networks that block UDP
/// on 443 alone.
pub const STUN_PORT: u16 = 3_478;

/// The SHA-256 of a relay certificate's SubjectPublicKeyInfo; shown as 52 characters of base32.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Pin(pub [u8; 32]);

impl std::fmt::Display for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&text::base32(&self.0))
    }
}
impl FromStr for Pin {
    type Err = RelayUrlError;
    fn from_str(s: &str) -> Result<Self, RelayUrlError> {
        text::key_from_base32(s).map(Self).ok_or(RelayUrlError::Pin)
    }
}

/// Where a relay is, and how its certificate is known: by the pin if there is one, else by WebPKI.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelayUrl {
    host: String,
    port: u16,
    pin: Option<Pin>,
}

/// Why a text is not a relay's URL.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RelayUrlError {
    /// Only `https://`.
    #[error("a relay's URL begins with https://")]
    Scheme,
    /// No host, or one that is none.
    #[error("the relay's URL names no valid host")]
    Host,
    /// The port is not a number from 1 to 65535.
    #[error("the relay's port must be from 1 to 65535")]
    Port,
    /// Something behind the host: a path, a query.
    #[error("a relay's URL has no path and no query")]
    Path,
    /// The pin is not 52 characters of base32.
    #[error("the pin after # must be 52 characters of base32")]
    Pin,
}

impl RelayUrl {
    /// Puts a URL together; the host is a name or an address (IPv6 without brackets).
    pub fn new(host: &str, port: u16, pin: Option<Pin>) -> Result<Self, RelayUrlError> {
        if port == 0 {
            return Err(RelayUrlError::Port);
        }
        let host = text::parse_host(host).ok_or(RelayUrlError::Host)?;
        Ok(Self { host, port, pin })
    }
    /// Name or address; IPv6 without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }
    /// 443 when the text names none.
    pub fn port(&self) -> u16 {
        self.port
    }
    /// `host:port`, with brackets round an IPv6 address.
    pub fn authority(&self) -> String {
        let mut out = String::new();
        // Writing into a string does not fail.
        let _ = text::write_authority(&mut out, &self.host, self.port);
        out
    }
    /// The pin, if any.
    pub fn pin(&self) -> Option<Pin> {
        self.pin
    }
}
/// Always with the port, so that a text can be pasted where one is wanted.
impl std::fmt::Display for RelayUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("https://")?;
        text::write_authority(f, &self.host, self.port)?;
        match &self.pin {
            Some(pin) => write!(f, "#{pin}"),
            None => Ok(()),
        }
    }
}
impl std::fmt::Debug for RelayUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}
impl FromStr for RelayUrl {
    type Err = RelayUrlError;
    fn from_str(s: &str) -> Result<Self, RelayUrlError> {
        let rest = match s.split_at_checked("https://".len()) {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https://") => rest,
            _ => return Err(RelayUrlError::Scheme),
        };
        let (rest, pin) = match rest.split_once('#') {
            Some((rest, pin)) => (rest, Some(pin.parse()?)),
            None => (rest, None),
        };
        // A lone slash is what a browser's address bar adds.
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?']) {
            return Err(RelayUrlError::Path);
        }
        let (host, port) = text::split_authority(authority).ok_or(RelayUrlError::Host)?;
        let port = match port {
            Some(port) => text::parse_port(port).ok_or(RelayUrlError::Port)?,
            None => HTTPS_PORT,
        };
        Self::new(host, port, pin)
    }
}
