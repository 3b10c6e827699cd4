//! What a tunnel says of itself: its path, its counters, its end.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use byway_core::io::{Health, PathKind, RouteReason};
use byway_wire::RelayUrl;
use byway_wire::tunnel::{CloseCode, Refused};
use quinn::{ConnectionError, VarInt};

/// The path a tunnel uses now.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct PathInfo {
    /// Direct, or through which kind of link.
    pub kind: PathKind,
    /// The peer's address (direct) or the relay's; none for a relay behind a proxy, which alone knows it.
    pub remote: Option<SocketAddr>,
    /// The relay, when relayed.
    pub relay: Option<RelayUrl>,
    /// Why data came to it from the path before.
    pub reason: RouteReason,
    /// Since when.
    pub since: Instant,
    /// Whether the other side is heard.
    pub health: Health,
    /// If the path before it stopped answering: how long no answer came.
    pub stall: Option<Duration>,
}

/// Counters of a tunnel.
#[derive(Clone, PartialEq, Debug, Default)]
#[non_exhaustive]
pub struct TunnelStats {
    /// Smoothed round-trip time.
    pub rtt: Duration,
    /// UDP bytes sent, all paths.
    pub sent_bytes: u64,
    /// UDP bytes received, all paths.
    pub received_bytes: u64,
    /// Packets declared lost.
    pub lost_packets: u64,
    /// Largest UDP payload in use.
    pub mtu: u16,
    /// How often the path changed.
    pub switches: u64,
    /// Longest time an answer was awaited before a failover, if there was one.
    pub longest_stall: Option<Duration>,
    /// Bytes sent by kind of path: direct, UDP link, TLS link.
    pub sent_by_kind: [u64; 3],
}

/// Why a stream to a target could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The agent refused, and says why.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The tunnel ended.
    #[error("the tunnel ended: {0}")]
    Closed(TunnelClosed),
    /// A datagram is longer than the tunnel carries now.
    #[error("the datagram is longer than the {max} bytes the tunnel carries now")]
    DatagramTooLong {
        /// The longest it carries.
        max: usize,
    },
    /// The agent does not keep to the protocol.
    #[error("the agent does not keep to the protocol: {0}")]
    Protocol(String),
}

/// Why a tunnel ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TunnelClosed {
    /// This side closed it.
    #[error("closed by this side")]
    Local,
    /// The other side closed it.
    #[error("closed by the other side")]
    Done,
    /// The agent does not allow this client.
    #[error("the agent does not allow this client")]
    NotAllowed,
    /// The other side shut down.
    #[error("the other side shut down")]
    Shutdown,
    /// The other side restarted: this tunnel's other end is gone.
    #[error("the other side restarted")]
    Reset,
    /// A newer process with the agent's key took over.
    #[error("a newer instance of the agent took over")]
    Replaced,
    /// Nothing was heard for longer than the idle timeout.
    #[error("nothing was heard for too long")]
    TimedOut,
    /// The other side does not keep to the protocol, or the transport failed.
    #[error("{0}")]
    Protocol(String),
}

/// A close code as QUIC carries it.
pub(crate) fn close_code(code: CloseCode) -> VarInt {
    VarInt::from_u32(code as u32)
}

impl TunnelClosed {
    /// What a QUIC connection's end means for the tunnel on it.
    pub(crate) fn from_connection(error: &ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(close) => {
                let code = close.error_code;
                let is = |known: CloseCode| code == close_code(known);
                if is(CloseCode::Done) {
                    Self::Done
                } else if is(CloseCode::NotAllowed) {
                    Self::NotAllowed
                } else if is(CloseCode::Shutdown) {
                    Self::Shutdown
                } else if is(CloseCode::Replaced) {
                    Self::Replaced
                } else {
                    // Text from the other side: bounded by QUIC's packet size, shown with its control characters escaped.
                    let reason = String::from_utf8_lossy(&close.reason);
                    Self::Protocol(format!(
                        "closed by the other side with code {code}: {}",
                        reason.escape_debug()
                    ))
                }
            }
            ConnectionError::LocallyClosed => Self::Local,
            ConnectionError::Reset => Self::Reset,
            ConnectionError::TimedOut => Self::TimedOut,
            other => Self::Protocol(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed_with(code: u32, reason: &'static [u8]) -> TunnelClosed {
        TunnelClosed::from_connection(&ConnectionError::ApplicationClosed(
            quinn::ApplicationClose {
                error_code: VarInt::from_u32(code),
                reason: bytes::Bytes::from_static(reason),
            },
        ))
    }

    #[test]
    fn each_close_code_has_its_meaning() {
        assert_eq!(closed_with(0, b""), TunnelClosed::Done);
        assert_eq!(closed_with(2, b""), TunnelClosed::NotAllowed);
        assert_eq!(closed_with(3, b""), TunnelClosed::Shutdown);
        assert_eq!(closed_with(4, b""), TunnelClosed::Replaced);
        assert_eq!(
            TunnelClosed::from_connection(&ConnectionError::Reset),
            TunnelClosed::Reset
        );
        assert_eq!(
            TunnelClosed::from_connection(&ConnectionError::TimedOut),
            TunnelClosed::TimedOut
        );
        assert_eq!(
            TunnelClosed::from_connection(&ConnectionError::LocallyClosed),
            TunnelClosed::Local
        );
    }

    #[test]
    fn a_hostile_reason_cannot_write_to_the_terminal() {
        let TunnelClosed::Protocol(text) = closed_with(99, b"\x1b[2Jhello\xff") else {
            panic!("an unknown code is a protocol error");
        };
        assert!(!text.contains('\x1b'), "{text}");
        assert!(text.contains("hello"));
    }
}
