//! Hosts that change networks or stop for a while under their tunnels: real interfaces, routes and signals.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::failover::{Scene, direct_forward, transfer};
use super::matrix::wait_until_direct;
use super::{ACCESS, SHORT, WEB_PORT, WITH_CURL};
use crate::NatKind::PortRestricted;
use crate::harness::{Need, Scenario, say};
use crate::process::poll;
use crate::programs::{self, Agent, Forward, Options, Relay};
use crate::world::ipv6::{Families, RELAY_NAME, RELAY_V6};
use crate::world::{Place, RELAY, World};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "roaming::a_client_that_gets_another_address_goes_on_within_a_second",
        needs: WITH_CURL,
        run: || readdressed(|world| &world.client),
    },
    Scenario {
        name: "roaming::an_agent_that_gets_another_address_goes_on_within_a_second",
        needs: WITH_CURL,
        run: || readdressed(|world| &world.agent),
    },
    Scenario {
        name: "roaming::a_client_goes_from_each_family_to_each_within_a_second",
        needs: WITH_IPV6,
        run: || families(|world| &world.client),
    },
    Scenario {
        name: "roaming::an_agent_goes_from_each_family_to_each_within_a_second",
        needs: WITH_IPV6,
        run: || families(|world| &world.agent),
    },
    Scenario {
        name: "roaming::a_client_without_a_network_for_a_while_goes_on_when_there_is_one",
        needs: WITH_CURL,
        run: offline,
    },
    Scenario {
        name: "roaming::a_client_that_was_stopped_until_its_nat_forgot_it_goes_on_at_once",
        needs: WITH_CURL,
        run: stopped,
    },
];

/// The laboratory knocks at IPv6 addresses with bash.
const WITH_IPV6: &[Need] = &[
    Need::Namespaces,
    Need::Binaries,
    Need::Tool("curl"),
    Need::Tool("bash"),
];

/// What is asked of roaming.
const BACK: Duration = Duration::from_secs(1);
/// A person's patience with what was away.
const SOON: Duration = Duration::from_secs(3);
/// A laptop between two access points.
const AWAY: Duration = Duration::from_secs(8);

impl Place {
    /// The host's address in its site becomes another one, as from a DHCP server; what was bound to the old one is dead.
    fn readdress(&self, last: u8) -> Result<()> {
        let [a, b, c, _] = self.addr.octets();
        let (new, gateway) = (Ipv4Addr::new(a, b, c, last), self.gateway()?);
        self.namespace.ip(&format!(
            "addr flush dev eth0\naddr add {new}/24 dev eth0\nroute replace default via {gateway}\n"
        ))
    }
}

fn readdressed(who: fn(&World) -> &Place) -> Result<()> {
    let scene = direct_forward()?;
    let Scene { world, forward, .. } = &scene;
    for last in [77, 78] {
        let stall = transfer(world, &forward.url, || who(world).readdress(last))?;
        say(format!(
            "another address: stalled for {:.0} ms",
            stall.as_secs_f64() * 1e3
        ));
        ensure!(stall < BACK, "stalled for {stall:?}");
        wait_until_direct(world, &forward.url)?;
    }
    Ok(())
}

/// From each family to each, with a download now and then.
fn families(who: fn(&World) -> &Place) -> Result<()> {
    let world = World::with_delay(PortRestricted, PortRestricted, ACCESS)?;
    world.add_ipv6()?;
    let listen = [
        SocketAddr::new(RELAY.into(), 443),
        SocketAddr::new(RELAY_V6.into(), 443),
    ];
    let relay = Relay::start_at(&world, &listen.map(|addr| addr.to_string()))?;
    let (_, pin) = relay.url.split_once('#').context("a URL with a pin")?;
    let url = format!("https://{RELAY_NAME}:443#{pin}");
    let (_web, _) = programs::web(&world.agent, WEB_PORT)?;
    who(&world).set_families(Families::V4)?;
    let agent = Agent::start(&world, &url, Options::default(), &[])?;
    let forward = Forward::start(&world, &agent.peer(), WEB_PORT, Options::default())?;
    wait_until_direct(&world, &forward.url)?;
    let mut before = Families::V4;
    let mut slowest = Duration::ZERO;
    for now in Families::WALK {
        who(&world).set_families(now)?;
        let took = until_answered(&world, &forward)?;
        slowest = slowest.max(took);
        // By the next change everything has come to rest.
        let began = Instant::now();
        wait_until_direct(&world, &forward.url)?;
        say(format!(
            "{before:?} to {now:?}: an answer after {:.0} ms, direct {:.1} s later",
            took.as_secs_f64() * 1e3,
            began.elapsed().as_secs_f64()
        ));
        before = now;
    }
    ensure!(slowest <= BACK, "{slowest:?}");
    Ok(())
}

/// How long until something asked for now is there.
fn until_answered(world: &World, forward: &Forward) -> Result<Duration> {
    let small = format!("{}/1000", forward.url);
    let began = Instant::now();
    poll("an answer", SHORT, || {
        let asked = programs::curl(world, &world.client, &small, "small", &[], SHORT);
        Ok(asked.is_ok().then_some(()))
    })?;
    Ok(began.elapsed())
}

fn offline() -> Result<()> {
    let scene = direct_forward()?;
    let Scene { world, forward, .. } = &scene;
    let host = &world.client;
    let stall = transfer(world, &forward.url, || {
        host.namespace.ip("link set eth0 down\n")?;
        // It is the time that passes that does it: timers back off, the peer counts as lost.
        std::thread::sleep(AWAY);
        host.namespace.ip("link set eth0 up\n")?;
        host.readdress(99)
    })?;
    // The clock of the transfer begins when there is a network again.
    say(format!(
        "no network for {AWAY:?}: {:.0} ms more",
        stall.as_secs_f64() * 1e3
    ));
    ensure!(stall < SOON, "{stall:?} after the network was back");
    let told = forward.process.lines();
    ensure!(
        told.iter()
            .any(|line| line.text.contains("nothing is heard")),
        "the network was never away"
    );
    Ok(())
}

/// Below the time for which the process stands still: NATs keep UDP for 30 s and more, but nobody wants to wait so long.
const NAT_FORGETS: Duration = Duration::from_secs(4);
const STOPPED: Duration = Duration::from_secs(10);

fn stopped() -> Result<()> {
    let scene = direct_forward()?;
    let Scene { world, forward, .. } = &scene;
    let router = world.client.router.as_ref().context("a routed site")?;
    let seconds = NAT_FORGETS.as_secs().to_string();
    for key in ["udp_timeout", "udp_timeout_stream"] {
        router.sysctl(&format!("net.netfilter.nf_conntrack_{key}"), &seconds)?;
    }
    // With what passes next the entries have the new time.
    until_answered(world, forward)?;
    let emulator = world.emulator();
    let others = ["agent", "relay"];
    forward.process.signal("STOP")?;
    // What comes from outside would keep them.
    others
        .iter()
        .try_for_each(|from| emulator.hole(from, "client"))?;
    std::thread::sleep(STOPPED);
    others
        .iter()
        .try_for_each(|from| emulator.mend(from, "client"))?;
    forward.process.signal("CONT")?;
    let took = until_answered(world, forward)?;
    say(format!(
        "awake: an answer after {:.0} ms",
        took.as_secs_f64() * 1e3
    ));
    ensure!(took < BACK, "{took:?} after waking up");
    Ok(())
}
