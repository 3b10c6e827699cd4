//! A gateway that gives a port makes the hardest pair of networks an easy one.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::ACCESS;
use crate::NatKind::Symmetric;
use crate::harness::{Need, Scenario, say};
use crate::process::poll;
use crate::programs::{self, Agent, Options, Relay, miniupnpd};
use crate::world::World;

const NEEDS: &[Need] = &[Need::Namespaces, Need::Binaries, Need::Tool("miniupnpd")];

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "portmap::symmetric_to_symmetric_goes_direct_by_a_port_got_by_pcp",
        needs: NEEDS,
        run: || goes_direct(false),
    },
    Scenario {
        name: "portmap::symmetric_to_symmetric_goes_direct_by_a_port_got_by_upnp",
        needs: NEEDS,
        run: || goes_direct(true),
    },
];

fn goes_direct(upnp_only: bool) -> Result<()> {
    let world = World::with_delay(Symmetric, Symmetric, ACCESS)?;
    let relay = Relay::start(&world)?;
    let _gateway = miniupnpd::miniupnpd(&world, &world.agent, &world.client, upnp_only)?;
    let options = Options {
        port_mapping: true,
        ..Options::default()
    };
    let mut agent = Agent::start(&world, &relay.url, options, &[])?;
    // The search for UPnP alone takes seconds.
    poll("mapped port", Duration::from_secs(20), || {
        Ok((miniupnpd::mapped(&world.agent)? > 0).then_some(()))
    })?;
    let peer = agent.peer();
    let pongs = programs::ping(&world, &peer, Options::default(), &["--until-direct"])?;
    let last = pongs.last().context("no answer at all")?;
    say(format!("{} answers, the last by {last:?}", pongs.len()));
    // The way in is the mapped port; the agent's own way out may be seen as another.
    ensure!(
        last.kind == "direct",
        "the last answer came by {}",
        last.kind
    );

    agent.process.signal("TERM")?;
    poll("end of the agent", Duration::from_secs(10), || {
        Ok((!agent.process.is_running()).then_some(()))
    })?;
    let left = miniupnpd::mapped(&world.agent)?;
    ensure!(left == 0, "{left} ports were not given back");
    Ok(())
}
