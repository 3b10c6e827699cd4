use std::time::Duration;

use bytes::Bytes;
use byway_wire::relay::control::*;

use super::bench::*;
use crate::relayed::{MAX_SIGNAL, SIGNAL_BURST};

fn signal(id: u64, len: usize) -> Control {
    Control::Signal {
        channel: channel(id),
        sealed: Bytes::from(vec![3; len]),
    }
}

#[test]
fn a_signal_goes_to_the_other_side() {
    let mut bench = Bench::joined();
    assert!(matches!(&sent(&bench.say(1, signal(9, 100)), 2)[..],
        [Control::Signal { channel: c, sealed }] if *c == channel(9) && sealed.len() == 100));
    assert!(has(&bench.say(2, signal(9, 100)), 1, "Signal"));
}

#[test]
fn a_signal_that_is_too_long_is_dropped() {
    let mut bench = Bench::joined();
    assert!(has(&bench.say(1, signal(9, MAX_SIGNAL)), 2, "Signal"));
    assert!(bench.say(1, signal(9, MAX_SIGNAL + 1)).is_empty());
    assert_eq!(bench.relay.counters().signals_dropped, 1);
}

#[test]
fn a_stranger_cannot_signal() {
    let mut bench = Bench::joined();
    bench.come(3, 3, 30, Role::Client);
    assert!(bench.say(3, signal(9, 10)).is_empty());
    assert_eq!(bench.relay.counters().not_yours, 1);
}

#[test]
fn a_signal_for_a_side_without_a_link_is_dropped() {
    let mut bench = Bench::joined();
    bench.link_down(2);
    assert!(bench.say(1, signal(9, 10)).is_empty());
    assert_eq!(bench.relay.counters().signals_dropped, 1);
}

#[test]
fn signals_beyond_the_burst_are_dropped_until_time_passes() {
    let mut bench = Bench::joined();
    for _ in 0..SIGNAL_BURST {
        assert!(has(&bench.say(1, signal(9, 10)), 2, "Signal"));
    }
    assert!(bench.say(1, signal(9, 10)).is_empty());
    assert!(
        has(&bench.say(2, signal(9, 10)), 1, "Signal"),
        "the other side has its own"
    );
    bench.pass(Duration::from_millis(250));
    assert!(has(&bench.say(1, signal(9, 10)), 2, "Signal"));
    assert!(has(&bench.say(1, signal(9, 10)), 2, "Signal"));
    assert!(bench.say(1, signal(9, 10)).is_empty());
    bench.pass(Duration::from_millis(50));
    assert!(
        has(&bench.say(1, signal(9, 10)), 2, "Signal"),
        "parts of an interval add up"
    );
    bench.pass(Duration::from_secs(3_600));
    assert!(has(&bench.say(1, signal(9, 10)), 2, "Signal"));
}

#[test]
fn a_newer_record_goes_to_peers_with_a_channel_only() {
    let mut bench = Bench::joined();
    bench.come(3, 3, 30, Role::Client);
    let events = bench.say(2, Control::Record(record(2, 20, 1, 5)));
    assert!(has(&events, 1, "Record"));
    assert!(!has(&events, 3, "Record"));
    // And later openers get it.
    let events = bench.say(3, open(10, 2));
    let Some(Control::Opened(opened)) = sent(&events, 3).pop() else {
        panic!("no Opened");
    };
    assert_eq!(opened.record.record().seq, 5);
}

#[test]
fn a_record_that_is_not_newer_or_not_theirs_is_ignored() {
    let mut bench = Bench::joined();
    bench.say(2, Control::Record(record(2, 20, 1, 5)));
    for wrong in [
        record(2, 20, 1, 4),
        record(2, 21, 9, 9),
        record(1, 20, 9, 9),
    ] {
        assert!(bench.say(2, Control::Record(wrong)).is_empty());
    }
    assert_eq!(bench.relay.counters().records_ignored, 3);
}

#[test]
fn of_many_records_in_a_second_only_the_last_is_passed_on() {
    let mut bench = Bench::joined();
    assert!(has(
        &bench.say(2, Control::Record(record(2, 20, 1, 1))),
        1,
        "Record"
    ));
    for seq in 2..10 {
        assert!(
            bench
                .say(2, Control::Record(record(2, 20, 1, seq)))
                .is_empty()
        );
    }
    let events = bench.pass(Duration::from_secs(1));
    assert!(matches!(&sent(&events, 1)[..], [Control::Record(r)] if r.record().seq == 9));
    assert!(bench.pass(Duration::from_secs(1)).is_empty());
}

#[test]
fn a_newer_record_on_a_second_link_is_passed_on_too() {
    let mut bench = Bench::joined();
    bench.link_up(3, 2);
    let mut message = hello(2, 20, 1, Role::Agent);
    message.record = record(2, 20, 1, 7);
    let events = bench.say(3, Control::Hello(message));
    assert!(has(&events, 1, "Record"));
}
