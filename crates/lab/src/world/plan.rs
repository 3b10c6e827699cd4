//! An internet declared in a few lines: regions, public hosts and relays, sites behind their routers.
//!
//! ```no_run
//! # use std::time::Duration;
//! # use byway_lab::world::{Plan, Site};
//! # use byway_sim::model::Access::{PortRestricted, Symmetric};
//! # fn main() -> anyhow::Result<()> {
//! let ms = Duration::from_millis;
//! let internet = Plan::new()
//!     .region("europe")
//!     .relay("relay-eu")
//!     .site("client", Site::behind(PortRestricted).access(ms(5)))
//!     .region("america")
//!     .relay("relay-us")
//!     .site("agent", Site::behind(Symmetric).access(ms(8)).hairpins())
//!     .neighbour("printer")
//!     .guest("visitor")
//!     .apart("europe", "america", ms(40))
//!     .build()?;
//! println!("{}", internet.host("agent")?.public);
//! # Ok(())
//! # }
//! ```
//!
//! What follows a region is in it; what follows a site's first host by [`Plan::neighbour`], [`Plan::guest`] or [`Plan::customer`] is
//! in that site.
//! A mistake in a plan (a name given twice, more sites than there are addresses) is told when it is built.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use byway_sim::model::Access;

use super::internet::Internet;
use crate::kinds::Kind;
use crate::router::Router;

/// What stands between a site and the internet, and how long the way there is.
#[derive(Clone, Copy, Debug)]
pub struct Site {
    pub(super) kind: Kind,
    pub(super) access: Duration,
    pub(super) hairpins: bool,
    pub(super) forgets: Duration,
}

impl Site {
    /// A network of such a kind: no delay, no hairpinning, mappings that last for two minutes.
    pub fn behind(kind: impl Into<Kind>) -> Self {
        Self {
            kind: kind.into(),
            access: Duration::ZERO,
            hairpins: false,
            forgets: Router::FORGETS,
        }
    }

    /// How many routers stand in a row.
    pub(super) fn routers(self) -> usize {
        self.kind.0.access.routers()
    }

    /// How long its access takes, one way.
    pub fn access(mut self, access: Duration) -> Self {
        self.access = access;
        self
    }

    /// Its hosts reach each other by what they are outside.
    pub fn hairpins(mut self) -> Self {
        self.hairpins = true;
        self
    }

    /// Its routers forget a mapping of UDP after so long without a packet, in whole seconds.
    pub fn forgets(mut self, after: Duration) -> Self {
        self.forgets = after;
        self
    }
}

impl From<Kind> for Site {
    fn from(kind: Kind) -> Self {
        Self::behind(kind)
    }
}

impl From<Access> for Site {
    fn from(access: Access) -> Self {
        Self::behind(access)
    }
}

/// Which of its site's networks a host is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lan {
    Main,
    /// The router forwards nothing between this one and the other.
    Guests,
    /// Behind another router at the same carrier, who forwards nothing between its customers.
    Customer,
}

#[derive(Debug)]
pub(super) struct PlannedSite {
    pub(super) site: Site,
    pub(super) region: usize,
    pub(super) hosts: Vec<(String, Lan)>,
}

impl PlannedSite {
    /// A site is known by its first host.
    pub(super) fn name(&self) -> &str {
        &self.hosts[0].0
    }
}

#[derive(Debug)]
pub(super) struct PlannedHost {
    pub(super) name: String,
    pub(super) region: usize,
    pub(super) addrs: Vec<Ipv4Addr>,
}

/// An internet that is not built yet.
#[derive(Debug)]
#[must_use = "nothing is there before it is built"]
pub struct Plan {
    pub(super) seed: u64,
    regions: Vec<String>,
    apart: Vec<(String, String, Duration)>,
    pub(super) hosts: Vec<PlannedHost>,
    pub(super) sites: Vec<PlannedSite>,
    relays: u8,
    mistake: Option<String>,
}

/// The first address of a relay that is named by [`Plan::relay`], and how many there are room for among the counters.
const FIRST_RELAY: u8 = 10;
const MAX_RELAYS: u8 = 6;
/// A network's host part is enough for more; a machine is not.
const MAX_SITES: usize = 20;
/// An interface's name has 15 bytes, two of which say what it is for.
const LONGEST_NAME: usize = 13;

impl Default for Plan {
    fn default() -> Self {
        Self::new()
    }
}

impl Plan {
    /// An empty one, with a first region that has no name.
    pub fn new() -> Self {
        Self {
            seed: 1,
            regions: vec![String::new()],
            apart: Vec::new(),
            hosts: Vec::new(),
            sites: Vec::new(),
            relays: 0,
            mistake: None,
        }
    }

    /// Of the emulated links' chances: which packets are lost depends on how many came before, so a run repeats where its
    /// packets do.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Begins a region: what follows is in it.
    pub fn region(mut self, name: &str) -> Self {
        self.regions.push(name.to_owned());
        self
    }

    /// How far two regions are from each other, one way.
    pub fn apart(mut self, one: &str, other: &str, delay: Duration) -> Self {
        self.apart.push((one.to_owned(), other.to_owned(), delay));
        self
    }

    /// A host with public addresses, from 203.0.113.0/26: those from 8 to 15 are counted as relays.
    pub fn host(mut self, name: &str, addrs: &[Ipv4Addr]) -> Self {
        self.hosts.push(PlannedHost {
            name: name.to_owned(),
            region: self.regions.len() - 1,
            addrs: addrs.to_vec(),
        });
        self
    }

    /// A host for a relay, with a public address of its own.
    pub fn relay(mut self, name: &str) -> Self {
        if self.relays == MAX_RELAYS {
            self.mistake = Some(format!("{name}: there is room for {MAX_RELAYS} relays"));
            return self;
        }
        let addr = Ipv4Addr::new(203, 0, 113, FIRST_RELAY + self.relays);
        self.relays += 1;
        self.host(name, &[addr])
    }

    /// A site with its first host, which gives it its name. The site's public address is the next from 203.0.113.65 on.
    pub fn site(mut self, name: &str, site: impl Into<Site>) -> Self {
        self.sites.push(PlannedSite {
            site: site.into(),
            region: self.regions.len() - 1,
            hosts: vec![(name.to_owned(), Lan::Main)],
        });
        self
    }

    /// Another host in the network of the last site.
    pub fn neighbour(self, name: &str) -> Self {
        self.in_last_site(name, Lan::Main)
    }

    /// Another host at the last site, in a second network behind its router: a guest, who sees the internet and none of those
    /// inside.
    pub fn guest(self, name: &str) -> Self {
        self.in_last_site(name, Lan::Guests)
    }

    /// A host of another customer of the carrier that the last site is behind, with a router of its own.
    pub fn customer(mut self, name: &str) -> Self {
        match self.sites.last_mut() {
            Some(last) if last.site.routers() > 1 => {
                last.hosts.push((name.to_owned(), Lan::Customer));
            }
            _ => self.mistake = Some(format!("{name}: there is no carrier before it")),
        }
        self
    }

    /// Builds it.
    pub fn build(self) -> Result<Internet> {
        self.check()?;
        Internet::create(&self)
    }

    fn in_last_site(mut self, name: &str, lan: Lan) -> Self {
        match self.sites.last_mut() {
            Some(last) if last.site.routers() > 0 => last.hosts.push((name.to_owned(), lan)),
            _ => self.mistake = Some(format!("{name}: there is no router before it to be behind")),
        }
        self
    }

    fn check(&self) -> Result<()> {
        if let Some(mistake) = &self.mistake {
            bail!("{mistake}");
        }
        ensure!(
            self.sites.len() <= MAX_SITES,
            "there is room for {MAX_SITES} sites"
        );
        for site in &self.sites {
            let (name, kind) = (site.name(), site.site.kind);
            ensure!(
                kind.is_built(),
                "{name}: a network of {kind} is not built here"
            );
        }
        let of_sites = self.sites.iter().flat_map(|site| &site.hosts);
        let names = self.hosts.iter().map(|host| &host.name);
        let mut names: Vec<&String> = names.chain(of_sites.map(|(name, _)| name)).collect();
        names.sort();
        for pair in names.windows(2) {
            ensure!(pair[0] != pair[1], "two hosts are called {}", pair[0]);
        }
        if let Some(long) = names.iter().find(|name| name.len() > LONGEST_NAME) {
            bail!("{long}: a name has {LONGEST_NAME} bytes at the most");
        }
        self.far().map(drop)
    }

    /// Pairs of regions, by number, and their distance.
    fn far(&self) -> Result<Vec<(usize, usize, Duration)>> {
        let find = |name: &String| {
            let at = self.regions.iter().position(|known| known == name);
            at.with_context(|| format!("there is no region {name}"))
        };
        self.apart
            .iter()
            .map(|(one, other, delay)| Ok((find(one)?, find(other)?, *delay)))
            .collect()
    }

    /// The ports of the switch between them all: name, region, and the delay of the cable.
    pub(super) fn ports(&self) -> Vec<(&str, usize, Duration)> {
        let hosts = self
            .hosts
            .iter()
            .map(|host| (host.name.as_str(), host.region, Duration::ZERO));
        let sites = self
            .sites
            .iter()
            .map(|site| (site.name(), site.region, site.site.access));
        hosts.chain(sites).collect()
    }

    /// The public address of the site with this number, from 1 on.
    pub(super) fn public(number: u8) -> Ipv4Addr {
        Ipv4Addr::new(203, 0, 113, 64 + number)
    }

    /// Every public address, and the first one of its host.
    pub(super) fn addresses(&self) -> Vec<(Ipv4Addr, Ipv4Addr)> {
        let of_hosts = self.hosts.iter().flat_map(|host| {
            let first = host.addrs.first().copied();
            host.addrs
                .iter()
                .filter_map(move |addr| Some((*addr, first?)))
        });
        let of_sites = (1..)
            .zip(&self.sites)
            .map(|(n, _)| (Self::public(n), Self::public(n)));
        of_hosts.chain(of_sites).collect()
    }

    /// Pairs of ports and what is between their regions, in both directions.
    pub(super) fn distances(&self) -> Result<Vec<(&str, &str, Duration)>> {
        let mut all = Vec::new();
        for (one, other, delay) in self.far()? {
            for (from, of_from, _) in self.ports() {
                for (to, of_to, _) in self.ports() {
                    if (of_from, of_to) == (one, other) || (of_to, of_from) == (one, other) {
                        all.push((from, to, delay));
                    }
                }
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use byway_sim::model::Place;

    use super::*;

    #[test]
    fn what_is_wrong_with_a_plan_is_named() {
        let site = || Plan::new().site("a", Access::PortRestricted);
        for (plan, named) in [
            (site().site("a", Access::Open), "two hosts are called a"),
            (site().neighbour("a"), "two hosts are called a"),
            (Plan::new().guest("b"), "b: there is no router"),
            (
                Plan::new().site("a", Access::Open).neighbour("b"),
                "b: there is no router",
            ),
            (
                site().region("x").apart("x", "y", Duration::ZERO),
                "region y",
            ),
            (site().customer("b"), "b: there is no carrier"),
            (site().neighbour("fourteen-bytes"), "fourteen-bytes: "),
            (
                Plan::new().site("a", Kind(Place::from(Access::Symmetric).gives_port())),
                "a: a network of ",
            ),
            (
                (0..7).fold(Plan::new(), |plan, n| plan.relay(&format!("r{n}"))),
                "r6: ",
            ),
        ] {
            let error = plan.check().unwrap_err().to_string();
            assert!(error.contains(named), "{named}: {error}");
        }
        assert!(site().neighbour("b").guest("c").check().is_ok());
    }

    #[test]
    fn regions_are_apart_in_both_directions_and_a_region_is_not_from_itself() {
        let delay = Duration::from_millis(40);
        let plan = Plan::new()
            .region("x")
            .relay("r")
            .site("a", Access::Open)
            .region("y")
            .site("b", Access::Open)
            .apart("x", "y", delay);
        let mut far = plan.distances().unwrap();
        far.sort_unstable();
        assert_eq!(
            far,
            [("a", "b"), ("b", "a"), ("b", "r"), ("r", "b")].map(|(a, b)| (a, b, delay))
        );
    }
}
