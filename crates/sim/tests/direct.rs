//! How soon after the tunnel is up its data goes direct, over networks of many lengths.

mod common;

use std::time::Duration;

use byway_core::io::PathKind;
use byway_sim::model::{Access, Families};
use byway_sim::net::link::LinkConfig;
use byway_sim::rng::Rng;
use byway_sim::scene::Setup;
use byway_sim::shell::app::Task;
use common::{ms, percentile, scene, secs};

/// Where both are where they say: nobody must wait to learn of the other's port.
const EASY: [Access; 5] = [
    Access::Open,
    Access::FullCone,
    Access::AddressRestricted,
    Access::PortRestricted,
    Access::RandomCone,
];

/// Times from the tunnel's handshake to the first datagram on the direct path, at the client and at the agent, in
/// round trips of the direct path.
fn measure(seed: u64) -> [Duration; 2] {
    let mut rng = Rng::new(seed, "direct");
    let link = |rng: &mut Rng| LinkConfig {
        delay: ms(rng.between(5, 40)),
        jitter: ms(rng.below(3)),
        ..LinkConfig::default()
    };
    let setup = Setup {
        seed,
        client: rng.pick(&EASY),
        agent: rng.pick(&EASY),
        client_link: link(&mut rng),
        agent_link: link(&mut rng),
        ..Setup::default()
    };
    // With the jitter there is on average: half of it, each way.
    let round_trip = [setup.client_link, setup.agent_link]
        .map(|link| 2 * link.delay + link.jitter)
        .iter()
        .sum::<Duration>();
    // A duration again, so that all measures are sorted by one rule: one round trip is a second.
    until_direct(setup).map(|took| secs(1).mul_f64(took.as_secs_f64() / round_trip.as_secs_f64()))
}

fn until_direct(setup: Setup) -> [Duration; 2] {
    let seed = setup.seed;
    let mut s = scene(setup);
    s.dial(vec![Task::Touch]);
    assert!(s.finish(secs(10)), "seed {seed}");
    s.world.run_for(secs(5));
    [s.client, s.agent].map(|host| {
        let direct = s.first_on(host, PathKind::Direct);
        let up = s.connected_at(host);
        let (Some(direct), Some(up)) = (direct, up) else {
            panic!("seed {seed}: never direct\n{}", s.story());
        };
        direct.saturating_sub(up)
    })
}

/// What is wanted of easy pairs: two round trips after the tunnel is up as a rule, three nearly always. One finds the way,
/// one proves its size. The twentieth of a round trip more is for packets that take their time on the wire.
#[test]
fn easy_pairs_are_direct_two_round_trips_after_the_tunnel_is_up() {
    let all: Vec<[Duration; 2]> = (0..100).map(measure).collect();
    for (side, name) in ["client", "agent"].into_iter().enumerate() {
        let mut took: Vec<Duration> = all.iter().map(|sides| sides[side]).collect();
        took.sort();
        let [p50, p95, worst] = [50, 95, 100].map(|share| percentile(&took, share));
        println!("{name}: in round trips: p50 {p50:?}, p95 {p95:?}, worst {worst:?}");
        assert!(took[0] < worst, "all the same: nothing was varied");
        assert!(p50 <= ms(2050), "{name}: {took:?}");
        assert!(p95 <= secs(3), "{name}: {took:?}");
    }
}

/// On a path that is narrower than what is tried, that has to be found out: two flights of a round trip and a half each, instead
/// of one round trip. A large datagram is sent twice before its silence counts.
#[test]
fn narrow_networks_are_direct_six_round_trips_after_the_tunnel_is_up() {
    let moment = ms(50);
    let mut rng = Rng::new(1, "narrow");
    let mut all = Vec::new();
    for mtu in [1_280, 1_420, 1_492] {
        for delay in [ms(1), ms(5), ms(20), ms(50), ms(150)] {
            for (client, agent) in [(mtu, 1_500), (1_500, mtu), (mtu, mtu)] {
                let link = |mtu| LinkConfig {
                    delay,
                    mtu,
                    ..LinkConfig::default()
                };
                let setup = Setup {
                    seed: rng.below(1_000_000),
                    client: rng.pick(&EASY),
                    agent: rng.pick(&EASY),
                    client_ip: rng.pick(&[Families::V4, Families::Both]),
                    agent_ip: rng.pick(&[Families::V4, Families::Both]),
                    client_link: link(client),
                    agent_link: link(agent),
                    ..Setup::default()
                };
                let told = format!("{setup:?}");
                for took in until_direct(setup) {
                    assert!(took <= delay * 4 * 6 + moment, "{took:?} of {told}");
                    let trips =
                        took.saturating_sub(moment).as_secs_f64() / (delay * 4).as_secs_f64();
                    all.push(secs(1).mul_f64(trips));
                }
            }
        }
    }
    all.sort();
    let [p50, p95, worst] = [50, 95, 100].map(|share| percentile(&all, share));
    println!("beyond 50 ms, in round trips: p50 {p50:?}, p95 {p95:?}, worst {worst:?}");
}
