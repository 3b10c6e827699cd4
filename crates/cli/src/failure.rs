//! Errors of commands: an exit code, and what a person needs to act.

use std::fmt::Display;
use std::process::ExitCode;

use byway::endpoint::{BindError, ConnectError};
use byway::keyfile::KeyFileError;
use byway::tunnel::{StreamError, TunnelClosed};
use byway::{Refusal, RelayMapError};

use crate::note;
use crate::output;

/// Exit codes, which scripts rely on (0 is success).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Code {
    /// It failed for a reason that no other code names.
    Failed = 1,
    /// The command line, or something it names, is not usable.
    Usage = 2,
    /// The peer was not found, or is not connected to its relays.
    Offline = 3,
    /// The agent or the relay does not allow it.
    NotAllowed = 4,
    /// No relay, or no path to the peer, could be found from here.
    NoPath = 5,
    /// Ended by SIGHUP, SIGINT or SIGTERM before it was done; as a shell shows them.
    HungUp = 129,
    /// As above.
    Interrupted = 130,
    /// As above.
    Terminated = 143,
}

/// Why a command ends without success.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    what: String,
    why: Option<String>,
    hint: Option<String>,
}

impl Failure {
    /// `what` completes "byway: ...".
    pub(crate) fn new(code: Code, what: impl Into<String>) -> Self {
        Self {
            code,
            what: what.into(),
            why: None,
            hint: None,
        }
    }

    /// The cause.
    pub(crate) fn why(mut self, why: impl Display) -> Self {
        self.why = Some(why.to_string());
        self
    }

    /// What to try.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Prints it and gives its exit code.
    pub(crate) fn report(&self) -> ExitCode {
        let style = output::stderr();
        match &self.why {
            Some(why) => note!("{} {}: {why}", style.red("byway:"), self.what),
            None => note!("{} {}", style.red("byway:"), self.what),
        }
        if let Some(hint) = &self.hint {
            note!("{} {hint}", style.dim("  try:"));
        }
        ExitCode::from(self.code as u8)
    }

    /// In one line, for logs that go on afterwards.
    pub(crate) fn summary(&self) -> String {
        match &self.why {
            Some(why) => format!("{}: {why}", self.what),
            None => self.what.clone(),
        }
    }

    /// A tunnel that could not be opened.
    pub(crate) fn connect(peer: &str, error: &ConnectError) -> Self {
        let failure = |code| Self::new(code, format!("cannot reach {peer}")).why(error);
        match error {
            ConnectError::NoRelay => failure(Code::Usage)
                .hint("ask for a new ticket: an agent writes one once it is linked to a relay"),
            ConnectError::RelayUnreachable(_) => failure(Code::NoPath).hint(
                "is the relay up, and does this network let UDP or TCP through to it? `byway netcheck --relay URL` looks closer",
            ),
            ConnectError::Certificate(_) => failure(Code::NoPath).hint(
                "a pin stands behind # in the relay's URL and must be the one the relay printed; without one its certificate must be valid for its name. If the relay has a new key, the agent needs its new URL, and clients a new ticket",
            ),
            ConnectError::Proxy(_) => failure(Code::NoPath).hint(
                "the proxy is --proxy (BYWAY_PROXY), else HTTPS_PROXY or ALL_PROXY: correct it, name the relay's host in NO_PROXY, or go without by --proxy none",
            ),
            ConnectError::Offline(_) => failure(Code::Offline)
                .hint("start the agent (byway agent), or wait until its machine is back"),
            ConnectError::NotAdmitted(_) => failure(Code::NotAllowed).hint(
                "the relay's operator makes a token out to this node's id (`byway id`; an agent's: `byway id --agent`)",
            ),
            ConnectError::NotAllowed(_) => failure(Code::NotAllowed).hint(
                "ask for a new ticket, or to be let in by key: byway agent --allow-node ID (byway alias list shows yours)",
            ),
            ConnectError::Busy(_) => failure(Code::NoPath).hint(
                "wait half a minute and try again: links of processes that were killed count until then",
            ),
            ConnectError::TimedOut(_) => failure(Code::NoPath)
                .hint("the relay says the agent is there; try again, or with --link tls"),
            _ => failure(Code::Failed).hint("run it again with -v to see more"),
        }
    }

    /// An endpoint that could not start.
    pub(crate) fn bind(error: &BindError) -> Self {
        match error {
            BindError::RelayMap(error) => Self::relay_map(error),
            _ => Self::new(Code::Failed, "cannot start").why(error),
        }
    }

    /// A relay map that is of no use; its message holds the remedy.
    pub(crate) fn relay_map(error: &RelayMapError) -> Self {
        Self::new(Code::Usage, "cannot use the relay map").why(error)
    }

    /// A key file that cannot be used; its message holds the remedy.
    pub(crate) fn key_file(error: &KeyFileError) -> Self {
        let failure = Self::new(Code::Failed, "cannot use the key").why(error);
        match error {
            KeyFileError::Content(path) => failure.hint(format!(
                "move {} away to have a new key made, or name another with --key",
                path.display()
            )),
            KeyFileError::Permissions { path, .. } => failure.hint(format!(
                "chmod 600 {}; if others may have read it, remove it to have a new key made",
                path.display()
            )),
            _ => failure,
        }
    }

    /// A target that is not to be had, or a stream that failed.
    pub(crate) fn stream(peer: &str, target: &impl Display, error: &StreamError) -> Self {
        match error {
            StreamError::Refused(refused) => {
                let code = match refused.reason {
                    Refusal::Denied => Code::NotAllowed,
                    _ => Code::Failed,
                };
                let failure =
                    Self::new(code, format!("{peer} gives no connection to {target}")).why(refused);
                match refused.reason {
                    Refusal::Refused => failure.hint("is the program started at the agent's side?"),
                    Refusal::Denied => failure.hint(format!(
                        "if you run the agent: add --allow {target} (with any --allow, loopback ports must be named too)"
                    )),
                    Refusal::Unsupported => failure.hint("upgrade the agent"),
                    _ => failure,
                }
            }
            StreamError::Closed(closed) => Self::closed(peer, closed),
            other => Self::new(Code::Failed, format!("the tunnel to {peer} failed")).why(other),
        }
    }

    /// A tunnel that ended by itself.
    pub(crate) fn closed(peer: &str, closed: &TunnelClosed) -> Self {
        let failure = |code| Self::new(code, format!("the tunnel to {peer} ended")).why(closed);
        match closed {
            TunnelClosed::NotAllowed => failure(Code::NotAllowed).hint("ask for a new ticket"),
            TunnelClosed::Done
            | TunnelClosed::Shutdown
            | TunnelClosed::Reset
            | TunnelClosed::Replaced => {
                failure(Code::Offline).hint("the agent may have been restarted: run it again")
            }
            TunnelClosed::TimedOut => failure(Code::NoPath).hint("is this machine still online?"),
            _ => failure(Code::Failed).hint("run it again with -v to see more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_not_to_reach_a_peer_has_its_exit_code() {
        let code = |error| Failure::connect("work", &error).code;
        assert_eq!(code(ConnectError::NoRelay), Code::Usage);
        assert_eq!(code(ConnectError::Offline("x".into())), Code::Offline);
        assert_eq!(code(ConnectError::NotAllowed("x".into())), Code::NotAllowed);
        assert_eq!(
            code(ConnectError::RelayUnreachable("x".into())),
            Code::NoPath
        );
        assert_eq!(
            code(ConnectError::TimedOut(std::time::Duration::from_secs(1))),
            Code::NoPath
        );
        assert_eq!(code(ConnectError::Proxy("x".into())), Code::NoPath);
        assert_eq!(code(ConnectError::Busy("x".into())), Code::NoPath);
        assert_eq!(code(ConnectError::Handshake("x".into())), Code::Failed);
    }

    #[test]
    fn a_wrong_pin_is_named_in_the_hint() {
        let failure = Failure::connect(
            "work",
            &ConnectError::Certificate(
                "https://r: the relay's certificate is not the expected one".into(),
            ),
        );
        assert_eq!(failure.code, Code::NoPath);
        assert!(failure.hint.is_some_and(|hint| hint.contains("pin")));
        // Not by the letters of a name.
        let other = ConnectError::RelayUnreachable("https://spinner.test: no answer".into());
        let hint = Failure::connect("work", &other).hint;
        assert!(hint.is_some_and(|hint| !hint.contains("pin")));
    }

    #[test]
    fn a_denied_target_is_not_allowed_and_a_refused_one_just_failed() {
        let refused = |reason| {
            let error = StreamError::Refused(byway::Refused {
                reason,
                detail: "d".into(),
            });
            Failure::stream("work", &"localhost:1", &error).code
        };
        assert_eq!(refused(Refusal::Denied), Code::NotAllowed);
        assert_eq!(refused(Refusal::Refused), Code::Failed);
        assert_eq!(refused(Refusal::TimedOut), Code::Failed);
    }

    #[test]
    fn how_a_tunnel_ended_decides_the_exit_code() {
        let code = |closed| Failure::closed("work", &closed).code;
        assert_eq!(code(TunnelClosed::NotAllowed), Code::NotAllowed);
        assert_eq!(code(TunnelClosed::Reset), Code::Offline);
        assert_eq!(code(TunnelClosed::TimedOut), Code::NoPath);
        assert_eq!(code(TunnelClosed::Protocol("x".into())), Code::Failed);
    }
}
