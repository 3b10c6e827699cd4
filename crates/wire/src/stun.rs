//! STUN binding requests and answers (RFC 8489), through `stun-rs`. Pure: the transaction id is an argument.
//!
//! Deviations from the RFCs: a success that carries unknown comprehension-required attributes is read all the same
//! (section 6.3.3 would discard it), because servers of RFC 3489 send some; a FINGERPRINT is checked when present but
//! never required, because many servers send none.

use std::net::SocketAddr;

use stun_rs::attributes::discovery::{
    ChangeRequest as ChangeRequestAttribute, ChangeRequestFlags, OtherAddress, ResponseOrigin,
};
use stun_rs::attributes::stun::{
    ErrorCode, Fingerprint, MappedAddress, Software, UnknownAttributes, XorMappedAddress,
};
use stun_rs::methods::BINDING;
use stun_rs::{
    MessageClass, MessageDecoderBuilder, MessageEncoderBuilder, StunAttribute, StunMessage,
    StunMessageBuilder,
};

use crate::addr;

/// The 96-bit transaction id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TransactionId(pub [u8; 12]);

/// Longest STUN message Byway reads, in bytes (RFC 8489 section 6.1 keeps messages below the path MTU).
pub const MAX_LEN: usize = 1232;

/// Length of the longest success of ours (IPv6 address and FINGERPRINT), and of a padded request: 20 + 24 + 8 bytes.
pub const PADDED_LEN: usize = 52;

/// Fills a request up to [`PADDED_LEN`]. SOFTWARE is comprehension-optional, so every server takes it; the PADDING of
/// RFC 5780 is comprehension-required, and servers that do not know it would answer with an error.
const PADDING: &str = "byway, padded to fit";

/// Length of a FINGERPRINT attribute, in bytes, and how it begins.
const FINGERPRINT_LEN: usize = 8;
const FINGERPRINT_HEADER: [u8; 4] = [0x80, 0x28, 0x00, 0x04];

/// RFC 8489 section 14.8: "the request contains a comprehension-required attribute the server does not understand".
const UNKNOWN_ATTRIBUTE: u16 = 420;

/// Most unknown attributes that are remembered of a request: enough to tell its sender what is wrong.
const MAX_UNKNOWN: usize = 16;

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

/// Encodes a binding request. `padded` makes it [`PADDED_LEN`] bytes, so that our answer is not longer than the request;
/// without it a request is as short as can be (20 bytes).
pub fn encode_request(txid: TransactionId, padded: bool, change: Option<ChangeRequest>) -> Vec<u8> {
    let mut message =
        StunMessageBuilder::new(BINDING, MessageClass::Request).with_transaction_id(txid.0.into());
    if let Some(ChangeRequest { ip, port }) = change {
        let flags = match (ip, port) {
            (true, true) => Some(ChangeRequestFlags::ChangeIp | ChangeRequestFlags::ChangePort),
            (true, false) => Some(ChangeRequestFlags::ChangeIp.into()),
            (false, true) => Some(ChangeRequestFlags::ChangePort.into()),
            (false, false) => None,
        };
        message = message.with_attribute(ChangeRequestAttribute::new(flags));
    }
    if padded {
        message = message
            .with_attribute(Software::new(PADDING).expect("a short ASCII text"))
            .with_attribute(Fingerprint::default());
    }
    encode(&message.build())
}
/// Encodes a binding success with XOR-MAPPED-ADDRESS and FINGERPRINT as far as `max_len` allows (the address always).
pub fn encode_success(txid: TransactionId, mapped: SocketAddr, max_len: usize) -> Vec<u8> {
    let mapped = addr::canonical(mapped);
    let bare = 20 + if mapped.is_ipv4() { 12 } else { 24 };
    let mut message = StunMessageBuilder::new(BINDING, MessageClass::SuccessResponse)
        .with_transaction_id(txid.0.into())
        .with_attribute(XorMappedAddress::from(mapped));
    if bare + FINGERPRINT_LEN <= max_len {
        message = message.with_attribute(Fingerprint::default());
    }
    encode(&message.build())
}
/// Encodes a 420 answer that names unknown attributes: 12 bytes behind the header, and 2 for each attribute, which took 4
/// or more in the request.
pub fn encode_unknown_attributes(txid: TransactionId, unknown: &[u16]) -> Vec<u8> {
    let code = stun_rs::ErrorCode::new(UNKNOWN_ATTRIBUTE, "").expect("a code between 300 and 699");
    let unknown = &unknown[..unknown.len().min(MAX_UNKNOWN)];
    let message = StunMessageBuilder::new(BINDING, MessageClass::ErrorResponse)
        .with_transaction_id(txid.0.into())
        .with_attribute(ErrorCode::from(code))
        .with_attribute(UnknownAttributes::from(unknown));
    encode(&message.build())
}
/// Decodes a message. The datagram must hold it exactly.
pub fn decode(datagram: &[u8]) -> Result<Message, StunError> {
    if datagram.len() > MAX_LEN {
        return Err(StunError::Malformed);
    }
    let (message, consumed) = MessageDecoderBuilder::default()
        .build()
        .decode(datagram)
        .map_err(|_| StunError::Malformed)?;
    if consumed != datagram.len() || !fingerprint_holds(&message, datagram) {
        return Err(StunError::Malformed);
    }
    if message.method() != BINDING {
        return Err(StunError::NotBinding);
    }
    let txid = TransactionId(*message.transaction_id().as_bytes());
    match message.class() {
        MessageClass::Request => Ok(Message::Request {
            txid,
            len: datagram.len(),
            change: change_request(&message),
            unknown: unknown_required(&message),
        }),
        MessageClass::SuccessResponse => Ok(Message::Success {
            txid,
            mapped: mapped(&message).ok_or(StunError::NoAddress)?,
            other: message
                .get::<OtherAddress>()
                .and_then(|attribute| attribute.as_other_address().ok())
                .map(|attribute| addr::canonical(*attribute.socket_address())),
            origin: message
                .get::<ResponseOrigin>()
                .and_then(|attribute| attribute.as_response_origin().ok())
                .map(|attribute| addr::canonical(*attribute.socket_address())),
        }),
        MessageClass::ErrorResponse => Ok(Message::Failure {
            txid,
            code: message
                .get::<ErrorCode>()
                .and_then(|attribute| attribute.as_error_code().ok())
                .map(|attribute| attribute.error_code().error_code())
                .ok_or(StunError::Malformed)?,
        }),
        MessageClass::Indication => Err(StunError::NotBinding),
    }
}

fn encode(message: &StunMessage) -> Vec<u8> {
    // No message of ours is longer: a header, one or two addresses, and at most MAX_UNKNOWN names.
    let mut buffer = [0; 128];
    let length = MessageEncoderBuilder::default()
        .build()
        .encode(&mut buffer, message)
        .expect("the buffer holds every message of ours");
    buffer[..length].to_vec()
}

/// True without a FINGERPRINT, or with one that is right and last (RFC 8489 section 14.7). Bytes at the end that look
/// like one count as one, even if a damaged length before them has hidden it in another attribute.
fn fingerprint_holds(message: &StunMessage, datagram: &[u8]) -> bool {
    let last = datagram
        .split_last_chunk::<FINGERPRINT_LEN>()
        .filter(|(_, last)| last.starts_with(&FINGERPRINT_HEADER));
    match last {
        Some((covered, [.., a, b, c, d])) => Fingerprint::from([*a, *b, *c, *d]).validate(covered),
        None => message.get::<Fingerprint>().is_none(),
    }
}

fn mapped(message: &StunMessage) -> Option<SocketAddr> {
    let xored = message
        .get::<XorMappedAddress>()
        .and_then(|attribute| attribute.as_xor_mapped_address().ok())
        .map(|attribute| *attribute.socket_address());
    let plain = || {
        message
            .get::<MappedAddress>()
            .and_then(|attribute| attribute.as_mapped_address().ok())
            .map(|attribute| *attribute.socket_address())
    };
    xored.or_else(plain).map(addr::canonical)
}

fn change_request(message: &StunMessage) -> Option<ChangeRequest> {
    let attribute = message.get::<ChangeRequestAttribute>()?;
    let flags = attribute.as_change_request().ok()?.flags();
    Some(ChangeRequest {
        ip: flags.contains(ChangeRequestFlags::ChangeIp),
        port: flags.contains(ChangeRequestFlags::ChangePort),
    })
}

/// What a server must refuse: attributes that `stun-rs` does not know, and RESPONSE-PORT, which nobody here obeys (it
/// would send answers to a port that did not ask).
fn unknown_required(message: &StunMessage) -> Vec<u16> {
    message
        .attributes()
        .iter()
        .filter(|attribute| match attribute {
            StunAttribute::Unknown(unknown) => unknown.attribute_type().is_comprehension_required(),
            StunAttribute::ResponsePort(_) => true,
            _ => false,
        })
        .map(|attribute| attribute.attribute_type().as_u16())
        .take(MAX_UNKNOWN)
        .collect()
}
