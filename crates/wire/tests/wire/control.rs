use std::net::SocketAddr;

use bytes::Bytes;
use byway_wire::key::Purpose;
use byway_wire::relay::Pin;
use byway_wire::relay::control::*;
use byway_wire::relay::cookie::Cookie;
use byway_wire::signal;
use byway_wire::{ChannelId, SignedRecord};
use proptest::prelude::*;

use crate::support::{addr, bytes, channel, record, secret, url};

/// Control has no equality (nothing but tests would compare messages); its Debug output shows every field but tokens.
fn assert_round_trip(message: &Control) {
    let read = Control::decode(message.encode()).unwrap();
    assert_eq!(format!("{read:?}"), format!("{message:?}"));
    assert_eq!(read.name(), message.name());
    assert_eq!(read.encode(), message.encode());
    assert!(message.encode().len() <= MAX_FRAME);
}

fn name() -> impl Strategy<Value = String> {
    "[a-z0-9-]{0,64}"
}

fn token() -> impl Strategy<Value = AdmissionToken> {
    "[a-zA-Z0-9._-]{1,200}".prop_map(|token| AdmissionToken::new(token).unwrap())
}

fn first() -> impl Strategy<Value = Vec<Bytes>> {
    proptest::collection::vec(bytes(MAX_FIRST_BYTES / MAX_FIRST), 0..=MAX_FIRST)
}

fn signed_record() -> impl Strategy<Value = SignedRecord> {
    (1u8..5).prop_map(record)
}

fn close_reason() -> impl Strategy<Value = CloseReason> {
    use CloseReason::*;
    proptest::sample::select(vec![
        Done,
        Offline,
        NotAllowed,
        ChannelInUse,
        SelfOpen,
        Limit,
        PeerGone,
        NoSuchChannel,
        Unknown,
    ])
}

fn refuse_reason() -> impl Strategy<Value = RefuseReason> {
    use RefuseReason::*;
    proptest::sample::select(vec![
        Version,
        Identity,
        NotAdmitted,
        Limit,
        Protocol,
        Replaced,
        Shutdown,
        Unknown,
    ])
}

fn control() -> impl Strategy<Value = Control> {
    let node = || (1u8..5).prop_map(|n| secret(n).node_id());
    let proof = || proptest::option::of(any::<[u8; 32]>());
    prop_oneof![
        (name(), name(), any::<[u8; 32]>()).prop_map(|(relay, region, nonce)| {
            Control::Challenge(Challenge {
                relay,
                region,
                nonce,
            })
        }),
        (
            node(),
            any::<[[u8; 32]; 3]>(),
            url(),
            any::<bool>(),
            any::<[[u8; 32]; 2]>()
        )
            .prop_map(|(node, bytes, url, agent, signature)| {
                let [nonce, exporter, certificate] = bytes;
                let claim = LinkClaim {
                    nonce,
                    exporter,
                    dialled: url.authority(),
                    certificate: Pin(certificate),
                    role: if agent { Role::Agent } else { Role::Client },
                };
                let signature = signature.concat().try_into().unwrap();
                Control::Prove(Prove {
                    node,
                    claim,
                    signature,
                })
            }),
        (
            proptest::collection::vec(any::<u32>(), 0..=MAX_VERSIONS),
            any::<bool>(),
            signed_record(),
            proptest::option::of(token()),
        )
            .prop_map(|(versions, agent, record, token)| {
                let role = if agent { Role::Agent } else { Role::Client };
                Control::Hello(Hello {
                    versions,
                    role,
                    record,
                    token,
                })
            }),
        (
            (any::<u32>(), name(), name()),
            any::<u64>(),
            addr(),
            any::<(u32, u32, u64, bool, Option<u32>)>()
        )
            .prop_map(
                |(
                    (version, relay, region),
                    session,
                    observed,
                    (max_channels, max_datagram, time, intercepted, admitted_for),
                )| {
                    Control::Welcome(Welcome {
                        version,
                        relay,
                        region,
                        session,
                        observed,
                        max_channels,
                        max_datagram,
                        time,
                        intercepted,
                        admitted_for,
                    })
                }
            ),
        (refuse_reason(), "[a-z ]{0,256}")
            .prop_map(|(reason, detail)| Control::Refused { reason, detail }),
        (channel(), node(), proof(), first(), any::<u32>()).prop_map(
            |(channel, peer, proof, first, wait_ms)| {
                Control::Open(Open {
                    channel,
                    peer,
                    proof,
                    first,
                    wait_ms,
                })
            }
        ),
        (channel(), signed_record())
            .prop_map(|(channel, record)| Control::Opened(Opened { channel, record })),
        (channel(), signed_record(), addr(), proof(), first()).prop_map(
            |(channel, record, observed, proof, first)| {
                Control::Incoming(Incoming {
                    channel,
                    record,
                    observed,
                    proof,
                    first,
                })
            }
        ),
        channel().prop_map(|channel| Control::Accept { channel }),
        (channel(), close_reason())
            .prop_map(|(channel, reason)| Control::Closed { channel, reason }),
        channel().prop_map(|channel| Control::Attach { channel }),
        channel().prop_map(|channel| Control::Attached { channel }),
        (channel(), bytes(2000)).prop_map(|(channel, sealed)| Control::Signal { channel, sealed }),
        (channel(), addr(), any::<[u8; 16]>()).prop_map(|(channel, addr, mac)| {
            Control::Rebind(Rebind {
                cookie: Cookie { channel, addr, mac },
            })
        }),
        addr().prop_map(|observed| Control::Rebound { observed }),
        (channel(), addr())
            .prop_map(|(channel, observed)| Control::PeerMoved { channel, observed }),
        token().prop_map(Control::Token),
        any::<Option<u32>>().prop_map(|admitted_for| Control::TokenTaken { admitted_for }),
        "[a-z ]{0,256}".prop_map(|detail| Control::TokenRefused { detail }),
        any::<(Option<u64>, Option<u64>)>()
            .prop_map(|(bytes, datagrams)| Control::Throttled { bytes, datagrams }),
        any::<u64>().prop_map(|token| Control::Ping { token }),
        any::<u64>().prop_map(|token| Control::Pong { token }),
        signed_record().prop_map(Control::Record),
        (
            any::<u32>(),
            proptest::collection::vec(url(), 0..=MAX_ALTERNATES)
        )
            .prop_map(|(deadline_ms, alternates)| Control::GoingAway {
                deadline_ms,
                alternates
            }),
        Just(Control::Unknown),
    ]
}

proptest! {
    #[test]
    fn control_messages_round_trip(message in control()) {
        assert_round_trip(&message);
    }
}

// Protobuf by hand, to write what `encode` never would.

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}
fn field(number: u64, content: &[u8]) -> Vec<u8> {
    [
        &varint(number << 3 | 2)[..],
        &varint(content.len() as u64),
        content,
    ]
    .concat()
}
fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}
fn fixed(field: u64, value: u64) -> Vec<u8> {
    [&varint(field << 3 | 1)[..], &value.to_le_bytes()].concat()
}
fn decode(bytes: Vec<u8>) -> Result<Control, ControlError> {
    Control::decode(bytes.into())
}
/// The field that `decode` finds at fault.
fn fault(bytes: Vec<u8>) -> &'static str {
    match decode(bytes) {
        Err(ControlError::Malformed(field)) => field,
        other => panic!("{other:?}"),
    }
}

#[test]
fn unknown_fields_are_skipped() {
    let ping = [fixed(1, 5), field(15, b"newer"), number(16, 3)].concat();
    let envelope = [field(17, &ping), field(1000, b"newer"), number(999, 7)].concat();
    assert!(matches!(decode(envelope), Ok(Control::Ping { token: 5 })));
}

#[test]
fn an_unknown_message_is_ignored_unless_it_is_critical() {
    assert!(matches!(decode(field(100, b"newer")), Ok(Control::Unknown)));
    assert!(matches!(decode(Vec::new()), Ok(Control::Unknown)));
    let critical = [number(1, 1), field(100, b"newer")].concat();
    assert_eq!(decode(critical).unwrap_err(), ControlError::Critical);
    // Critical and known is simply known.
    let known = [number(1, 1), field(17, &fixed(1, 5))].concat();
    assert!(matches!(decode(known), Ok(Control::Ping { token: 5 })));
}

#[test]
fn reasons_of_a_newer_version_are_unknown_reasons() {
    let closed = [fixed(1, 9), number(2, 99)].concat();
    assert!(matches!(
        decode(field(11, &closed)),
        Ok(Control::Closed {
            reason: CloseReason::Unknown,
            ..
        })
    ));
    assert!(matches!(
        decode(field(6, &number(1, 99))),
        Ok(Control::Refused {
            reason: RefuseReason::Unknown,
            ..
        })
    ));
}

#[test]
fn a_message_beyond_the_limit_is_refused() {
    assert_eq!(
        decode(field(100, &vec![0; MAX_FRAME])).unwrap_err(),
        ControlError::TooLong
    );
    let whole = field(100, &vec![0; MAX_FRAME - 4]);
    assert_eq!(whole.len(), MAX_FRAME);
    assert!(matches!(decode(whole), Ok(Control::Unknown)));
}

#[test]
fn fields_out_of_range_are_named() {
    let node = secret(1).node_id();
    let name = field(1, &[b'x'; MAX_NAME + 1]);
    assert_eq!(fault(field(2, &name)), "Challenge.relay");
    assert_eq!(fault(field(2, &field(3, &[0; 31]))), "Challenge.nonce");
    assert_eq!(fault(field(3, &field(1, &[0; 32]))), "Prove.node");
    assert_eq!(fault(field(3, &field(1, node.as_bytes()))), "Prove.nonce");
    let proof = [
        field(1, node.as_bytes()),
        field(2, &[0; 32]),
        field(3, &[0; 32]),
    ]
    .concat();
    assert_eq!(fault(field(3, &proof)), "Prove.dialled");
    let no_port = [&proof[..], &field(5, b"relay.example")].concat();
    assert_eq!(fault(field(3, &no_port)), "Prove.dialled");
    // Two spellings of one name would be two names to whoever compares them.
    let capitals = [&proof[..], &field(5, b"Relay.example:443")].concat();
    assert_eq!(fault(field(3, &capitals)), "Prove.dialled");
    let pinned = format!("relay.example:443#{}", Pin([1; 32]));
    let pinned = [&proof[..], &field(5, pinned.as_bytes())].concat();
    assert_eq!(fault(field(3, &pinned)), "Prove.dialled");
    let proof = [&proof[..], &field(5, b"relay.example:443")].concat();
    assert_eq!(fault(field(3, &proof)), "Prove.certificate");
    let proof = [&proof[..], &field(6, &[0; 32])].concat();
    assert_eq!(fault(field(3, &proof)), "Prove.role");
    let proof = [&proof[..], &number(7, 2)].concat();
    assert_eq!(fault(field(3, &proof)), "Prove.signature");
    let proof = [&proof[..], &field(4, &[0; 64])].concat();
    assert!(decode(field(3, &proof)).is_ok());
    let versions: Vec<u8> = vec![1; MAX_VERSIONS + 1];
    assert_eq!(fault(field(4, &field(1, &versions))), "Hello.versions");
    assert_eq!(fault(field(4, &[])), "Hello.role");
    assert_eq!(fault(field(4, &number(2, 3))), "Hello.role");
    assert_eq!(fault(field(4, &number(2, 1))), "Hello.record");
    let hello = [number(2, 1), field(3, record(1).as_bytes())].concat();
    assert!(decode(field(4, &hello)).is_ok());
    let token = [&hello[..], &field(4, &[b't'; MAX_TOKEN + 1])].concat();
    assert_eq!(fault(field(4, &token)), "Hello.token");
    assert_eq!(fault(field(22, &[])), "Token.token");
    let long = field(1, &[b't'; MAX_TOKEN + 1]);
    assert_eq!(fault(field(22, &long)), "Token.token");
    let long = field(1, &[b'x'; MAX_DETAIL + 1]);
    assert_eq!(fault(field(24, &long)), "TokenRefused.detail");
    assert_eq!(fault(field(5, &[])), "Welcome.observed");
    let detail = field(2, &[b'x'; MAX_DETAIL + 1]);
    assert_eq!(fault(field(6, &detail)), "Refused.detail");
    let rebind = [fixed(1, 1), field(2, &[1; 6])].concat();
    assert_eq!(fault(field(15, &rebind)), "Rebind.mac");
    assert_eq!(fault(field(16, &field(1, &[1; 7]))), "Rebound.observed");
    assert_eq!(fault(field(21, &fixed(1, 1))), "PeerMoved.observed");
    assert_eq!(fault(field(21, &field(2, &[4; 6]))), "PeerMoved.channel");
    assert_eq!(fault(field(19, &field(1, b"no record"))), "Record.record");
    let long = [fixed(1, 1), field(2, &[0; signal::MAX_LEN + 1])].concat();
    assert_eq!(fault(field(14, &long)), "Signal.sealed");
    assert_eq!(fault(vec![0xff]), "not protobuf");
    // A text that is not UTF-8.
    assert_eq!(fault(field(2, &field(1, &[0xff]))), "not protobuf");
}

#[test]
fn the_echo_channel_and_ids_beyond_56_bits_are_no_channels() {
    for id in [0, 1 << 56, u64::MAX] {
        assert_eq!(fault(field(12, &fixed(1, id))), "Attach.channel");
        assert_eq!(fault(field(7, &fixed(1, id))), "Open.channel");
    }
    // A cookie may speak of the echo: it is what a link with a new address sends first.
    let rebind = [fixed(1, 0), field(2, &[1; 6]), field(3, &[1; 16])].concat();
    let Ok(Control::Rebind(rebind)) = decode(field(15, &rebind)) else {
        panic!("a rebind");
    };
    assert_eq!(rebind.cookie.channel, ChannelId::ECHO);
}

#[test]
fn an_open_is_bounded_and_its_proof_is_whole() {
    let open = |rest: Vec<u8>| {
        let peer = secret(1).node_id();
        let start = [fixed(1, 5), field(2, peer.as_bytes())].concat();
        field(7, &[start, rest].concat())
    };
    assert!(decode(open(Vec::new())).is_ok());
    assert_eq!(fault(open(field(3, &[1; 31]))), "Open.proof");
    assert_eq!(fault(open(field(3, &[]))), "Open.proof");
    let many = field(4, b"x").repeat(MAX_FIRST + 1);
    assert_eq!(fault(open(many)), "Open.first");
    let long = field(4, &[0; MAX_FIRST_BYTES / 2 + 1]).repeat(2);
    assert_eq!(fault(open(long)), "Open.first");
}

#[test]
fn what_is_written_is_always_within_the_limits() {
    let open = Control::Open(Open {
        channel: ChannelId::from_u64(5),
        peer: secret(1).node_id(),
        proof: None,
        first: vec![Bytes::from(vec![1; 2500]); MAX_FIRST + 3],
        wait_ms: 0,
    });
    let Ok(Control::Open(read)) = Control::decode(open.encode()) else {
        panic!("an open");
    };
    assert_eq!(read.first.len(), 2, "the leading ones that fit 6 KiB");
    let refused = Control::Refused {
        reason: RefuseReason::Limit,
        detail: "é".repeat(200),
    };
    let Ok(Control::Refused { detail, .. }) = Control::decode(refused.encode()) else {
        panic!("a refusal");
    };
    assert_eq!(detail, "é".repeat(128));
}

#[test]
fn mapped_addresses_become_ipv4() {
    let mapped: SocketAddr = "[::ffff:192.0.2.1]:9".parse().unwrap();
    let message = Control::Rebound { observed: mapped };
    let Ok(Control::Rebound { observed }) = Control::decode(message.encode()) else {
        panic!("a rebound");
    };
    assert_eq!(observed, "192.0.2.1:9".parse().unwrap());
}

#[test]
fn alternates_that_cannot_be_read_do_not_spoil_the_others() {
    let list = [
        field(2, b"masque://new.example"),
        field(2, b"https://relay.example:443"),
    ]
    .concat();
    let Ok(Control::GoingAway { alternates, .. }) = decode(field(20, &list)) else {
        panic!("going away");
    };
    assert_eq!(alternates, ["https://relay.example:443".parse().unwrap()]);
}

fn claim() -> LinkClaim {
    LinkClaim {
        nonce: [2; 32],
        exporter: [3; 32],
        dialled: "relay-1.example:443".into(),
        certificate: Pin([4; 32]),
        role: Role::Client,
    }
}

#[test]
fn a_link_proof_holds_for_its_challenge_and_its_claim_only() {
    let key = secret(1);
    let challenge = Challenge {
        relay: "relay-1".into(),
        region: "eu".into(),
        nonce: [1; 32],
    };
    let signed = Prove::signed_bytes(&challenge, &claim());
    let signature = key.sign(Purpose::LinkProof, &signed);
    let holds = |challenge: &Challenge, claim: &LinkClaim| {
        let bytes = Prove::signed_bytes(challenge, claim);
        key.node_id()
            .verify(Purpose::LinkProof, &bytes, &signature)
            .is_ok()
    };
    assert!(holds(&challenge, &claim()));
    let claims = |change: fn(&mut LinkClaim)| {
        let mut other = claim();
        change(&mut other);
        holds(&challenge, &other)
    };
    assert!(!claims(|c| c.nonce[0] = 9));
    assert!(!claims(|c| c.exporter[0] = 9));
    assert!(!claims(|c| c.dialled = "relay-2.example:443".into()));
    assert!(!claims(|c| c.dialled = "relay-1.example:444".into()));
    assert!(!claims(|c| c.certificate.0[0] = 9));
    assert!(!claims(|c| c.role = Role::Agent));
    let other = |change: fn(&mut Challenge)| {
        let mut other = challenge.clone();
        change(&mut other);
        holds(&other, &claim())
    };
    assert!(!other(|c| c.nonce[0] = 9));
    assert!(!other(|c| c.relay = "relay-2".into()));
    assert!(!other(|c| c.region = "us".into()));
    // The same letters, divided otherwise between the two names.
    assert!(!other(|c| {
        c.relay = "relay-1e".into();
        c.region = "u".into();
    }));
}

#[test]
fn a_relay_with_a_long_name_can_still_be_proved_to() {
    let held = Challenge {
        relay: "r".repeat(MAX_NAME + 1),
        region: "é".repeat(MAX_NAME),
        nonce: [1; 32],
    };
    let Ok(Control::Challenge(told)) = Control::decode(Control::Challenge(held.clone()).encode())
    else {
        panic!("a challenge");
    };
    assert_ne!(told, held);
    assert_eq!(
        Prove::signed_bytes(&told, &claim()),
        Prove::signed_bytes(&held, &claim())
    );
}

#[test]
fn a_claim_names_its_host_without_the_port() {
    for (dialled, host) in [
        ("relay.example:443", "relay.example"),
        ("192.0.2.7:8443", "192.0.2.7"),
        ("[2001:db8::7]:443", "2001:db8::7"),
    ] {
        let url: byway_wire::RelayUrl = format!("https://{dialled}").parse().unwrap();
        assert_eq!(url.authority(), dialled);
        let mut claim = claim();
        claim.dialled = url.authority();
        assert_eq!(claim.host(), host);
    }
}
