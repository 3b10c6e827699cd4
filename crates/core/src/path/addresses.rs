//! Where a peer may be: which of the addresses that it names, that relays attest and that its probes come from get a path, and
//! how many of them. The budgets here are what keeps a peer from having us send to others (design section 6).

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::candidate::{Class, class};
use super::check::Path;
use super::paths::Paths;
use super::score::PathId;
use crate::asked::Because;
use crate::cx::Cx;
use crate::io::{PathKind, SocketId, Way};

/// Most direct paths to one peer: 32 candidates on two sockets.
const MAX_DIRECT: usize = 64;
/// Unattested addresses remembered, so that none gets another three probes with each new list: as many that the peer named, and
/// as many that pings came from. A hard NAT's spray may come from hundreds of ports, and the peer's next list is heard all the same.
const MAX_TRIED: usize = 128;
/// After this long an unattested address may be tried again.
const TRIED_FOR: Duration = Duration::from_secs(60);
/// Most attested addresses remembered: one for each relay and family. A node that roams leaves the oldest behind.
const MAX_ATTESTED: usize = 16;

/// An unattested address that was given probes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tried {
    pub(super) at: Instant,
    /// The peer named it; otherwise a ping came from there first.
    pub(super) named: bool,
    /// The further ones too, for a ping that came from there.
    pub(super) heard: bool,
}

/// Addresses of the peer's list that are to be asked once more, and when.
#[derive(Debug, Default)]
pub(super) struct Deferred {
    addrs: BTreeSet<SocketAddr>,
    pub(super) at: Option<Instant>,
}

impl Paths {
    /// A relay sees the peer at this address, or the peer answered from there.
    pub(crate) fn attest(&mut self, cx: &mut Cx<'_>, addr: SocketAddr) {
        let ip = addr.ip().to_canonical();
        let known = self.attested.iter().position(|known| *known == ip);
        if let Some(at) = known {
            self.attested.remove(at);
        } else if self.attested.len() >= MAX_ATTESTED {
            self.attested.pop_front();
        }
        self.attested.push_back(ip);
        if known.is_none() {
            for path in self.table.values_mut() {
                if matches!(path.way, Way::Direct { remote, .. } if remote.ip() == ip) {
                    path.attested = true;
                }
            }
            self.tried.retain(|addr, _| addr.ip() != ip);
            self.expand(cx);
        }
    }

    /// Makes the direct paths that the peer's list and our sockets allow and that do not exist yet.
    pub(super) fn expand(&mut self, cx: &mut Cx<'_>) {
        self.tried.retain(|_, tried| tried.at + TRIED_FOR > cx.now);
        let mut refused = BTreeSet::new();
        for remote in self.remote.clone() {
            if !self.ask_named(cx, remote) {
                refused.insert(remote);
            }
        }
        self.deferred = Deferred {
            at: (!refused.is_empty()).then_some(cx.now + TRIED_FOR),
            addrs: refused,
        };
    }

    /// Asks once more where there was no place, or others were asking. Whom they keep away a second time waits for the next list.
    pub(super) fn ask_again(&mut self, cx: &mut Cx<'_>) {
        if self.deferred.at.is_none_or(|at| at > cx.now) {
            return;
        }
        self.tried.retain(|_, tried| tried.at + TRIED_FOR > cx.now);
        for remote in std::mem::take(&mut self.deferred).addrs {
            self.ask_named(cx, remote);
        }
        self.run_checks(cx);
    }

    /// Makes the paths to an address that the peer names. False if there is no room for them, or none for one more stranger.
    fn ask_named(&mut self, cx: &mut Cx<'_>, remote: SocketAddr) -> bool {
        let attested = self.attested.contains(&remote.ip());
        if !attested && self.tried.contains_key(&remote) {
            return true;
        }
        let sockets: Vec<SocketId> = self
            .sockets
            .iter()
            .filter(|s| if remote.is_ipv4() { s.v4 } else { s.v6 })
            .map(|s| s.id)
            .collect();
        // Nobody is asked there: that waits for a network of its family.
        if sockets.is_empty() {
            return true;
        }
        if !attested && self.is_tried_out(true) {
            cx.counters.candidate_waits += 1;
            return false;
        }
        if !attested && !self.may_ask(cx, remote, Because::Named) {
            return false;
        }
        let mut asks = false;
        for socket in sockets {
            let way = Way::Direct { socket, remote };
            asks |= self.find(way).is_some() || self.insert(cx, way, attested).is_some();
        }
        if asks && !attested {
            self.note_asked(cx, remote, Because::Named);
        }
        asks
    }

    /// An unattested address is being asked.
    fn note_asked(&mut self, cx: &mut Cx<'_>, remote: SocketAddr, because: Because) {
        cx.asked.note(cx.now, remote, because, self.own_index().0);
        let named = match because {
            Because::Named => true,
            Because::Heard => self.tried.get(&remote).is_some_and(|tried| tried.named),
        };
        let tried = Tried {
            at: cx.now,
            named,
            heard: because == Because::Heard,
        };
        self.tried.insert(remote, tried);
    }

    /// An authenticated probe came from an address nobody named: a NAT chose it, or the peer forged it to have us probe
    /// somebody else. Until it answers it is as little attested as a candidate.
    pub(super) fn discover(
        &mut self,
        cx: &mut Cx<'_>,
        way: Way,
        remote: SocketAddr,
    ) -> Option<PathId> {
        if class(remote) == Class::Never {
            return None;
        }
        let attested = self.attested.contains(&remote.ip());
        if !attested {
            self.tried.retain(|_, tried| tried.at + TRIED_FOR > cx.now);
            let known = self.tried.get(&remote);
            if known.map_or(self.is_tried_out(false), |tried| tried.heard) {
                return None;
            }
            if !self.may_ask(cx, remote, Because::Heard) {
                return None;
            }
        }
        let id = self.insert(cx, way, attested)?;
        if !attested {
            self.note_asked(cx, remote, Because::Heard);
        }
        if let Some(path) = self.table.get_mut(&id) {
            path.heard = true;
        }
        Some(id)
    }

    /// False if enough others have an unattested address asked at present, which has not answered.
    fn may_ask(&self, cx: &mut Cx<'_>, remote: SocketAddr, because: Because) -> bool {
        let may = cx.asked.may(cx.now, remote, because, self.own_index().0);
        cx.counters.candidate_waits += u64::from(!may);
        may
    }

    /// True if there is no place for another unattested address: one that the peer named, or one that only a ping came from. How
    /// an address came in decides for as long as it is remembered, or each list, once pinged from, would make room for the next.
    fn is_tried_out(&self, named: bool) -> bool {
        let alike = self.tried.values().filter(|tried| tried.named == named);
        alike.count() >= MAX_TRIED
    }

    /// Addresses were asked in vain: from another network, perhaps one that leads to none of their family, or
    /// before the peer knew where to open its own filter for us. Those that the peer names now are asked once more. Changes of
    /// network are bounded by the shell, and a node is seen late once in each. Seen elsewhere, and back from an outage, it is once in a
    /// minute each: a peer that owns a relay we use can bring these about, and has six probes more each minute for it.
    pub(super) fn ask_anew(&mut self, cx: &mut Cx<'_>) {
        let in_vain = |p: &&Path| p.is_direct() && !p.attested && !p.told;
        let in_vain: Vec<PathId> = self.table.values().filter(in_vain).map(|p| p.id).collect();
        for id in in_vain {
            self.remove(id);
        }
        self.tried.clear();
        self.expand(cx);
        for path in self.table.values_mut().filter(|p| p.is_direct()) {
            path.named_again(cx.now);
        }
    }

    /// The one door through which paths come in.
    pub(super) fn insert(&mut self, cx: &mut Cx<'_>, way: Way, attested: bool) -> Option<PathId> {
        if way.kind() == PathKind::Direct
            && self.table.values().filter(|p| p.is_direct()).count() >= MAX_DIRECT
        {
            // What never answered makes room for a new path first, then what has not answered for the longest time: a
            // peer whose NAT gives it one port after another must not run out of room. What works stays, but for what nobody
            // names: a spray may hit more ports than there is room for, and where the peer is next must find a place. What
            // has just been asked stays too, or two new ones would put each other out before either's answer is here.
            let named = |p: &Path| matches!(p.way, Way::Direct { remote, .. } if self.remote.contains(&remote));
            let victim = self
                .table
                .values()
                .filter(|p| p.is_direct() && self.primary != Some(p.id))
                .filter(|p| !p.is_young(cx.now) && (!p.is_fresh(cx.now) || !named(p)))
                .min_by_key(|p| (p.is_fresh(cx.now), p.last_answer, p.told, p.id))
                .map(|p| p.id);
            match victim {
                Some(victim) => self.remove(victim),
                None => {
                    cx.counters.candidate_cut += 1;
                    return None;
                }
            }
        }
        let id = PathId(self.next_path);
        self.next_path += 1;
        self.table.insert(id, Path::new(id, way, attested, cx.now));
        Some(id)
    }
}

#[cfg(test)]
mod tests;
