//! What the tests build from: keys by number, and strategies for the values that many formats hold.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Bytes;
use byway_wire::pair::PairKeys;
use byway_wire::relay::Pin;
use byway_wire::{
    ChannelId, Instance, NodeInstance, ProbeSecret, Record, RelayUrl, SecretKey, SignedRecord,
};
use proptest::prelude::*;

pub(crate) fn secret(n: u8) -> SecretKey {
    SecretKey::from_bytes(&[n; 32])
}

pub(crate) fn probe_secret(n: u8) -> ProbeSecret {
    ProbeSecret::from_bytes([n; 32])
}

/// Instance `n` of node `n`.
pub(crate) fn instance(n: u8) -> NodeInstance {
    NodeInstance {
        node: secret(n).node_id(),
        instance: Instance(u64::from(n)),
    }
}

/// The keys of two instances, each its own side.
pub(crate) fn pair(a: u8, b: u8) -> (PairKeys, PairKeys) {
    let keys = |own: u8, peer: u8| {
        PairKeys::derive(
            &probe_secret(own),
            instance(own),
            &probe_secret(peer).public(),
            instance(peer),
        )
        .unwrap()
    };
    (keys(a, b), keys(b, a))
}

pub(crate) fn record(n: u8) -> SignedRecord {
    SignedRecord::sign(
        &secret(n),
        Record {
            id: instance(n),
            probe_key: probe_secret(n).public(),
            epoch: 3,
            seq: 4,
            relays: vec!["https://relay.example:443".parse().unwrap()],
        },
    )
}

/// Any canonical address.
pub(crate) fn addr() -> impl Strategy<Value = SocketAddr> {
    let ip = prop_oneof![
        any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from(bits))),
        any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from(bits)).to_canonical()),
    ];
    (ip, any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
}

/// Any channel but the echo.
pub(crate) fn channel() -> impl Strategy<Value = ChannelId> {
    (1u64..1 << 56).prop_map(ChannelId::from_u64)
}

pub(crate) fn bytes(max: usize) -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(any::<u8>(), 0..=max).prop_map(Bytes::from)
}

pub(crate) fn url() -> impl Strategy<Value = RelayUrl> {
    let host = prop_oneof![
        "[a-z][a-z0-9-]{0,20}[a-z0-9](\\.[a-z]{2,8}){0,3}",
        any::<u32>().prop_map(|bits| Ipv4Addr::from(bits).to_string()),
        any::<u128>().prop_map(|bits| Ipv6Addr::from(bits).to_canonical().to_string()),
    ];
    let pin = proptest::option::of(any::<[u8; 32]>().prop_map(Pin));
    (host, 1..=u16::MAX, pin).prop_map(|(host, port, pin)| RelayUrl::new(&host, port, pin).unwrap())
}
