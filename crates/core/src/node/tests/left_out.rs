//! A carrier that only a person can mend is left out; the other one is tried as if it were alone.

use byway_wire::relay::control::{Control, RefuseReason, Role};

use super::world::*;
use crate::io::*;

fn refused() -> LinkError {
    LinkError::from(ProxyError {
        proxy: "http://proxy.test:3128".to_owned(),
        fault: ProxyFault::AuthRequired,
    })
}

fn unreachable_proxy() -> LinkError {
    LinkError::from(ProxyError {
        proxy: "http://proxy.test:3128".to_owned(),
        fault: ProxyFault::Connect("refused".to_owned()),
    })
}

/// An agent that has just been started where nothing leads to its relay.
fn stranded(udp: Option<LinkError>, tls: LinkError) -> World {
    let mut world = World::with(config(Role::Client), config(Role::Agent), 1);
    world.udp_open[AGENT] = false;
    world.tls_open = false;
    world.udp_error = udp;
    world.tls_error = Some(tls);
    world
}

fn dials(world: &World, carrier: Carrier) -> usize {
    let dials = &world.hosts[AGENT].dials;
    dials.iter().filter(|(_, by)| *by == carrier).count()
}

#[test]
fn udp_is_tried_again_soon_after_a_proxy_refused() {
    let mut world = stranded(None, refused());
    // UDP is given up after its own time.
    assert!(world.run_for(ms(15_000), |w| dials(w, Carrier::Udp) == 2));
    assert_eq!(dials(&world, Carrier::Tls), 1);
    world.udp_open[AGENT] = true;
    assert!(world.run_for(ms(12_000), |w| !w.hosts[AGENT].ready.is_empty()));
    assert_eq!(world.hosts[AGENT].ready, [Carrier::Udp]);
    assert_eq!(dials(&world, Carrier::Tls), 1, "an account may be locked");
}

#[test]
fn udp_is_tried_again_soon_after_a_relay_refused_tls_that_is_ended_on_the_way() {
    let refused = LinkError::Refused(RefuseReason::Identity, "TLS ends before".to_owned());
    let mut world = stranded(None, refused);
    assert!(world.run_for(ms(15_000), |w| dials(w, Carrier::Udp) == 2));
    assert_eq!(dials(&world, Carrier::Tls), 1);
    world.udp_open[AGENT] = true;
    assert!(world.run_for(ms(12_000), |w| !w.hosts[AGENT].ready.is_empty()));
    assert_eq!(world.hosts[AGENT].ready, [Carrier::Udp]);
}

#[test]
fn a_proxy_that_refused_is_asked_no_more_than_every_half_minute() {
    let mut world = stranded(None, refused());
    world.pass(ms(300_000));
    let tls: Vec<_> = world.hosts[AGENT]
        .dials
        .iter()
        .filter(|(_, carrier)| *carrier == Carrier::Tls)
        .map(|(at, _)| *at)
        .collect();
    assert!((4..=11).contains(&tls.len()), "{tls:?}");
    assert!(tls.windows(2).all(|w| w[1] - w[0] >= ms(30_000)), "{tls:?}");
    assert!(dials(&world, Carrier::Udp) > 2 * tls.len());
}

#[test]
fn a_proxy_is_tried_again_soon_though_udp_meets_somebody_with_another_certificate() {
    let other = LinkError::Certificate("another one".to_owned());
    let mut world = stranded(Some(other), unreachable_proxy());
    world.pass(ms(2_000));
    assert_eq!(dials(&world, Carrier::Udp), 1);
    assert!(dials(&world, Carrier::Tls) > 2);
    world.tls_open = true;
    assert!(world.run_for(ms(12_000), |w| !w.hosts[AGENT].ready.is_empty()));
    assert_eq!(world.hosts[AGENT].ready, [Carrier::Tls]);
}

#[test]
fn where_every_carrier_is_left_out_the_first_that_may_be_tried_is() {
    let other = LinkError::Certificate("another one".to_owned());
    let mut world = stranded(Some(other), refused());
    world.pass(ms(29_000));
    assert_eq!(world.hosts[AGENT].dials.len(), 2);
    world.udp_open[AGENT] = true;
    assert!(world.run_for(ms(32_000), |w| !w.hosts[AGENT].ready.is_empty()));
}

#[test]
fn a_proxy_that_refuses_beside_a_udp_link_does_not_hold_back_its_successor() {
    let mut world = World::with(config(Role::Client), config(Role::Agent), 1);
    world.tls_open = false;
    world.tls_error = Some(refused());
    // UDP that carries control and no data has TLS tried beside it.
    world.relays[0].echo = false;
    assert!(world.run_for(ms(5_000), |w| dials(w, Carrier::Tls) == 1));
    world.pass(ms(20_000));
    assert_eq!(dials(&world, Carrier::Tls), 1, "an account may be locked");
    world.udp_open[AGENT] = false;
    world.break_links(AGENT);
    world.pass(ms(1_000));
    world.udp_open[AGENT] = true;
    assert!(world.run_for(ms(12_000), |w| w.hosts[AGENT].ready.len() == 2));
}

/// A host that starts containers: addresses come and go, and each time the network is another one.
#[test]
fn a_proxy_that_refused_is_asked_no_more_often_for_a_host_whose_addresses_change_all_day() {
    let mut world = stranded(None, refused());
    for _ in 0..60 {
        world.pass(ms(1_000));
        let now = world.now;
        world.hosts[AGENT].node.handle_network_change(now);
    }
    let tls = dials(&world, Carrier::Tls);
    assert!((2..=4).contains(&tls), "{tls} in a minute");
}

#[test]
fn what_a_proxy_said_is_told_though_udp_fails_later() {
    let mut world = stranded(None, refused());
    world.pass(ms(15_000));
    assert!(dials(&world, Carrier::Udp) > 1, "UDP timed out");
    let told = &world.hosts[AGENT].link_errors;
    assert!(told.len() > 1 && told.iter().all(|e| *e == refused()));
    // The next word over TLS counts again.
    world.tls_error = Some(LinkError::TimedOut);
    world.pass(ms(60_000));
    let last = world.hosts[AGENT].link_errors.last();
    assert_eq!(last, Some(&LinkError::TimedOut));
}

#[test]
fn a_word_over_one_carrier_is_told_though_the_other_is_silent_for_longer() {
    let refused = LinkError::Refused(RefuseReason::Identity, "TLS ends before".to_owned());
    let silent = LinkError::TimedOut;
    for (udp, tls) in [(&refused, &silent), (&silent, &refused)] {
        let mut world = stranded(Some(udp.clone()), tls.clone());
        world.pass(ms(5_000));
        let host = &world.hosts[AGENT];
        assert!(host.dials.len() > 1, "both were tried");
        assert_eq!(host.link_errors.last(), Some(&refused));
        // Its own silence is news, and so is another word.
        world.udp_error = Some(silent.clone());
        world.tls_error = Some(silent.clone());
        world.pass(ms(120_000));
        assert_eq!(world.hosts[AGENT].link_errors.last(), Some(&silent));
        let broken = LinkError::Broken("reset".to_owned());
        world.udp_error = Some(broken.clone());
        world.pass(ms(60_000));
        assert!(world.hosts[AGENT].link_errors.contains(&broken));
    }
}

#[test]
fn what_fails_beside_a_link_that_serves_is_not_told() {
    let mut world = World::with(config(Role::Client), config(Role::Agent), 1);
    world.tls_open = false;
    world.tls_error = Some(refused());
    world.relays[0].echo = false;
    assert!(world.run_for(ms(5_000), |w| dials(w, Carrier::Tls) == 1));
    world.pass(ms(2_000));
    assert_eq!(world.hosts[AGENT].link_errors, []);
    world.udp_open[AGENT] = false;
    world.break_links(AGENT);
    // Silence tells nothing beside what the proxy said.
    world.pass(ms(100));
    let told = &world.hosts[AGENT].link_errors;
    assert_eq!(told.first(), Some(&refused()));
}

#[test]
fn a_relay_that_refuses_is_told() {
    let mut world = World::with(config(Role::Client), config(Role::Agent), 1);
    assert!(world.run_for(ms(1_000), |w| !w.hosts[AGENT].controls_sent.is_empty()));
    let reason = RefuseReason::NotAdmitted;
    let refused = Control::Refused {
        reason,
        detail: "no token".to_owned(),
    };
    let link = world.link_of(AGENT);
    let now = world.now;
    let node = &mut world.hosts[AGENT].node;
    node.handle_control(now, link, refused);
    world.pass(ms(1));
    let told = LinkError::Refused(reason, "no token".to_owned());
    assert_eq!(world.hosts[AGENT].link_errors, [told]);
}
