use std::net::SocketAddr;
use std::time::Duration;

use byway_wire::ChannelId;
use byway_wire::relay::control::*;

use super::bench::*;
use crate::forward::{Decision, Source, decide};
use crate::io::*;

#[test]
fn data_is_forwarded_between_the_two_ends_and_from_nowhere_else() {
    let (a, b, c) = (addr(1), addr(2), addr(3));
    let (opener, target) = (Egress::Udp(a), Egress::Udp(b));
    assert_eq!(
        decide(opener, target, Source::Udp(a)),
        Decision::Forward(target)
    );
    assert_eq!(
        decide(opener, target, Source::Udp(b)),
        Decision::Forward(opener)
    );
    assert_eq!(decide(opener, target, Source::Udp(c)), Decision::Unbound);
    assert_eq!(
        decide(opener, target, Source::Tls(LinkId(1))),
        Decision::Unbound
    );
    let tls = Egress::Tls(LinkId(1));
    assert_eq!(
        decide(tls, target, Source::Tls(LinkId(1))),
        Decision::Forward(target)
    );
    assert_eq!(
        decide(tls, target, Source::Tls(LinkId(2))),
        Decision::Unbound
    );
    assert_eq!(decide(tls, target, Source::Udp(a)), Decision::Unbound);
}

#[test]
fn a_side_moves_to_another_link_of_its_process() {
    let mut bench = Bench::joined();
    bench.come(3, 1, 10, Role::Client);
    let events = bench.say(
        3,
        Control::Attach {
            channel: channel(9),
        },
    );
    assert!(has(&events, 3, "Attached"));
    let ends = (Egress::Udp(addr(3)), Egress::Udp(addr(2)));
    assert_eq!(bench.table.entries.get(&channel(9)), Some(&ends));
    assert_eq!(
        bench.relay.bound_link(channel(9), Side::Opener),
        Some(LinkId(3))
    );
    // The old link may go now.
    bench.link_down(1);
    assert!(bench.pass(Duration::from_secs(60)).is_empty());
    assert_eq!(bench.table.entries.len(), 1);
}

#[test]
fn attaching_twice_moves_once() {
    let mut bench = Bench::joined();
    let events = bench.say(
        1,
        Control::Attach {
            channel: channel(9),
        },
    );
    assert!(has(&events, 1, "Attached"));
    assert!(!events.iter().any(|e| matches!(e, Event::Table(_))));
}

#[test]
fn another_process_of_the_same_node_cannot_take_a_side() {
    let mut bench = Bench::joined();
    bench.come(3, 1, 11, Role::Client);
    let events = bench.say(
        3,
        Control::Attach {
            channel: channel(9),
        },
    );
    assert_eq!(closed(&events, 3), Some(CloseReason::NoSuchChannel));
    assert_eq!(bench.relay.counters().not_yours, 1);
    assert_eq!(
        bench.relay.bound_link(channel(9), Side::Opener),
        Some(LinkId(1))
    );
}

#[test]
fn a_side_without_a_link_lingers_ten_seconds_and_then_the_peer_is_gone() {
    let mut bench = Bench::joined();
    let events = bench.link_down(2);
    assert_eq!(closed(&events, 1), None);
    assert_eq!(
        bench.table.entries.len(),
        1,
        "data still flows to the address"
    );
    assert_eq!(closed(&bench.pass(Duration::from_millis(9_999)), 1), None);
    let events = bench.pass(Duration::from_millis(1));
    assert_eq!(closed(&events, 1), Some(CloseReason::PeerGone));
    assert!(bench.table.entries.is_empty());
    assert_eq!(bench.relay.counters().lingered, 1);
    // Whoever comes back later finds nothing.
    bench.come(3, 2, 20, Role::Agent);
    let events = bench.say(
        3,
        Control::Attach {
            channel: channel(9),
        },
    );
    assert_eq!(closed(&events, 3), Some(CloseReason::NoSuchChannel));
}

#[test]
fn a_node_that_comes_back_in_time_keeps_its_channels() {
    let mut bench = Bench::joined();
    bench.link_down(2);
    bench.pass(Duration::from_secs(9));
    bench.come(3, 2, 20, Role::Agent);
    assert!(has(
        &bench.say(
            3,
            Control::Attach {
                channel: channel(9)
            }
        ),
        3,
        "Attached"
    ));
    bench.pass(Duration::from_secs(60));
    let ends = (Egress::Udp(addr(1)), Egress::Udp(addr(3)));
    assert_eq!(bench.table.entries.get(&channel(9)), Some(&ends));
}

#[test]
fn a_side_that_closes_ends_the_channel_for_both() {
    let mut bench = Bench::joined();
    let message = Control::Closed {
        channel: channel(9),
        reason: CloseReason::Done,
    };
    let events = bench.say(1, message.clone());
    assert_eq!(closed(&events, 2), Some(CloseReason::Done));
    assert!(bench.table.entries.is_empty());
    assert!(
        bench.say(2, message).is_empty(),
        "closing what is closed is nothing"
    );
}

#[test]
fn a_target_that_refuses_is_heard() {
    let mut bench = Bench::joined();
    bench.say(1, open(10, 2));
    let refusal = Control::Closed {
        channel: channel(10),
        reason: CloseReason::NotAllowed,
    };
    let events = bench.say(2, refusal);
    assert_eq!(closed(&events, 1), Some(CloseReason::NotAllowed));
    assert_eq!(bench.relay.counters().open_not_allowed, 1);
}

#[test]
fn a_stranger_cannot_close_a_channel() {
    let mut bench = Bench::joined();
    bench.come(3, 3, 30, Role::Client);
    let message = Control::Closed {
        channel: channel(9),
        reason: CloseReason::Done,
    };
    assert!(bench.say(3, message).is_empty());
    assert_eq!(bench.table.entries.len(), 1);
    assert_eq!(bench.relay.counters().not_yours, 1);
}

fn cookie(bench: &Bench, channel: ChannelId, addr: SocketAddr) -> Control {
    let minute = bench.relay.minute(bench.now);
    let cookie = bench.relay.cookie_key().make(channel, addr, minute);
    Control::Rebind(Rebind { cookie })
}

#[test]
fn a_cookie_moves_all_channels_of_its_link() {
    let mut bench = Bench::joined();
    bench.say(1, open(10, 2));
    let new = addr(99);
    let message = cookie(&bench, channel(9), new);
    let events = bench.say(1, message);
    assert!(matches!(sent(&events, 1)[..], [Control::Rebound { observed }] if observed == new));
    let ends = (Egress::Udp(new), Egress::Udp(addr(2)));
    assert_eq!(bench.table.entries.get(&channel(9)), Some(&ends));
    assert_eq!(bench.table.entries.get(&channel(10)), Some(&ends));
    assert_eq!(bench.table.sources.get(&LinkId(1)), Some(&new));
    // Later opens come from there.
    let events = bench.say(1, open(11, 2));
    let Some(Control::Incoming(incoming)) = sent(&events, 2).pop() else {
        panic!("no Incoming");
    };
    assert_eq!(incoming.observed, new);
}

/// Where the other side is said to be now.
fn moved(events: &[Event], link: u64) -> Vec<(ChannelId, SocketAddr)> {
    sent(events, link)
        .into_iter()
        .filter_map(|message| match message {
            Control::PeerMoved { channel, observed } => Some((channel, observed)),
            _ => None,
        })
        .collect()
}

#[test]
fn the_other_side_hears_of_a_move_once_it_has_answered_and_not_before() {
    let mut bench = Bench::joined();
    let new = addr(99);
    let message = cookie(&bench, channel(9), new);
    let events = bench.say(1, message);
    assert_eq!(moved(&events, 2), [(channel(9), new)]);
    assert_eq!(moved(&events, 1), []);
    // A target that has not answered must not be given away by moving.
    bench.say(1, open(10, 2));
    let message = cookie(&bench, channel(10), addr(77));
    let events = bench.say(2, message);
    assert_eq!(moved(&events, 1), [(channel(9), addr(77))]);
}

#[test]
fn a_side_that_attaches_elsewhere_is_told_of_where_it_is_seen() {
    let mut bench = Bench::joined();
    bench.come(3, 1, 10, Role::Client);
    let attach = Control::Attach {
        channel: channel(9),
    };
    let events = bench.say(3, attach.clone());
    assert_eq!(moved(&events, 2), [(channel(9), addr(3))]);
    // Nothing moved: nothing is told.
    assert_eq!(moved(&bench.say(3, attach), 2), []);
}

#[test]
fn a_cookie_for_the_echo_moves_a_link_without_channels() {
    let mut bench = Bench::new();
    bench.come(1, 1, 10, Role::Agent);
    let message = cookie(&bench, ChannelId::ECHO, addr(99));
    assert!(has(&bench.say(1, message), 1, "Rebound"));
    assert_eq!(bench.table.sources.get(&LinkId(1)), Some(&addr(99)));
}

#[test]
fn a_forged_cookie_moves_nothing() {
    let mut bench = Bench::joined();
    let Control::Rebind(mut rebind) = cookie(&bench, channel(9), addr(99)) else {
        unreachable!()
    };
    rebind.cookie.mac[0] ^= 1;
    assert!(bench.say(1, Control::Rebind(rebind)).is_empty());
    assert_eq!(bench.relay.counters().bad_cookies, 1);
}

#[test]
fn a_cookie_for_another_address_moves_nothing() {
    let mut bench = Bench::joined();
    let Control::Rebind(mut rebind) = cookie(&bench, channel(9), addr(99)) else {
        unreachable!()
    };
    rebind.cookie.addr = addr(98);
    assert!(bench.say(1, Control::Rebind(rebind)).is_empty());
}

#[test]
fn a_cookie_of_two_minutes_ago_moves_nothing() {
    let mut bench = Bench::joined();
    let message = cookie(&bench, channel(9), addr(99));
    bench.pass(Duration::from_secs(120));
    assert!(bench.say(1, message).is_empty());
    assert_eq!(bench.relay.counters().bad_cookies, 1);
}

#[test]
fn a_cookie_for_a_channel_of_others_moves_nothing() {
    let mut bench = Bench::joined();
    bench.come(3, 3, 30, Role::Client);
    let message = cookie(&bench, channel(9), addr(99));
    assert!(bench.say(3, message).is_empty());
    let message = cookie(&bench, channel(77), addr(99));
    assert!(bench.say(3, message).is_empty());
    assert_eq!(bench.relay.counters().bad_cookies, 2);
}

#[test]
fn a_tls_link_cannot_be_moved_to_an_address() {
    let mut bench = Bench::new();
    bench.link_up_as(1, 1, Egress::Tls(LinkId(1)));
    bench.say(1, Control::Hello(hello(1, 10, 1, Role::Client)));
    let message = cookie(&bench, ChannelId::ECHO, addr(99));
    assert!(bench.say(1, message).is_empty());
    assert_eq!(bench.relay.counters().bad_cookies, 1);
}
