//! Signals: sealed messages between two nodes, which a relay carries and cannot read.
//!
//! `version (1) | nonce (24) | sealed protobuf | tag (16)`, under the pair's keys with its own label as associated data,
//! so that neither a probe passes for a signal nor a signal for a probe.

use std::net::SocketAddr;

use bytes::Bytes;
use prost::Message as _;

use crate::addr;
use crate::pair::{NONCE_LEN, PairKeys, TAG_LEN};
use crate::probe::Index;

/// Longest signal, in bytes: 32 candidates take under 1 KiB, the rest is for what later versions add. It fits a control
/// message.
pub const MAX_LEN: usize = 8 * 1024;

/// The version written here.
const VERSION: u8 = 1;
/// Associated data: what this is, in which version.
const LABEL: &[u8] = b"byway signal v1\0";
/// Length of what stands before the sealed body, in bytes.
const HEADER_LEN: usize = 1 + NONCE_LEN;

/// How a node came by an address of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum CandidateKind {
    /// An address of one of its interfaces.
    Host,
    /// Seen from outside, by STUN or by a relay.
    Reflexive,
    /// Given by the gateway: PCP, NAT-PMP, UPnP.
    Mapped,
    /// Told by the operator.
    Static,
}

/// An address at which a node may be reached.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Candidate {
    /// How it was found.
    pub kind: CandidateKind,
    /// The address, canonical (never v4-mapped v6).
    pub addr: SocketAddr,
}

/// A node's NAT in the words of RFC 4787, as far as the other side needs it to choose how to punch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[non_exhaustive]
pub enum Mapping {
    /// Not known.
    #[default]
    Unknown,
    /// The same external port for every destination.
    EndpointIndependent,
    /// Another port for another destination address.
    AddressDependent,
    /// Another port for another destination address or port.
    AddressAndPortDependent,
}

/// The addresses of the sender, and the index by which it will find the receiver's probes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidates {
    /// What the receiver of this signal must write into probes for the sender.
    pub index: Index,
    /// Rises with each new list of the same instance; an older list than the known one is ignored.
    pub generation: u64,
    /// At most [`MAX_CANDIDATES`].
    pub list: Vec<Candidate>,
    /// The sender's mapping behaviour.
    pub mapping: Mapping,
}

/// Most candidates a side may offer (design section 6); further ones are cut off, in writing and in reading.
pub const MAX_CANDIDATES: usize = 32;

/// What a signal says.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SignalBody {
    /// My addresses.
    Candidates(Candidates),
    /// I forget you now: my index for you and my side of every direct path are gone.
    Goodbye,
    /// A kind this version does not know; ignored.
    Unknown,
}

/// An authenticated signal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Signal {
    /// Shares the counter (and the replay window) with probes. Signals are obeyed in its order only: a relay may hold one
    /// back, and what it said is stale once a later one was obeyed.
    pub counter: u64,
    /// What it says.
    pub body: SignalBody,
}

/// Why bytes are not a signal for us.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignalError {
    /// Too short, or longer than [`MAX_LEN`].
    #[error("signal of a wrong length")]
    Length,
    /// A version from another time.
    #[error("unknown signal version {0}")]
    Version(u8),
    /// The seal does not open.
    #[error("signal does not authenticate")]
    Forged,
    /// It authenticates, but its body is malformed: the peer is to blame.
    #[error("malformed signal body")]
    Malformed,
}

/// Seals a signal.
pub fn seal(keys: &PairKeys, nonce: &[u8; 24], signal: &Signal) -> Vec<u8> {
    let body = proto::Signal {
        counter: signal.counter,
        body: match &signal.body {
            SignalBody::Candidates(candidates) => {
                Some(proto::Body::Candidates(candidates_to_proto(candidates)))
            }
            SignalBody::Goodbye => Some(proto::Body::Goodbye(proto::Goodbye {})),
            SignalBody::Unknown => None,
        },
    };
    let mut out = Vec::with_capacity(HEADER_LEN + body.encoded_len() + TAG_LEN);
    out.push(VERSION);
    out.extend_from_slice(nonce);
    out.extend_from_slice(&body.encode_to_vec());
    keys.seal(nonce, LABEL, &mut out, HEADER_LEN);
    out
}
/// Opens a signal.
pub fn open(keys: &PairKeys, sealed: &[u8]) -> Result<Signal, SignalError> {
    if sealed.len() > MAX_LEN {
        return Err(SignalError::Length);
    }
    let (version, rest) = sealed.split_first().ok_or(SignalError::Length)?;
    if *version != VERSION {
        return Err(SignalError::Version(*version));
    }
    let (nonce, body) = rest
        .split_first_chunk::<NONCE_LEN>()
        .filter(|(_, body)| body.len() >= TAG_LEN)
        .ok_or(SignalError::Length)?;
    let body = keys.open(nonce, LABEL, body).ok_or(SignalError::Forged)?;
    let message = proto::Signal::decode(body.as_slice()).map_err(|_| SignalError::Malformed)?;
    Ok(Signal {
        counter: message.counter,
        body: match message.body {
            Some(proto::Body::Candidates(candidates)) => {
                SignalBody::Candidates(candidates_from_proto(candidates)?)
            }
            Some(proto::Body::Goodbye(_)) => SignalBody::Goodbye,
            None => SignalBody::Unknown,
        },
    })
}

fn candidates_to_proto(candidates: &Candidates) -> proto::Candidates {
    proto::Candidates {
        index: candidates.index.0,
        generation: candidates.generation,
        list: candidates
            .list
            .iter()
            .take(MAX_CANDIDATES)
            .map(|candidate| proto::Candidate {
                kind: match candidate.kind {
                    CandidateKind::Host => 1,
                    CandidateKind::Reflexive => 2,
                    CandidateKind::Mapped => 3,
                    CandidateKind::Static => 4,
                },
                addr: addr::encode(candidate.addr).into(),
            })
            .collect(),
        mapping: match candidates.mapping {
            Mapping::Unknown => 0,
            Mapping::EndpointIndependent => 1,
            Mapping::AddressDependent => 2,
            Mapping::AddressAndPortDependent => 3,
        },
    }
}

fn candidates_from_proto(message: proto::Candidates) -> Result<Candidates, SignalError> {
    let mut list = Vec::new();
    for candidate in message.list.iter().take(MAX_CANDIDATES) {
        let addr = addr::decode(&candidate.addr).ok_or(SignalError::Malformed)?;
        let kind = match candidate.kind {
            1 => CandidateKind::Host,
            2 => CandidateKind::Reflexive,
            3 => CandidateKind::Mapped,
            4 => CandidateKind::Static,
            // A kind of a newer version: how it is to be used is not known here, so it is not.
            _ => continue,
        };
        list.push(Candidate { kind, addr });
    }
    Ok(Candidates {
        index: Index(message.index),
        generation: message.generation,
        list,
        mapping: match message.mapping {
            1 => Mapping::EndpointIndependent,
            2 => Mapping::AddressDependent,
            3 => Mapping::AddressAndPortDependent,
            _ => Mapping::Unknown,
        },
    })
}

/// The protobuf inside the seal.
mod proto {
    use super::Bytes;

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Signal {
        #[prost(fixed64, tag = "1")]
        pub(super) counter: u64,
        #[prost(oneof = "Body", tags = "2, 3")]
        pub(super) body: Option<Body>,
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(super) enum Body {
        #[prost(message, tag = "2")]
        Candidates(Candidates),
        #[prost(message, tag = "3")]
        Goodbye(Goodbye),
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Goodbye {}

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Candidates {
        #[prost(fixed64, tag = "1")]
        pub(super) index: u64,
        #[prost(uint64, tag = "2")]
        pub(super) generation: u64,
        #[prost(message, repeated, tag = "3")]
        pub(super) list: Vec<Candidate>,
        #[prost(uint32, tag = "4")]
        pub(super) mapping: u32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Candidate {
        #[prost(uint32, tag = "1")]
        pub(super) kind: u32,
        #[prost(bytes = "bytes", tag = "2")]
        pub(super) addr: Bytes,
    }
}
