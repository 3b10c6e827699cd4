//! Byte pipes: TCP as far as Byway can tell it from the outside.
//!
//! A pipe is reliable and ordered, takes a round trip to connect, shares the access links' rate with datagrams, and
//! breaks: when the other process dies, or when nothing got through for 20 s. Loss costs time instead of data: a lost
//! message is sent again after a round trip and holds up those behind it. Messages keep their borders here, which the
//! layers above (TLS records, WebSocket messages) would restore anyway.
//!
//! NATs and UDP firewalls let pipes pass: that is why the TLS link exists.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use super::{Event, Happening, HostId, Network};
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
    /// On the wire.
    flying: VecDeque<Message>,
    trying: bool,
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

impl Pipes {
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
        let id = PipeId(self.pipes.next);
        self.pipes.next += 1;
        // What the other end sees: the site's public address, and a port of its own for each pipe.
        let site = &self.sites[self.site_of(host).0 as usize];
        let ip = match &site.nat {
            Some(nat) => nat.external(),
            None => self.addrs(host).first().copied().unwrap_or(to.ip()),
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
        };
        self.pipes.all.insert(id, pipe);
        self.pipe_schedule(id, Side::Dialler, self.now);
        id
    }
    /// Sends a message.
    pub fn pipe_send(&mut self, pipe: PipeId, side: Side, data: Bytes) {
        self.trace.note(self.now, "pipe", &data, || {
            format!("{} {side:?} sends {}", pipe.0, data.len())
        });
        self.pipe_push(pipe, side, Message::Data(data));
    }
    /// How long a message handed in now would wait before it leaves.
    pub fn pipe_backlog(&self, pipe: PipeId, side: Side) -> Duration {
        let Some(p) = self.pipes.all.get(&pipe) else {
            return Duration::ZERO;
        };
        let waited = p.lanes[side as usize]
            .failing
            .map(|(since, _)| self.now - since);
        let host = match side {
            Side::Dialler => Some(p.dialler),
            Side::Acceptor => p.acceptor,
        };
        let queue = host.map(|h| {
            let site = self.site_of(h).0 as usize;
            self.sites[site].up.backlog(self.now)
        });
        waited.unwrap_or_default() + queue.unwrap_or_default()
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

    /// Puts what waits on the wire.
    pub(super) fn pipe_try(&mut self, id: PipeId, side: Side) {
        let now = self.now;
        let Some(pipe) = self.pipes.all.get_mut(&id) else {
            return;
        };
        pipe.lanes[side as usize].trying = false;
        let there = self.public.get(&pipe.to.ip()).copied();
        let here = self.hosts[pipe.dialler.0 as usize].site;
        let route = there.map(|there| match side {
            Side::Dialler => (here, there),
            Side::Acceptor => (there, here),
        });
        let open = route.filter(|(from, to)| !self.swallowed(*from, *to, None));
        let Some(pipe) = self.pipes.all.get_mut(&id) else {
            return;
        };
        let lane = &mut pipe.lanes[side as usize];
        let Some((from, to)) = open else {
            let (since, tries) = lane.failing.unwrap_or((now, 0));
            if now - since >= GIVE_UP {
                return self.pipe_fail(id);
            }
            lane.failing = Some((since, tries + 1));
            // Doubling, at most 3 s, so that a healed path is noticed.
            let wait = (RTO * 2u32.pow(tries.min(4))).min(Duration::from_secs(3));
            return self.pipe_schedule(id, side, now + wait);
        };
        lane.failing = None;
        while let Some(message) = lane.waiting.pop_front() {
            let size = match &message {
                Message::Data(data) => data.len(),
                _ => 0,
            };
            let (from, to) = (from.0 as usize, to.0 as usize);
            let sent = self.sites[from].up.reserve(now, size + HEADERS);
            let delay = self.sites[from].up.config.delay + self.sites[to].down.config.delay;
            let loss = 1.0
                - (1.0 - self.sites[from].up.config.loss) * (1.0 - self.sites[to].down.config.loss);
            let mut at = self.sites[to].down.reserve(sent, size + HEADERS) + delay;
            while self.pipes.rng.chance(loss) {
                at += 2 * delay + FAST_RETRANSMIT;
            }
            at = at.max(lane.last_arrival);
            lane.last_arrival = at;
            lane.flying.push_back(message);
            self.queue.push(at, Event::PipeArrive(id, side));
        }
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
            lane.flying.push_back(Message::Reset);
            self.queue.push(self.now, Event::PipeArrive(id, side));
        }
    }

    /// The first message of the lane arrives at the other side.
    pub(super) fn pipe_arrive(&mut self, id: PipeId, side: Side) -> Option<(HostId, Happening)> {
        let pipe = self.pipes.all.get_mut(&id)?;
        let message = pipe.lanes[side as usize].flying.pop_front()?;
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
