//! Sites: hosts, and the routers between them and the public segment.

use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::{Context, Result};

use super::internet::Internet;
use super::place::{Place, watch};
use super::plan::{Lan, Plan, PlannedSite, Site};
use crate::netns::{Namespace, cable};
use crate::router::Router;

/// The hosts of the site with this number, from 1 on.
pub(super) fn build(internet: &Internet, planned: &PlannedSite, number: u8) -> Result<Vec<Place>> {
    let public = Plan::public(number);
    let (site, name) = (planned.site, planned.name());
    if site.routers() == 0 {
        return Ok(vec![internet.public_host(name, &[public])?]);
    }
    let outer = namespace(internet, &format!("{name}-router"))?;
    internet.segment.attach(&outer, "wan0", name, &[public])?;
    let mut routers = vec![outer];
    let mut outside = public;
    for n in 1..site.routers() {
        let router = routers.last().context("a router")?;
        route(router, site, outside)?;
        let name = format!("{name}-router{n}");
        let inner;
        (inner, outside) = behind_carrier(internet, &name, router, number, 0)?;
        routers.push(inner);
    }
    let gate = routers.last().context("a router")?;
    route(gate, site, outside)?;
    let mut places = Vec::new();
    for (lan, interface, net) in [(Lan::Main, "lan0", 0), (Lan::Guests, "lan1", 1)] {
        let hosts = planned.hosts.iter().filter(|(_, of)| *of == lan);
        let hosts: Vec<&str> = hosts.map(|(name, _)| name.as_str()).collect();
        if hosts.is_empty() {
            continue;
        }
        let mut switch = None;
        // With more than one host there is a switch, of its own, so that the router sees nothing of what they say to each other.
        if hosts.len() > 1 {
            let own = namespace(internet, &format!("{name}-{interface}"))?;
            own.ip("link add br0 type bridge mcast_snooping 0\nlink set br0 up\n")?;
            cable(gate, interface, &own, "router")?;
            own.ip("link set router master br0\nlink set router up\n")?;
            switch = Some(own);
        }
        let gateway = Ipv4Addr::new(10, number, net, 1);
        for (host, last) in hosts.iter().zip(2..) {
            let namespace = Namespace::create(internet.name(), host)?;
            if let Some(switch) = &switch {
                let port = format!("p{last}");
                cable(&namespace, "eth0", switch, &port)?;
                switch.ip(&format!("link set {port} master br0\nlink set {port} up\n"))?;
            } else {
                cable(&namespace, "eth0", gate, interface)?;
            }
            let addr = Ipv4Addr::new(10, number, net, last);
            if last == 2 {
                serve(gate, interface, gateway)?;
            }
            settle(&namespace, "eth0", addr, gateway)?;
            watch(&namespace)?;
            let (routers, switch) = (routers.clone(), switch.clone());
            places.push(Place::new(host, namespace, addr, public, routers, switch));
        }
    }
    let customers = planned.hosts.iter().filter(|(_, of)| *of == Lan::Customer);
    let carrier = routers.first().context("a router")?;
    for ((host, _), n) in customers.zip(1..) {
        let name = format!("{host}-router");
        let (own, outside) = behind_carrier(internet, &name, carrier, number, n)?;
        route(&own, site, outside)?;
        let namespace = Namespace::create(internet.name(), host)?;
        cable(&namespace, "eth0", &own, "lan0")?;
        // Beside the networks of the first customer, of which there may be two.
        let [gateway, addr] = [1, 2].map(|last| Ipv4Addr::new(10, number, 1 + n, last));
        serve(&own, "lan0", gateway)?;
        settle(&namespace, "eth0", addr, gateway)?;
        watch(&namespace)?;
        let routers = vec![Arc::clone(carrier), own];
        places.push(Place::new(host, namespace, addr, public, routers, None));
    }
    Ok(places)
}

/// A customer's router at a carrier's, and its address there. RFC 6598 keeps 100.64.0.0/10 for what is between the two.
fn behind_carrier(
    internet: &Internet,
    name: &str,
    carrier: &Namespace,
    site: u8,
    customer: u8,
) -> Result<(Arc<Namespace>, Ipv4Addr)> {
    let inner = namespace(internet, name)?;
    let [gateway, own] = [1, 2].map(|last| Ipv4Addr::new(100, 64 + customer, site, last));
    let lan = format!("lan{customer}");
    cable(&inner, "wan0", carrier, &lan)?;
    serve(carrier, &lan, gateway)?;
    settle(&inner, "wan0", own, gateway)?;
    Ok((inner, own))
}

fn namespace(internet: &Internet, role: &str) -> Result<Arc<Namespace>> {
    Ok(Arc::new(Namespace::create(internet.name(), role)?))
}

/// Makes a namespace a router with this address outside.
fn route(router: &Namespace, site: Site, outside: Ipv4Addr) -> Result<()> {
    router.sysctl("net.ipv4.ip_forward", "1")?;
    let Site {
        kind,
        hairpins,
        forgets,
        ..
    } = site;
    let rules = Router {
        access: kind.0.access,
        public: outside,
        hairpins,
        forgets,
    };
    router.nft(&rules.rules())?;
    if forgets == Router::FORGETS {
        return Ok(());
    }
    // Conntrack exists since the rules do.
    router.forget_udp_after(forgets)
}

/// A router's end of a network inside.
fn serve(router: &Namespace, interface: &str, gateway: Ipv4Addr) -> Result<()> {
    router.ip(&format!(
        "addr add {gateway}/24 dev {interface}\nlink set {interface} up\n"
    ))
}

/// An address behind a router.
fn settle(namespace: &Namespace, interface: &str, addr: Ipv4Addr, gateway: Ipv4Addr) -> Result<()> {
    namespace.ip(&format!(
        "addr add {addr}/24 dev {interface}\nlink set {interface} up\nroute add default via {gateway}\n"
    ))
}
