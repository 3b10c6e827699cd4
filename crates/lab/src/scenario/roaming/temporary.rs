//! Temporary IPv6 addresses (RFC 8981), as every desktop and phone has them: the kernel makes one, sends from it, makes another
//! before the first is deprecated, and removes that when its time is over. Here that takes seconds instead of days.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use byway_sim::model::Access::PortRestricted;

use super::{BACK, LASTING, TYPED, Who};
use crate::harness::{Scenario, say};
use crate::process::poll;
use crate::programs::{self, Agent, Forward, Options, Relay, Typist};
use crate::scenario::matrix::wait_until_direct;
use crate::scenario::{ACCESS, LONG, SHORT, WEB_PORT, WITH_BASH_AND_CURL};
use crate::world::ipv6::Families;
use crate::world::{Place, World};

pub(in crate::scenario) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "roaming::temporary_addresses_of_a_client_come_and_go_under_its_streams",
        needs: WITH_BASH_AND_CURL,
        run: || rotated(Who::Client),
    },
    Scenario {
        name: "roaming::temporary_addresses_of_an_agent_come_and_go_under_its_streams",
        needs: WITH_BASH_AND_CURL,
        run: || rotated(Who::Agent),
    },
];

/// How long one is preferred, and how long it is there, in seconds. The kernel makes the next one two seconds before the first
/// is deprecated, and looks at them only every few seconds.
const PREFERRED: u64 = 6;
const VALID: u64 = 9;
/// For one to be followed by the next, and to be gone.
const TURN: Duration = Duration::from_secs(4 * VALID);

impl Place {
    /// From now on the host sends from temporary addresses of its network.
    fn use_temporary_addresses(&self) -> Result<()> {
        let set = |key: &str, value: u64| {
            let key = format!("net.ipv6.conf.eth0.{key}");
            self.namespace.sysctl(&key, &value.to_string())
        };
        set("temp_prefered_lft", PREFERRED)?;
        set("temp_valid_lft", VALID)?;
        // All of a network's hosts must not change at once; one may.
        set("max_desync_factor", 0)?;
        set("dad_transmits", 0)?;
        set("use_tempaddr", 2)?;
        let own = self.v6()?;
        self.namespace.ip(&format!(
            "addr del {own}/64 dev eth0\naddr add {own}/64 dev eth0 nodad mngtmpaddr\n"
        ))?;
        // The route went with the address.
        self.route_ipv6()
    }

    /// The temporary addresses that there are now, the newest first, and whether each is still preferred.
    fn temporary_addresses(&self) -> Result<Vec<(String, bool)>> {
        let out = self
            .namespace
            .command("ip")
            .args(["-6", "-oneline", "addr", "show", "dev", "eth0", "temporary"])
            .output()?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let found = text.lines().filter_map(|line| {
            let (_, rest) = line.split_once("inet6 ")?;
            let addr = rest.split_whitespace().next()?;
            Some((addr.to_owned(), !rest.contains("deprecated")))
        });
        Ok(found.collect())
    }
}

/// Somebody types in one stream and a transfer goes on in another, over IPv6 alone.
fn rotated(who: Who) -> Result<()> {
    let world = World::with_delay(PortRestricted, PortRestricted, ACCESS)?;
    world.add_ipv6()?;
    let relay = Relay::start_dual(&world)?;
    let (_web, _) = programs::web(&world.agent, WEB_PORT)?;
    for place in [&world.client, &world.agent] {
        place.set_families(Families::V6)?;
    }
    let agent = Agent::start(&world, &relay.url, Options::default(), &[])?;
    let forward = Forward::start(&world, &agent.peer(), WEB_PORT, Options::default())?;
    wait_until_direct(&world, &forward.url)?;
    let mut typist = Typist::start(&world.client, &forward.url)?;
    let lasting = format!("{}/paced/{}/{}", forward.url, LASTING.pace, LASTING.size);
    let mut transfer = programs::start_curl(&world, &world.client, &lasting, "lasting", &[])?;
    let host = who.place(&world);

    let moment = typist.now();
    host.use_temporary_addresses()?;
    let first = poll("a temporary address", SHORT, || {
        Ok(host.temporary_addresses()?.pop())
    })?;
    ensure!(first.1, "the first is not preferred: {first:?}");
    let began = Instant::now();
    let others = |all: &[(String, bool)]| all.iter().filter(|(addr, _)| *addr != first.0).count();
    poll("the next one", TURN, || {
        Ok((others(&host.temporary_addresses()?) > 0).then_some(()))
    })?;
    let next = began.elapsed();
    poll("the end of the first", TURN, || {
        let all = host.temporary_addresses()?;
        let gone = !all.iter().any(|(addr, _)| *addr == first.0);
        Ok((gone && others(&all) > 0).then_some(()))
    })?;
    let gone = began.elapsed();
    let after = typist.now();
    typist.wait(after, TYPED, SHORT)?;
    let silence = typist.silence(moment)?;
    say(format!(
        "{who:?}: the next after {next:.1?}, the first gone after {gone:.1?}: silent for {silence:?} at most"
    ));
    ensure!(
        transfer.is_running(),
        "the transfer ended before the first address"
    );
    transfer.finish(LONG)?.success()?;
    programs::check_body(&world, &lasting, "lasting")?;
    wait_until_direct(&world, &forward.url).context("not direct any more")?;
    ensure!(silence <= BACK, "silent for {silence:?}");
    Ok(())
}
