//! Holes that close again: what is left, and what is come back to.

use byway_sim::net::{Hole, Traffic};
use byway_sim::scene::Setup;
use byway_sim::shell::app::Task;
use byway_sim::world::Fault;

use crate::common::{ms, scene, secs};
use crate::{
    DIRECT, MIB, RELAYED, both_come_to, cut, cut_direct, cut_off, direct, heal, holds, slow_setup,
    swallowed,
};

#[test]
fn a_direct_path_that_heals_is_used_again() {
    let (mut s, peer) = direct(Setup::default());
    let holes = cut_direct(&mut s);
    s.begin(peer, Task::Download(MIB));
    assert!(s.finish(secs(30)));
    assert_eq!(s.paths(peer), (RELAYED, RELAYED));
    s.world.run_for(secs(5));
    heal(&mut s, holes);
    let healed = both_come_to(&mut s, peer, DIRECT);
    assert!(healed, "{:?}\n{}", s.paths(peer), s.story());
    s.begin(peer, Task::Download(MIB));
    assert!(s.finish(secs(30)));
    s.assert_fine();
    assert_eq!(s.paths(peer), (DIRECT, DIRECT), "and it carries");
}

/// Found by a random scenario: a bare acknowledgement put the evidence timer of the receiving side to sleep for good.
#[test]
fn both_sides_come_back_to_the_direct_path_when_one_of_them_hardly_sends() {
    let (mut s, peer) = direct(Setup::default());
    let holes = cut_direct(&mut s);
    s.begin(peer, Task::Upload(MIB));
    assert!(s.finish(secs(30)));
    heal(&mut s, holes);
    let healed = both_come_to(&mut s, peer, DIRECT);
    assert!(healed, "{:?}\n{}", s.paths(peer), s.story());
    s.assert_fine();
}

/// Where one direction is dead, neither is of use: an answer must come back.
#[test]
fn a_hole_in_one_direction_brings_both_sides_to_the_relay() {
    for from_client in [true, false] {
        let (mut s, peer) = direct(slow_setup(1));
        let (client, agent) = (s.client_site, s.agent_site);
        if from_client {
            cut(&mut s, client, agent);
        } else {
            cut(&mut s, agent, client);
        }
        s.begin(peer, Task::Upload(MIB));
        s.begin(peer, Task::Download(MIB));
        assert!(s.finish(secs(30)), "{}", s.story());
        s.assert_fine();
        assert!(swallowed(&s) > 0);
        assert_eq!(s.paths(peer), (RELAYED, RELAYED), "{}", s.story());
        // Not for a moment only, and nobody tries it again with data.
        let since = s.world.net.now();
        for _ in 0..20 {
            s.begin(peer, Task::Touch);
            s.world.run_for(secs(1));
        }
        for host in [s.client, s.agent] {
            let routes = s.routes_since(host, since);
            let tried = routes.iter().any(|(_, path)| *path == DIRECT);
            assert!(!tried, "{from_client}: {routes:?}");
        }
    }
}

#[test]
fn a_pause_of_everything_demotes_nothing() {
    for moment in [100, 400, 700, 1100] {
        let (mut s, peer) = direct(slow_setup(moment));
        s.begin(peer, Task::Download(2 * MIB));
        s.world.run_for(ms(moment));
        let since = s.world.net.now();
        let holes = cut_off(&mut s);
        s.world.run_for(ms(800));
        assert!(swallowed(&s) > 0, "nothing was under way");
        heal(&mut s, holes);
        assert!(s.finish(secs(30)));
        s.assert_fine();
        for (host, name) in [(s.client, "client"), (s.agent, "agent")] {
            let routes = s.routes_since(host, since);
            let left = routes.iter().any(|(_, path)| *path != DIRECT);
            assert!(
                !left,
                "cut at {moment} ms: the {name} left the direct path though nothing else answered\n{}",
                s.story()
            );
        }
    }
}

#[test]
fn a_minute_without_any_network_ends_no_tunnel() {
    let (mut s, peer) = direct(Setup::default());
    let holes = cut_off(&mut s);
    s.begin(peer, Task::Touch);
    s.world.run_for(secs(60));
    heal(&mut s, holes);
    let back = s.world.net.now();
    assert!(s.finish(secs(60)), "{}", s.story());
    s.assert_fine();
    let took = s.world.net.now() - back;
    assert!(took < secs(15), "{took:?} after the network was back");
    let direct = both_come_to(&mut s, peer, DIRECT);
    assert!(direct, "{:?}\n{}", s.paths(peer), s.story());
}

#[test]
fn a_direct_path_through_which_only_small_datagrams_pass_is_not_used() {
    let mut s = scene(Setup::default());
    let (client, agent) = (s.client_site, s.agent_site);
    for (from, to) in [(client, agent), (agent, client)] {
        s.world.inflict(Fault::Open(Hole {
            from: Some(from),
            to: Some(to),
            what: Traffic::LongerThan(1000),
        }));
    }
    let peer = s.dial(vec![Task::Touch, Task::Upload(MIB), Task::Download(MIB)]);
    assert!(s.finish(secs(60)), "{}", s.world.net.trace);
    s.assert_fine();
    s.world.run_for(secs(20));
    assert!(swallowed(&s) > 0, "its size was never tried");
    for host in [s.client, s.agent] {
        assert_eq!(s.first_on(host, byway_core::io::PathKind::Direct), None);
    }
    assert_eq!(s.paths(peer), (RELAYED, RELAYED));
}

/// Found by random scenarios: a path that had fallen silent was shut out again as soon as its time was over, for it had not answered
/// since before, and each time for twice as long. Meanwhile it worked.
#[test]
fn a_path_that_was_shut_out_has_its_time_to_answer_when_it_is_asked_again() {
    holds(
        "seed=200273552 client=Sequential agent=FullCone agent-ip=Both client-link=delay:0.004,mtu:1280,rate:none \
         agent-link=delay:0.027,jitter:0.003,loss:0.019,reorder:0.027,duplicate:0.007,rate:none \
         DirectDead@2.086515993+4.08 DirectDeadOneWay@12.103845247+4.226 AgentSleepsCounted@20.04082476+29.219 \
         Touch@10.948041621 Download:150835@11.826528393 Upload:11495@7.78576291 Download:107372@8.620685656 \
         Download:571065@2.072515993 Upload:807707@12.003845247 Upload:525326@20.02782476",
    );
}
