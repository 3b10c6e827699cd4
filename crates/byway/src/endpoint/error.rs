//! Why things fail, in words a person can act on.

use std::net::SocketAddr;
use std::time::Duration;

use byway_core::io::{LinkError, PeerError};
use byway_wire::Ticket;
use byway_wire::relay::control::{CloseReason, RefuseReason};

use super::LinkStatus;
use crate::relay_map::RelayMapError;
use crate::tunnel::TunnelClosed;

/// Why an endpoint could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// A socket could not be opened.
    #[error("cannot open a UDP socket on {addr}: {source}")]
    Socket {
        /// Where.
        addr: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The system gave no randomness.
    #[error("the system gives no randomness: {0}")]
    Random(String),
    /// A setting is out of its range.
    #[error("{0}")]
    Setting(String),
    /// The file of the relay map is of no use.
    #[error(transparent)]
    RelayMap(#[from] RelayMapError),
}

/// Why a tunnel could not be opened.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The ticket names no relay.
    #[error("the ticket names no relay, so there is no way to reach the agent")]
    NoRelay,
    /// No relay could be reached. Each with the reason.
    #[error("no relay could be reached: {0}")]
    RelayUnreachable(String),
    /// As above, and one shows another certificate than its URL (pinned or not) lets expect.
    #[error("no relay could be reached: {0}")]
    Certificate(String),
    /// As above, and the proxy before one of them did not let the link through.
    #[error("no relay could be reached: {0}")]
    Proxy(String),
    /// The agent is not connected to any of its relays.
    #[error("the agent is offline: it is not connected to {0}")]
    Offline(String),
    /// A relay does not admit this node: it asks for a token, or for another one.
    #[error("not allowed: {0}")]
    NotAdmitted(String),
    /// The agent or the relay refuses us.
    #[error("not allowed: {0}")]
    NotAllowed(String),
    /// The agent or the relay takes no more of us for the moment.
    #[error("refused for now: {0}")]
    Busy(String),
    /// The agent did not answer in time.
    #[error("the agent did not answer within {:.1} s", .0.as_secs_f64())]
    TimedOut(Duration),
    /// The TLS or QUIC handshake failed.
    #[error("the tunnel's handshake failed: {0}")]
    Handshake(String),
    /// The endpoint is closed.
    #[error("this endpoint is closed")]
    Closed,
}

impl ConnectError {
    /// The node gave the peer up before the tunnel stood.
    pub(super) fn from_peer(error: PeerError, ticket: &Ticket, waited: Duration) -> Self {
        match error {
            PeerError::NoRelay(failed) => {
                let refused = failed.iter().find_map(|(url, error)| match error {
                    // What is in the way of a carrier says nothing of who is let in.
                    LinkError::Refused(reason, detail) if !error.is_in_the_way() => Some((
                        *reason,
                        format!(
                            "the relay {url} refuses this node: {}",
                            refusal(*reason, detail)
                        ),
                    )),
                    _ => None,
                });
                match refused {
                    Some((
                        RefuseReason::Limit | RefuseReason::Shutdown | RefuseReason::NotReady,
                        text,
                    )) => Self::Busy(text),
                    Some((RefuseReason::NotAdmitted, text)) => Self::NotAdmitted(text),
                    Some((_, text)) => Self::NotAllowed(text),
                    None => {
                        let text: Vec<String> = failed
                            .iter()
                            .map(|(url, error)| format!("{url}: {error}"))
                            .collect();
                        let text = text.join("; ");
                        let other = |error: &LinkError| matches!(error, LinkError::Certificate(_));
                        let proxy = |error: &LinkError| matches!(error, LinkError::Proxy(_));
                        if failed.iter().any(|(_, error)| other(error)) {
                            Self::Certificate(text)
                        } else if failed.iter().any(|(_, error)| proxy(error)) {
                            Self::Proxy(text)
                        } else {
                            Self::RelayUnreachable(text)
                        }
                    }
                }
            }
            PeerError::Offline => {
                let relays: Vec<String> = ticket
                    .relays
                    .iter()
                    .map(|relay| relay.url.to_string())
                    .collect();
                Self::Offline(relays.join(" or "))
            }
            PeerError::NotAllowed(reason @ CloseReason::Limit) => {
                Self::Busy(closing(reason).to_owned())
            }
            PeerError::NotAllowed(reason) => Self::NotAllowed(closing(reason).to_owned()),
            PeerError::TimedOut => Self::TimedOut(waited),
            PeerError::Restarted => {
                Self::Handshake("the agent restarted meanwhile; try again".to_owned())
            }
            other => Self::Handshake(other.to_string()),
        }
    }

    /// The connection ended before the tunnel stood.
    pub(super) fn from_connection(error: &quinn::ConnectionError, waited: Duration) -> Self {
        match TunnelClosed::from_connection(error) {
            TunnelClosed::NotAllowed => {
                Self::NotAllowed("the agent does not allow this client".to_owned())
            }
            TunnelClosed::TimedOut => Self::TimedOut(waited),
            TunnelClosed::Local => Self::Closed,
            other => Self::Handshake(other.to_string()),
        }
    }

    /// No link came up.
    pub(super) fn from_links(links: &[LinkStatus], waited: Duration) -> Self {
        if links.is_empty() {
            return Self::RelayUnreachable("no relay is configured".to_owned());
        }
        let text: Vec<String> = links
            .iter()
            .map(|link| match &link.error {
                Some(error) => format!("{}: {error}", link.relay),
                None => format!("{}: no answer within {waited:?}", link.relay),
            })
            .collect();
        let text = text.join("; ");
        if links.iter().any(|link| link.not_admitted) {
            Self::NotAdmitted(text)
        } else if links.iter().any(|link| link.certificate_refused) {
            Self::Certificate(text)
        } else if links.iter().any(|link| link.proxy_failed) {
            Self::Proxy(text)
        } else {
            Self::RelayUnreachable(text)
        }
    }
}

fn closing(reason: CloseReason) -> &'static str {
    match reason {
        CloseReason::NotAllowed => {
            "the agent does not know this client's key and the ticket's secret is not its own (was the ticket withdrawn?)"
        }
        CloseReason::SelfOpen => "the ticket is of this very node",
        CloseReason::Limit => "too many attempts to open a tunnel at once; try again in a moment",
        CloseReason::ChannelInUse
        | CloseReason::Done
        | CloseReason::Offline
        | CloseReason::PeerGone
        | CloseReason::NoSuchChannel => "the relay closed the channel",
        _ => "the relay refuses, for a reason this version does not know",
    }
}

fn refusal(reason: RefuseReason, detail: &str) -> String {
    if detail.is_empty() {
        reason.to_string()
    } else {
        // Text from the relay: not to be trusted with a terminal.
        format!("{reason} ({})", byway_wire::text::printable(detail))
    }
}

#[cfg(test)]
mod tests {
    use byway_core::io::{ProxyError, ProxyFault};
    use byway_wire::{RelayUrl, SecretKey};

    use super::*;

    fn ticket() -> Ticket {
        Ticket {
            node: SecretKey::from_bytes(&[1; 32]).node_id(),
            relays: vec![byway_wire::ticket::TicketRelay {
                url: url(),
                addrs: Vec::new(),
            }],
            secret: None,
            name: None,
        }
    }
    fn url() -> RelayUrl {
        RelayUrl::new("relay.test", 443, None).unwrap()
    }

    #[test]
    fn errors_name_the_relay_and_the_reason() {
        let text =
            |error| ConnectError::from_peer(error, &ticket(), Duration::from_secs(1)).to_string();
        assert!(text(PeerError::Offline).contains("https://relay.test"));
        let unreachable = PeerError::NoRelay(vec![(url(), LinkError::TimedOut)]);
        let unreachable = text(unreachable);
        assert!(unreachable.contains("relay.test") && unreachable.contains("no answer"));
        let refused = PeerError::NoRelay(vec![(
            url(),
            LinkError::Refused(RefuseReason::NotAdmitted, "no \x1b token".to_owned()),
        )]);
        let other = PeerError::NoRelay(vec![(url(), LinkError::Certificate("x".into()))]);
        let other = ConnectError::from_peer(other, &ticket(), Duration::ZERO);
        assert!(matches!(other, ConnectError::Certificate(_)));
        let fault = ProxyFault::AuthRequired;
        let proxy = "http://proxy.test:3128".to_owned();
        let error = LinkError::from(ProxyError { proxy, fault });
        let error = PeerError::NoRelay(vec![(url(), error)]);
        let error = ConnectError::from_peer(error, &ticket(), Duration::ZERO);
        let text_of_it = error.to_string();
        assert!(matches!(error, ConnectError::Proxy(_)));
        assert!(text_of_it.contains("relay.test") && text_of_it.contains("proxy.test:3128"));
        let refused = text(refused);
        assert!(
            refused.contains("token") && !refused.contains('\x1b'),
            "{refused}"
        );
        let waited = Duration::from_micros(5_000_123);
        let late = ConnectError::from_peer(PeerError::TimedOut, &ticket(), waited);
        assert!(late.to_string().ends_with("within 5.0 s"), "{late}");
        assert!(text(PeerError::NotAllowed(CloseReason::NotAllowed)).contains("ticket"));
    }

    #[test]
    fn who_is_refused_for_what_is_on_the_way_has_no_path_here() {
        let ended = LinkError::Refused(RefuseReason::Identity, "TLS ends before".to_owned());
        let error = PeerError::NoRelay(vec![(url(), ended)]);
        let error = ConnectError::from_peer(error, &ticket(), Duration::ZERO);
        assert!(matches!(error, ConnectError::RelayUnreachable(_)));
        assert!(error.to_string().contains("TLS ends before"), "{error}");
    }

    #[test]
    fn a_limit_is_for_now_and_no_refusal_for_good() {
        let limit = LinkError::Refused(RefuseReason::Limit, String::new());
        for error in [
            PeerError::NoRelay(vec![(url(), limit)]),
            PeerError::NotAllowed(CloseReason::Limit),
        ] {
            let error = ConnectError::from_peer(error, &ticket(), Duration::ZERO);
            assert!(matches!(error, ConnectError::Busy(_)), "{error}");
        }
    }
}
