//! The world of the tests: hosts with a node and a toy tunnel each, relays that forward, links with a delay.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use byway_wire::relay::control::*;
use byway_wire::{ChannelId, NodeId, RelayUrl, SecretKey, SignedRecord, TicketSecret};

use crate::io::*;
use crate::node::{Identity, Node};

pub(super) const CLIENT: usize = 0;
pub(super) const AGENT: usize = 1;
pub(super) const SECRET: [u8; 32] = [9; 32];

pub(super) fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}
pub(super) fn relay_url(n: usize) -> RelayUrl {
    RelayUrl::new(&format!("relay{n}.test"), 443, None).unwrap()
}
fn relay_addr(n: usize) -> SocketAddr {
    SocketAddr::new(IpAddr::from([203, 0, 113, n as u8 + 1]), 443)
}

#[derive(Debug)]
enum Happening {
    Dialed {
        host: usize,
        link: LinkId,
    },
    ToRelay {
        host: usize,
        link: LinkId,
        message: Control,
    },
    ToNode {
        host: usize,
        link: LinkId,
        message: Control,
    },
    Broken {
        host: usize,
        link: LinkId,
    },
    Datagram {
        host: usize,
        way: Way,
        data: Bytes,
    },
}

/// One machine: a node, and a tunnel that numbers its datagrams and acknowledges what it gets.
pub(super) struct Host {
    pub(super) node: Node,
    pub(super) addr: SocketAddr,
    /// Where relays say that it is.
    pub(super) seen_at: Option<SocketAddr>,
    pub(super) peer: Option<PeerId>,
    pub(super) route: Option<Route>,
    pub(super) routes: Vec<(Duration, RouteReason, Option<PathKind>)>,
    pub(super) failed: Option<PeerError>,
    pub(super) peers_seen: usize,
    pub(super) replays: usize,
    pub(super) delivered: Vec<Bytes>,
    pub(super) probes_sent: Vec<(Duration, Way, usize)>,
    pub(super) controls_sent: Vec<Control>,
    pub(super) ready: Vec<Carrier>,
    pub(super) dials: Vec<(Duration, Carrier)>,
    pub(super) lost: usize,
    /// Relays that the map names no more, and which were left.
    pub(super) dropped: Vec<RelayId>,
    /// Why there is no link, each time that is told.
    pub(super) link_errors: Vec<LinkError>,
    pub(super) wakeups: BTreeMap<&'static str, usize>,
    pub(super) replaced: bool,
    pub(super) tokens_wanted: usize,
    pub(super) tokens_refused: usize,
    pub(super) report: Option<Arc<crate::discovery::NatReport>>,
    pub(super) candidates: Vec<byway_wire::signal::Candidate>,
    known: BTreeSet<(PeerId, Way)>,
    pub(super) unknown_source: usize,
    // The toy tunnel.
    pub(super) payload: usize,
    next_seq: u64,
    recent: VecDeque<(u64, Way)>,
    unacked: BTreeMap<u64, Instant>,
    flow: FlowSample,
    flow_armed: bool,
    pub(super) received: Vec<(Duration, u64)>,
    seen: BTreeSet<u64>,
}

pub(super) struct Relay {
    pub(super) links: BTreeMap<(usize, LinkId), (Carrier, Option<SignedRecord>)>,
    pub(super) agents: BTreeMap<NodeId, (usize, LinkId)>,
    /// Both sides: opener, target.
    pub(super) channels: BTreeMap<ChannelId, [Option<(usize, LinkId)>; 2]>,
    pub(super) alive: bool,
    pub(super) echo: bool,
    /// Says nothing on UDP links.
    pub(super) udp_mute: bool,
    /// Hangs up on everyone it welcomed.
    pub(super) fickle: bool,
    /// Answers every `Open` with this record, whoever is there.
    pub(super) shows: Option<SignedRecord>,
    /// Messages that came, for assertions.
    pub(super) log: Vec<&'static str>,
    /// How long each `Open` was to wait.
    pub(super) waits: Vec<u32>,
    /// Says nothing to an `Open` for a peer that is not here.
    pub(super) mute: bool,
    /// It stops soon: who comes now is sent away.
    pub(super) drains: bool,
    /// What it said of its end, and says to newcomers.
    pub(super) last_words: Option<Control>,
    /// The one token that admits, and for how many seconds; without, everybody is admitted for good.
    pub(super) admits: Option<(AdmissionToken, u32)>,
}

impl Relay {
    pub(super) fn new() -> Self {
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
            drains: false,
            last_words: None,
            admits: None,
            log: Vec::new(),
        }
    }
    /// A host is here by a link of this kind.
    pub(super) fn has_link(&self, host: usize, carrier: Carrier) -> bool {
        let mut links = self.links.iter();
        links.any(|((h, _), (c, _))| (*h, *c) == (host, carrier))
    }
}

pub(super) struct World {
    pub(super) start: Instant,
    pub(super) now: Instant,
    pub(super) hosts: Vec<Host>,
    pub(super) relays: Vec<Relay>,
    links: BTreeMap<(usize, LinkId), (usize, Carrier)>,
    queue: BTreeMap<(Instant, u64), Happening>,
    next: u64,
    /// One way, host to host and host to relay.
    pub(super) direct_delay: Duration,
    pub(super) relay_delay: Duration,
    pub(super) direct_open: bool,
    /// By host.
    pub(super) udp_open: [bool; 2],
    pub(super) tls_open: bool,
    /// What TLS dials end with at once where TLS is not open; UDP's end in silence then, as they do behind a real firewall.
    pub(super) tls_error: Option<LinkError>,
    /// And what UDP's do, where it is not silence.
    pub(super) udp_error: Option<LinkError>,
    /// Nothing direct reaches this host.
    pub(super) deaf: Option<usize>,
    /// Largest datagram that fits the direct path.
    pub(super) direct_mtu: usize,
    /// Probes are lost on the direct path, data is not.
    pub(super) lose_probes: bool,
}

/// How long a shell waits for a UDP link that nobody answers.
const SILENCE: Duration = Duration::from_secs(10);

pub(super) fn config(role: Role) -> Config {
    Config {
        role,
        links: LinkMode::Auto,
        direct: true,
        spray: true,
        admission: match role {
            Role::Agent => Admission {
                secrets: vec![TicketSecret::from_bytes(SECRET)],
                ..Admission::default()
            },
            Role::Client => Admission::default(),
        },
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a virtual clock needs one instant to count from"
)]
fn some_instant() -> Instant {
    Instant::now()
}

impl World {
    /// A client and an agent on open networks, and one relay.
    pub(super) fn new() -> Self {
        Self::with(config(Role::Client), config(Role::Agent), 1)
    }
    pub(super) fn with(client: Config, agent: Config, relays: usize) -> Self {
        let start = some_instant();
        let mut world = Self {
            start,
            now: start,
            hosts: Vec::new(),
            relays: (0..relays).map(|_| Relay::new()).collect(),
            links: BTreeMap::new(),
            queue: BTreeMap::new(),
            next: 0,
            direct_delay: ms(10),
            relay_delay: ms(8),
            direct_open: true,
            udp_open: [true; 2],
            tls_error: None,
            udp_error: None,
            tls_open: true,
            deaf: None,
            direct_mtu: 1_472,
            lose_probes: false,
        };
        world
            .hosts
            .push(Host::new(start, client, 1, [198, 51, 100, 1]));
        world
            .hosts
            .push(Host::new(start, agent, 2, [198, 51, 100, 2]));
        for host in [CLIENT, AGENT] {
            let socket = world.socket(host);
            world.hosts[host].node.handle_sockets(start, vec![socket]);
        }
        for n in 0..relays {
            world.hosts[AGENT]
                .node
                .add_relay(start, relay_url(n), vec![]);
        }
        world
    }

    /// Both hosts move behind NATs that let everything in: their own addresses are private ones.
    pub(super) fn behind_nats(&mut self) {
        for host in [CLIENT, AGENT] {
            let ip = IpAddr::from([10, host as u8, 0, 1]);
            let socket = LocalSocket {
                addrs: vec![ip],
                ..self.socket(host)
            };
            self.hosts[host].node.handle_sockets(self.now, vec![socket]);
        }
    }
    pub(super) fn socket(&self, host: usize) -> LocalSocket {
        let addr = self.hosts[host].addr;
        LocalSocket {
            id: SocketId(0),
            port: addr.port(),
            v4: true,
            v6: false,
            addrs: vec![addr.ip()],
        }
    }

    pub(super) fn restart(&mut self, host: usize, role: Role, epoch: u64) {
        let old = std::mem::replace(
            &mut self.hosts[host],
            Host::new_epoch(self.now, config(role), 2, [198, 51, 100, 2], epoch),
        );
        drop(old);
        let dead: Vec<_> = self
            .links
            .keys()
            .filter(|(h, _)| *h == host)
            .copied()
            .collect();
        for (h, link) in dead {
            self.unlink(h, link);
        }
        let socket = self.socket(host);
        self.hosts[host].node.handle_sockets(self.now, vec![socket]);
        for n in 0..self.relays.len() {
            self.hosts[host]
                .node
                .add_relay(self.now, relay_url(n), vec![]);
        }
    }

    pub(super) fn target(&self) -> PeerTarget {
        PeerTarget {
            node: self.hosts[AGENT].node.id().node,
            relays: (0..self.relays.len())
                .map(|n| (relay_url(n), vec![]))
                .collect(),
            secret: Some(TicketSecret::from_bytes(SECRET)),
        }
    }
    pub(super) fn connect(&mut self) -> PeerId {
        let target = self.target();
        self.connect_to(target)
    }
    pub(super) fn connect_to(&mut self, target: PeerTarget) -> PeerId {
        if self.now == self.start {
            // The agent is there first.
            self.pass(ms(1_000));
        }
        let now = self.now;
        let host = &mut self.hosts[CLIENT];
        let peer = host.node.connect(now, target);
        host.peer = Some(peer);
        for part in [&b"first flight, part one"[..], b"part two"] {
            host.node.send_first(now, peer, Bytes::from_static(part));
        }
        peer
    }
    /// Two hosts whose links are TLS.
    pub(super) fn by_tls() -> Self {
        let tls = |role| Config {
            links: LinkMode::Tls,
            ..config(role)
        };
        Self::with(tls(Role::Client), tls(Role::Agent), 1)
    }
    /// A tunnel that has gone direct.
    pub(super) fn direct() -> Self {
        let mut world = Self::new();
        world.connect();
        assert!(
            world.run_for(ms(2_000), |w| w.both(|k| k == Some(PathKind::Direct))),
            "never direct"
        );
        world
    }
    pub(super) fn kind(&self, host: usize) -> Option<PathKind> {
        self.hosts[host].route.as_ref()?.primary.map(|w| w.kind())
    }
    pub(super) fn both(&self, fine: impl Fn(Option<PathKind>) -> bool) -> bool {
        fine(self.kind(CLIENT)) && fine(self.kind(AGENT))
    }
    pub(super) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// Runs until `done` or for `limit`; says whether it was done.
    pub(super) fn run_for(&mut self, limit: Duration, mut done: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now + limit;
        let mut same_instant = 0;
        loop {
            for host in 0..self.hosts.len() {
                self.drain(host);
            }
            if done(self) {
                return true;
            }
            let wakes = self
                .hosts
                .iter()
                .filter_map(|h| h.node.poll_timeout().map(|w| w.0));
            let next = wakes.chain(self.queue.keys().next().map(|k| k.0)).min();
            let Some(next) = next.filter(|t| *t <= end) else {
                self.now = end;
                return false;
            };
            same_instant = if next <= self.now {
                same_instant + 1
            } else {
                0
            };
            assert!(
                same_instant < 10_000,
                "spins: {:?}",
                self.hosts
                    .iter()
                    .map(|h| h.node.poll_timeout())
                    .collect::<Vec<_>>()
            );
            self.now = self.now.max(next);
            while let Some(entry) = self.queue.first_entry()
                && entry.key().0 <= self.now
            {
                let happening = entry.remove();
                self.happen(happening);
            }
            for host in 0..self.hosts.len() {
                self.sample(host);
                if let Some((at, why)) = self.hosts[host].node.poll_timeout()
                    && at <= self.now
                {
                    if why != "output is queued" {
                        *self.hosts[host].wakeups.entry(why).or_default() += 1;
                    }
                    self.hosts[host].node.handle_timeout(self.now);
                }
            }
        }
    }
    pub(super) fn pass(&mut self, time: Duration) {
        self.run_for(time, |_| false);
    }

    /// The application of `host` writes one datagram into the tunnel.
    pub(super) fn write(&mut self, host: usize) {
        let now = self.now;
        let h = &mut self.hosts[host];
        let seq = h.next_seq;
        h.next_seq += 1;
        h.unacked.insert(seq, now);
        h.flow.sent += 1_000;
        h.flow.in_flight += 1_000;
        h.flow.waiting_since.get_or_insert(now);
        h.flow.quiet_since.get_or_insert(now);
        self.send_data(host, 0, seq);
        if let Some(way) = self.hosts[host].route.as_ref().and_then(|r| r.primary) {
            let recent = &mut self.hosts[host].recent;
            recent.push_back((seq, way));
            if recent.len() > 16 {
                recent.pop_front();
            }
        }
    }
    /// Writes every `gap` for `time`.
    pub(super) fn chat(&mut self, host: usize, gap: Duration, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.write(host);
            self.pass(gap);
        }
    }

    fn sample(&mut self, host: usize) {
        if self.hosts[host]
            .peer
            .is_some_and(|p| self.hosts[host].node.watched_flows().contains(&p))
        {
            self.sample_now(host);
        }
    }
    fn sample_now(&mut self, host: usize) {
        let now = self.now;
        let h = &mut self.hosts[host];
        if let Some(peer) = h.peer {
            h.node.handle_flow(now, peer, h.flow);
        }
    }

    fn send_data(&mut self, host: usize, kind: u8, seq: u64) {
        let Some(route) = self.hosts[host].route.clone() else {
            return;
        };
        let mut data = vec![0x40, kind];
        data.extend_from_slice(&seq.to_be_bytes());
        if kind == 0 {
            data.resize(self.hosts[host].payload, 0);
        }
        let standby = route.standby.filter(|_| route.duplicate);
        for way in route.primary.into_iter().chain(standby) {
            self.transmit(host, way, data.clone().into());
        }
        // Any datagram: a tunnel that only acknowledges is in use too.
        if std::mem::take(&mut self.hosts[host].flow_armed) {
            self.sample_now(host);
        }
    }
    fn on_data(&mut self, host: usize, way: Way, data: &[u8]) {
        let now = self.now;
        let at = self.elapsed();
        let h = &mut self.hosts[host];
        let on_route = h
            .route
            .as_ref()
            .is_some_and(|r| r.primary == Some(way) || r.standby == Some(way));
        let known = h.peer.is_some_and(|peer| h.known.contains(&(peer, way)));
        if !known && !on_route {
            h.unknown_source += 1;
            return;
        }
        let seq = u64::from_be_bytes(data[2..10].try_into().unwrap());
        if data[1] == 0 {
            if h.seen.insert(seq) {
                h.received.push((at, seq));
            }
            self.send_data(host, 1, seq);
        } else if let Some(sent) = h.unacked.remove(&seq) {
            let rtt = now - sent;
            h.flow.srtt = if h.flow.srtt.is_zero() {
                rtt
            } else {
                (h.flow.srtt * 7 + rtt) / 8
            };
            h.flow.acked += 1_000;
            h.flow.in_flight -= 1_000;
            h.flow.last_ack = Some(now);
            h.flow.waiting_since = h.unacked.values().min().copied();
            h.flow.quiet_since = (h.flow.in_flight > 0).then_some(now);
        }
    }

    fn later(&mut self, delay: Duration, happening: Happening) {
        self.queue.insert((self.now + delay, self.next), happening);
        self.next += 1;
    }

    fn transmit(&mut self, host: usize, way: Way, data: Bytes) {
        match way {
            Way::Direct { remote, .. } => {
                if let Some(relay) = (0..self.relays.len()).find(|&n| relay_addr(n) == remote) {
                    self.stun(host, relay, way, &data);
                    return;
                }
                let Some(to) = self.hosts.iter().position(|h| h.addr == remote) else {
                    return;
                };
                let lost = self.lose_probes && data[0] == 0x81;
                if self.direct_open
                    && !lost
                    && self.deaf != Some(to)
                    && data.len() <= self.direct_mtu
                {
                    let way = Way::Direct {
                        socket: SocketId(0),
                        remote: self.hosts[host].addr,
                    };
                    self.later(
                        self.direct_delay,
                        Happening::Datagram {
                            host: to,
                            way,
                            data,
                        },
                    );
                }
            }
            Way::Channel {
                link,
                channel,
                carrier,
            } => {
                let Some(&(relay, _)) = self.links.get(&(host, link)) else {
                    return;
                };
                if !self.carries(host, carrier) || !self.relays[relay].alive {
                    return;
                }
                if channel == ChannelId::ECHO {
                    if self.relays[relay].echo {
                        self.later(
                            self.relay_delay * 2,
                            Happening::Datagram { host, way, data },
                        );
                    }
                    return;
                }
                let Some(sides) = self.relays[relay].channels.get(&channel) else {
                    return;
                };
                let Some(side) = sides.iter().position(|s| *s == Some((host, link))) else {
                    return;
                };
                let Some((to, to_link)) = sides[1 - side] else {
                    return;
                };
                let carrier = self.links[&(to, to_link)].1;
                if self.carries(to, carrier) {
                    let way = Way::Channel {
                        link: to_link,
                        carrier,
                        channel,
                    };
                    self.later(
                        self.relay_delay * 2,
                        Happening::Datagram {
                            host: to,
                            way,
                            data,
                        },
                    );
                }
            }
        }
    }
    /// A relay answers STUN on its own port.
    fn stun(&mut self, host: usize, relay: usize, way: Way, request: &[u8]) {
        use byway_wire::stun::{Message, decode, encode_success};
        if !self.udp_open[host] || !self.relays[relay].alive {
            return;
        }
        // What a liar had somebody send here is nothing to it.
        if request.first() == Some(&0x81) {
            return;
        }
        let Ok(Message::Request { txid, len, .. }) = decode(request) else {
            panic!("a relay got {request:?}")
        };
        let data = encode_success(txid, self.hosts[host].addr, len).into();
        self.later(
            self.relay_delay * 2,
            Happening::Datagram { host, way, data },
        );
    }
    fn carries(&self, host: usize, carrier: Carrier) -> bool {
        match carrier {
            Carrier::Udp => self.udp_open[host],
            Carrier::Tls => self.tls_open,
        }
    }

    fn drain(&mut self, host: usize) {
        while let Some(transmit) = self.hosts[host].node.poll_transmit() {
            let at = self.elapsed();
            let echo = matches!(
                transmit.way,
                Way::Channel {
                    channel: ChannelId::ECHO,
                    ..
                }
            );
            let stun = transmit.data[0] < 4;
            if !echo && !stun {
                self.hosts[host]
                    .probes_sent
                    .push((at, transmit.way, transmit.data.len()));
            }
            self.transmit(host, transmit.way, transmit.data);
        }
        while let Some(event) = self.hosts[host].node.poll_event() {
            self.on_event(host, event);
        }
    }

    fn on_event(&mut self, host: usize, event: Event) {
        let at = self.elapsed();
        let h = &mut self.hosts[host];
        match event {
            Event::Dial {
                link, url, carrier, ..
            } => {
                let same = |n: &usize| relay_url(*n).authority() == url.authority();
                let relay = (0..self.relays.len()).find(same);
                let Some(relay) = relay else { return };
                self.links.insert((host, link), (relay, carrier));
                let round_trips = if carrier == Carrier::Udp { 2 } else { 6 };
                h.dials.push((at, carrier));
                let silent =
                    carrier == Carrier::Udp && self.tls_error.is_some() && self.udp_error.is_none();
                let after = if silent && !self.carries(host, carrier) {
                    SILENCE
                } else {
                    self.relay_delay * round_trips
                };
                self.later(after, Happening::Dialed { host, link });
            }
            Event::HangUp { link } => self.unlink(host, link),
            Event::Control { link, message } => {
                h.controls_sent.push(message.clone());
                // Everything that is sent must survive its own format.
                let message = Control::decode(message.encode()).unwrap();
                self.later(
                    self.relay_delay,
                    Happening::ToRelay {
                        host,
                        link,
                        message,
                    },
                );
            }
            Event::LinkReady { carrier, .. } => h.ready.push(carrier),
            Event::LinkLost { error, .. } => {
                h.lost += 1;
                h.link_errors.push(error);
            }
            Event::LinkFailed { error, .. } => h.link_errors.push(error),
            Event::PeerIncoming { peer, .. } => {
                h.peer = Some(peer);
                h.peers_seen += 1;
            }
            Event::PeerKnown { .. } => h.peers_seen += 1,
            Event::PeerFailed { peer, error } if h.peer == Some(peer) => h.failed = Some(error),
            Event::Route {
                peer,
                route,
                reason,
            } if h.peer == Some(peer) => {
                h.routes.push((at, reason, route.primary.map(|w| w.kind())));
                h.route = Some(route);
            }
            Event::WayKnown { peer, way } => assert!(h.known.insert((peer, way)), "told twice"),
            Event::WayForgotten { peer, way } => {
                assert!(h.known.remove(&(peer, way)), "was not known");
            }
            Event::Deliver { data, .. } => {
                assert!(
                    h.route.as_ref().is_some_and(|r| r.primary.is_some()),
                    "delivered before there is a route back"
                );
                h.delivered.push(data);
            }
            Event::Replay { .. } => {
                h.replays += 1;
                for (seq, _) in h.recent.clone() {
                    self.send_data(host, 0, seq);
                }
            }
            Event::WatchFlow { .. } => h.flow_armed = true,
            Event::RelayDropped { relay } => h.dropped.push(relay),
            Event::Replaced => h.replaced = true,
            Event::TokenWanted => h.tokens_wanted += 1,
            Event::TokenRefused { .. } => h.tokens_refused += 1,
            Event::Report(report) => h.report = Some(report),
            Event::Candidates(list) => h.candidates = list,
            _ => {}
        }
    }

    /// A link ends at the relay; the node is told by the caller if it did not hang up itself.
    fn unlink(&mut self, host: usize, link: LinkId) {
        let Some((relay, _)) = self.links.remove(&(host, link)) else {
            return;
        };
        let relay = &mut self.relays[relay];
        relay.links.remove(&(host, link));
        relay.agents.retain(|_, at| *at != (host, link));
        for sides in relay.channels.values_mut() {
            for side in sides {
                if *side == Some((host, link)) {
                    *side = None;
                }
            }
        }
    }
    /// Breaks every link of a host.
    pub(super) fn break_links(&mut self, host: usize) {
        for relay in 0..self.relays.len() {
            self.break_links_to(host, relay);
        }
    }
    pub(super) fn break_links_to(&mut self, host: usize, relay: usize) {
        let links: Vec<LinkId> = self
            .links
            .iter()
            .filter(|((h, _), (r, _))| *h == host && *r == relay)
            .map(|((_, l), _)| *l)
            .collect();
        for link in links {
            self.unlink(host, link);
            self.hosts[host]
                .node
                .handle_link_lost(self.now, link, LinkError::TimedOut);
        }
    }
    /// A relay says that it will stop, and welcomes nobody any more.
    pub(super) fn announce_end(&mut self, relay: usize, deadline: Duration, alternates: &[usize]) {
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
    pub(super) fn succeed(&mut self, relay: usize) {
        assert!(self.relays[relay].links.is_empty());
        self.relays[relay].drains = false;
        self.relays[relay].last_words = None;
    }
    pub(super) fn kill_relay(&mut self, relay: usize) {
        self.relays[relay].alive = false;
        self.relays[relay].channels.clear();
        for host in 0..self.hosts.len() {
            let links: Vec<LinkId> = self
                .links
                .iter()
                .filter(|((h, _), (r, _))| *h == host && *r == relay)
                .map(|((_, l), _)| *l)
                .collect();
            for link in links {
                self.unlink(host, link);
                self.hosts[host].node.handle_link_lost(
                    self.now,
                    link,
                    LinkError::Broken("killed".into()),
                );
            }
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Dialed { host, link } => {
                let Some(&(relay, carrier)) = self.links.get(&(host, link)) else {
                    return;
                };
                let fine = self.relays[relay].alive && self.carries(host, carrier);
                let result = if fine {
                    self.relays[relay]
                        .links
                        .insert((host, link), (carrier, None));
                    let udp = (carrier == Carrier::Udp).then_some((SocketId(0), relay_addr(relay)));
                    Ok(LinkUp { rtt: None, udp })
                } else {
                    self.links.remove(&(host, link));
                    let told = match carrier {
                        Carrier::Udp => self.udp_error.clone(),
                        Carrier::Tls => self.tls_error.clone(),
                    };
                    Err(told.unwrap_or(LinkError::TimedOut))
                };
                self.hosts[host].node.handle_dialed(self.now, link, result);
            }
            Happening::ToRelay {
                host,
                link,
                message,
            } => self.at_relay(host, link, message),
            Happening::ToNode {
                host,
                link,
                message,
            } => {
                if self.links.contains_key(&(host, link)) {
                    self.hosts[host]
                        .node
                        .handle_control(self.now, link, message);
                }
            }
            Happening::Broken { host, link } => {
                self.unlink(host, link);
                let error = LinkError::Broken("fickle".into());
                self.hosts[host]
                    .node
                    .handle_link_lost(self.now, link, error);
            }
            Happening::Datagram { host, way, data } => {
                if data[0] == 0x40 {
                    self.on_data(host, way, &data);
                } else {
                    self.hosts[host]
                        .node
                        .handle_datagram(self.now, way, None, &data);
                }
            }
        }
    }

    pub(super) fn say_to(&mut self, to: (usize, LinkId), message: Control) {
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

    fn at_relay(&mut self, host: usize, link: LinkId, message: Control) {
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
                    self.say_to(
                        from,
                        Control::Closed {
                            channel: open.channel,
                            reason: CloseReason::Offline,
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
    pub(super) fn link_of(&self, host: usize) -> LinkId {
        self.links
            .keys()
            .rfind(|(h, _)| *h == host)
            .map(|(_, l)| *l)
            .unwrap()
    }
}

impl Host {
    fn new(now: Instant, config: Config, key: u8, ip: [u8; 4]) -> Self {
        Self::new_epoch(now, config, key, ip, 1)
    }
    fn new_epoch(now: Instant, config: Config, key: u8, ip: [u8; 4], epoch: u64) -> Self {
        let identity = Identity {
            key: Arc::new(SecretKey::from_bytes(&[key; 32])),
            epoch,
        };
        let mut seed = [key; 32];
        seed[0] = epoch as u8;
        Self {
            node: Node::new(now, config, identity, seed),
            addr: SocketAddr::new(IpAddr::from(ip), 5_000),
            seen_at: None,
            peer: None,
            route: None,
            routes: Vec::new(),
            failed: None,
            peers_seen: 0,
            replays: 0,
            delivered: Vec::new(),
            probes_sent: Vec::new(),
            controls_sent: Vec::new(),
            ready: Vec::new(),
            dials: Vec::new(),
            lost: 0,
            dropped: Vec::new(),
            link_errors: Vec::new(),
            wakeups: BTreeMap::new(),
            replaced: false,
            tokens_wanted: 0,
            tokens_refused: 0,
            report: None,
            candidates: Vec::new(),
            known: BTreeSet::new(),
            unknown_source: 0,
            payload: 10,
            next_seq: 0,
            recent: VecDeque::new(),
            unacked: BTreeMap::new(),
            flow: FlowSample::default(),
            flow_armed: false,
            received: Vec::new(),
            seen: BTreeSet::new(),
        }
    }
    /// How much was sent longer ago than that and is not acknowledged.
    pub(super) fn unacknowledged_for(&self, now: Instant, time: Duration) -> usize {
        self.unacked
            .values()
            .filter(|at| **at + time <= now)
            .count()
    }
    /// The longest time in which nothing arrived, between `from` and the last arrival.
    pub(super) fn longest_gap(&self, from: Duration) -> Duration {
        let mut times: Vec<Duration> = self.received.iter().map(|r| r.0).collect();
        times.sort();
        times
            .windows(2)
            .filter(|w| w[1] >= from)
            .map(|w| w[1] - w[0])
            .max()
            .unwrap_or(Duration::MAX)
    }
}
