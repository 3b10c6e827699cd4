//! IPv6 beside IPv4: addresses for everybody, sites behind routers that translate nothing and let nobody in unasked, and a
//! name for the relay that leads to both its addresses.

use std::net::{IpAddr, Ipv6Addr};

use anyhow::{Context, Result};

use super::{Internet, Place, RELAY, World};
use crate::netns::Namespace;
use crate::process::Running;
use crate::programs;

/// The relay's address.
pub const RELAY_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
/// The relay's name, on every host.
pub const RELAY_NAME: &str = "relay.lab";
/// A site's number is its network's fourth group, and counts from here.
const SITES: u16 = 0x64;

/// Which families a host has an address of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Families {
    /// IPv4 alone.
    V4,
    /// IPv6 alone.
    V6,
    /// Both.
    Dual,
}

impl Families {
    /// A walk from the first that makes each of the six changes once.
    pub const WALK: [Self; 6] = [
        Self::V6,
        Self::Dual,
        Self::V4,
        Self::Dual,
        Self::V6,
        Self::V4,
    ];

    fn has(self, family: Self) -> bool {
        self == family || self == Self::Dual
    }
}

fn network(site: u16) -> String {
    format!("2001:db8:0:{site:x}::")
}

/// A kernel that waits a second for a duplicate before it uses an address would be all that is measured.
fn enable(namespace: &Namespace) -> Result<()> {
    for scope in ["all", "default", "lo"] {
        namespace.sysctl(&format!("net.ipv6.conf.{scope}.accept_dad"), "0")?;
        namespace.sysctl(&format!("net.ipv6.conf.{scope}.disable_ipv6"), "0")?;
    }
    Ok(())
}

impl World {
    /// Adds IPv6 to a world whose sites both have one router, which is a firewall and no NAT for it.
    pub fn add_ipv6(&self) -> Result<()> {
        let relay = &self.relay.namespace;
        enable(relay)?;
        relay.ip(&format!("addr add {RELAY_V6}/64 dev eth0 nodad\n"))?;
        for place in [&self.client, &self.agent] {
            let site = place.site();
            let router = place.router.as_ref().context("the site has no router")?;
            enable(router)?;
            enable(&place.namespace)?;
            router.sysctl("net.ipv6.conf.all.forwarding", "1")?;
            let lan = network(site);
            router.ip(&format!(
                "addr add 2001:db8::{site:x}/64 dev wan0 nodad\naddr add {lan}1/64 dev lan0 nodad\n"
            ))?;
            relay.ip(&format!("route add {lan}/64 via 2001:db8::{site:x}\n"))?;
            place.set_families(Families::Dual)?;
        }
        // Each router knows the way to the other's site.
        for (place, other) in [(&self.client, &self.agent), (&self.agent, &self.client)] {
            let other = other.site();
            let router = place.router.as_ref().context("the site has no router")?;
            router.ip(&format!(
                "route add {}/64 via 2001:db8::{other:x}\n",
                network(other)
            ))?;
        }
        for place in [&self.client, &self.agent] {
            let both = [IpAddr::V4(RELAY), IpAddr::V6(RELAY_V6)];
            place.namespace.name_hosts(&[(RELAY_NAME, &both)])?;
            place.until_answered_at(RELAY_V6.into())?;
        }
        Ok(())
    }
}

impl Place {
    /// The site becomes one of IPv6 alone, with a translator on its router. Gives what runs there.
    pub(super) fn leave_ipv4(&self, internet: &Internet) -> Result<[Running; 2]> {
        let router = self.router.as_ref().context("the site has no router")?;
        enable(router)?;
        enable(&self.namespace)?;
        router.sysctl("net.ipv6.conf.all.forwarding", "1")?;
        let lan = network(self.site());
        router.ip(&format!("addr add {lan}1/64 dev lan0 nodad\n"))?;
        self.set_families(Families::V6)?;
        let gateway: Ipv6Addr = format!("{lan}1").parse()?;
        let services = programs::translator(internet, router, gateway)?;
        self.namespace.ask_names_of(gateway.into())?;
        self.until_answered_at(programs::in_ipv6(RELAY).into())?;
        Ok(services)
    }

    /// From now on nothing comes back that the site sends over IPv6, though its hosts have addresses and a route.
    pub fn lose_ipv6(&self) -> Result<()> {
        self.gate()?
            .nft("add rule inet filter cut iifname wan0 meta nfproto ipv6 drop\n")
    }

    /// Its address in a site that has IPv6.
    pub fn v6(&self) -> Result<Ipv6Addr> {
        Ok(format!("{}2", network(self.site())).parse()?)
    }

    /// The number of its network.
    fn site(&self) -> u16 {
        let [_, site, _, _] = self.addr.octets();
        SITES + u16::from(site)
    }

    /// From now on the host has addresses and routes of these families only; what was bound to others is dead.
    pub fn set_families(&self, families: Families) -> Result<()> {
        let (lan, gateway) = (network(self.site()), self.gateway()?);
        // A route through a router outlives the address it was used with. There may be none.
        let _ = self
            .namespace
            .ip(&format!("route del default via {lan}1 dev eth0\n"));
        let mut batch = String::from("addr flush dev eth0 scope global\n");
        if families.has(Families::V4) {
            batch.push_str(&format!(
                "addr add {}/24 dev eth0\nroute replace default via {gateway}\n",
                self.addr
            ));
        }
        if families.has(Families::V6) {
            batch.push_str(&format!("addr add {}/64 dev eth0 nodad\n", self.v6()?));
        }
        self.namespace.ip(&batch)?;
        if families.has(Families::V6) {
            self.route_ipv6()?;
        }
        Ok(())
    }

    /// Its site's router is the way out for IPv6.
    pub fn route_ipv6(&self) -> Result<()> {
        self.namespace.ip(&format!(
            "route replace default via {}1 dev eth0\n",
            network(self.site())
        ))
    }
}
