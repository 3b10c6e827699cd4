//! The relay map changes: an agent leaves relays for others, and whoever talks to it comes along.

use std::time::Duration;

use byway_core::io::Way;
use byway_sim::model::Access;
use byway_sim::net::HostId;
use byway_sim::net::link::LinkConfig;
use byway_sim::scene::{Scene, Setup};
use byway_sim::shell::app::Task;

use super::second::{disturbed, longest_silence};
use crate::common::{ms, percentile, secs};
use crate::{DIRECT, MIB, RELAYED, direct, relayed, slow_setup};

/// Waits until nobody is at a relay any more, and somebody talks over the other one.
fn moves(s: &mut Scene, from: HostId, to: HostId) {
    // The client keeps its link for half a minute after the last channel.
    let moved = s.world.run_within(secs(60), |w| {
        w.relay(from).links() == 0 && w.relay(to).channels() == 1
    });
    assert!(moved, "{}", s.story());
}

/// In the midst of a transfer the relay that carries it is taken out of the map, and a third one comes in.
fn replaced(seed: u64, upload: bool) -> Duration {
    let mut moved = None;
    let (mut s, peer, silence) = disturbed(seed, upload, true, |s, in_use| {
        let second = s.second_relay.map_or(s.relay, |(host, _)| host);
        let (stays, url) = match in_use == s.relay {
            true => (second, s.urls[1].clone()),
            false => (s.relay, s.urls[0].clone()),
        };
        let (third, _, third_url) = s.third_relay(LinkConfig::default());
        s.set_map(&[url, third_url]);
        moved = Some((in_use, stays, third));
    });
    let (goes, stays, third) = moved.expect("the map was changed");
    moves(&mut s, goes, third);
    assert_eq!(s.world.relay(stays).channels(), 1, "seed {seed}");
    s.begin(peer, Task::Download(MIB));
    assert!(s.finish(secs(30)), "seed {seed}\n{}", s.story());
    s.assert_fine();
    assert_eq!(s.paths(peer), (RELAYED, RELAYED), "seed {seed}");
    silence
}

#[test]
fn a_map_that_names_another_relay_in_place_of_the_one_in_use_does_not_hold_up_a_transfer() {
    for upload in [false, true] {
        let mut silences: Vec<Duration> = (1..=50).map(|seed| replaced(seed, upload)).collect();
        silences.sort();
        let [p50, p99] = [50, 99].map(|share| percentile(&silences, share));
        println!("map changed, upload {upload}: p50 {p50:?}, p99 {p99:?}");
        // As for an upgrade: congestion control begins anew on another path.
        assert!(p99 <= ms(200), "{silences:?}");
    }
}

/// There is no warm second channel to go to: the new relay has to be dialled by both.
#[test]
fn a_map_of_nothing_but_new_relays_ends_nothing() {
    for seed in 1..=10 {
        let mut setup = slow_setup(seed);
        setup.mapped = true;
        let (mut s, peer) = relayed(setup);
        let (third, _, url) = s.third_relay(LinkConfig::default());
        s.begin(peer, Task::Download(2 * MIB));
        s.world.run_for(ms(300));
        s.set_map(&[url]);
        assert!(s.finish(secs(60)), "seed {seed}\n{}", s.story());
        s.assert_fine();
        let silence = longest_silence(&mut s, false);
        // The new link is made through a queue that the transfer keeps full, and may be one by TLS at first.
        assert!(
            silence <= ms(500),
            "seed {seed}: {silence:?}\n{}",
            s.story()
        );
        let relay = s.relay;
        moves(&mut s, relay, third);
    }
}

#[test]
fn a_direct_tunnel_stays_direct_and_has_its_standby_at_the_new_relay() {
    let mut setup = slow_setup(1);
    setup.mapped = true;
    let (mut s, peer) = direct(setup);
    let (third, _, url) = s.third_relay(LinkConfig::default());
    let since = s.world.net.now();
    s.begin(peer, Task::Download(2 * MIB));
    s.world.run_for(ms(300));
    s.set_map(&[url]);
    assert!(s.finish(secs(30)));
    s.assert_fine();
    let relay = s.relay;
    moves(&mut s, relay, third);
    for host in [s.client, s.agent] {
        let routes = s.routes_since(host, since);
        assert!(routes.iter().all(|(_, path)| *path == DIRECT), "{routes:?}");
    }
    let primary = s.world.node(s.client).0.primary(peer);
    assert!(matches!(primary, Some(Way::Direct { .. })));
}

/// The whole round, as an operator who moves a fleet does it, one relay a minute.
#[test]
fn relays_are_replaced_one_after_the_other_and_back() {
    let (mut s, peer) = relayed(Setup {
        mapped: true,
        client: Access::Symmetric,
        agent: Access::Symmetric,
        second_relay: Some(LinkConfig::default()),
        ..slow_setup(3)
    });
    let [first, second] = [s.urls[0].clone(), s.urls[1].clone()];
    let (_, _, third) = s.third_relay(LinkConfig::default());
    for map in [
        vec![second.clone(), third.clone()],
        vec![third.clone(), first.clone()],
        vec![first.clone(), second.clone()],
        vec![third],
        vec![first, second],
    ] {
        s.set_map(&map);
        s.begin(peer, Task::Download(4 * MIB));
        assert!(s.finish(secs(60)), "{}", s.story());
        let silence = longest_silence(&mut s, false);
        assert!(silence <= ms(300), "{silence:?}\n{}", s.story());
        s.world.run_for(secs(30));
    }
    s.assert_fine();
    let (first, second) = (s.relay, s.second_relay.map(|(host, _)| host));
    assert_eq!(s.world.relay(first).channels(), 1);
    assert_eq!(second.map(|host| s.world.relay(host).channels()), Some(1));
}
