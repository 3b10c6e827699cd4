//! A site: what stands between its hosts and the core, and what that does to addresses.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use byway_core::discovery::Prefix;

use super::HostId;
use super::exit::Exit;
use super::firewall::Firewall;
use super::link::{Link, LinkConfig};
use super::nat::{Nat, NatConfig, Refused};

/// How a site is connected. What is not said: its hosts' addresses are public, everything gets out, and the access link is clean.
#[derive(Clone, Debug, Default)]
pub struct SiteConfig {
    /// For traces.
    pub name: String,
    /// The NATs in a row in front of its hosts, each with its address outside, theirs first. None: their addresses are public.
    pub nats: Vec<(NatConfig, IpAddr)>,
    /// The first NAT translates from IPv6 too (NAT64, RFC 6146): it has IPv4 behind this prefix. Takes a NAT. It stands at the
    /// far end of the access link, which datagrams so translated cross as IPv6.
    pub nat64: Option<Prefix>,
    /// The first NAT gives a port to a host that asks for one (RFC 6887).
    pub gives_ports: bool,
    /// What stands in front of its hosts' IPv6 addresses.
    pub v6: V6,
    /// What gets out (inside the site everything works).
    pub exit: Exit,
    /// From the site to the core.
    pub up: LinkConfig,
    /// From the core to the site.
    pub down: LinkConfig,
}

/// What a site does with IPv6.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum V6 {
    /// It carries it as it is.
    #[default]
    Plain,
    /// A stateful firewall stands in front of it, which forgets a flow after this time.
    Firewall(Duration),
    /// Its hosts' addresses lead nowhere: what they send goes out, and nothing ever comes back.
    Broken,
}

#[derive(Debug)]
pub(super) struct Site {
    pub(super) config: SiteConfig,
    /// The hosts' own first.
    pub(super) nats: Vec<Nat>,
    pub(super) firewall: Option<Firewall>,
    pub(super) up: Link,
    pub(super) down: Link,
    pub(super) lan: BTreeMap<IpAddr, HostId>,
}

impl Site {
    /// True if a host's own address is its address outside too.
    pub(super) fn is_public(&self, addr: IpAddr) -> bool {
        if addr.is_ipv4() {
            self.nats.is_empty()
        } else {
            self.config.v6 != V6::Broken
        }
    }
    /// Its IPv4 address, if that is not its hosts' own.
    pub(super) fn external(&self) -> Option<IpAddr> {
        self.nats.last().map(Nat::external)
    }
    /// Where the translator takes what a host sends to this address: the IPv4 address that stands behind its prefix.
    pub(super) fn behind_prefix(&self, to: SocketAddr) -> SocketAddr {
        let translated = self.config.nat64.and_then(|prefix| prefix.inside(to));
        translated.unwrap_or(to)
    }
    /// A datagram of a host's leaves: where it comes from outside.
    pub(super) fn outbound(
        &mut self,
        now: Duration,
        from: SocketAddr,
        to: SocketAddr,
    ) -> SocketAddr {
        if to.is_ipv6() {
            if let Some(firewall) = &mut self.firewall {
                firewall.outbound(now, from, to);
            }
            return from;
        }
        let nats = self.nats.iter_mut();
        nats.fold(from, |from, nat| nat.outbound(now, from, to))
    }
    /// A datagram comes from outside: from where and to where it is inside.
    pub(super) fn inbound(
        &mut self,
        now: Duration,
        from: SocketAddr,
        to: SocketAddr,
    ) -> Result<(SocketAddr, SocketAddr), Refused> {
        if to.is_ipv6() {
            let firewall = self.firewall.as_ref();
            let fine = firewall.is_none_or(|wall| wall.lets_in(now, to, from));
            return if fine {
                Ok((from, to))
            } else {
                Err(Refused::Filtered)
            };
        }
        let mut nats = self.nats.iter_mut().rev();
        let to = nats.try_fold(to, |to, nat| nat.inbound(now, to.port(), from))?;
        let prefix = self.config.nat64.filter(|_| to.is_ipv6());
        let translated = prefix.and_then(|prefix| prefix.outside(from));
        Ok((translated.unwrap_or(from), to))
    }
    /// True if a datagram crosses the access link as IPv6: it is, or the translator, which stands before that link, makes it so.
    pub(super) fn takes_as_v6(&self, now: Duration, from: SocketAddr, to: SocketAddr) -> bool {
        let inside = || self.leads_to(now, from, to);
        let translates = self.config.nat64.is_some();
        to.is_ipv6() || translates && inside().is_some_and(|to| to.is_ipv6())
    }
    /// Where a datagram of IPv4 would go now, if it is let in.
    pub(super) fn leads_to(
        &self,
        now: Duration,
        from: SocketAddr,
        to: SocketAddr,
    ) -> Option<SocketAddr> {
        let mut nats = self.nats.iter().rev();
        nats.try_fold(to, |to, nat| nat.leads_to(now, to.port(), from))
    }
}
