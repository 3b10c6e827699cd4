//! A relay's URL: `https://host:port#PIN`.

use std::str::FromStr;

/// The SHA-256 of a relay certificate's SubjectPublicKeyInfo; shown as 52 characters of base32.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Pin(pub [u8; 32]);

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
        let _ = (host, port, pin);
        unimplemented!()
    }
    /// Name or address; IPv6 without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }
    /// 443 when the text names none.
    pub fn port(&self) -> u16 {
        self.port
    }
    /// The pin, if any.
    pub fn pin(&self) -> Option<Pin> {
        self.pin
    }
}
impl std::fmt::Display for RelayUrl {
    fn fmt(&self, _f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        unimplemented!()
    }
}
impl std::fmt::Debug for RelayUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}
impl FromStr for RelayUrl {
    type Err = RelayUrlError;
    fn from_str(_s: &str) -> Result<Self, RelayUrlError> {
        unimplemented!()
    }
}
