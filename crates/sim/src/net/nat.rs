//! A NAT in the terms of RFC 4787: how it maps, how it filters, how it numbers ports, and when it forgets.
//!
//! A mapping belongs to an internal endpoint and, depending on the mapping behaviour (section 4.1), to the destination's
//! address or address and port too. Each mapping remembers the destinations it was used for; the filtering behaviour
//! (section 5) says which sources may answer. Mapping and permission alike live for `timeout` after the last outbound
//! datagram (section 4.3, REQ-6: outbound refresh).
//!
//! A port may be given to an inner endpoint that asks for it ([`Nat::give`]): then everyone gets in there. As on most routers
//! that is a rule for what comes in: what the endpoint sends to who has not called is mapped as ever.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::rng::Rng;

/// What a behaviour depends on; mapping and filtering have the same three kinds in RFC 4787.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Dependence {
    /// Endpoint-independent.
    Endpoint,
    /// Address-dependent.
    Address,
    /// Address-and-port-dependent.
    AddressAndPort,
}

/// How external ports are chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ports {
    /// The internal port, or the next free one.
    Preserving,
    /// The internal port for the first mapping of it, random ones for the others (RFC 4787 section 4.2.1: preservation
    /// without overloading).
    PreservingOnce,
    /// The last one plus a delta, which is not 0.
    Sequential(i16),
    /// Random.
    Random,
}

/// A NAT's behaviour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NatConfig {
    /// Mapping behaviour (RFC 4787 section 4.1).
    pub mapping: Dependence,
    /// Filtering behaviour (RFC 4787 section 5).
    pub filtering: Dependence,
    /// Port assignment (RFC 4787 section 4.2).
    pub ports: Ports,
    /// How long a mapping lives without outbound traffic. RFC 4787 asks for two minutes at least.
    pub timeout: Duration,
    /// True if internal hosts reach each other through external addresses (RFC 4787 section 6).
    pub hairpin: bool,
}

impl NatConfig {
    const fn with(mapping: Dependence, filtering: Dependence, ports: Ports) -> Self {
        Self {
            mapping,
            filtering,
            ports,
            timeout: Duration::from_secs(120),
            hairpin: false,
        }
    }
    /// Endpoint-independent mapping and filtering: "full cone".
    pub const fn full_cone() -> Self {
        Self::with(
            Dependence::Endpoint,
            Dependence::Endpoint,
            Ports::Preserving,
        )
    }
    /// Endpoint-independent mapping, address-dependent filtering: "address-restricted cone".
    pub const fn address_restricted() -> Self {
        Self::with(Dependence::Endpoint, Dependence::Address, Ports::Preserving)
    }
    /// Endpoint-independent mapping, address-and-port-dependent filtering: "port-restricted cone".
    pub const fn port_restricted() -> Self {
        Self::with(
            Dependence::Endpoint,
            Dependence::AddressAndPort,
            Ports::Preserving,
        )
    }
    /// Address-and-port-dependent mapping and filtering with random ports: "symmetric".
    pub const fn symmetric() -> Self {
        Self::with(
            Dependence::AddressAndPort,
            Dependence::AddressAndPort,
            Ports::Random,
        )
    }
    /// The same with random ports; one for each internal endpoint, if the mapping is endpoint-independent.
    #[must_use]
    pub const fn random_ports(mut self) -> Self {
        self.ports = Ports::Random;
        self
    }
    /// The same with another mapping timeout.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

/// A port that an inner endpoint asked for (RFC 6887): whoever calls it gets in.
#[derive(Debug)]
struct Given {
    internal: SocketAddr,
    /// Who has called it, and when something last passed between the two: what is sent back to them leaves from the port.
    callers: BTreeMap<SocketAddr, Duration>,
}

/// What of the destination a mapping belongs to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Towards {
    Any,
    Address(IpAddr),
    Endpoint(SocketAddr),
}

impl Towards {
    fn of(dependence: Dependence, remote: SocketAddr) -> Self {
        match dependence {
            Dependence::Endpoint => Self::Any,
            Dependence::Address => Self::Address(remote.ip()),
            Dependence::AddressAndPort => Self::Endpoint(remote),
        }
    }
}

#[derive(Debug)]
struct Mapping {
    internal: SocketAddr,
    towards: Towards,
    last_out: Duration,
    /// When a datagram last left for each destination.
    permitted: BTreeMap<Towards, Duration>,
}

/// Why a NAT let an inbound datagram fall.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// No mapping at that port.
    NoMapping,
    /// A mapping, but nothing was sent to that source.
    Filtered,
}

/// One NAT with its tables.
#[derive(Debug)]
pub struct Nat {
    config: NatConfig,
    external: IpAddr,
    rng: Rng,
    last_port: u16,
    /// By external port.
    mappings: BTreeMap<u16, Mapping>,
    /// (internal, towards) -> external port.
    index: BTreeMap<(SocketAddr, Towards), u16>,
    /// By external port.
    given: BTreeMap<u16, Given>,
    /// Before this moment no mapping and no permission is too old.
    oldest_ends: Duration,
    /// After a rebinding, ports are not preserved, or nothing would have changed.
    rebound: bool,
}

impl Nat {
    /// A NAT with empty tables.
    pub fn new(config: NatConfig, external: IpAddr, mut rng: Rng) -> Self {
        let last_port = rng.between(20_000, 40_000) as u16;
        Self {
            config,
            external,
            rng,
            last_port,
            mappings: BTreeMap::new(),
            index: BTreeMap::new(),
            given: BTreeMap::new(),
            oldest_ends: Duration::ZERO,
            rebound: false,
        }
    }
    /// Its behaviour.
    pub fn config(&self) -> NatConfig {
        self.config
    }
    /// Its external address.
    pub fn external(&self) -> IpAddr {
        self.external
    }
    /// How many mappings are live.
    pub fn mappings(&self) -> usize {
        self.mappings.len()
    }

    /// A datagram leaves: the external endpoint it leaves from.
    pub fn outbound(
        &mut self,
        now: Duration,
        internal: SocketAddr,
        remote: SocketAddr,
    ) -> SocketAddr {
        self.expire(now);
        let answers = |given: &Given| given.internal == internal;
        for (port, given) in self.given.iter_mut().filter(|(_, g)| answers(g)) {
            if let Some(last) = given.callers.get_mut(&remote) {
                *last = now;
                return SocketAddr::new(self.external, *port);
            }
        }
        let towards = Towards::of(self.config.mapping, remote);
        let port = match self.index.get(&(internal, towards)) {
            Some(port) => *port,
            None => {
                // One port for all is the port that was given.
                let given = self.given_to(internal).filter(|_| towards == Towards::Any);
                let port = given.unwrap_or_else(|| self.choose_port(internal.port()));
                self.index.insert((internal, towards), port);
                let mapping = Mapping {
                    internal,
                    towards,
                    last_out: now,
                    permitted: BTreeMap::new(),
                };
                self.mappings.insert(port, mapping);
                port
            }
        };
        if let Some(mapping) = self.mappings.get_mut(&port) {
            mapping.last_out = now;
            let permitted = Towards::of(self.config.filtering, remote);
            mapping.permitted.insert(permitted, now);
        }
        SocketAddr::new(self.external, port)
    }

    /// A datagram arrives at an external port: the internal endpoint it goes to.
    pub fn inbound(
        &mut self,
        now: Duration,
        port: u16,
        remote: SocketAddr,
    ) -> Result<SocketAddr, Refused> {
        self.expire(now);
        if let Some(given) = self.given.get_mut(&port) {
            given.callers.insert(remote, now);
            return Ok(given.internal);
        }
        let mapping = self.mappings.get(&port).ok_or(Refused::NoMapping)?;
        let from = Towards::of(self.config.filtering, remote);
        if mapping.permitted.contains_key(&from) {
            Ok(mapping.internal)
        } else {
            Err(Refused::Filtered)
        }
    }

    /// Where a datagram from `remote` to an external port would go now, if it is let in.
    pub fn leads_to(&self, now: Duration, port: u16, remote: SocketAddr) -> Option<SocketAddr> {
        if let Some(given) = self.given.get(&port) {
            return Some(given.internal);
        }
        let from = Towards::of(self.config.filtering, remote);
        let live = |last: Duration| now.saturating_sub(last) < self.config.timeout;
        let mapping = self.mappings.get(&port).filter(|m| live(m.last_out))?;
        let permitted = mapping.permitted.get(&from).is_some_and(|at| live(*at));
        permitted.then_some(mapping.internal)
    }

    /// Gives an inner endpoint a port by which everyone reaches it, for as long as the NAT does not restart: the one it has
    /// already, the one that all see it at (RFC 6887 section 11.3), its own, or any: none that follows from those it maps to.
    pub fn give(&mut self, internal: SocketAddr) -> SocketAddr {
        let had = self.given_to(internal);
        let seen = || self.index.get(&(internal, Towards::Any)).copied();
        let own = || Some(internal.port()).filter(|port| !self.rebound && !self.is_taken(*port));
        let port = had.or_else(seen).or_else(own);
        let port = port.unwrap_or_else(|| {
            let mut port = self.rng.between(1024, 65_535) as u16;
            while self.is_taken(port) {
                port = port.wrapping_add(1).max(1024);
            }
            port
        });
        self.given.entry(port).or_insert_with(|| Given {
            internal,
            callers: BTreeMap::new(),
        });
        SocketAddr::new(self.external, port)
    }

    /// The NAT restarts: every mapping is gone, and new ones get other ports.
    pub fn rebind(&mut self) {
        self.mappings.clear();
        self.index.clear();
        self.given.clear();
        self.rebound = true;
    }

    fn expire(&mut self, now: Duration) {
        // Nothing can have become too old before what was the oldest at the last look; uses since then only make it younger.
        if now < self.oldest_ends {
            return;
        }
        let timeout = self.config.timeout;
        // What is used first after this look is used now at the earliest.
        let mut ends = now + timeout;
        let mut live = |last: Duration| {
            let live = now.saturating_sub(last) < timeout;
            if live {
                ends = ends.min(last + timeout);
            }
            live
        };
        for given in self.given.values_mut() {
            given.callers.retain(|_, last| live(*last));
        }
        let index = &mut self.index;
        self.mappings.retain(|_, m| {
            m.permitted.retain(|_, last| live(*last));
            let live = live(m.last_out);
            if !live {
                index.remove(&(m.internal, m.towards));
            }
            live
        });
        self.oldest_ends = ends;
    }

    fn given_to(&self, internal: SocketAddr) -> Option<u16> {
        let mut given = self.given.iter();
        let own = given.find(|(_, given)| given.internal == internal);
        own.map(|(port, _)| *port)
    }

    fn is_taken(&self, port: u16) -> bool {
        self.mappings.contains_key(&port) || self.given.contains_key(&port)
    }

    fn choose_port(&mut self, internal: u16) -> u16 {
        let preserves = !self.rebound
            && match self.config.ports {
                Ports::Preserving => true,
                Ports::PreservingOnce => !self.is_taken(internal),
                Ports::Sequential(_) | Ports::Random => false,
            };
        let mut port = match self.config.ports {
            _ if preserves => internal,
            Ports::Sequential(delta) => self.last_port.wrapping_add_signed(delta),
            _ => self.rng.between(1024, 65_535) as u16,
        };
        let onwards = match self.config.ports {
            Ports::Sequential(delta) => delta.signum(),
            _ => 1,
        };
        while port < 1024 || self.is_taken(port) {
            port = port.wrapping_add_signed(onwards);
        }
        self.last_port = port;
        port
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    const IN: &str = "10.0.0.2:5000";
    const A: &str = "198.51.100.1:1000";
    const A2: &str = "198.51.100.1:1001";
    const B: &str = "198.51.100.2:1000";

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }
    fn nat(config: NatConfig) -> Nat {
        Nat::new(
            config,
            "203.0.113.7".parse().unwrap(),
            Rng::new(1, "nat test"),
        )
    }
    const T0: Duration = Duration::ZERO;

    #[test]
    fn endpoint_independent_mapping_uses_one_port_for_every_destination() {
        for config in [
            NatConfig::full_cone(),
            NatConfig::address_restricted(),
            NatConfig::port_restricted(),
        ] {
            let mut n = nat(config);
            let first = n.outbound(T0, addr(IN), addr(A));
            assert_eq!(first, addr("203.0.113.7:5000"), "port preserved");
            assert_eq!(n.outbound(T0, addr(IN), addr(A2)), first);
            assert_eq!(n.outbound(T0, addr(IN), addr(B)), first);
            assert_eq!(n.mappings(), 1);
        }
    }

    #[test]
    fn a_symmetric_nat_uses_another_random_port_for_every_destination() {
        let mut n = nat(NatConfig::symmetric());
        let ports: Vec<u16> = [A, A2, B]
            .iter()
            .map(|r| n.outbound(T0, addr(IN), addr(r)).port())
            .collect();
        assert!(ports[0] != ports[1] && ports[1] != ports[2] && ports[0] != ports[2]);
        assert!(!ports.contains(&5000), "not preserved");
        assert_eq!(n.outbound(T0, addr(IN), addr(A)).port(), ports[0], "stable");
    }

    #[test]
    fn address_dependent_mapping_ignores_the_port() {
        let mut config = NatConfig::symmetric();
        config.mapping = Dependence::Address;
        let mut n = nat(config);
        let a = n.outbound(T0, addr(IN), addr(A));
        assert_eq!(n.outbound(T0, addr(IN), addr(A2)), a);
        assert_ne!(n.outbound(T0, addr(IN), addr(B)), a);
    }

    #[test]
    fn filtering_lets_in_exactly_whom_its_kind_allows() {
        let cases = [
            (NatConfig::full_cone(), [true, true, true]),
            (NatConfig::address_restricted(), [true, true, false]),
            (NatConfig::port_restricted(), [true, false, false]),
            (NatConfig::symmetric(), [true, false, false]),
        ];
        for (config, expected) in cases {
            let mut n = nat(config);
            let port = n.outbound(T0, addr(IN), addr(A)).port();
            for (remote, open) in [A, A2, B].iter().zip(expected) {
                let got = n.inbound(T0, port, addr(remote));
                let want = if open {
                    Ok(addr(IN))
                } else {
                    Err(Refused::Filtered)
                };
                assert_eq!(got, want, "{config:?} from {remote}");
            }
            assert_eq!(n.inbound(T0, 9, addr(A)), Err(Refused::NoMapping));
        }
    }

    #[test]
    fn a_mapping_ends_when_nothing_left_for_the_timeout_and_inbound_does_not_keep_it() {
        let mut n = nat(NatConfig::port_restricted().timeout(Duration::from_secs(30)));
        let port = n.outbound(T0, addr(IN), addr(A)).port();
        assert!(n.inbound(Duration::from_secs(29), port, addr(A)).is_ok());
        assert_eq!(
            n.inbound(Duration::from_secs(30), port, addr(A)),
            Err(Refused::NoMapping)
        );
        assert_eq!(n.mappings(), 0);
    }

    #[test]
    fn a_permission_ends_on_its_own_while_the_mapping_lives() {
        let mut n = nat(NatConfig::port_restricted().timeout(Duration::from_secs(30)));
        let port = n.outbound(T0, addr(IN), addr(A)).port();
        n.outbound(Duration::from_secs(20), addr(IN), addr(B));
        assert_eq!(
            n.inbound(Duration::from_secs(40), port, addr(A)),
            Err(Refused::Filtered)
        );
        assert!(n.inbound(Duration::from_secs(40), port, addr(B)).is_ok());
    }

    #[test]
    fn a_look_whether_it_would_be_let_in_says_what_then_happens() {
        let mut n = nat(NatConfig::port_restricted().timeout(Duration::from_secs(30)));
        let port = n.outbound(T0, addr(IN), addr(A)).port();
        for (at, remote) in [(0, A), (29, A), (29, A2), (30, A)] {
            let at = Duration::from_secs(at);
            let looked = n.leads_to(at, port, addr(remote));
            assert_eq!(looked, n.inbound(at, port, addr(remote)).ok(), "{at:?}");
        }
        assert_eq!(n.leads_to(T0, port, addr(A)), None, "gone for good");
    }

    #[test]
    fn a_cone_with_random_ports_draws_one_for_each_inner_endpoint_and_keeps_it() {
        let mut n = nat(NatConfig::port_restricted().random_ports());
        let first = n.outbound(T0, addr(IN), addr(A));
        assert_ne!(first.port(), 5000);
        assert_eq!(n.outbound(T0, addr(IN), addr(B)), first);
    }

    #[test]
    fn two_internal_hosts_with_one_port_get_two_external_ports() {
        let mut n = nat(NatConfig::port_restricted());
        let one = n.outbound(T0, addr("10.0.0.2:5000"), addr(A));
        let two = n.outbound(T0, addr("10.0.0.3:5000"), addr(A));
        assert_ne!(one, two);
        assert_eq!(
            n.inbound(T0, two.port(), addr(A)),
            Ok(addr("10.0.0.3:5000"))
        );
    }

    #[test]
    fn sequential_ports_follow_the_delta_up_and_down() {
        for delta in [2, -3] {
            let mut config = NatConfig::symmetric();
            config.ports = Ports::Sequential(delta);
            let mut n = nat(config);
            let a = n.outbound(T0, addr(IN), addr(A)).port();
            let b = n.outbound(T0, addr(IN), addr(B)).port();
            assert_eq!(b, a.wrapping_add_signed(delta));
        }
    }

    #[test]
    fn a_port_is_preserved_for_the_first_destination_alone_while_that_holds_it() {
        let mut config = NatConfig::symmetric().timeout(Duration::from_secs(30));
        config.ports = Ports::PreservingOnce;
        let mut n = nat(config);
        assert_eq!(n.outbound(T0, addr(IN), addr(A)).port(), 5000);
        let other = n.outbound(Duration::from_secs(20), addr(IN), addr(B));
        assert!(![4999, 5000, 5001].contains(&other.port()), "{other}");
        let later = Duration::from_secs(30);
        assert_eq!(n.outbound(later, addr(IN), addr(A2)).port(), 5000);
        assert_eq!(n.outbound(later, addr(IN), addr(B)), other);
    }

    #[test]
    fn a_port_that_was_asked_for_lets_everyone_in_and_is_where_their_answers_come_from() {
        let mut n = nat(NatConfig::symmetric());
        let given = n.give(addr(IN));
        assert_eq!(given, addr("203.0.113.7:5000"), "its own, if it is free");
        assert_eq!(n.give(addr(IN)), given, "asked for again it is the same");
        assert_ne!(n.outbound(T0, addr(IN), addr(B)), given, "nobody called");
        assert_eq!(n.leads_to(T0, given.port(), addr(A)), Some(addr(IN)));
        assert_eq!(n.inbound(T0, given.port(), addr(A)), Ok(addr(IN)));
        assert_eq!(n.outbound(T0, addr(IN), addr(A)), given);
        assert_ne!(n.outbound(T0, addr(IN), addr(A2)), given);
        n.rebind();
        let gone = n.inbound(T0, given.port(), addr(A));
        assert_eq!(gone, Err(Refused::NoMapping));
        assert_ne!(n.give(addr(IN)), given);
    }

    #[test]
    fn a_port_that_all_see_is_the_one_that_is_given() {
        let mut n = nat(NatConfig::port_restricted().random_ports());
        let seen = n.outbound(T0, addr(IN), addr(A));
        assert_eq!(n.give(addr(IN)), seen);
        assert_eq!(n.inbound(T0, seen.port(), addr(B)), Ok(addr(IN)));
        assert_eq!(n.outbound(T0, addr(IN), addr(A2)), seen);
        let mut n = nat(NatConfig::port_restricted().random_ports());
        let given = n.give(addr(IN));
        assert_eq!(n.outbound(T0, addr(IN), addr(A)), given, "asked for first");
    }

    #[test]
    fn a_rebinding_closes_the_old_port_and_gives_another() {
        let mut n = nat(NatConfig::port_restricted());
        let old = n.outbound(T0, addr(IN), addr(A)).port();
        n.rebind();
        assert_eq!(n.inbound(T0, old, addr(A)), Err(Refused::NoMapping));
        assert_ne!(n.outbound(T0, addr(IN), addr(A)).port(), old);
    }
}
