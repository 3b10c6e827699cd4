//! Byte pipes: TCP as far as Byway can tell it from the outside.
//!
//! A pipe is reliable and ordered, takes a round trip to connect, shares the access links' rate with datagrams, and
//! breaks: when the other process dies, when a NAT on the way restarts, or when nothing got through for 20 s. Loss costs
//! time instead of data: a lost message is sent again after a round trip and holds up those behind it. Messages keep
//! their borders here, which the layers above (TLS records, WebSocket messages) would restore anyway.
//!
//! Not more than [`WINDOW`] is under way unacknowledged, so what waits in front of a slow downlink is bounded by it. The
//! rest waits unsent in the sender's kernel; whoever cares how long asks [`Network::pipe_room`] first, as a program does
//! that has set TCP_NOTSENT_LOWAT.
//!
//! A pipe may lead through a proxy at the site's border. It is one pipe all the same, with one window from end to end: a proxy
//! that keeps up and holds back nothing.
//!
//! UDP firewalls let pipes pass, and NATs too until they restart: that is why the TLS link exists. A NAT that has
//! forgotten a pipe drops what comes from outside; what comes from inside gets a new port, at which the other end knows
//! of no connection and answers with a reset. So the inside learns of it as soon as it says something, the outside when
//! nothing it said was acknowledged for long enough.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;

use super::exit::Exit;
use super::{Event, Happening, HostId, LAN_DELAY, Network, SiteId};
use crate::rng::Rng;

/// One pipe, never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PipeId(pub u64);

/// An end of a pipe.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Side {
    /// Who dialled.
    Dialler,
    /// Who accepted.
    Acceptor,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Dialler => Self::Acceptor,
            Self::Acceptor => Self::Dialler,
        }
    }
}

#[derive(Debug)]
enum Message {
    Syn,
    SynAck,
    Reset,
    Data(Bytes),
}

/// One direction, named by its sending side.
#[derive(Debug, Default)]
struct Lane {
    /// Not sent yet, or sent in vain so far.
    waiting: VecDeque<Message>,
    /// On the wire, with the time of arrival.
    flying: VecDeque<(Duration, Message)>,
    /// When what was sent will have been acknowledged, and its bytes.
    unacknowledged: VecDeque<(Duration, usize)>,
    trying: bool,
    /// The sender was told that there is no room, and waits to hear of some.
    wants_room: bool,
    /// When the first message in `waiting` was first tried in vain, and how often.
    failing: Option<(Duration, u32)>,
    last_arrival: Duration,
}

#[derive(Debug)]
struct Pipe {
    dialler: HostId,
    acceptor: Option<HostId>,
    from: SocketAddr,
    to: SocketAddr,
    lanes: [Lane; 2],
    /// The side has closed, or learnt that the pipe is broken: nothing more is delivered to it.
    closed: [bool; 2],
    /// The dialler's NAT has forgotten it.
    cut: bool,
    /// The dialler's host is elsewhere, at another address, or its network lets out no such pipe: nothing gets through, and nobody
    /// says so.
    astray: bool,
    /// How far the dialler is from the proxy on the way, one way; nothing without one.
    beyond: Duration,
}

#[derive(Debug)]
pub(super) struct Pipes {
    all: BTreeMap<PipeId, Pipe>,
    next: u64,
    rng: Rng,
}

/// TCP's usual lower bound of the retransmission timer.
const RTO: Duration = Duration::from_millis(200);
/// How long the system retries before it gives a connection up. Real ones wait minutes; the layers above give up sooner,
/// and a shorter time keeps a simulation's tail short.
const GIVE_UP: Duration = Duration::from_secs(20);
/// What a fast retransmission costs beyond the round trip.
const FAST_RETRANSMIT: Duration = Duration::from_millis(10);
/// IP and TCP headers per segment.
const HEADERS: usize = 40;
/// Bytes under way at most: the send buffer of the relay (`SEND_BUFFER` in `relay/src/tls/accept.rs`). A node's kernel
/// sizes its own, up to more; with one window for both, neither side's queue in the network is endless.
pub const WINDOW: usize = 128 * 1024;
/// Bytes that may wait unsent in the kernel before a pipe has no room: TCP_NOTSENT_LOWAT, which `byway` and `byway-relay`
/// both set.
pub const NOT_SENT: usize = 32 * 1024;

impl Message {
    fn len(&self) -> usize {
        match self {
            Self::Data(data) => data.len(),
            _ => 0,
        }
    }
}

impl Lane {
    fn unsent(&self) -> usize {
        self.waiting.iter().map(Message::len).sum()
    }
    fn under_way(&self) -> usize {
        self.unacknowledged.iter().map(|(_, len)| len).sum()
    }
}

impl Pipes {
    /// A host has moved.
    pub(super) fn lead_astray(&mut self, host: HostId) {
        for pipe in self.all.values_mut().filter(|p| p.dialler == host) {
            pipe.astray = true;
        }
    }
    pub(super) fn new(rng: Rng) -> Self {
        Self {
            all: BTreeMap::new(),
            next: 1,
            rng,
        }
    }
    pub(super) fn of_host(&self, host: HostId) -> Vec<(PipeId, Side)> {
        self.all
            .iter()
            .flat_map(|(id, p)| {
                [
                    (p.dialler == host).then_some((*id, Side::Dialler)),
                    (p.acceptor == Some(host)).then_some((*id, Side::Acceptor)),
                ]
            })
            .flatten()
            .collect()
    }
}

impl Network {
    /// Dials a pipe; [`Happening::PipeConnected`] or [`Happening::PipeBroken`] follows.
    pub fn pipe_connect(&mut self, host: HostId, to: SocketAddr) -> PipeId {
        let site = &self.sites[self.site_of(host).0 as usize];
        let to = site.behind_prefix(to);
        let barred = !site.config.exit.tcp_to(to.port());
        self.pipe_dial(host, to, barred, None)
    }
    /// Dials a pipe by way of the proxy at the border of the host's site: it is connected a round trip to the proxy, one more for
    /// the question and one to the other end later. Where there is no proxy nobody answers.
    pub fn pipe_connect_by_proxy(&mut self, host: HostId, to: SocketAddr) -> PipeId {
        let site = &self.sites[self.site_of(host).0 as usize];
        let barred = site.config.exit != Exit::Proxy;
        self.pipe_dial(host, to, barred, Some(LAN_DELAY))
    }

    /// `beyond`: how long it takes to the proxy on the way, one way.
    fn pipe_dial(
        &mut self,
        host: HostId,
        to: SocketAddr,
        barred: bool,
        beyond: Option<Duration>,
    ) -> PipeId {
        let id = PipeId(self.pipes.next);
        self.pipes.next += 1;
        // What the other end sees: the site's public address, and a port of its own for each pipe.
        let site = &self.sites[self.site_of(host).0 as usize];
        let own = self.addrs(host).iter();
        let own = own.copied().find(|own| own.is_ipv4() == to.is_ipv4());
        let ip = match site.external() {
            Some(external) if to.is_ipv4() => external,
            _ => own.unwrap_or(to.ip()),
        };
        let port = 30_000 + (id.0 % 30_000) as u16;
        let mut lanes: [Lane; 2] = Default::default();
        lanes[Side::Dialler as usize]
            .waiting
            .push_back(Message::Syn);
        let pipe = Pipe {
            dialler: host,
            acceptor: None,
            from: SocketAddr::new(ip, port),
            to,
            lanes,
            closed: [false; 2],
            cut: false,
            astray: barred,
            beyond: beyond.unwrap_or_default(),
        };
        self.pipes.all.insert(id, pipe);
        // A round trip to the proxy. The question and its answer then take the way that all else takes.
        let begins = self.now + beyond.unwrap_or_default() * 2;
        self.pipe_schedule(id, Side::Dialler, begins);
        id
    }
    /// Sends a message.
    pub fn pipe_send(&mut self, pipe: PipeId, side: Side, data: Bytes) {
        let parts: [&[u8]; 3] = [&pipe.0.to_le_bytes(), &[side as u8], &data];
        self.trace.note(self.now, "pipe", &parts, || {
            format!("{} {side:?} sends {}", pipe.0, data.len())
        });
        self.pipe_push(pipe, side, Message::Data(data));
    }
    /// True if little enough waits unsent. If not, [`Happening::PipeRoom`] comes as soon as it does.
    pub fn pipe_room(&mut self, pipe: PipeId, side: Side) -> bool {
        let Some(p) = self.pipes.all.get_mut(&pipe) else {
            return false;
        };
        let lane = &mut p.lanes[side as usize];
        lane.wants_room = lane.unsent() >= NOT_SENT;
        !lane.wants_room
    }
    /// Closes a pipe; the other end hears [`Happening::PipeBroken`].
    pub fn pipe_close(&mut self, pipe: PipeId, side: Side) {
        let Some(p) = self.pipes.all.get_mut(&pipe) else {
            return;
        };
        p.closed[side as usize] = true;
        if p.closed[side.other() as usize] {
            self.pipes.all.remove(&pipe);
        } else {
            self.pipe_push(pipe, side, Message::Reset);
        }
    }

    fn pipe_push(&mut self, id: PipeId, side: Side, message: Message) {
        if let Some(pipe) = self.pipes.all.get_mut(&id) {
            pipe.lanes[side as usize].waiting.push_back(message);
            self.pipe_schedule(id, side, self.now);
        }
    }

    fn pipe_schedule(&mut self, id: PipeId, side: Side, at: Duration) {
        if let Some(pipe) = self.pipes.all.get_mut(&id) {
            let lane = &mut pipe.lanes[side as usize];
            if !lane.trying && !lane.waiting.is_empty() {
                lane.trying = true;
                self.queue.push(at, Event::PipeTry(id, side));
            }
        }
    }

    /// Puts what waits on the wire, as far as the window allows. Tells the sender if it waited for that.
    pub(super) fn pipe_try(&mut self, id: PipeId, side: Side) -> Option<(HostId, Happening)> {
        let now = self.now;
        let pipe = self.pipes.all.get_mut(&id)?;
        pipe.lanes[side as usize].trying = false;
        let there = self.public.get(&pipe.to.ip()).copied();
        let here = self.hosts[pipe.dialler.0 as usize].site;
        let cut = pipe.cut;
        let astray = pipe.astray;
        let beyond = pipe.beyond;
        let from_ip = pipe.from.ip();
        let route = there.map(|there| match side {
            Side::Dialler => (here, there),
            Side::Acceptor => (there, here),
        });
        let open = route.filter(|(from, to)| {
            // Neither through a NAT that has forgotten it, nor to an address that leads nowhere.
            let lost = side == Side::Acceptor && (cut || !self.public.contains_key(&from_ip));
            !astray && !lost && !self.swallowed(*from, *to, None)
        });
        if cut && open.is_some() {
            self.pipe_reset_by_stranger(id);
            return None;
        }
        let pipe = self.pipes.all.get_mut(&id)?;
        let lane = &mut pipe.lanes[side as usize];
        let Some((from, to)) = open else {
            let (since, tries) = lane.failing.unwrap_or((now, 0));
            if now - since >= GIVE_UP {
                self.pipe_fail(id);
                return None;
            }
            lane.failing = Some((since, tries + 1));
            // Doubling, at most 3 s, so that a healed path is noticed.
            let wait = (RTO * 2u32.pow(tries.min(4))).min(Duration::from_secs(3));
            self.pipe_schedule(id, side, now + wait);
            return None;
        };
        lane.failing = None;
        while lane
            .unacknowledged
            .front()
            .is_some_and(|(at, _)| *at <= now)
        {
            lane.unacknowledged.pop_front();
        }
        let (from, to) = (from.0 as usize, to.0 as usize);
        let delay = self.sites[from].up.config.delay + self.sites[to].down.config.delay + beyond;
        let back = self.sites[to].up.config.delay + self.sites[from].down.config.delay + beyond;
        let loss =
            1.0 - (1.0 - self.sites[from].up.config.loss) * (1.0 - self.sites[to].down.config.loss);
        while lane.under_way() < WINDOW
            && let Some(message) = lane.waiting.pop_front()
        {
            let size = message.len();
            let sent = self.sites[from].up.reserve(now, size + HEADERS);
            let mut at = self.sites[to].down.reserve(sent, size + HEADERS) + delay;
            while self.pipes.rng.chance(loss) {
                at += delay + back + FAST_RETRANSMIT;
            }
            at = at.max(lane.last_arrival);
            lane.last_arrival = at;
            lane.flying.push_back((at, message));
            lane.unacknowledged.push_back((at + back, size));
            self.queue.push(at, Event::PipeArrive(id, side));
        }
        let room = lane.wants_room && lane.unsent() < NOT_SENT;
        if room {
            lane.wants_room = false;
        }
        // What still waits, waits for the window.
        if let Some((at, _)) = lane.unacknowledged.front().copied() {
            self.pipe_schedule(id, side, at);
        }
        let pipe = self.pipes.all.get(&id)?;
        let sender = match side {
            Side::Dialler => Some(pipe.dialler),
            Side::Acceptor => pipe.acceptor,
        };
        sender
            .filter(|_| room && !pipe.closed[side as usize])
            .map(|host| (host, Happening::PipeRoom { pipe: id }))
    }

    /// A site's NAT or firewall has forgotten the pipes that were dialled from there, from such addresses.
    pub(super) fn pipes_cut(&mut self, site: SiteId, from: impl Fn(IpAddr) -> bool) {
        for pipe in self.pipes.all.values_mut() {
            if self.hosts[pipe.dialler.0 as usize].site == site && from(pipe.from.ip()) {
                pipe.cut = true;
                // What was coming in finds no mapping any more.
                pipe.lanes[Side::Acceptor as usize].flying.clear();
            }
        }
    }

    /// The dialler spoke through a NAT that has forgotten the pipe: a round trip later it is told that there is none.
    fn pipe_reset_by_stranger(&mut self, id: PipeId) {
        let Some(pipe) = self.pipes.all.get_mut(&id) else {
            return;
        };
        pipe.lanes[Side::Dialler as usize].waiting.clear();
        let here = self.hosts[pipe.dialler.0 as usize].site;
        let there = self.public.get(&pipe.to.ip()).copied();
        let mut at = self.now;
        for site in [Some(here), there].into_iter().flatten() {
            let site = &self.sites[site.0 as usize];
            at += site.up.config.delay + site.down.config.delay;
        }
        let lane = &mut pipe.lanes[Side::Acceptor as usize];
        lane.flying.push_back((at, Message::Reset));
        self.queue.push(at, Event::PipeArrive(id, Side::Acceptor));
    }

    /// Both ends learn that the pipe is broken.
    fn pipe_fail(&mut self, id: PipeId) {
        let Some(pipe) = self.pipes.all.get_mut(&id) else {
            return;
        };
        for side in [Side::Dialler, Side::Acceptor] {
            let lane = &mut pipe.lanes[side as usize];
            lane.waiting.clear();
            lane.flying.clear();
            lane.flying.push_back((self.now, Message::Reset));
            self.queue.push(self.now, Event::PipeArrive(id, side));
        }
    }

    /// The first message of the lane arrives at the other side.
    pub(super) fn pipe_arrive(&mut self, id: PipeId, side: Side) -> Option<(HostId, Happening)> {
        let pipe = self.pipes.all.get_mut(&id)?;
        let flying = &mut pipe.lanes[side as usize].flying;
        // The one this was scheduled for may have been dropped since.
        flying.front().filter(|(at, _)| *at <= self.now)?;
        let (_, message) = flying.pop_front()?;
        let receiver = side.other();
        if pipe.closed[receiver as usize] {
            return None;
        }
        let host = match receiver {
            Side::Dialler => Some(pipe.dialler),
            Side::Acceptor => pipe.acceptor,
        };
        match message {
            Message::Syn => {
                let (from, to) = (pipe.from, pipe.to);
                let listener = self.public.get(&to.ip()).and_then(|site| {
                    let host = self.sites[site.0 as usize].lan.get(&to.ip())?;
                    let slot = &self.hosts[host.0 as usize];
                    (slot.alive && slot.ports.contains(&to.port())).then_some(*host)
                });
                let Some(host) = listener else {
                    self.pipe_push(id, receiver, Message::Reset);
                    return None;
                };
                if let Some(pipe) = self.pipes.all.get_mut(&id) {
                    pipe.acceptor = Some(host);
                }
                self.pipe_push(id, receiver, Message::SynAck);
                Some((host, Happening::PipeAccepted { pipe: id, from }))
            }
            Message::SynAck => Some((host?, Happening::PipeConnected { pipe: id })),
            Message::Data(data) => Some((host?, Happening::PipeData { pipe: id, data })),
            Message::Reset => {
                pipe.closed[receiver as usize] = true;
                let alone = receiver == Side::Dialler && pipe.acceptor.is_none();
                if alone || pipe.closed == [true; 2] {
                    self.pipes.all.remove(&id);
                }
                Some((host?, Happening::PipeBroken { pipe: id }))
            }
        }
    }
}
