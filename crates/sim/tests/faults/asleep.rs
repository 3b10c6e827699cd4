//! A client's machine that sleeps: for seconds, minutes, hours. The rule is two round trips from waking up to an answer.

use std::time::Duration;

use byway_sim::model::Access;
use byway_sim::scene::{Scene, Setup};
use byway_sim::shell::app::Task;
use byway_sim::world::{Clock, Fault};

use crate::common::{ms, scene, secs};

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
/// is three round trips for UDP and more for TLS, and a link that breaks waits 100 ms or more before it is dialled again.
#[test]
fn a_relayed_tunnel_answers_within_two_round_trips_while_its_link_lives_and_then_takes_a_new_one() {
    for (access, anew) in [(Access::Symmetric, 300), (Access::UdpBlocked, 650)] {
        let took = worst(access, &SLEEPS[..1]);
        assert!(took <= ms(80), "{access:?}: {took:?}");
        let took = worst(access, &SLEEPS[1..]);
        assert!(took <= ms(anew), "{access:?}: {took:?}");
    }
}
