//! Between [`Control`] and its protobuf: what is written is always within the limits, what is read is checked against
//! them field by field, so that nobody behind this module meets a value out of range.

use std::net::SocketAddr;

use bytes::Bytes;
use prost::Message as _;

use super::control::*;
use super::cookie::Cookie;
use super::proto::{self, Kind};
use super::{ChannelId, Pin, RelayUrl};
use crate::id::NodeId;
use crate::record::SignedRecord;
use crate::{addr, signal, text};

use ControlError::Malformed;

impl Control {
    /// The protobuf body, without a length.
    ///
    /// Texts and lists longer than their limits are cut, so that the receiver never refuses what this wrote.
    pub fn encode(&self) -> Bytes {
        let envelope = proto::Control {
            critical: false,
            kind: to_proto(self),
        };
        envelope.encode_to_vec().into()
    }

    /// Reads a body. Byte strings of the result share `body`'s memory.
    pub fn decode(body: Bytes) -> Result<Self, ControlError> {
        if body.len() > MAX_FRAME {
            return Err(ControlError::TooLong);
        }
        let envelope = proto::Control::decode(body).map_err(|_| Malformed("not protobuf"))?;
        match envelope.kind {
            Some(kind) => from_proto(kind),
            None if envelope.critical => Err(ControlError::Critical),
            None => Ok(Self::Unknown),
        }
    }
}

fn to_proto(message: &Control) -> Option<Kind> {
    Some(match message {
        Control::Challenge(m) => Kind::Challenge(proto::Challenge {
            relay: text::truncated(&m.relay, MAX_NAME).into(),
            region: text::truncated(&m.region, MAX_NAME).into(),
            nonce: copy(&m.nonce),
        }),
        Control::Prove(m) => Kind::Prove(proto::Prove {
            node: copy(m.node.as_bytes()),
            nonce: copy(&m.claim.nonce),
            exporter: copy(&m.claim.exporter),
            signature: copy(&m.signature),
            dialled: m.claim.dialled.clone(),
            certificate: copy(&m.claim.certificate.0),
            role: role_number(m.claim.role),
        }),
        Control::Hello(m) => Kind::Hello(proto::Hello {
            versions: m.versions.iter().copied().take(MAX_VERSIONS).collect(),
            role: role_number(m.role),
            record: m.record.as_bytes().clone(),
            token: m.token.as_ref().map(|token| token.as_str().to_owned()),
        }),
        Control::Welcome(m) => Kind::Welcome(proto::Welcome {
            version: m.version,
            relay: text::truncated(&m.relay, MAX_NAME).into(),
            region: text::truncated(&m.region, MAX_NAME).into(),
            session: m.session,
            observed: addr::encode(m.observed).into(),
            max_channels: m.max_channels,
            max_datagram: m.max_datagram,
            time: m.time,
            intercepted: m.intercepted,
            admitted_for: m.admitted_for,
        }),
        Control::Token(token) => Kind::Token(proto::Token {
            token: token.as_str().to_owned(),
        }),
        Control::TokenTaken { admitted_for } => Kind::TokenTaken(proto::TokenTaken {
            admitted_for: *admitted_for,
        }),
        Control::TokenRefused { detail } => Kind::TokenRefused(proto::TokenRefused {
            detail: text::truncated(detail, MAX_DETAIL).into(),
        }),
        Control::Throttled { bytes, datagrams } => Kind::Throttled(proto::Throttled {
            bytes: *bytes,
            datagrams: *datagrams,
        }),
        Control::Refused { reason, detail } => Kind::Refused(proto::Refused {
            reason: refuse_number(*reason),
            detail: text::truncated(detail, MAX_DETAIL).into(),
        }),
        Control::Open(m) => Kind::Open(proto::Open {
            channel: m.channel.as_u64(),
            peer: copy(m.peer.as_bytes()),
            proof: m.proof.as_ref().map(|proof| copy(proof)),
            first: first_within_limits(&m.first),
            wait_ms: m.wait_ms,
        }),
        Control::Opened(m) => Kind::Opened(proto::Opened {
            channel: m.channel.as_u64(),
            record: m.record.as_bytes().clone(),
        }),
        Control::Incoming(m) => Kind::Incoming(proto::Incoming {
            channel: m.channel.as_u64(),
            record: m.record.as_bytes().clone(),
            observed: addr::encode(m.observed).into(),
            proof: m.proof.as_ref().map(|proof| copy(proof)),
            first: first_within_limits(&m.first),
        }),
        Control::Accept { channel } => Kind::Accept(channel_only(*channel)),
        Control::Closed { channel, reason } => Kind::Closed(proto::Closed {
            channel: channel.as_u64(),
            reason: close_number(*reason),
        }),
        Control::Attach { channel } => Kind::Attach(channel_only(*channel)),
        Control::Attached { channel } => Kind::Attached(channel_only(*channel)),
        Control::Signal { channel, sealed } => Kind::Signal(proto::Signal {
            channel: channel.as_u64(),
            sealed: sealed.clone(),
        }),
        Control::Rebind(m) => Kind::Rebind(proto::Rebind {
            channel: m.cookie.channel.as_u64(),
            addr: addr::encode(m.cookie.addr).into(),
            mac: copy(&m.cookie.mac),
        }),
        Control::Rebound { observed } => Kind::Rebound(proto::Rebound {
            observed: addr::encode(*observed).into(),
        }),
        Control::PeerMoved { channel, observed } => Kind::PeerMoved(proto::PeerMoved {
            channel: channel.as_u64(),
            observed: addr::encode(*observed).into(),
        }),
        Control::Ping { token } => Kind::Ping(proto::Echo { token: *token }),
        Control::Pong { token } => Kind::Pong(proto::Echo { token: *token }),
        Control::Record(record) => Kind::Record(proto::Record {
            record: record.as_bytes().clone(),
        }),
        Control::GoingAway {
            deadline_ms,
            alternates,
        } => Kind::GoingAway(proto::GoingAway {
            deadline_ms: *deadline_ms,
            alternates: alternates
                .iter()
                .take(MAX_ALTERNATES)
                .map(RelayUrl::to_string)
                .collect(),
        }),
        Control::Unknown => return None,
    })
}

fn from_proto(kind: Kind) -> Result<Control, ControlError> {
    Ok(match kind {
        Kind::Challenge(m) => Control::Challenge(Challenge {
            relay: bounded(m.relay, MAX_NAME, "Challenge.relay")?,
            region: bounded(m.region, MAX_NAME, "Challenge.region")?,
            nonce: array(&m.nonce, "Challenge.nonce")?,
        }),
        Kind::Prove(m) => Control::Prove(Prove {
            node: node(&m.node, "Prove.node")?,
            claim: LinkClaim {
                nonce: array(&m.nonce, "Prove.nonce")?,
                exporter: array(&m.exporter, "Prove.exporter")?,
                dialled: dialled(m.dialled)?,
                certificate: Pin(array(&m.certificate, "Prove.certificate")?),
                role: role(m.role, "Prove.role")?,
            },
            signature: array(&m.signature, "Prove.signature")?,
        }),
        Kind::Hello(m) => Control::Hello(Hello {
            versions: versions(m.versions)?,
            role: role(m.role, "Hello.role")?,
            record: record(m.record, "Hello.record")?,
            token: match m.token {
                Some(token) => Some(admission_token(token, "Hello.token")?),
                None => None,
            },
        }),
        Kind::Welcome(m) => Control::Welcome(Welcome {
            version: m.version,
            relay: bounded(m.relay, MAX_NAME, "Welcome.relay")?,
            region: bounded(m.region, MAX_NAME, "Welcome.region")?,
            session: m.session,
            observed: socket(&m.observed, "Welcome.observed")?,
            max_channels: m.max_channels,
            max_datagram: m.max_datagram,
            time: m.time,
            intercepted: m.intercepted,
            admitted_for: m.admitted_for,
        }),
        Kind::Token(m) => Control::Token(admission_token(m.token, "Token.token")?),
        Kind::TokenTaken(m) => Control::TokenTaken {
            admitted_for: m.admitted_for,
        },
        Kind::TokenRefused(m) => Control::TokenRefused {
            detail: bounded(m.detail, MAX_DETAIL, "TokenRefused.detail")?,
        },
        Kind::Throttled(m) => Control::Throttled {
            bytes: m.bytes,
            datagrams: m.datagrams,
        },
        Kind::Refused(m) => Control::Refused {
            reason: refuse_reason(m.reason),
            detail: bounded(m.detail, MAX_DETAIL, "Refused.detail")?,
        },
        Kind::Open(m) => Control::Open(Open {
            channel: channel(m.channel, "Open.channel")?,
            peer: node(&m.peer, "Open.peer")?,
            proof: proof(m.proof, "Open.proof")?,
            first: first(m.first, "Open.first")?,
            wait_ms: m.wait_ms,
        }),
        Kind::Opened(m) => Control::Opened(Opened {
            channel: channel(m.channel, "Opened.channel")?,
            record: record(m.record, "Opened.record")?,
        }),
        Kind::Incoming(m) => Control::Incoming(Incoming {
            channel: channel(m.channel, "Incoming.channel")?,
            record: record(m.record, "Incoming.record")?,
            observed: socket(&m.observed, "Incoming.observed")?,
            proof: proof(m.proof, "Incoming.proof")?,
            first: first(m.first, "Incoming.first")?,
        }),
        Kind::Accept(m) => Control::Accept {
            channel: channel(m.channel, "Accept.channel")?,
        },
        Kind::Closed(m) => Control::Closed {
            channel: channel(m.channel, "Closed.channel")?,
            reason: close_reason(m.reason),
        },
        Kind::Attach(m) => Control::Attach {
            channel: channel(m.channel, "Attach.channel")?,
        },
        Kind::Attached(m) => Control::Attached {
            channel: channel(m.channel, "Attached.channel")?,
        },
        Kind::Signal(m) => Control::Signal {
            channel: channel(m.channel, "Signal.channel")?,
            sealed: if m.sealed.len() <= signal::MAX_LEN {
                m.sealed
            } else {
                return Err(Malformed("Signal.sealed"));
            },
        },
        Kind::Rebind(m) => Control::Rebind(Rebind {
            cookie: Cookie {
                channel: any_channel(m.channel, "Rebind.channel")?,
                addr: socket(&m.addr, "Rebind.addr")?,
                mac: array(&m.mac, "Rebind.mac")?,
            },
        }),
        Kind::Rebound(m) => Control::Rebound {
            observed: socket(&m.observed, "Rebound.observed")?,
        },
        Kind::PeerMoved(m) => Control::PeerMoved {
            channel: channel(m.channel, "PeerMoved.channel")?,
            observed: socket(&m.observed, "PeerMoved.observed")?,
        },
        Kind::Ping(m) => Control::Ping { token: m.token },
        Kind::Pong(m) => Control::Pong { token: m.token },
        Kind::Record(m) => Control::Record(record(m.record, "Record.record")?),
        Kind::GoingAway(m) => Control::GoingAway {
            deadline_ms: m.deadline_ms,
            // Best first, and a form of URL that only newer nodes know is no reason to close the link.
            alternates: m
                .alternates
                .iter()
                .take(MAX_ALTERNATES)
                .filter_map(|url| url.parse().ok())
                .collect(),
        },
    })
}

// Writing.

fn copy(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

fn channel_only(channel: ChannelId) -> proto::Channel {
    proto::Channel {
        channel: channel.as_u64(),
    }
}

/// The leading datagrams that fit both limits: the first ones carry the handshake, and QUIC repeats what is left out.
fn first_within_limits(first: &[Bytes]) -> Vec<Bytes> {
    let mut left = MAX_FIRST_BYTES;
    first
        .iter()
        .take(MAX_FIRST)
        .take_while(|datagram| {
            let fits = datagram.len() <= left;
            left = left.saturating_sub(datagram.len());
            fits
        })
        .cloned()
        .collect()
}

fn role_number(role: Role) -> u32 {
    match role {
        Role::Agent => 1,
        Role::Client => 2,
    }
}

fn close_number(reason: CloseReason) -> u32 {
    match reason {
        CloseReason::Unknown => 0,
        CloseReason::Done => 1,
        CloseReason::Offline => 2,
        CloseReason::NotAllowed => 3,
        CloseReason::ChannelInUse => 4,
        CloseReason::SelfOpen => 5,
        CloseReason::Limit => 6,
        CloseReason::PeerGone => 7,
        CloseReason::NoSuchChannel => 8,
    }
}

fn refuse_number(reason: RefuseReason) -> u32 {
    match reason {
        RefuseReason::Unknown => 0,
        RefuseReason::Version => 1,
        RefuseReason::Identity => 2,
        RefuseReason::NotAdmitted => 3,
        RefuseReason::Limit => 4,
        RefuseReason::Protocol => 5,
        RefuseReason::Replaced => 6,
        RefuseReason::Shutdown => 7,
        RefuseReason::NotReady => 8,
    }
}

// Reading. `field` names what is at fault.

type Field = &'static str;

fn array<const N: usize>(bytes: &[u8], field: Field) -> Result<[u8; N], ControlError> {
    bytes.try_into().map_err(|_| Malformed(field))
}

fn admission_token(token: String, field: &'static str) -> Result<AdmissionToken, ControlError> {
    AdmissionToken::new(token).ok_or(Malformed(field))
}

fn bounded(text: String, max: usize, field: Field) -> Result<String, ControlError> {
    if text.len() <= max {
        Ok(text)
    } else {
        Err(Malformed(field))
    }
}

fn node(bytes: &[u8], field: Field) -> Result<NodeId, ControlError> {
    NodeId::from_bytes(&array(bytes, field)?).map_err(|_| Malformed(field))
}

fn socket(bytes: &[u8], field: Field) -> Result<SocketAddr, ControlError> {
    addr::decode(bytes).ok_or(Malformed(field))
}

fn record(bytes: Bytes, field: Field) -> Result<SignedRecord, ControlError> {
    // A copy, because a record is kept for long and must not hold the frame it came in.
    SignedRecord::decode(copy(&bytes)).map_err(|_| Malformed(field))
}

fn any_channel(bits: u64, field: Field) -> Result<ChannelId, ControlError> {
    let channel = ChannelId::from_u64(bits);
    if channel.as_u64() == bits {
        Ok(channel)
    } else {
        Err(Malformed(field))
    }
}

/// A channel between two nodes, hence not the echo.
fn channel(bits: u64, field: Field) -> Result<ChannelId, ControlError> {
    any_channel(bits, field).and_then(|channel| {
        if channel == ChannelId::ECHO {
            Err(Malformed(field))
        } else {
            Ok(channel)
        }
    })
}

fn proof(bytes: Option<Bytes>, field: Field) -> Result<Option<[u8; 32]>, ControlError> {
    bytes.map(|bytes| array(&bytes, field)).transpose()
}

fn first(list: Vec<Bytes>, field: Field) -> Result<Vec<Bytes>, ControlError> {
    let total: usize = list.iter().map(Bytes::len).sum();
    if list.len() <= MAX_FIRST && total <= MAX_FIRST_BYTES {
        Ok(list)
    } else {
        Err(Malformed(field))
    }
}

fn versions(list: Vec<u32>) -> Result<Vec<u32>, ControlError> {
    if list.len() <= MAX_VERSIONS {
        Ok(list)
    } else {
        Err(Malformed("Hello.versions"))
    }
}

/// `host:port` in its only spelling, so that what is compared later is what was signed.
fn dialled(text: String) -> Result<String, ControlError> {
    let text = bounded(text, MAX_DIALLED, "Prove.dialled")?;
    match format!("https://{text}").parse::<RelayUrl>() {
        Ok(url) if url.authority() == text => Ok(text),
        _ => Err(Malformed("Prove.dialled")),
    }
}

fn role(number: u32, field: &'static str) -> Result<Role, ControlError> {
    match number {
        1 => Ok(Role::Agent),
        2 => Ok(Role::Client),
        _ => Err(Malformed(field)),
    }
}

fn close_reason(number: u32) -> CloseReason {
    match number {
        1 => CloseReason::Done,
        2 => CloseReason::Offline,
        3 => CloseReason::NotAllowed,
        4 => CloseReason::ChannelInUse,
        5 => CloseReason::SelfOpen,
        6 => CloseReason::Limit,
        7 => CloseReason::PeerGone,
        8 => CloseReason::NoSuchChannel,
        _ => CloseReason::Unknown,
    }
}

fn refuse_reason(number: u32) -> RefuseReason {
    match number {
        1 => RefuseReason::Version,
        2 => RefuseReason::Identity,
        3 => RefuseReason::NotAdmitted,
        4 => RefuseReason::Limit,
        5 => RefuseReason::Protocol,
        6 => RefuseReason::Replaced,
        7 => RefuseReason::Shutdown,
        8 => RefuseReason::NotReady,
        _ => RefuseReason::Unknown,
    }
}
