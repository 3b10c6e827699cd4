//! STUN on the relay's own ports (RFC 8489): tells a node the address it comes from.
//!
//! Anyone may ask, and the source address may be forged, so the answer must not be a weapon. A request padded to the
//! answer's length is answered freely: who forges it gains nothing. A bare request's answer is longer than itself, so
//! it holds the address and no more, and comes out of a budget. What is no request is never answered.

use std::net::SocketAddr;

use byway_wire::classic_stun;
use byway_wire::stun::{self, Message};

/// CHANGE-REQUEST (RFC 5780): we have no second address to answer from.
const CHANGE_REQUEST: u16 = 0x0003;

/// What to do with a STUN message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// Send this. `amplifies` if it is longer than the request.
    Answer { bytes: Vec<u8>, amplifies: bool },
    /// The same, for attributes we do not know.
    Error { bytes: Vec<u8>, amplifies: bool },
    /// Not a request.
    Ignore,
}

/// Decides on one datagram.
pub(crate) fn answer(datagram: &[u8], from: SocketAddr) -> Verdict {
    if let Some(bytes) = classic_stun::answer(datagram, from) {
        let amplifies = bytes.len() > datagram.len();
        return Verdict::Answer { bytes, amplifies };
    }
    let Ok(Message::Request {
        txid,
        len,
        change,
        mut unknown,
    }) = stun::decode(datagram)
    else {
        return Verdict::Ignore;
    };
    // RFC 5780 section 7.2: who cannot answer from elsewhere treats CHANGE-REQUEST as unknown.
    if change.is_some_and(|c| c.ip || c.port) {
        unknown.push(CHANGE_REQUEST);
    }
    if unknown.is_empty() {
        let bytes = stun::encode_success(txid, from, len);
        let amplifies = bytes.len() > datagram.len();
        Verdict::Answer { bytes, amplifies }
    } else {
        // RFC 8489 section 6.3.1: unknown comprehension-required attributes give a 420 that names them.
        let bytes = stun::encode_unknown_attributes(txid, &unknown);
        let amplifies = bytes.len() > datagram.len();
        Verdict::Error { bytes, amplifies }
    }
}
