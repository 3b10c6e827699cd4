use byway_wire::ticket::{MAX_ADDRS, MAX_NAME, MAX_RELAYS, MAX_TEXT, TicketError, TicketRelay};
use byway_wire::{Instance, Ticket, TicketSecret};
use proptest::prelude::*;

use crate::support::{addr, instance, probe_secret, secret, url};

fn ticket() -> Ticket {
    Ticket {
        node: secret(1).node_id(),
        relays: vec![TicketRelay {
            url: "https://relay.example:443".parse().unwrap(),
            addrs: vec!["192.0.2.1:443".parse().unwrap()],
        }],
        secret: Some(TicketSecret::from_bytes([5; 32])),
        name: Some("build box".into()),
    }
}

#[test]
fn a_ticket_survives_case_and_white_space() {
    let text = ticket().to_string();
    assert!(text.starts_with("byway1"));
    assert_eq!(text.parse(), Ok(ticket()));
    assert_eq!(format!("  {text}\n").parse(), Ok(ticket()));
    assert_eq!(text.to_uppercase().parse(), Ok(ticket()));
}

#[test]
fn each_fault_of_a_ticket_has_its_name() {
    let text = ticket().to_string();
    let parse = |text: &str| text.parse::<Ticket>().unwrap_err();
    assert_eq!(parse(""), TicketError::Prefix);
    assert_eq!(parse("byway"), TicketError::Prefix);
    assert_eq!(parse("bywayaaaa"), TicketError::Prefix);
    assert_eq!(parse("https://relay.example"), TicketError::Prefix);
    assert_eq!(
        parse(&text.replace("byway1", "byway2")),
        TicketError::Version
    );
    assert_eq!(parse(&format!("{text}!")), TicketError::Text);
    assert_eq!(
        parse(&format!("byway1{}", "a".repeat(MAX_TEXT + 8))),
        TicketError::Text
    );
    assert_eq!(parse("byway1"), TicketError::Checksum);
    // A ticket copied in half, where the halves are whole groups of base32.
    assert_eq!(parse(&text[..6 + 64]), TicketError::Checksum);
}

#[test]
fn one_wrong_character_is_noticed() {
    let text = ticket().to_string();
    for position in 6..text.len() {
        let mut damaged = text.clone().into_bytes();
        damaged[position] = if damaged[position] == b'a' {
            b'b'
        } else {
            b'a'
        };
        let damaged = String::from_utf8(damaged).unwrap();
        assert!(
            matches!(
                damaged.parse::<Ticket>(),
                Err(TicketError::Checksum | TicketError::Text)
            ),
            "position {position}"
        );
    }
}

/// A text with a right checksum round any content.
fn enveloped(content: &[u8]) -> String {
    use sha2::Digest;
    let sum = sha2::Sha256::digest(content);
    let bytes = [content, &sum[..4]].concat();
    let body = data_encoding::BASE32_NOPAD.encode(&bytes).to_lowercase();
    format!("byway1{body}")
}

#[test]
fn a_right_checksum_does_not_make_a_ticket() {
    for content in [
        &[] as &[u8],
        // Field 1 of three bytes: no key.
        &[0x0a, 3, 1, 2, 3],
        // Field 1 cut off.
        &[0x0a, 40, 1],
    ] {
        assert_eq!(
            enveloped(content).parse::<Ticket>(),
            Err(TicketError::Malformed)
        );
    }
    // A weak key.
    let weak = [&[0x0a, 32][..], &[0; 32]].concat();
    assert_eq!(
        enveloped(&weak).parse::<Ticket>(),
        Err(TicketError::Malformed)
    );
    // A secret of the wrong length.
    let key = secret(1).node_id();
    let short = [&[0x0a, 32][..], key.as_bytes(), &[0x1a, 2, 1, 2]].concat();
    assert_eq!(
        enveloped(&short).parse::<Ticket>(),
        Err(TicketError::Malformed)
    );
    // A name that is too long.
    let name = [0x22, MAX_NAME as u8 + 1];
    let named = [
        &[0x0a, 32][..],
        key.as_bytes(),
        &name,
        &[b'n'; MAX_NAME + 1],
    ]
    .concat();
    assert_eq!(
        enveloped(&named).parse::<Ticket>(),
        Err(TicketError::Malformed)
    );
}

#[test]
fn unknown_fields_of_a_ticket_are_skipped() {
    let key = secret(1).node_id();
    // Field 15, two bytes.
    let content = [&[0x0a, 32][..], key.as_bytes(), &[0x7a, 2, 1, 2]].concat();
    let ticket: Ticket = enveloped(&content).parse().unwrap();
    assert_eq!(ticket.node, key);
    assert_eq!(ticket.relays, []);
}

#[test]
fn what_does_not_fit_a_ticket_is_left_out() {
    let mut long = ticket();
    long.relays = vec![
        TicketRelay {
            url: long.relays[0].url.clone(),
            addrs: vec!["[2001:db8::1]:443".parse().unwrap(); MAX_ADDRS + 1],
        };
        MAX_RELAYS + 1
    ];
    long.name = Some("é".repeat(MAX_NAME));
    let read: Ticket = long.to_string().parse().unwrap();
    assert_eq!(read.relays.len(), MAX_RELAYS);
    assert_eq!(read.relays[0].addrs.len(), MAX_ADDRS);
    assert_eq!(read.name, Some("é".repeat(MAX_NAME / 2)));
}

#[test]
fn the_longest_ticket_can_be_read() {
    let host = format!("{}abc", "relay-name.".repeat(22));
    assert_eq!(host.len(), 245);
    let pin = byway_wire::relay::Pin([1; 32]);
    let mut long = ticket();
    long.relays = vec![
        TicketRelay {
            url: byway_wire::RelayUrl::new(&host, 65535, Some(pin)).unwrap(),
            addrs: vec!["[2001:db8::1]:443".parse().unwrap(); MAX_ADDRS],
        };
        MAX_RELAYS
    ];
    let text = long.to_string();
    assert!(text.len() < MAX_TEXT);
    assert_eq!(text.parse(), Ok(long));
}

#[test]
fn an_open_proof_holds_for_its_opener_key_and_agent_only() {
    let secret_ = TicketSecret::from_bytes([5; 32]);
    let (opener, agent) = (instance(1), secret(2).node_id());
    let key = probe_secret(1).public();
    let proof = secret_.open_proof(opener, &key, agent);
    assert!(secret_.verify_open_proof(opener, &key, agent, &proof));
    let mut restarted = opener;
    restarted.instance = Instance(99);
    let other_key = probe_secret(3).public();
    let other_secret = TicketSecret::from_bytes([6; 32]);
    assert!(!secret_.verify_open_proof(instance(3), &key, agent, &proof));
    assert!(!secret_.verify_open_proof(restarted, &key, agent, &proof));
    assert!(!secret_.verify_open_proof(opener, &other_key, agent, &proof));
    assert!(!secret_.verify_open_proof(opener, &key, secret(3).node_id(), &proof));
    assert!(!other_secret.verify_open_proof(opener, &key, agent, &proof));
    let mut forged = proof;
    forged[31] ^= 1;
    assert!(!secret_.verify_open_proof(opener, &key, agent, &forged));
}

#[test]
fn a_tunnel_proof_holds_for_its_connection_only() {
    let secret = TicketSecret::from_bytes([5; 32]);
    let proof = secret.tunnel_proof(&[1; 32]);
    assert!(secret.verify_tunnel_proof(&[1; 32], &proof));
    assert!(!secret.verify_tunnel_proof(&[2; 32], &proof));
    assert!(!TicketSecret::from_bytes([6; 32]).verify_tunnel_proof(&[1; 32], &proof));
    let mut forged = proof;
    forged[0] ^= 0x80;
    assert!(!secret.verify_tunnel_proof(&[1; 32], &forged));
}

proptest! {
    #[test]
    fn tickets_round_trip(
        seed in 0u8..8,
        relays in proptest::collection::vec(
            (url(), proptest::collection::vec(addr(), 0..=MAX_ADDRS))
                .prop_map(|(url, addrs)| TicketRelay { url, addrs }),
            0..=MAX_RELAYS,
        ),
        secret_ in proptest::option::of(any::<[u8; 32]>().prop_map(TicketSecret::from_bytes)),
        name in proptest::option::of("[a-z ]{1,64}"),
    ) {
        let ticket = Ticket { node: secret(seed).node_id(), relays, secret: secret_, name };
        prop_assert_eq!(ticket.to_string().parse::<Ticket>(), Ok(ticket));
    }
}
