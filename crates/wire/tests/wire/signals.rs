use byway_wire::probe::{self, Index, Probe, ProbeBody, TxId};
use byway_wire::signal::{
    self, Candidate, CandidateKind, Candidates, MAX_CANDIDATES, MAX_LEN, Mapping, Signal,
    SignalBody, SignalError,
};
use proptest::prelude::*;

use crate::support::{addr, pair};

fn signal_strategy() -> impl Strategy<Value = Signal> {
    let kind = prop_oneof![
        Just(CandidateKind::Host),
        Just(CandidateKind::Reflexive),
        Just(CandidateKind::Mapped),
        Just(CandidateKind::Static),
    ];
    let mapping = prop_oneof![
        Just(Mapping::Unknown),
        Just(Mapping::EndpointIndependent),
        Just(Mapping::AddressDependent),
        Just(Mapping::AddressAndPortDependent),
    ];
    let candidate = (kind, addr()).prop_map(|(kind, addr)| Candidate { kind, addr });
    let candidates = (
        any::<u64>(),
        any::<u64>(),
        proptest::collection::vec(candidate, 0..=MAX_CANDIDATES),
        mapping,
    )
        .prop_map(|(index, generation, list, mapping)| {
            SignalBody::Candidates(Candidates {
                index: Index(index),
                generation,
                list,
                mapping,
            })
        });
    (
        any::<u64>(),
        prop_oneof![
            8 => candidates,
            1 => Just(SignalBody::Goodbye),
            1 => Just(SignalBody::Unknown)
        ],
    )
        .prop_map(|(counter, body)| Signal { counter, body })
}

fn signal(count: usize) -> Signal {
    Signal {
        counter: 1,
        body: SignalBody::Candidates(Candidates {
            index: Index(2),
            generation: 3,
            list: (0..count)
                .map(|n| Candidate {
                    kind: CandidateKind::Host,
                    addr: ([10, 0, 0, 1], n as u16).into(),
                })
                .collect(),
            mapping: Mapping::Unknown,
        }),
    }
}

#[test]
fn a_signal_opens_at_the_other_side_only() {
    let (ours, theirs) = pair(1, 2);
    let sealed = signal::seal(&ours, &[4; 24], &signal(2));
    assert_eq!(signal::open(&theirs, &sealed), Ok(signal(2)));
    assert_eq!(signal::open(&ours, &sealed), Err(SignalError::Forged));
    let (_, stranger) = pair(1, 3);
    assert_eq!(signal::open(&stranger, &sealed), Err(SignalError::Forged));
    for bit in 0..sealed.len() * 8 {
        let mut forged = sealed.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        assert!(matches!(
            signal::open(&theirs, &forged),
            Err(SignalError::Forged | SignalError::Version(_))
        ));
    }
    for len in 0..sealed.len() {
        assert!(matches!(
            signal::open(&theirs, &sealed[..len]),
            Err(SignalError::Forged | SignalError::Length)
        ));
    }
}

#[test]
fn a_probe_does_not_pass_for_a_signal() {
    let (ours, theirs) = pair(1, 2);
    let body = ProbeBody::Ping {
        txid: TxId([0; 12]),
    };
    let nonce = [4; 24];
    let datagram = probe::seal(&ours, Index(3), &nonce, &Probe { counter: 1, body }, 0);
    // The probe's sealed body in a signal's clothes: same keys, same nonce.
    let dressed = [&[1][..], &nonce, &datagram[34..]].concat();
    assert_eq!(signal::open(&theirs, &dressed), Err(SignalError::Forged));
}

#[test]
fn too_many_candidates_are_cut() {
    let (ours, theirs) = pair(1, 2);
    let sealed = signal::seal(&ours, &[4; 24], &signal(MAX_CANDIDATES + 5));
    assert_eq!(signal::open(&theirs, &sealed), Ok(signal(MAX_CANDIDATES)));
}

#[test]
fn versions_and_lengths_out_of_range_are_refused() {
    let (ours, theirs) = pair(1, 2);
    let mut sealed = signal::seal(&ours, &[4; 24], &signal(0));
    sealed[0] = 2;
    assert_eq!(signal::open(&theirs, &sealed), Err(SignalError::Version(2)));
    assert_eq!(
        signal::open(&theirs, &vec![1; MAX_LEN + 1]),
        Err(SignalError::Length)
    );
    assert_eq!(signal::open(&theirs, &[]), Err(SignalError::Length));
}

proptest! {
    #[test]
    fn signals_round_trip(signal in signal_strategy(), nonce: [u8; 24]) {
        let (ours, theirs) = pair(1, 2);
        let sealed = signal::seal(&ours, &nonce, &signal);
        prop_assert!(sealed.len() <= MAX_LEN);
        prop_assert_eq!(signal::open(&theirs, &sealed), Ok(signal));
    }
}
