//! Faults in the middle of things: black holes, a relay that dies, NATs that restart, poor networks, clocks that jump.

#[path = "../common/mod.rs"]
mod common;

mod asleep;
mod clocks;
mod holes;
mod maps;
mod nats;
mod networks;
mod relays;
mod second;
mod stalls;
mod steady;
mod upgrades;

use byway_core::io::{PathKind, PeerId};
use byway_sim::model::Access;
use byway_sim::net::link::LinkConfig;
use byway_sim::net::{Hole, SiteId, Traffic};
use byway_sim::scenario::Scenario;
use byway_sim::scene::{Scene, Setup};
use byway_sim::shell::app::Task;
use byway_sim::world::Fault;
use common::{base, ms, scene, secs};

const MIB: u64 = 1024 * 1024;
const DIRECT: Option<PathKind> = Some(PathKind::Direct);
const RELAYED: Option<PathKind> = Some(PathKind::RelayUdp);

/// 8 Mbit/s, so that a transfer lasts long enough to be hit, with a queue that keeps the round trip near its 20 ms under
/// load (what is promised is promised for a round trip, and a long queue is a longer one).
fn slow() -> LinkConfig {
    LinkConfig {
        rate: Some(1_000_000),
        queue: ms(15),
        ..LinkConfig::default()
    }
}

fn slow_setup(seed: u64) -> Setup {
    Setup {
        seed,
        client_link: slow(),
        agent_link: slow(),
        ..Setup::default()
    }
}

/// A tunnel that is direct on both sides, with its size known and everything at rest.
fn direct(setup: Setup) -> (Scene, PeerId) {
    let mut s = scene(setup);
    let peer = s.dial(vec![Task::Touch]);
    assert!(
        s.until_path(peer, PathKind::Direct, secs(10)),
        "never direct\n{}",
        s.world.net.trace
    );
    s.world.run_for(secs(3));
    assert_eq!(s.paths(peer), (DIRECT, DIRECT));
    (s, peer)
}

/// A tunnel that stays on the UDP link.
fn relayed(mut setup: Setup) -> (Scene, PeerId) {
    setup.client = Access::Symmetric;
    setup.agent = Access::Symmetric;
    let mut s = scene(setup);
    let peer = s.dial(vec![Task::Touch]);
    assert!(s.finish(secs(10)));
    s.world.run_for(secs(3));
    assert_eq!(s.paths(peer), (RELAYED, RELAYED));
    (s, peer)
}

/// Datagrams from one site to the other are swallowed from now on.
fn cut(s: &mut Scene, from: SiteId, to: SiteId) -> Fault {
    let hole = Hole {
        from: Some(from),
        to: Some(to),
        what: Traffic::Udp,
    };
    s.world.inflict(Fault::Open(hole));
    Fault::Close(hole)
}

/// The direct path is dead both ways from now on; what heals it again.
fn cut_direct(s: &mut Scene) -> [Fault; 2] {
    let (client, agent) = (s.client_site, s.agent_site);
    [cut(s, client, agent), cut(s, agent, client)]
}

/// The client's site has no network at all from now on; what gives it back.
fn cut_off(s: &mut Scene) -> [Fault; 2] {
    let site = Some(s.client_site);
    [(site, None), (None, site)].map(|(from, to)| {
        let what = Traffic::All;
        let hole = Hole { from, to, what };
        s.world.inflict(Fault::Open(hole));
        Fault::Close(hole)
    })
}

fn heal(s: &mut Scene, faults: [Fault; 2]) {
    for fault in faults {
        s.world.inflict(fault);
    }
}

/// Touches until both sides send on this kind of path, at most for two minutes.
fn both_come_to(s: &mut Scene, peer: PeerId, kind: Option<PathKind>) -> bool {
    (0..60).any(|_| {
        s.begin(peer, Task::Touch);
        s.world.run_for(secs(2));
        s.paths(peer) == (kind, kind)
    })
}

/// Plays what a random scenario's failure was made smaller to.
fn holds(text: &str) {
    let scenario: Scenario = text.parse().unwrap_or_else(|error| panic!("{error}"));
    let outcome = scenario.run(base());
    assert!(
        outcome.failures.is_empty(),
        "{:#?}\n{}",
        outcome.failures,
        outcome.story
    );
}

/// How many datagrams fell into holes so far.
fn swallowed(s: &Scene) -> u64 {
    s.world.net.fates().get("hole").copied().unwrap_or_default()
}
