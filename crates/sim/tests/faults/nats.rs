//! NATs that restart: every mapping is gone, of datagrams and of TCP.

use byway_core::io::{Carrier, PathKind, PeerId};
use byway_sim::model::Access;
use byway_sim::scene::{Scene, Setup};
use byway_sim::shell::app::Task;
use byway_sim::shell::node::Note;
use byway_sim::world::Fault;

use crate::common::{ms, scene, secs};
use crate::{DIRECT, MIB, both_come_to, direct, holds, relayed, slow, slow_setup};

/// Restarts the NAT of one side in the middle of a download; how long nothing came.
fn restart_under_a_download(s: &mut Scene, peer: PeerId, agents_side: bool) {
    s.begin(peer, Task::Download(2 * MIB));
    s.world.run_for(ms(700));
    let site = if agents_side {
        s.agent_site
    } else {
        s.client_site
    };
    s.world.inflict(Fault::Rebind(site));
    assert!(s.finish(secs(60)), "{}", s.world.net.trace);
    s.assert_fine();
    let silence = s.reports().last().map(|r| r.longest_silence);
    println!("agent's side {agents_side}: silence {silence:?}");
    assert!(silence.is_some_and(|s| s < secs(5)), "{silence:?}");
    // It was felt, or nothing was shown.
    assert!(silence.is_some_and(|s| s > ms(20)), "{silence:?}");
}

#[test]
fn a_nat_that_restarts_under_a_relayed_tunnel_costs_seconds_and_no_byte() {
    for agents_side in [false, true] {
        let (mut s, peer) = relayed(slow_setup(1));
        restart_under_a_download(&mut s, peer, agents_side);
    }
}

#[test]
fn a_nat_that_restarts_under_a_direct_tunnel_costs_seconds_and_no_byte() {
    for agents_side in [false, true] {
        let (mut s, peer) = direct(slow_setup(1));
        restart_under_a_download(&mut s, peer, agents_side);
    }
}

/// A tunnel that must go over TLS on one side.
fn over_tls(agents_side: bool) -> (Scene, PeerId) {
    let (client, agent) = if agents_side {
        (Access::Symmetric, Access::UdpBlocked)
    } else {
        (Access::UdpBlocked, Access::Symmetric)
    };
    let mut s = scene(Setup {
        client,
        agent,
        client_link: slow(),
        agent_link: slow(),
        ..Setup::default()
    });
    let peer = s.dial(vec![Task::Touch]);
    assert!(s.finish(secs(10)));
    s.world.run_for(secs(3));
    let tls = Some(PathKind::RelayTls);
    let paths = s.paths(peer);
    assert_eq!(if agents_side { paths.1 } else { paths.0 }, tls);
    (s, peer)
}

/// How many TLS links a side has had.
fn tls_links(s: &mut Scene, agents_side: bool) -> usize {
    let host = if agents_side { s.agent } else { s.client };
    let notes = &s.world.node(host).0.notes;
    let ready = notes
        .iter()
        .filter(|(_, n)| matches!(n, Note::LinkReady(_, Carrier::Tls)));
    ready.count()
}

#[test]
fn a_nat_that_restarts_under_a_tls_link_costs_a_new_link_and_no_byte() {
    for agents_side in [false, true] {
        let (mut s, peer) = over_tls(agents_side);
        let before = tls_links(&mut s, agents_side);
        restart_under_a_download(&mut s, peer, agents_side);
        assert!(tls_links(&mut s, agents_side) > before);
    }
}

/// A side that only listens says something at its next ping, 20 s apart, and learns then that its link is dead.
#[test]
fn a_side_that_only_listened_over_tls_is_reached_again_after_its_nat_restarted() {
    for agents_side in [false, true] {
        let (mut s, peer) = over_tls(agents_side);
        s.world.run_for(secs(60));
        let site = if agents_side {
            s.agent_site
        } else {
            s.client_site
        };
        s.world.inflict(Fault::Rebind(site));
        s.begin(peer, Task::Touch);
        assert!(s.finish(secs(30)), "{agents_side}\n{}", s.story());
        s.assert_fine();
    }
}

/// Found by a random scenario: the agent's data stayed bound to a port that its NAT no longer had.
#[test]
fn an_agent_that_only_listened_is_reached_again_after_its_nat_restarted() {
    for direct in [true, false] {
        let (mut s, peer) = relayed(Setup {
            direct,
            ..Setup::default()
        });
        s.world.run_for(secs(60));
        let site = s.agent_site;
        s.world.inflict(Fault::Rebind(site));
        s.begin(peer, Task::Touch);
        // At the next keep-alive of its link, 20 s apart, the relay hears of the new port; it looks every 5 s.
        assert!(s.finish(secs(30)), "{}", s.world.net.trace);
        s.assert_fine();
    }
}

/// Found by random scenarios: behind TLS, beside a server that is silent, the client learns a second late where it is seen.
/// The agent's filter was closed until then, and the client had asked its three times already.
#[test]
fn a_client_that_learns_late_where_it_is_seen_asks_once_more() {
    holds(
        "seed=3013218 client=Symmetric agent=AddressRestricted agent-ip=Both links=Tls stun=Honest,Dead",
    );
    // Not as late: the last of the three was under way when the agent learned of it.
    holds(
        "seed=10015043 client=Symmetric client-ip=BrokenV6 client-link=delay:0.03 agent=AddressRestricted agent-ip=Both \
         links=Tls stun=Honest,WrongTransaction",
    );
}

/// Found by a random scenario: two hundred ports of the agent's had been heard from, and its new address was not asked.
#[test]
fn an_agent_that_moves_after_a_spray_is_found_at_its_new_address() {
    holds(
        "seed=10007010 client=AddressRestricted agent=Symmetric agent-ip=Both client-link=delay:0.035 \
         agent-link=jitter:0.001,loss:0.002,reorder:0.031,duplicate:0.003,mtu:1280,rate:1000000 stun=Honest,Slow:0.4 \
         DirectDead@1.556354191+4.61 AgentMoves@57.024051487+0 Upload:721194@1.509354191",
    );
}

/// Found by a random scenario: of more addresses than there is room for, the two that answered put each other out for ever, and the
/// agent took no data from the one that the client had chosen.
#[test]
fn a_spray_that_hits_more_than_there_is_room_for_leaves_a_path_that_carries() {
    holds(
        "seed=20005936 client=Sequential agent=Open client-link=delay:0.035 agent-link=delay:0.009 DirectDead@3.7+0.5 \
         ClientRebindsEachMinute@9+156.3 Upload:71242@2.8 Touch@3.7 Touch@128.9 Touch@170.7",
    );
}

/// Found by a random scenario: the relay knows the agent by IPv6 alone, and its IPv4 address had been asked its three times. Then the
/// path over that was lost for a while, and the filter had closed that the client's questions had opened.
#[test]
fn an_address_that_answered_once_is_asked_again_after_its_path_was_lost() {
    holds(
        "seed=10878 client=AddressRestricted agent=AddressDependent agent-ip=Both nat-timeout=25.69 DirectDeadOneWay@3.7+5 \
         Touch@3.7",
    );
}

/// Where both NATs are hard, the port that the agent's gateway gave is the only way in.
#[test]
fn a_gateway_that_restarts_gives_another_port_and_the_direct_path_comes_back_by_it() {
    let (mut s, peer) = direct(Setup {
        client: Access::Symmetric,
        agent: Access::Symmetric,
        agent_port: true,
        ..Setup::default()
    });
    let client = s.client;
    let to = |s: &mut Scene| s.world.node(client).0.primary(peer);
    let before = to(&mut s);
    let site = s.agent_site;
    s.world.inflict(Fault::Rebind(site));
    assert!(both_come_to(&mut s, peer, DIRECT), "{}", s.story());
    assert_ne!(to(&mut s), before);
    s.assert_fine();
}

/// Found by random scenarios: the agent's NAT had forgotten its relay, so what the client said of its move came with QUIC's next
/// attempt, seven seconds later. Meanwhile the client had sprayed, and what it had said was taken for a replay.
#[test]
fn a_peer_that_sprays_while_its_word_of_a_move_is_under_way_is_found_where_it_moved() {
    holds(
        "seed=200110006 client=Open agent=Sequential client-ip=Both agent-ip=Nat64 AgentRebinds@7.6+0 ClientMoves@14.3+0 \
         Upload:173233@0.1",
    );
}

/// Found by random scenarios: addresses that no relay attests are asked three times. An outage took all three; a lost signal let the
/// peer open its filter only after the last.
#[test]
fn an_address_asked_in_vain_is_asked_again_after_an_outage_and_late_enough_for_a_lost_signal() {
    for text in [
        "seed=200737128 client=Sequential agent=AddressDependent agent-ip=Both \
         client-link=delay:0.019,jitter:0.003,loss:0.018,reorder:0.002,duplicate:0.014 agent-port=true Offline@0.3+5",
        "seed=200920695 client=AddressRestricted agent=AddressDependent client-ip=Both agent-ip=BrokenV6 \
         agent-link=delay:0.032,jitter:0.004,loss:0.01,reorder:0.01,duplicate:0.008,mtu:1280 second-relay=delay:0.029 \
         stun=Honest,Oversized",
    ] {
        holds(text);
    }
}

/// Found by random scenarios: the client's NAT moved to another address, of which its host knew nothing, and then the agent moved. What
/// the client had asked there met a filter that nothing had opened, and it asked no more when the agent had learnt where it was.
#[test]
fn who_comes_to_be_seen_at_another_address_or_speaks_of_the_same_is_asked_anew() {
    for text in [
        "seed=200308892 client=Sequential agent=AddressRestricted agent-ip=Both links=Tls ClientMoves@3.7+0 AgentMoves@10+0",
        "seed=200417418 client=AddressDependent agent=AddressRestricted client-ip=Nat64 agent-ip=BrokenV6 \
         client-link=delay:0.027,duplicate:0.009 agent-link=delay:0.023 stun=Honest,Garbage LossBurst@1.3+1.4 AgentMoves@7.1+0",
        // The agent slept, and the client had sent the last ping of a slow search just before it heard of it.
        "seed=200499729 client=AddressDependent agent=AddressRestricted client-link=delay:0.022 nat-timeout=29.191 links=Tls \
         stun=Honest,Dead AgentSleeps@0.139321812+47.837",
    ] {
        holds(text);
    }
}
