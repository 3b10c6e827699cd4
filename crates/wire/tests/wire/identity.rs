use byway_wire::key::{BadSignature, KeyError, Purpose};
use byway_wire::relay::{Pin, RelayUrl, RelayUrlError};
use byway_wire::{Instance, NodeId, SecretKey};
use proptest::prelude::*;

use crate::support::{secret, url};

/// RFC 8032 section 7.1, test 1.
const RFC8032_SEED: [u8; 32] = [
    0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4,
    0x44, 0x49, 0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60,
];
const RFC8032_PUBLIC: [u8; 32] = [
    0xd7, 0x5a, 0x98, 0x01, 0x82, 0xb1, 0x0a, 0xb7, 0xd5, 0x4b, 0xfe, 0xd3, 0xc9, 0x64, 0x07, 0x3a,
    0x0e, 0xe1, 0x72, 0xf3, 0xda, 0xa6, 0x23, 0x25, 0xaf, 0x02, 0x1a, 0x68, 0xf7, 0x07, 0x51, 0x1a,
];

#[test]
fn a_node_id_is_the_ed25519_public_key() {
    let key = SecretKey::from_bytes(&RFC8032_SEED);
    assert_eq!(key.node_id().as_bytes(), &RFC8032_PUBLIC);
    assert_eq!(*key.to_bytes(), RFC8032_SEED);
}

#[test]
fn a_node_id_is_52_characters_that_fit_a_dns_label() {
    let id = secret(1).node_id();
    let text = id.to_string();
    assert_eq!(text.len(), 52);
    assert!(
        text.bytes()
            .all(|b| b.is_ascii_lowercase() || (b'2'..=b'7').contains(&b))
    );
    assert_eq!(text.parse(), Ok(id));
    // DNS does not keep case.
    assert_eq!(text.to_uppercase().parse(), Ok(id));
    assert_eq!(id.short(), text[..10]);
    assert_eq!(
        id.server_name().to_uppercase().parse::<NodeId>(),
        Err(KeyError::Text)
    );
    assert_eq!(NodeId::from_server_name(&id.server_name()), Ok(id));
    assert_eq!(
        NodeId::from_server_name(&id.server_name().to_uppercase()),
        Ok(id)
    );
}

#[test]
fn texts_that_are_no_node_id_are_refused() {
    let good = secret(1).node_id().to_string();
    for bad in [
        "",
        &good[1..],
        &format!("{good}a"),
        &format!("1{}", &good[1..]),
        &format!(" {}", &good[1..]),
        // The last character carries one bit; the others must be zero.
        &format!("{}b", &good[..51]),
    ] {
        assert_eq!(bad.parse::<NodeId>(), Err(KeyError::Text), "{bad:?}");
    }
    for bad in ["", ".byway.invalid", "x.byway.invalid", "byway.invalid"] {
        assert_eq!(
            NodeId::from_server_name(bad),
            Err(KeyError::Text),
            "{bad:?}"
        );
    }
    let other = format!("{good}.byway.example");
    assert_eq!(NodeId::from_server_name(&other), Err(KeyError::Text));
}

#[test]
fn weak_keys_are_refused() {
    // The points of small order in their canonical encodings: orders 1, 2, 4, 4, 8, 8, 8, 8.
    let order8_a = "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05";
    let order8_b = "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a";
    let hex = |text: &str| -> [u8; 32] {
        data_encoding::HEXLOWER
            .decode(text.as_bytes())
            .unwrap()
            .try_into()
            .unwrap()
    };
    let mut identity = [0; 32];
    identity[0] = 1;
    let mut order2 = [0xff; 32];
    order2[0] = 0xec;
    order2[31] = 0x7f;
    let mut order4 = [0; 32];
    order4[31] = 0x80;
    let mut negative = [hex(order8_a), hex(order8_b)];
    negative.iter_mut().for_each(|key| key[31] |= 0x80);
    for weak in [
        identity,
        order2,
        [0; 32],
        order4,
        hex(order8_a),
        hex(order8_b),
        negative[0],
        negative[1],
    ] {
        assert_eq!(NodeId::from_bytes(&weak), Err(KeyError::Weak), "{weak:x?}");
    }
}

#[test]
fn bytes_that_are_no_point_or_a_second_spelling_are_refused() {
    // y = 2 has no x on the curve.
    let mut no_point = [0; 32];
    no_point[0] = 2;
    assert_eq!(NodeId::from_bytes(&no_point), Err(KeyError::Invalid));
    // y = p + k spells y = k a second time. Whatever is wrong with each of the nineteen, none is a node.
    for k in 0..19 {
        let mut second = [0xff; 32];
        second[0] = 0xed + k;
        second[31] = 0x7f;
        assert!(NodeId::from_bytes(&second).is_err(), "p + {k}");
    }
}

#[test]
fn a_signature_holds_for_its_key_purpose_and_message_only() {
    let key = secret(1);
    let id = key.node_id();
    let signature = key.sign(Purpose::Record, b"message");
    assert_eq!(id.verify(Purpose::Record, b"message", &signature), Ok(()));
    assert_eq!(
        id.verify(Purpose::LinkProof, b"message", &signature),
        Err(BadSignature)
    );
    assert_eq!(
        id.verify(Purpose::Record, b"massage", &signature),
        Err(BadSignature)
    );
    assert_eq!(
        secret(2)
            .node_id()
            .verify(Purpose::Record, b"message", &signature),
        Err(BadSignature)
    );
    for bit in 0..512 {
        let mut forged = signature;
        forged[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(
            id.verify(Purpose::Record, b"message", &forged),
            Err(BadSignature)
        );
    }
}

#[test]
fn labels_end_in_zero_so_none_begins_another() {
    for purpose in [Purpose::Record, Purpose::LinkProof] {
        let label = purpose.label();
        assert_eq!(label.iter().position(|b| *b == 0), Some(label.len() - 1));
        assert!(label.starts_with(b"byway "));
    }
}

#[test]
fn keys_read_and_write_the_der_that_tls_uses() {
    let key = secret(1);
    let spki = key.node_id().to_spki_der();
    assert_eq!(NodeId::from_spki_der(&spki), Ok(key.node_id()));
    assert_eq!(NodeId::from_spki_der(&spki[..43]), Err(KeyError::Invalid));
    let longer = [&spki[..], &[0]].concat();
    assert_eq!(NodeId::from_spki_der(&longer), Err(KeyError::Invalid));
    let mut x25519 = spki;
    x25519[8] = 0x6e;
    assert_eq!(NodeId::from_spki_der(&x25519), Err(KeyError::Invalid));

    use ed25519_dalek::pkcs8::DecodePrivateKey;
    let der = key.to_pkcs8_der();
    let read = ed25519_dalek::SigningKey::from_pkcs8_der(&der).unwrap();
    assert_eq!(read.to_bytes(), *key.to_bytes());
}

#[test]
fn derived_secrets_differ_by_label_and_key() {
    let [a, b, c] = [
        secret(1).derive("reset"),
        secret(1).derive("connection ids"),
        secret(2).derive("reset"),
    ];
    assert_ne!(*a, *b);
    assert_ne!(*a, *c);
    assert_ne!(*a, *secret(1).to_bytes());
    assert_eq!(*a, *secret(1).derive("reset"));
}

#[test]
fn instances_of_one_node_differ() {
    let mut other = crate::support::instance(1);
    other.instance = Instance(99);
    assert_ne!(other, crate::support::instance(1));
}

#[test]
fn relay_urls_read_as_people_write_them() {
    let pin = Pin([7; 32]);
    for (text, host, port, with_pin) in [
        ("https://relay.example", "relay.example", 443, None),
        ("https://relay.example/", "relay.example", 443, None),
        ("HTTPS://Relay.Example.:3478", "relay.example", 3478, None),
        (
            &*format!("https://203.0.113.10:443#{pin}"),
            "203.0.113.10",
            443,
            Some(pin),
        ),
        ("https://[2001:db8::1]", "2001:db8::1", 443, None),
        ("https://[2001:db8::1]:1", "2001:db8::1", 1, None),
    ] {
        let url: RelayUrl = text.parse().unwrap();
        assert_eq!((url.host(), url.port(), url.pin()), (host, port, with_pin));
    }
}

#[test]
fn texts_that_are_no_relay_url_say_why() {
    use RelayUrlError::*;
    for (text, error) in [
        ("", Scheme),
        ("http://relay.example", Scheme),
        ("relay.example:443", Scheme),
        ("https://", Host),
        ("https://:443", Host),
        ("https://user@relay.example", Host),
        ("https://2001:db8::1", Host),
        ("https://[relay.example]", Host),
        ("https://[2001:db8::1]x", Host),
        ("https://[2001:db8::1", Host),
        ("https://relay.example:", Port),
        ("https://relay.example:0", Port),
        ("https://relay.example:65536", Port),
        ("https://relay.example:+1", Port),
        ("https://relay.example/path", Path),
        ("https://relay.example?query", Path),
        ("https://relay.example#", Pin),
        ("https://relay.example#short", Pin),
    ] {
        assert_eq!(text.parse::<RelayUrl>(), Err(error), "{text:?}");
    }
    assert_eq!(RelayUrl::new("relay.example", 0, None), Err(Port));
    assert_eq!(RelayUrl::new("[::1]", 1, None), Err(Host));
}

proptest! {
    #[test]
    fn relay_urls_round_trip(url in url()) {
        prop_assert_eq!(url.to_string().parse::<RelayUrl>(), Ok(url));
    }

    #[test]
    fn node_ids_round_trip(seed: [u8; 32]) {
        let id = SecretKey::from_bytes(&seed).node_id();
        prop_assert_eq!(id.to_string().parse::<NodeId>(), Ok(id));
        prop_assert_eq!(NodeId::from_bytes(id.as_bytes()), Ok(id));
        prop_assert_eq!(NodeId::from_spki_der(&id.to_spki_der()), Ok(id));
    }
}
