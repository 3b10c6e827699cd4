//! One small internet, and where things are in it.

pub mod ipv6;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use ipv6::RELAY_V6;

use crate::emulator::Emulator;
use crate::leftovers::{Scratch, unique};
use crate::nat::NatKind;
use crate::netns::{Namespace, cable};
use crate::process::{Running, poll};
use crate::programs::{self, Proxy};

/// The relay's address.
pub const RELAY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// A second relay's address, where nothing listens unless a scenario starts it.
pub const RELAY_2: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 11);
/// The first STUN server's two addresses (RFC 5780 asks for two).
pub const STUN_1: [Ipv4Addr; 2] = [
    Ipv4Addr::new(203, 0, 113, 21),
    Ipv4Addr::new(203, 0, 113, 22),
];
/// The second STUN server's address.
pub const STUN_2: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 23);
/// A public address that no host has.
pub const NOBODY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 250);
/// What the client's site looks like from outside.
pub const CLIENT_PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 65);
/// What the agent's site looks like from outside.
pub const AGENT_PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 66);

/// Of the emulated links' chances: what happens to a packet depends on when it comes, so a run never repeats to the bit, but
/// it repeats in kind.
const SEED: &str = "1";

/// For a network of a few namespaces to find itself.
const FOUND: Duration = Duration::from_secs(20);

/// A host and its addresses.
#[derive(Debug)]
pub struct Place {
    /// The proxy on its router, which the environment of Byway's programs here names.
    pub proxy: Option<Proxy>,
    /// What else its router runs for it.
    services: Vec<Running>,
    /// Where its programs run.
    pub namespace: Namespace,
    /// Its own address.
    pub addr: Ipv4Addr,
    /// The address others see.
    pub public: Ipv4Addr,
    /// The router between it and the internet, if any.
    pub router: Option<Namespace>,
    /// Further ones between it and that one.
    _inner_routers: Vec<Namespace>,
}

impl Place {
    /// Routers and hosts look for each other's hardware addresses first, and a kernel that was asked too early asks again
    /// after a second: that is no part of what is measured later.
    pub(crate) fn until_answered_at(&self, ip: IpAddr) -> Result<()> {
        poll("an answer from afar", FOUND, || {
            let mut knock = self.namespace.command("bash");
            knock.env("LC_ALL", "C");
            knock.args(["-c", &format!("exec 3<>/dev/tcp/{ip}/9")]);
            let out = knock.output()?;
            // Nobody listens there, and says so.
            let answered = String::from_utf8_lossy(&out.stderr).contains("refused");
            Ok((out.status.success() || answered).then_some(()))
        })
    }

    /// An address and port on this host.
    pub fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.addr), port)
    }

    /// The address of the router that the host looks at.
    pub fn gateway(&self) -> Result<Ipv4Addr> {
        self.router.as_ref().context("a site with a router")?;
        let [a, b, c, _] = self.addr.octets();
        Ok(Ipv4Addr::new(a, b, c, 1))
    }

    /// Bytes sent and received by the host since the world began, by way. GSO super-packets count whole.
    pub fn traffic(&self) -> Result<Traffic> {
        Ok(Traffic {
            relay_udp: self.namespace.counter("relay_udp")?,
            relay_tcp: self.namespace.counter("relay_tcp")?,
            proxied: self.namespace.counter("proxied")?,
            direct: self.namespace.counter("direct")?,
        })
    }

    /// From now on the router silently drops UDP between this site and that address, both ways.
    pub fn cut_udp(&self, other: Ipv4Addr) -> Result<()> {
        let router = self
            .router
            .as_ref()
            .context("only a routed site can be cut")?;
        router.nft(&format!(
            "add rule inet filter cut ip saddr {other} meta l4proto udp drop\n\
             add rule inet filter cut ip daddr {other} meta l4proto udp drop\n"
        ))
    }

    /// Takes back every [`Place::cut_udp`].
    pub fn mend(&self) -> Result<()> {
        self.router
            .as_ref()
            .context("only a routed site can be mended")?
            .nft("flush chain inet filter cut\n")
    }
}

/// Bytes by way, both directions added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// UDP with the relay's host.
    pub relay_udp: u64,
    /// TCP with the relay's host.
    pub relay_tcp: u64,
    /// TCP with the site's own router.
    pub proxied: u64,
    /// UDP with the other site.
    pub direct: u64,
}

impl Traffic {
    /// What was added since an earlier reading.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            relay_udp: self.relay_udp - earlier.relay_udp,
            relay_tcp: self.relay_tcp - earlier.relay_tcp,
            proxied: self.proxied - earlier.proxied,
            direct: self.direct - earlier.direct,
        }
    }
}

/// Two sites, a relay's host and two STUN servers' hosts. See the crate's documentation for the picture.
#[derive(Debug)]
pub struct World {
    /// The relay's host.
    pub relay: Place,
    /// The first STUN server's host, with two addresses.
    pub stun_1: Place,
    /// The second STUN server's host.
    pub stun_2: Place,
    /// The client's host.
    pub client: Place,
    /// The agent's host.
    pub agent: Place,
    // After the places, so that they are dropped first.
    _internet: Internet,
    scratch: Scratch,
    name: String,
}

impl World {
    /// With which the names of its namespaces begin.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Builds one, with the client and the agent behind these NATs, and no delay but the machine's own.
    pub fn new(client: NatKind, agent: NatKind) -> Result<Self> {
        Self::build(client, agent, Duration::ZERO)
    }

    /// Builds one in which each site's access takes this long one way. Four times that is the round trip
    /// between the sites, direct or through the relay; twice that from a site to the relay.
    pub fn with_delay(client: NatKind, agent: NatKind, access: Duration) -> Result<Self> {
        Self::build(client, agent, access)
    }

    fn build(client: NatKind, agent: NatKind, access: Duration) -> Result<Self> {
        let name = unique();
        let scratch = Scratch::create(&name)?;
        let internet = Internet::create(&name, access, &scratch)?;
        let relay = public_host(&name, &internet, "relay", &[RELAY, RELAY_2])?;
        let stun_1 = public_host(&name, &internet, "stun1", &STUN_1)?;
        let stun_2 = public_host(&name, &internet, "stun2", &[STUN_2])?;
        let kinds = [client, agent];
        let client = site(&name, &internet, "client", client, CLIENT_PUBLIC, 1)?;
        let agent = site(&name, &internet, "agent", agent, AGENT_PUBLIC, 2)?;
        let mut world = Self {
            relay,
            stun_1,
            stun_2,
            client,
            agent,
            _internet: internet,
            scratch,
            name,
        };
        let [on_client, on_agent] = kinds.map(|kind| kind == NatKind::ProxyOnly);
        if on_client {
            world.client.proxy = Some(programs::tinyproxy(&world, &world.client, None)?);
        }
        if on_agent {
            world.agent.proxy = Some(programs::tinyproxy(&world, &world.agent, None)?);
        }
        if kinds[0] == NatKind::Ipv6Only {
            world.client.services = world.client.leave_ipv4(&world)?.into();
        }
        if kinds[1] == NatKind::Ipv6Only {
            world.agent.services = world.agent.leave_ipv4(&world)?.into();
        }
        Ok(world)
    }

    /// What changes the links of a world with delay while it runs. Its ports are `client`, `agent`, `relay`, `stun1` and
    /// `stun2`.
    pub fn emulator(&self) -> Emulator {
        Emulator::at(&self.dir().join("emulator"))
    }

    /// A directory for files, gone with the world.
    pub fn dir(&self) -> &Path {
        self.scratch.path()
    }
}

/// A host on the public segment.
fn public_host(world: &str, internet: &Internet, role: &str, addrs: &[Ipv4Addr]) -> Result<Place> {
    let namespace = Namespace::create(world, role)?;
    internet.attach(&namespace, "eth0", role, addrs)?;
    watch(&namespace)?;
    Ok(Place {
        proxy: None,
        services: Vec::new(),
        namespace,
        addr: addrs[0],
        public: addrs[0],
        router: None,
        _inner_routers: Vec::new(),
    })
}

/// A site: a host, and its routers unless it is open.
fn site(
    world: &str,
    internet: &Internet,
    role: &str,
    kind: NatKind,
    public: Ipv4Addr,
    net: u8,
) -> Result<Place> {
    if kind.routers() == 0 {
        return public_host(world, internet, role, &[public]);
    }
    let outer = Namespace::create(world, &format!("{role}-router"))?;
    internet.attach(&outer, "wan0", role, &[public])?;
    let mut routers = vec![outer];
    let mut outside = public;
    // RFC 6598 keeps 100.64.0.0/10 for what is between a carrier's router and its customers'.
    for n in 1..kind.routers() {
        let inner = Namespace::create(world, &format!("{role}-router{n}"))?;
        let next = Ipv4Addr::new(100, 64, net, 2);
        let gateway = Ipv4Addr::new(100, 64, net, 1);
        router(routers.last(), kind, outside, next, gateway, &inner, "wan0")?;
        outside = next;
        routers.push(inner);
    }
    let namespace = Namespace::create(world, role)?;
    let addr = Ipv4Addr::new(10, net, 0, 2);
    let gateway = Ipv4Addr::new(10, net, 0, 1);
    router(
        routers.last(),
        kind,
        outside,
        addr,
        gateway,
        &namespace,
        "eth0",
    )?;
    watch(&namespace)?;
    let mut routers = routers.into_iter();
    Ok(Place {
        proxy: None,
        services: Vec::new(),
        namespace,
        addr,
        public,
        router: routers.next(),
        _inner_routers: routers.collect(),
    })
}

/// Makes a namespace a router for the one behind it, whose address is `inside` and whose interface is `interface`.
fn router(
    router: Option<&Namespace>,
    kind: NatKind,
    outside: Ipv4Addr,
    inside: Ipv4Addr,
    gateway: Ipv4Addr,
    behind: &Namespace,
    interface: &str,
) -> Result<()> {
    let router = router.context("a router")?;
    cable(behind, interface, router, "lan0")?;
    router.ip(&format!(
        "addr add {gateway}/24 dev lan0\nlink set lan0 up\n"
    ))?;
    router.sysctl("net.ipv4.ip_forward", "1")?;
    router.nft(&kind.rules(outside, inside))?;
    behind.ip(&format!(
        "addr add {inside}/24 dev {interface}\nlink set {interface} up\nroute add default via {gateway}\n"
    ))
}

/// The public segment: a bridge, or our link emulator.
#[derive(Debug)]
struct Internet {
    // Before the namespace, so that it is ended first.
    switch: Option<Running>,
    namespace: Namespace,
}

impl Internet {
    fn create(world: &str, access: Duration, scratch: &Scratch) -> Result<Self> {
        let namespace = Namespace::create(world, "internet")?;
        if access.is_zero() {
            namespace.ip("link add br0 type bridge\nlink set br0 up\n")?;
            return Ok(Self {
                switch: None,
                namespace,
            });
        }
        let site = format!("delay={}us", access.as_micros());
        let control = scratch.path().join("emulator");
        let args = [
            SEED.to_owned(),
            control.display().to_string(),
            "relay".to_owned(),
            "stun1".to_owned(),
            "stun2".to_owned(),
            format!("client={site}"),
            format!("agent={site}"),
        ];
        let switch = programs::tool(&namespace, "switch", &args)?;
        switch.first_line("readiness", programs::READY)?;
        Ok(Self {
            switch: Some(switch),
            namespace,
        })
    }

    /// Plugs a namespace into the segment.
    fn attach(
        &self,
        namespace: &Namespace,
        interface: &str,
        role: &str,
        addrs: &[Ipv4Addr],
    ) -> Result<()> {
        let port = format!("p-{role}");
        cable(namespace, interface, &self.namespace, &port)?;
        if self.switch.is_none() {
            self.namespace
                .ip(&format!("link set {port} master br0\nlink set {port} up\n"))?;
        } else {
            // A bridge of two joins the cable and the switch's port.
            self.namespace.ip(&format!(
                "link add b-{role} type bridge\nlink set {port} master b-{role}\nlink set t-{role} master b-{role}\n\
                 link set b-{role} up\nlink set {port} up\nlink set t-{role} up\n"
            ))?;
        }
        let mut batch = String::new();
        for addr in addrs {
            batch.push_str(&format!("addr add {addr}/24 dev {interface}\n"));
        }
        batch.push_str(&format!("link set {interface} up\n"));
        namespace.ip(&batch)
    }
}

/// Counters on a host, by way: the judge of which path bytes took. Sites are 203.0.113.64/26 from outside.
fn watch(host: &Namespace) -> Result<()> {
    let mut rules = String::from(
        "table inet watch {\n counter relay_udp {}\n counter relay_tcp {}\n counter proxied {}\n counter direct {}\n",
    );
    let translated = programs::in_ipv6(RELAY);
    let sites = programs::in_ipv6(Ipv4Addr::new(203, 0, 113, 64));
    for (hook, dir) in [("input", "saddr"), ("output", "daddr")] {
        rules.push_str(&format!(
            " chain {hook} {{ type filter hook {hook} priority filter; policy accept;\n\
             ip {dir} {{ {RELAY}, {RELAY_2} }} meta l4proto udp counter name relay_udp\n\
             ip {dir} {{ {RELAY}, {RELAY_2} }} meta l4proto tcp counter name relay_tcp\n\
             ip {dir} 10.0.0.0/8 meta l4proto tcp counter name proxied\n\
             ip {dir} 203.0.113.64/26 meta l4proto udp counter name direct\n\
             ip6 {dir} {{ {RELAY_V6}, {translated} }} meta l4proto udp counter name relay_udp\n\
             ip6 {dir} {{ {RELAY_V6}, {translated} }} meta l4proto tcp counter name relay_tcp\n\
             ip6 {dir} {{ 2001:db8:0:64::/62, {sites}/122 }} meta l4proto udp counter name direct\n }}\n"
        ));
    }
    rules.push_str("}\n");
    host.nft(&rules)
}
