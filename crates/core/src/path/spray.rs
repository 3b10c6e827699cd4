//! Hard NATs, crossed by many tries (design section 6).
//!
//! A NAT that gives each destination another port, drawn at random, leaves its node nowhere to be found. If the other
//! side's NAT keeps one port for all (its address is known), the two still meet by chance, and chance can be helped:
//!
//! - The **hard** side opens many sockets, and one ping from each towards the easy side's address: each has its NAT draw
//!   one more port that lets the easy side in.
//! - The **easy** side pings ports of the hard side's address, drawn at random without repetition. The NAT in front of
//!   *it* lets in what comes back from there.
//!
//! With 256 of 64,512 ports open, 1,024 pings hit one with 98 %, and 2,048 with 99.97 %. A hit is an authenticated ping
//! like any other, in whichever direction it comes first: `Paths::handle_probe` makes a path of it, which then is searched,
//! sized and judged as every path is. So nothing here decides where data goes.
//!
//! **Bounds.** A spray goes only to the address at which a relay attests the peer, and only if the peer itself names no
//! other one. It waits until the ordinary pings had their chance. It is at most 2,048 pings of 120 bytes at 1,000 a second
//! on one side, one ping of each of 256 sockets on the other. There is one for each peer in five minutes, doubling, at most
//! [`MOST_AT_ONCE`] in a node, and none where the settings forbid it. Where it is unknown whether a side is easy (one server
//! alone cannot tell), there is one in each network and no more.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use byway_wire::probe::{ProbeBody, TxId};
use byway_wire::signal::{Candidate, CandidateKind, Mapping};

use super::candidate::{Class, class};
use super::check::{Path, SMALL_SIZE};
use super::paths::{Output, Paths};
use crate::addr::is_inside;
use crate::cx::Cx;
use crate::io::{SocketId, Way};
use crate::rng::Rng;

/// Sprays of one node at a time: a thousand sockets, or four thousand small datagrams a second.
pub(crate) const MOST_AT_ONCE: usize = 4;

/// Ordinary pings have so long to find a path: three rungs of the ladder at a round trip of up to 100 ms...
const PATIENCE: Duration = Duration::from_millis(300);
/// ...and this many round trips where they are longer.
const PATIENCE_ROUND_TRIPS: u32 = 3;
/// A side of which it is unknown whether it is easy may be about to say: its discovery takes so long at most (design section 5).
const UNTOLD_PATIENCE: Duration = Duration::from_secs(3);
/// A spray that was not permitted asks again after this long.
const TURNED_AWAY: Duration = Duration::from_secs(5);

/// Sockets that the hard side opens at first. Where the easy side's NAT is quick to be hit they do, and a host whose
/// descriptors are few is spared.
const FIRST_SOCKETS: u16 = 64;
/// Sockets in all.
const SOCKETS: u16 = 256;
/// The rest of them is opened after this long.
const MORE_AFTER: Duration = Duration::from_millis(250);
/// The hard side's sockets stay for the easy side's pings, for how far the two sides' beginnings lie apart, and for answers.
const HARD_LASTS: Duration = Duration::from_secs(5);

/// Pings of the easy side.
const PINGS: u16 = 2_048;
/// Sent in groups: a timer for each would be a thousand a second.
const GROUP: u16 = 10;
/// One group in this time makes 1,000 a second.
const GROUP_EVERY: Duration = Duration::from_millis(10);

/// NATs draw from the unprivileged ports (RFC 4787 section 4.2.2).
const FIRST_PORT: u16 = 1_024;
const PORTS: u32 = 65_536 - FIRST_PORT as u32;

/// A spray that found nothing is repeated after this long at the earliest, doubling with each...
const REST: Duration = Duration::from_secs(300);
/// ...up to this.
const REST_MAX: Duration = Duration::from_secs(86_400);
/// A direct path that answered within this time is better than any that a spray could find.
const LATELY: Duration = Duration::from_secs(60);

/// What a spray wants from the node.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// May it begin? Answered by [`Paths::permit_spray`].
    Permission,
    /// So many more sockets. Answered by [`Paths::spray_from`].
    Sockets(u16),
    /// These are of no use any more.
    Release(Vec<SocketId>),
}

/// Which part this node has, and towards whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    /// Our NAT is hard; the peer is at this address.
    Hard(SocketAddr),
    /// The peer's NAT is hard; its ports are at this address.
    Easy(IpAddr),
}

#[derive(Debug)]
enum State {
    Idle,
    /// A spray would be of use; ordinary pings have until then.
    Waiting {
        at: Instant,
        /// Whether one side is easy is not known yet.
        untold: bool,
    },
    /// The node is asked.
    Asking,
    Hard {
        target: SocketAddr,
        /// When the rest of the sockets is asked for.
        more_at: Option<Instant>,
        until: Instant,
    },
    Easy {
        target: IpAddr,
        ports: PortOrder,
        sent: u16,
        next: Instant,
    },
}

/// The sprays of one peer.
#[derive(Debug)]
pub(super) struct Spray {
    allowed: bool,
    state: State,
    /// Sprays so far that did not end with a path, and when the next one may begin.
    failures: u32,
    rest_until: Option<Instant>,
    /// Sockets that were opened for this peer.
    sockets: BTreeSet<SocketId>,
    own: Network,
    peer: Network,
}

/// What a side says of its network.
#[derive(Debug, Default)]
struct Network {
    mapping: Mapping,
    /// IPv4 addresses at which others see it.
    reflexive: BTreeSet<SocketAddr>,
}

/// How a node is seen from outside by IPv4, beside how it was seen before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Seen {
    /// As before, or not at all.
    Alike,
    /// At all.
    First,
    /// At another address too: what is in front of it has moved, or has several.
    Elsewhere,
}

impl Network {
    fn hosts(&self) -> BTreeSet<IpAddr> {
        self.reflexive.iter().map(SocketAddr::ip).collect()
    }
    fn of(list: &[Candidate], mapping: Mapping) -> Self {
        let reflexive = list.iter().filter(|c| c.kind == CandidateKind::Reflexive);
        let reflexive = reflexive.map(|c| byway_wire::canonical(c.addr));
        Self {
            mapping,
            reflexive: reflexive.filter(SocketAddr::is_ipv4).collect(),
        }
    }
    fn is_hard(&self) -> bool {
        matches!(
            self.mapping,
            Mapping::AddressDependent | Mapping::AddressAndPortDependent
        )
    }
    fn is_easy(&self) -> bool {
        self.mapping == Mapping::EndpointIndependent
    }
    /// It may be easy: its NAT was seen, from one place only or not yet from enough.
    fn is_untold(&self) -> bool {
        self.mapping == Mapping::Unknown && !self.reflexive.is_empty()
    }
    /// True if it is seen at this address and, as far as it says, at no other.
    fn is_only_at(&self, ip: IpAddr) -> bool {
        !self.reflexive.is_empty() && self.reflexive.iter().all(|addr| addr.ip() == ip)
    }
    /// True if it is seen inside a private network.
    fn is_inside(&self) -> bool {
        self.reflexive.iter().any(|addr| is_inside(addr.ip()))
    }
}

impl Spray {
    pub(super) fn new(allowed: bool) -> Self {
        Self {
            allowed,
            state: State::Idle,
            failures: 0,
            rest_until: None,
            sockets: BTreeSet::new(),
            own: Network::default(),
            peer: Network::default(),
        }
    }

    /// When it wants to go on by itself.
    pub(super) fn wake(&self) -> Option<Instant> {
        match self.state {
            State::Idle | State::Asking => None,
            State::Waiting { at, .. } => Some(at),
            State::Hard { more_at, until, .. } => Some(more_at.map_or(until, |at| at.min(until))),
            State::Easy { next, .. } => Some(next),
        }
    }

    fn is_under_way(&self) -> bool {
        matches!(self.state, State::Hard { .. } | State::Easy { .. })
    }

    /// The next one begins later.
    fn begin(&mut self, now: Instant) {
        let rest = (REST * 2u32.saturating_pow(self.failures.min(16))).min(REST_MAX);
        self.failures = self.failures.saturating_add(1);
        self.rest_until = Some(now + rest);
    }
}

impl Paths {
    /// True while this peer's spray counts among the node's.
    pub(crate) fn is_spraying(&self) -> bool {
        self.spray.is_under_way()
    }

    /// Takes note of how this node is seen, and says what is new of it.
    pub(super) fn note_own_network(&mut self, list: &[Candidate], mapping: Mapping) -> Seen {
        let now = Network::of(list, mapping);
        let (before, hosts) = (self.spray.own.hosts(), now.hosts());
        self.spray.own = now;
        match (before.is_empty(), hosts.is_empty()) {
            (_, true) => Seen::Alike,
            (true, false) => Seen::First,
            (false, false) if !hosts.is_subset(&before) => Seen::Elsewhere,
            (false, false) => Seen::Alike,
        }
    }

    pub(super) fn note_peer_network(&mut self, list: &[Candidate], mapping: Mapping) {
        self.spray.peer = Network::of(list, mapping);
    }

    /// The host's network is another one: what failed in the old one may succeed here.
    pub(super) fn restart_spray(&mut self, now: Instant) {
        self.spray.state = State::Idle;
        self.spray.failures = 0;
        self.spray.rest_until = self.spray.rest_until.map(|at| at.min(now + REST));
        self.release_unused();
    }

    /// The peer is another one, as far as paths go.
    pub(super) fn forget_spray(&mut self) {
        self.spray.peer = Network::default();
        self.spray.state = State::Idle;
        self.release_unused();
    }

    /// Whether a spray would be of use now, and which part we had in it.
    fn spray_side(&self, now: Instant) -> Option<Side> {
        let Spray { own, peer, .. } = &self.spray;
        let may = self.spray.allowed && self.direct && self.can_probe();
        if !may || !self.flow.is_active(now) || self.has_direct(now) {
            return None;
        }
        // As the newest relay sees it. One that roams was elsewhere before.
        let ip = *self.attested.iter().rev().find(|ip| ip.is_ipv4())?;
        // Behind the same NAT the two meet inside, or by hairpin, or not at all.
        let outside = peer.is_only_at(ip) && own.reflexive.iter().all(|addr| addr.ip() != ip);
        // Nor may a relay and a peer that agree aim at this host, or into a private network that we are not seen in.
        let harmless = class(SocketAddr::new(ip, FIRST_PORT)) == Class::Routable
            && (own.is_inside() || !is_inside(ip));
        if !(outside && harmless) {
            return None;
        }
        // What may be easy is tried once in each network: if it was not, more tries would be in vain too.
        let first = self.spray.failures == 0;
        let easy = |side: &Network| side.is_easy() || first && side.is_untold();
        if own.is_hard() && easy(peer) {
            // Its one port.
            let mut addrs = peer.reflexive.iter();
            return match (addrs.next(), addrs.next()) {
                (Some(&addr), None) => Some(Side::Hard(addr)),
                _ => None,
            };
        }
        (easy(own) && peer.is_hard()).then_some(Side::Easy(ip))
    }

    fn has_direct(&self, now: Instant) -> bool {
        self.has_direct_by(now, |_| true)
    }

    fn has_direct_by(&self, now: Instant, fine: impl Fn(SocketAddr) -> bool) -> bool {
        let lately = |at: Instant| at + LATELY > now;
        self.table.values().any(|p| {
            matches!(p.way, Way::Direct { remote, .. } if fine(remote))
                && !p.is_quarantined()
                && p.last_answer.is_some_and(lately)
        })
    }

    /// Goes on with the spray that is under way, or begins one.
    pub(super) fn run_spray(&mut self, cx: &mut Cx<'_>) {
        let due = self.spray.wake().is_some_and(|at| at <= cx.now);
        match self.spray.state {
            State::Idle => {
                let rested = self.spray.rest_until.is_none_or(|at| at <= cx.now);
                if rested && self.spray_side(cx.now).is_some() {
                    self.await_pings(cx.now);
                }
            }
            State::Waiting { untold: true, .. } if !due && !self.is_untold() => {
                self.await_pings(cx.now);
            }
            State::Waiting { .. } if due => {
                if self.spray_side(cx.now).is_some() {
                    self.spray.state = State::Asking;
                    self.out.push_back(Output::Spray(Ask::Permission));
                } else {
                    self.spray.state = State::Idle;
                }
            }
            State::Hard { .. } | State::Easy { .. } if self.has_direct(cx.now) => {
                // A path of another family says nothing of these NATs.
                if self.has_direct_by(cx.now, |remote| remote.is_ipv4()) {
                    self.spray.failures = 0;
                }
                self.end_spray();
            }
            State::Hard { until, .. } if until <= cx.now => self.end_spray(),
            State::Hard {
                ref mut more_at, ..
            } if due => {
                *more_at = None;
                let more = SOCKETS - FIRST_SOCKETS;
                self.out.push_back(Output::Spray(Ask::Sockets(more)));
            }
            State::Easy { .. } if due => self.ping_group(cx),
            _ => {}
        }
    }

    /// Gives ordinary pings their time, and a side that may yet say what it is its own.
    fn await_pings(&mut self, now: Instant) {
        let round_trip = self.primary_path().and_then(|p| p.smoothed());
        let mut patience = round_trip.unwrap_or_default() * PATIENCE_ROUND_TRIPS;
        patience = patience.max(PATIENCE);
        let untold = self.is_untold();
        if untold {
            patience = patience.max(UNTOLD_PATIENCE);
        }
        self.spray.state = State::Waiting {
            at: now + patience,
            untold,
        };
    }

    fn is_untold(&self) -> bool {
        self.spray.own.is_untold() || self.spray.peer.is_untold()
    }

    /// The node says whether a spray may begin now.
    pub(crate) fn permit_spray(&mut self, cx: &mut Cx<'_>, permitted: bool) {
        if !matches!(self.spray.state, State::Asking) {
            return;
        }
        let side = self.spray_side(cx.now);
        self.spray.state = match side {
            None => State::Idle,
            Some(_) if !permitted => State::Waiting {
                at: cx.now + TURNED_AWAY,
                untold: false,
            },
            Some(Side::Hard(target)) => State::Hard {
                target,
                more_at: Some(cx.now + MORE_AFTER),
                until: cx.now + HARD_LASTS,
            },
            Some(Side::Easy(target)) => State::Easy {
                target,
                ports: PortOrder::new(cx.rng),
                sent: 0,
                next: cx.now,
            },
        };
        if !self.spray.is_under_way() {
            return;
        }
        cx.counters.sprays += 1;
        self.spray.begin(cx.now);
        if let State::Hard { .. } = self.spray.state {
            self.out
                .push_back(Output::Spray(Ask::Sockets(FIRST_SOCKETS)));
        } else {
            self.run_spray(cx);
        }
    }

    /// The sockets asked for, or as many as the host has.
    pub(crate) fn spray_from(&mut self, cx: &mut Cx<'_>, sockets: Vec<SocketId>) {
        let State::Hard { target, .. } = self.spray.state else {
            self.out.push_back(Output::Spray(Ask::Release(sockets)));
            return;
        };
        for socket in sockets {
            self.spray.sockets.insert(socket);
            self.spray_ping(cx, socket, target);
        }
    }

    fn ping_group(&mut self, cx: &mut Cx<'_>) {
        let socket = self.sockets.iter().find(|s| s.v4).map(|s| s.id);
        let State::Easy {
            target,
            ref mut ports,
            ref mut sent,
            ref mut next,
        } = self.spray.state
        else {
            return;
        };
        let (Some(socket), true) = (socket, *sent < PINGS) else {
            self.end_spray();
            return;
        };
        let group: Vec<u16> = ports
            .by_ref()
            .take(GROUP.min(PINGS - *sent).into())
            .collect();
        *sent += group.len() as u16;
        // From now, not from when it was due: a late timer must not make a burst.
        *next = cx.now + GROUP_EVERY;
        for port in group {
            self.spray_ping(cx, socket, SocketAddr::new(target, port));
        }
    }

    /// A ping that nobody waits for: whoever hears it answers with one that makes a path.
    fn spray_ping(&mut self, cx: &mut Cx<'_>, socket: SocketId, remote: SocketAddr) {
        let body = ProbeBody::Ping {
            txid: TxId(cx.rng.bytes()),
        };
        let sealed = self
            .association
            .seal_probe(cx.rng, body, usize::from(SMALL_SIZE));
        if let Some(data) = sealed {
            cx.counters.spray_pings += 1;
            let way = Way::Direct { socket, remote };
            self.out.push_back(Output::Send { way, data });
        }
    }

    fn end_spray(&mut self) {
        self.spray.state = State::Idle;
        self.keep_best_hit();
        self.release_unused();
    }

    /// Of several hits one is kept: they lead through the same NATs, and die together.
    fn keep_best_hit(&mut self) {
        let hit =
            |p: &&Path| matches!(p.way, Way::Direct { socket, .. } if self.is_spray_socket(socket));
        let rank = |p: &&Path| {
            let sized = p.concluded();
            (
                self.primary == Some(p.id),
                sized,
                p.last_answer.is_some(),
                Reverse(p.id),
            )
        };
        let best = self
            .table
            .values()
            .filter(hit)
            .max_by_key(rank)
            .map(|p| p.id);
        let others = self.table.values().filter(hit).map(|p| p.id);
        for id in others.filter(|id| Some(*id) != best).collect::<Vec<_>>() {
            self.remove(id);
        }
    }
}

/// All ports in an order that does not repeat: a full cycle of steps of one length from a random start. Against a NAT that
/// draws at random any order is as good as another.
#[derive(Debug)]
struct PortOrder {
    at: u32,
    step: u32,
}

impl PortOrder {
    fn new(rng: &mut Rng) -> Self {
        let at = (rng.u64() % u64::from(PORTS)) as u32;
        // A step that shares no factor with the number of ports comes by each of them. Not a short one, in either direction:
        // neighbours tend to belong to one subscriber where a carrier deals ports out in blocks.
        let short = u64::from(PORTS / 8);
        let mut step = (short + rng.u64() % (u64::from(PORTS) - 2 * short)) as u32 | 1;
        while greatest_common_divisor(step, PORTS) != 1 {
            step = (step + 2) % PORTS;
        }
        Self { at, step }
    }
}

impl Iterator for PortOrder {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        self.at = (self.at + self.step) % PORTS;
        Some(FIRST_PORT + self.at as u16)
    }
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 {
        a
    } else {
        greatest_common_divisor(b, a % b)
    }
}

mod sockets;
#[cfg(test)]
mod tests;
