//! What can go wrong with a proxy between a node and its relays.

use std::fmt;

use byway_wire::text::printable;

/// A proxy did not let a link through to its relay.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the proxy {proxy} {fault}")]
pub struct ProxyError {
    /// Which one: its URL without user name and password, or the variable that should have named one.
    pub proxy: String,
    /// What it did.
    pub fault: ProxyFault,
}

/// What a proxy did instead of connecting to the relay. The texts in it may be the proxy's own, and are shown escaped.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ProxyFault {
    /// The setting that should name it names none that can be used; why.
    Unusable(String),
    /// Its name has no address; what the resolver said.
    Resolve(String),
    /// It takes no TCP connection; what the system said.
    Connect(String),
    /// It did not answer; after how many seconds it was given up.
    TimedOut(u64),
    /// It wants to know who asks, and its URL does not say.
    AuthRequired,
    /// It does not accept the user name and password of its URL.
    AuthRefused,
    /// It asks for another way to say who asks than a user name and password; which.
    AuthUnsupported(String),
    /// It does not allow connections to the relay; its answer.
    Forbidden(String),
    /// It is willing, but cannot reach the relay; its answer.
    RelayUnreachable(String),
    /// The connection ended in the middle; what the system said.
    Broken(String),
    /// It does not speak as a proxy of its kind does; what was wrong.
    Protocol(String),
}

impl ProxyFault {
    /// True if another attempt will not help before somebody has changed a setting. Wrong passwords are among these: a
    /// directory behind the proxy may lock the account of who tries them again and again.
    pub fn is_lasting(&self) -> bool {
        matches!(
            self,
            Self::Unusable(_)
                | Self::AuthRequired
                | Self::AuthRefused
                | Self::AuthUnsupported(_)
                | Self::Forbidden(_)
        )
    }
}

/// Completes "the proxy http://proxy:3128 ..."; what to do stands behind the colon.
impl fmt::Display for ProxyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unusable(why) => write!(f, "cannot be used: {}", printable(why)),
            Self::Resolve(why) => write!(
                f,
                "has a name that does not resolve ({}): is it spelled right?",
                printable(why)
            ),
            Self::Connect(why) => write!(
                f,
                "takes no connection ({}): is it up, and is this its port?",
                printable(why)
            ),
            Self::TimedOut(seconds) => write!(
                f,
                "did not answer within {seconds} s: it, or the relay behind it, is silent"
            ),
            Self::AuthRequired => f.write_str(
                "asks for a user name and password: write them into its URL, as USER:PASSWORD@ before the host",
            ),
            Self::AuthRefused => {
                f.write_str("does not accept the user name and password: correct them in its URL")
            }
            Self::AuthUnsupported(what) => write!(
                f,
                "asks for {}: Byway can give it a user name and password only (Basic)",
                printable(what)
            ),
            Self::Forbidden(answer) => write!(
                f,
                "does not allow connections to the relay ({}): whoever runs it can allow the relay's host and port",
                printable(answer)
            ),
            Self::RelayUnreachable(answer) => write!(
                f,
                "cannot reach the relay ({}): is the relay up, and does the proxy know its name?",
                printable(answer)
            ),
            Self::Broken(why) => write!(f, "broke the connection: {}", printable(why)),
            Self::Protocol(what) => write!(
                f,
                "does not speak as a proxy does ({}): is it one, and of the kind its URL says?",
                printable(what)
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_proxy_writes_cannot_steer_a_terminal() {
        let text = || "a\u{1b}]0;owned\u{7}b\nc".to_owned();
        for fault in [
            ProxyFault::Unusable(text()),
            ProxyFault::Resolve(text()),
            ProxyFault::Connect(text()),
            ProxyFault::AuthUnsupported(text()),
            ProxyFault::Forbidden(text()),
            ProxyFault::RelayUnreachable(text()),
            ProxyFault::Broken(text()),
            ProxyFault::Protocol(text()),
        ] {
            let shown = fault.to_string();
            assert!(!shown.chars().any(char::is_control), "{shown:?}");
        }
    }

    #[test]
    fn only_what_a_person_must_change_is_lasting() {
        assert!(ProxyFault::AuthRefused.is_lasting());
        assert!(ProxyFault::Forbidden("403".into()).is_lasting());
        assert!(!ProxyFault::RelayUnreachable("503".into()).is_lasting());
        assert!(!ProxyFault::TimedOut(7).is_lasting());
        assert!(!ProxyFault::Connect("refused".into()).is_lasting());
    }
}
