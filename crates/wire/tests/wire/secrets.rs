//! Secrets do not show themselves.

use byway_wire::relay::control::{AdmissionToken, Control, Hello, Role};
use byway_wire::relay::cookie::CookieKey;
use byway_wire::{ProbeSecret, SecretKey, Ticket, TicketSecret};

use crate::support::{pair, record, secret};

#[test]
fn debug_output_holds_no_secret() {
    // Bytes that would show as 222 in decimal, de in hexadecimal and "33" in base32 (11011...).
    let bytes = [0xde; 32];
    let shown = [
        format!("{:?}", SecretKey::from_bytes(&bytes)),
        format!("{:?}", ProbeSecret::from_bytes(bytes)),
        format!("{:?}", TicketSecret::from_bytes(bytes)),
        format!("{:?}", CookieKey::from_bytes(bytes)),
        format!("{:?}", pair(1, 2).0),
    ];
    for (shown, expected) in shown.iter().zip([
        "SecretKey(..)",
        "ProbeSecret(..)",
        "TicketSecret(..)",
        "CookieKey(..)",
        "PairKeys(..)",
    ]) {
        assert_eq!(shown, expected);
    }
    let ticket = Ticket {
        node: secret(1).node_id(),
        relays: Vec::new(),
        secret: Some(TicketSecret::from_bytes(bytes)),
        name: None,
    };
    assert!(format!("{ticket:?}").contains("TicketSecret(..)"));
    let hello = Control::Hello(Hello {
        versions: vec![1],
        role: Role::Agent,
        record: record(1),
        token: AdmissionToken::new("eyJ-secret".into()),
    });
    assert!(!format!("{hello:?}").contains("eyJ"));
}
