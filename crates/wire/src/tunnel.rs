//! What is said inside a tunnel (design section 9): the greeting on the first stream, and how every other stream begins.
//!
//! All messages are length-delimited protobuf, at most [`MAX_MESSAGE`] bytes. The client opens stream 0 at once and
//! writes its [`Greeting`]; the agent answers with its own. Other streams begin with a [`StreamHeader`]; those for a
//! target are answered with a [`StreamReply`] before any byte of the target's. Nobody waits: greeting, header and
//! application bytes may leave in one flight, and the agent holds streams until the greeting is verified.

mod convert;

use std::str::FromStr;

use bytes::{Bytes, BytesMut};

use crate::record::SignedRecord;
use crate::text;

/// Longest message inside a tunnel, in bytes.
pub const MAX_MESSAGE: usize = 16 * 1024;
/// Longest text for a person in a refusal, in bytes.
pub const MAX_DETAIL: usize = 256;

/// The first message of each side.
#[derive(Clone, Debug)]
pub struct Greeting {
    /// The sender's current record; overrides any relay's copy.
    pub record: SignedRecord,
    /// The client's proof that it holds the ticket's secret ([`crate::TicketSecret::tunnel_proof`]).
    pub proof: Option<[u8; 32]>,
}

/// Why an agent refuses a tunnel; sent as the QUIC application close code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum CloseCode {
    /// The tunnel is done.
    Done = 0,
    /// The other side did not keep to the protocol.
    Protocol = 1,
    /// The client may not use this agent.
    NotAllowed = 2,
    /// The node is shutting down.
    Shutdown = 3,
    /// A newer instance of the same agent took over.
    Replaced = 4,
}

impl CloseCode {
    /// The code of a QUIC application close; none for one of a newer version.
    pub fn from_code(code: u64) -> Option<Self> {
        [
            Self::Done,
            Self::Protocol,
            Self::NotAllowed,
            Self::Shutdown,
            Self::Replaced,
        ]
        .into_iter()
        .find(|known| *known as u64 == code)
    }
}

/// Where a forwarded stream ends.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Target {
    /// A TCP port; the host is a name or an address, resolved at the agent.
    Tcp {
        /// Name or address, without brackets; at most 253 characters.
        host: String,
        /// 1-65535.
        port: u16,
    },
}

/// Why a text is not a target.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a target: write PORT, HOST:PORT or [IPV6]:PORT with a port from 1 to 65535")]
pub struct TargetError;

impl Target {
    /// A TCP target, checked: the host is an address (IPv6 without brackets) or a DNS name, the port is not 0. Both come
    /// out in their canonical form, so that policies compare like with like.
    pub fn tcp(host: &str, port: u16) -> Result<Self, TargetError> {
        let host = text::parse_host(host)
            .filter(|_| port != 0)
            .ok_or(TargetError)?;
        Ok(Self::Tcp { host, port })
    }
}
impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp { host, port } => text::write_authority(f, host, *port),
        }
    }
}
/// `PORT` means 127.0.0.1.
impl FromStr for Target {
    type Err = TargetError;
    fn from_str(s: &str) -> Result<Self, TargetError> {
        if let Some(port) = text::parse_port(s) {
            return Self::tcp("127.0.0.1", port);
        }
        let (host, port) = text::split_authority(s).ok_or(TargetError)?;
        let port = port.and_then(text::parse_port).ok_or(TargetError)?;
        Self::tcp(host, port)
    }
}

/// How a stream begins.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum StreamHeader {
    /// Connect to a target; answered with a [`StreamReply`].
    Connect(Target),
    /// The stream belongs to the embedding program; its bytes follow at once.
    Application,
    /// Every byte comes back; for measuring.
    Echo,
    /// A kind this version does not know; refused with [`Refusal::Unsupported`].
    Unknown,
}

/// The answer to [`StreamHeader::Connect`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StreamReply {
    /// The target's bytes follow.
    Connected,
    /// They do not.
    Refused(Refused),
}

/// Why a target is not to be had, for showing to a person.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{reason}: {}", crate::text::printable(detail))]
pub struct Refused {
    /// The kind of refusal.
    pub reason: Refusal,
    /// What the agent adds; at most 256 bytes of text.
    pub detail: String,
}

/// Kinds of refusal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Nothing listens there.
    #[error("connection refused")]
    Refused,
    /// The agent's policy does not allow the target.
    #[error("target not allowed")]
    Denied,
    /// No route, or the name does not resolve.
    #[error("unreachable")]
    Unreachable,
    /// No answer in time.
    #[error("timed out")]
    TimedOut,
    /// The agent does not know this kind of stream.
    #[error("not supported by this agent")]
    Unsupported,
    /// Too many streams or files.
    #[error("the agent is out of resources")]
    Exhausted,
    /// A reason from a newer version.
    #[error("refused")]
    Unknown,
}

/// Why a message inside a tunnel is refused: the peer is to blame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// Longer than [`MAX_MESSAGE`].
    #[error("message too long")]
    TooLong,
    /// Not what was expected here.
    #[error("malformed message")]
    Malformed,
}

/// A message inside a tunnel: encodes itself with its length in front.
pub trait Message: Sized {
    /// Appends length and body. Texts longer than their limits are cut.
    fn encode(&self, out: &mut BytesMut);
    /// Reads a body (without the length).
    fn decode(body: Bytes) -> Result<Self, MessageError>;
}

/// Bytes of the length in front of a message: big endian, so that a reader needs no loop.
pub const LENGTH_PREFIX: usize = 4;
/// Reads the length prefix; refuses more than [`MAX_MESSAGE`].
pub fn decode_length(prefix: [u8; LENGTH_PREFIX]) -> Result<usize, MessageError> {
    let length = u32::from_be_bytes(prefix) as usize;
    if length > MAX_MESSAGE {
        return Err(MessageError::TooLong);
    }
    Ok(length)
}
