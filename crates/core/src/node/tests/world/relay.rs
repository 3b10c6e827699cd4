//! Relays: what they welcome, refuse, forward and say of their end.

use super::*;

pub(in crate::node::tests) struct Relay {
    pub(in crate::node::tests) links: BTreeMap<(usize, LinkId), (Carrier, Option<SignedRecord>)>,
    pub(in crate::node::tests) agents: BTreeMap<NodeId, (usize, LinkId)>,
    /// Both sides: opener, target.
    pub(in crate::node::tests) channels: BTreeMap<ChannelId, [Option<(usize, LinkId)>; 2]>,
    pub(in crate::node::tests) alive: bool,
    pub(in crate::node::tests) echo: bool,
    /// Says nothing on UDP links.
    pub(in crate::node::tests) udp_mute: bool,
    /// Hangs up on everyone it welcomed.
    pub(in crate::node::tests) fickle: bool,
    /// Answers every `Open` with this record, whoever is there.
    pub(in crate::node::tests) shows: Option<SignedRecord>,
    /// Messages that came, for assertions.
    pub(in crate::node::tests) log: Vec<&'static str>,
    /// How long each `Open` was to wait.
    pub(in crate::node::tests) waits: Vec<u32>,
    /// Says nothing to an `Open` for a peer that is not here.
    pub(in crate::node::tests) mute: bool,
    /// How long it waits for a peer that is not here before it says so.
    pub(in crate::node::tests) patience: Duration,
    /// It stops soon: who comes now is sent away.
    pub(in crate::node::tests) drains: bool,
    /// What it said of its end, and says to newcomers.
    pub(in crate::node::tests) last_words: Option<Control>,
    /// The one token that admits, and for how many seconds; without, everybody is admitted for good.
    pub(in crate::node::tests) admits: Option<(AdmissionToken, u32)>,
}

impl Relay {
    pub(in crate::node::tests) fn new() -> Self {
        Self {
            links: BTreeMap::new(),
            agents: BTreeMap::new(),
            channels: BTreeMap::new(),
            alive: true,
            echo: true,
            shows: None,
            udp_mute: false,
            fickle: false,
            waits: Vec::new(),
            mute: false,
            patience: Duration::ZERO,
            drains: false,
            last_words: None,
            admits: None,
            log: Vec::new(),
        }
    }
    /// A host is here by a link of this kind.
    pub(in crate::node::tests) fn has_link(&self, host: usize, carrier: Carrier) -> bool {
        let mut links = self.links.iter();
        links.any(|((h, _), (c, _))| (*h, *c) == (host, carrier))
    }
}

impl World {
    /// A relay says that it will stop, and welcomes nobody any more.
    pub(in crate::node::tests) fn announce_end(
        &mut self,
        relay: usize,
        deadline: Duration,
        alternates: &[usize],
    ) {
        let message = Control::GoingAway {
            deadline_ms: deadline.as_millis() as u32,
            alternates: alternates.iter().copied().map(relay_url).collect(),
        };
        self.relays[relay].drains = true;
        self.relays[relay].last_words = Some(message.clone());
        let links: Vec<(usize, LinkId)> = self.relays[relay].links.keys().copied().collect();
        for link in links {
            self.say_to(link, message.clone());
        }
    }
    /// Another process in the place of one that has no links any more.
    pub(in crate::node::tests) fn succeed(&mut self, relay: usize) {
        assert!(self.relays[relay].links.is_empty());
        self.relays[relay].drains = false;
        self.relays[relay].last_words = None;
    }
    pub(in crate::node::tests) fn kill_relay(&mut self, relay: usize) {
        self.relays[relay].alive = false;
        self.relays[relay].channels.clear();
        for host in 0..self.hosts.len() {
            self.lose_links(host, relay, &LinkError::Broken("killed".into()));
        }
    }
    pub(in crate::node::tests) fn say_to(&mut self, to: (usize, LinkId), message: Control) {
        let message = Control::decode(message.encode()).unwrap();
        self.later(
            self.relay_delay,
            Happening::ToNode {
                host: to.0,
                link: to.1,
                message,
            },
        );
    }
    pub(super) fn at_relay(&mut self, host: usize, link: LinkId, message: Control) {
        let from = (host, link);
        let Some(&(n, carrier)) = self.links.get(&from) else {
            return;
        };
        if !self.relays[n].alive || !self.relays[n].links.contains_key(&from) {
            return;
        }
        if self.relays[n].udp_mute && carrier == Carrier::Udp {
            return;
        }
        self.relays[n].log.push(message.name());
        let seen = |h: &Host| h.seen_at.unwrap_or(h.addr);
        let observed = seen(&self.hosts[host]);
        let relay = &mut self.relays[n];
        match message {
            Control::Hello(hello) => {
                let refusal = if relay.drains {
                    Some(RefuseReason::Shutdown)
                } else {
                    let admits = relay.admits.as_ref();
                    admits
                        .is_some_and(|(token, _)| hello.token.as_ref() != Some(token))
                        .then_some(RefuseReason::NotAdmitted)
                };
                let admits = relay.admits.clone();
                if let Some(reason) = refusal {
                    if let (RefuseReason::Shutdown, Some(said)) = (reason, &relay.last_words) {
                        let said = said.clone();
                        self.say_to(from, said);
                    }
                    let refused = Control::Refused {
                        reason,
                        detail: "no".to_owned(),
                    };
                    return self.say_to(from, refused);
                }
                if hello.role == Role::Agent {
                    relay.agents.insert(hello.record.node(), from);
                }
                relay.links.insert(from, (carrier, Some(hello.record)));
                let welcome = Welcome {
                    version: VERSION,
                    relay: "relay".into(),
                    region: "test".into(),
                    session: 1,
                    observed,
                    max_channels: 1_024,
                    max_datagram: 9_000,
                    time: 1,
                    intercepted: false,
                    admitted_for: admits.map(|(_, seconds)| seconds),
                };
                let fickle = relay.fickle;
                self.say_to(from, Control::Welcome(welcome));
                if fickle {
                    self.later(self.relay_delay * 2, Happening::Broken { host, link });
                }
            }
            Control::Open(open) => {
                relay.waits.push(open.wait_ms);
                let Some(&to) = relay.agents.get(&open.peer) else {
                    if relay.mute {
                        return;
                    }
                    let offline = Control::Closed {
                        channel: open.channel,
                        reason: CloseReason::Offline,
                    };
                    let (host, link) = from;
                    let after = relay.patience + self.relay_delay;
                    self.later(
                        after,
                        Happening::ToNode {
                            host,
                            link,
                            message: offline,
                        },
                    );
                    return;
                };
                let records = (relay.links[&from].1.clone(), relay.links[&to].1.clone());
                let (Some(record), Some(target)) = records else {
                    return;
                };
                let target = relay.shows.clone().unwrap_or(target);
                relay.channels.insert(open.channel, [Some(from), Some(to)]);
                let incoming = Incoming {
                    channel: open.channel,
                    record,
                    observed,
                    proof: open.proof,
                    first: open.first,
                };
                self.say_to(to, Control::Incoming(incoming));
                self.say_to(
                    from,
                    Control::Opened(Opened {
                        channel: open.channel,
                        record: target,
                    }),
                );
            }
            // Whom the target lets in, hears where it is.
            Control::Accept { channel } => {
                let sides = relay.channels.get(&channel);
                if let Some(&[Some(opener), _]) = sides {
                    self.say_to(opener, Control::PeerMoved { channel, observed });
                }
            }
            Control::Closed { channel, reason } => {
                if let Some(sides) = relay.channels.remove(&channel) {
                    for side in sides.into_iter().flatten().filter(|s| s.0 != host) {
                        self.say_to(side, Control::Closed { channel, reason });
                    }
                }
            }
            Control::Attach { channel } => {
                let side = if host == CLIENT { 0 } else { 1 };
                let answer = match relay.channels.get_mut(&channel) {
                    Some(sides) => {
                        sides[side] = Some(from);
                        Control::Attached { channel }
                    }
                    None => Control::Closed {
                        channel,
                        reason: CloseReason::NoSuchChannel,
                    },
                };
                self.say_to(from, answer);
            }
            // Who has a channel with it hears of it.
            Control::Record(record) => {
                if let Some((_, known)) = relay.links.get_mut(&from) {
                    *known = Some(record.clone());
                }
                let with_it = relay.channels.values();
                let with_it = with_it.filter(|sides| sides.contains(&Some(from)));
                let peers: BTreeSet<_> = with_it.flatten().flatten().copied().collect();
                for peer in peers.into_iter().filter(|side| side.0 != host) {
                    self.say_to(peer, Control::Record(record.clone()));
                }
            }
            Control::Token(token) => {
                let answer = match &relay.admits {
                    Some((admits, _)) if *admits != token => Control::TokenRefused {
                        detail: "no".to_owned(),
                    },
                    admits => Control::TokenTaken {
                        admitted_for: admits.as_ref().map(|(_, seconds)| *seconds),
                    },
                };
                self.say_to(from, answer);
            }
            Control::Ping { token } => self.say_to(from, Control::Pong { token }),
            Control::Signal { channel, sealed } => {
                if let Some(sides) = relay.channels.get(&channel)
                    && let Some(to) = sides.iter().flatten().find(|s| s.0 != host).copied()
                {
                    self.say_to(to, Control::Signal { channel, sealed });
                }
            }
            _ => {}
        }
    }
}
