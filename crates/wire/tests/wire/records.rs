use bytes::Bytes;
use byway_wire::key::Purpose;
use byway_wire::record::{MAX_LEN, MAX_RELAYS, RecordError};
use byway_wire::relay::Pin;
use byway_wire::{Instance, NodeInstance, ProbePublic, Record, RelayUrl, SignedRecord};
use proptest::prelude::*;
use prost::Message;

use crate::support::{probe_secret, record, secret, url};

/// The bytes of a record with other fields behind the fixed part, signed by its own key.
fn resigned(n: u8, fields: &[u8]) -> Bytes {
    let good = record(n);
    let mut bytes = good.as_bytes()[..89].to_vec();
    bytes.extend_from_slice(fields);
    let signature = secret(n).sign(Purpose::Record, &bytes);
    bytes.extend_from_slice(&signature);
    bytes.into()
}

#[test]
fn a_record_is_laid_out_as_documented() {
    let good = record(1);
    let bytes = good.as_bytes();
    assert_eq!(bytes[0], 1);
    assert_eq!(&bytes[1..33], secret(1).node_id().as_bytes());
    assert_eq!(bytes[33..41], 1u64.to_be_bytes());
    assert_eq!(bytes[41..73], probe_secret(1).public().0);
    assert_eq!(bytes[73..81], 3u64.to_be_bytes());
    assert_eq!(bytes[81..89], 4u64.to_be_bytes());
    assert_eq!(&bytes[91..bytes.len() - 64], b"https://relay.example:443");
}

#[test]
fn no_bit_of_a_record_can_be_changed() {
    let good = record(1);
    for bit in 0..good.as_bytes().len() * 8 {
        let mut forged = good.as_bytes().to_vec();
        forged[bit / 8] ^= 1 << (bit % 8);
        assert!(SignedRecord::decode(forged.into()).is_err(), "bit {bit}");
    }
}

#[test]
fn each_fault_of_a_record_has_its_name() {
    let good = record(1);
    let changed = |change: fn(&mut Vec<u8>)| {
        let mut bytes = good.as_bytes().to_vec();
        change(&mut bytes);
        SignedRecord::decode(bytes.into()).unwrap_err()
    };
    assert_eq!(changed(Vec::clear), RecordError::Length);
    assert_eq!(changed(|b| b.truncate(152)), RecordError::Length);
    assert_eq!(changed(|b| b.resize(MAX_LEN + 1, 0)), RecordError::Length);
    assert_eq!(changed(|b| b[0] = 2), RecordError::Version(2));
    assert_eq!(changed(|b| b[1..33].fill(0)), RecordError::Key);
    assert_eq!(changed(|b| b[40] ^= 1), RecordError::Signature);
    assert_eq!(changed(|b| b.truncate(153)), RecordError::Signature);
    let malformed = SignedRecord::decode(resigned(1, &[0x0a, 0xff]));
    assert_eq!(malformed.unwrap_err(), RecordError::Malformed);
}

#[test]
fn a_signature_for_another_purpose_is_no_records() {
    let good = record(1);
    let mut bytes = good.as_bytes()[..good.as_bytes().len() - 64].to_vec();
    let signature = secret(1).sign(Purpose::LinkProof, &bytes);
    bytes.extend_from_slice(&signature);
    let error = SignedRecord::decode(bytes.into()).unwrap_err();
    assert_eq!(error, RecordError::Signature);
}

#[test]
fn fields_of_a_newer_version_are_skipped_and_passed_on() {
    /// A later version's fields: a URL of a kind unknown here, and field 9.
    #[derive(Clone, PartialEq, Message)]
    struct Newer {
        #[prost(string, repeated, tag = "1")]
        relays: Vec<String>,
        #[prost(string, tag = "9")]
        more: String,
    }
    let fields = Newer {
        relays: vec![
            "masque://relay.example".into(),
            "https://relay.example:443".into(),
        ],
        more: "something".into(),
    };
    let bytes = resigned(1, &fields.encode_to_vec());
    let read = SignedRecord::decode(bytes.clone()).unwrap();
    assert_eq!(read.record(), record(1).record());
    assert_eq!(read.as_bytes(), &bytes);
}

#[test]
fn a_node_signs_for_itself_only() {
    let mut foreign = record(2).record().clone();
    foreign.seq = 9;
    let signed = SignedRecord::sign(&secret(1), foreign);
    assert_eq!(signed.node(), secret(1).node_id());
    let read = SignedRecord::decode(signed.as_bytes().clone()).unwrap();
    assert_eq!(read.record(), signed.record());
}

#[test]
fn relays_that_do_not_fit_are_left_out_last_first() {
    let relays: Vec<RelayUrl> = (0..12)
        .map(|n| {
            let host = format!("{n}.{}example", "relay.".repeat(20));
            RelayUrl::new(&host, 443, Some(Pin([n; 32]))).unwrap()
        })
        .collect();
    let mut long = record(1).record().clone();
    long.relays.clone_from(&relays);
    let signed = SignedRecord::sign(&secret(1), long);
    assert!(signed.as_bytes().len() <= MAX_LEN);
    let kept = &signed.record().relays;
    assert!(!kept.is_empty() && kept.len() < MAX_RELAYS);
    assert_eq!(kept[..], relays[..kept.len()]);
    let read = SignedRecord::decode(signed.as_bytes().clone()).unwrap();
    assert_eq!(read.record(), signed.record());
}

#[test]
fn newer_means_a_higher_epoch_and_then_a_higher_seq() {
    let of = |epoch, seq| {
        let mut record = record(1).record().clone();
        (record.epoch, record.seq) = (epoch, seq);
        SignedRecord::sign(&secret(1), record)
    };
    assert!(of(2, 0).is_newer_than(&of(1, 9)));
    assert!(of(1, 2).is_newer_than(&of(1, 1)));
    assert!(!of(1, 1).is_newer_than(&of(1, 1)));
    assert!(!of(1, 9).is_newer_than(&of(2, 0)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn records_round_trip(
        seed in 0u8..8,
        instance: u64,
        probe_key: [u8; 32],
        epoch: u64,
        seq: u64,
        relays in proptest::collection::vec(url(), 0..=MAX_RELAYS),
    ) {
        let key = secret(seed);
        let record = Record {
            id: NodeInstance { node: key.node_id(), instance: Instance(instance) },
            probe_key: ProbePublic(probe_key),
            epoch,
            seq,
            relays,
        };
        let signed = SignedRecord::sign(&key, record.clone());
        prop_assert!(signed.as_bytes().len() <= MAX_LEN);
        let read = SignedRecord::decode(signed.as_bytes().clone()).unwrap();
        prop_assert_eq!(&read, &signed);
        prop_assert!(record.relays.starts_with(&read.record().relays));
    }
}
