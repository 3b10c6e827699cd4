//! A relay that dies, comes back, or never knew the agent.

use byway_core::io::{LinkError, PeerError, ProxyFault};
use byway_sim::model::Access;
use byway_sim::net::HostId;
use byway_sim::scene::Setup;
use byway_sim::shell::app::Task;
use byway_sim::shell::node::{Note, target};
use byway_sim::world::{Fault, World};

use crate::common::{ms, reaches_no_relay, scene, secs};
use crate::{DIRECT, MIB, RELAYED, direct, relayed, slow_setup};

#[test]
fn the_relays_death_means_nothing_to_a_direct_tunnel() {
    let (mut s, peer) = direct(slow_setup(1));
    s.begin(peer, Task::Download(2 * MIB));
    s.world.run_for(ms(500));
    let since = s.world.net.now();
    let relay = s.relay;
    s.world.inflict(Fault::KillRelay(relay));
    assert!(s.finish(secs(30)));
    s.assert_fine();
    let silence = s.reports().last().map(|r| r.longest_silence);
    assert!(silence.is_some_and(|s| s < ms(100)), "{silence:?}");
    s.world.run_for(secs(120));
    s.begin(peer, Task::Download(MIB / 2));
    assert!(s.finish(secs(30)));
    s.assert_fine();
    for host in [s.client, s.agent] {
        let routes = s.routes_since(host, since);
        assert!(routes.iter().all(|(_, path)| *path == DIRECT), "{routes:?}");
        let (node, _) = s.world.node(host);
        let noticed = node
            .notes
            .iter()
            .any(|(at, n)| *at > since && matches!(n, Note::LinkLost(..)));
        assert!(noticed, "the links died, or nothing was shown");
    }
}

#[test]
fn a_relayed_tunnel_comes_back_when_its_relay_does() {
    let (mut s, peer) = relayed(slow_setup(1));
    s.begin(peer, Task::Download(2 * MIB));
    s.world.run_for(ms(700));
    let relay = s.relay;
    s.world.inflict(Fault::KillRelay(relay));
    s.world.run_for(secs(3));
    s.world.inflict(Fault::StartRelay(relay));
    let back = s.world.net.now();
    assert!(s.finish(secs(120)), "{}", s.story());
    s.assert_fine();
    let took = s.world.net.now() - back;
    assert!(took < secs(40), "{took:?} after the relay was back");
    assert_eq!(s.paths(peer), (RELAYED, RELAYED));
}

#[test]
fn an_agent_that_is_not_there_is_reported_offline_and_one_that_refuses_is_reported_too() {
    let mut s = scene(Setup::default());
    s.world.run_for(secs(2));
    let nobody = byway_wire::SecretKey::from_bytes(&[0x99; 32]).node_id();
    let (url, agent) = (s.url.clone(), s.agent_id);
    let client = s.client;
    for (node, offline) in [(nobody, true), (agent, false)] {
        let (shell, net) = s.world.node(client);
        // Without the ticket's secret the agent does not know us.
        let peer = shell.connect(
            net,
            target(node, vec![(url.clone(), Vec::new())], None),
            vec![Task::Touch],
        );
        s.world.run_for(secs(15));
        let (shell, _) = s.world.node(client);
        let failed = shell.notes.iter().find_map(|(_, n)| match n {
            Note::Failed(p, error) if *p == peer => Some(error.clone()),
            _ => None,
        });
        match failed {
            Some(PeerError::Offline) => assert!(offline),
            Some(PeerError::NotAllowed(_)) => assert!(!offline),
            other => panic!("{other:?}\n{}", s.world.net.trace),
        }
    }
}

/// And when the relay is back, the next link through the proxy is too.
#[test]
fn a_relay_that_is_dead_behind_a_proxy_is_reported_as_the_proxy_tells_it() {
    let mut s = scene(Setup {
        client: Access::ProxyOnly,
        ..Setup::default()
    });
    s.world.run_for(secs(2));
    let relay = s.relay;
    s.world.inflict(Fault::KillRelay(relay));
    s.dial_now(vec![Task::Touch]);
    let failed = reaches_no_relay(
        &mut s,
        secs(60),
        |error| matches!(error, LinkError::Proxy(proxy) if matches!(proxy.fault, ProxyFault::RelayUnreachable(_))),
    );
    assert!(failed, "{}", s.story());
    s.world.inflict(Fault::StartRelay(relay));
    s.world.run_for(secs(40));
    s.dial_now(vec![Task::Touch]);
    s.world.run_for(secs(10));
    let answered = s.reports().iter().any(|report| report.done.is_some());
    assert!(answered, "{}", s.story());
}

/// The relay of a tunnel that has just begun dies and is back at once. `until` says when, of the client and the agent.
fn restart_under_a_handshake(until: impl Fn(&mut World, HostId, HostId) -> bool) {
    for access in [Access::Symmetric, Access::UdpBlocked] {
        let mut s = scene(Setup {
            client: access,
            agent: access,
            ..Setup::default()
        });
        s.world.run_for(secs(10));
        s.dial_now(vec![Task::Touch]);
        let (client, agent, relay) = (s.client, s.agent, s.relay);
        let reached = s.world.run_within(secs(2), |w| until(w, client, agent));
        assert!(reached);
        s.world.inflict(Fault::KillRelay(relay));
        s.world.inflict(Fault::StartRelay(relay));
        let died = s.world.net.now();
        assert!(s.finish(secs(10)), "{access:?}\n{}", s.story());
        s.assert_fine();
        let took = s.world.net.now() - died;
        println!("{access:?}: {took:?}");
        assert!(took < ms(900), "{access:?}: {took:?}\n{}", s.story());
    }
}

/// QUIC has measured nothing yet when it begins, and would repeat its first flight only after a second. What it said is
/// kept, and said again as soon as there is a way.
#[test]
fn a_relay_that_restarts_under_a_tunnels_first_flight_costs_no_second() {
    // The agent has the client's flight, and its own is on its way.
    restart_under_a_handshake(|w, _, agent| !w.node(agent).0.peers().is_empty());
}

/// The client's second flight begins with the datagram that ends its handshake, and without that one nothing of the rest can be
/// read: that is kept too.
#[test]
fn a_relay_that_restarts_under_the_end_of_a_handshake_costs_no_second_either() {
    restart_under_a_handshake(|w, client, _| {
        let notes = &w.node(client).0.notes;
        notes.iter().any(|(_, n)| matches!(n, Note::Connected(_)))
    });
}
