//! STUN as it was before the magic cookie (RFC 3489): what old clients, Debian's `stun` among them, still send.
//! Answered as RFC 8489 section 11 has it: a bare MAPPED-ADDRESS. Only servers need this; we never ask this way.
//!
//! An answer goes where the request came from and nowhere else: RESPONSE-ADDRESS, which would have sent it to a
//! third party, is refused, as is a CHANGE-REQUEST that asks for what we cannot do.

use std::net::{IpAddr, SocketAddr};

const HEADER: usize = 20;
const BINDING_REQUEST: [u8; 2] = [0x00, 0x01];
const BINDING_RESPONSE: [u8; 2] = [0x01, 0x01];
const MAPPED_ADDRESS: u16 = 0x0001;
const CHANGE_REQUEST: u16 = 0x0003;
/// Attributes from here on may be ignored by who does not know them.
const FIRST_OPTIONAL: u16 = 0x8000;
const COOKIE: [u8; 4] = 0x2112_a442_u32.to_be_bytes();

/// Whether this claims to be a classic binding request: its type, no cookie, and a length that is true.
pub fn is_request(datagram: &[u8]) -> bool {
    datagram.len() >= HEADER
        && datagram[..2] == BINDING_REQUEST
        && datagram[4..8] != COOKIE
        && usize::from(u16::from_be_bytes([datagram[2], datagram[3]])) == datagram.len() - HEADER
}

/// The answer to a classic binding request, 32 bytes. None if it is no such request, asks for what we do not do,
/// or comes from an IPv6 address, which RFC 3489 cannot express.
pub fn answer(datagram: &[u8], from: SocketAddr) -> Option<Vec<u8>> {
    let IpAddr::V4(ip) = from.ip().to_canonical() else {
        return None;
    };
    if !is_request(datagram) || !attributes_are_harmless(&datagram[HEADER..]) {
        return None;
    }
    let mut answer = Vec::with_capacity(32);
    answer.extend_from_slice(&BINDING_RESPONSE);
    answer.extend_from_slice(&12_u16.to_be_bytes());
    // All sixteen bytes that are cookie and id today were the id then.
    answer.extend_from_slice(&datagram[4..HEADER]);
    answer.extend_from_slice(&MAPPED_ADDRESS.to_be_bytes());
    answer.extend_from_slice(&8_u16.to_be_bytes());
    // A zero byte, and 1 for IPv4.
    answer.extend_from_slice(&[0, 1]);
    answer.extend_from_slice(&from.port().to_be_bytes());
    answer.extend_from_slice(&ip.octets());
    Some(answer)
}

/// Whether the attributes are whole, and the mandatory ones among them only a CHANGE-REQUEST that changes nothing.
fn attributes_are_harmless(mut rest: &[u8]) -> bool {
    while let [t0, t1, l0, l1, value @ ..] = rest {
        let kind = u16::from_be_bytes([*t0, *t1]);
        let len = usize::from(u16::from_be_bytes([*l0, *l1]));
        let Some(next) = value.get(len.next_multiple_of(4)..) else {
            return false;
        };
        let harmless = kind >= FIRST_OPTIONAL || (kind == CHANGE_REQUEST && value[..len] == [0; 4]);
        if !harmless {
            return false;
        }
        rest = next;
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As Debian's `stun` 0.97 sends it: an id without a cookie, and a CHANGE-REQUEST of zeros.
    const REQUEST: [u8; 28] = [
        0x00, 0x01, 0x00, 0x08, 0x01, 0x2b, 0x66, 0x7a, 0xcc, 0xe0, 0x15, 0x16, 0xdd, 0xae, 0x82,
        0x04, 0xa0, 0x70, 0x2a, 0x29, 0x00, 0x03, 0x00, 0x04, 0x00, 0x00, 0x00, 0x00,
    ];

    fn from() -> SocketAddr {
        SocketAddr::from(([203, 0, 113, 65], 0x1234))
    }

    #[test]
    fn a_request_of_debians_client_is_answered_with_its_address() {
        let answer = answer(&REQUEST, from()).unwrap();
        assert_eq!(answer[..4], [0x01, 0x01, 0x00, 0x0c]);
        assert_eq!(answer[4..20], REQUEST[4..20]);
        assert_eq!(
            answer[20..],
            [
                0x00, 0x01, 0x00, 0x08, 0x00, 0x01, 0x12, 0x34, 203, 0, 113, 65
            ]
        );
        let mapped = SocketAddr::from(([0, 0, 0, 0, 0, 0xffff, 0xcb00, 0x7141], 0x1234));
        assert_eq!(
            super::answer(&REQUEST, mapped).as_ref(),
            Some(&answer),
            "a mapped address is the same address"
        );
    }

    #[test]
    fn what_would_send_the_answer_elsewhere_is_refused() {
        let mut change = REQUEST;
        change[27] = 0x06;
        assert_eq!(answer(&change, from()), None);
        let mut response_address = REQUEST;
        response_address[21] = 0x02;
        assert_eq!(answer(&response_address, from()), None);
    }

    #[test]
    fn what_is_no_classic_request_is_refused() {
        let mut with_cookie = REQUEST;
        with_cookie[4..8].copy_from_slice(&COOKIE);
        let mut response = REQUEST;
        response[0] = 0x01;
        let mut long = REQUEST.to_vec();
        long.push(0);
        let mut overlong_attribute = REQUEST;
        overlong_attribute[23] = 0x08;
        for bad in [
            &with_cookie[..],
            &response,
            &long,
            &overlong_attribute,
            &REQUEST[..27],
            &[],
        ] {
            assert_eq!(answer(bad, from()), None, "{bad:?}");
        }
        assert_eq!(
            answer(
                &REQUEST,
                SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 1))
            ),
            None
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(answer(&bytes, from()).is_none_or(|a| a.len() == 32));
        }

        #[test]
        fn any_attributes_are_answered_or_not(attributes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut datagram = REQUEST[..20].to_vec();
            datagram[2..4].copy_from_slice(&u16::try_from(attributes.len()).unwrap().to_be_bytes());
            datagram.extend(attributes);
            prop_assert!(answer(&datagram, from()).is_none_or(|a| a.len() == 32));
        }
    }
}
