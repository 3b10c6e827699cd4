//! Hosts that change networks or stop for a while under their tunnels: real interfaces, routes and signals.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::failover::{Scene, direct_forward, transfer};
use super::matrix::wait_until_direct;
use super::{SHORT, WITH_CURL};
use crate::harness::{Scenario, say};
use crate::process::poll;
use crate::programs;
use crate::world::{Place, World};

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

/// What the issue of roaming allows.
const BACK: Duration = Duration::from_secs(1);
/// A person's patience with what was away.
const SOON: Duration = Duration::from_secs(3);
/// A laptop between two access points.
const AWAY: Duration = Duration::from_secs(8);

impl Place {
    /// The host's address in its site becomes another one, as from a DHCP server; what was bound to the old one is dead.
    fn readdress(&self, last: u8) -> Result<()> {
        let [a, b, c, _] = self.addr.octets();
        let (new, gateway) = (Ipv4Addr::new(a, b, c, last), Ipv4Addr::new(a, b, c, 1));
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

fn offline() -> Result<()> {
    let scene = direct_forward()?;
    let Scene { world, forward, .. } = &scene;
    let host = &world.client;
    let mut back = None;
    let stall = transfer(world, &forward.url, || {
        host.namespace.ip("link set eth0 down\n")?;
        // It is the time that passes that does it: timers back off, the peer counts as lost.
        std::thread::sleep(AWAY);
        host.namespace.ip("link set eth0 up\n")?;
        back = Some(Instant::now());
        host.readdress(99)
    })?;
    let away = stall.saturating_sub(AWAY);
    say(format!(
        "no network for {AWAY:?}: {:.0} ms more",
        away.as_secs_f64() * 1e3
    ));
    ensure!(away < SOON, "{away:?} after the network was back");
    Ok(())
}

/// Below the time for which the process stands still: NATs keep UDP for 30 s and more, but nobody wants to wait so long.
const NAT_FORGETS: Duration = Duration::from_secs(4);
const STOPPED: Duration = Duration::from_secs(10);

fn stopped() -> Result<()> {
    let scene = direct_forward()?;
    let Scene { world, forward, .. } = &scene;
    for place in [&world.client, &world.agent] {
        if let Some(router) = &place.router {
            let seconds = NAT_FORGETS.as_secs().to_string();
            for key in ["udp_timeout", "udp_timeout_stream"] {
                router.sysctl(&format!("net.netfilter.nf_conntrack_{key}"), &seconds)?;
            }
        }
    }
    let small = format!("{}/1000", forward.url);
    forward.process.signal("STOP")?;
    std::thread::sleep(STOPPED);
    forward.process.signal("CONT")?;
    let woke = Instant::now();
    poll("an answer after the sleep", SHORT, || {
        let asked = programs::curl(world, &world.client, &small, "awake", &[], SHORT);
        Ok(asked.is_ok().then_some(()))
    })?;
    let took = woke.elapsed();
    say(format!(
        "awake: an answer after {:.0} ms",
        took.as_secs_f64() * 1e3
    ));
    ensure!(took < BACK, "{took:?} after waking up");
    Ok(())
}
