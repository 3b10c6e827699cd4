use std::time::Duration;

use bytes::Bytes;
use byway_wire::ChannelId;
use byway_wire::relay::control::*;

use super::bench::*;
use crate::io::*;
use crate::relay::Config;

#[test]
fn an_open_reaches_the_peer_and_is_answered_at_once() {
    let mut bench = Bench::new();
    bench.come(2, 2, 20, Role::Agent);
    bench.come(1, 1, 10, Role::Client);
    let events = bench.say(1, open(9, 2));
    let Some(Control::Incoming(incoming)) = sent(&events, 2).pop() else {
        panic!("no Incoming");
    };
    assert_eq!(incoming.record.node(), node(1));
    assert_eq!(incoming.observed, addr(1));
    assert_eq!(incoming.proof, Some([7; 32]));
    assert_eq!(incoming.first, vec![Bytes::from_static(b"first flight")]);
    let Some(Control::Opened(opened)) = sent(&events, 1).pop() else {
        panic!("no Opened");
    };
    assert_eq!(opened.record.node(), node(2));
    let ends = (Egress::Udp(addr(1)), Egress::Udp(addr(2)));
    assert_eq!(bench.table.entries.get(&channel(9)), Some(&ends));
    let table = events.iter().position(|e| matches!(e, Event::Table(_)));
    let send = events.iter().position(|e| matches!(e, Event::Send { .. }));
    assert!(table < send, "the table must be ready when data may come");
}

/// Where the opener is told that the other side is.
fn told_where(events: &[Event], link: u64) -> Vec<std::net::SocketAddr> {
    sent(events, link)
        .into_iter()
        .filter_map(|message| match message {
            Control::PeerMoved { observed, .. } => Some(observed),
            _ => None,
        })
        .collect()
}

#[test]
fn an_opener_hears_where_the_peer_is_when_that_has_let_it_in_and_once() {
    let mut bench = Bench::new();
    bench.come(2, 2, 20, Role::Agent);
    bench.come(1, 1, 10, Role::Client);
    let events = bench.say(1, open(9, 2));
    assert_eq!(told_where(&events, 1), []);
    let accept = Control::Accept {
        channel: channel(9),
    };
    let events = bench.say(2, accept.clone());
    assert_eq!(told_where(&events, 1), [addr(2)]);
    assert_eq!(told_where(&events, 2), []);
    let events = bench.say(2, accept);
    assert_eq!(told_where(&events, 1), []);
}

#[test]
fn an_opener_whom_the_peer_turns_away_is_not_told_where_it_is() {
    let mut bench = Bench::new();
    bench.come(2, 2, 20, Role::Agent);
    bench.come(1, 1, 10, Role::Client);
    let mut events = bench.say(1, open(9, 2));
    let refusal = Control::Closed {
        channel: channel(9),
        reason: CloseReason::NotAllowed,
    };
    events.extend(bench.say(2, refusal));
    assert_eq!(closed(&events, 1), Some(CloseReason::NotAllowed));
    assert_eq!(told_where(&events, 1), []);
    // An answer that comes too late changes nothing.
    let accept = Control::Accept {
        channel: channel(9),
    };
    assert_eq!(told_where(&bench.say(2, accept), 1), []);
}

#[test]
fn an_id_in_use_is_refused() {
    let mut bench = Bench::joined();
    bench.come(3, 3, 30, Role::Client);
    let events = bench.say(3, open(9, 2));
    assert_eq!(closed(&events, 3), Some(CloseReason::ChannelInUse));
    assert_eq!(bench.relay.counters().open_in_use, 1);
    assert_eq!(closed(&events, 1), None);
}

#[test]
fn the_echo_channel_cannot_be_opened() {
    let mut bench = Bench::joined();
    let events = bench.say(1, open(ChannelId::ECHO.as_u64(), 2));
    assert_eq!(closed(&events, 1), Some(CloseReason::ChannelInUse));
}

#[test]
fn opening_to_oneself_is_refused() {
    let mut bench = Bench::joined();
    let events = bench.say(1, open(10, 1));
    assert_eq!(closed(&events, 1), Some(CloseReason::SelfOpen));
    assert_eq!(bench.relay.counters().open_self, 1);
}

#[test]
fn a_ninth_unanswered_open_to_one_target_is_refused() {
    let mut bench = Bench::joined();
    for id in 0..8 {
        assert!(has(&bench.say(1, open(100 + id, 2)), 1, "Opened"));
    }
    let events = bench.say(1, open(200, 2));
    assert_eq!(closed(&events, 1), Some(CloseReason::Limit));
    assert_eq!(bench.relay.counters().open_unanswered, 1);
    // One answer makes room for one.
    bench.say(
        2,
        Control::Accept {
            channel: channel(100),
        },
    );
    assert!(has(&bench.say(1, open(201, 2)), 1, "Opened"));
    assert_eq!(
        closed(&bench.say(1, open(202, 2)), 1),
        Some(CloseReason::Limit)
    );
    // Answering again does not.
    bench.say(
        2,
        Control::Accept {
            channel: channel(100),
        },
    );
    assert_eq!(
        closed(&bench.say(1, open(203, 2)), 1),
        Some(CloseReason::Limit)
    );
    // Nor does an answer by the opener itself.
    bench.say(
        1,
        Control::Accept {
            channel: channel(101),
        },
    );
    assert_eq!(
        closed(&bench.say(1, open(204, 2)), 1),
        Some(CloseReason::Limit)
    );
}

#[test]
fn an_open_without_an_answer_expires_after_ten_seconds() {
    let mut bench = Bench::joined();
    bench.say(1, open(10, 2));
    assert_eq!(closed(&bench.pass(Duration::from_millis(9_999)), 1), None);
    let events = bench.pass(Duration::from_millis(1));
    assert_eq!(closed(&events, 1), Some(CloseReason::Offline));
    assert_eq!(closed(&events, 2), Some(CloseReason::PeerGone));
    assert_eq!(bench.relay.counters().open_expired, 1);
    assert_eq!(bench.table.entries.len(), 1, "the answered one stays");
    let events = bench.say(
        2,
        Control::Accept {
            channel: channel(10),
        },
    );
    assert_eq!(closed(&events, 2), Some(CloseReason::NoSuchChannel));
}

#[test]
fn a_client_cannot_be_called() {
    let mut bench = Bench::joined();
    bench.come(3, 3, 30, Role::Client);
    bench.say(3, open(10, 1));
    let events = bench.pass(Duration::from_secs(2));
    assert_eq!(closed(&events, 3), Some(CloseReason::Offline));
}

#[test]
fn the_latest_link_of_an_agent_is_called() {
    let mut bench = Bench::joined();
    bench.come(3, 2, 20, Role::Agent);
    assert!(has(&bench.say(1, open(10, 2)), 3, "Incoming"));
}

#[test]
fn too_many_or_too_large_first_datagrams_are_refused() {
    let mut bench = Bench::joined();
    for first in [
        vec![Bytes::from_static(b"x"); MAX_FIRST + 1],
        vec![Bytes::from(vec![0; MAX_FIRST_BYTES / 2 + 1]); 2],
    ] {
        let open = Open {
            channel: channel(10),
            peer: node(2),
            proof: None,
            first,
            wait_ms: 0,
        };
        let events = bench.say(1, Control::Open(open));
        assert_eq!(closed(&events, 1), Some(CloseReason::Limit));
    }
    assert_eq!(bench.relay.counters().open_first, 2);
}

#[test]
fn an_opener_with_too_many_channels_is_refused() {
    let config = Config {
        max_channels: 3,
        ..Config::default()
    };
    let mut bench = Bench::with(config);
    bench.come(1, 1, 10, Role::Client);
    for n in 0..4u8 {
        bench.come(50 + u64::from(n), 50 + n, 1, Role::Agent);
        let events = bench.say(1, open(100 + u64::from(n), 50 + n));
        let expected = (n == 3).then_some(CloseReason::Limit);
        assert_eq!(closed(&events, 1), expected);
    }
    assert_eq!(bench.relay.counters().open_channels, 1);
}

#[test]
fn a_target_with_too_many_channels_is_not_called() {
    let config = Config {
        max_channels: 3,
        ..Config::default()
    };
    let mut bench = Bench::with(config);
    bench.come(2, 2, 20, Role::Agent);
    for n in 0..4u8 {
        bench.come(50 + u64::from(n), 50 + n, 1, Role::Client);
        let events = bench.say(50 + u64::from(n), open(100 + u64::from(n), 2));
        let expected = (n == 3).then_some(CloseReason::Limit);
        assert_eq!(closed(&events, 50 + u64::from(n)), expected);
        assert_eq!(has(&events, 2, "Incoming"), n < 3);
    }
}
