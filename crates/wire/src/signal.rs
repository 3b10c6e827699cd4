//! Signals: sealed messages between two nodes, which a relay carries and cannot read.
//!
//! `version (1) | nonce (24) | sealed protobuf | tag (16)`, under the pair's keys with its own label as associated data.

use std::net::SocketAddr;

use crate::pair::PairKeys;
use crate::probe::Index;

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

/// Most candidates a side may offer (design section 6); further ones are cut and counted.
pub const MAX_CANDIDATES: usize = 32;

/// What a signal says.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SignalBody {
    /// My addresses.
    Candidates(Candidates),
    /// A kind this version does not know; ignored.
    Unknown,
}

/// An authenticated signal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Signal {
    /// Shares the counter (and the replay window) with probes.
    pub counter: u64,
    /// What it says.
    pub body: SignalBody,
}

/// Why bytes are not a signal for us.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignalError {
    /// Too short, or longer than a control frame may be.
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
    let _ = (keys, nonce, signal);
    unimplemented!()
}
/// Opens a signal.
pub fn open(keys: &PairKeys, sealed: &[u8]) -> Result<Signal, SignalError> {
    let _ = (keys, sealed);
    unimplemented!()
}
