//! A host of an internet: its addresses, its router, and what is counted there.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};

use super::ipv6::RELAY_V6;
use super::{RELAY, RELAYS};
use crate::netns::Namespace;
use crate::process::{Running, poll};
use crate::programs::{self, Proxy};

/// For a network of a few namespaces to find itself.
const FOUND: Duration = Duration::from_secs(20);

/// A host and its addresses.
#[derive(Debug)]
pub struct Place {
    /// What it was called when the internet was planned.
    pub name: String,
    /// The proxy on its router, which the environment of Byway's programs here names.
    pub proxy: Option<Proxy>,
    /// The authorities whose certificates count here for Byway's programs; the machine's own otherwise.
    pub trusts: Option<PathBuf>,
    /// What else its router runs for it.
    pub(super) services: Vec<Running>,
    /// Where its programs run.
    pub namespace: Namespace,
    /// Its own address.
    pub addr: Ipv4Addr,
    /// The address others see.
    pub public: Ipv4Addr,
    /// The router between its site and the internet, if any.
    pub router: Option<Arc<Namespace>>,
    /// The one that it looks at itself: another one behind a carrier's.
    own_router: Option<Arc<Namespace>>,
    /// What else is between it and that one: further routers, the site's own switch. They are gone when nobody holds them.
    _between: Vec<Arc<Namespace>>,
}

impl Place {
    /// One whose interface and counters are there already. Behind several routers, the first is the outermost.
    pub(super) fn new(
        name: &str,
        namespace: Namespace,
        addr: Ipv4Addr,
        public: Ipv4Addr,
        routers: Vec<Arc<Namespace>>,
        switch: Option<Arc<Namespace>>,
    ) -> Self {
        let (router, own_router) = (routers.first().cloned(), routers.last().cloned());
        Self {
            name: name.to_owned(),
            proxy: None,
            trusts: None,
            services: Vec::new(),
            namespace,
            addr,
            public,
            router,
            own_router,
            _between: routers.into_iter().chain(switch).collect(),
        }
    }

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

    /// A program that does not say when it is ready is ready when it takes connections.
    pub(crate) fn until_served_at(&self, port: u16) -> Result<()> {
        let knock = format!("exec 3<>/dev/tcp/{}/{port}", self.addr);
        poll("somebody who listens", FOUND, || {
            let mut bash = self.namespace.command("bash");
            let out = bash.args(["-c", &knock]).output()?;
            Ok(out.status.success().then_some(()))
        })
    }

    /// An address and port on this host.
    pub fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.addr), port)
    }

    /// The router between its site and the internet.
    pub fn gate(&self) -> Result<&Namespace> {
        let router = self.router.as_deref();
        router.with_context(|| format!("{} has no router", self.name))
    }

    /// The router that the host looks at, where one of its own is behind a carrier's; the site's otherwise.
    pub fn own_router(&self) -> Result<&Namespace> {
        let router = self.own_router.as_deref();
        router.with_context(|| format!("{} has no router", self.name))
    }

    /// The address of the router that the host looks at.
    pub fn gateway(&self) -> Result<Ipv4Addr> {
        self.gate()?;
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
            lan: self.namespace.counter("lan")?,
            parts: self.namespace.counter("parts")?,
        })
    }

    /// From now on the router silently drops UDP between this site and that address, both ways.
    pub fn cut_udp(&self, other: Ipv4Addr) -> Result<()> {
        self.gate()?.nft(&format!(
            "add rule inet filter cut ip saddr {other} meta l4proto udp drop\n\
             add rule inet filter cut ip daddr {other} meta l4proto udp drop\n"
        ))
    }

    /// Takes back every [`Place::cut_udp`] and [`Place::lose_ipv6`].
    pub fn mend(&self) -> Result<()> {
        self.gate()?.nft("flush chain inet filter cut\n")
    }
}

/// Bytes by way, both directions added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// UDP with a relay's host.
    pub relay_udp: u64,
    /// TCP with a relay's host.
    pub relay_tcp: u64,
    /// TCP with the site's own router.
    pub proxied: u64,
    /// UDP with a site, as it is outside.
    pub direct: u64,
    /// UDP with private addresses, which are those of the own site.
    pub lan: u64,
    /// Of what went with a site, over IPv4: datagrams that were too large for their path, in two parts.
    pub parts: u64,
}

impl Traffic {
    /// What was added since an earlier reading.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            relay_udp: self.relay_udp - earlier.relay_udp,
            relay_tcp: self.relay_tcp - earlier.relay_tcp,
            proxied: self.proxied - earlier.proxied,
            direct: self.direct - earlier.direct,
            lan: self.lan - earlier.lan,
            parts: self.parts - earlier.parts,
        }
    }
}

/// The first byte of a datagram that is one of two parts (docs/protocol.md, "Fragments").
const PART: u8 = 0x83;

/// Counters on a host, by way: the judge of which path bytes took. Sites are 203.0.113.64/26 from outside.
pub(super) fn watch(host: &Namespace) -> Result<()> {
    let mut rules = String::from(
        "table inet watch {\n counter relay_udp {}\n counter relay_tcp {}\n counter proxied {}\n counter direct {}\n counter lan {}\n counter parts {}\n",
    );
    let translated = programs::in_ipv6(RELAY);
    let sites = programs::in_ipv6(Ipv4Addr::new(203, 0, 113, 64));
    for (hook, dir) in [("input", "saddr"), ("output", "daddr")] {
        rules.push_str(&format!(
            " chain {hook} {{ type filter hook {hook} priority filter; policy accept;\n\
             ip {dir} {RELAYS} meta l4proto udp counter name relay_udp\n\
             ip {dir} {RELAYS} meta l4proto tcp counter name relay_tcp\n\
             ip {dir} 10.0.0.0/8 meta l4proto tcp counter name proxied\n\
             ip {dir} 203.0.113.64/26 meta l4proto udp counter name direct\n\
             ip {dir} 203.0.113.64/26 udp length > 8 @th,64,8 {PART} counter name parts\n\
             ip {dir} 10.0.0.0/8 meta l4proto udp counter name lan\n\
             ip6 {dir} {{ {RELAY_V6}, {translated} }} meta l4proto udp counter name relay_udp\n\
             ip6 {dir} {{ {RELAY_V6}, {translated} }} meta l4proto tcp counter name relay_tcp\n\
             ip6 {dir} {{ 2001:db8:0:64::/62, {sites}/122 }} meta l4proto udp counter name direct\n }}\n"
        ));
    }
    rules.push_str("}\n");
    host.nft(&rules)
}
