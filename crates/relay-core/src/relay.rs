//! The relay: the one place that composes links, channels and timers, and hands each input to the part it concerns.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use byway_wire::relay::control::{Control, RefuseReason};
use byway_wire::relay::cookie::CookieKey;
use byway_wire::{ChannelId, Instance, NodeId, NodeInstance, RelayUrl};
use rand_chacha::ChaCha12Rng;
use rand_core::{RngCore, SeedableRng};

use crate::admission::Admission;
use crate::awaited::Awaited;
use crate::channels::{Channel, Target, ended};
use crate::counters::Counters;
use crate::io::*;
use crate::links::{Link, Session};
use crate::timers::{Timer, Timers};

/// Settings; the defaults are design section 12's.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The relay's name, told to nodes.
    pub name: String,
    /// Its region.
    pub region: String,
    /// Who may use it. The default admits anyone: a program that starts a relay makes its operator say so.
    pub admission: Admission,
    /// Longest payload forwarded, in bytes.
    pub max_datagram: u32,
    /// Most channels of one node instance.
    pub max_channels: u32,
    /// Most links of one NodeId, all its processes together.
    pub max_links_per_node: u32,
    /// Most links of one process.
    pub max_links_per_instance: u32,
    /// Most unanswered opens of one opener to one target.
    pub max_unanswered: u32,
    /// What a node may send in a second whose token says nothing else.
    pub node_rate: NodeRate,
    /// How long a connection may take until its node is welcomed, from [`crate::io::LinkInfo::began`] on.
    pub welcome_within: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: "relay".into(),
            region: "default".into(),
            admission: Admission::Open,
            // A jumbo frame's worth: what a data centre's links carry, and nothing larger exists in practice.
            max_datagram: 9_000,
            // An agent serves a team; a hundred times that is still 1 MB of state.
            max_channels: 1_024,
            // Four processes of one key at their own limit.
            max_links_per_node: 16,
            // Two carriers, twice: the old pair and the new one while a node moves.
            max_links_per_instance: 4,
            // One honest client opens one channel and waits; several tabs of a tool open a few at once.
            max_unanswered: 8,
            // For the program that starts a relay to decide: a public one has to share.
            node_rate: NodeRate::default(),
            welcome_within: Duration::from_secs(10),
        }
    }
}

/// See the crate's documentation for how to drive it.
#[derive(Debug)]
pub struct Relay {
    pub(crate) config: Config,
    pub(crate) cookie_key: HiddenKey,
    pub(crate) rng: ChaCha12Rng,
    pub(crate) started: Instant,
    /// The time of the last input: "now" for whoever asks `poll_timeout` while output is queued.
    pub(crate) now: Instant,
    pub(crate) links: BTreeMap<LinkId, Link>,
    /// How many links each node has, welcomed or not.
    pub(crate) links_of: BTreeMap<NodeId, u32>,
    pub(crate) sessions: BTreeMap<NodeInstance, Session>,
    /// The one reachable instance of each agent.
    pub(crate) agents: BTreeMap<NodeId, Instance>,
    pub(crate) channels: BTreeMap<ChannelId, Channel>,
    /// Opens that wait for a node to come.
    pub(crate) awaited: Awaited,
    /// Sessions whose token expires, by when.
    pub(crate) expiries: BTreeSet<(u64, NodeInstance)>,
    pub(crate) timers: Timers,
    pub(crate) events: VecDeque<Event>,
    pub(crate) counters: Counters,
    pub(crate) ending: Ending,
}

/// Whether the relay is to stop.
#[derive(Debug)]
pub(crate) enum Ending {
    No,
    /// Then, and where nodes may go instead. Who is here may come back until it stops.
    At(Instant, Vec<RelayUrl>),
    /// Nobody may.
    Now,
}

impl Ending {
    /// True from the time that the nodes are told: nobody new is welcomed.
    pub(crate) fn has_begun(&self) -> bool {
        !matches!(self, Self::No)
    }
}

/// Keeps the key out of `Debug` output.
pub(crate) struct HiddenKey(pub(crate) CookieKey);
impl std::fmt::Debug for HiddenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CookieKey(..)")
    }
}

impl Relay {
    /// A relay without links. `seed` makes session numbers and the cookie key.
    pub fn new(now: Instant, config: Config, seed: [u8; 32]) -> Self {
        let mut rng = ChaCha12Rng::from_seed(seed);
        let mut key = [0; 32];
        rng.fill_bytes(&mut key);
        Self {
            config,
            cookie_key: HiddenKey(CookieKey::from_bytes(key)),
            rng,
            started: now,
            now,
            links: BTreeMap::new(),
            links_of: BTreeMap::new(),
            sessions: BTreeMap::new(),
            agents: BTreeMap::new(),
            channels: BTreeMap::new(),
            awaited: Awaited::default(),
            expiries: BTreeSet::new(),
            timers: Timers::default(),
            events: VecDeque::new(),
            counters: Counters::default(),
            ending: Ending::No,
        }
    }

    /// A node proved its key on a new link.
    pub fn handle_link_up(&mut self, now: Instant, link: LinkId, info: LinkInfo) {
        self.now = now;
        self.link_up(now, link, info);
    }

    /// A control message came in. `unix_time` is the wall clock in seconds, by which tokens are judged.
    pub fn handle_control(&mut self, now: Instant, unix_time: u64, link: LinkId, message: Control) {
        self.now = now;
        let Some(id) = self.links.get(&link).map(|l| l.session) else {
            return; // The link was ended here; the node has not noticed yet.
        };
        let Some(id) = id else {
            match message {
                Control::Hello(hello) => self.hello(now, unix_time, link, hello),
                Control::Unknown => self.counters.unknown_messages += 1,
                other => self.violation(now, link, &format!("{} before Hello", other.name())),
            }
            return;
        };
        match message {
            Control::Open(open) => self.open(now, link, id, open),
            Control::Accept { channel } => self.accept(link, id, channel),
            Control::Closed { channel, reason } => self.closed_by_node(id, channel, reason),
            Control::Attach { channel } => self.attach(link, id, channel),
            Control::Signal { channel, sealed } => self.signal(now, id, channel, sealed),
            Control::Rebind(rebind) => self.rebind(now, link, id, &rebind.cookie),
            Control::Record(record) => self.record(now, id, record),
            Control::Token(token) => self.fresh_token(now, unix_time, link, id, &token),
            Control::Ping { token } => self.send(link, Control::Pong { token }),
            Control::Pong { .. } => {}
            Control::Unknown => self.counters.unknown_messages += 1,
            other => {
                let name = other.name();
                self.violation(now, link, &format!("unexpected {name}"));
            }
        }
    }

    /// The node sent something that is no message: the link ends, and the node is told why.
    pub fn handle_malformed(&mut self, now: Instant, link: LinkId, detail: &str) {
        self.now = now;
        self.violation(now, link, detail);
    }

    /// A link ended.
    pub fn handle_link_down(&mut self, now: Instant, link: LinkId) {
        self.now = now;
        self.link_down(now, link, None);
    }

    /// The relay will stop in `deadline`: every node is told, and nobody new is welcomed. What is established goes on.
    pub fn handle_going_away(
        &mut self,
        now: Instant,
        deadline: Duration,
        alternates: Vec<RelayUrl>,
    ) {
        self.now = now;
        self.ending = Ending::At(now + deadline, alternates);
        self.give_up_awaited();
        let welcomed: Vec<LinkId> = self
            .links
            .iter()
            .filter_map(|(id, link)| link.session.map(|_| *id))
            .collect();
        for link in welcomed {
            self.say_farewell(now, link);
        }
    }

    /// Tells a node for how long the relay is here, if it is to stop.
    pub(crate) fn say_farewell(&mut self, now: Instant, link: LinkId) {
        let Ending::At(until, alternates) = &self.ending else {
            return;
        };
        let left = until.saturating_duration_since(now).as_millis();
        let message = Control::GoingAway {
            deadline_ms: u32::try_from(left).unwrap_or(u32::MAX),
            alternates: alternates.clone(),
        };
        self.send(link, message);
    }

    /// The deadline has come: every link is ended, and no node welcomed any more.
    pub fn handle_shutdown(&mut self, now: Instant) {
        self.now = now;
        self.ending = Ending::Now;
        self.give_up_awaited();
        // Their ends linger beyond the last event.
        let joined = |c: &&Channel| matches!(c.target, Target::Here { .. });
        let channels = self.channels.iter().filter(|(_, c)| joined(c));
        let ended: Vec<Audit> = channels
            .map(|(id, c)| ended(*id, c, EndReason::Shutdown))
            .collect();
        ended.into_iter().for_each(|audit| self.audit(audit));
        let links: Vec<LinkId> = self.links.keys().copied().collect();
        for link in links {
            self.refuse(
                now,
                link,
                RefuseReason::Shutdown,
                "the relay is shutting down",
            );
        }
    }

    /// Time passed. `unix_time` is the wall clock in seconds, by which tokens expire.
    pub fn handle_timeout(&mut self, now: Instant, unix_time: u64) {
        self.now = now;
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Hello(link) => {
                    self.counters.refused_silent += 1;
                    self.refuse(now, link, RefuseReason::Protocol, "no Hello in time");
                }
                Timer::Open(channel) => self.open_expired(channel),
                Timer::Linger(channel, side) => self.linger_expired(channel, side),
                Timer::Record(id) => self.record_due(now, id),
                Timer::Tokens => self.expire_tokens(now, unix_time),
            }
        }
    }

    /// The next thing to carry out.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When to call `handle_timeout`, and why.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        if self.events.is_empty() {
            self.timers.next()
        } else {
            Some((self.now, "output"))
        }
    }

    /// The key by which shards make rebind cookies (they are checked in here).
    pub fn cookie_key(&self) -> CookieKey {
        self.cookie_key.0.clone()
    }

    /// Minutes on the relay's own clock, for cookies.
    pub fn minute(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.started).as_secs() / 60
    }

    /// What happened so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How many links, sessions and channels there are.
    pub fn load(&self) -> Load {
        Load {
            links: self.links.len(),
            sessions: self.sessions.len(),
            channels: self.channels.len(),
        }
    }

    /// The link to which an end of a channel is bound; none while it lingers, or if there is no such channel. A shell
    /// with several listeners asks this when it carries out a [`TableUpdate`]: two links of one node may come from one
    /// address.
    pub fn bound_link(&self, channel: ChannelId, side: Side) -> Option<LinkId> {
        self.channels.get(&channel)?.end(side)?.link
    }

    /// What the node of a link may send in a second: what its token says, or what is usual here.
    pub fn node_rate(&self, link: LinkId) -> NodeRate {
        let session = self.links.get(&link).and_then(|l| l.session);
        let grant = session.and_then(|id| self.sessions.get(&id)?.grant.as_ref());
        let said = grant.map_or(NodeRate::default(), |g| g.rate);
        NodeRate {
            bytes: said.bytes.or(self.config.node_rate.bytes),
            datagrams: said.datagrams.or(self.config.node_rate.datagrams),
        }
    }

    /// A node sends more than it may: it is told, on the link that it made last.
    pub fn handle_exceeded(&mut self, now: Instant, link: LinkId) {
        self.now = now;
        let Some(id) = self.links.get(&link).and_then(|l| l.session) else {
            return;
        };
        let rate = self.node_rate(link);
        let Some(main) = self.sessions.get(&id).and_then(Session::main_link) else {
            return;
        };
        self.counters.throttled += 1;
        self.send(
            main,
            Control::Throttled {
                bytes: rate.bytes,
                datagrams: rate.datagrams,
            },
        );
    }

    pub(crate) fn send(&mut self, link: LinkId, message: Control) {
        self.events.push_back(Event::Send { link, message });
    }
    pub(crate) fn audit(&mut self, audit: Audit) {
        self.events.push_back(Event::Audit(audit));
    }
    pub(crate) fn table(&mut self, update: TableUpdate) {
        self.events.push_back(Event::Table(update));
    }
    pub(crate) fn draw_session_number(&mut self) -> u64 {
        self.rng.next_u64()
    }
}

/// How much a relay holds at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Load {
    /// Links, welcomed or not.
    pub links: usize,
    /// Node instances with a link or a lingering end.
    pub sessions: usize,
    /// Channels, awaited ones among them.
    pub channels: usize,
}
