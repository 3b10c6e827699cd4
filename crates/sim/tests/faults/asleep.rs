//! A client's machine that sleeps: for seconds, minutes, hours. The rule is two round trips from waking up to an answer.

use std::time::Duration;

use byway_sim::model::Access;
use byway_sim::scenario::Scenario;
use byway_sim::scene::{Scene, Setup};
use byway_sim::shell::app::Task;
use byway_sim::world::{Clock, Fault};

use crate::common::{base, ms, scene, secs};
use crate::{MIB, slow};

/// Shorter than every idle time, and beyond each of them.
const SLEEPS: [u64; 6] = [5, 25, 60, 300, 3_600, 8 * 3_600];
const CLOCKS: [Clock; 2] = [Clock::StandsStill, Clock::Counts];

fn sleep(s: &mut Scene, time: Duration, clock: Clock) {
    let client = s.client;
    s.world.inflict(Fault::Sleep(client));
    s.world.run_for(time);
    s.world.inflict(Fault::Wake(client, clock));
}

/// From waking up to the answer to a touch, on a tunnel that was at rest.
fn back_after(access: Access, time: Duration, clock: Clock) -> Duration {
    let mut s = scene(Setup {
        client: access,
        agent: access,
        ..Setup::default()
    });
    let peer = s.dial(vec![Task::Touch]);
    assert!(s.finish(secs(10)));
    s.world.run_for(secs(30));
    sleep(&mut s, time, clock);
    let woke = s.world.net.now();
    s.begin(peer, Task::Touch);
    let done = s.finish(secs(30));
    assert!(done, "{access:?} {time:?} {clock:?}\n{}", s.story());
    s.assert_fine();
    s.world.net.now() - woke
}

/// The longest of all sleeps and clocks.
fn worst(access: Access, sleeps: &[u64]) -> Duration {
    let mut worst = Duration::ZERO;
    for clock in CLOCKS {
        let times = sleeps
            .iter()
            .map(|time| back_after(access, secs(*time), clock));
        let times: Vec<Duration> = times.collect();
        println!("{access:?}, {clock:?}: {times:?} after {sleeps:?} s");
        worst = worst.max(times.into_iter().max().unwrap_or_default());
    }
    worst
}

/// The round trip is 20 ms.
#[test]
fn a_direct_tunnel_answers_within_two_round_trips_of_waking_up_however_long_the_sleep() {
    for access in [Access::Open, Access::PortRestricted] {
        let took = worst(access, &SLEEPS);
        assert!(took <= ms(40), "{access:?}: {took:?}");
    }
}

/// The round trip is 40 ms, 20 ms of it to the relay. A link that the relay has given up meanwhile must be made anew, which
/// is three round trips for UDP, and for TLS more, after the 300 ms that UDP has to itself. Where the clock counts the sleep and
/// the node had no timer of its own, only its links' timers tell that they are dead, and some tries go before the new one.
#[test]
fn a_relayed_tunnel_answers_within_two_round_trips_while_its_link_lives_and_then_takes_a_new_one() {
    for (access, anew) in [(Access::Symmetric, 230), (Access::UdpBlocked, 520)] {
        let took = worst(access, &SLEEPS[..1]);
        assert!(took <= ms(80), "{access:?}: {took:?}");
        let took = worst(access, &SLEEPS[1..]);
        assert!(took <= ms(anew), "{access:?}: {took:?}");
    }
}

/// From waking up to the end of a transfer of a megabyte, 8 Mbit/s, that the machine fell asleep over; half of it was left.
fn ends_after(access: Access, upload: bool, time: Duration, clock: Clock) -> Duration {
    let mut s = scene(Setup {
        client: access,
        agent: access,
        client_link: slow(),
        agent_link: slow(),
        ..Setup::default()
    });
    let peer = s.dial(vec![Task::Touch]);
    assert!(s.finish(secs(10)));
    s.world.run_for(secs(5));
    s.begin(
        peer,
        if upload {
            Task::Upload(MIB)
        } else {
            Task::Download(MIB)
        },
    );
    s.world.run_for(ms(500));
    assert!(s.world.node(s.client).0.busy(), "over before the sleep");
    sleep(&mut s, time, clock);
    let woke = s.world.net.now();
    let done = s.finish(secs(900));
    assert!(
        done,
        "{access:?} {upload} {time:?} {clock:?}\n{}",
        s.story()
    );
    s.assert_fine();
    s.world.net.now() - woke
}

fn slowest(access: Access, upload: bool, sleeps: &[u64]) -> Duration {
    let mut slowest = Duration::ZERO;
    for clock in CLOCKS {
        let times = sleeps
            .iter()
            .map(|time| ends_after(access, upload, secs(*time), clock));
        let times: Vec<Duration> = times.collect();
        println!("{access:?}, upload {upload}, {clock:?}: {times:?} after {sleeps:?} s");
        slowest = slowest.max(times.into_iter().max().unwrap_or_default());
    }
    slowest
}

/// Found by random scenarios: QUIC took an acknowledgement of what was sent before the sleep for a round trip, and paced
/// by it. After an hour the transfer took eight minutes, after eight hours it took hours.
#[test]
fn a_transfer_that_the_machine_slept_over_goes_on_at_once_however_long_the_sleep() {
    for upload in [false, true] {
        let took = slowest(Access::Open, upload, &SLEEPS);
        assert!(took <= ms(2_500), "{upload}: {took:?}");
    }
    let took = slowest(Access::Symmetric, false, &SLEEPS);
    assert!(took <= ms(2_500), "relayed: {took:?}");
}

/// Where an old datagram itself comes through (TCP keeps what was under way; a clock that counts lets QUIC's own timers
/// send into the dead link first), QUIC still takes the sleep for a round trip, and needs a while to forget it.
#[test]
fn over_tls_and_with_a_clock_that_counts_a_transfer_takes_longer_to_go_on() {
    for (access, upload) in [
        (Access::Symmetric, true),
        (Access::UdpBlocked, false),
        (Access::UdpBlocked, true),
    ] {
        let took = slowest(access, upload, &SLEEPS[..4]);
        assert!(took <= secs(40), "{access:?} {upload}: {took:?}");
    }
}

/// Found by random scenarios: while its peer slept, the side that stayed awake shut the direct path out for ever longer, up
/// to ten minutes, though no other path answered either.
#[test]
fn a_direct_path_that_was_new_when_the_machine_fell_asleep_is_used_by_both_sides_afterwards() {
    for text in [
        "seed=433 client=Open agent=Open client-link=delay:0.003 agent-link=delay:0.039,jitter:0.001,mtu:1420,\
         duplicate:0.011 ClientSleeps@0.469134816+570.679 Touch@0.447134816",
        "seed=4808 client=Open agent=Open client-link=delay:0.028,rate:1000000 agent-link=delay:0.014,mtu:1420 \
         ClientSleepsCounted@2.8+218.8 Download:78959@0.2 Touch@2.7",
        "seed=5621 client=Open agent=Open client-link=delay:0.018,jitter:0.003,mtu:1420 agent-link=delay:0.021 \
         ClientSleeps@1.863253362+363.704 Touch@1.820253362",
    ] {
        let scenario: Scenario = text.parse().unwrap_or_else(|error| panic!("{error}"));
        let outcome = scenario.run(base());
        assert!(
            outcome.failures.is_empty(),
            "{text}\n{:#?}\n{}",
            outcome.failures,
            outcome.story
        );
    }
}
