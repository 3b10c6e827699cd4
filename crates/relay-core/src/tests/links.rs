use std::collections::BTreeSet;
use std::time::Duration;

use byway_wire::relay::control::*;

use super::bench::*;
use crate::admission::Admission;
use crate::io::*;
use crate::relay::Config;

#[test]
fn hello_is_answered_with_welcome_and_the_observed_address() {
    let mut bench = Bench::new();
    let events = bench.come(1, 1, 10, Role::Client);
    let Some(Control::Welcome(welcome)) = sent(&events, 1).into_iter().next() else {
        panic!("no welcome in {events:?}");
    };
    assert_eq!(welcome.observed, addr(1));
    assert_eq!(welcome.time, 1_000);
    assert_eq!(welcome.max_channels, 1_024);
}

#[test]
fn a_udp_link_is_a_source_from_its_first_moment_to_its_last() {
    let mut bench = Bench::new();
    bench.link_up(1, 1);
    assert_eq!(bench.table.sources.get(&LinkId(1)), Some(&addr(1)));
    bench.link_down(1);
    assert!(bench.table.sources.is_empty());
    bench.link_up_as(2, 1, Egress::Tls(LinkId(2)));
    assert!(bench.table.sources.is_empty());
}

#[test]
fn a_link_without_hello_is_cut_after_ten_seconds() {
    let mut bench = Bench::new();
    bench.link_up(1, 1);
    assert_eq!(refused(&bench.pass(Duration::from_millis(9_999)), 1), None);
    let events = bench.pass(Duration::from_millis(1));
    assert_eq!(refused(&events, 1), Some(RefuseReason::Protocol));
    assert_eq!(bench.relay.counters().refused_silent, 1);
    assert_eq!(bench.relay.load().links, 0);
}

#[test]
fn a_version_we_do_not_speak_is_refused() {
    let mut bench = Bench::new();
    bench.link_up(1, 1);
    let mut hello = hello(1, 10, 1, Role::Client);
    hello.versions = vec![VERSION + 1];
    let events = bench.say(1, Control::Hello(hello));
    assert_eq!(refused(&events, 1), Some(RefuseReason::Version));
    assert_eq!(bench.relay.counters().refused_version, 1);
}

#[test]
fn a_record_of_another_key_is_refused() {
    let mut bench = Bench::new();
    bench.link_up(1, 1);
    let events = bench.say(1, Control::Hello(hello(2, 10, 1, Role::Client)));
    assert_eq!(refused(&events, 1), Some(RefuseReason::Identity));
    assert_eq!(bench.relay.counters().refused_identity, 1);
}

#[test]
fn a_node_that_is_not_on_the_list_is_refused() {
    let config = Config {
        admission: Admission::Nodes(BTreeSet::from([node(1)])),
        ..Config::default()
    };
    let mut bench = Bench::with(config);
    assert!(has(&bench.come(1, 1, 10, Role::Client), 1, "Welcome"));
    let events = bench.come(2, 2, 20, Role::Client);
    assert_eq!(refused(&events, 2), Some(RefuseReason::NotAdmitted));
    assert_eq!(bench.relay.counters().refused_admission, 1);
}

#[test]
fn anything_before_hello_is_refused() {
    let mut bench = Bench::new();
    bench.link_up(1, 1);
    let events = bench.say(1, open(9, 2));
    assert_eq!(refused(&events, 1), Some(RefuseReason::Protocol));
}

#[test]
fn a_second_hello_is_refused() {
    let mut bench = Bench::new();
    bench.come(1, 1, 10, Role::Client);
    let events = bench.say(1, Control::Hello(hello(1, 10, 1, Role::Client)));
    assert_eq!(refused(&events, 1), Some(RefuseReason::Protocol));
}

#[test]
fn a_message_only_relays_send_is_refused() {
    let mut bench = Bench::new();
    bench.come(1, 1, 10, Role::Client);
    let events = bench.say(
        1,
        Control::Attached {
            channel: channel(9),
        },
    );
    assert_eq!(refused(&events, 1), Some(RefuseReason::Protocol));
    assert_eq!(bench.relay.counters().refused_protocol, 1);
}

#[test]
fn a_malformed_message_ends_only_its_link() {
    let mut bench = Bench::joined();
    bench.come(3, 3, 30, Role::Client);
    bench
        .relay
        .handle_malformed(bench.now, LinkId(3), "malformed control message: Open.peer");
    let events = bench.drain();
    assert_eq!(refused(&events, 3), Some(RefuseReason::Protocol));
    assert_eq!(bench.table.entries.len(), 1);
    assert_eq!(bench.relay.load().links, 2);
}

#[test]
fn an_unknown_message_is_ignored_before_and_after_hello() {
    let mut bench = Bench::new();
    bench.link_up(1, 1);
    assert!(bench.say(1, Control::Unknown).is_empty());
    bench.say(1, Control::Hello(hello(1, 10, 1, Role::Client)));
    assert!(bench.say(1, Control::Unknown).is_empty());
    assert_eq!(bench.relay.counters().unknown_messages, 2);
}

#[test]
fn another_role_on_a_second_link_is_refused() {
    let mut bench = Bench::new();
    bench.come(1, 1, 10, Role::Client);
    let events = bench.come(2, 1, 10, Role::Agent);
    assert_eq!(refused(&events, 2), Some(RefuseReason::Protocol));
}

#[test]
fn another_role_than_the_proved_one_is_refused() {
    for (proved, said) in [(Role::Client, Role::Agent), (Role::Agent, Role::Client)] {
        let mut bench = Bench::new();
        let info = LinkInfo {
            node: node(1),
            role: Some(proved),
            began: bench.now,
            egress: Egress::Tls(LinkId(1)),
            observed: addr(1),
            intercepted: false,
        };
        bench.link_up_with(1, info);
        let events = bench.say(1, Control::Hello(hello(1, 10, 1, said)));
        assert_eq!(refused(&events, 1), Some(RefuseReason::Identity));
        assert_eq!(bench.relay.counters().refused_identity, 1);
        bench.link_up_with(2, info);
        let events = bench.say(2, Control::Hello(hello(1, 10, 1, proved)));
        assert!(has(&events, 2, "Welcome"));
    }
}

#[test]
fn the_time_to_hello_counts_from_the_connection_s_beginning() {
    let mut bench = Bench::new();
    let began = bench.now;
    // A handshake that took its time.
    bench.pass(Duration::from_secs(7));
    let info = LinkInfo {
        node: node(1),
        role: None,
        began,
        egress: Egress::Udp(addr(1)),
        observed: addr(1),
        intercepted: false,
    };
    bench.link_up_with(1, info);
    assert_eq!(refused(&bench.pass(Duration::from_millis(2_999)), 1), None);
    let events = bench.pass(Duration::from_millis(1));
    assert_eq!(refused(&events, 1), Some(RefuseReason::Protocol));
}

#[test]
fn ping_is_answered_with_its_token() {
    let mut bench = Bench::new();
    bench.come(1, 1, 10, Role::Client);
    let events = bench.say(1, Control::Ping { token: 77 });
    assert!(matches!(
        sent(&events, 1)[..],
        [Control::Pong { token: 77 }]
    ));
}

#[test]
fn several_client_instances_of_one_key_are_normal() {
    let mut bench = Bench::new();
    assert!(has(&bench.come(1, 1, 10, Role::Client), 1, "Welcome"));
    let events = bench.come(2, 1, 11, Role::Client);
    assert!(has(&events, 2, "Welcome"));
    assert_eq!(refused(&events, 1), None);
}

#[test]
fn a_newer_agent_instance_replaces_the_older_and_ends_its_channels() {
    let mut bench = Bench::joined();
    let events = bench.come_at(3, 2, 21, 2, Role::Agent);
    assert_eq!(refused(&events, 2), Some(RefuseReason::Replaced));
    assert_eq!(closed(&events, 1), Some(CloseReason::PeerGone));
    assert!(has(&events, 3, "Welcome"));
    assert!(bench.table.entries.is_empty());
    // Calls go to the new one.
    let events = bench.say(1, open(10, 2));
    assert!(has(&events, 3, "Incoming"));
}

#[test]
fn an_older_agent_instance_is_refused() {
    let mut bench = Bench::new();
    bench.come_at(1, 2, 20, 5, Role::Agent);
    let events = bench.come_at(2, 2, 21, 4, Role::Agent);
    assert_eq!(refused(&events, 2), Some(RefuseReason::Replaced));
    assert_eq!(refused(&events, 1), None);
    assert_eq!(bench.relay.counters().refused_replaced, 1);
}

#[test]
fn of_two_agents_of_one_age_every_relay_keeps_the_same() {
    for order in [[20, 21], [21, 20]] {
        let mut bench = Bench::new();
        bench.come(1, 2, order[0], Role::Agent);
        bench.come(2, 2, order[1], Role::Agent);
        bench.come(3, 1, 10, Role::Client);
        let events = bench.say(3, open(9, 2));
        let winner = if order[0] == 21 { 1 } else { 2 };
        assert!(has(&events, winner, "Incoming"), "{order:?}");
    }
}

#[test]
fn a_process_beyond_its_links_loses_the_oldest() {
    let mut bench = Bench::new();
    for link in 1..=4 {
        bench.come(link, 1, 10, Role::Client);
    }
    let events = bench.come(5, 1, 10, Role::Client);
    assert_eq!(refused(&events, 1), Some(RefuseReason::Limit));
    assert!(has(&events, 5, "Welcome"));
    assert_eq!(bench.relay.load().links, 4);
}

#[test]
fn a_node_beyond_its_links_is_refused_before_hello() {
    let mut bench = Bench::new();
    for link in 1..=16 {
        bench.come(link, 1, link, Role::Client);
    }
    let events = bench.link_up(17, 1);
    assert_eq!(refused(&events, 17), Some(RefuseReason::Limit));
    assert_eq!(bench.relay.counters().refused_links, 1);
    // Others are not touched, and room is made by leaving.
    assert_eq!(bench.relay.load().links, 16);
    bench.link_down(3);
    assert!(has(&bench.come(18, 1, 18, Role::Client), 18, "Welcome"));
}

#[test]
fn a_relay_with_room_for_one_link_a_process_still_knows_its_agent() {
    let config = Config {
        max_links_per_instance: 1,
        ..Config::default()
    };
    let mut bench = Bench::with(config);
    bench.come(1, 2, 20, Role::Agent);
    bench.come(2, 2, 20, Role::Agent);
    bench.come(3, 1, 10, Role::Client);
    assert!(has(&bench.say(3, open(9, 2)), 2, "Incoming"));
}

#[test]
fn going_away_tells_everyone_and_welcomes_nobody_new() {
    let mut bench = Bench::joined();
    bench
        .relay
        .handle_going_away(bench.now, Duration::from_secs(30), Vec::new());
    let events = bench.drain();
    assert!(has(&events, 1, "GoingAway") && has(&events, 2, "GoingAway"));
    // Nor does a newcomer go without a word of where else to go.
    let events = bench.come(3, 3, 30, Role::Client);
    assert!(has(&events, 3, "GoingAway"));
    assert_eq!(refused(&events, 3), Some(RefuseReason::Shutdown));
    assert_eq!(bench.table.entries.len(), 1, "what is established goes on");
    // Who is here and lost its link has a place to come back to, and hears that it will not be for long.
    bench.link_down(1);
    bench.now += Duration::from_secs(5);
    let events = bench.come(4, 1, 10, Role::Client);
    assert!(has(&events, 4, "Welcome") && has(&events, 4, "GoingAway"));
    bench.relay.handle_shutdown(bench.now);
    let events = bench.drain();
    assert_eq!(refused(&events, 4), Some(RefuseReason::Shutdown));
    assert_eq!(bench.relay.load().links, 0);
    // Their channels linger for them, but not to come back to a relay that is closing.
    let events = bench.come(5, 1, 10, Role::Client);
    assert_eq!(refused(&events, 5), Some(RefuseReason::Shutdown));
    assert!(!has(&events, 5, "Welcome"));
}

#[test]
fn nothing_is_left_when_everyone_has_gone() {
    let mut bench = Bench::joined();
    bench.link_down(1);
    bench.link_down(2);
    bench.pass(Duration::from_secs(10));
    assert_eq!(bench.relay.load(), Default::default());
    assert_eq!(bench.relay.poll_timeout(), None);
    assert!(bench.relay.agents.is_empty() && bench.relay.links_of.is_empty());
    assert!(bench.relay.awaited.all().is_empty());
}

#[test]
fn while_output_is_queued_the_relay_wants_to_be_asked_now() {
    let mut bench = Bench::new();
    let info = LinkInfo {
        node: node(1),
        role: None,
        began: bench.now,
        egress: Egress::Udp(addr(1)),
        observed: addr(1),
        intercepted: false,
    };
    bench.relay.handle_link_up(bench.now, LinkId(1), info);
    assert_eq!(bench.relay.poll_timeout(), Some((bench.now, "output")));
    bench.drain();
    let (at, why) = bench.relay.poll_timeout().unwrap();
    assert_eq!((at - bench.now, why), (Duration::from_secs(10), "hello"));
}
