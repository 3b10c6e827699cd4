//! The scene of nearly every test: a client and an agent in sites of their own, a relay, and STUN servers.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use byway_core::discovery::Prefix;
use byway_core::io::{Admission, Config, LinkMode, MapRelay, PathKind, PeerId, Way};
use byway_relay_core::Config as RelayConfig;
use byway_wire::relay::control::Role;
use byway_wire::{NodeId, RelayUrl, TicketSecret};

use crate::model::{Access, Families, Place};
use crate::net::link::LinkConfig;
use crate::net::nat::NatConfig;
use crate::net::{Exit, HostId, Network, SiteConfig, SiteId, V6};
use crate::shell::app::{Report, Task};
use crate::shell::node::{NODE_PORT, NodeSetup, NodeShell, Note, target};
use crate::shell::relay::{RELAY_PORT, RelayShell};
use crate::shell::stun::{Manner, STUN_PORT, StunServer};
use crate::trace::Trace;
use crate::world::World;

/// What a scene is made of; the defaults are a clean network with 20 ms between any two sites.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The run's seed.
    pub seed: u64,
    /// What the client is behind.
    pub client: Access,
    /// What the agent is behind.
    pub agent: Access,
    /// What addresses the client has.
    pub client_ip: Families,
    /// What addresses the agent has.
    pub agent_ip: Families,
    /// The client's gateway gives ports.
    pub client_port: bool,
    /// The agent's does.
    pub agent_port: bool,
    /// The client's access link, both directions.
    pub client_link: LinkConfig,
    /// The agent's access link, both directions.
    pub agent_link: LinkConfig,
    /// How long the NATs and firewalls of both keep what is not used; none is what RFC 4787 and RFC 6092 ask for.
    pub nat_timeout: Option<Duration>,
    /// Which carriers the client may use.
    pub links: LinkMode,
    /// Whether direct paths are wanted.
    pub direct: bool,
    /// Independent STUN servers beside the relay's own.
    pub stun: Vec<Manner>,
    /// The agent keeps a link to a second relay too, behind this access link.
    pub second_relay: Option<LinkConfig>,
    /// The agent has its relays by a relay map, which may change.
    pub mapped: bool,
    /// The client and the agent are in one site.
    pub together: bool,
    /// Lines of trace kept.
    pub trace: usize,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            seed: 1,
            client: Access::PortRestricted,
            agent: Access::PortRestricted,
            client_ip: Families::V4,
            agent_ip: Families::V4,
            client_port: false,
            agent_port: false,
            client_link: LinkConfig::default(),
            agent_link: LinkConfig::default(),
            nat_timeout: None,
            links: LinkMode::Auto,
            direct: true,
            stun: vec![Manner::Honest, Manner::Honest],
            second_relay: None,
            mapped: false,
            together: false,
            trace: 400,
        }
    }
}

impl Setup {
    /// The client's network, as the model speaks of it.
    pub fn client_place(&self) -> Place {
        Place {
            access: self.client,
            families: self.client_ip,
            gives_port: self.client_port,
        }
    }
    /// The agent's network.
    pub fn agent_place(&self) -> Place {
        if self.together {
            return self.client_place();
        }
        Place {
            access: self.agent,
            families: self.agent_ip,
            gives_port: self.agent_port,
        }
    }
}

/// A scene, built.
pub struct Scene {
    /// The world it plays in.
    pub world: World,
    /// The client's host.
    pub client: HostId,
    /// The agent's host.
    pub agent: HostId,
    /// The relay's host.
    pub relay: HostId,
    /// The client's site.
    pub client_site: SiteId,
    /// The agent's site.
    pub agent_site: SiteId,
    /// The relay's site.
    pub relay_site: SiteId,
    /// The second relay's host and site.
    pub second_relay: Option<(HostId, SiteId)>,
    /// The relay's URL.
    pub url: RelayUrl,
    /// The URLs of all relays.
    pub urls: Vec<RelayUrl>,
    /// The agent's key.
    pub agent_id: NodeId,
    /// The STUN servers' addresses, as in the setup.
    pub stun: Vec<SocketAddr>,
    /// Their hosts.
    pub stun_hosts: Vec<HostId>,
    /// The relays with their addresses: what a ticket holds.
    relays: Vec<(RelayUrl, Vec<SocketAddr>)>,
    dialled: Duration,
}

const CLIENT_KEY: [u8; 32] = [0xc1; 32];
const AGENT_KEY: [u8; 32] = [0xa1; 32];
const RELAY_KEY: [u8; 32] = [0x4e; 32];
const SECOND_RELAY_KEY: [u8; 32] = [0x4f; 32];
const THIRD_RELAY_KEY: [u8; 32] = [0x50; 32];
const SECRET: [u8; 32] = [0x5e; 32];

/// The relay's address.
pub const RELAY_ADDR: SocketAddr = SocketAddr::new(
    IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 1)),
    RELAY_PORT,
);

/// The second relay's address.
pub const SECOND_RELAY_ADDR: SocketAddr = SocketAddr::new(
    IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 101, 1)),
    RELAY_PORT,
);

/// The address of a relay that comes later.
pub const THIRD_RELAY_ADDR: SocketAddr = SocketAddr::new(
    IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 102, 1)),
    RELAY_PORT,
);

/// The network and the host's number in it, of IPv6 addresses.
const CLIENT_V6: [u16; 2] = [0xc, 2];
const AGENT_V6: [u16; 2] = [0xa, 3];
/// The relays' and STUN servers' networks, in IPv6.
const RELAY_NET: u16 = 0x5100;
const SECOND_RELAY_NET: u16 = 0x5101;
const STUN_NET: u16 = 0x2;
/// Behind which the translators have IPv4. The well-known prefix must not stand for addresses of documentation networks
/// (RFC 6052 section 3.1).
pub const NAT64: Prefix = Prefix {
    addr: Ipv6Addr::new(0x2001, 0xdb8, 0x64, 0, 0, 0, 0, 0),
    len: 96,
};
/// What RFC 6092 asks for at the least, as RFC 4787 does.
const FLOW_TIMEOUT: Duration = Duration::from_secs(120);

/// An address of a network of the documentation prefix (RFC 3849).
pub const fn v6(network: u16, host: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, network, 0, 0, 0, 0, host))
}

impl Scene {
    /// Builds it. `base` is where virtual time starts. The agent is started and linked to the relay; the client has not
    /// dialled yet.
    pub fn new(base: Instant, setup: &Setup) -> Self {
        let mut net = Network::new(base, setup.seed, Trace::new(setup.trace));
        let public = |name| site(name, Access::Open, None, LinkConfig::default());
        let private = |name, place: Place, ip, link| {
            let mut place = site(name, place, Some(ip), link);
            if let (Some(timeout), V6::Firewall(own)) = (setup.nat_timeout, &mut place.v6) {
                *own = timeout;
            }
            if let Some(timeout) = setup.nat_timeout {
                for (nat, _) in &mut place.nats {
                    *nat = nat.timeout(timeout);
                }
            }
            place
        };
        let relay_site = net.add_site(public("relay"));
        let client_site = net.add_site(private(
            "client",
            setup.client_place(),
            [203, 0, 113, 10],
            setup.client_link,
        ));
        let agent_site = if setup.together {
            client_site
        } else {
            net.add_site(private(
                "agent",
                setup.agent_place(),
                [203, 0, 113, 20],
                setup.agent_link,
            ))
        };
        let of_relay = |addr: SocketAddr, network| vec![addr.ip(), v6(network, 1)];
        let addrs = of_relay(RELAY_ADDR, RELAY_NET);
        let relay = net.add_host(relay_site, addrs, &[RELAY_PORT, STUN_PORT]);
        let inside =
            |place: Place, public: [u8; 4], private: [u8; 4], [network, host]: [u16; 2]| {
                let v4 = if place.access == Access::Open {
                    public
                } else {
                    private
                };
                let v4 = place.families.has_v4().then(|| IpAddr::from(v4));
                let v6 = place.families.has_v6().then(|| v6(network, host));
                v4.into_iter().chain(v6).collect()
            };
        let (client_place, agent_place) = (setup.client_place(), setup.agent_place());
        let client = net.add_host(
            client_site,
            inside(client_place, [203, 0, 113, 11], [10, 0, 0, 2], CLIENT_V6),
            &[NODE_PORT],
        );
        let agent = net.add_host(
            agent_site,
            inside(agent_place, [203, 0, 113, 21], [10, 0, 0, 3], AGENT_V6),
            &[NODE_PORT],
        );
        let mut world = World::new(net);
        start_relay(&mut world, relay, RELAY_KEY);
        let (mut stun, mut stun_hosts) = (Vec::new(), Vec::new());
        for (n, manner) in setup.stun.iter().enumerate() {
            let ip = IpAddr::from([192, 0, 2, 10 + n as u8]);
            let place = world.net.add_site(public("stun"));
            let addrs = vec![ip, v6(STUN_NET, 10 + n as u16)];
            let host = world.net.add_host(place, addrs, &[STUN_PORT]);
            let server = StunServer::new(&world.net, host, *manner);
            world.add_stun(host, server);
            stun_hosts.push(host);
            stun.push(SocketAddr::new(ip, STUN_PORT));
        }
        let second_relay = setup.second_relay.map(|link| {
            let place = site("second relay", Access::Open, None, link);
            let place = world.net.add_site(place);
            let addrs = of_relay(SECOND_RELAY_ADDR, SECOND_RELAY_NET);
            let host = world.net.add_host(place, addrs, &[RELAY_PORT, STUN_PORT]);
            start_relay(&mut world, host, SECOND_RELAY_KEY);
            (host, place)
        });
        let mut relays = vec![(RELAY_ADDR, RELAY_KEY, RELAY_NET)];
        let second = (SECOND_RELAY_ADDR, SECOND_RELAY_KEY, SECOND_RELAY_NET);
        relays.extend(second_relay.map(|_| second));
        let v4_alone = [client_place, agent_place]
            .iter()
            .all(|place| matches!(place.families, Families::V4 | Families::Nat64));
        let relays = (1..).zip(relays).map(|(n, (addr, key, network))| {
            // Where IPv4 leads everywhere, a relay is called by its address; where it does not, by a name that has both.
            let (name, addrs) = if v4_alone {
                (addr.ip().to_string(), vec![addr])
            } else {
                let six = SocketAddr::new(v6(network, 1), RELAY_PORT);
                (format!("relay{n}.test"), vec![six, addr])
            };
            let url = RelayShell::url(&name, key);
            let url = url.unwrap_or_else(|| unreachable!("an address or a plain name makes a URL"));
            (url, addrs)
        });
        let relays: Vec<(RelayUrl, Vec<SocketAddr>)> = relays.collect();
        let mapped = setup.mapped;
        for (host, key, role, place) in [
            (client, CLIENT_KEY, Role::Client, client_place),
            (agent, AGENT_KEY, Role::Agent, agent_place),
        ] {
            let config = Config {
                role,
                links: if role == Role::Client {
                    setup.links
                } else {
                    LinkMode::Auto
                },
                direct: setup.direct,
                spray: true,
                admission: Admission {
                    secrets: vec![TicketSecret::from_bytes(SECRET)],
                    ..Admission::default()
                },
            };
            // Where there is a proxy, it is in the environment.
            let proxy = place.access.exit() == Exit::Proxy;
            let setup = NodeSetup { key, config, proxy };
            let mut node = NodeShell::new(&world.net, host, setup);
            let now = world.net.instant();
            let has_v6 = world.net.addrs(host).iter().any(IpAddr::is_ipv6);
            for (addr, n) in stun.iter().zip(10..) {
                let label = addr.to_string();
                if has_v6 {
                    let six = SocketAddr::new(v6(STUN_NET, n), STUN_PORT);
                    node.node().add_stun_server(now, label.clone(), six);
                }
                node.node().add_stun_server(now, label, *addr);
            }
            if role == Role::Agent && mapped {
                node.node().set_relay_map(now, map(&relays));
            } else if role == Role::Agent {
                for (url, addrs) in &relays {
                    node.node().add_relay(now, url.clone(), addrs.clone());
                }
            }
            world.add_node(node);
        }
        let agent_id = world.node(agent).0.id();
        Self {
            world,
            client,
            agent,
            relay,
            client_site,
            agent_site,
            relay_site,
            second_relay,
            url: relays[0].0.clone(),
            urls: relays.iter().map(|(url, _)| url.clone()).collect(),
            relays,
            agent_id,
            stun,
            stun_hosts,
            dialled: Duration::ZERO,
        }
    }

    /// Starts a relay that nobody knows of, behind this access link, on IPv4 alone. Its host, site and URL.
    pub fn third_relay(&mut self, link: LinkConfig) -> (HostId, SiteId, RelayUrl) {
        let place = site("third relay", Access::Open, None, link);
        let place = self.world.net.add_site(place);
        let ip = THIRD_RELAY_ADDR.ip();
        let host = self
            .world
            .net
            .add_host(place, vec![ip], &[RELAY_PORT, STUN_PORT]);
        start_relay(&mut self.world, host, THIRD_RELAY_KEY);
        let url = RelayShell::url(&ip.to_string(), THIRD_RELAY_KEY);
        let url = url.unwrap_or_else(|| unreachable!("an address makes a URL"));
        (host, place, url)
    }
    /// The agent is given another relay map.
    pub fn set_map(&mut self, relays: &[RelayUrl]) {
        let relays: Vec<_> = relays.iter().map(|url| (url.clone(), Vec::new())).collect();
        let (agent, net) = self.world.node(self.agent);
        agent.node().set_relay_map(net.instant(), map(&relays));
        agent.turn(net);
    }

    /// Waits until the agent is linked and both have looked at their networks, then opens a tunnel with these tasks.
    pub fn dial(&mut self, tasks: Vec<Task>) -> PeerId {
        let (agent, relays) = (self.agent, self.urls.len());
        let linked = self.world.run_within(Duration::from_secs(30), |w| {
            let notes = &w.node(agent).0.notes;
            let ready = notes
                .iter()
                .filter(|(_, n)| matches!(n, Note::LinkReady(..)));
            ready.count() >= relays
        });
        assert!(linked, "the agent never linked\n{}", self.world.net.trace);
        self.world.run_for(Duration::from_secs(5));
        self.dial_now(tasks)
    }
    /// Opens a tunnel with these tasks at once.
    pub fn dial_now(&mut self, tasks: Vec<Task>) -> PeerId {
        self.dialled = self.world.net.now();
        let secret = Some(TicketSecret::from_bytes(SECRET));
        let ticket = target(self.agent_id, self.relays.clone(), secret);
        let (client, net) = self.world.node(self.client);
        client.connect(net, ticket, tasks)
    }
    /// When the last tunnel was dialled.
    pub fn dialled_at(&self) -> Duration {
        self.dialled
    }
    /// Begins another task on the client's tunnel.
    pub fn begin(&mut self, peer: PeerId, task: Task) {
        let (client, net) = self.world.node(self.client);
        client.begin(net, peer, task);
    }
    /// Runs until all of the client's tasks are over; false if they are not in time.
    pub fn finish(&mut self, time: Duration) -> bool {
        let host = self.client;
        self.world.run_within(time, |w| !w.node(host).0.busy())
    }
    /// Runs until the client sends on this kind of path.
    pub fn until_path(&mut self, peer: PeerId, kind: PathKind, time: Duration) -> bool {
        let host = self.client;
        self.world
            .run_within(time, |w| w.node(host).0.path(peer) == Some(kind))
    }
    /// The client's tasks.
    pub fn reports(&mut self) -> Vec<Report> {
        self.world.node(self.client).0.app.reports.clone()
    }
    /// The agent's one peer.
    pub fn agent_peer(&mut self) -> Option<PeerId> {
        self.world.node(self.agent).0.peers().first().copied()
    }
    /// The path kinds on which client and agent send now.
    pub fn paths(&mut self, peer: PeerId) -> (Option<PathKind>, Option<PathKind>) {
        let client = self.world.node(self.client).0.path(peer);
        let agent = self.agent_peer();
        let (node, _) = self.world.node(self.agent);
        (client, agent.and_then(|p| node.path(p)))
    }
    /// When data of this host first went by this kind of path.
    pub fn first_on(&mut self, host: HostId, kind: PathKind) -> Option<Duration> {
        let routes = self.routes_since(host, Duration::ZERO);
        routes
            .into_iter()
            .find(|(_, path)| *path == Some(kind))
            .map(|(at, _)| at)
    }
    /// The kinds of path that data of this host has gone by since then, each with the time of the change.
    pub fn routes_since(
        &mut self,
        host: HostId,
        since: Duration,
    ) -> Vec<(Duration, Option<PathKind>)> {
        let (node, _) = self.world.node(host);
        let notes = node.notes.iter().filter(|(at, _)| *at >= since);
        notes
            .filter_map(|(at, note)| match note {
                Note::Route(_, route, _) => Some((*at, route.primary.map(|w| w.kind()))),
                _ => None,
            })
            .collect()
    }
    /// When the tunnel's handshake was complete on this host.
    pub fn connected_at(&mut self, host: HostId) -> Option<Duration> {
        let (node, _) = self.world.node(host);
        node.notes.iter().find_map(|(at, note)| match note {
            Note::Connected(_) => Some(*at),
            _ => None,
        })
    }
    /// What client and agent went through, in order of time.
    pub fn story(&mut self) -> String {
        let mut lines = Vec::new();
        for (host, name) in [(self.client, "client"), (self.agent, "agent ")] {
            for (at, note) in &self.world.node(host).0.notes {
                let text = match note {
                    Note::Route(_, r, why) => format!(
                        "{why:?}: {} | {}{} ({})",
                        way_text(r.primary),
                        way_text(r.standby),
                        if r.duplicate { ", both" } else { "" },
                        r.max_datagram
                    ),
                    other => format!("{other:?}"),
                };
                lines.push((*at, name, text));
            }
        }
        lines.sort();
        lines
            .into_iter()
            .map(|(at, name, text)| format!("{:>12.6} {name} {text}\n", at.as_secs_f64()))
            .collect()
    }
    /// Panics with the whole story unless every task of the client went well.
    pub fn assert_fine(&mut self) {
        for report in self.reports() {
            if report.fault.is_some() || report.done.is_none() {
                let story = self.story();
                panic!("{}\n{story}\n{report:?}", self.world.net.trace);
            }
        }
    }
}

/// A map of these relays, each in a region of its own.
fn map(relays: &[(RelayUrl, Vec<SocketAddr>)]) -> Vec<MapRelay> {
    let relay = |(url, addrs): &(RelayUrl, Vec<SocketAddr>)| MapRelay {
        url: url.clone(),
        addrs: addrs.clone(),
        region: url.authority(),
    };
    relays.iter().map(relay).collect()
}

fn start_relay(world: &mut World, host: HostId, key: [u8; 32]) {
    world.add_relay(host, move |net: &Network, life| {
        RelayShell::new(net, host, key, life, RelayConfig::default())
    });
}

fn way_text(way: Option<Way>) -> String {
    match way {
        None => "none".to_owned(),
        Some(Way::Direct { remote, .. }) => format!("direct {remote}"),
        Some(Way::Channel { link, carrier, .. }) => format!("{carrier:?} link {}", link.0),
    }
}

/// A network of that kind, the IPv4 address of its (last) NAT, and both directions of its access link.
pub fn site(
    name: &str,
    place: impl Into<Place>,
    external: Option<[u8; 4]>,
    link: LinkConfig,
) -> SiteConfig {
    let place = place.into();
    let Place {
        access, families, ..
    } = place;
    let translates = families == Families::Nat64;
    // A translator maps, whatever stands behind it.
    let own = translates.then(NatConfig::full_cone);
    let nat = access.nat().or(own);
    let addresses = external.map(|ip| {
        let mut row = between(ip, access.routers().saturating_sub(1));
        row.push(IpAddr::from(ip));
        row
    });
    let addresses = addresses.unwrap_or_default();
    SiteConfig {
        name: name.to_owned(),
        nats: addresses
            .into_iter()
            .filter_map(|ip| Some((nat?, ip)))
            .collect(),
        nat64: translates.then_some(NAT64),
        gives_ports: place.gives_port,
        v6: match access {
            _ if families.has_v6() && !families.v6_works() => V6::Broken,
            Access::Open => V6::Plain,
            _ => V6::Firewall(FLOW_TIMEOUT),
        },
        exit: access.exit(),
        up: link,
        down: link,
    }
}

/// The addresses of so many NATs behind the one at this address, of those that RFC 6598 keeps for what is between a carrier's
/// router and its customers'.
fn between([.., last]: [u8; 4], nats: usize) -> Vec<IpAddr> {
    let numbers = (2..).take(nats);
    numbers.map(|n| IpAddr::from([100, 64, last, n])).collect()
}
