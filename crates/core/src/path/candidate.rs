//! Candidates: the addresses we offer, and which offered addresses we believe.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use byway_wire::signal::{Candidate, CandidateKind, MAX_CANDIDATES};

use crate::counters::Counters;
use crate::io::LocalSocket;

/// Who tells us addresses of our own. Each source replaces its own list as a whole; a new way of finding addresses
/// (port mapping, an operator's list) is a new variant here and nothing else.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Source {
    /// Where relays see our UDP links.
    Links,
    /// STUN.
    Discovery,
    /// A port that the gateway holds for us.
    Mapped,
    /// The host's interfaces.
    Interfaces,
    /// Where a NAT that counts will put us next.
    Predicted,
}

/// Our own candidates.
#[derive(Debug, Default)]
pub(crate) struct LocalCandidates {
    lists: BTreeMap<Source, Vec<Candidate>>,
    /// Loopback addresses of our sockets: offered only to a peer on this host.
    loopback: Vec<Candidate>,
    host_ips: BTreeSet<IpAddr>,
    /// As last told.
    offered: Vec<Candidate>,
}

impl LocalCandidates {
    /// Takes the host's sockets; true if the offer changed.
    pub(crate) fn set_sockets(&mut self, sockets: &[LocalSocket]) -> bool {
        let mut hosts = Vec::new();
        self.loopback.clear();
        self.host_ips.clear();
        for socket in sockets {
            for ip in &socket.addrs {
                let ip = ip.to_canonical();
                let candidate = Candidate {
                    kind: CandidateKind::Host,
                    addr: SocketAddr::new(ip, socket.port),
                };
                if ip.is_loopback() {
                    self.loopback.push(candidate);
                } else if class(candidate.addr) == Class::Routable {
                    self.host_ips.insert(ip);
                    hosts.push(candidate);
                }
            }
            // A socket bound to any address is reached over loopback whether or not the shell lists it.
            let any = |ip: IpAddr| Candidate {
                kind: CandidateKind::Host,
                addr: SocketAddr::new(ip, socket.port),
            };
            if socket.v4 {
                self.loopback
                    .push(any(std::net::Ipv4Addr::LOCALHOST.into()));
            }
            if socket.v6 {
                self.loopback
                    .push(any(std::net::Ipv6Addr::LOCALHOST.into()));
            }
        }
        self.loopback.sort();
        self.loopback.dedup();
        self.set(Source::Interfaces, hosts)
    }

    /// Takes one source's whole list; true if the offer changed.
    pub(crate) fn set(&mut self, source: Source, list: Vec<Candidate>) -> bool {
        self.lists.insert(source, list);
        let mut seen = BTreeSet::new();
        let mut offer = Vec::new();
        for candidate in self.lists.values().flatten() {
            let candidate = Candidate {
                addr: byway_wire::canonical(candidate.addr),
                ..*candidate
            };
            if class(candidate.addr) == Class::Routable && seen.insert(candidate.addr) {
                offer.push(candidate);
            }
        }
        offer.truncate(MAX_CANDIDATES);
        let changed = offer != self.offered;
        self.offered = offer;
        changed
    }

    /// What everybody is offered.
    pub(crate) fn offered(&self) -> &[Candidate] {
        &self.offered
    }
    /// What a peer is offered; loopback only on its own host.
    pub(crate) fn for_peer(&self, same_host: bool) -> Vec<Candidate> {
        let mut list = self.offered.clone();
        if same_host {
            list.truncate(MAX_CANDIDATES.saturating_sub(self.loopback.len()));
            list.extend(self.loopback.iter().copied());
        }
        list
    }
    /// True if `ip` is an address of this host.
    pub(crate) fn is_own_ip(&self, ip: IpAddr) -> bool {
        self.host_ips.contains(&ip)
    }
    /// True if `addr` is one of our own sockets: a peer never lives there.
    pub(crate) fn is_own_addr(&self, addr: SocketAddr) -> bool {
        self.loopback.iter().any(|c| c.addr == addr)
            || (self.host_ips.contains(&addr.ip())
                && self.loopback.iter().any(|c| c.addr.port() == addr.port()))
    }
}

/// What kind of address it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Class {
    /// A unicast address that may lie anywhere: public, private, shared.
    Routable,
    /// This host.
    Loopback,
    /// Never a peer: multicast, broadcast, unspecified, reserved, link-local (it needs a scope no peer can name), port 0.
    Never,
}

pub(crate) fn class(addr: SocketAddr) -> Class {
    let never = match addr.ip() {
        IpAddr::V4(ip) => {
            // 0.0.0.0/8 and 240.0.0.0/4 (with the broadcast address) are nobody's; 192.0.0.0/24 is each host's own, where
            // a network has no IPv4 (RFC 7335).
            let first = ip.octets()[0];
            let local = ip.octets()[..3] == [192, 0, 0];
            first == 0 || first >= 240 || local || ip.is_multicast() || ip.is_link_local()
        }
        IpAddr::V6(ip) => {
            ip.is_unspecified()
                || ip.is_multicast()
                || ip.is_unicast_link_local()
                || ip.to_ipv4_mapped().is_some()
        }
    };
    if never || addr.port() == 0 {
        Class::Never
    } else if addr.ip().is_loopback() {
        Class::Loopback
    } else {
        Class::Routable
    }
}

/// Reads a peer's list: canonical, without duplicates, without addresses that cannot be a peer's. What is left out is
/// counted. `same_host` rests on what a relay attests, never on the list itself: a peer that names an address of ours
/// must not be able to aim probes at our loopback.
pub(crate) fn believe(
    list: &[Candidate],
    local: &LocalCandidates,
    same_host: bool,
    counters: &mut Counters,
) -> Vec<SocketAddr> {
    counters.candidate_cut += list.len().saturating_sub(MAX_CANDIDATES) as u64;
    let list = &list[..list.len().min(MAX_CANDIDATES)];
    let mut seen = BTreeSet::new();
    let mut believed = Vec::new();
    for candidate in list {
        let addr = byway_wire::canonical(candidate.addr);
        let fine = match class(addr) {
            Class::Routable => true,
            Class::Loopback => same_host,
            Class::Never => false,
        };
        if !fine || local.is_own_addr(addr) {
            counters.candidate_refused += 1;
        } else if seen.insert(addr) {
            believed.push(addr);
        }
    }
    believed
}
