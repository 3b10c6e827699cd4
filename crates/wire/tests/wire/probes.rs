//! Pair keys and probes.

use std::net::SocketAddr;

use byway_wire::demux::{Kind, classify};
use byway_wire::pair::{PairKeys, WeakProbeKey};
use byway_wire::probe::{
    self, Index, MAX_LEN, MIN_LEN, Probe, ProbeBody, ProbeError, TxId, peek_index,
};
use byway_wire::{Instance, ProbePublic};
use proptest::prelude::*;

use crate::support::{addr, instance, pair, probe_secret};

fn ping() -> Probe {
    Probe {
        counter: 7,
        body: ProbeBody::Ping {
            txid: TxId([9; 12]),
        },
    }
}

fn probe_strategy() -> impl Strategy<Value = Probe> {
    let txid = || any::<[u8; 12]>().prop_map(TxId);
    let body = prop_oneof![
        txid().prop_map(|txid| ProbeBody::Ping { txid }),
        (txid(), proptest::option::of(addr()))
            .prop_map(|(txid, observed)| ProbeBody::Pong { txid, observed }),
        txid().prop_map(|txid| ProbeBody::Suspect { txid }),
    ];
    (any::<u64>(), body).prop_map(|(counter, body)| Probe { counter, body })
}

#[test]
fn probe_keys_of_small_order_are_refused() {
    // The u-coordinates whose product with any scalar is zero (RFC 7748 section 6.1), and their second spellings.
    let hex = |text: &str| -> [u8; 32] {
        data_encoding::HEXLOWER
            .decode(text.as_bytes())
            .unwrap()
            .try_into()
            .unwrap()
    };
    for weak in [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ] {
        let derived = PairKeys::derive(
            &probe_secret(1),
            instance(1),
            &ProbePublic(hex(weak)),
            instance(2),
        );
        assert_eq!(derived.err(), Some(WeakProbeKey), "{weak}");
    }
}

#[test]
fn an_instance_has_no_keys_with_itself() {
    let derived = PairKeys::derive(
        &probe_secret(1),
        instance(1),
        &probe_secret(1).public(),
        instance(1),
    );
    assert_eq!(derived.err(), Some(WeakProbeKey));
}

#[test]
fn a_probe_opens_at_the_other_side_only() {
    let (ours, theirs) = pair(1, 2);
    let datagram = probe::seal(&ours, Index(3), &[4; 24], &ping(), 0);
    assert_eq!(probe::open(&theirs, &datagram), Ok(ping()));
    // Reflected to its sender.
    assert_eq!(probe::open(&ours, &datagram), Err(ProbeError::Forged));
    // Another pair.
    let (_, stranger) = pair(1, 3);
    assert_eq!(probe::open(&stranger, &datagram), Err(ProbeError::Forged));
}

#[test]
fn a_probe_opens_for_its_instances_only() {
    let (ours, _) = pair(1, 2);
    let datagram = probe::seal(&ours, Index(3), &[4; 24], &ping(), 0);
    let mut restarted = instance(2);
    restarted.instance = Instance(77);
    let keys = PairKeys::derive(
        &probe_secret(2),
        restarted,
        &probe_secret(1).public(),
        instance(1),
    )
    .unwrap();
    assert_eq!(probe::open(&keys, &datagram), Err(ProbeError::Forged));
}

#[test]
fn no_bit_of_a_probe_can_be_changed() {
    let (ours, theirs) = pair(1, 2);
    let datagram = probe::seal(&ours, Index(3), &[4; 24], &ping(), MIN_LEN);
    for bit in 0..datagram.len() * 8 {
        let mut forged = datagram.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        let error = probe::open(&theirs, &forged).unwrap_err();
        assert!(
            matches!(error, ProbeError::Forged | ProbeError::Unknown(_)),
            "{error:?}"
        );
    }
    for len in 0..datagram.len() {
        assert_eq!(
            probe::open(&theirs, &datagram[..len]),
            Err(ProbeError::Truncated)
        );
        assert_eq!(peek_index(&datagram[..len]), Err(ProbeError::Truncated));
    }
    let longer = [&datagram[..], &[0]].concat();
    assert_eq!(probe::open(&theirs, &longer), Err(ProbeError::Forged));
}

#[test]
fn a_probe_of_another_version_or_kind_is_told_from_a_forged_one() {
    let (ours, theirs) = pair(1, 2);
    let mut datagram = probe::seal(&ours, Index(3), &[4; 24], &ping(), 0);
    for second in [0x00, 0x01, 0x10, 0x14, 0x1f, 0x21] {
        datagram[1] = second;
        assert_eq!(
            probe::open(&theirs, &datagram),
            Err(ProbeError::Unknown(second))
        );
    }
}

#[test]
fn sizes_are_kept_within_what_a_relay_forwards() {
    let (ours, theirs) = pair(1, 2);
    let len = |size| probe::seal(&ours, Index(3), &[4; 24], &ping(), size).len();
    assert_eq!(len(0), MIN_LEN);
    assert_eq!(len(1200), 1200);
    assert_eq!(len(usize::MAX), MAX_LEN);
    // Spray probes are at most 120 bytes.
    const { assert!(MIN_LEN <= 120) };
    let long = vec![0x81; MAX_LEN + 1];
    assert_eq!(probe::open(&theirs, &long), Err(ProbeError::TooLong));
}

#[test]
fn a_pong_tells_a_mapped_address_as_ipv4() {
    let (ours, theirs) = pair(1, 2);
    let mapped: SocketAddr = "[::ffff:192.0.2.1]:5".parse().unwrap();
    let pong = Probe {
        counter: 1,
        body: ProbeBody::Pong {
            txid: TxId([1; 12]),
            observed: Some(mapped),
        },
    };
    let opened = probe::open(&theirs, &probe::seal(&ours, Index(3), &[4; 24], &pong, 0));
    let ProbeBody::Pong { observed, .. } = opened.unwrap().body else {
        panic!("a pong stays a pong");
    };
    assert_eq!(observed, Some("192.0.2.1:5".parse().unwrap()));
}

proptest! {
    #[test]
    fn probes_round_trip(probe in probe_strategy(), index: u64, nonce: [u8; 24], size in 0usize..2000) {
        let (ours, theirs) = pair(1, 2);
        let datagram = probe::seal(&ours, Index(index), &nonce, &probe, size);
        prop_assert_eq!(datagram.len(), size.max(MIN_LEN));
        prop_assert_eq!(classify(&datagram), Kind::Probe);
        prop_assert_eq!(peek_index(&datagram), Ok(Index(index)));
        prop_assert_eq!(probe::open(&theirs, &datagram), Ok(probe));
    }
}
