//! Temporary IPv6 addresses (RFC 8981), as every desktop and phone has them: the kernel makes one, sends from it, makes another
//! before the first is deprecated, and removes that when its time is over. Here that takes seconds instead of days.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use byway_sim::model::Access::PortRestricted;
use serde_json::Value;

use super::{BACK, TYPED, Who};
use crate::harness::{Scenario, say};
use crate::process::poll;
use crate::programs::{self, Agent, Forward, Options, Relay, Typist};
use crate::scenario::matrix::wait_until_direct;
use crate::scenario::scene::Transfer;
use crate::scenario::{ACCESS, SHORT, WEB_PORT, WITH_BASH_AND_CURL};
use crate::tool::begins_as_body;
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
/// For one to be followed by the next, or to be gone.
const TURN: Duration = Duration::from_secs(4 * VALID);
/// Bytes that its peer must have had from an address that is in use. A few probes are a tenth of it; a second or two of messages,
/// and of acknowledgements of the transfer, are all of it.
const HEARD: u64 = 5_000;
/// A transfer that lasts longer than everything that is waited for. It is ended when all was seen.
const ENDLESS: Transfer = Transfer {
    size: 60_000_000,
    pace: 300_000,
};
/// More of it, after everything.
const GOES_ON: u64 = 100_000;

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
        // The address stays, and the route with it: nothing is interrupted but what the kernel itself does.
        let own = self.v6()?;
        self.namespace
            .ip(&format!("addr change {own}/64 dev eth0 mngtmpaddr\n"))
    }

    /// From now on it is counted who sends UDP to the host over IPv6.
    fn count_callers(&self) -> Result<()> {
        self.namespace.nft(
            "table inet callers {\n set seen { type ipv6_addr; flags dynamic; size 64; counter; }\n\
             chain input { type filter hook input priority filter; policy accept;\n\
             meta l4proto udp update @seen { ip6 saddr }\n }\n}\n",
        )
    }

    /// The bytes that came from each address since [`Place::count_callers`].
    fn callers(&self) -> Result<BTreeMap<Ipv6Addr, u64>> {
        let out = self
            .namespace
            .command("nft")
            .args(["-j", "list", "set", "inet", "callers", "seen"])
            .output()?;
        let json: Value = serde_json::from_slice(&out.stdout)
            .with_context(|| String::from_utf8_lossy(&out.stderr).into_owned())?;
        let items = json["nftables"].as_array().context("no list")?;
        let seen = items
            .iter()
            .filter_map(|item| item["set"]["elem"].as_array());
        seen.flatten()
            .map(|item| {
                let from = item["elem"]["val"].as_str().context("no address")?;
                let bytes = item["elem"]["counter"]["bytes"].as_u64();
                Ok((from.parse()?, bytes.context("no counter")?))
            })
            .collect()
    }

    /// Of those the temporary addresses of another host.
    fn heard_from(&self, host: &Self) -> Result<BTreeMap<Ipv6Addr, u64>> {
        let own = host.v6()?;
        let network = |addr: &Ipv6Addr| addr.to_bits() >> 64;
        let mut heard = self.callers()?;
        heard.retain(|from, _| network(from) == network(&own) && *from != own);
        Ok(heard)
    }

    /// The temporary addresses that there are now.
    fn temporary_addresses(&self) -> Result<Vec<Ipv6Addr>> {
        let out = self
            .namespace
            .command("ip")
            .args(["-6", "-oneline", "addr", "show", "dev", "eth0", "temporary"])
            .output()?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let found = text.lines().filter_map(|line| {
            let (_, rest) = line.split_once("inet6 ")?;
            rest.split_once('/')?.0.parse().ok()
        });
        Ok(found.collect())
    }
}

/// Somebody types in one stream and a transfer goes on in another, over IPv6 alone. What the peer hears comes from each temporary
/// address in its turn.
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
    let url = format!("{}/paced/{}/{}", forward.url, ENDLESS.pace, ENDLESS.size);
    let mut transfer =
        programs::start_curl(&world, &world.client, &url, "endless", &["--no-buffer"])?;
    let (host, peer) = (who.place(&world), who.other(&world));
    peer.count_callers()?;

    let moment = typist.now();
    host.use_temporary_addresses()?;
    let began = Instant::now();
    let first = poll("a temporary address", SHORT, || {
        Ok(host.temporary_addresses()?.pop())
    })?;
    let others = || -> Result<u64> {
        let heard = peer.heard_from(host)?;
        Ok(heard
            .iter()
            .filter(|(from, _)| **from != first)
            .map(|(_, bytes)| bytes)
            .sum())
    };
    poll("word from it", TURN, || {
        let bytes = peer.heard_from(host)?.get(&first).copied();
        Ok((bytes >= Some(HEARD)).then_some(()))
    })?;
    poll("word from the next one", TURN, || {
        Ok((others()? >= HEARD).then_some(()))
    })?;
    let followed = began.elapsed();
    poll("the end of the first", TURN, || {
        Ok((!host.temporary_addresses()?.contains(&first)).then_some(()))
    })?;
    let gone = began.elapsed();
    let before = others()?;
    poll("word from others after it", SHORT, || {
        Ok((others()? >= before + HEARD).then_some(()))
    })?;
    let file = world.dir().join("endless");
    let arrived = || -> Result<u64> { Ok(fs::metadata(&file)?.len()) };
    let before = arrived()?;
    poll("more of the transfer", SHORT, || {
        Ok((arrived()? > before + GOES_ON).then_some(()))
    })?;
    let after = typist.now();
    typist.wait(after, TYPED, SHORT)?;
    let silence = typist.silence(moment)?;
    let heard = peer.heard_from(host)?;
    say(format!(
        "{who:?}: {first} was followed within {followed:.1?}, gone after {gone:.1?}: silent for {silence:?} at most; bytes {heard:?}"
    ));
    ensure!(transfer.is_running(), "the transfer ended");
    transfer.kill()?;
    let so_far = File::open(&file)?;
    ensure!(
        begins_as_body(so_far, ENDLESS.size)?,
        "what was downloaded arrived changed"
    );
    wait_until_direct(&world, &forward.url).context("not direct any more")?;
    ensure!(silence <= BACK, "silent for {silence:?}");
    Ok(())
}
