//! What is said inside a tunnel (design section 9): the greeting on the first stream, and how every other stream begins.
//!
//! All messages are length-delimited protobuf, at most [`MAX_MESSAGE`] bytes. The client opens stream 0 at once and
//! writes its [`Greeting`]; the agent answers with its own. Other streams begin with a [`StreamHeader`]; those for a
//! target are answered with a [`StreamReply`] before any byte of the target's. Nobody waits: greeting, header and
//! application bytes may leave in one flight, and the agent holds streams until the greeting is verified.

use std::str::FromStr;

use bytes::{Bytes, BytesMut};

use crate::record::SignedRecord;

/// Longest message inside a tunnel, in bytes.
pub const MAX_MESSAGE: usize = 16 * 1024;

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

impl std::fmt::Display for Target {
    fn fmt(&self, _f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        unimplemented!()
    }
}
/// `PORT` means 127.0.0.1.
impl FromStr for Target {
    type Err = TargetError;
    fn from_str(_s: &str) -> Result<Self, TargetError> {
        unimplemented!()
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
#[error("{reason}: {detail}")]
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
    /// Appends length and body.
    fn encode(&self, out: &mut BytesMut);
    /// Reads a body (without the length).
    fn decode(body: Bytes) -> Result<Self, MessageError>;
}
impl Message for Greeting {
    fn encode(&self, _out: &mut BytesMut) {
        unimplemented!()
    }
    fn decode(_body: Bytes) -> Result<Self, MessageError> {
        unimplemented!()
    }
}
impl Message for StreamHeader {
    fn encode(&self, _out: &mut BytesMut) {
        unimplemented!()
    }
    fn decode(_body: Bytes) -> Result<Self, MessageError> {
        unimplemented!()
    }
}
impl Message for StreamReply {
    fn encode(&self, _out: &mut BytesMut) {
        unimplemented!()
    }
    fn decode(_body: Bytes) -> Result<Self, MessageError> {
        unimplemented!()
    }
}

/// Bytes of the length in front of a message: big endian, so that a reader needs no loop.
pub const LENGTH_PREFIX: usize = 4;
/// Reads the length prefix; refuses more than [`MAX_MESSAGE`].
pub fn decode_length(prefix: [u8; LENGTH_PREFIX]) -> Result<usize, MessageError> {
    let _ = prefix;
    unimplemented!()
}
