//! Any bytes give a value or a typed error. Bytes at random seldom get past a length, so whole messages with a few bytes
//! changed are tried as well.

use bytes::{Bytes, BytesMut};
use byway_wire::demux::classify;
use byway_wire::pair::PairKeys;
use byway_wire::probe::{Index, Probe, ProbeBody, TxId};
use byway_wire::relay::control::Control;
use byway_wire::relay::cookie::{Cookie, CookieKey};
use byway_wire::relay::data;
use byway_wire::relay::frame::{Frame, StreamDecoder, encode_stream};
use byway_wire::signal::{Candidates, Mapping, Signal, SignalBody};
use byway_wire::stun::TransactionId;
use byway_wire::tunnel::{Greeting, Message, StreamHeader, StreamReply, Target};
use byway_wire::{
    ChannelId, NodeId, RelayUrl, SignedRecord, Ticket, fragment, probe, signal, stun,
};
use proptest::prelude::*;

use crate::support::{pair, record, secret};

/// Hands the bytes to every decoder there is.
fn feed(input: &[u8], keys: &PairKeys) {
    let owned = Bytes::copy_from_slice(input);
    let _ = classify(input);
    let _ = data::decode(input);
    let _ = Cookie::decode(input);
    let _ = fragment::decode(input);
    let _ = stun::decode(input);
    let _ = probe::peek_index(input);
    let _ = probe::open(keys, input);
    let _ = signal::open(keys, input);
    let _ = SignedRecord::decode(owned.clone());
    let _ = Control::decode(owned.clone());
    let _ = Frame::decode(owned.clone());
    let _ = Greeting::decode(owned.clone());
    let _ = StreamHeader::decode(owned.clone());
    let _ = StreamReply::decode(owned);
    let _ = NodeId::from_spki_der(input);
    let mut decoder = StreamDecoder::default();
    decoder.push(input);
    while let Ok(Some(_)) = decoder.next() {}
    feed_text(&String::from_utf8_lossy(input));
}

fn feed_text(text: &str) {
    let _ = text.parse::<NodeId>();
    let _ = NodeId::from_server_name(text);
    let _ = text.parse::<RelayUrl>();
    let _ = text.parse::<Target>();
    let _ = text.parse::<Ticket>();
}

/// One good message of every format.
fn samples() -> Vec<Vec<u8>> {
    let (ours, _) = pair(1, 2);
    let mut stream = BytesMut::new();
    encode_stream(&Control::Record(record(1)), &mut stream);
    let mut greeting = BytesMut::new();
    Greeting {
        record: record(1),
        proof: Some([1; 32]),
    }
    .encode(&mut greeting);
    let mut header = BytesMut::new();
    StreamHeader::Connect("localhost:80".parse().unwrap()).encode(&mut header);
    let channel = ChannelId::from_u64(9);
    let txid = TransactionId([1; 12]);
    let mapped = "192.0.2.1:1".parse().unwrap();
    let ping = Probe {
        counter: 1,
        body: ProbeBody::Ping {
            txid: TxId([1; 12]),
        },
    };
    let candidates = Signal {
        counter: 2,
        body: SignalBody::Candidates(Candidates {
            index: Index(1),
            generation: 1,
            list: Vec::new(),
            mapping: Mapping::Unknown,
        }),
    };
    let ticket = Ticket {
        node: secret(1).node_id(),
        relays: Vec::new(),
        secret: None,
        name: None,
    };
    vec![
        stream[4..].to_vec(),
        Frame::Control(Control::Record(record(1))).encode().to_vec(),
        Frame::Data {
            channel,
            segment: 100,
            payload: Bytes::from(vec![1; 250]),
        }
        .encode()
        .to_vec(),
        stream.to_vec(),
        greeting[4..].to_vec(),
        header[4..].to_vec(),
        record(1).as_bytes().to_vec(),
        CookieKey::from_bytes([1; 32])
            .make(channel, mapped, 1)
            .encode(),
        stun::encode_request(txid, true, None),
        stun::encode_success(txid, mapped, 100),
        probe::seal(&ours, Index(1), &[1; 24], &ping, 0),
        signal::seal(&ours, &[1; 24], &candidates),
        fragment::split(1, &[1; 100])[0].clone(),
        ticket.to_string().into_bytes(),
        "https://[2001:db8::1]:443".as_bytes().to_vec(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_bytes_never_panic(input in proptest::collection::vec(any::<u8>(), 0..2000)) {
        feed(&input, &pair(1, 2).1);
    }

    #[test]
    fn any_text_never_panics(text in ".{0,200}") {
        feed_text(&text);
        feed_text(&format!("byway1{text}"));
        feed_text(&format!("https://{text}"));
        feed_text(&format!("{text}.byway.invalid"));
    }

    #[test]
    fn damaged_messages_never_panic(
        which: proptest::sample::Index,
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4),
        cut: proptest::sample::Index,
        grow in 0usize..4,
    ) {
        let samples = samples();
        let mut input = which.get(&samples).clone();
        for (position, byte) in changes {
            let position = position.index(input.len());
            input[position] = byte;
        }
        let keys = pair(1, 2).1;
        feed(&input, &keys);
        input.truncate(cut.index(input.len()));
        feed(&input, &keys);
        input.resize(input.len() + grow, 0xff);
        feed(&input, &keys);
    }
}
