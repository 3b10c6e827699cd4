//! Client and agent at one site: on one network, on one host, or on two networks behind one router that see each other from
//! outside at best, their own or a carrier's.

use anyhow::{Context, Result, ensure};
use byway_sim::model::Access::{CarrierGrade, PortRestricted, Symmetric};

use super::matrix::wait_until;
use super::{ACCESS, SHORT, WEB_PORT, WITH_CURL};
use crate::harness::{Scenario, say};
use crate::programs::{self, Agent, Forward, Options, Relay};
use crate::world::{CLIENT_PUBLIC, Place, Plan, Site, Traffic, World};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "neighbours::on_one_network_the_bytes_never_leave_it",
        needs: WITH_CURL,
        run: one_network,
    },
    Scenario {
        name: "neighbours::on_one_host_the_bytes_never_leave_it",
        needs: WITH_CURL,
        run: one_host,
    },
    Scenario {
        name: "neighbours::on_two_networks_go_direct_where_the_router_hairpins",
        needs: WITH_CURL,
        run: || outside(guests(Site::behind(PortRestricted).hairpins()), true),
    },
    Scenario {
        name: "neighbours::on_two_networks_stay_on_the_relay_where_the_router_does_not_hairpin",
        needs: WITH_CURL,
        run: || outside(guests(Site::behind(PortRestricted)), false),
    },
    Scenario {
        name: "neighbours::on_two_networks_go_direct_through_a_symmetric_nat_that_hairpins",
        needs: WITH_CURL,
        run: || outside(guests(Site::behind(Symmetric).hairpins()), true),
    },
    Scenario {
        name: "neighbours::two_customers_of_a_carrier_that_hairpins_go_direct",
        needs: WITH_CURL,
        run: || outside(customers(Site::behind(CarrierGrade).hairpins()), true),
    },
    Scenario {
        name: "neighbours::two_customers_of_a_carrier_that_does_not_hairpin_stay_on_the_relay_and_are_told_of_it",
        needs: super::PROGRAMS,
        run: carrier,
    },
];

/// Large beside all probes and handshakes.
const SIZE: u64 = 4 << 20;
/// What of that may go another way than it should: those, and what was on its way.
const STRAY: u64 = SIZE / 8;

/// A site with the client in it, behind a router that is as most are.
fn home() -> Plan {
    let site = Site::behind(PortRestricted).access(ACCESS);
    World::servers().site("client", site)
}

fn one_network() -> Result<()> {
    let world = World::of(home().neighbour("agent"))?;
    let router = world.client.gate()?;
    // Bytes of UDP that pass the router on their way out.
    router.nft(
        "table inet watch { counter out {}\n chain out { type filter hook forward priority filter + 1; policy accept;\n\
         oifname wan0 meta l4proto udp counter name out\n }\n}\n",
    )?;
    let agent = world.agent.addr;
    let scene = Scene::direct(&world, &world.agent, &agent.to_string())?;
    let before = router.counter("out")?;
    let moved = scene.download()?;
    let out = router.counter("out")? - before;
    say(format!("{moved:?}, {out} bytes out of the router"));
    ensure!(moved.lan >= SIZE, "not by the own network: {moved:?}");
    ensure!(out < STRAY, "{out} bytes left the router");
    Ok(())
}

fn one_host() -> Result<()> {
    let world = World::of(home().neighbour("agent"))?;
    let host = &world.client;
    let scene = Scene::direct(&world, host, "")?;
    let moved = scene.download()?;
    say(format!("{moved:?}"));
    let away = moved.relay_udp + moved.relay_tcp + moved.direct;
    ensure!(away < STRAY, "they left the host: {moved:?}");
    Ok(())
}

/// The two are guests to each other.
fn guests(site: Site) -> Plan {
    let site = site.access(ACCESS);
    World::servers().site("client", site).guest("agent")
}

/// Each has a router of its own, behind the carrier's.
fn customers(site: Site) -> Plan {
    let site = site.access(ACCESS);
    World::servers().site("client", site).customer("agent")
}

/// The router between the two hairpins or does not.
fn outside(plan: Plan, hairpins: bool) -> Result<()> {
    let world = World::of(plan)?;
    if hairpins {
        let scene = Scene::direct(&world, &world.agent, &CLIENT_PUBLIC.to_string())?;
        let moved = scene.download()?;
        say(format!("{moved:?}"));
        ensure!(moved.direct >= SIZE, "not through the hairpin: {moved:?}");
        ensure!(moved.relay_udp < STRAY, "much went twice: {moved:?}");
        return Ok(());
    }
    let relay = Relay::start(&world)?;
    let agent = Agent::start(&world, &relay.url, Options::default(), &[])?;
    stays_on_the_relay(&world, &agent)
}

fn stays_on_the_relay(world: &World, agent: &Agent) -> Result<()> {
    let pongs = programs::ping(world, &agent.peer(), Options::default(), &["-c", "8"])?;
    ensure!(
        pongs.len() == 8 && pongs.iter().all(|p| p.kind == "relay_udp"),
        "there is no other way than the relay: {pongs:?}"
    );
    Ok(())
}

/// Where the customers' routers are between them and the carrier.
const AT_CARRIER: [&str; 2] = ["100.64.1.2", "100.65.1.2"];

/// The customers' own routers give ports, of addresses at which nobody comes in.
fn carrier() -> Result<()> {
    let world = World::of(customers(Site::behind(CarrierGrade)))?;
    let relay = Relay::start(&world)?;
    let mut routers = Vec::new();
    for (place, outside) in [&world.client, &world.agent].into_iter().zip(AT_CARRIER) {
        let args = ["0.0.0.0:5351", outside].map(str::to_owned);
        let router = programs::tool(place.own_router()?, "elder", &args)?;
        router.first_line("readiness", programs::READY)?;
        routers.push(router);
    }
    let [outside, _] = AT_CARRIER;
    let report = programs::netcheck_asking(&world, &world.client, &["--relay", &relay.url])?;
    say(format!(
        "{}, {}",
        report["port_mapping"], report["findings"]
    ));
    let external = report["port_mapping"]["external"].as_str();
    ensure!(
        external.is_some_and(|at| at.starts_with(outside)) && report["double_nat"] == true,
        "the carrier's address of the own router: {report}"
    );
    let told = format!(
        "The gateway gives a port, but its own outside address, {outside}, is of the range"
    );
    let findings = report["findings"].as_array().context("no findings")?;
    let says = |finding: &serde_json::Value| finding.as_str().is_some_and(|f| f.starts_with(&told));
    ensure!(findings.iter().any(says), "nothing of a carrier: {report}");

    let asking = Options {
        port_mapping: true,
        ..Options::default()
    };
    let agent = Agent::start(&world, &relay.url, asking, &[])?;
    stays_on_the_relay(&world, &agent)
}

/// A forward whose tunnel is direct.
struct Scene<'a> {
    forward: Forward,
    _agent: Agent,
    _web: crate::Running,
    _relay: Relay,
    world: &'a World,
}

impl<'a> Scene<'a> {
    /// With the agent on this host, and the other end of the direct path at an address that begins so.
    fn direct(world: &'a World, place: &Place, remote: &str) -> Result<Self> {
        let relay = Relay::start(world)?;
        let (web, _) = programs::web(place, WEB_PORT + 1)?;
        let agent = Agent::start_on(world, place, &relay.url, Options::default(), &[])?;
        let options = Options::default();
        let pongs = programs::ping(world, &agent.peer(), options, &["--until-direct"])?;
        let last = pongs.last().context("no answer at all")?;
        say(format!("{} answers, the last by {last:?}", pongs.len()));
        ensure!(last.kind == "direct", "the last came by {}", last.kind);
        let leads_to = last.remote.as_deref().unwrap_or_default();
        ensure!(
            leads_to.starts_with(remote),
            "the direct path leads to {leads_to}"
        );
        let forward = Forward::start_on(
            world,
            &world.client,
            &agent.peer(),
            (WEB_PORT, WEB_PORT + 1),
            options,
            &[],
        )?;
        let scene = Self {
            forward,
            _agent: agent,
            _web: web,
            _relay: relay,
            world,
        };
        wait_until(world, &scene.forward.url, |moved, size| {
            moved.relay_udp + moved.relay_tcp < size / 2
        })?;
        Ok(scene)
    }

    /// Downloads, and says which way the client's bytes went.
    fn download(&self) -> Result<Traffic> {
        let Self { world, forward, .. } = self;
        let before = world.client.traffic()?;
        let url = format!("{}/{SIZE}", forward.url);
        programs::curl(world, &world.client, &url, "bytes", &[], SHORT)?;
        Ok(world.client.traffic()?.since(before))
    }
}
