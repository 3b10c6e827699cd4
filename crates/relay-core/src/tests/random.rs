//! Random sequences of inputs: the relay never panics, and what must always hold holds after each of them.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use byway_wire::ChannelId;
use byway_wire::relay::control::*;
use byway_wire::relay::cookie::Cookie;
use proptest::prelude::*;

use super::bench::*;
use crate::awaited::{Wait, Waits};
use crate::channels::Target;
use crate::forward::{Decision, Source, decide};
use crate::io::*;
use crate::relay::Config;

/// One input. Numbers are small so that they meet.
#[derive(Clone, Debug)]
enum Input {
    LinkUp {
        node: u8,
        tls: bool,
    },
    LinkDown {
        link: u64,
    },
    Hello {
        link: u64,
        node: u8,
        instance: u64,
        epoch: u64,
        agent: bool,
    },
    Open {
        link: u64,
        channel: u64,
        peer: u8,
        first: usize,
        wait_ms: u32,
    },
    Accept {
        link: u64,
        channel: u64,
    },
    Closed {
        link: u64,
        channel: u64,
        refuse: bool,
    },
    Attach {
        link: u64,
        channel: u64,
    },
    Signal {
        link: u64,
        channel: u64,
        len: usize,
    },
    Rebind {
        link: u64,
        channel: u64,
        port: u64,
        forged: bool,
    },
    Record {
        link: u64,
        node: u8,
        instance: u64,
        seq: u64,
    },
    Odd {
        link: u64,
        which: u8,
    },
    Pass {
        millis: u64,
    },
    GoingAway,
}

fn input() -> impl Strategy<Value = Input> {
    let link = 0..24u64;
    let channel = 0..12u64;
    let node = 1..4u8;
    prop_oneof![
        4 => (node.clone(), any::<bool>()).prop_map(|(node, tls)| Input::LinkUp { node, tls }),
        2 => link.clone().prop_map(|link| Input::LinkDown { link }),
        6 => (link.clone(), node.clone(), 0..3u64, 1..3u64, any::<bool>()).prop_map(
            |(link, node, instance, epoch, agent)| Input::Hello { link, node, instance, epoch, agent }),
        8 => (link.clone(), channel.clone(), node.clone(), 0..3usize, 0..70_000u32).prop_map(
            |(link, channel, peer, first, wait_ms)| Input::Open { link, channel, peer, first, wait_ms }),
        3 => (link.clone(), channel.clone()).prop_map(|(link, channel)| Input::Accept { link, channel }),
        1 => (link.clone(), channel.clone(), any::<bool>()).prop_map(
            |(link, channel, refuse)| Input::Closed { link, channel, refuse }),
        3 => (link.clone(), channel.clone()).prop_map(|(link, channel)| Input::Attach { link, channel }),
        2 => (link.clone(), channel.clone(), 0..6_000usize).prop_map(
            |(link, channel, len)| Input::Signal { link, channel, len }),
        2 => (link.clone(), channel, 0..40u64, any::<bool>()).prop_map(
            |(link, channel, port, forged)| Input::Rebind { link, channel, port, forged }),
        2 => (link.clone(), node, 0..3u64, 0..4u64).prop_map(
            |(link, node, instance, seq)| Input::Record { link, node, instance, seq }),
        1 => (link, 0..6u8).prop_map(|(link, which)| Input::Odd { link, which }),
        3 => (0..4_000u64).prop_map(|millis| Input::Pass { millis }),
        1 => Just(Input::GoingAway),
    ]
}

/// A bench whose links get the next free number, and which knows which of them are up.
struct Random {
    bench: Bench,
    next_link: u64,
}

impl Random {
    /// Link numbers name one of the last 24 links.
    fn link(&self, n: u64) -> u64 {
        self.next_link.saturating_sub(24) + n
    }
    fn play(&mut self, input: Input) {
        match input {
            Input::LinkUp { node, tls } => {
                let link = self.next_link;
                self.next_link += 1;
                let egress = if tls {
                    Egress::Tls(LinkId(link))
                } else {
                    Egress::Udp(addr(link))
                };
                self.bench.link_up_as(link, node, egress);
            }
            Input::LinkDown { link } => _ = self.bench.link_down(self.link(link)),
            Input::Hello {
                link,
                node,
                instance,
                epoch,
                agent,
            } => {
                let role = if agent { Role::Agent } else { Role::Client };
                self.say(link, Control::Hello(hello(node, instance, epoch, role)));
            }
            Input::Open {
                link,
                channel: id,
                peer,
                first,
                wait_ms,
            } => {
                let open = Open {
                    channel: channel(id),
                    peer: node(peer),
                    proof: None,
                    first: vec![Bytes::from_static(b"datagram"); first],
                    wait_ms,
                };
                self.say(link, Control::Open(open));
            }
            Input::Accept { link, channel: id } => self.say(
                link,
                Control::Accept {
                    channel: channel(id),
                },
            ),
            Input::Closed {
                link,
                channel: id,
                refuse,
            } => {
                let reason = if refuse {
                    CloseReason::NotAllowed
                } else {
                    CloseReason::Done
                };
                self.say(
                    link,
                    Control::Closed {
                        channel: channel(id),
                        reason,
                    },
                );
            }
            Input::Attach { link, channel: id } => self.say(
                link,
                Control::Attach {
                    channel: channel(id),
                },
            ),
            Input::Signal {
                link,
                channel: id,
                len,
            } => {
                let sealed = Bytes::from(vec![0; len]);
                self.say(
                    link,
                    Control::Signal {
                        channel: channel(id),
                        sealed,
                    },
                );
            }
            Input::Rebind {
                link,
                channel: id,
                port,
                forged,
            } => {
                let minute = self.bench.relay.minute(self.bench.now);
                let mut cookie: Cookie =
                    self.bench
                        .relay
                        .cookie_key()
                        .make(channel(id), addr(port), minute);
                cookie.mac[3] ^= u8::from(forged);
                self.say(link, Control::Rebind(Rebind { cookie }));
            }
            Input::Record {
                link,
                node,
                instance,
                seq,
            } => {
                self.say(link, Control::Record(record(node, instance, 1, seq)));
            }
            Input::Odd { link, which } => {
                let message = match which {
                    0 => Control::Unknown,
                    1 => Control::Ping { token: 1 },
                    2 => Control::Pong { token: 1 },
                    3 => Control::Attached {
                        channel: channel(1),
                    },
                    4 => Control::Rebound { observed: addr(1) },
                    _ => Control::Refused {
                        reason: RefuseReason::Limit,
                        detail: String::new(),
                    },
                };
                self.say(link, message);
            }
            Input::Pass { millis } => _ = self.bench.pass(Duration::from_millis(millis)),
            Input::GoingAway => {
                // Only told, or the rest of the sequence would be about nobody.
                self.bench.relay.handle_going_away(
                    self.bench.now,
                    Duration::from_secs(9),
                    Vec::new(),
                );
                self.bench.drain();
                self.bench.relay.ending = crate::relay::Ending::No;
            }
        }
    }
    fn say(&mut self, link: u64, message: Control) {
        self.bench.say(self.link(link), message);
    }

    /// What must hold after every input.
    fn check(&self) {
        let relay = &self.bench.relay;
        // The table is the channels with both ends, bound as they are bound.
        let here: Vec<ChannelId> = relay
            .channels
            .iter()
            .filter(|(_, c)| c.end(Side::Target).is_some())
            .map(|(id, _)| *id)
            .collect();
        assert!(here.iter().eq(self.bench.table.entries.keys()));
        for (id, (opener, target)) in &self.bench.table.entries {
            let c = &relay.channels[id];
            assert_eq!(
                (c.opener.egress, c.end(Side::Target).unwrap().egress),
                (*opener, *target)
            );
            assert_ne!(c.opener.owner.node, c.target_node());
            // From where nobody is bound, nothing is forwarded.
            for stranger in [
                Source::Udp(([203, 0, 113, 9], 9).into()),
                Source::Tls(LinkId(u64::MAX)),
            ] {
                assert_eq!(decide(*opener, *target, stranger), Decision::Unbound);
            }
        }
        // Ends, links and sessions point to each other.
        for (id, c) in &relay.channels {
            for side in [Side::Opener, Side::Target] {
                let Some(end) = c.end(side) else { continue };
                assert!(relay.sessions[&end.owner].channels.contains(id));
                if let Some(link) = end.link {
                    let link = &relay.links[&link];
                    assert!(link.ends.contains(&(*id, side)));
                    assert_eq!(link.session, Some(end.owner));
                    assert_eq!(link.info.egress, end.egress);
                }
            }
        }
        for (id, link) in &relay.links {
            assert!(!self.bench.gone.contains(id), "an ended link is forgotten");
            assert!(
                link.ends
                    .iter()
                    .all(|(c, side)| relay.bound_link(*c, *side) == Some(*id))
            );
        }
        for (id, session) in &relay.sessions {
            assert!(!session.links.is_empty() || !session.channels.is_empty());
            assert!(session.links.len() <= relay.config.max_links_per_instance as usize);
            assert!(session.channels.len() <= relay.config.max_channels as usize);
            assert!(
                session
                    .unanswered
                    .values()
                    .all(|n| *n <= relay.config.max_unanswered && *n > 0)
            );
            if session.role == Role::Agent {
                assert_eq!(
                    relay.agents.get(&id.node),
                    Some(&id.instance),
                    "one agent a node"
                );
            }
        }
        assert!(
            relay
                .links_of
                .values()
                .all(|n| *n <= relay.config.max_links_per_node)
        );
        let mut waits: BTreeMap<_, Waits> = BTreeMap::new();
        for id in relay.awaited.all() {
            let channel = &relay.channels[&id];
            let Target::Awaited(waiting) = &channel.target else {
                panic!("{id:?} waits for nobody");
            };
            let (_, wait) = waiting.place.expect("it has its place");
            let of = waits.entry(channel.opener.owner).or_default();
            match wait {
                Wait::Short => of.short += 1,
                Wait::Long => of.long += 1,
            }
        }
        for (id, session) in &relay.sessions {
            assert_eq!(session.waits, waits.get(id).copied().unwrap_or_default());
        }
        let all = relay.awaited.waits;
        let sum = |of: fn(&Waits) -> u32| waits.values().map(of).sum::<u32>();
        assert_eq!((all.short, all.long), (sum(|w| w.short), sum(|w| w.long)));
        let udp = relay
            .links
            .values()
            .filter(|l| matches!(l.info.egress, Egress::Udp(_)))
            .count();
        assert_eq!(udp, self.bench.table.sources.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn invariants_hold_and_everything_ends(inputs in prop::collection::vec(input(), 1..150)) {
        let config = Config {
            max_channels: 4,
            max_links_per_node: 5,
            max_links_per_instance: 2,
            max_unanswered: 2,
            ..Config::default()
        };
        let mut random = Random { bench: Bench::with(config), next_link: 0 };
        for input in inputs {
            random.play(input);
            random.check();
        }
        for link in 0..random.next_link {
            random.bench.link_down(link);
        }
        random.bench.pass(Duration::from_secs(10));
        random.check();
        let relay = &random.bench.relay;
        prop_assert!(random.bench.table.entries.is_empty(), "every insert has its remove");
        prop_assert_eq!(relay.load(), Default::default());
        prop_assert_eq!(relay.timers.len(), 0);
    }
}

#[test]
fn the_same_seed_gives_the_same_session_numbers() {
    let session = |bench: &mut Bench| {
        let events = bench.come(1, 1, 10, Role::Client);
        match &sent(&events, 1)[..] {
            [Control::Welcome(welcome)] => welcome.session,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(session(&mut Bench::new()), session(&mut Bench::new()));
}
