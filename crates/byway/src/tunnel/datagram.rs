//! What QUIC datagrams inside a tunnel carry.
//!
//! A datagram begins with the number of its flow as a QUIC variable-length integer (RFC 9000, section 16). Flow 0 is
//! the embedding program's; other numbers are for forwarded UDP, which this version does not know and drops. An empty
//! datagram belongs to no flow: the path layer sends one to make the other side acknowledge something.

use bytes::{BufMut, Bytes, BytesMut};

/// Bytes in front of the embedding program's data.
pub(super) const HEADER: usize = 1;
/// Flow 0 as a variable-length integer.
const APPLICATION: u8 = 0;

/// Puts the flow number in front.
pub(super) fn application(data: &[u8]) -> Bytes {
    let mut datagram = BytesMut::with_capacity(HEADER + data.len());
    datagram.put_u8(APPLICATION);
    datagram.put_slice(data);
    datagram.freeze()
}

/// The embedding program's data, if the datagram is of its flow.
pub(super) fn read_application(mut datagram: Bytes) -> Option<Bytes> {
    if datagram.first() != Some(&APPLICATION) {
        return None;
    }
    Some(datagram.split_off(HEADER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn application_datagrams_come_back_and_others_are_dropped() {
        assert_eq!(
            read_application(application(b"abc")).as_deref(),
            Some(&b"abc"[..])
        );
        assert_eq!(
            read_application(application(b"")).as_deref(),
            Some(&b""[..])
        );
        assert_eq!(read_application(Bytes::new()), None);
        assert_eq!(read_application(Bytes::from_static(b"\x01flow one")), None);
        assert_eq!(
            read_application(Bytes::from_static(b"\x40\x00long zero")),
            None
        );
    }
}
