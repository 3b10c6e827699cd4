//! A second relay: what the death of the one in use costs a tunnel that has nothing but relays.

use std::time::Duration;

use byway_core::io::PeerId;
use byway_sim::model::Access;
use byway_sim::net::HostId;
use byway_sim::net::link::LinkConfig;
use byway_sim::rng::Rng;
use byway_sim::scene::{Scene, Setup};
use byway_sim::shell::app::Task;
use byway_sim::world::Fault;

use crate::common::{ms, percentile, secs};
use crate::{MIB, RELAYED, relayed};

/// 32 Mbit/s with a short queue, as where black holes are measured (`stalls.rs`).
const RATE: u64 = 4_000_000;
/// Half a second at that rate.
const AMOUNT: u64 = RATE / 2;

/// Two relays at some distances from a client and an agent that cannot go direct.
pub(super) fn two_relays(seed: u64) -> (Scene, PeerId, Rng) {
    two_relays_known(seed, false)
}

fn two_relays_known(seed: u64, mapped: bool) -> (Scene, PeerId, Rng) {
    let mut rng = Rng::new(seed, "second relay");
    let mut link = || LinkConfig {
        delay: ms(1) + rng.up_to(ms(9)),
        jitter: rng.up_to(ms(2)),
        rate: Some(RATE),
        queue: ms(15),
        ..LinkConfig::default()
    };
    let (client_link, agent_link) = (link(), link());
    let second = LinkConfig {
        delay: ms(1) + rng.up_to(ms(9)),
        ..LinkConfig::default()
    };
    let (s, peer) = relayed(Setup {
        seed,
        client: Access::Symmetric,
        agent: Access::Symmetric,
        client_link,
        agent_link,
        second_relay: Some(second),
        mapped,
        ..Setup::default()
    });
    (s, peer, rng)
}

/// The relay that carries what is under way.
pub(super) fn in_use(s: &mut Scene) -> HostId {
    let places = [Some((s.relay, s.relay_site)), s.second_relay];
    let places: Vec<_> = places.into_iter().flatten().collect();
    let came = |s: &Scene| {
        let each = places
            .iter()
            .map(|(_, site)| s.world.net.delivered(*site, s.client));
        each.collect::<Vec<u64>>()
    };
    let before = came(s);
    s.world.run_for(ms(50));
    let after = came(s);
    let busy = (0..places.len()).max_by_key(|n| after[*n] - before[*n]);
    busy.map_or(s.relay, |n| places[n].0)
}

/// The longest silence of a transfer, for whoever received its bytes.
pub(super) fn longest_silence(s: &mut Scene, upload: bool) -> Duration {
    let served = s.world.node(s.agent).0.app.served.last().cloned();
    let report = s.reports().last().map(|r| r.longest_silence);
    if upload {
        served.unwrap_or_default().longest_silence
    } else {
        report.unwrap_or(Duration::MAX)
    }
}

/// Ends the relay in use at some moment of a transfer; the longest silence.
pub(super) fn silence(seed: u64, upload: bool, end: impl FnOnce(&mut Scene, HostId)) -> Duration {
    disturbed(seed, upload, false, end).2
}

/// Has something befall the relay in use at some moment of a transfer; the longest silence of it. `mapped`: the agent knows its relays by a map.
pub(super) fn disturbed(
    seed: u64,
    upload: bool,
    mapped: bool,
    disturb: impl FnOnce(&mut Scene, HostId),
) -> (Scene, PeerId, Duration) {
    let (mut s, peer, mut rng) = two_relays_known(seed, mapped);
    let task = if upload {
        Task::Upload(AMOUNT)
    } else {
        Task::Download(AMOUNT)
    };
    s.begin(peer, task);
    s.world.run_for(ms(100));
    let relay = in_use(&mut s);
    s.world.run_for(rng.up_to(ms(250)));
    assert!(s.world.node(s.client).0.busy(), "seed {seed}: over before");
    disturb(&mut s, relay);
    assert!(s.finish(secs(30)), "seed {seed}\n{}", s.story());
    // What was never lost is one stream on one connection.
    s.assert_fine();
    let paths = s.paths(peer);
    assert_eq!(paths, (RELAYED, RELAYED), "seed {seed}\n{}", s.story());
    let silence = longest_silence(&mut s, upload);
    (s, peer, silence)
}

/// A relay that dies, and stays dead.
fn kill(s: &mut Scene, relay: HostId) {
    s.world.inflict(Fault::KillRelay(relay));
}

#[test]
fn the_death_of_one_of_two_relays_costs_a_relayed_transfer_less_than_a_second_and_no_stream() {
    for upload in [false, true] {
        let mut silences: Vec<Duration> =
            (1..=50).map(|seed| silence(seed, upload, kill)).collect();
        silences.sort();
        let [first, p50, p99] = [1, 50, 99].map(|share| percentile(&silences, share));
        println!("relay killed, upload {upload}: p1 {first:?}, p50 {p50:?}, p99 {p99:?}");
        assert!(first > ms(20), "nothing was lost: {silences:?}");
        assert!(p50 <= ms(500) && p99 <= secs(1), "{silences:?}");
    }
}

/// And then the other, when the first is back: nothing of it is used up.
#[test]
fn relays_that_die_in_turn_end_nothing() {
    let (mut s, peer, _) = two_relays(1);
    for _ in 0..4 {
        s.begin(peer, Task::Download(2 * MIB));
        s.world.run_for(ms(100));
        let dying = in_use(&mut s);
        s.world.inflict(Fault::KillRelay(dying));
        assert!(s.finish(secs(30)), "{}", s.story());
        s.world.inflict(Fault::StartRelay(dying));
        s.world.run_for(secs(45));
    }
    s.assert_fine();
    let silences = s.reports().into_iter().map(|r| r.longest_silence);
    let worst = silences.max();
    assert!(worst.is_some_and(|t| t < secs(1)), "{worst:?}");
}
