//! Relays that lie, repeat or hold back what they heard.

use super::hostile::{offer, stranger};
use super::world::*;
use crate::io::*;
use bytes::Bytes;
use byway_wire::ChannelId;
use byway_wire::relay::control::*;
use std::time::Duration;

#[test]
fn a_record_of_another_node_is_the_relays_fault() {
    let mut world = World::new();
    world.pass(ms(500));
    world.connect();
    world.run_for(ms(1_000), |w| {
        w.hosts[CLIENT]
            .controls_sent
            .iter()
            .any(|m| matches!(m, Control::Open(_)))
    });
    let channel = world.hosts[CLIENT]
        .controls_sent
        .iter()
        .find_map(|m| match m {
            Control::Open(open) => Some(open.channel),
            _ => None,
        })
        .unwrap();
    let link = world.link_of(CLIENT);
    let record = world.hosts[CLIENT].node.record().clone();
    let opened = Opened { channel, record };
    let now = world.now;
    let client = &mut world.hosts[CLIENT].node;
    client.handle_control(now, link, Control::Opened(opened));
    let events: Vec<Event> = std::iter::from_fn(|| client.poll_event()).collect();
    assert!(
        events
            .iter()
            .any(|e| matches!(e, Event::HangUp { link: l } if *l == link))
    );
    assert!(!events.iter().any(|e| matches!(e, Event::PeerKnown { .. })));
}

#[test]
fn messages_about_channels_we_do_not_have_are_counted() {
    let mut world = World::direct();
    let link = world.link_of(AGENT);
    let channel = ChannelId::from_u64(42);
    let now = world.now;
    let agent = &mut world.hosts[AGENT].node;
    agent.handle_control(
        now,
        link,
        Control::Signal {
            channel,
            sealed: Bytes::from_static(b"no"),
        },
    );
    agent.handle_control(now, link, Control::Attached { channel });
    agent.handle_control(
        now,
        link,
        Control::Closed {
            channel,
            reason: CloseReason::Done,
        },
    );
    let counters = agent.counters();
    assert_eq!(
        (counters.signal_unknown, counters.control_unexpected),
        (1, 1)
    );
    assert!(agent.poll_event().is_none());
}

#[test]
fn a_rebind_cookie_is_echoed_only_for_our_own_channel_at_that_relay() {
    use byway_wire::relay::cookie::CookieKey;
    let mut world = World::direct();
    let channel = *world.relays[0].channels.keys().next().unwrap();
    let key = CookieKey::from_bytes([3; 32]);
    let now = world.now;
    let relay = Way::Direct {
        socket: SocketId(0),
        remote: "203.0.113.1:443".parse().unwrap(),
    };
    let client = &mut world.hosts[CLIENT].node;
    let cookie = key.make(channel, "198.51.100.1:6000".parse().unwrap(), 1);
    client.handle_datagram(now, stranger(), None, &cookie.encode());
    let foreign = key.make(
        ChannelId::from_u64(5),
        "198.51.100.1:6000".parse().unwrap(),
        1,
    );
    client.handle_datagram(now, relay, None, &foreign.encode());
    assert_eq!(client.counters().cookie_unknown, 2);
    assert!(client.poll_event().is_none());
    client.handle_datagram(now, relay, None, &cookie.encode());
    assert!(matches!(
        client.poll_event(),
        Some(Event::Control {
            message: Control::Rebind(_),
            ..
        })
    ));
}

#[test]
fn a_forged_stream_of_rebind_cookies_is_not_echoed_at_its_own_rate() {
    use byway_wire::relay::cookie::CookieKey;
    let mut world = World::direct();
    let relay = Way::Direct {
        socket: SocketId(0),
        remote: "203.0.113.1:443".parse().unwrap(),
    };
    let cookie = CookieKey::from_bytes([3; 32]).make(
        ChannelId::ECHO,
        "198.51.100.1:6000".parse().unwrap(),
        1,
    );
    let now = world.now;
    let client = &mut world.hosts[CLIENT].node;
    for _ in 0..1_000 {
        client.handle_datagram(now, relay, None, &cookie.encode());
    }
    let echoed = std::iter::from_fn(|| client.poll_event()).count();
    assert_eq!(echoed, 8);
    assert_eq!(client.counters().cookie_limited, 992);
}

#[test]
fn a_relay_cannot_tell_of_moves_that_were_not_proved() {
    let mut world = World::direct();
    let link = world.link_of(CLIENT);
    let now = world.now;
    let client = &mut world.hosts[CLIENT].node;
    let observed = "192.0.2.99:9".parse().unwrap();
    client.handle_control(now, link, Control::Rebound { observed });
    assert!(client.poll_event().is_none(), "no new candidate, no signal");
    assert_eq!(client.counters().control_unexpected, 1);
}

#[test]
fn relays_that_go_away_cannot_have_us_dial_the_world() {
    let mut world = World::direct();
    let link = world.link_of(AGENT);
    let now = world.now;
    let agent = &mut world.hosts[AGENT].node;
    let mut dials = 0;
    for n in 0..100 {
        let alternates =
            vec![byway_wire::RelayUrl::new(&format!("host{n}.test"), 22, None).unwrap()];
        let going = Control::GoingAway {
            deadline_ms: 1,
            alternates,
        };
        agent.handle_control(now, link, going);
        agent.handle_timeout(now + Duration::from_millis(1));
        // Each time for the first time: a relay that stops is not listened to twice.
        agent.links.forget_announcements();
        while let Some(event) = agent.poll_event() {
            dials += usize::from(matches!(event, Event::Dial { .. }));
        }
    }
    assert_eq!(dials, 8);
    assert_eq!(agent.counters().control_unexpected, 92);
}

#[test]
fn a_second_relay_cannot_repeat_the_id_of_a_channel_on_the_first() {
    let mut world = World::with(config(Role::Client), config(Role::Agent), 2);
    world.connect();
    world.pass(ms(3_000));
    let channel = *world.relays[0].channels.keys().next().unwrap();
    let link = world.link_of(AGENT);
    let before = world.hosts[AGENT].node.sizes();
    let sender = &world.hosts[CLIENT].node;
    let own = sender.record().record();
    let secret = byway_wire::TicketSecret::from_bytes(SECRET);
    let agent_id = world.hosts[AGENT].node.id().node;
    let incoming = Incoming {
        channel,
        record: sender.record().clone(),
        observed: world.hosts[CLIENT].addr,
        proof: Some(secret.open_proof(own.id, &own.probe_key, agent_id)),
        first: vec![],
    };
    let now = world.now;
    let agent = &mut world.hosts[AGENT].node;
    agent.handle_control(now, link, Control::Incoming(incoming));
    assert!(matches!(
        agent.poll_event(),
        Some(Event::Control {
            message: Control::Closed {
                reason: CloseReason::ChannelInUse,
                ..
            },
            ..
        })
    ));
    assert_eq!(agent.sizes(), before);
}

#[test]
fn a_relay_elsewhere_that_claims_to_see_both_on_loopback_opens_no_loopback() {
    let mut world = World::new();
    for host in &mut world.hosts {
        host.seen_at = Some("127.0.0.1:5000".parse().unwrap());
    }
    world.connect();
    world.pass(ms(1_000));
    let before = world.hosts[AGENT].node.counters().candidate_refused;
    offer(&mut world, vec!["127.0.0.1:22".parse().unwrap()]);
    assert_eq!(
        world.hosts[AGENT].node.counters().candidate_refused,
        before + 1
    );
}

/// The client's side of its first channel: the channel, and the agent's link to its relay.
pub(super) fn channel(world: &World) -> (ChannelId, LinkId) {
    let (&channel, sides) = world.relays[0].channels.iter().next().unwrap();
    (channel, sides[AGENT].unwrap().1)
}

/// An `Open` of the client's as a relay can play it again, by another channel.
fn replayed_open(world: &World, channel: u64) -> Incoming {
    let sender = &world.hosts[CLIENT].node;
    let own = sender.record().record();
    let secret = byway_wire::TicketSecret::from_bytes(SECRET);
    let agent = world.hosts[AGENT].node.id().node;
    Incoming {
        channel: ChannelId::from_u64(channel),
        record: sender.record().clone(),
        observed: world.hosts[CLIENT].addr,
        proof: Some(secret.open_proof(own.id, &own.probe_key, agent)),
        first: vec![Bytes::from_static(b"an old first flight")],
    }
}

#[test]
fn a_relay_cannot_end_a_direct_path_by_saying_that_the_peer_is_gone() {
    for reason in [
        CloseReason::Done,
        CloseReason::PeerGone,
        CloseReason::Offline,
        CloseReason::NotAllowed,
    ] {
        let mut world = World::direct();
        world.chat(CLIENT, ms(20), ms(1_000));
        let epoch = world.hosts[AGENT].route.as_ref().unwrap().epoch;
        let (channel, link) = channel(&world);
        let closed = Control::Closed { channel, reason };
        world.say_to((AGENT, link), closed);
        world.chat(CLIENT, ms(20), ms(1_000));
        let route = world.hosts[AGENT].route.clone().unwrap();
        assert_eq!(route.epoch, epoch, "{reason:?}");
        assert_eq!(world.kind(AGENT), Some(PathKind::Direct));
        assert_eq!(route.health, Health::Good);
    }
}

#[test]
fn a_relay_cannot_end_a_direct_path_by_playing_an_old_open_again() {
    let mut world = World::direct();
    world.chat(CLIENT, ms(20), ms(1_000));
    let epoch = world.hosts[AGENT].route.as_ref().unwrap().epoch;
    let (_, link) = channel(&world);
    let channels = world.hosts[AGENT].node.sizes()[3];
    let mut doubts = 0;
    for n in 0..200 {
        let incoming = replayed_open(&world, 1_000 + n);
        let routes = world.hosts[AGENT].routes.len();
        world.say_to((AGENT, link), Control::Incoming(incoming));
        world.chat(CLIENT, ms(20), ms(20));
        doubts += world.hosts[AGENT].routes[routes..]
            .iter()
            .filter(|r| r.1 == RouteReason::Cleared)
            .count();
    }
    world.chat(CLIENT, ms(20), ms(1_000));
    let route = world.hosts[AGENT].route.clone().unwrap();
    assert_eq!((route.epoch, route.health), (epoch, Health::Good));
    assert!(world.both(|k| k == Some(PathKind::Direct)));
    // Four seconds: what one relay may make both sides wonder is bounded, and so is what it may make us keep.
    assert!((1..=10).contains(&doubts), "{doubts}");
    assert!(world.hosts[AGENT].node.sizes()[3] <= channels + 1);
}

#[test]
fn a_relay_that_plays_old_opens_again_pushes_out_no_channel_of_another() {
    let mut world = World::with(config(Role::Client), config(Role::Agent), 2);
    world.connect();
    world.pass(ms(3_000));
    let honest = *world.relays[0].channels.keys().next().unwrap();
    let hostile = world.link_of(AGENT);
    assert_ne!(
        Some(hostile),
        world.relays[0].channels[&honest][AGENT].map(|s| s.1)
    );
    for n in 0..20 {
        let incoming = replayed_open(&world, 1_000 + n);
        world.say_to((AGENT, hostile), Control::Incoming(incoming));
        world.pass(ms(100));
    }
    assert!(world.relays[0].channels.contains_key(&honest));
    world.direct_open = false;
    world.chat(CLIENT, ms(20), ms(3_000));
    assert!(world.both(|k| k == Some(PathKind::RelayUdp)));
}

/// The first signal of those that the client sent last.
fn last_word(world: &mut World) -> Bytes {
    let sent = std::mem::take(&mut world.hosts[CLIENT].controls_sent);
    let sealed = sent.into_iter().find_map(|message| match message {
        Control::Signal { sealed, .. } => Some(sealed),
        _ => None,
    });
    sealed.expect("a signal")
}

/// A relay says so to the agent, of a tunnel that goes direct, and nothing comes of it.
fn is_not_believed(world: &mut World, link: LinkId, sealed: Bytes) {
    let (channel, _) = channel(world);
    world.say_to((AGENT, link), Control::Signal { channel, sealed });
    world.pass(ms(100));
    assert!(world.both(|k| k == Some(PathKind::Direct)));
    assert_eq!(world.hosts[AGENT].node.counters().signal_replayed, 1);
}

#[test]
fn a_peer_that_says_goodbye_is_believed_and_a_relay_that_repeats_it_is_not() {
    let mut world = World::direct();
    let peer = world.hosts[CLIENT].peer.unwrap();
    let (_, link) = channel(&world);
    world.hosts[CLIENT].controls_sent.clear();
    world.hosts[CLIENT].node.close_peer(world.now, peer);
    world.pass(ms(100));
    let goodbye = last_word(&mut world);
    assert_eq!(world.kind(AGENT), None, "its paths are gone at once");

    // The same instance calls anew, goes direct, and the relay plays the old word again.
    world.hosts[CLIENT].route = None;
    world.connect();
    assert!(world.run_for(ms(2_000), |w| w.both(|k| k == Some(PathKind::Direct))));
    is_not_believed(&mut world, link, goodbye);
}

#[test]
fn a_signal_that_a_relay_held_back_cannot_undo_what_came_after_it() {
    let mut world = World::direct();
    let peer = world.hosts[CLIENT].peer.unwrap();
    let (_, link) = channel(&world);
    // The goodbye is caught on its way; so is the word that the channel ended.
    world.hosts[CLIENT].controls_sent.clear();
    let held = std::mem::take(&mut world.relays[0].channels);
    world.hosts[CLIENT].node.close_peer(world.now, peer);
    world.pass(ms(100));
    drop(held);
    let goodbye = last_word(&mut world);
    world.hosts[CLIENT].route = None;
    world.connect();
    assert!(world.run_for(ms(3_000), |w| w.both(|k| k == Some(PathKind::Direct))));
    is_not_believed(&mut world, link, goodbye);
}

/// What a relay passes on when another process calls.
fn caller(world: &World, n: u64) -> Incoming {
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&n.to_be_bytes());
    let key = byway_wire::SecretKey::from_bytes(&seed);
    let record = byway_wire::Record {
        id: byway_wire::NodeInstance {
            node: key.node_id(),
            instance: byway_wire::Instance(n),
        },
        probe_key: byway_wire::ProbeSecret::from_bytes(seed).public(),
        epoch: 1,
        seq: 0,
        relays: vec![],
    };
    let secret = byway_wire::TicketSecret::from_bytes(SECRET);
    let agent = world.hosts[AGENT].node.id().node;
    Incoming {
        channel: ChannelId::from_u64(10_000 + n),
        proof: Some(secret.open_proof(record.id, &record.probe_key, agent)),
        record: byway_wire::SignedRecord::sign(&key, record),
        observed: world.hosts[CLIENT].addr,
        first: vec![Bytes::from_static(b"hello")],
    }
}

#[test]
fn of_many_peers_that_vanished_the_longest_silent_are_given_up_and_nobody_else() {
    let mut world = World::direct();
    let (_, link) = channel(&world);
    let mut last = 0;
    let began = world.now;
    for n in 0..400 {
        if n == 300 {
            // Until now nobody was silent for long: it may be our own link that broke, and they may all be back at once.
            assert_eq!(world.hosts[AGENT].node.counters().peer_evicted, 0);
            world.now = began + ms(310_000);
        }
        let incoming = caller(&world, n);
        let channel = incoming.channel;
        let now = world.now;
        let agent = &mut world.hosts[AGENT].node;
        agent.handle_control(now, link, Control::Incoming(incoming));
        let reason = CloseReason::PeerGone;
        agent.handle_control(now, link, Control::Closed { channel, reason });
        while let Some(event) = agent.poll_event() {
            if let Event::PeerFailed { peer, .. } = event {
                assert!(
                    peer.0 > last,
                    "not the longest silent: {peer:?} after {last}"
                );
                last = peer.0;
            }
        }
        world.now += ms(10);
    }
    assert_eq!(world.hosts[AGENT].node.sizes()[0], 1 + 256);
    assert_eq!(world.hosts[AGENT].node.counters().peer_evicted, 144);
    world.chat(CLIENT, ms(20), ms(500));
    assert_eq!(world.kind(AGENT), Some(PathKind::Direct));
}
