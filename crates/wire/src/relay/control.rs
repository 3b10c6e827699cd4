//! Control messages between node and relay: protobuf, at most [`MAX_FRAME`] bytes each.
//!
//! These are the parsed, checked messages; the protobuf structs behind them are private. Unknown fields are skipped;
//! an unknown message decodes to [`Control::Unknown`] and is ignored, unless marked critical, which is an error.

use std::net::SocketAddr;

use bytes::Bytes;

use super::cookie::Cookie;
use super::{ChannelId, Pin, RelayUrl};
use crate::id::NodeId;
use crate::record::SignedRecord;
use crate::text;

/// Longest control message, in bytes (design section 12); a longer one closes the link.
pub const MAX_FRAME: usize = 16 * 1024;
/// Most datagrams that ride inside [`Open`], and the most bytes of them together.
pub const MAX_FIRST: usize = 4;
/// Most bytes of the datagrams inside [`Open`] together.
pub const MAX_FIRST_BYTES: usize = 6 * 1024;
/// Longest name of a relay or a region, in bytes: as much as a person reads.
pub const MAX_NAME: usize = 64;
/// Longest text for a person, in bytes.
pub const MAX_DETAIL: usize = 256;
/// Longest admission token, in bytes: with the record and the frame's other fields it still fits [`MAX_FRAME`].
pub const MAX_TOKEN: usize = 8 * 1024;
/// Longest `host:port`, in bytes: a host name of 253, and the port.
pub const MAX_DIALLED: usize = 259;
/// Most versions a [`Hello`] may list: one is spoken, and the next while both are about.
pub const MAX_VERSIONS: usize = 16;
/// Most relays a [`Control::GoingAway`] may name; further ones are ignored.
pub const MAX_ALTERNATES: usize = 8;
/// The protocol version spoken here.
pub const VERSION: u32 = 1;

/// What a node comes as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Accepts tunnels: of two instances the newest wins.
    Agent,
    /// Opens tunnels: several instances of one key are normal.
    Client,
}

/// Relay to node, first message on a TLS link: prove your key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Challenge {
    /// The relay's name.
    pub relay: String,
    /// The relay's region.
    pub region: String,
    /// Fresh random bytes.
    pub nonce: [u8; 32],
}
/// Node to relay, first message on a TLS link: a signature ([`crate::key::Purpose::LinkProof`]) over
/// [`Prove::signed_bytes`]. On a UDP link, TLS itself proves the key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Prove {
    /// Whose key.
    pub node: NodeId,
    /// What the node says of itself and of the way.
    pub claim: LinkClaim,
    /// Over [`Prove::signed_bytes`].
    pub signature: [u8; 64],
}
/// What a node says of a TLS link: what it comes as, what it dialled, and what it met there. A relay that hands on the
/// challenge of another one gets a proof that names itself, and is of no use to it there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkClaim {
    /// The node's own fresh random bytes.
    pub nonce: [u8; 32],
    /// The TLS exporter (label `EXPORTER-byway-link`) as the node sees it; another one at the relay means that someone
    /// between ends TLS.
    pub exporter: [u8; 32],
    /// `host:port` of the relay's URL ([`RelayUrl::authority`]), at most [`MAX_DIALLED`] bytes.
    pub dialled: String,
    /// The public key of the certificate that TLS showed the node, as a pin; another one than the relay's own means that
    /// someone between ends TLS.
    pub certificate: Pin,
    /// What the node will come as; its [`Hello`] must say the same.
    pub role: Role,
}
impl LinkClaim {
    /// The host of [`LinkClaim::dialled`]; IPv6 without brackets.
    pub fn host(&self) -> &str {
        text::split_authority(&self.dialled).map_or("", |(host, _)| host)
    }
}
impl Prove {
    /// What is signed: relay, region, both nonces, exporter, what was dialled, the certificate's key, the role; each with
    /// its length.
    pub fn signed_bytes(challenge: &Challenge, claim: &LinkClaim) -> Vec<u8> {
        let role = match claim.role {
            Role::Agent => [1],
            Role::Client => [2],
        };
        let parts: [&[u8]; 8] = [
            // As long as they travel: the relay may hold a longer name than the node was told.
            text::truncated(&challenge.relay, MAX_NAME).as_bytes(),
            text::truncated(&challenge.region, MAX_NAME).as_bytes(),
            &challenge.nonce,
            &claim.nonce,
            &claim.exporter,
            claim.dialled.as_bytes(),
            &claim.certificate.0,
            &role,
        ];
        let mut out = Vec::with_capacity(512);
        for part in parts {
            // Four bytes of length, so that no two different challenges give the same bytes.
            out.extend_from_slice(&(part.len() as u32).to_be_bytes());
            out.extend_from_slice(part);
        }
        out
    }
}

/// An admission token: a JWT (design section 8). It admits only the node it was made out to, and is a secret all the same:
/// not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct AdmissionToken(String);
impl AdmissionToken {
    /// None if it is empty, or longer than [`MAX_TOKEN`] bytes.
    pub fn new(token: String) -> Option<Self> {
        (1..=MAX_TOKEN)
            .contains(&token.len())
            .then_some(Self(token))
    }
    /// The token itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl std::fmt::Debug for AdmissionToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AdmissionToken(..)")
    }
}

/// Node to relay: who I am. [`Open`]s may follow in the same flight.
#[derive(Clone, Debug)]
pub struct Hello {
    /// Protocol versions the node speaks, best first.
    pub versions: Vec<u32>,
    /// As agent or as client.
    pub role: Role,
    /// The node's record; its key must be the one the link authenticated.
    pub record: SignedRecord,
    /// Admission token, where the relay asks for one.
    pub token: Option<AdmissionToken>,
}
/// Relay to node: admitted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Welcome {
    /// The version chosen.
    pub version: u32,
    /// The relay's name.
    pub relay: String,
    /// The relay's region.
    pub region: String,
    /// Names this session in logs.
    pub session: u64,
    /// Where the node comes from, as the relay sees it.
    pub observed: SocketAddr,
    /// Most channels the node may have here.
    pub max_channels: u32,
    /// Longest payload the relay forwards, in bytes.
    pub max_datagram: u32,
    /// The relay's clock, seconds since the Unix epoch.
    pub time: u64,
    /// On a TLS link: somebody between ends TLS, an ingress or an inspecting proxy. What the tunnels carry is sealed
    /// end to end all the same.
    pub intercepted: bool,
    /// For how many seconds the node is admitted by the token of its [`Hello`], from now on; none where no token is asked for.
    /// In time before that it sends a fresh one by [`Control::Token`], or the link ends.
    pub admitted_for: Option<u32>,
}
/// Opener to relay.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Open {
    /// Chosen at random by the opener.
    pub channel: ChannelId,
    /// To whom.
    pub peer: NodeId,
    /// [`crate::TicketSecret::open_proof`].
    pub proof: Option<[u8; 32]>,
    /// The first datagrams of the tunnel; at most [`MAX_FIRST`] and [`MAX_FIRST_BYTES`].
    pub first: Vec<Bytes>,
    /// How long to wait for an absent peer, in milliseconds, before the answer is `offline`. A relay waits for 2 s whatever this
    /// is, and for no more than a minute.
    pub wait_ms: u32,
}
/// Relay to opener: the peer is here and was told. Where it is, the opener hears by `PeerMoved`, once the peer has let it in.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Which.
    pub channel: ChannelId,
    /// The peer's record.
    pub record: SignedRecord,
}
/// Relay to peer: someone opened a channel.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// Which.
    pub channel: ChannelId,
    /// The opener's record.
    pub record: SignedRecord,
    /// The opener's address as the relay sees it (attested).
    pub observed: SocketAddr,
    /// As in [`Open`].
    pub proof: Option<[u8; 32]>,
    /// As in [`Open`].
    pub first: Vec<Bytes>,
}
/// Why a channel ended or did not begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum CloseReason {
    /// A side is done with it.
    Done,
    /// The peer is not connected to this relay.
    Offline,
    /// The peer refuses the opener.
    NotAllowed,
    /// The id is in use; choose another.
    ChannelInUse,
    /// Opening to oneself.
    SelfOpen,
    /// Too many channels, or too many unanswered opens.
    Limit,
    /// The peer left.
    PeerGone,
    /// No such channel.
    NoSuchChannel,
    /// A reason from a newer version.
    Unknown,
}
/// Why a relay ends a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RefuseReason {
    /// No version in common.
    Version,
    /// The record is not of the key that connected, or malformed.
    Identity,
    /// No token, or one that does not admit.
    NotAdmitted,
    /// Too many links.
    Limit,
    /// The node did not keep to the protocol.
    Protocol,
    /// A newer instance of the same agent took over.
    Replaced,
    /// The relay is shutting down.
    Shutdown,
    /// The relay cannot judge anybody yet, for it has not what it needs; it may in a moment.
    NotReady,
    /// A reason from a newer version.
    Unknown,
}
impl std::fmt::Display for RefuseReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Version => "it speaks another version of the protocol; upgrade",
            Self::Identity => "it does not believe this node's identity",
            Self::NotAdmitted => "it does not admit this node",
            Self::Limit => "this node has too many links to it",
            Self::Protocol => "it found a fault in what this node said",
            Self::Replaced => "a newer process with this node's key took over",
            Self::Shutdown => "it is shutting down",
            Self::NotReady => "it cannot let in anybody yet",
            Self::Unknown => "for a reason this version does not know",
        })
    }
}

/// Node to relay: the cookie that came to my new address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rebind {
    /// As received.
    pub cookie: Cookie,
}

/// Every control message.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Control {
    /// See [`Challenge`].
    Challenge(Challenge),
    /// See [`Prove`].
    Prove(Prove),
    /// See [`Hello`].
    Hello(Hello),
    /// See [`Welcome`].
    Welcome(Welcome),
    /// Relay to node, last message: the link ends.
    Refused {
        /// Why.
        reason: RefuseReason,
        /// For a person; at most 256 bytes.
        detail: String,
    },
    /// See [`Open`].
    Open(Open),
    /// See [`Opened`].
    Opened(Opened),
    /// See [`Incoming`].
    Incoming(Incoming),
    /// Peer to relay: the open is answered (no longer counts as unanswered).
    Accept {
        /// Which.
        channel: ChannelId,
    },
    /// Either way: a channel ended, or was refused.
    Closed {
        /// Which.
        channel: ChannelId,
        /// Why.
        reason: CloseReason,
    },
    /// Node to relay: move my side of the channel to the link this comes on (make before break).
    Attach {
        /// Which.
        channel: ChannelId,
    },
    /// Relay to node: the side moved; or [`Control::Closed`] if it could not.
    Attached {
        /// Which.
        channel: ChannelId,
    },
    /// Either way: a sealed signal for the other side of the channel ([`crate::signal`]).
    Signal {
        /// Which.
        channel: ChannelId,
        /// Sealed.
        sealed: Bytes,
    },
    /// See [`Rebind`].
    Rebind(Rebind),
    /// Relay to node: all channels of the link are bound to this address now.
    Rebound {
        /// The new address.
        observed: SocketAddr,
    },
    /// Relay to node: the other side of the channel is seen at this address from now on (attested). The opener hears it first
    /// when the target has answered: nobody is shown to those whom it has not let in.
    PeerMoved {
        /// Which.
        channel: ChannelId,
        /// Where.
        observed: SocketAddr,
    },
    /// Either way: answer with the same token.
    Ping {
        /// Any.
        token: u64,
    },
    /// The answer.
    Pong {
        /// The ping's.
        token: u64,
    },
    /// Node to relay, or relay to a peer with a channel: a newer record.
    Record(SignedRecord),
    /// Relay to node: leave in time.
    GoingAway {
        /// Milliseconds until the relay stops.
        deadline_ms: u32,
        /// Where to go instead.
        alternates: Vec<RelayUrl>,
    },
    /// Relay to node: it sends more than it may, and part of that is dropped (UDP) or waits (TLS).
    Throttled {
        /// Bytes that it may send in a second, without the relay's headers; none where they are not limited.
        bytes: Option<u64>,
        /// Datagrams that it may send in a second.
        datagrams: Option<u64>,
    },
    /// Node to relay: a fresh token for this session, answered by [`Control::TokenTaken`] or [`Control::TokenRefused`].
    Token(AdmissionToken),
    /// Relay to node: the token holds from now on, in place of the one before.
    TokenTaken {
        /// For how many seconds the node is admitted, from now on; none where no token is asked for.
        admitted_for: Option<u32>,
    },
    /// Relay to node: the fresh token does not admit; the one before still holds, until it expires.
    TokenRefused {
        /// For a person; at most 256 bytes.
        detail: String,
    },
    /// A message of a newer version, not marked critical: ignored.
    Unknown,
}

/// Why bytes are not a control message: the other side is to blame, the link closes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// Longer than [`MAX_FRAME`].
    #[error("control message longer than {MAX_FRAME} bytes")]
    TooLong,
    /// Not protobuf, or a field is missing or out of range; names the message and the field.
    #[error("malformed control message: {0}")]
    Malformed(&'static str),
    /// A message of a newer version that must be understood.
    #[error("a critical control message of a newer version")]
    Critical,
}

impl Control {
    /// The message's name, for logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Challenge(_) => "Challenge",
            Self::Prove(_) => "Prove",
            Self::Hello(_) => "Hello",
            Self::Welcome(_) => "Welcome",
            Self::Refused { .. } => "Refused",
            Self::Open(_) => "Open",
            Self::Opened(_) => "Opened",
            Self::Incoming(_) => "Incoming",
            Self::Accept { .. } => "Accept",
            Self::Closed { .. } => "Closed",
            Self::Attach { .. } => "Attach",
            Self::Attached { .. } => "Attached",
            Self::Signal { .. } => "Signal",
            Self::Rebind(_) => "Rebind",
            Self::Rebound { .. } => "Rebound",
            Self::PeerMoved { .. } => "PeerMoved",
            Self::Ping { .. } => "Ping",
            Self::Pong { .. } => "Pong",
            Self::Record(_) => "Record",
            Self::GoingAway { .. } => "GoingAway",
            Self::Token(_) => "Token",
            Self::TokenTaken { .. } => "TokenTaken",
            Self::TokenRefused { .. } => "TokenRefused",
            Self::Throttled { .. } => "Throttled",
            Self::Unknown => "Unknown",
        }
    }
}
