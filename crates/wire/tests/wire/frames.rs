use bytes::{Bytes, BytesMut};
use byway_wire::ChannelId;
use byway_wire::relay::control::{Control, ControlError, MAX_FRAME};
use byway_wire::relay::frame::{
    DATA_HEADER_LEN, Frame, FrameError, MAX_DATA, MAX_SEGMENTS, StreamDecoder, data_header,
    encode_stream,
};
use proptest::prelude::*;

use crate::support::{bytes, channel};

fn data(channel: u64, segment: u16, len: usize) -> Bytes {
    let mut message = data_header(ChannelId::from_u64(channel), segment).to_vec();
    message.resize(DATA_HEADER_LEN + len, 7);
    message.into()
}

#[test]
fn a_data_frame_is_laid_out_as_documented() {
    assert_eq!(
        data_header(ChannelId::from_u64(0x0102), 1200),
        [0x80, 0, 0, 0, 0, 0, 1, 2, 0x04, 0xb0]
    );
}

#[test]
fn data_frames_out_of_range_are_refused() {
    for (segment, len) in [
        (0, 10),
        (10, 0),
        (u16::MAX, MAX_DATA + 1),
        // One byte a datagram: cheap to send, dear to forward.
        (1, MAX_SEGMENTS + 1),
        (100, 100 * MAX_SEGMENTS + 1),
    ] {
        let decoded = Frame::decode(data(1, segment, len));
        assert_eq!(
            decoded.unwrap_err(),
            FrameError::Malformed,
            "{segment} {len}"
        );
    }
    assert!(Frame::decode(data(1, 1, MAX_SEGMENTS)).is_ok());
    assert!(Frame::decode(data(1, 1200, MAX_DATA)).is_ok());
    for len in 0..DATA_HEADER_LEN {
        let cut = data(1, 1, 1).slice(..len);
        assert_eq!(Frame::decode(cut).unwrap_err(), FrameError::Malformed);
    }
}

#[test]
fn frames_of_a_newer_version_are_ignored() {
    for first in (1..=255u8).filter(|first| *first != 0x80) {
        let decoded = Frame::decode(Bytes::from(vec![first, 1, 2]));
        assert!(matches!(decoded, Ok(Frame::Unknown)));
    }
    assert!(matches!(
        Frame::decode(Frame::Unknown.encode()),
        Ok(Frame::Unknown)
    ));
}

#[test]
fn a_control_frame_carries_a_control_message_or_its_fault() {
    let frame = Frame::Control(Control::Ping { token: 3 }).encode();
    assert_eq!(frame[0], 0);
    assert!(matches!(
        Frame::decode(frame),
        Ok(Frame::Control(Control::Ping { token: 3 }))
    ));
    let fault = Frame::decode(Bytes::from_static(&[0, 0xff])).unwrap_err();
    assert!(matches!(
        fault,
        FrameError::Control(ControlError::Malformed(_))
    ));
    let mut long = vec![0; MAX_FRAME + 2];
    long[0] = 0;
    let fault = Frame::decode(long.into()).unwrap_err();
    assert_eq!(fault, FrameError::Control(ControlError::TooLong));
}

#[test]
fn a_stream_cut_anywhere_gives_the_same_messages() {
    let mut stream = BytesMut::new();
    for token in 0..4 {
        encode_stream(&Control::Ping { token }, &mut stream);
    }
    for cut in 0..=stream.len() {
        let mut decoder = StreamDecoder::default();
        let mut tokens = Vec::new();
        for part in [&stream[..cut], &stream[cut..]] {
            decoder.push(part);
            while let Some(message) = decoder.next().unwrap() {
                let Control::Ping { token } = message else {
                    panic!("a ping");
                };
                tokens.push(token);
            }
        }
        assert_eq!(tokens, [0, 1, 2, 3]);
    }
}

#[test]
fn a_length_beyond_the_limit_fails_before_its_bytes_arrive() {
    let mut decoder = StreamDecoder::default();
    decoder.push(&(MAX_FRAME as u32 + 1).to_be_bytes());
    assert_eq!(decoder.next().unwrap_err(), ControlError::TooLong);
}

#[test]
fn a_failed_stream_stays_failed() {
    let mut decoder = StreamDecoder::default();
    decoder.push(&[0, 0, 0, 1, 0xff]);
    let fault = decoder.next().unwrap_err();
    let mut good = BytesMut::new();
    encode_stream(&Control::Ping { token: 1 }, &mut good);
    decoder.push(&good);
    assert_eq!(decoder.next().unwrap_err(), fault);
}

proptest! {
    #[test]
    fn data_frames_round_trip(channel in channel(), segment in 100..=u16::MAX, payload in bytes(3000)) {
        prop_assume!(!payload.is_empty());
        let frame = Frame::Data { channel, segment, payload: payload.clone() };
        let Frame::Data { channel: c, segment: s, payload: p } = Frame::decode(frame.encode()).unwrap() else {
            panic!("data stays data");
        };
        prop_assert_eq!((c, s, p), (channel, segment, payload));
    }
}
