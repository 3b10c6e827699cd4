//! `0x81`: path probes. A probe proves that a path carries datagrams of its size both ways; it never carries
//! application data.
//!
//! `0x81 | version and kind (1) | receiver's index for the sender (8) | nonce (24) | sealed body | tag (16)`;
//! everything before the body is associated data. The high half of the second byte is the version (1), the low half the
//! kind (1 ping, 2 pong, 3 suspect).
//!
//! The body is `counter (8) | txid (12) | family (1) | address (16) | port (2) | padding`, the same for all kinds, so that
//! an answer is never longer than what it answers; family 0 means no address. What the padding holds does not matter.

use std::net::SocketAddr;

use crate::addr;
use crate::pair::{NONCE_LEN, PairKeys, TAG_LEN};

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
    /// Shorter than any probe.
    #[error("truncated probe")]
    Truncated,
    /// Longer than [`MAX_LEN`].
    #[error("probe longer than {MAX_LEN} bytes")]
    TooLong,
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

/// First byte of a probe.
const FIRST_BYTE: u8 = 0x81;
/// The version, where it stands in the second byte.
const VERSION: u8 = 0x10;
/// Length of what stands before the sealed body, in bytes.
const HEADER_LEN: usize = 2 + 8 + NONCE_LEN;
/// Length of a body without padding, in bytes.
const BODY_LEN: usize = 8 + 12 + addr::FIXED_LEN;

/// The smallest probe there is, in bytes.
pub const MIN_LEN: usize = HEADER_LEN + BODY_LEN + TAG_LEN;
/// The largest probe, in bytes: the largest datagram a relay forwards (design section 12), a jumbo frame.
pub const MAX_LEN: usize = 9_000;

/// Reads the index of a probe, without authenticating anything.
pub fn peek_index(datagram: &[u8]) -> Result<Index, ProbeError> {
    match datagram.first_chunk::<10>() {
        Some([FIRST_BYTE, _, index @ ..]) if datagram.len() >= MIN_LEN => {
            Ok(Index(u64::from_be_bytes(*index)))
        }
        _ => Err(ProbeError::Truncated),
    }
}

/// Seals a probe and pads it to `size` bytes on the wire (not less than its content needs, not more than 9,000).
pub fn seal(
    keys: &PairKeys,
    index: Index,
    nonce: &[u8; 24],
    probe: &Probe,
    size: usize,
) -> Vec<u8> {
    let (kind, txid, observed) = match probe.body {
        ProbeBody::Ping { txid } => (1, txid, None),
        ProbeBody::Pong { txid, observed } => (2, txid, observed),
        ProbeBody::Suspect { txid } => (3, txid, None),
    };
    let size = size.clamp(MIN_LEN, MAX_LEN);
    let mut out = Vec::with_capacity(size);
    out.extend_from_slice(&[FIRST_BYTE, VERSION | kind]);
    out.extend_from_slice(&index.0.to_be_bytes());
    out.extend_from_slice(nonce);
    out.extend_from_slice(&probe.counter.to_be_bytes());
    out.extend_from_slice(&txid.0);
    out.extend_from_slice(&observed.map_or([0; addr::FIXED_LEN], addr::encode_fixed));
    out.resize(size - TAG_LEN, 0);
    let mut header = [0; HEADER_LEN];
    header.copy_from_slice(&out[..HEADER_LEN]);
    keys.seal(nonce, &header, &mut out, HEADER_LEN);
    out
}

/// Opens a probe. The replay window is the caller's to ask.
pub fn open(keys: &PairKeys, datagram: &[u8]) -> Result<Probe, ProbeError> {
    let (header, sealed) = datagram
        .split_first_chunk::<HEADER_LEN>()
        .filter(|_| datagram.len() >= MIN_LEN)
        .ok_or(ProbeError::Truncated)?;
    if datagram.len() > MAX_LEN {
        return Err(ProbeError::TooLong);
    }
    let [first, version_and_kind, ..] = *header;
    // Asked before the seal is tried: it costs nothing, and a later version may seal differently.
    if first != FIRST_BYTE || !(VERSION | 1..=VERSION | 3).contains(&version_and_kind) {
        return Err(ProbeError::Unknown(version_and_kind));
    }
    let nonce = header.last_chunk().ok_or(ProbeError::Truncated)?;
    let body = keys.open(nonce, header, sealed).ok_or(ProbeError::Forged)?;
    let (counter, body) = body.split_first_chunk().ok_or(ProbeError::Truncated)?;
    let (txid, body) = body.split_first_chunk().ok_or(ProbeError::Truncated)?;
    let observed = body.first_chunk().ok_or(ProbeError::Truncated)?;
    let txid = TxId(*txid);
    Ok(Probe {
        counter: u64::from_be_bytes(*counter),
        body: match version_and_kind & 0x0f {
            1 => ProbeBody::Ping { txid },
            2 => ProbeBody::Pong {
                txid,
                observed: addr::decode_fixed(observed).map_err(|_| ProbeError::Malformed)?,
            },
            _ => ProbeBody::Suspect { txid },
        },
    })
}
