//! The network: sites with access links and NATs, hosts inside them, and everything that is under way.
//!
//! A *site* is a place with one access link and, perhaps, NATs and a firewall: a flat, an office, a data centre. Hosts live in sites.
//! Sites meet in a core that is instantaneous and never loses; all delay, loss and rate is in the access links. A
//! datagram takes three steps, each at its own time:
//!
//! 1. **leave**: the site's firewall and NATs (outbound), then the uplink;
//! 2. **cross**: the core finds the destination's site (holes are here), then that site's downlink;
//! 3. **arrive**: the NATs (inbound), then the host.
//!
//! Hosts of one site reach each other over its LAN without any of that. Byte pipes (TCP) are in [`pipe`].
//!
//! NATs are IPv4's alone, but for what NAT64 takes there. IPv6 addresses are public, behind a firewall if the site has one; a
//! site with broken IPv6 gives its hosts addresses to which nobody finds a way.
//!
//! An attacker's network is no different, but it may do what real ones can: send with any source address
//! ([`Network::send_spoofed`]), and listen to the core ([`Network::tap`]).
//!
//! The network also owns the clock and the queue of what happens when: [`Network::step`] takes the next event, moves the
//! clock to it and returns what a host must hear of.

mod datagram;
mod exit;
mod firewall;
pub mod link;
pub mod nat;
pub mod pipe;
mod queue;
mod site;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use byway_core::discovery::Prefix;

use crate::rng::Rng;
use crate::trace::Trace;
pub use exit::Exit;
use firewall::Firewall;
use link::{Link, LinkConfig};
use nat::Nat;
use pipe::{PipeId, Pipes, Side};
use queue::Queue;
use site::Site;
pub use site::{SiteConfig, V6};

/// One host.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct HostId(pub u32);

/// One site.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct SiteId(pub u32);

/// Which traffic a hole swallows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Traffic {
    /// Everything, pipes too.
    All,
    /// Datagrams.
    Udp,
    /// IPv6 datagrams.
    V6,
    /// Datagrams whose payload begins with this byte.
    FirstByte(u8),
    /// Datagrams whose payload is longer than this.
    LongerThan(usize),
}

/// A black hole between two sites, in one direction. `None` is any site.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hole {
    /// Coming from there.
    pub from: Option<SiteId>,
    /// Going there.
    pub to: Option<SiteId>,
    /// What falls into it.
    pub what: Traffic,
}

/// What a host must hear of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Happening {
    /// The wake-up it asked for.
    Wake,
    /// A datagram came in.
    Datagram {
        /// Its source, as the host sees it.
        from: SocketAddr,
        /// The host's own address it was sent to.
        to: SocketAddr,
        /// Its payload.
        data: Bytes,
    },
    /// Someone connected a pipe to one of its ports.
    PipeAccepted {
        /// Which.
        pipe: PipeId,
        /// Its source, as the host sees it.
        from: SocketAddr,
    },
    /// A pipe it dialled is connected.
    PipeConnected {
        /// Which.
        pipe: PipeId,
    },
    /// A message arrived on a pipe.
    PipeData {
        /// Which.
        pipe: PipeId,
        /// The message.
        data: Bytes,
    },
    /// A pipe that had no room for more has some again ([`Network::pipe_room`]).
    PipeRoom {
        /// Which.
        pipe: PipeId,
    },
    /// A pipe broke, or could not be connected.
    PipeBroken {
        /// Which.
        pipe: PipeId,
    },
}

#[derive(Debug)]
enum Event {
    Cross {
        from_site: SiteId,
        from: SocketAddr,
        to: SocketAddr,
        data: Bytes,
    },
    Arrive {
        from_site: SiteId,
        site: SiteId,
        from: SocketAddr,
        to: SocketAddr,
        data: Bytes,
    },
    Deliver {
        from_site: SiteId,
        host: HostId,
        from: SocketAddr,
        to: SocketAddr,
        data: Bytes,
    },
    PipeTry(PipeId, Side),
    PipeArrive(PipeId, Side),
    Wake(HostId),
    Script(u32),
}

#[derive(Debug)]
struct Host {
    site: SiteId,
    addrs: Vec<IpAddr>,
    /// UDP and TCP ports it listens on.
    ports: BTreeSet<u16>,
    /// False: the process is dead; the machine answers pipes with a reset and UDP with nothing.
    alive: bool,
    wake: Option<Duration>,
}

/// What [`Network::step`] found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Something for a host.
    Host(HostId, Happening),
    /// A scripted moment came ([`Network::script_at`]).
    Script(u32),
    /// Something inside the network.
    Inside,
    /// Nothing is left before the limit; the clock stands at the limit.
    Limit,
}

/// A datagram as it crossed the core: who sent it and to whom, as seen from outside, and what it was.
pub type Tapped = (SocketAddr, SocketAddr, Bytes);

/// Virtual time starts at this moment of wall clocks.
const EPOCH: Duration = Duration::from_secs(1_700_000_000);
/// How long a LAN takes.
const LAN_DELAY: Duration = Duration::from_micros(300);

/// See the module's documentation.
#[derive(Debug)]
pub struct Network {
    base: Instant,
    now: Duration,
    /// How far the clock of the host that is at work now is behind.
    lag: Duration,
    /// How far the clocks of hosts are behind that slept and did not count it.
    lags: BTreeMap<HostId, Duration>,
    /// How far the wall clocks of hosts are before the right time, or behind it.
    walls: BTreeMap<HostId, (Duration, Duration)>,
    seed: u64,
    queue: Queue<Event>,
    sites: Vec<Site>,
    hosts: Vec<Host>,
    /// Public addresses: a NAT's, or a host's in a site without one.
    public: BTreeMap<IpAddr, SiteId>,
    holes: Vec<Hole>,
    pipes: Pipes,
    /// Datagrams by fate.
    fates: BTreeMap<&'static str, u64>,
    /// Datagrams delivered, by the site that really sent them and the host that got them.
    delivered: BTreeMap<(SiteId, HostId), u64>,
    /// The last datagrams that crossed the core, if someone listens, who hears all but what comes from this site.
    tapped: Option<(SiteId, VecDeque<Tapped>)>,
    /// What happened.
    pub trace: Trace,
}

impl Network {
    /// An empty network. `base` is the instant at which virtual time starts; nothing else reads a clock.
    pub fn new(base: Instant, seed: u64, trace: Trace) -> Self {
        Self {
            base,
            now: Duration::ZERO,
            lag: Duration::ZERO,
            lags: BTreeMap::new(),
            walls: BTreeMap::new(),
            seed,
            queue: Queue::new(),
            sites: Vec::new(),
            hosts: Vec::new(),
            public: BTreeMap::new(),
            holes: Vec::new(),
            pipes: Pipes::new(Rng::new(seed, "pipes")),
            fates: BTreeMap::new(),
            delivered: BTreeMap::new(),
            tapped: None,
            trace,
        }
    }
    /// A generator of the run's seed for one purpose.
    pub fn rng(&self, label: &str) -> Rng {
        Rng::new(self.seed, label)
    }
    /// Virtual time since the start.
    pub fn now(&self) -> Duration {
        self.now
    }
    /// The same as an instant, for the state machines: by the clock of the host that is at work.
    pub fn instant(&self) -> Instant {
        self.base + self.now.saturating_sub(self.lag)
    }
    /// An instant of that clock as time since the start.
    pub fn since_start(&self, instant: Instant) -> Duration {
        instant.saturating_duration_since(self.base) + self.lag
    }
    /// The wall clock of a host, since 1970. It goes on while the host sleeps, and is as right as it was set.
    pub fn wall(&self, host: HostId) -> Duration {
        let (before, behind) = self.walls.get(&host).copied().unwrap_or_default();
        (EPOCH + self.now + before).saturating_sub(behind)
    }
    /// The wall clock of a host is set: forwards, or back.
    pub(crate) fn set_wall(&mut self, host: HostId, forwards: bool, by: Duration) {
        let direction = if forwards { "forwards" } else { "back" };
        let text = format!("host {} {direction} by {by:?}", host.0);
        self.trace.say(self.now, "clock", text);
        let (before, behind) = self.walls.entry(host).or_default();
        *(if forwards { before } else { behind }) += by;
    }
    /// From now on this host is at work: instants are those of its clock.
    pub(crate) fn at_work(&mut self, host: HostId) {
        self.lag = self.lags.get(&host).copied().unwrap_or_default();
    }
    /// The clock of a host stood still for so long.
    pub(crate) fn set_back(&mut self, host: HostId, time: Duration) {
        *self.lags.entry(host).or_default() += time;
    }

    /// Adds a site.
    pub fn add_site(&mut self, config: SiteConfig) -> SiteId {
        let id = SiteId(self.sites.len() as u32);
        let label = |what: &str| format!("{what} {}", id.0);
        if let Some((_, external)) = config.nats.last() {
            self.public.insert(*external, id);
        }
        let last = config.nats.len().saturating_sub(1);
        let nats = config.nats.iter().enumerate().map(|(n, (nat, external))| {
            let label = if n == last {
                label("nat")
            } else {
                format!("{} before {n}", label("nat"))
            };
            Nat::new(*nat, *external, self.rng(&label))
        });
        self.sites.push(Site {
            nats: nats.collect(),
            firewall: match config.v6 {
                V6::Firewall(timeout) => Some(Firewall::new(timeout)),
                V6::Plain | V6::Broken => None,
            },
            up: Link::new(config.up, self.rng(&label("up"))),
            down: Link::new(config.down, self.rng(&label("down"))),
            lan: BTreeMap::new(),
            config,
        });
        id
    }
    /// Adds a host to a site; IPv6 addresses are public, and IPv4 ones without a NAT.
    pub fn add_host(&mut self, site: SiteId, addrs: Vec<IpAddr>, ports: &[u16]) -> HostId {
        let id = HostId(self.hosts.len() as u32);
        let place = &mut self.sites[site.0 as usize];
        for addr in &addrs {
            place.lan.insert(*addr, id);
            if place.is_public(*addr) {
                self.public.insert(*addr, site);
            }
        }
        self.hosts.push(Host {
            site,
            addrs,
            ports: ports.iter().copied().collect(),
            alive: true,
            wake: None,
        });
        id
    }
    /// Moves a host to another site, where it has these addresses. Its ports stay bound, as on sockets that name no address.
    pub fn move_host(&mut self, id: HostId, site: SiteId, addrs: Vec<IpAddr>) {
        let host = &mut self.hosts[id.0 as usize];
        let left = std::mem::replace(&mut host.site, site);
        let old = std::mem::replace(&mut host.addrs, addrs.clone());
        for addr in &old {
            let left_site = &mut self.sites[left.0 as usize];
            left_site.lan.remove(addr);
            if self.public.get(addr) == Some(&left) && left_site.is_public(*addr) {
                self.public.remove(addr);
            }
        }
        let place = &mut self.sites[site.0 as usize];
        for addr in addrs {
            place.lan.insert(addr, id);
            if place.is_public(addr) {
                self.public.insert(addr, site);
            }
        }
        self.pipes.lead_astray(id);
    }
    /// Binds one more port of a host.
    pub fn bind(&mut self, host: HostId, port: u16) {
        self.hosts[host.0 as usize].ports.insert(port);
    }
    /// Closes a port of a host.
    pub fn unbind(&mut self, host: HostId, port: u16) {
        self.hosts[host.0 as usize].ports.remove(&port);
    }
    /// A host's own addresses.
    pub fn addrs(&self, host: HostId) -> &[IpAddr] {
        &self.hosts[host.0 as usize].addrs
    }
    /// Where a host lives.
    pub fn site_of(&self, host: HostId) -> SiteId {
        self.hosts[host.0 as usize].site
    }
    /// Both directions of a site's access link, for changing while running.
    pub fn links_mut(&mut self, site: SiteId) -> (&mut LinkConfig, &mut LinkConfig) {
        let site = &mut self.sites[site.0 as usize];
        (&mut site.up.config, &mut site.down.config)
    }
    /// From now on the access link of a site loses this share of its packets, in both directions.
    pub fn set_loss(&mut self, site: SiteId, share: f64) {
        let text = format!("site {} loses {share}", site.0);
        self.trace.say(self.now, "loss", text);
        let (up, down) = self.links_mut(site);
        up.loss = share;
        down.loss = share;
    }
    /// From now on the access link of a site takes this long, in both directions.
    pub fn set_delay(&mut self, site: SiteId, delay: Duration) {
        let text = format!("site {} takes {delay:?}", site.0);
        self.trace.say(self.now, "delay", text);
        let (up, down) = self.links_mut(site);
        up.delay = delay;
        down.delay = delay;
    }
    /// A site gets another public address of this family: that of its last NAT, which starts anew, or, where there is none,
    /// that of its one host. What is sent to the old one arrives nowhere.
    pub fn readdress(&mut self, site: SiteId, ip: IpAddr) {
        let text = format!("site {} is at {ip}", site.0);
        self.trace.say(self.now, "readdress", text);
        self.public
            .retain(|old, at| *at != site || old.is_ipv4() != ip.is_ipv4());
        self.public.insert(ip, site);
        let rng = self.rng(&format!("nat {} at {ip}", site.0));
        let place = &mut self.sites[site.0 as usize];
        let same_family = |old: &IpAddr| old.is_ipv4() == ip.is_ipv4();
        let one = place.lan.iter().find(|(old, _)| same_family(old));
        if let Some(nat) = place.nats.last_mut()
            && ip.is_ipv4()
        {
            *nat = Nat::new(nat.config(), ip, rng);
        } else if let Some((_, host)) = one {
            let host = *host;
            place.lan.retain(|old, _| !same_family(old));
            place.lan.insert(ip, host);
            let addrs = &mut self.hosts[host.0 as usize].addrs;
            for addr in addrs.iter_mut().filter(|old| same_family(old)) {
                *addr = ip;
            }
        }
        self.pipes_cut(site, |from| same_family(&from));
    }
    /// Restarts a site's NATs, and its firewall: all mappings are gone, of datagrams and of pipes; new ones get other ports.
    pub fn rebind_nat(&mut self, site: SiteId) {
        let text = format!("NAT of site {}", site.0);
        self.trace.say(self.now, "rebind", text);
        let place = &mut self.sites[site.0 as usize];
        for nat in &mut place.nats {
            nat.rebind();
        }
        if let Some(firewall) = &mut place.firewall {
            firewall.restart();
        }
        let (v4, v6) = (!place.nats.is_empty(), place.firewall.is_some());
        self.pipes_cut(site, |from| if from.is_ipv4() { v4 } else { v6 });
    }
    /// True if the site's NATs would let a datagram from `from` in at its external port `port` now.
    pub fn lets_in(&self, site: SiteId, port: u16, from: SocketAddr) -> bool {
        let to = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
        let site = &self.sites[site.0 as usize];
        site.leads_to(self.now, from, to).is_some()
    }
    /// A host asks its gateway for a port that leads to one of its own (RFC 6887): where that leads in from, if it gives one.
    /// Behind a second NAT it is an address between the two. Until the NAT restarts it is the host's.
    pub fn map_port(&mut self, host: HostId, port: u16) -> Option<SocketAddr> {
        let own = self.addrs(host).iter().find(|addr| addr.is_ipv4()).copied();
        let site = &mut self.sites[self.hosts[host.0 as usize].site.0 as usize];
        let gateway = site.nats.first_mut().filter(|_| site.config.gives_ports)?;
        let external = gateway.give(SocketAddr::new(own?, port));
        let text = format!("host {} has {external}", host.0);
        self.trace.say(self.now, "port", text);
        Some(external)
    }
    /// What the resolver of a host that has no IPv4 says of how IPv4 is reached (RFC 7050).
    pub fn nat64(&self, host: HostId) -> Option<Prefix> {
        let has_v4 = self.addrs(host).iter().any(IpAddr::is_ipv4);
        let site = &self.sites[self.site_of(host).0 as usize];
        site.config.nat64.filter(|_| !has_v4)
    }
    /// Opens a black hole.
    pub fn open_hole(&mut self, hole: Hole) {
        self.trace.say(self.now, "hole", format!("open {hole:?}"));
        self.holes.push(hole);
    }
    /// Closes it again.
    pub fn close_hole(&mut self, hole: Hole) {
        self.trace.say(self.now, "hole", format!("close {hole:?}"));
        self.holes.retain(|h| *h != hole);
    }
    /// The process on a host dies (its pipes break) or is started again.
    pub fn set_alive(&mut self, host: HostId, alive: bool) {
        let what = if alive { "starts" } else { "dies" };
        let text = format!("host {} {what}", host.0);
        self.trace.say(self.now, "alive", text);
        self.hosts[host.0 as usize].alive = alive;
        if !alive {
            for (pipe, side) in self.pipes.of_host(host) {
                self.pipe_close(pipe, side);
            }
        }
    }
    /// How many datagrams met which fate so far.
    pub fn fates(&self) -> &BTreeMap<&'static str, u64> {
        &self.fates
    }
    /// How many datagrams that were really sent from a site a host got, whatever their source said.
    pub fn delivered(&self, from: SiteId, to: HostId) -> u64 {
        self.delivered.get(&(from, to)).copied().unwrap_or_default()
    }
    /// Begins to listen to the core, for all but what the listener's own site sends.
    pub fn tap(&mut self, own: SiteId) {
        self.tapped = Some((own, VecDeque::new()));
    }
    /// The last datagrams heard there, oldest first.
    pub fn tapped(&self) -> Vec<&Tapped> {
        self.tapped.iter().flat_map(|(_, heard)| heard).collect()
    }
    /// Asks for a wake-up; a later call replaces an earlier one.
    pub fn wake_at(&mut self, host: HostId, at: Option<Duration>) {
        let at = at.map(|at| at.max(self.now));
        let slot = &mut self.hosts[host.0 as usize].wake;
        if *slot != at {
            *slot = at;
            if let Some(at) = at {
                self.queue.push(at, Event::Wake(host));
            }
        }
    }
    /// Asks for [`Step::Script`] at a time.
    pub fn script_at(&mut self, at: Duration, what: u32) {
        self.queue.push(at.max(self.now), Event::Script(what));
    }

    /// Takes the next event up to `limit` and moves the clock to it.
    pub fn step(&mut self, limit: Duration) -> Step {
        let Some((at, event)) = self.queue.pop_until(limit) else {
            self.now = self.now.max(limit);
            return Step::Limit;
        };
        self.now = at;
        match event {
            Event::Cross {
                from_site,
                from,
                to,
                data,
            } => self.cross(from_site, from, to, data),
            Event::Arrive {
                from_site,
                site,
                from,
                to,
                data,
            } => return self.arrive(from_site, site, from, to, data),
            Event::Deliver {
                from_site,
                host,
                from,
                to,
                data,
            } => return self.deliver(from_site, host, from, to, data),
            Event::PipeTry(pipe, side) => {
                if let Some((host, what)) = self.pipe_try(pipe, side) {
                    return Step::Host(host, what);
                }
            }
            Event::PipeArrive(pipe, side) => {
                if let Some((host, what)) = self.pipe_arrive(pipe, side) {
                    return Step::Host(host, what);
                }
            }
            Event::Wake(host) => {
                let slot = &mut self.hosts[host.0 as usize];
                if slot.wake == Some(at) && slot.alive {
                    slot.wake = None;
                    let id = host.0.to_le_bytes();
                    self.trace
                        .note(self.now, "wake", &[&id], || format!("host {}", host.0));
                    return Step::Host(host, Happening::Wake);
                }
            }
            Event::Script(what) => return Step::Script(what),
        }
        Step::Inside
    }
}

#[cfg(test)]
mod tests;
