use bytes::{Bytes, BytesMut};
use byway_wire::tunnel::{
    CloseCode, Greeting, LENGTH_PREFIX, MAX_DETAIL, MAX_MESSAGE, Message, MessageError, Refusal,
    Refused, StreamHeader, StreamReply, Target, TargetError, decode_length,
};
use proptest::prelude::*;

use crate::support::record;

/// Writes a message and reads it back, length first.
fn round_trip<M: Message>(message: &M) -> M {
    let mut out = BytesMut::from("before");
    message.encode(&mut out);
    let written = out.split_off(6);
    assert_eq!(out, "before");
    let (prefix, body) = written.split_first_chunk::<LENGTH_PREFIX>().unwrap();
    assert_eq!(decode_length(*prefix), Ok(body.len()));
    M::decode(Bytes::copy_from_slice(body)).unwrap()
}

#[test]
fn greetings_round_trip() {
    for proof in [None, Some([7; 32])] {
        let greeting = Greeting {
            record: record(1),
            proof,
        };
        let read = round_trip(&greeting);
        assert_eq!((read.record, read.proof), (record(1), proof));
    }
}

#[test]
fn a_greeting_with_a_forged_record_or_an_odd_proof_is_refused() {
    let good = record(1);
    let message = |record: &[u8], proof: &[u8]| {
        let mut body = vec![
            0x0a,
            (record.len() % 128) as u8 | 0x80,
            (record.len() / 128) as u8,
        ];
        body.extend_from_slice(record);
        body.extend_from_slice(&[0x12, proof.len() as u8]);
        body.extend_from_slice(proof);
        Greeting::decode(body.into()).map(|greeting| greeting.proof)
    };
    assert_eq!(message(good.as_bytes(), &[1; 32]), Ok(Some([1; 32])));
    assert_eq!(
        message(good.as_bytes(), &[1; 31]),
        Err(MessageError::Malformed)
    );
    let mut forged = good.as_bytes().to_vec();
    forged[50] ^= 1;
    assert_eq!(message(&forged, &[1; 32]), Err(MessageError::Malformed));
}

#[test]
fn stream_headers_and_replies_round_trip() {
    for header in [
        StreamHeader::Connect(Target::tcp("127.0.0.1", 22).unwrap()),
        StreamHeader::Connect(Target::tcp("::1", 65535).unwrap()),
        StreamHeader::Application,
        StreamHeader::Echo,
        StreamHeader::Unknown,
    ] {
        assert_eq!(round_trip(&header), header);
    }
    assert_eq!(round_trip(&StreamReply::Connected), StreamReply::Connected);
    for reason in [
        Refusal::Refused,
        Refusal::Denied,
        Refusal::Unreachable,
        Refusal::TimedOut,
        Refusal::Unsupported,
        Refusal::Exhausted,
        Refusal::Unknown,
    ] {
        let reply = StreamReply::Refused(Refused {
            reason,
            detail: "what the system said".into(),
        });
        assert_eq!(round_trip(&reply), reply);
    }
}

#[test]
fn kinds_of_a_newer_version_are_unknown_not_errors() {
    // Field 15, empty: a stream header kind that does not exist yet.
    let header = StreamHeader::decode(Bytes::from_static(&[0x7a, 0]));
    assert_eq!(header, Ok(StreamHeader::Unknown));
    // Connect (field 1) to a target of kind 15.
    let header = StreamHeader::decode(Bytes::from_static(&[0x0a, 2, 0x7a, 0]));
    assert_eq!(header, Ok(StreamHeader::Unknown));
    // Refused (field 2) for reason 99.
    let reply = StreamReply::decode(Bytes::from_static(&[0x12, 2, 0x08, 99])).unwrap();
    assert!(matches!(
        reply,
        StreamReply::Refused(Refused {
            reason: Refusal::Unknown,
            ..
        })
    ));
}

#[test]
fn a_reply_must_say_yes_or_no() {
    for body in [&[] as &[u8], &[0x7a, 0]] {
        let reply = StreamReply::decode(Bytes::copy_from_slice(body));
        assert_eq!(reply, Err(MessageError::Malformed));
    }
}

#[test]
fn a_target_is_checked_on_arrival() {
    // Connect { Tcp { host, port } } with one-byte lengths.
    let connect = |host: &str, port: &[u8]| {
        let tcp = [
            &[0x0a, host.len() as u8][..],
            host.as_bytes(),
            &[0x10],
            port,
        ]
        .concat();
        let target = [&[0x0a, tcp.len() as u8][..], &tcp].concat();
        let body = [&[0x0a, target.len() as u8][..], &target].concat();
        StreamHeader::decode(body.into())
    };
    assert!(connect("localhost", &[80]).is_ok());
    for (host, port) in [
        ("", &[80u8] as &[u8]),
        ("localhost", &[0]),
        ("localhost", &[0x80, 0x80, 0x04]),
        ("local host", &[80]),
        ("a\nb", &[80]),
        ("[::1]", &[80]),
    ] {
        assert_eq!(
            connect(host, port),
            Err(MessageError::Malformed),
            "{host:?}"
        );
    }
}

#[test]
fn long_texts_are_cut_in_writing_and_refused_in_reading() {
    let reply = StreamReply::Refused(Refused {
        reason: Refusal::Denied,
        detail: "x".repeat(MAX_DETAIL + 1),
    });
    let StreamReply::Refused(read) = round_trip(&reply) else {
        panic!("a refusal stays one");
    };
    assert_eq!(read.detail.len(), MAX_DETAIL);
    let inner = [&[0x12, 0x81, 0x02][..], &[b'x'; MAX_DETAIL + 1]].concat();
    let body = [&[0x12, 0x84, 0x02][..], &inner].concat();
    assert_eq!(
        StreamReply::decode(body.into()),
        Err(MessageError::Malformed)
    );
}

#[test]
fn messages_beyond_the_limit_are_refused_before_they_are_read() {
    assert_eq!(decode_length([0, 0, 0x40, 0]), Ok(MAX_MESSAGE));
    assert_eq!(decode_length([0, 0, 0x40, 1]), Err(MessageError::TooLong));
    assert_eq!(decode_length([0xff; 4]), Err(MessageError::TooLong));
    let long = Bytes::from(vec![0; MAX_MESSAGE + 1]);
    assert_eq!(StreamReply::decode(long), Err(MessageError::TooLong));
}

#[test]
fn targets_read_as_people_write_them() {
    for (text, canonical) in [
        ("22", "127.0.0.1:22"),
        ("localhost:8080", "localhost:8080"),
        ("Db.Internal.:5432", "db.internal:5432"),
        ("10.0.0.1:1", "10.0.0.1:1"),
        ("[::1]:65535", "[::1]:65535"),
        ("[::ffff:127.0.0.1]:80", "127.0.0.1:80"),
    ] {
        assert_eq!(text.parse::<Target>().unwrap().to_string(), canonical);
    }
    for bad in [
        "",
        "0",
        "65536",
        "-1",
        "+1",
        ":80",
        "host",
        "host:",
        "host:0",
        "host:http",
        "::1:80",
        "[::1]",
        "[::1]80",
        "[host]:80",
        "a b:80",
        "host:80:90",
    ] {
        assert_eq!(bad.parse::<Target>(), Err(TargetError), "{bad:?}");
    }
}

#[test]
fn close_codes_read_back() {
    for code in [
        CloseCode::Done,
        CloseCode::Protocol,
        CloseCode::NotAllowed,
        CloseCode::Shutdown,
        CloseCode::Replaced,
    ] {
        assert_eq!(CloseCode::from_code(code as u64), Some(code));
    }
    assert_eq!(CloseCode::from_code(99), None);
}

proptest! {
    #[test]
    fn targets_round_trip(host in "[a-z]{1,10}(\\.[a-z]{1,10}){0,3}", port in 1..=u16::MAX) {
        let target = Target::tcp(&host, port).unwrap();
        prop_assert_eq!(target.to_string().parse(), Ok(target.clone()));
        let header = StreamHeader::Connect(target);
        prop_assert_eq!(round_trip(&header), header);
    }
}
