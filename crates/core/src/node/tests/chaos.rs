//! Whatever comes in, in whatever order: no panic, no unbounded state, no endless loop.

use byway_wire::relay::control::*;
use byway_wire::{ChannelId, SecretKey};
use proptest::prelude::*;

use super::world::*;
use crate::io::*;

/// One thing a hostile or broken shell, relay or stranger does.
#[derive(Clone, Debug)]
enum Deed {
    Datagram { way: u8, data: Vec<u8> },
    Control { link: u8, message: u8, channel: u8 },
    Dialed { link: u8, fine: bool },
    Lost { link: u8 },
    Flow { sample: FlowShape },
    Connect,
    First { len: usize },
    Close { peer: u32 },
    Sockets { n: u8 },
    Wait { ms: u64 },
}

#[derive(Clone, Debug)]
struct FlowShape {
    in_flight: u64,
    waited_ms: Option<u64>,
    acked: u64,
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        4 => (any::<u8>(), prop::collection::vec(any::<u8>(), 0..200)).prop_map(|(way, data)| Deed::Datagram { way, data }),
        2 => (any::<u8>(), prop::collection::vec(any::<u8>(), 34..120)).prop_map(|(way, mut data)| {
            data[0] = 0x81;
            Deed::Datagram { way, data }
        }),
        12 => (0..6u8, any::<u8>(), 0..6u8).prop_map(|(link, message, channel)| Deed::Control { link, message, channel }),
        2 => (0..8u8, any::<bool>()).prop_map(|(link, fine)| Deed::Dialed { link, fine }),
        1 => (0..8u8).prop_map(|link| Deed::Lost { link }),
        2 => (0..5_000u64, prop::option::of(0..3_000u64), 0..5_000u64)
            .prop_map(|(in_flight, waited_ms, acked)| Deed::Flow { sample: FlowShape { in_flight, waited_ms, acked } }),
        1 => Just(Deed::Connect),
        1 => (0..3_000usize).prop_map(|len| Deed::First { len }),
        1 => (0..6u32).prop_map(|peer| Deed::Close { peer }),
        1 => (0..4u8).prop_map(|n| Deed::Sockets { n }),
        6 => (0..3_000u64).prop_map(|ms| Deed::Wait { ms }),
    ]
}

fn way(n: u8) -> Way {
    match n % 4 {
        0 => Way::Direct {
            socket: SocketId(0),
            remote: ([198, 51, 100, 1], 5_000).into(),
        },
        1 => Way::Direct {
            socket: SocketId(u16::from(n)),
            remote: ([n, 1, 1, 1], 1).into(),
        },
        2 => Way::Channel {
            link: LinkId(u64::from(n / 4)),
            carrier: Carrier::Udp,
            channel: ChannelId::ECHO,
        },
        _ => Way::Channel {
            link: LinkId(u64::from(n / 16)),
            carrier: Carrier::Tls,
            channel: ChannelId::from_u64(u64::from(n % 5)),
        },
    }
}

/// A plausible message about a plausible channel: either a small number or one that is really in use.
fn message(world: &World, kind: u8, channel: u8) -> Control {
    let used = world.relays[0]
        .channels
        .keys()
        .nth(usize::from(channel) / 2)
        .copied();
    let channel = used
        .filter(|_| channel.is_multiple_of(2))
        .unwrap_or(ChannelId::from_u64(u64::from(channel)));
    let record = world.hosts[usize::from(kind) % 2].node.record().clone();
    let observed = ([203, 0, 113, kind], u16::from(kind)).into();
    let reasons = [
        CloseReason::Done,
        CloseReason::Offline,
        CloseReason::NotAllowed,
        CloseReason::ChannelInUse,
        CloseReason::Limit,
        CloseReason::PeerGone,
        CloseReason::NoSuchChannel,
    ];
    match kind % 14 {
        0 => Control::Welcome(Welcome {
            version: u32::from(kind % 3),
            relay: String::new(),
            region: String::new(),
            session: 0,
            observed,
            max_channels: 0,
            max_datagram: 0,
            time: 0,
            intercepted: false,
            admitted_for: Some(0),
        }),
        1 => Control::Refused {
            reason: RefuseReason::Shutdown,
            detail: String::new(),
        },
        2 => Control::Opened(Opened { channel, record }),
        3 | 4 => Control::Incoming(Incoming {
            channel,
            record,
            observed,
            proof: Some([kind; 32]),
            first: vec![bytes::Bytes::from(vec![kind; 20]); usize::from(kind % 6)],
        }),
        5 | 6 => Control::Closed {
            channel,
            reason: reasons[usize::from(kind) % reasons.len()],
        },
        7 => Control::Attached { channel },
        8 => Control::Signal {
            channel,
            sealed: vec![kind; usize::from(kind)].into(),
        },
        9 => Control::Rebound { observed },
        10 => Control::Ping { token: 1 },
        11 => Control::Record(record),
        12 => Control::GoingAway {
            deadline_ms: 1,
            alternates: vec![relay_url(usize::from(kind)); 6],
        },
        _ => Control::Accept { channel },
    }
}

fn act(world: &mut World, host: usize, deed: Deed) {
    let now = world.now;
    let peer = world.hosts[host].peer.unwrap_or(PeerId(1));
    match deed {
        Deed::Datagram { way: n, data } => {
            world.hosts[host]
                .node
                .handle_datagram(now, way(n), None, &data);
        }
        Deed::Control {
            link,
            message: kind,
            channel,
        } => {
            // What the format refuses never reaches a node.
            if let Ok(message) = Control::decode(message(world, kind, channel).encode()) {
                world.hosts[host]
                    .node
                    .handle_control(now, LinkId(u64::from(link)), message);
            }
        }
        Deed::Dialed { link, fine } => {
            let up = LinkUp {
                rtt: None,
                udp: Some((SocketId(0), ([203, 0, 113, 1], 443).into())),
            };
            let result = if fine {
                Ok(up)
            } else {
                Err(LinkError::TimedOut)
            };
            world.hosts[host]
                .node
                .handle_dialed(now, LinkId(u64::from(link)), result);
        }
        Deed::Lost { link } => {
            world.hosts[host].node.handle_link_lost(
                now,
                LinkId(u64::from(link)),
                LinkError::HungUp,
            );
        }
        Deed::Flow { sample } => {
            let since = |waited| now.checked_sub(ms(waited)).unwrap_or(now);
            let sample = FlowSample {
                in_flight: sample.in_flight,
                waiting_since: sample.waited_ms.map(since),
                quiet_since: sample.waited_ms.map(since),
                sent: sample.acked + sample.in_flight,
                acked: sample.acked,
                ..FlowSample::default()
            };
            world.hosts[host].node.handle_flow(now, peer, sample);
        }
        Deed::Connect => {
            let target = world.target();
            let peer = world.hosts[host].node.connect(now, target);
            world.hosts[host].peer = Some(peer);
        }
        Deed::First { len } => world.hosts[host]
            .node
            .send_first(now, peer, vec![7; len].into()),
        Deed::Close { peer } => world.hosts[host].node.close_peer(now, PeerId(peer)),
        Deed::Sockets { n } => {
            let socket = |id: u8| LocalSocket {
                id: SocketId(u16::from(id)),
                port: 5_000 + u16::from(id),
                v4: true,
                v6: id > 1,
                addrs: vec![[10, 0, 0, id].into()],
            };
            world.hosts[host]
                .node
                .handle_sockets(now, (0..n).map(socket).collect());
        }
        Deed::Wait { ms: time } => world.pass(ms(time)),
    }
    // Drains, and stops a loop that does not end.
    world.pass(ms(0));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_comes_in_brings_a_node_down(
        host in 0..2usize,
        connected in any::<bool>(),
        deeds in prop::collection::vec(deed(), 0..80),
    ) {
        let mut world = World::new();
        if connected {
            world.connect();
            world.pass(ms(300));
        }
        for deed in deeds {
            act(&mut world, host, deed);
        }
        // However it went: a fresh node of the other kind is still served.
        world.pass(ms(30_000));
        let sizes = world.hosts[host].node.sizes();
        prop_assert!(sizes.iter().all(|n| *n < 200), "{sizes:?}");
    }

    #[test]
    fn a_tunnel_survives_every_datagram_a_stranger_can_think_of(
        datagrams in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..1_500)), 0..40),
    ) {
        let mut world = World::direct();
        let epochs = [0, 1].map(|h| world.hosts[h].route.clone());
        for (n, data) in datagrams {
            world.hosts[AGENT].node.handle_datagram(world.now, way(n), None, &data);
        }
        world.pass(ms(5_000));
        prop_assert_eq!(epochs, [0, 1].map(|h| world.hosts[h].route.clone()));
    }

    #[test]
    fn whoever_is_not_admitted_leaves_nothing_behind(
        key in any::<[u8; 32]>(),
        proof in prop::option::of(any::<[u8; 32]>()),
        channel in any::<u64>(),
    ) {
        let mut world = World::new();
        world.pass(ms(500));
        let record = byway_wire::Record {
            id: byway_wire::NodeInstance {
                node: SecretKey::from_bytes(&key).node_id(),
                instance: byway_wire::Instance(channel),
            },
            probe_key: byway_wire::ProbePublic(key),
            epoch: 1,
            seq: 1,
            relays: vec![],
        };
        let record = byway_wire::SignedRecord::sign(&SecretKey::from_bytes(&key), record);
        let channel = ChannelId::from_u64(channel);
        let incoming = Incoming { channel, record, observed: ([192, 0, 2, 1], 1).into(), proof, first: vec![] };
        let link = world.link_of(AGENT);
        let now = world.now;
        let agent = &mut world.hosts[AGENT].node;
        agent.handle_control(now, link, Control::Incoming(incoming));
        let events: Vec<Event> = std::iter::from_fn(|| agent.poll_event()).collect();
        let refusal = matches!(
            events[..],
            [Event::Control { message: Control::Closed { reason: CloseReason::NotAllowed, .. }, .. }]
        );
        prop_assert!(refusal, "{:?}", events);
        prop_assert!(agent.poll_transmit().is_none());
        prop_assert_eq!(agent.sizes(), [0; 6]);
    }
}
