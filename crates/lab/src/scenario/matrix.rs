//! Every kind of network against every other: which path a tunnel ends up on, that its first byte never waits for
//! the direct path, and that what it carries arrives unchanged.

mod way;

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use byway_sim::model::Access::{
    AddressDependent, AddressRestricted, CarrierGrade, FullCone, Only443, Only443WithQuic, Open,
    PortRestricted, Preserving, ProxyOnly, RandomCone, Sequential, SequentialDown, Symmetric,
    UdpBlocked,
};
use byway_sim::model::Families;

use super::{ACCESS, SHORT, WEB_PORT, WITH_CURL, WITH_PROXY};
use crate::Kind;
use crate::figures::Figures;
use crate::harness::{self, Need, Scenario, say};
use crate::kinds::IPV6_ONLY;
use crate::programs::{self, Agent, Forward, Options, Pong, Relay};
use crate::world::{AGENT_PUBLIC, RELAY_2, Traffic, World};
use way::Way;

/// What stands before a network without IPv4.
const WITH_NAT64: &[Need] = &[
    Need::Namespaces,
    Need::Binaries,
    Need::Tool("curl"),
    Need::Tool("tayga"),
    Need::Tool("dnsmasq"),
    Need::Tool("bash"),
];

/// All of it, for the table.
const WITH_ALL: &[Need] = &[
    Need::Namespaces,
    Need::Binaries,
    Need::Tool("curl"),
    Need::Tool("tinyproxy"),
    Need::Tool("tayga"),
    Need::Tool("dnsmasq"),
    Need::Tool("bash"),
];

/// What such a pair needs.
const fn needs(client: Kind, agent: Kind) -> &'static [Need] {
    let [Kind(client), Kind(agent)] = [client, agent];
    let translates =
        matches!(client.families, Families::Nat64) || matches!(agent.families, Families::Nat64);
    let has_proxy = matches!(client.access, ProxyOnly) || matches!(agent.access, ProxyOnly);
    match (translates, has_proxy) {
        (false, false) => WITH_CURL,
        (false, true) => WITH_PROXY,
        (true, false) => WITH_NAT64,
        (true, true) => WITH_ALL,
    }
}

macro_rules! kind {
    (IPV6_ONLY) => {
        IPV6_ONLY
    };
    ($access:ident) => {
        Kind::of($access)
    };
}

macro_rules! pairs {
    ($($name:literal $client:ident $agent:ident;)*) => {
        pub(super) const SCENARIOS: &[Scenario] = &[$(Scenario {
            name: $name,
            needs: needs(kind!($client), kind!($agent)),
            run: || pair(kind!($client), kind!($agent)).map(drop),
        }),*];
        /// Whom each is about.
        #[cfg(test)]
        fn played() -> Vec<(&'static str, Kind, Kind)> {
            vec![$(($name, kind!($client), kind!($agent))),*]
        }
    };
}

pairs! {
    "matrix::open_to_open_goes_direct" Open Open;
    "matrix::open_to_restricted_goes_direct" Open PortRestricted;
    "matrix::open_to_symmetric_goes_direct" Open Symmetric;
    "matrix::open_to_udp_blocked_runs_over_tls" Open UdpBlocked;
    "matrix::restricted_to_open_goes_direct" PortRestricted Open;
    "matrix::restricted_to_restricted_goes_direct" PortRestricted PortRestricted;
    "matrix::restricted_to_symmetric_goes_direct" PortRestricted Symmetric;
    "matrix::restricted_to_udp_blocked_runs_over_tls" PortRestricted UdpBlocked;
    "matrix::symmetric_to_open_goes_direct" Symmetric Open;
    "matrix::symmetric_to_restricted_goes_direct" Symmetric PortRestricted;
    "matrix::symmetric_to_symmetric_stays_on_the_udp_link" Symmetric Symmetric;
    "matrix::symmetric_to_udp_blocked_runs_over_tls" Symmetric UdpBlocked;
    "matrix::udp_blocked_to_open_runs_over_tls" UdpBlocked Open;
    "matrix::udp_blocked_to_restricted_runs_over_tls" UdpBlocked PortRestricted;
    "matrix::udp_blocked_to_symmetric_runs_over_tls" UdpBlocked Symmetric;
    "matrix::udp_blocked_to_udp_blocked_runs_over_tls" UdpBlocked UdpBlocked;
    // Of the other kinds those pairs that show something new; `byway-lab table` plays all.
    "matrix::full_cone_to_symmetric_goes_direct" FullCone Symmetric;
    "matrix::symmetric_to_address_restricted_goes_direct" Symmetric AddressRestricted;
    "matrix::carrier_grade_to_restricted_goes_direct" CarrierGrade PortRestricted;
    "matrix::carrier_grade_to_symmetric_goes_direct" CarrierGrade Symmetric;
    "matrix::carrier_grade_to_carrier_grade_goes_direct" CarrierGrade CarrierGrade;
    "matrix::sequential_to_restricted_goes_direct" Sequential PortRestricted;
    "matrix::restricted_to_sequential_goes_direct" PortRestricted Sequential;
    "matrix::sequential_to_symmetric_stays_on_the_udp_link" Sequential Symmetric;
    "matrix::sequential_to_sequential_down_stays_on_the_udp_link_or_is_lucky" Sequential SequentialDown;
    "matrix::ipv6_only_to_restricted_goes_direct" IPV6_ONLY PortRestricted;
    "matrix::restricted_to_ipv6_only_goes_direct" PortRestricted IPV6_ONLY;
    "matrix::ipv6_only_to_symmetric_goes_direct" IPV6_ONLY Symmetric;
    "matrix::open_to_proxy_only_runs_over_tls" Open ProxyOnly;
    "matrix::proxy_only_to_restricted_runs_over_tls" ProxyOnly PortRestricted;
    "matrix::proxy_only_to_udp_blocked_runs_over_tls" ProxyOnly UdpBlocked;
    "matrix::address_dependent_to_restricted_goes_direct" AddressDependent PortRestricted;
    "matrix::restricted_to_preserving_goes_direct" PortRestricted Preserving;
    "matrix::preserving_to_address_dependent_stays_on_the_udp_link" Preserving AddressDependent;
    "matrix::only_443_to_restricted_runs_over_tls" Only443 PortRestricted;
    "matrix::open_to_only_443_runs_over_tls" Open Only443;
    "matrix::random_cone_to_symmetric_goes_direct" RandomCone Symmetric;
    "matrix::only_443_with_quic_to_open_stays_on_the_udp_link" Only443WithQuic Open;
}

/// Clients of these kinds against agents of those, a table for each; false if one pair was not what it must be. For a person: it
/// takes minutes.
pub fn table(parts: &[(&[Kind], &[Kind])]) -> bool {
    harness::by_hand(WITH_ALL, || {
        let played = parts
            .iter()
            .map(|(clients, agents)| print_table(clients, agents));
        played.fold(true, |fine, part| fine & part)
    })
}

fn print_table(clients: &[Kind], agents: &[Kind]) -> bool {
    let widths = Kind::ALL.map(|(name, _)| name.len());
    let width = widths.into_iter().max().unwrap_or(0) + 2;
    print!("{:width$}", "client \\ agent");
    for agent in agents {
        print!("{:width$}", agent.to_string());
    }
    println!();
    let mut problems = Vec::new();
    let mut easy = Vec::new();
    for &client in clients {
        print!("{:width$}", client.to_string());
        for &agent in agents {
            let way = Way::expected(client, agent);
            let cell = match harness::quietly(move || pair(client, agent)) {
                Ok(direct_after) => {
                    let is_easy = client.0.is_where_it_says() && agent.0.is_where_it_says();
                    easy.extend(direct_after.filter(|_| is_easy));
                    way.name()
                }
                Err(why) => {
                    problems.push(format!("{client} to {agent}: {why}"));
                    "FAILED"
                }
            };
            print!("{cell:width$}");
            let _ = std::io::stdout().flush();
        }
        println!();
    }
    for problem in &problems {
        println!("\n{problem}");
    }
    let easy = Figures::of(easy);
    println!(
        "\neasy pairs, from the tunnel to the direct path (two round trips are 40 ms): {easy}"
    );
    let soon = easy.runs() == 0
        || easy.percentile(50) <= (ROUND_TRIP * 2).mul_f64(MACHINE)
            && easy.percentile(95) <= (ROUND_TRIP * 3).mul_f64(MACHINE);
    problems.is_empty() && soon
}

/// Between the two, by any path.
const ROUND_TRIP: Duration = Duration::from_millis(20);
/// What the machine itself may take: two kernels, two programs and the emulator in between.
const MACHINE: f64 = 1.25;
/// The size of each download: large beside all probes and handshakes.
const SIZE: u64 = 4 << 20;

/// Plays a pair. How long after the tunnel was up data went direct, if it did.
fn pair(client: Kind, agent: Kind) -> Result<Option<Duration>> {
    let way = Way::expected(client, agent);
    let world = World::with_delay(client, agent, ACCESS)?;
    let relay = Relay::start(&world)?;
    let (_web, _) = programs::web(&world.agent, WEB_PORT)?;
    let by_address = [client, agent].contains(&AddressDependent.into());
    // One server's address cannot show that a NAT looks at addresses: it is then taken for one that does not (decision 0015).
    let second = by_address
        .then(|| Relay::start_at(&world, &[format!("{RELAY_2}:443")]))
        .transpose()?;
    let more = second.iter().flat_map(|r| ["--relay", r.url.as_str()]);
    let more: Vec<&str> = more.collect();
    let agent = Agent::start(&world, &relay.url, Options::default(), &more)?;
    say("relay and agent are up");

    let pongs = match way {
        Way::Direct => programs::ping(
            &world,
            &agent.peer(),
            Options::default(),
            &["--until-direct"],
        )?,
        _ => programs::ping(&world, &agent.peer(), Options::default(), &["-c", "5"])?,
    };
    first_byte_did_not_wait(&pongs)?;
    let last = pongs.last().context("no answer at all")?;
    match way {
        Way::Direct => {
            ensure!(
                last.kind == "direct",
                "the last answer came by {}",
                last.kind
            );
            if let Some(remote) = &last.remote {
                ensure!(
                    remote.starts_with(&AGENT_PUBLIC.to_string()),
                    "the direct path leads to {remote}"
                );
            }
        }
        Way::UdpLinkOrDirect => {
            let ok = |p: &Pong| p.kind == "relay_udp" || p.kind == "direct";
            ensure!(
                pongs.iter().all(ok),
                "every answer should have come by the relay's UDP or directly: {pongs:?}"
            );
        }
        Way::UdpLink | Way::AgentTls | Way::ClientTls | Way::BothTls => {
            ensure!(
                pongs.iter().all(|p| p.kind != "direct"),
                "a direct path here is impossible: {pongs:?}"
            );
            let tls = matches!(way, Way::ClientTls | Way::BothTls);
            let own = if tls { "relay_tls" } else { "relay_udp" };
            // With the agent on TLS a client may name its own link or the worst of the channel.
            let ok = |p: &Pong| p.kind == own || (way == Way::AgentTls && p.kind == "relay_tls");
            ensure!(
                pongs.iter().all(ok),
                "every answer should have come by {own}: {pongs:?}"
            );
        }
    }

    let forward = Forward::start(&world, &agent.peer(), WEB_PORT, Options::default())?;
    // Twice: the first over whatever there is, the second over what has come of it.
    let url = format!("{}/{SIZE}", forward.url);
    programs::curl(&world, &world.client, &url, "first", &[], SHORT)?;
    if way == Way::Direct {
        wait_until_direct(&world, &forward.url)?;
    }
    let (client_before, agent_before) = (world.client.traffic()?, world.agent.traffic()?);
    programs::curl(&world, &world.client, &url, "second", &[], SHORT)?;
    let client = world.client.traffic()?.since(client_before);
    let agent = world.agent.traffic()?.since(agent_before);
    say(format!(
        "the second download: client {client:?}, agent {agent:?}"
    ));
    way.judge(client, agent)?;
    let directly = pongs.iter().find(|pong| pong.kind == "direct");
    Ok(directly.map(|pong| pong.path_since.saturating_sub(pong.up)))
}

/// The first answer must have come through the relay: nobody waited for a direct path.
fn first_byte_did_not_wait(pongs: &[Pong]) -> Result<()> {
    let first = pongs.first().context("no answer at all")?;
    ensure!(
        first.kind.starts_with("relay_"),
        "the first answer came by {}: it waited for the direct path",
        first.kind
    );
    let direct = pongs.iter().find(|p| p.kind == "direct");
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    say(format!(
        "link after {:.1} ms, tunnel after {:.1} ms, first answer after {:.1} ms by {}, direct {}",
        ms(first.link),
        ms(first.up),
        first.at_ms,
        first.kind,
        direct.map_or("never".to_owned(), |pong| format!(
            "after {:.1} ms",
            ms(pong.path_since)
        ))
    ));
    Ok(())
}

/// Downloads a little at a time until the bytes go directly.
pub(super) fn wait_until_direct(world: &World, base_url: &str) -> Result<()> {
    wait_until(world, base_url, |moved, size| {
        moved.direct > size && moved.relay_udp + moved.relay_tcp < size / 2
    })
}

/// Downloads a little at a time until the bytes of one, of which the size is given, went as they should.
pub(super) fn wait_until(
    world: &World,
    base_url: &str,
    fine: impl Fn(Traffic, u64) -> bool,
) -> Result<()> {
    const PROBE: u64 = 100_000;
    crate::process::poll("download that went directly", SHORT, || {
        let before = world.client.traffic()?;
        let url = format!("{base_url}/{PROBE}");
        programs::curl(world, &world.client, &url, "probe", &[], SHORT)?;
        let moved = world.client.traffic()?.since(before);
        Ok(fine(moved, PROBE).then_some(()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_says_of_each_scenario_what_its_name_says() {
        for (name, client, agent) in played() {
            let way = Way::expected(client, agent);
            let said = match way {
                Way::Direct => "_goes_direct",
                Way::UdpLink => "_stays_on_the_udp_link",
                Way::UdpLinkOrDirect => "_stays_on_the_udp_link_or_is_lucky",
                Way::ClientTls | Way::AgentTls | Way::BothTls => "_runs_over_tls",
            };
            assert!(name.ends_with(said), "{name}: {way:?}");
        }
    }

    #[test]
    fn a_pair_needs_what_stands_before_either_of_its_networks() {
        let has = |client: Kind, agent: Kind, tool: &str| {
            let mut needs = needs(client, agent).iter();
            needs.any(|need| matches!(need, Need::Tool(name) if *name == tool))
        };
        let (open, proxy) = (Kind::of(Open), Kind::of(ProxyOnly));
        for (a, b, translates, by_proxy) in [
            (open, open, false, false),
            (open, proxy, false, true),
            (open, IPV6_ONLY, true, false),
            (proxy, IPV6_ONLY, true, true),
        ] {
            for (client, agent) in [(a, b), (b, a)] {
                let pair = format!("{client} {agent}");
                assert!(has(client, agent, "curl"), "{pair}");
                assert_eq!(has(client, agent, "tayga"), translates, "{pair}");
                assert_eq!(has(client, agent, "dnsmasq"), translates, "{pair}");
                assert_eq!(has(client, agent, "tinyproxy"), by_proxy, "{pair}");
            }
        }
    }
}
