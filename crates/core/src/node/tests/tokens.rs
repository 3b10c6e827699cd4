//! The token by which relays admit a node.

use byway_wire::relay::control::*;

use super::world::*;
use crate::io::*;

fn token(text: &str) -> AdmissionToken {
    AdmissionToken::new(text.to_owned()).unwrap()
}

/// A relay that admits by this token, for an hour.
fn asking(text: &str) -> World {
    let mut world = World::new();
    world.relays[0].admits = Some((token(text), 3_600));
    world
}

fn give(world: &mut World, host: usize, text: &str) {
    let now = world.now;
    world.hosts[host].node.set_token(now, Some(token(text)));
}

fn wanted(world: &World) -> [usize; 2] {
    [CLIENT, AGENT].map(|host| world.hosts[host].tokens_wanted)
}

#[test]
fn a_node_without_a_token_is_refused_and_with_one_let_in_at_once() {
    let mut world = asking("good");
    world.pass(ms(1_000));
    let not_admitted = LinkError::Refused(RefuseReason::NotAdmitted, "no".to_owned());
    assert_eq!(world.hosts[AGENT].link_errors.first(), Some(&not_admitted));
    assert_eq!(
        wanted(&world),
        [0, 0],
        "there is none that could be renewed"
    );
    give(&mut world, AGENT, "good");
    // It rested for half a minute at least.
    assert!(world.run_for(ms(500), |w| !w.hosts[AGENT].ready.is_empty()));
}

#[test]
fn a_token_is_renewed_in_band_before_its_time_is_over() {
    let mut world = asking("first");
    give(&mut world, AGENT, "first");
    give(&mut world, CLIENT, "first");
    world.connect();
    world.pass(ms(2_000_000));
    assert_eq!(wanted(&world)[AGENT], 0);
    world.pass(ms(800_000));
    // A quarter of the hour is left, and none was given: it is asked for again, at intervals.
    let asked = wanted(&world)[AGENT];
    assert!((2..=4).contains(&asked), "{asked}");
    world.relays[0].admits = Some((token("second"), 3_600));
    give(&mut world, AGENT, "wrong");
    world.pass(ms(1_000));
    assert_eq!(world.hosts[AGENT].tokens_refused, 1);
    assert!(world.hosts[AGENT].lost == 0, "the one before holds yet");
    give(&mut world, AGENT, "second");
    world.pass(ms(100_000));
    let asked = wanted(&world)[AGENT];
    assert!(world.relays[0].log.contains(&"Token"));
    world.pass(ms(1_000_000));
    assert_eq!(wanted(&world)[AGENT], asked);
    assert_eq!(
        (world.hosts[AGENT].lost, world.hosts[AGENT].ready.len()),
        (0, 1)
    );
}

#[test]
fn a_program_that_gives_one_bad_token_after_the_other_is_not_run_all_the_time() {
    let mut world = asking("good");
    let mut given = 0;
    give(&mut world, AGENT, "bad");
    world.run_for(ms(300_000), |w| w.hosts[AGENT].tokens_wanted > 1_000);
    for _ in 0..60 {
        world.pass(ms(5_000));
        if world.hosts[AGENT].tokens_wanted > given {
            given = world.hosts[AGENT].tokens_wanted;
            give(&mut world, AGENT, &format!("bad {given}"));
        }
    }
    // Twice as long after each: 0, 15, 45, 105, 225 and 465 s after the first.
    assert!((5..=7).contains(&given), "{given}");
    let dials = world.hosts[AGENT].dials.len();
    assert!(dials <= 120, "{dials}");
}

#[test]
fn a_relay_that_answers_tokens_it_was_not_shown_is_counted_and_not_heard() {
    let mut world = asking("good");
    give(&mut world, AGENT, "good");
    world.pass(ms(1_000));
    let link = world.link_of(AGENT);
    let before = world.hosts[AGENT].node.counters().control_unexpected;
    let refused = Control::TokenRefused {
        detail: "again".to_owned(),
    };
    let taken = Control::TokenTaken {
        admitted_for: Some(0),
    };
    for message in [refused, taken] {
        for _ in 0..50 {
            let now = world.now;
            let node = &mut world.hosts[AGENT].node;
            node.handle_control(now, link, message.clone());
        }
    }
    world.pass(ms(60_000));
    let host = &world.hosts[AGENT];
    assert_eq!(host.node.counters().control_unexpected, before + 100);
    assert_eq!((host.tokens_refused, host.tokens_wanted), (0, 0));
    // Each that is shown has its one answer.
    give(&mut world, AGENT, "bad");
    world.pass(ms(1_000));
    assert_eq!(world.hosts[AGENT].tokens_refused, 1);
}

#[test]
fn a_relay_that_is_not_used_any_more_has_no_token_asked_for() {
    let mut world = asking("good");
    give(&mut world, AGENT, "good");
    give(&mut world, CLIENT, "good");
    let peer = world.connect();
    let now = world.now;
    world.hosts[CLIENT].node.close_peer(now, peer);
    world.pass(ms(4_000_000));
    assert!(!world.relays[0].has_link(CLIENT, Carrier::Udp));
    assert_eq!(wanted(&world)[CLIENT], 0);
    assert!(wanted(&world)[AGENT] > 0, "it is linked");
}

#[test]
fn a_relay_that_admits_for_no_time_has_a_token_asked_for_ever_more_seldom() {
    let mut world = asking("good");
    world.relays[0].admits = Some((token("good"), 0));
    give(&mut world, AGENT, "good");
    world.pass(ms(1_000));
    assert_eq!(wanted(&world)[AGENT], 0, "not at its word at once");
    let mut given = 0;
    for _ in 0..2_000 {
        world.pass(ms(5_000));
        if world.hosts[AGENT].tokens_wanted > given {
            given = world.hosts[AGENT].tokens_wanted;
            let text = format!("good {given}");
            world.relays[0].admits = Some((token(&text), 0));
            give(&mut world, AGENT, &text);
        }
    }
    assert_eq!(world.hosts[AGENT].lost, 0);
    assert!((9..=12).contains(&given), "{given}");
    // One that holds is asked for in its last quarter, and again as soon as the first was.
    let text = format!("good {}", given + 1);
    world.relays[0].admits = Some((token(&text), 3_600));
    give(&mut world, AGENT, &text);
    world.pass(ms(2_690_000));
    assert_eq!(wanted(&world)[AGENT], given);
    world.pass(ms(60_000));
    assert_eq!(wanted(&world)[AGENT], given + 3);
}

/// A token came while the relay was being shown the one before.
#[test]
fn a_relay_that_refuses_an_older_token_is_shown_the_latest_at_once() {
    // By one carrier: the other would be shown the latest anyway.
    let agent = Config {
        links: LinkMode::Udp,
        ..config(Role::Agent)
    };
    let mut world = World::with(config(Role::Client), agent, 1);
    world.relays[0].admits = Some((token("new"), 3_600));
    give(&mut world, AGENT, "old");
    let shown = |w: &World| w.relays[0].log.contains(&"Hello");
    let hello_out = |w: &World| {
        w.hosts[AGENT]
            .controls_sent
            .iter()
            .any(|m| m.name() == "Hello")
    };
    assert!(world.run_for(ms(500), hello_out) && !shown(&world));
    give(&mut world, AGENT, "new");
    assert!(world.run_for(ms(1_500), |w| !w.hosts[AGENT].ready.is_empty()));
    assert_eq!(wanted(&world)[AGENT], 0, "the latest was not refused");
}

#[test]
fn a_relay_that_refuses_every_token_is_dialled_anew_at_once_for_none_but_an_older_one() {
    let mut world = asking("good");
    give(&mut world, AGENT, "bad");
    world.pass(ms(20_000));
    // Two carriers at most, and no second round within half a minute.
    assert!(world.hosts[AGENT].dials.len() <= 2);
}

/// Whoever gives tokens gave the page of a login once.
#[test]
fn a_token_that_admits_outlives_one_that_is_refused_in_band() {
    let mut world = asking("good");
    give(&mut world, AGENT, "good");
    world.pass(ms(1_000));
    give(&mut world, AGENT, "<html>");
    world.pass(ms(1_000));
    assert_eq!(world.hosts[AGENT].tokens_refused, 1);
    world.break_links(AGENT);
    assert!(world.run_for(ms(3_000), |w| w.hosts[AGENT].ready.len() == 2));
    let refused = |error: &LinkError| matches!(error, LinkError::Refused(..));
    assert!(!world.hosts[AGENT].link_errors.iter().any(refused));
    assert!(world.hosts[AGENT].node.token_holds(world.now));
    // A relay has the next one, and refuses the one before: that is not gone back to.
    world.relays[0].admits = Some((token("second"), 3_600));
    give(&mut world, AGENT, "second");
    world.pass(ms(1_000));
    world.break_links(AGENT);
    assert!(world.run_for(ms(3_000), |w| w.hosts[AGENT].ready.len() == 3));
}

#[test]
fn a_token_that_admits_is_shown_at_once_where_another_is_refused_at_the_door() {
    let mut world = asking("good");
    give(&mut world, AGENT, "good");
    world.pass(ms(20_000));
    world.break_links(AGENT);
    let dials = world.hosts[AGENT].dials.len();
    give(&mut world, AGENT, "<html>");
    assert_eq!(world.hosts[AGENT].tokens_refused, 0, "there is no link");
    assert!(world.run_for(ms(3_000), |w| w.hosts[AGENT].ready.len() == 2));
    assert!(world.hosts[AGENT].dials.len() > dials + 1);
}

#[test]
fn a_token_whose_time_is_over_is_not_gone_back_to() {
    let mut world = asking("good");
    world.relays[0].admits = Some((token("good"), 60));
    give(&mut world, AGENT, "good");
    world.pass(ms(59_000));
    assert!(world.hosts[AGENT].node.token_holds(world.now));
    world.pass(ms(2_000));
    assert!(!world.hosts[AGENT].node.token_holds(world.now));
    world.relays[0].admits = Some((token("third"), 60));
    give(&mut world, AGENT, "second");
    world.pass(ms(1_000));
    world.relays[0].admits = Some((token("second"), 60));
    world.break_links(AGENT);
    assert!(world.run_for(ms(3_000), |w| w.hosts[AGENT].ready.len() == 2));
}

#[test]
fn one_that_the_relay_which_took_it_refuses_now_is_forgotten() {
    let mut world = asking("good");
    give(&mut world, AGENT, "good");
    world.pass(ms(1_000));
    world.relays[0].admits = Some((token("other"), 3_600));
    world.break_links(AGENT);
    world.pass(ms(3_000));
    assert!(!world.hosts[AGENT].node.token_holds(world.now));
}
