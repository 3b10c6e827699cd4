//! STUN: the vectors of RFC 5769, our own messages, and what servers and strangers send.

use byway_wire::demux::{Kind, classify};
use byway_wire::stun::{
    self, ChangeRequest, MAX_LEN, Message, PADDED_LEN, StunError, TransactionId,
};
use proptest::prelude::*;
use stun_rs::{DecoderContextBuilder, HMACKey, MessageDecoderBuilder};

use crate::support::addr;

const PASSWORD: &str = "VOkJxbRl1RmTxUk/WvJxBt";

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    data_encoding::HEXLOWER.decode(digits.as_bytes()).unwrap()
}

/// RFC 5769 section 2.1.
fn sample_request() -> Vec<u8> {
    hex("00010058 2112a442 b7e7a701bc34d686fa87dfae
         80220010 5354554e207465737420636c69656e74
         00240004 6e0001ff
         80290008 932ff9b151263b36
         00060009 6576746a3a68367659202020
         00080014 9aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2
         80280004 e57a3bcf")
}

/// RFC 5769 section 2.2.
fn sample_ipv4_response() -> Vec<u8> {
    hex("0101003c 2112a442 b7e7a701bc34d686fa87dfae
         8022000b 7465737420766563746f7220
         00200008 0001a147e112a643
         00080014 2b91f599fd9e90c38c7489f92af9ba53f06be7d7
         80280004 c07d4c96")
}

/// RFC 5769 section 2.3.
fn sample_ipv6_response() -> Vec<u8> {
    hex("01010048 2112a442 b7e7a701bc34d686fa87dfae
         8022000b 7465737420766563746f7220
         00200014 0002a1470113a9faa5d3f179bc25f4b5bed2b9d9
         00080014 a382954e4be67bf11784c97c8292c275bfe3ed41
         80280004 c8fb0b4c")
}

/// RFC 5769 section 2.4: long-term credentials, no FINGERPRINT.
fn sample_long_term_request() -> Vec<u8> {
    hex("00010060 2112a442 78ad3433c6ad72c029da412e
         00060012 e3839ee38388e383aae38383e382afe382b90000
         0015001c 662f2f3439396b393534643a4f4c33346f4c394653547679363473 41
         0014000b 6578616d706c652e6f726700
         00080014 f67024656dd64a3e02b8e0712e85c9a28ca89666")
}

const TXID: TransactionId = TransactionId([
    0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae,
]);

#[test]
fn rfc5769_requests_decode() {
    let Ok(Message::Request {
        txid,
        len,
        change,
        unknown,
    }) = stun::decode(&sample_request())
    else {
        panic!("section 2.1");
    };
    assert_eq!((txid, len, change), (TXID, 108, None));
    // PRIORITY belongs to ICE, which is not spoken here; ICE-CONTROLLED is comprehension-optional.
    assert_eq!(unknown, [0x0024]);

    let Ok(Message::Request { txid, unknown, .. }) = stun::decode(&sample_long_term_request())
    else {
        panic!("section 2.4");
    };
    assert_eq!(txid.0[..4], [0x78, 0xad, 0x34, 0x33]);
    assert!(unknown.is_empty());
}

#[test]
fn rfc5769_responses_decode() {
    for (datagram, expected) in [
        (sample_ipv4_response(), "192.0.2.1:32853"),
        (
            sample_ipv6_response(),
            "[2001:db8:1234:5678:11:2233:4455:6677]:32853",
        ),
    ] {
        let expected = Message::Success {
            txid: TXID,
            mapped: expected.parse().unwrap(),
            other: None,
            origin: None,
        };
        assert_eq!(stun::decode(&datagram), Ok(expected));
    }
}

/// Guards the vectors above against a slip of the pen: their own integrity checks hold.
#[test]
fn rfc5769_vectors_are_copied_right() {
    let decoder = MessageDecoderBuilder::default()
        .with_context(
            DecoderContextBuilder::default()
                .with_key(HMACKey::new_short_term(PASSWORD).unwrap())
                .with_validation()
                .build(),
        )
        .build();
    for datagram in [
        sample_request(),
        sample_ipv4_response(),
        sample_ipv6_response(),
    ] {
        assert_eq!(decoder.decode(&datagram).unwrap().1, datagram.len());
    }
}

#[test]
fn no_bit_of_a_fingerprinted_message_can_be_changed() {
    for good in [
        sample_ipv4_response(),
        sample_ipv6_response(),
        stun::encode_request(TXID, true, None),
    ] {
        assert!(stun::decode(&good).is_ok());
        for bit in 0..good.len() * 8 {
            let mut forged = good.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            // The four bytes that say "this is a FINGERPRINT" are not covered: without them there is none to check.
            let header = (good.len() - 8..good.len() - 4).contains(&(bit / 8));
            let refused = stun::decode(&forged) == Err(StunError::Malformed);
            assert!(refused || header, "bit {bit} of {good:02x?}");
        }
    }
}

#[test]
fn a_padded_request_is_as_long_as_our_longest_answer() {
    let bare = stun::encode_request(TXID, false, None);
    assert_eq!(bare.len(), 20);
    let padded = stun::encode_request(TXID, true, None);
    assert_eq!(padded.len(), PADDED_LEN);
    for mapped in ["192.0.2.1:1", "[2001:db8::1]:1"] {
        let mapped = mapped.parse().unwrap();
        let answer = stun::encode_success(TXID, mapped, padded.len());
        assert!(answer.len() <= padded.len());
        assert_eq!(answer[answer.len() - 8..][..4], [0x80, 0x28, 0, 4]);
        // A bare request gets the address and nothing else.
        let answer = stun::encode_success(TXID, mapped, bare.len());
        assert_eq!(answer.len(), if mapped.is_ipv4() { 32 } else { 44 });
    }
}

#[test]
fn change_requests_are_told() {
    for (ip, port) in [(false, false), (false, true), (true, false), (true, true)] {
        let change = Some(ChangeRequest { ip, port });
        for padded in [false, true] {
            let request = stun::encode_request(TXID, padded, change);
            let expected = Message::Request {
                txid: TXID,
                len: request.len(),
                change,
                unknown: Vec::new(),
            };
            assert_eq!(stun::decode(&request), Ok(expected));
        }
    }
}

/// A message with the given type and attributes.
fn message(kind: u16, attributes: &[u8]) -> Vec<u8> {
    let mut out = kind.to_be_bytes().to_vec();
    out.extend_from_slice(&(attributes.len() as u16).to_be_bytes());
    out.extend_from_slice(&[0x21, 0x12, 0xa4, 0x42]);
    out.extend_from_slice(&TXID.0);
    out.extend_from_slice(attributes);
    out
}

#[test]
fn unknown_required_attributes_are_named_and_optional_ones_skipped() {
    let attributes = hex("7ffe0004 00000000  fffe0004 00000000  00270004 12340000");
    let Ok(Message::Request { unknown, .. }) = stun::decode(&message(0x0001, &attributes)) else {
        panic!("still a request");
    };
    // RESPONSE-PORT is known and refused.
    assert_eq!(unknown, [0x7ffe, 0x0027]);
    let answer = stun::encode_unknown_attributes(TXID, &unknown);
    let expected = Message::Failure {
        txid: TXID,
        code: 420,
    };
    assert_eq!(stun::decode(&answer), Ok(expected));
    assert_eq!(answer[answer.len() - 4..], [0x7f, 0xfe, 0x00, 0x27]);
    assert_eq!(answer.len(), 32 + 2 * unknown.len());
}

#[test]
fn many_unknown_attributes_do_not_make_a_long_list() {
    let attributes = hex("7ffe0000").repeat(200);
    let Ok(Message::Request { unknown, len, .. }) = stun::decode(&message(0x0001, &attributes))
    else {
        panic!("still a request");
    };
    assert_eq!(unknown.len(), 16);
    assert!(stun::encode_unknown_attributes(TXID, &unknown).len() < len);
    assert!(stun::encode_unknown_attributes(TXID, &[1; 500]).len() < 128);
}

#[test]
fn old_servers_that_give_only_mapped_address_are_understood() {
    // RFC 3489: MAPPED-ADDRESS, SOURCE-ADDRESS (0x0004), CHANGED-ADDRESS (0x0005).
    let attributes = hex("00010008 00010050c0000201  00040008 00010d96c6336401
                          00050008 00010d97c6336402");
    let Ok(Message::Success { mapped, .. }) = stun::decode(&message(0x0101, &attributes)) else {
        panic!("a success");
    };
    assert_eq!(mapped, "192.0.2.1:80".parse().unwrap());
}

#[test]
fn rfc5780_addresses_are_told() {
    // MAPPED-ADDRESS, OTHER-ADDRESS (0x802c), RESPONSE-ORIGIN (0x802b).
    let attributes = hex("00010008 00010050c0000201  802c0008 00010d97c6336402
                          802b0008 00010d96c6336401");
    let Ok(Message::Success { other, origin, .. }) = stun::decode(&message(0x0101, &attributes))
    else {
        panic!("a success");
    };
    assert_eq!(other, Some("198.51.100.2:3479".parse().unwrap()));
    assert_eq!(origin, Some("198.51.100.1:3478".parse().unwrap()));
}

#[test]
fn each_fault_has_its_name() {
    let request = message(0x0001, &[]);
    for len in 0..request.len() {
        assert_eq!(stun::decode(&request[..len]), Err(StunError::Malformed));
    }
    let trailing = [&request[..], &[0]].concat();
    assert_eq!(stun::decode(&trailing), Err(StunError::Malformed));
    let long = message(0x0001, &hex("fffe0000").repeat(MAX_LEN / 4));
    assert_eq!(stun::decode(&long), Err(StunError::Malformed));
    // An indication, and an Allocate request of TURN.
    assert_eq!(
        stun::decode(&message(0x0011, &[])),
        Err(StunError::NotBinding)
    );
    assert_eq!(
        stun::decode(&message(0x0003, &[])),
        Err(StunError::NotBinding)
    );
    assert_eq!(
        stun::decode(&message(0x0101, &[])),
        Err(StunError::NoAddress)
    );
    // An error without a code.
    assert_eq!(
        stun::decode(&message(0x0111, &[])),
        Err(StunError::Malformed)
    );
    // A FINGERPRINT that is wrong, and one that is not last.
    let wrong = message(0x0001, &hex("80280004 00000000"));
    assert_eq!(stun::decode(&wrong), Err(StunError::Malformed));
    let mut padded = stun::encode_request(TXID, true, None);
    padded.extend_from_slice(&hex("fffe0000"));
    padded[3] += 4;
    assert_eq!(stun::decode(&padded), Err(StunError::Malformed));
}

proptest! {
    #[test]
    fn successes_round_trip(txid: [u8; 12], mapped in addr(), max_len in 0usize..100) {
        let txid = TransactionId(txid);
        let datagram = stun::encode_success(txid, mapped, max_len);
        prop_assert_eq!(classify(&datagram), Kind::Stun);
        let expected = Message::Success { txid, mapped, other: None, origin: None };
        prop_assert_eq!(stun::decode(&datagram), Ok(expected));
    }
}
