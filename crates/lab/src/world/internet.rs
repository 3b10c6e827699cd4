//! An internet as it was planned: a public segment, hosts on it, and sites behind their routers.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context, Result};
use byway_sim::net::Exit;

use super::place::{Place, watch};
use super::plan::Plan;
use super::site;
use crate::emulator::Emulator;
use crate::kinds::{IPV6_ONLY, Kind};
use crate::leftovers::{Scratch, unique};
use crate::netns::{Namespace, cable};
use crate::process::Running;
use crate::programs;

/// Hosts by name, and what is between them.
#[derive(Debug)]
pub struct Internet {
    hosts: BTreeMap<String, Place>,
    // After the hosts, so that they are dropped first.
    pub(super) segment: Segment,
    scratch: Scratch,
    name: String,
}

impl Internet {
    pub(super) fn create(plan: &Plan) -> Result<Self> {
        let name = unique();
        let scratch = Scratch::create(&name)?;
        let control = scratch.path().join("emulator");
        let segment = Segment::create(&name, plan, &control)?;
        let mut internet = Self {
            hosts: BTreeMap::new(),
            segment,
            scratch,
            name,
        };
        for host in &plan.hosts {
            let place = internet.public_host(&host.name, &host.addrs)?;
            internet.hosts.insert(host.name.clone(), place);
        }
        for (n, planned) in (1..).zip(&plan.sites) {
            for place in site::build(&internet, planned, n)? {
                internet.hosts.insert(place.name.clone(), place);
            }
        }
        for planned in &plan.sites {
            for (host, _) in &planned.hosts {
                internet.serve(planned.site.kind, host)?;
            }
        }
        Ok(internet)
    }

    /// With which the names of its namespaces begin.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A host.
    pub fn host(&self, name: &str) -> Result<&Place> {
        self.hosts
            .get(name)
            .with_context(|| format!("there is no host {name}"))
    }

    /// Takes a host out of the internet's own keeping, which goes on to be where it is.
    pub(super) fn take(&mut self, name: &str) -> Result<Place> {
        self.hosts
            .remove(name)
            .with_context(|| format!("there is no host {name}"))
    }

    /// What changes the links while it runs, where any of them has a delay. Its ports are the public hosts and the sites, each
    /// by the name of its first host.
    pub fn emulator(&self) -> Emulator {
        Emulator::at(&self.dir().join("emulator"))
    }

    /// A directory for files, gone with the internet.
    pub fn dir(&self) -> &Path {
        self.scratch.path()
    }

    /// Starts what the network of a host has instead of what it lacks.
    fn serve(&mut self, kind: Kind, name: &str) -> Result<()> {
        let mut place = self.take(name)?;
        if kind.0.access.exit() == Exit::Proxy {
            place.proxy = Some(programs::tinyproxy(self, &place, None)?);
        }
        if kind == IPV6_ONLY {
            place.services = place.leave_ipv4(self)?.into();
        }
        self.hosts.insert(name.to_owned(), place);
        Ok(())
    }

    /// A host on the public segment.
    pub(super) fn public_host(&self, role: &str, addrs: &[Ipv4Addr]) -> Result<Place> {
        let addr = *addrs.first().context("a public host needs an address")?;
        let namespace = Namespace::create(&self.name, role)?;
        self.segment.attach(&namespace, "eth0", role, addrs)?;
        watch(&namespace)?;
        Ok(Place::new(role, namespace, addr, addr, Vec::new(), None))
    }
}

/// The public segment: a bridge, or our link emulator. Bridges here do not look for who wants multicast: they would ask, and
/// what they ask is a packet that nobody sent. Nor does anybody ask for a hardware address: between two sites there are routers
/// on a real internet, which know each other, and asking takes a round trip of a slow link.
#[derive(Debug)]
pub(super) struct Segment {
    // Before the namespace, so that it is ended first.
    switch: Option<Running>,
    namespace: Namespace,
    /// Every address there, and the first one of its host.
    known: Vec<(Ipv4Addr, Ipv4Addr)>,
}

/// Of the host with this first address: locally administered, and the address.
fn hardware(first: Ipv4Addr) -> String {
    let [a, b, c, d] = first.octets();
    format!("02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

impl Segment {
    fn create(world: &str, plan: &Plan, control: &Path) -> Result<Self> {
        let namespace = Namespace::create(world, "internet")?;
        let known = plan.addresses();
        let (ports, distances) = (plan.ports(), plan.distances()?);
        if distances.is_empty() && ports.iter().all(|(_, _, delay)| delay.is_zero()) {
            namespace.ip("link add br0 type bridge mcast_snooping 0\nlink set br0 up\n")?;
            return Ok(Self {
                switch: None,
                namespace,
                known,
            });
        }
        let mut args = vec![plan.seed.to_string(), control.display().to_string()];
        for (name, _, delay) in ports {
            args.push(format!("{name}=delay={}us", delay.as_micros()));
        }
        let switch = programs::tool(&namespace, "switch", &args)?;
        switch.first_line("readiness", programs::READY)?;
        let emulator = Emulator::at(control);
        for (from, to, delay) in distances {
            emulator.apart(from, to, delay)?;
        }
        Ok(Self {
            switch: Some(switch),
            namespace,
            known,
        })
    }

    /// Plugs a namespace in.
    pub(super) fn attach(
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
                "link add b-{role} type bridge mcast_snooping 0\nlink set {port} master b-{role}\nlink set t-{role} master b-{role}\n\
                 link set b-{role} up\nlink set {port} up\nlink set t-{role} up\n"
            ))?;
        }
        let first = *addrs.first().context("an address")?;
        let mut batch = format!("link set {interface} address {}\n", hardware(first));
        for addr in addrs {
            batch.push_str(&format!("addr add {addr}/24 dev {interface}\n"));
        }
        batch.push_str(&format!("link set {interface} up\n"));
        for (addr, host) in self.known.iter().filter(|(_, host)| *host != first) {
            let hardware = hardware(*host);
            batch.push_str(&format!(
                "neigh replace {addr} lladdr {hardware} dev {interface} nud permanent\n"
            ));
        }
        namespace.ip(&batch)
    }
}
