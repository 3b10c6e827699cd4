use std::time::Duration;

use bytes::Bytes;
use byway_wire::relay::control::*;

use super::bench::*;
use crate::awaited::{MAX_AWAITED, MAX_LONG_IN_ALL, Waits};
use crate::relay::Config;

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
    bench.relay.awaited.waits.short = MAX_AWAITED as u32;
    let events = bench.say(1, open(9, 2));
    assert_eq!(closed(&events, 1), Some(CloseReason::Offline));
    assert_eq!(bench.relay.awaited.waits.short, MAX_AWAITED as u32);
}

#[test]
fn who_may_not_wait_long_waits_as_any_other_does() {
    let mut bench = Bench::new();
    bench.come(1, 1, 10, Role::Client);
    bench.relay.awaited.waits.long = MAX_LONG_IN_ALL as u32;
    bench.say(1, open_waiting(9, 2, 30_000));
    assert_eq!(closed(&bench.pass(Duration::from_millis(1_999)), 1), None);
    let events = bench.pass(Duration::from_millis(1));
    assert_eq!(closed(&events, 1), Some(CloseReason::Offline));
    // So does one process that has too many tunnels to peers that are away, and new ones wait as ever.
    let mut bench = Bench::new();
    bench.come(1, 1, 10, Role::Client);
    for n in 0..33u8 {
        bench.say(1, open_waiting(100 + u64::from(n), 100 + n, 30_000));
    }
    for n in 0..31u8 {
        bench.say(1, open(200 + u64::from(n), 200 + n));
    }
    let waits = bench.relay.awaited.waits;
    assert_eq!((waits.short, waits.long), (32, 32));
    let ended = |events: &[crate::io::Event]| {
        sent(events, 1)
            .iter()
            .filter(|message| matches!(message, Control::Closed { .. }))
            .count()
    };
    assert_eq!(ended(&bench.pass(Duration::from_secs(2))), 32);
    assert_eq!(ended(&bench.pass(Duration::from_secs(28))), 32);
    assert_eq!(bench.relay.awaited.waits, Waits::default());
}

#[test]
fn the_first_to_come_is_served_first_and_a_node_is_waited_for_by_a_bounded_number() {
    let config = Config {
        max_unanswered: 300,
        ..Config::default()
    };
    let mut bench = Bench::with(config);
    let ids: Vec<u64> = (0..257).map(|n| 1_000 - n).collect();
    for (n, id) in (0u8..).zip(ids.chunks(32)) {
        let link = 50 + u64::from(n);
        bench.come(link, 50 + n, 1, Role::Client);
        for id in id {
            let events = bench.say(link, open_waiting(*id, 2, 30_000));
            let expected = (*id == 744).then_some(CloseReason::Offline);
            assert_eq!(closed(&events, link), expected, "{id}");
        }
    }
    let events = bench.come(2, 2, 20, Role::Agent);
    let served: Vec<u64> = sent(&events, 2)
        .into_iter()
        .filter_map(|message| match message {
            Control::Incoming(incoming) => Some(incoming.channel.as_u64()),
            _ => None,
        })
        .collect();
    assert_eq!(served, ids[..256]);
}

#[test]
fn what_waits_ends_with_its_link_and_when_the_relay_leaves() {
    let mut bench = Bench::new();
    bench.come(1, 1, 10, Role::Client);
    bench.come(2, 1, 10, Role::Client);
    bench.say(1, open_waiting(9, 2, 30_000));
    bench.say(2, open_waiting(10, 2, 30_000));
    bench.link_down(1);
    assert_eq!(bench.relay.load().channels, 1);
    assert_eq!(bench.relay.awaited.waits, Waits { short: 0, long: 1 });
    bench
        .relay
        .handle_going_away(bench.now, Duration::from_secs(9), Vec::new());
    assert_eq!(closed(&bench.drain(), 2), Some(CloseReason::Offline));
    assert_eq!(
        closed(&bench.say(2, open(11, 2)), 2),
        Some(CloseReason::Offline)
    );
    assert_eq!(bench.relay.awaited.waits, Waits::default());
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
    assert_eq!(bench.relay.awaited.waits, Waits { short: 0, long: 1 });
    assert_eq!(closed(&bench.pass(Duration::from_millis(29_999)), 1), None);
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
        assert_eq!(bench.relay.awaited.waits, Waits::default());
    }
}

/// 65,536 of them with their datagrams would be 384 MiB.
#[test]
fn a_long_wait_keeps_no_datagrams_from_its_beginning_on() {
    let mut bench = Bench::new();
    bench.come(1, 1, 10, Role::Client);
    bench.say(1, open_waiting(9, 2, 30_000));
    let events = bench.come(2, 2, 20, Role::Agent);
    let Some(Control::Incoming(incoming)) = sent(&events, 2).pop() else {
        panic!("Incoming comes last");
    };
    assert!(incoming.first.is_empty());
    // A peer that is here gets them, however long it would have been waited for.
    let Some(Control::Incoming(incoming)) =
        sent(&bench.say(1, open_waiting(10, 2, 30_000)), 2).pop()
    else {
        panic!("no Incoming");
    };
    assert_eq!(incoming.first.len(), 1);
}
