//! Why channels and links ended, as the log has it.

use std::time::Duration;

use byway_wire::relay::control::*;

use super::bench::*;
use crate::Admission;
use crate::io::*;

/// The one reason in what came out.
fn why(events: &[Event]) -> Option<EndReason> {
    let mut reasons = events.iter().filter_map(|event| match event {
        Event::Audit(Audit::Ended {
            channel: id,
            opener,
            target,
            why,
        }) => {
            assert_eq!((*id, *opener, *target), (channel(9), node(1), node(2)));
            Some(*why)
        }
        _ => None,
    });
    let reason = reasons.next();
    assert_eq!(reasons.next(), None, "it ended twice");
    reason
}

fn closed_with(reason: CloseReason) -> Control {
    Control::Closed {
        channel: channel(9),
        reason,
    }
}

#[test]
fn who_closed_it() {
    let mut bench = Bench::joined();
    let events = bench.say(1, closed_with(CloseReason::Done));
    assert_eq!(why(&events), Some(EndReason::ClosedByOpener));
    let mut bench = Bench::joined();
    let events = bench.say(2, closed_with(CloseReason::Done));
    assert_eq!(why(&events), Some(EndReason::ClosedByTarget));
    for reason in [CloseReason::NotAllowed, CloseReason::Limit] {
        let mut bench = Bench::joined();
        let events = bench.say(2, closed_with(reason));
        assert_eq!(why(&events), Some(EndReason::RefusedByTarget));
    }
}

#[test]
fn who_was_gone() {
    for (link, expected) in [(1, EndReason::OpenerGone), (2, EndReason::TargetGone)] {
        let mut bench = Bench::joined();
        assert_eq!(why(&bench.link_down(link)), None, "it may come back");
        assert_eq!(why(&bench.pass(Duration::from_secs(10))), Some(expected));
    }
}

#[test]
fn a_target_that_said_nothing() {
    let mut bench = Bench::new();
    bench.come(2, 2, 20, Role::Agent);
    bench.come(1, 1, 10, Role::Client);
    bench.say(1, open(9, 2));
    let events = bench.pass(Duration::from_secs(10));
    assert_eq!(why(&events), Some(EndReason::NotAnswered));
}

#[test]
fn an_agent_that_was_replaced() {
    let mut bench = Bench::joined();
    let events = bench.come_at(3, 2, 21, 2, Role::Agent);
    assert_eq!(why(&events), Some(EndReason::Replaced));
}

#[test]
fn a_node_that_is_not_admitted_any_more() {
    let mut bench = Bench::joined();
    let only = Admission::Nodes([node(1)].into());
    bench.relay.set_admission(bench.now, only);
    assert_eq!(why(&bench.drain()), Some(EndReason::NotAdmitted));
}

#[test]
fn a_relay_that_stops() {
    let mut bench = Bench::joined();
    bench.relay.handle_shutdown(bench.now);
    assert_eq!(why(&bench.drain()), Some(EndReason::Shutdown));
}

/// How link 1's end is told, once.
fn unlinked(events: &[Event]) -> Option<RefuseReason> {
    let ends: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Audit(Audit::Unlinked {
                link,
                node: of,
                why,
            }) => {
                assert_eq!((*link, *of), (LinkId(1), node(1)));
                Some(*why)
            }
            _ => None,
        })
        .collect();
    assert_eq!(ends.len(), 1, "{events:?}");
    ends[0]
}

#[test]
fn a_link_that_the_relay_ended_says_why_and_one_that_broke_does_not() {
    let mut bench = Bench::new();
    bench.come(1, 1, 10, Role::Client);
    assert_eq!(unlinked(&bench.link_down(1)), None);
    let mut bench = Bench::new();
    bench.come(1, 1, 10, Role::Client);
    let again = Control::Hello(hello(1, 10, 1, Role::Client));
    assert_eq!(unlinked(&bench.say(1, again)), Some(RefuseReason::Protocol));
    let mut bench = Bench::new();
    bench.come(1, 1, 10, Role::Client);
    let now = bench.now;
    bench.relay.handle_shutdown(now);
    assert_eq!(unlinked(&bench.drain()), Some(RefuseReason::Shutdown));
}
