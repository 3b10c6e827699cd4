//! STUN binding requests and answers (RFC 8489), through `stun-rs`. Pure: the transaction id is an argument.

use std::net::SocketAddr;

/// The 96-bit transaction id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TransactionId(pub [u8; 12]);

/// Longest STUN message Byway reads, in bytes (RFC 8489 section 6.1 keeps messages below the path MTU).
pub const MAX_LEN: usize = 1232;

/// A decoded message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// A binding request.
    Request {
        /// Its transaction.
        txid: TransactionId,
        /// Its length on the wire, in bytes: an answer of ours is never longer than a padded request.
        len: usize,
        /// RFC 5780 CHANGE-REQUEST, if any.
        change: Option<ChangeRequest>,
        /// Comprehension-required attributes we do not know (RFC 8489 section 6.3.1): answered with a 420.
        unknown: Vec<u16>,
    },
    /// A binding success.
    Success {
        /// Its transaction.
        txid: TransactionId,
        /// XOR-MAPPED-ADDRESS, or MAPPED-ADDRESS where an old server gives only that.
        mapped: SocketAddr,
        /// RFC 5780 OTHER-ADDRESS: the server's second address and port.
        other: Option<SocketAddr>,
        /// RFC 5780 RESPONSE-ORIGIN.
        origin: Option<SocketAddr>,
    },
    /// A binding error.
    Failure {
        /// Its transaction.
        txid: TransactionId,
        /// 300-699.
        code: u16,
    },
}

/// RFC 5780 CHANGE-REQUEST: answer from the other address or port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChangeRequest {
    /// From the other address.
    pub ip: bool,
    /// From the other port.
    pub port: bool,
}

/// Why bytes are not a STUN message of use to us.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StunError {
    /// Not STUN at all, cut off, followed by other bytes, or longer than [`MAX_LEN`].
    #[error("malformed STUN message")]
    Malformed,
    /// A method or class that is not a binding request or its answer.
    #[error("not a STUN binding message")]
    NotBinding,
    /// A success without a mapped address.
    #[error("STUN answer without a mapped address")]
    NoAddress,
}

/// Encodes a binding request. `padded` adds PADDING (RFC 5780) so that the answer is not longer than the request.
pub fn encode_request(txid: TransactionId, padded: bool, change: Option<ChangeRequest>) -> Vec<u8> {
    let _ = (txid, padded, change);
    unimplemented!()
}
/// Encodes a binding success with XOR-MAPPED-ADDRESS and FINGERPRINT as far as `max_len` allows (the address always).
pub fn encode_success(txid: TransactionId, mapped: SocketAddr, max_len: usize) -> Vec<u8> {
    let _ = (txid, mapped, max_len);
    unimplemented!()
}
/// Encodes a 420 answer that names unknown attributes.
pub fn encode_unknown_attributes(txid: TransactionId, unknown: &[u16]) -> Vec<u8> {
    let _ = (txid, unknown);
    unimplemented!()
}
/// Decodes a message. The datagram must hold it exactly.
pub fn decode(datagram: &[u8]) -> Result<Message, StunError> {
    let _ = datagram;
    unimplemented!()
}
