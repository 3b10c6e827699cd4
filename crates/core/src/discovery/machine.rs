//! The state machine: asks and listens. What it makes of the answers is in `settle.rs`, the rules are in the module's
//! documentation.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use byway_wire::canonical;
use byway_wire::stun::{self, Message, StunError, TransactionId};

use super::hairpin::{Hairpin, Verdict};
use super::server::{Fault, GIVE_UP, Server, State};
use super::{GatewayPort, Ignored, IgnoredAnswers, Mapping, NatReport, screen};
use crate::io::{LocalSocket, SocketId};
use crate::rng::Rng;

mod settle;
mod turnaround;

/// Most servers that are asked: a map of relays in every region, twice over. A round costs each a datagram or two.
pub const MAX_SERVERS: usize = 64;

/// How thoroughly to ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Every server.
    Full,
    /// Every server, and then our own outside address: does it lead back to us?
    Whole,
    /// The nearest believed server, to keep the mapping and to notice when it changes.
    Refresh,
}

/// Asks STUN servers and keeps the [`NatReport`]. Drive it as the crate's documentation says.
#[derive(Debug)]
pub struct Discovery {
    rng: Rng,
    sockets: Vec<LocalSocket>,
    servers: BTreeMap<u32, Server>,
    next_server: u32,
    round: Option<Round>,
    /// Our own outside address is to be tried when the round has settled.
    wants_hairpin: bool,
    hairpin: Option<Hairpin>,
    /// Requests of this round: whose they are. At most five for each server.
    requests: BTreeMap<TransactionId, u32>,
    report: Arc<NatReport>,
    /// The report is to be polled.
    fresh: bool,
    transmits: VecDeque<(SocketId, SocketAddr, Bytes)>,
    ignored: IgnoredAnswers,
    /// The time of the last input, for `poll_timeout` while output is queued.
    now: Option<Instant>,
}

#[derive(Debug)]
struct Round {
    asks: Asks,
    began: Instant,
    /// The order of the next first request.
    next_order: u32,
    /// Nothing more is waited for; late answers may still correct the report.
    settled: bool,
}

/// Whom a round asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asks {
    Everyone,
    One(u32),
}

/// A family: what is known of one says nothing about the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn of(addr: SocketAddr) -> Self {
        if addr.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

impl Discovery {
    /// With no sockets and no servers. `seed` makes the transaction ids, which nobody may foresee.
    pub fn new(seed: [u8; 32]) -> Self {
        Self {
            rng: Rng::new(seed),
            sockets: Vec::new(),
            servers: BTreeMap::new(),
            next_server: 0,
            round: None,
            wants_hairpin: false,
            hairpin: None,
            requests: BTreeMap::new(),
            report: Arc::default(),
            fresh: false,
            transmits: VecDeque::new(),
            ignored: IgnoredAnswers::default(),
            now: None,
        }
    }

    /// A port that the gateway holds for us: part of the report, and of nothing that is inferred.
    pub fn set_port_mapping(&mut self, mapping: GatewayPort) {
        let mut report = (*self.report).clone();
        report.port_mapping = mapping;
        self.publish(report);
    }

    /// The largest datagram that passes: part of the report, and of nothing that is inferred.
    pub fn set_mtu(&mut self, mtu: Option<u16>) {
        let mut report = (*self.report).clone();
        report.mtu = mtu;
        self.publish(report);
    }

    /// The node's sockets. The first that can send to a family is the one its servers are asked from. If that changes
    /// anything, what was known is forgotten and a round that runs begins again; otherwise nothing happens.
    pub fn set_sockets(&mut self, now: Instant, sockets: &[LocalSocket]) {
        self.now = Some(now);
        if self.sockets == sockets {
            return;
        }
        self.sockets = sockets.to_vec();
        self.servers.retain(|_, server| server.found_by.is_none());
        for server in self.servers.values_mut() {
            *server = Server::new(std::mem::take(&mut server.label), server.addr, None);
        }
        self.assign_voters();
        self.requests.clear();
        self.transmits.clear();
        self.hairpin = None;
        let running = self.round.take();
        self.publish(NatReport {
            port_mapping: self.report.port_mapping,
            servers: self
                .servers
                .values()
                .map(|server| server.row.clone())
                .collect(),
            ..NatReport::default()
        });
        if running.is_some() {
            self.begin(now, Kind::Full);
        }
    }

    /// Adds a server; one added during a full round is asked at once. False if the address cannot be asked, or there
    /// are [`MAX_SERVERS`]. Adding one again does nothing.
    pub fn add_server(&mut self, now: Instant, label: impl Into<String>, addr: SocketAddr) -> bool {
        self.now = Some(now);
        let (label, addr) = (label.into(), canonical(addr));
        if !screen::is_askable(addr) {
            return false;
        }
        let mut configured = self.servers.values().filter(|s| s.found_by.is_none());
        if configured.any(|server| server.label == label && server.addr == addr) {
            return true;
        }
        if self
            .servers
            .values()
            .filter(|s| s.found_by.is_none())
            .count()
            >= MAX_SERVERS
        {
            return false;
        }
        // It may have been found by OTHER-ADDRESS before.
        self.servers
            .retain(|_, server| server.found_by.is_none() || server.addr != addr);
        let id = self.insert(Server::new(label, addr, None));
        match &mut self.round {
            Some(round) if round.asks == Asks::Everyone => {
                round.settled = false;
                self.ask(now, id);
                self.evaluate(now);
            }
            _ => {}
        }
        true
    }

    /// Forgets a server, and what rested on its word. False if it was not known.
    pub fn remove_server(&mut self, now: Instant, label: &str, addr: SocketAddr) -> bool {
        self.now = Some(now);
        let addr = canonical(addr);
        let id = self
            .servers
            .iter()
            .find(|(_, s)| s.found_by.is_none() && s.label == label && s.addr == addr)
            .map(|(id, _)| *id);
        let Some(id) = id else {
            return false;
        };
        self.servers
            .retain(|other, server| *other != id && server.found_by != Some(id));
        let Self {
            requests, servers, ..
        } = self;
        requests.retain(|_, id| servers.contains_key(id));
        self.assign_voters();
        self.evaluate(now);
        true
    }

    /// Begins a round. A full one that runs already goes on; a refresh gives way to a full one, not the other way round.
    /// A refresh with nothing to refresh is a full round.
    pub fn start(&mut self, now: Instant, kind: Kind) {
        self.now = Some(now);
        self.wants_hairpin |= kind == Kind::Whole;
        match (&self.round, kind) {
            (
                Some(Round {
                    asks: Asks::Everyone,
                    settled: false,
                    ..
                }),
                _,
            )
            | (Some(_), Kind::Refresh) => {}
            _ => self.begin(now, kind),
        }
    }

    /// Takes a datagram that looks like STUN. `to` is the local address it was sent to, if known. True if it answers a
    /// request of this round, however badly.
    pub fn handle_stun(
        &mut self,
        now: Instant,
        socket: SocketId,
        from: SocketAddr,
        to: Option<IpAddr>,
        datagram: &[u8],
    ) -> bool {
        self.now = Some(now);
        match self.take_answer(now, socket, canonical(from), to, datagram) {
            Ok(()) => true,
            Err((reason, ours)) => {
                self.ignored.count(reason);
                ours
            }
        }
    }

    /// Sends what is due, gives up what is over.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = Some(now);
        // Time means nothing between rounds, and a node wakes often for other things.
        if self.round.is_some() {
            self.evaluate(now);
        }
        self.run_hairpin(now);
    }

    /// The next request to send.
    pub fn poll_transmit(&mut self) -> Option<(SocketId, SocketAddr, Bytes)> {
        self.transmits.pop_front()
    }

    /// The report, if it changed since the last call or a full round has settled.
    pub fn poll_report(&mut self) -> Option<Arc<NatReport>> {
        std::mem::take(&mut self.fresh).then(|| Arc::clone(&self.report))
    }

    /// When to call [`Self::handle_timeout`], and why.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        if !self.transmits.is_empty() || self.fresh {
            return self.now.map(|now| (now, "discovery has output"));
        }
        let hairpin = self.hairpin.as_ref().map(Hairpin::next);
        let round = self.round_timeout();
        hairpin.into_iter().chain(round).min_by_key(|(at, _)| *at)
    }

    fn round_timeout(&self) -> Option<(Instant, &'static str)> {
        let round = self.round.as_ref()?;
        let asking = || self.servers.values().filter_map(Server::asking_since);
        let patience = (!round.settled).then(|| self.patience_ends(round));
        [
            asking()
                .min()
                .map(|began| (began + GIVE_UP, "discovery gives up")),
            // Once past, the answers themselves decide.
            patience
                .filter(|at| self.now.is_none_or(|now| now < *at))
                .map(|at| (at, "discovery counts its answers")),
            self.servers
                .values()
                .filter_map(|server| server.next_request(round.settled))
                .min()
                .map(|at| (at, "discovery asks again")),
        ]
        .into_iter()
        .flatten()
        .min_by_key(|(at, _)| *at)
    }

    /// True unless a round runs whose answer may still change much.
    pub fn is_settled(&self) -> bool {
        self.is_round_settled() && self.hairpin.is_none() && !self.wants_hairpin
    }

    fn is_round_settled(&self) -> bool {
        self.round.as_ref().is_none_or(|round| round.settled)
    }

    /// The latest report.
    pub fn report(&self) -> &Arc<NatReport> {
        &self.report
    }

    /// What was ignored, by reason.
    pub fn ignored(&self) -> &IgnoredAnswers {
        &self.ignored
    }

    fn begin(&mut self, now: Instant, kind: Kind) {
        let refreshed = match kind {
            Kind::Full | Kind::Whole => None,
            Kind::Refresh => self.nearest_believed(),
        };
        self.requests.clear();
        self.transmits.clear();
        self.round = Some(Round {
            asks: refreshed.map_or(Asks::Everyone, Asks::One),
            began: now,
            next_order: 0,
            settled: false,
        });
        match refreshed {
            Some(id) => self.ask(now, id),
            None => {
                for server in self.servers.values_mut() {
                    server.state = State::Idle;
                }
                let ids: Vec<u32> = self.servers.keys().copied().collect();
                for id in ids {
                    self.ask(now, id);
                }
            }
        }
        self.evaluate(now);
    }

    /// The server whose word the report rests on and that answers soonest; of IPv4 if there is one, for there the NATs are.
    fn nearest_believed(&self) -> Option<u32> {
        self.servers
            .iter()
            .filter(|(_, server)| server.row.believed && self.socket(server.addr).is_some())
            .min_by(|(_, a), (_, b)| {
                let key = |server: &Server| {
                    let rtt = server.row.rtt_ms.unwrap_or(f64::INFINITY);
                    (server.addr.is_ipv6(), rtt)
                };
                let ((a6, a_rtt), (b6, b_rtt)) = (key(a), key(b));
                a6.cmp(&b6).then(a_rtt.total_cmp(&b_rtt))
            })
            .map(|(id, _)| *id)
    }

    fn ask(&mut self, now: Instant, id: u32) {
        let (Some(server), Some(round)) = (self.servers.get_mut(&id), &mut self.round) else {
            return;
        };
        let can = self
            .sockets
            .iter()
            .any(|socket| sends_to(socket, server.addr));
        if can {
            // A refreshed mapping is as old as it was: it keeps its place among the others.
            let order = match (round.asks, server.observation()) {
                (Asks::One(_), Some((order, _))) => order,
                _ => round.next_order,
            };
            server.ask(now, order);
            round.next_order += 1;
        } else {
            server.conclude(Fault::NoSocket);
        }
    }

    fn insert(&mut self, server: Server) -> u32 {
        let id = self.next_server;
        self.next_server += 1;
        self.servers.insert(id, server);
        self.assign_voters();
        id
    }

    /// Servers that share a label or an IP address have one voice, named after the smallest of their numbers.
    fn assign_voters(&mut self) {
        for (id, server) in &mut self.servers {
            server.voter = *id;
        }
        // At most a few rounds over at most a hundred servers, and only when one comes or goes.
        loop {
            let mut by_label: BTreeMap<String, u32> = BTreeMap::new();
            let mut by_ip: BTreeMap<IpAddr, u32> = BTreeMap::new();
            let mut changed = false;
            for server in self.servers.values_mut() {
                let label = by_label.entry(server.label.clone()).or_insert(server.voter);
                let ip = by_ip.entry(server.addr.ip()).or_insert(server.voter);
                let smallest = server.voter.min(*label).min(*ip);
                changed |= server.voter != smallest || *label != smallest || *ip != smallest;
                (server.voter, *label, *ip) = (smallest, smallest, smallest);
            }
            if !changed {
                return;
            }
        }
    }

    /// The socket from which a server is asked.
    fn socket(&self, server: SocketAddr) -> Option<&LocalSocket> {
        self.sockets.iter().find(|socket| sends_to(socket, server))
    }

    fn take_answer(
        &mut self,
        now: Instant,
        socket: SocketId,
        from: SocketAddr,
        to: Option<IpAddr>,
        datagram: &[u8],
    ) -> Result<(), (Ignored, bool)> {
        // Where the id is known, even what cannot be decoded can be laid at its sender's door.
        let txid = transaction_id(datagram);
        if let Some(test) = &self.hairpin
            && txid.is_some_and(|txid| test.knows(txid))
        {
            return self.take_hairpin(now, socket, datagram);
        }
        let id = txid.and_then(|txid| self.requests.get(&txid).copied());
        let known = id.and_then(|id| self.servers.get_mut(&id).map(|server| (id, server)));
        let (Some(txid), Some((id, server))) = (txid, known) else {
            return Err((unknown(datagram), false));
        };
        if from != server.addr {
            server.suspect(Fault::WrongSource(from));
            return Err((Ignored::WrongSource, true));
        }
        let asked_from = self.sockets.iter().find(|s| sends_to(s, server.addr));
        if asked_from.is_none_or(|asked_from| asked_from.id != socket) {
            server.suspect(Fault::WrongSocket);
            return Err((Ignored::WrongSocket, true));
        }
        match server.state {
            State::Asking(_) => {}
            State::Answered { .. } => return Err((Ignored::Duplicate, true)),
            State::Idle | State::Silent => return Err((Ignored::Late, true)),
        }
        if datagram.len() > stun::MAX_LEN {
            server.suspect(Fault::Oversized(datagram.len()));
            return Err((Ignored::Oversized, true));
        }
        let mut other = None;
        let said = match stun::decode(datagram) {
            Ok(Message::Success {
                mapped, other: o, ..
            }) => {
                other = o;
                let mapped = canonical(mapped);
                match screen::check(server.addr, mapped) {
                    Ok(()) => Ok(mapped),
                    Err(Ignored::WrongFamily) => {
                        Err((Ignored::WrongFamily, Fault::WrongFamily(mapped)))
                    }
                    Err(reason) => Err((reason, Fault::Absurd(mapped))),
                }
            }
            Ok(Message::Failure { code, .. }) => Err((Ignored::Refused, Fault::Error(code))),
            Err(StunError::NoAddress) => Err((Ignored::Refused, Fault::NoAddress)),
            Ok(Message::Request { .. }) => {
                // Our own request, thrown back at us.
                server.suspect(Fault::Malformed);
                return Err((Ignored::Request, true));
            }
            Err(_) => {
                server.suspect(Fault::Malformed);
                return Err((Ignored::Malformed, true));
            }
        };
        server.answer(now, txid, said.map_err(|(_, fault)| fault), to);
        if said.is_ok()
            && let Some(other) = other
        {
            self.ask_other_port(now, id, other.port());
        }
        self.evaluate(now);
        said.map(drop).map_err(|(reason, _)| (reason, true))
    }

    /// Asks a server at its other port, once, unless one of its ports is asked anyway.
    fn ask_other_port(&mut self, now: Instant, id: u32, port: u16) {
        if self
            .round
            .as_ref()
            .is_none_or(|round| round.asks != Asks::Everyone)
        {
            return;
        }
        let Some(server) = self.servers.get(&id) else {
            return;
        };
        let addr = SocketAddr::new(server.addr.ip(), port);
        let sibling = |other: &Server| {
            other.addr.ip() == addr.ip() && other.addr.port() != server.addr.port()
        };
        if addr == server.addr || !screen::is_askable(addr) || self.servers.values().any(sibling) {
            return;
        }
        let label = server.label.clone();
        let found = self.insert(Server::new(label, addr, Some(id)));
        self.ask(now, found);
    }

    fn send_due(&mut self, now: Instant) {
        let Some(round) = &self.round else {
            return;
        };
        for (id, server) in &mut self.servers {
            if server.next_request(round.settled).is_none_or(|at| at > now) {
                continue;
            }
            let Some(socket) = self.sockets.iter().find(|s| sends_to(s, server.addr)) else {
                continue;
            };
            let txid = TransactionId(self.rng.bytes());
            // Padded, so that a relay's answer is not longer than what asks for it.
            let request = stun::encode_request(txid, true, None);
            server.sent(now, txid);
            self.requests.insert(txid, *id);
            self.transmits
                .push_back((socket.id, server.addr, request.into()));
        }
    }
}

fn sends(socket: &LocalSocket, family: Family) -> bool {
    match family {
        Family::V4 => socket.v4,
        Family::V6 => socket.v6,
    }
}

fn sends_to(socket: &LocalSocket, addr: SocketAddr) -> bool {
    sends(socket, Family::of(addr))
}

/// RFC 8489 section 5: bytes 8 to 20, whatever the rest.
fn transaction_id(datagram: &[u8]) -> Option<TransactionId> {
    let bytes = datagram.get(8..20)?;
    Some(TransactionId(bytes.try_into().ok()?))
}

/// Why a datagram that answers nothing of ours is ignored.
fn unknown(datagram: &[u8]) -> Ignored {
    if datagram.len() > stun::MAX_LEN {
        return Ignored::Oversized;
    }
    match stun::decode(datagram) {
        Ok(Message::Request { .. }) => Ignored::Request,
        Ok(_) | Err(StunError::NoAddress) => Ignored::UnknownTransaction,
        Err(_) => Ignored::Malformed,
    }
}
