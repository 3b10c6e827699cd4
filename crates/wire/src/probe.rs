//! `0x81`: path probes. A probe proves that a path carries datagrams of its size both ways; it never carries
//! application data.
//!
//! `0x81 | version and kind (1) | receiver's index for the sender (8) | nonce (24) | sealed body | tag (16)`;
//! everything before the body is associated data.

use std::net::SocketAddr;

use crate::pair::PairKeys;

/// A random number by which the receiver of probes finds the sender's keys without arithmetic.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Index(pub u64);

/// A probe's transaction id: 96 random bits, repeated in the answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TxId(pub [u8; 12]);

/// What a probe says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProbeBody {
    /// Asks for an answer of the same length.
    Ping {
        /// Repeated in the answer.
        txid: TxId,
    },
    /// Answers a ping.
    Pong {
        /// The ping's.
        txid: TxId,
        /// Where the ping came from, as its receiver saw it; none when it came through a relay channel.
        observed: Option<SocketAddr>,
    },
    /// "I suspect the path we use": asks the peer to duplicate onto its alternative too (design section 6).
    Suspect {
        /// Chosen by the sender; a repeated one is the same suspicion.
        txid: TxId,
    },
}

/// An authenticated probe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Probe {
    /// Rises with each probe and signal of the sender; for the [`crate::pair::ReplayWindow`].
    pub counter: u64,
    /// What it says.
    pub body: ProbeBody,
}

/// Why a datagram is not a probe for us.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// Shorter than any probe, or a field runs over the end.
    #[error("truncated probe")]
    Truncated,
    /// A version or kind from another time.
    #[error("unknown probe version or kind {0:#04x}")]
    Unknown(u8),
    /// The seal does not open: forged, or for another pair.
    #[error("probe does not authenticate")]
    Forged,
    /// It authenticates, but its body is malformed: the peer is to blame.
    #[error("malformed probe body")]
    Malformed,
}

/// The smallest probe there is, in bytes.
pub const MIN_LEN: usize = 0;

/// Reads the index of a probe, without authenticating anything.
pub fn peek_index(datagram: &[u8]) -> Result<Index, ProbeError> {
    let _ = datagram;
    unimplemented!()
}

/// Seals a probe and pads it to `size` bytes on the wire (not less than its content needs, not more than 9,000).
pub fn seal(
    keys: &PairKeys,
    index: Index,
    nonce: &[u8; 24],
    probe: &Probe,
    size: usize,
) -> Vec<u8> {
    let _ = (keys, index, nonce, probe, size);
    unimplemented!()
}

/// Opens a probe. The replay window is the caller's to ask.
pub fn open(keys: &PairKeys, datagram: &[u8]) -> Result<Probe, ProbeError> {
    let _ = (keys, datagram);
    unimplemented!()
}
