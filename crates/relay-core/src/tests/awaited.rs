use std::time::Duration;

use bytes::Bytes;
use byway_wire::relay::control::*;

use super::bench::*;
use crate::awaited::{MAX_AWAITED, MAX_HOLDING};

#[test]
fn an_absent_peer_is_awaited_for_two_seconds() {
    let mut bench = Bench::new();
    bench.come(1, 1, 10, Role::Client);
    assert!(sent(&bench.say(1, open(9, 2)), 1).is_empty());
    bench.pass(Duration::from_millis(1_999));
    let events = bench.come(2, 2, 20, Role::Agent);
    assert!(has(&events, 2, "Incoming") && has(&events, 1, "Opened"));
    let Some(Control::Incoming(incoming)) = sent(&events, 2).pop() else {
        panic!("Incoming comes last");
    };
    assert_eq!(incoming.first.len(), 1);
}

#[test]
fn an_open_that_waits_does_not_hold_the_frame_it_came_in() {
    let mut bench = Bench::new();
    bench.come(1, 1, 10, Role::Client);
    let frame = Bytes::from(vec![5; 64 * 1024]);
    let Control::Open(mut waiting) = open(9, 2) else {
        panic!("no Open");
    };
    waiting.first = vec![frame.slice(100..200)];
    bench.say(1, Control::Open(waiting));
    assert!(frame.is_unique());
    let events = bench.come(2, 2, 20, Role::Agent);
    let Some(Control::Incoming(incoming)) = sent(&events, 2).pop() else {
        panic!("no Incoming");
    };
    assert_eq!(incoming.first, vec![frame.slice(100..200)]);
}

#[test]
fn a_peer_that_does_not_come_is_offline() {
    let mut bench = Bench::new();
    bench.come(1, 1, 10, Role::Client);
    bench.say(1, open(9, 2));
    let events = bench.pass(Duration::from_secs(2));
    assert_eq!(closed(&events, 1), Some(CloseReason::Offline));
    assert_eq!(bench.relay.load().channels, 0);
    assert_eq!(bench.relay.counters().open_offline, 1);
    assert!(bench.table.entries.is_empty());
}

#[test]
fn an_agent_that_just_lost_its_link_is_awaited_too() {
    let mut bench = Bench::joined();
    bench.link_down(2);
    assert!(!has(&bench.say(1, open(10, 2)), 1, "Closed"));
    let events = bench.come(3, 2, 20, Role::Agent);
    assert!(has(&events, 3, "Incoming"));
}

#[test]
fn one_node_waits_for_at_most_32_absent_peers() {
    let mut bench = Bench::new();
    bench.come(1, 1, 10, Role::Client);
    for n in 0..32u8 {
        assert_eq!(
            closed(&bench.say(1, open(100 + u64::from(n), 100 + n)), 1),
            None
        );
    }
    let events = bench.say(1, open(200, 200));
    assert_eq!(closed(&events, 1), Some(CloseReason::Offline));
    bench.pass(Duration::from_secs(2));
    assert_eq!(closed(&bench.say(1, open(201, 201)), 1), None);
}

#[test]
fn all_nodes_together_wait_for_a_bounded_number_of_absent_peers() {
    let mut bench = Bench::new();
    bench.come(1, 1, 10, Role::Client);
    bench.relay.awaited.count = MAX_AWAITED;
    let events = bench.say(1, open(9, 2));
    assert_eq!(closed(&events, 1), Some(CloseReason::Offline));
    assert_eq!(bench.relay.awaited.count, MAX_AWAITED);
}

#[test]
fn all_nodes_together_have_a_bounded_number_of_datagrams_kept() {
    let mut bench = Bench::new();
    bench.come(1, 1, 10, Role::Client);
    bench.relay.awaited.holding = MAX_HOLDING;
    let events = bench.say(1, open_waiting(9, 2, 30_000));
    assert_eq!(closed(&events, 1), Some(CloseReason::Offline));
    assert_eq!(bench.relay.awaited.holding, MAX_HOLDING);
    // One without any is none of them.
    let Control::Open(mut bare) = open_waiting(10, 2, 30_000) else {
        panic!("no Open");
    };
    bare.first = Vec::new();
    assert_eq!(closed(&bench.say(1, Control::Open(bare)), 1), None);
}

#[test]
fn an_opener_that_left_while_it_waited_is_not_announced() {
    let mut bench = Bench::new();
    bench.come(1, 1, 10, Role::Client);
    bench.say(1, open(9, 2));
    bench.link_down(1);
    let events = bench.come(2, 2, 20, Role::Agent);
    assert!(!has(&events, 2, "Incoming"));
    assert_eq!(bench.relay.load().channels, 0);
    assert_eq!(bench.relay.load().sessions, 1);
}

#[test]
fn an_opener_that_asks_for_it_waits_longer_and_without_its_datagrams() {
    let mut bench = Bench::new();
    bench.come(1, 1, 10, Role::Client);
    bench.say(1, open_waiting(9, 2, 30_000));
    assert_eq!(bench.relay.awaited.holding, 1);
    assert_eq!(closed(&bench.pass(Duration::from_millis(29_999)), 1), None);
    assert_eq!(bench.relay.awaited.holding, 0);
    let events = bench.come(2, 2, 20, Role::Agent);
    assert!(has(&events, 2, "Incoming") && has(&events, 1, "Opened"));
    let Some(Control::Incoming(incoming)) = sent(&events, 2).pop() else {
        panic!("Incoming comes last");
    };
    assert!(incoming.first.is_empty());
    // From here on it is an open like any other.
    let events = bench.pass(Duration::from_secs(10));
    assert_eq!(closed(&events, 1), Some(CloseReason::Offline));
    assert_eq!(bench.relay.counters().open_expired, 1);
}

#[test]
fn a_wait_ends_when_it_was_to_and_within_a_minute() {
    for (asked, waits) in [
        (0, 2_000),
        (500, 2_000),
        (30_000, 30_000),
        (u32::MAX, 60_000),
    ] {
        let mut bench = Bench::new();
        bench.come(1, 1, 10, Role::Client);
        bench.say(1, open_waiting(9, 2, asked));
        assert_eq!(closed(&bench.pass(Duration::from_millis(1_999)), 1), None);
        assert_eq!(
            closed(&bench.pass(Duration::from_millis(waits - 2_000)), 1),
            None
        );
        let events = bench.pass(Duration::from_millis(1));
        assert_eq!(closed(&events, 1), Some(CloseReason::Offline), "{asked}");
        assert_eq!(bench.relay.load().channels, 0);
        assert_eq!(
            (bench.relay.awaited.count, bench.relay.awaited.holding),
            (0, 0)
        );
    }
}
