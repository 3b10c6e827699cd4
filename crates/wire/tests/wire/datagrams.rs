//! The first byte, relay data, rebind cookies, fragments.

use std::net::SocketAddr;

use byway_wire::ChannelId;
use byway_wire::demux::{Kind, classify};
use byway_wire::fragment::{self, FragmentError};
use byway_wire::relay::cookie::{self, Cookie, CookieKey, MAX_LEN};
use byway_wire::relay::data;
use proptest::prelude::*;

use crate::support::{addr, channel};

#[test]
fn every_first_byte_means_one_thing() {
    for first in 0..=255u8 {
        let mut datagram = [0; 20];
        datagram[0] = first;
        let expected = match first {
            0x40..=0x7f | 0xc0..=0xff => Kind::Quic,
            0x80 => Kind::RelayData,
            0x81 => Kind::Probe,
            0x82 => Kind::RebindCookie,
            0x83 => Kind::Fragment,
            _ => Kind::Unknown,
        };
        assert_eq!(classify(&datagram), expected, "{first:#04x}");
        // The magic cookie makes STUN of the four first bytes that RFC 7983 gives it, and of no other.
        datagram[4..8].copy_from_slice(&[0x21, 0x12, 0xa4, 0x42]);
        let expected = if first <= 3 { Kind::Stun } else { expected };
        assert_eq!(classify(&datagram), expected, "{first:#04x}");
    }
    assert_eq!(classify(&[]), Kind::Unknown);
    assert_eq!(classify(&[0, 1, 0, 0, 0x21, 0x12, 0xa4]), Kind::Unknown);
}

#[test]
fn relay_data_is_a_header_and_a_payload() {
    let channel = ChannelId::from_u64(0x0011_2233_4455_6677);
    assert_eq!(
        channel.header(),
        [0x80, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77]
    );
    assert_eq!(
        data::decode(&channel.header()),
        Some((channel, &[] as &[u8]))
    );
    assert_eq!(data::decode(&channel.header()[..7]), None);
    assert_eq!(data::decode(&[0x81; 20]), None);
    assert_eq!(ChannelId::ECHO.header(), [0x80, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(ChannelId::from_u64(u64::MAX).as_u64(), (1 << 56) - 1);
}

#[test]
fn a_rebind_cookie_holds_for_its_channel_address_and_two_minutes() {
    let key = CookieKey::from_bytes([1; 32]);
    let channel = ChannelId::from_u64(5);
    let addr: SocketAddr = "192.0.2.1:4000".parse().unwrap();
    let cookie = key.make(channel, addr, 10);
    assert!(key.verify(&cookie, 10));
    assert!(key.verify(&cookie, 11));
    assert!(!key.verify(&cookie, 12), "two minutes old");
    assert!(!key.verify(&cookie, 9), "from the future");
    assert!(!CookieKey::from_bytes([2; 32]).verify(&cookie, 10));
    let other = |change: fn(&mut Cookie)| {
        let mut cookie = cookie;
        change(&mut cookie);
        key.verify(&cookie, 10)
    };
    assert!(!other(|c| c.channel = ChannelId::from_u64(6)));
    assert!(!other(|c| c.addr.set_port(4001)));
    assert!(!other(|c| c.addr.set_ip([192, 0, 2, 2].into())));
    assert!(!other(|c| c.mac[15] ^= 1));
    // The first minute of a relay's clock has none before it.
    assert!(key.verify(&key.make(channel, addr, 0), 0));
}

#[test]
fn a_rebind_cookie_names_mapped_addresses_as_ipv4() {
    let key = CookieKey::from_bytes([1; 32]);
    let mapped: SocketAddr = "[::ffff:192.0.2.1]:4000".parse().unwrap();
    let cookie = key.make(ChannelId::from_u64(5), mapped, 1);
    assert_eq!(cookie.addr, "192.0.2.1:4000".parse().unwrap());
    assert!(key.verify(&cookie, 1));
}

#[test]
fn malformed_rebind_cookies_are_refused() {
    let good = CookieKey::from_bytes([1; 32])
        .make(ChannelId::from_u64(5), "192.0.2.1:4000".parse().unwrap(), 1)
        .encode();
    assert_eq!(good.len(), 31);
    for len in 0..good.len() {
        assert_eq!(Cookie::decode(&good[..len]), None);
    }
    assert_eq!(Cookie::decode(&[&good[..], &[0]].concat()), None);
    let mut family = good.clone();
    family[8] = 6;
    assert_eq!(Cookie::decode(&family), None);
    let mut first = good;
    first[0] = 0x80;
    assert_eq!(Cookie::decode(&first), None);
}

#[test]
fn malformed_fragments_are_refused() {
    for bad in [
        &[] as &[u8],
        &[0x83],
        &[0x83, 0, 0, 0],
        &[0x83, 0, 0, 2, 1],
        &[0x80, 0, 0, 0, 1],
    ] {
        assert_eq!(fragment::decode(bad), Err(FragmentError), "{bad:?}");
    }
}

proptest! {
    #[test]
    fn relay_data_round_trips(bits in 0u64..1 << 56, payload: Vec<u8>) {
        let channel = ChannelId::from_u64(bits);
        let datagram = [&channel.header()[..], &payload].concat();
        prop_assert_eq!(classify(&datagram), Kind::RelayData);
        prop_assert_eq!(data::decode(&datagram), Some((channel, &payload[..])));
    }

    #[test]
    fn rebind_cookies_round_trip(key: [u8; 32], channel in channel(), addr in addr(), minute: u64) {
        let key = CookieKey::from_bytes(key);
        let cookie = key.make(channel, addr, minute);
        let datagram = cookie.encode();
        prop_assert_eq!(classify(&datagram), Kind::RebindCookie);
        prop_assert!(datagram.len() <= MAX_LEN);
        prop_assert_eq!(datagram.len(), cookie::len(addr));
        prop_assert_eq!(Cookie::decode(&datagram), Some(cookie));
        prop_assert!(key.verify(&cookie, minute));
        prop_assert!(key.verify(&cookie, minute.saturating_add(1)));
    }

    #[test]
    fn fragments_join_to_what_was_split(id: u16, datagram in proptest::collection::vec(any::<u8>(), 2..3000)) {
        let parts = fragment::split(id, &datagram);
        let [first, second] = [fragment::decode(&parts[0]).unwrap(), fragment::decode(&parts[1]).unwrap()];
        prop_assert_eq!((first.id, first.second), (id, false));
        prop_assert_eq!((second.id, second.second), (id, true));
        prop_assert!(first.payload.len().abs_diff(second.payload.len()) <= 1);
        prop_assert_eq!([first.payload, second.payload].concat(), datagram);
    }
}
