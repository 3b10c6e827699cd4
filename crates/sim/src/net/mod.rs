//! The network: sites with access links and NATs, hosts inside them, and everything that is under way.
//!
//! A *site* is a place with one access link and, perhaps, a NAT: a flat, an office, a data centre. Hosts live in sites.
//! Sites meet in a core that is instantaneous and never loses; all delay, loss and rate is in the access links. A
//! datagram takes three steps, each at its own time:
//!
//! 1. **leave**: the site's firewall and NAT (outbound), then the uplink;
//! 2. **cross**: the core finds the destination's site (holes are here), then that site's downlink;
//! 3. **arrive**: the NAT (inbound), then the host.
//!
//! Hosts of one site reach each other over its LAN without any of that. Byte pipes (TCP) are in [`pipe`].
//!
//! The network also owns the clock and the queue of what happens when: [`Network::step`] takes the next event, moves the
//! clock to it and returns what a host must hear of.

pub mod link;
pub mod nat;
pub mod pipe;
mod queue;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::rng::Rng;
use crate::trace::Trace;
use link::{Link, LinkConfig, LinkDrop};
use nat::{Nat, NatConfig, Refused};
use pipe::{PipeId, Pipes, Side};
use queue::Queue;

/// One host.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct HostId(pub u32);

/// One site.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct SiteId(pub u32);

/// How a site is connected.
#[derive(Clone, Debug)]
pub struct SiteConfig {
    /// For traces.
    pub name: String,
    /// The NAT in front of its hosts; none: the hosts' addresses are public.
    pub nat: Option<(NatConfig, IpAddr)>,
    /// A firewall drops all UDP in both directions (inside the site UDP works).
    pub udp_blocked: bool,
    /// From the site to the core.
    pub up: LinkConfig,
    /// From the core to the site.
    pub down: LinkConfig,
}

/// Which traffic a hole swallows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Traffic {
    /// Everything, pipes too.
    All,
    /// Datagrams.
    Udp,
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
        site: SiteId,
        from: SocketAddr,
        to: SocketAddr,
        data: Bytes,
    },
    Deliver {
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
struct Site {
    config: SiteConfig,
    nat: Option<Nat>,
    up: Link,
    down: Link,
    lan: BTreeMap<IpAddr, HostId>,
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

/// How long a LAN takes.
const LAN_DELAY: Duration = Duration::from_micros(300);

/// See the module's documentation.
#[derive(Debug)]
pub struct Network {
    base: Instant,
    now: Duration,
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
    /// What happened.
    pub trace: Trace,
}

impl Network {
    /// An empty network. `base` is the instant at which virtual time starts; nothing else reads a clock.
    pub fn new(base: Instant, seed: u64, trace: Trace) -> Self {
        Self {
            base,
            now: Duration::ZERO,
            seed,
            queue: Queue::new(),
            sites: Vec::new(),
            hosts: Vec::new(),
            public: BTreeMap::new(),
            holes: Vec::new(),
            pipes: Pipes::new(Rng::new(seed, "pipes")),
            fates: BTreeMap::new(),
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
    /// The same as an instant, for the state machines.
    pub fn instant(&self) -> Instant {
        self.base + self.now
    }
    /// The instant as time since the start.
    pub fn since_start(&self, instant: Instant) -> Duration {
        instant.saturating_duration_since(self.base)
    }

    /// Adds a site.
    pub fn add_site(&mut self, config: SiteConfig) -> SiteId {
        let id = SiteId(self.sites.len() as u32);
        let label = |what: &str| format!("{what} {}", id.0);
        if let Some((_, external)) = config.nat {
            self.public.insert(external, id);
        }
        self.sites.push(Site {
            nat: config
                .nat
                .map(|(nat, external)| Nat::new(nat, external, self.rng(&label("nat")))),
            up: Link::new(config.up, self.rng(&label("up"))),
            down: Link::new(config.down, self.rng(&label("down"))),
            lan: BTreeMap::new(),
            config,
        });
        id
    }
    /// Adds a host to a site; without a NAT its addresses are public.
    pub fn add_host(&mut self, site: SiteId, addrs: Vec<IpAddr>, ports: &[u16]) -> HostId {
        let id = HostId(self.hosts.len() as u32);
        let place = &mut self.sites[site.0 as usize];
        for addr in &addrs {
            place.lan.insert(*addr, id);
            if place.nat.is_none() {
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
    /// Restarts a site's NAT: all mappings are gone, new ones get other ports.
    pub fn rebind_nat(&mut self, site: SiteId) {
        self.trace
            .note(self.now, "rebind", &site.0.to_le_bytes(), || {
                format!("NAT of site {}", site.0)
            });
        if let Some(nat) = &mut self.sites[site.0 as usize].nat {
            nat.rebind();
        }
    }
    /// Opens a black hole.
    pub fn open_hole(&mut self, hole: Hole) {
        self.trace
            .note(self.now, "hole", &[1], || format!("open {hole:?}"));
        self.holes.push(hole);
    }
    /// Closes it again.
    pub fn close_hole(&mut self, hole: Hole) {
        self.trace
            .note(self.now, "hole", &[0], || format!("close {hole:?}"));
        self.holes.retain(|h| *h != hole);
    }
    /// The process on a host dies (its pipes break) or is started again.
    pub fn set_alive(&mut self, host: HostId, alive: bool) {
        self.trace.note(self.now, "alive", &[alive.into()], || {
            format!("host {} {}", host.0, if alive { "starts" } else { "dies" })
        });
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

    /// A host sends a datagram from one of its ports.
    pub fn send(&mut self, host: HostId, port: u16, to: SocketAddr, data: Bytes) {
        let Some(from) = self.source(host, port, to) else {
            return self.fate("no address of that family", None, to, &data);
        };
        let site_id = self.hosts[host.0 as usize].site;
        let site = &mut self.sites[site_id.0 as usize];
        if let Some(other) = site.lan.get(&to.ip()).copied() {
            let at = self.now + LAN_DELAY;
            self.note_send("lan", from, to, &data);
            let host = other;
            self.queue.push(
                at,
                Event::Deliver {
                    host,
                    from,
                    to,
                    data,
                },
            );
            return;
        }
        if site.config.udp_blocked {
            return self.fate("blocked", Some(from), to, &data);
        }
        let external = match &mut site.nat {
            Some(nat) if from.is_ipv4() => nat.outbound(self.now, from, to),
            _ => from,
        };
        if let Some(nat) = &site.nat
            && nat.external() == to.ip()
        {
            if !nat.config().hairpin {
                return self.fate("no hairpin", Some(from), to, &data);
            }
            self.queue.push(
                self.now + LAN_DELAY,
                Event::Arrive {
                    site: site_id,
                    from: external,
                    to,
                    data,
                },
            );
            return;
        }
        match site.up.pass(self.now, packet_size(to, data.len())) {
            Ok((at, copy)) => {
                self.note_send("send", external, to, &data);
                for at in [Some(at), copy].into_iter().flatten() {
                    self.queue.push(
                        at,
                        Event::Cross {
                            from_site: site_id,
                            from: external,
                            to,
                            data: data.clone(),
                        },
                    );
                }
            }
            Err(why) => self.fate(drop_name(why), Some(from), to, &data),
        }
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
                site,
                from,
                to,
                data,
            } => return self.arrive(site, from, to, data),
            Event::Deliver {
                host,
                from,
                to,
                data,
            } => return self.deliver(host, from, to, data),
            Event::PipeTry(pipe, side) => self.pipe_try(pipe, side),
            Event::PipeArrive(pipe, side) => {
                if let Some((host, what)) = self.pipe_arrive(pipe, side) {
                    return Step::Host(host, what);
                }
            }
            Event::Wake(host) => {
                let slot = &mut self.hosts[host.0 as usize];
                if slot.wake == Some(at) && slot.alive {
                    slot.wake = None;
                    return Step::Host(host, Happening::Wake);
                }
            }
            Event::Script(what) => return Step::Script(what),
        }
        Step::Inside
    }

    fn source(&self, host: HostId, port: u16, to: SocketAddr) -> Option<SocketAddr> {
        self.addrs(host)
            .iter()
            .find(|a| a.is_ipv4() == to.is_ipv4())
            .map(|a| SocketAddr::new(*a, port))
    }

    fn cross(&mut self, from_site: SiteId, from: SocketAddr, to: SocketAddr, data: Bytes) {
        let Some(site_id) = self.public.get(&to.ip()).copied() else {
            return self.fate("unroutable", Some(from), to, &data);
        };
        if self.swallowed(from_site, site_id, Some(&data)) {
            return self.fate("hole", Some(from), to, &data);
        }
        let site = &mut self.sites[site_id.0 as usize];
        match site.down.pass(self.now, packet_size(to, data.len())) {
            Ok((at, copy)) => {
                for at in [Some(at), copy].into_iter().flatten() {
                    self.queue.push(
                        at,
                        Event::Arrive {
                            site: site_id,
                            from,
                            to,
                            data: data.clone(),
                        },
                    );
                }
            }
            Err(why) => self.fate(drop_name(why), Some(from), to, &data),
        }
    }

    fn arrive(
        &mut self,
        site_id: SiteId,
        from: SocketAddr,
        mut to: SocketAddr,
        data: Bytes,
    ) -> Step {
        let site = &mut self.sites[site_id.0 as usize];
        if site.config.udp_blocked {
            self.fate("blocked", Some(from), to, &data);
            return Step::Inside;
        }
        if let Some(nat) = &mut site.nat
            && to.is_ipv4()
        {
            match nat.inbound(self.now, to.port(), from) {
                Ok(internal) => to = internal,
                Err(Refused::NoMapping) => {
                    self.fate("no mapping", Some(from), to, &data);
                    return Step::Inside;
                }
                Err(Refused::Filtered) => {
                    self.fate("filtered", Some(from), to, &data);
                    return Step::Inside;
                }
            }
        }
        match site.lan.get(&to.ip()).copied() {
            Some(host) => self.deliver(host, from, to, data),
            None => Step::Inside,
        }
    }

    fn deliver(&mut self, id: HostId, from: SocketAddr, to: SocketAddr, data: Bytes) -> Step {
        let host = &self.hosts[id.0 as usize];
        if !host.alive || !host.ports.contains(&to.port()) {
            self.fate("no listener", Some(from), to, &data);
            return Step::Inside;
        }
        *self.fates.entry("delivered").or_default() += 1;
        self.trace.note(self.now, "deliver", &[], || {
            format!("{from} -> {to} {}", describe(&data))
        });
        Step::Host(id, Happening::Datagram { from, to, data })
    }

    fn swallowed(&self, from: SiteId, to: SiteId, datagram: Option<&[u8]>) -> bool {
        self.holes.iter().any(|hole| {
            hole.from.is_none_or(|s| s == from)
                && hole.to.is_none_or(|s| s == to)
                && match (hole.what, datagram) {
                    (Traffic::All, _) | (Traffic::Udp, Some(_)) => true,
                    (Traffic::FirstByte(b), Some(d)) => d.first() == Some(&b),
                    (Traffic::LongerThan(n), Some(d)) => d.len() > n,
                    (_, None) => false,
                }
        })
    }

    fn note_send(&mut self, how: &'static str, from: SocketAddr, to: SocketAddr, data: &[u8]) {
        self.trace.note(self.now, how, data, || {
            format!("{from} -> {to} {}", describe(data))
        });
    }

    fn fate(&mut self, fate: &'static str, from: Option<SocketAddr>, to: SocketAddr, data: &[u8]) {
        *self.fates.entry(fate).or_default() += 1;
        self.trace.note(self.now, "drop", fate.as_bytes(), || {
            let from = from.map_or_else(|| "?".to_owned(), |f| f.to_string());
            format!("{from} -> {to} {}: {fate}", describe(data))
        });
    }
}

/// The IP packet around a UDP payload: IP header, UDP header (8), payload.
fn packet_size(to: SocketAddr, payload: usize) -> usize {
    payload + 8 + if to.is_ipv4() { 20 } else { 40 }
}

fn drop_name(why: LinkDrop) -> &'static str {
    match why {
        LinkDrop::Mtu => "mtu",
        LinkDrop::Queue => "queue full",
        LinkDrop::Loss => "lost",
    }
}

fn describe(data: &[u8]) -> String {
    let kind = match data.first() {
        Some(0..=3) => "stun",
        Some(0x80) => "relayed",
        Some(0x81) => "probe",
        Some(0x82) => "cookie",
        Some(0x83) => "fragment",
        Some(0x40..=0x7f) => "quic",
        Some(0xc0..=0xff) => "quic-long",
        _ => "?",
    };
    format!("{kind} {}", data.len())
}

#[cfg(test)]
mod tests;
