//! Hosts that change networks or stop for a while under their tunnels: real interfaces, routes and signals.

pub(super) mod temporary;

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use byway_sim::model::Access::PortRestricted;

use super::matrix::wait_until_direct;
use super::scene::{Scene, Transfer, direct_forward};
use super::{ACCESS, LONG, SHORT, WEB_PORT, WITH_BASH_AND_CURL, WITH_CURL};
use crate::figures::Figures;
use crate::harness::{self, Scenario, say};
use crate::process::poll;
use crate::programs::{self, Agent, Forward, Options, Relay, Typist};
use crate::world::ipv6::Families;
use crate::world::{AGENT_PUBLIC, Place, World};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "roaming::a_client_that_gets_another_address_goes_on_within_a_second",
        needs: WITH_CURL,
        run: || readdressed(Who::Client),
    },
    Scenario {
        name: "roaming::an_agent_that_gets_another_address_goes_on_within_a_second",
        needs: WITH_CURL,
        run: || readdressed(Who::Agent),
    },
    Scenario {
        name: "roaming::a_client_goes_from_each_family_to_each_within_a_second",
        needs: WITH_BASH_AND_CURL,
        run: || families(Who::Client),
    },
    Scenario {
        name: "roaming::an_agent_goes_from_each_family_to_each_within_a_second",
        needs: WITH_BASH_AND_CURL,
        run: || families(Who::Agent),
    },
    Scenario {
        name: "roaming::a_client_whose_sockets_the_system_ends_goes_on_at_once",
        needs: WITH_CURL,
        run: || sockets_ended(Who::Client),
    },
    Scenario {
        name: "roaming::an_agent_whose_sockets_the_system_ends_goes_on_at_once",
        needs: WITH_CURL,
        run: || sockets_ended(Who::Agent),
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

/// What is asked of roaming.
const BACK: Duration = Duration::from_secs(1);
/// Without a path being suspected or left, on a busy machine.
const AT_ONCE: Duration = Duration::from_millis(300);
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

/// Who changes its network.
#[derive(Clone, Copy, Debug)]
enum Who {
    Client,
    Agent,
}

impl Who {
    fn place(self, world: &World) -> &Place {
        match self {
            Self::Client => &world.client,
            Self::Agent => &world.agent,
        }
    }

    /// Where the peer is.
    fn other(self, world: &World) -> &Place {
        match self {
            Self::Client => Self::Agent.place(world),
            Self::Agent => Self::Client.place(world),
        }
    }
}

fn readdressed(who: Who) -> Result<()> {
    for stall in readdress_twice(who)? {
        ensure!(stall < BACK, "stalled for {stall:?}");
    }
    Ok(())
}

/// How long a transfer stalled under each of two changes of address.
fn readdress_twice(who: Who) -> Result<Vec<Duration>> {
    let scene = direct_forward()?;
    let Scene { world, forward, .. } = &scene;
    let mut stalls = Vec::new();
    for last in [77, 78] {
        let stall =
            Transfer::LARGE.disturbed(world, &forward.url, || who.place(world).readdress(last))?;
        say(format!(
            "another address: stalled for {:.0} ms",
            stall.as_secs_f64() * 1e3
        ));
        stalls.push(stall);
        wait_until_direct(world, &forward.url)?;
    }
    Ok(stalls)
}

/// As Android does when a network is gone: what is left of such a socket has no port and hears nothing.
fn sockets_ended(who: Who) -> Result<()> {
    let scene = direct_forward()?;
    let Scene { world, forward, .. } = &scene;
    let host = &who.place(world).namespace;
    let sockets = || -> Result<String> {
        let out = host.command("ss").args(["-Huan"]).output()?;
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    };
    let stall = Transfer::LARGE.disturbed(world, &forward.url, || {
        let before = sockets()?;
        let killed = host.command("ss").args(["-HuanK"]).output()?;
        ensure!(killed.status.success(), "ss could not end them");
        ensure!(
            before.contains("UNCONN") && !killed.stdout.is_empty(),
            "this kernel ends no sockets: {before}"
        );
        Ok(())
    })?;
    say(format!(
        "sockets ended: stalled for {:.0} ms",
        stall.as_secs_f64() * 1e3
    ));
    ensure!(stall < AT_ONCE, "stalled for {stall:?}");
    wait_until_direct(world, &forward.url)
}

/// Messages that are waited for after a change: a second and a half of them.
const TYPED: usize = 30;
/// A transfer that lasts longer than the walk.
const LASTING: Transfer = Transfer {
    size: 7_000_000,
    pace: 300_000,
};

fn families(who: Who) -> Result<()> {
    let silences = walk(who)?;
    let slowest = silences.into_iter().max().context("six changes")?;
    ensure!(slowest <= BACK, "{slowest:?}");
    Ok(())
}

/// From each family to each, while somebody types in one stream and a transfer goes on in another. How long nothing that was
/// typed came back, for each change.
fn walk(who: Who) -> Result<Vec<Duration>> {
    let world = World::with_delay(PortRestricted, PortRestricted, ACCESS)?;
    world.add_ipv6()?;
    let relay = Relay::start_dual(&world)?;
    let (_web, _) = programs::web(&world.agent, WEB_PORT)?;
    who.place(&world).set_families(Families::V4)?;
    let agent = Agent::start(&world, &relay.url, Options::default(), &[])?;
    let forward = Forward::start(&world, &agent.peer(), WEB_PORT, Options::default())?;
    wait_until_direct(&world, &forward.url)?;
    let mut typist = Typist::start(&world.client, &forward.url)?;
    let lasting = format!("{}/paced/{}/{}", forward.url, LASTING.pace, LASTING.size);
    let mut transfer = programs::start_curl(&world, &world.client, &lasting, "lasting", &[])?;
    let mut before = Families::V4;
    let mut silences = Vec::new();
    for now in Families::WALK {
        let moment = typist.now();
        who.place(&world).set_families(now)?;
        typist.wait(moment, TYPED, SHORT)?;
        let silence = typist.silence(moment)?;
        // By the next change everything has come to rest.
        let began = Instant::now();
        wait_until_direct(&world, &forward.url)?;
        say(format!(
            "{before:?} to {now:?}: silent for {:.0} ms, direct {:.1} s later",
            silence.as_secs_f64() * 1e3,
            began.elapsed().as_secs_f64()
        ));
        silences.push(silence);
        before = now;
    }
    ensure!(
        transfer.is_running(),
        "the transfer ended before the last change"
    );
    transfer.finish(LONG)?.success()?;
    programs::check_body(&world, &lasting, "lasting")?;
    Ok(silences)
}

/// Runs of each change of the table, where nothing else is said.
const RUNS: usize = 10;
/// Of a hundred changes, how many are to be over within a second.
const SHARE: usize = 95;

/// Each change many times, as a table. False if a stream broke, or too many took too long.
pub fn table(runs: Option<usize>) -> bool {
    let runs = runs.unwrap_or(RUNS);
    harness::by_hand(WITH_BASH_AND_CURL, || {
        let mut fine = true;
        let mut line = |what: String, silences: Vec<Duration>| {
            let figures = Figures::of(silences);
            println!("{what}: {figures}");
            fine &= figures.percentile(SHARE) <= BACK;
        };
        let mut failed = Vec::new();
        for who in [Who::Client, Who::Agent] {
            let (walks, failures) = harness::quietly_often(runs, move |_| walk(who));
            failed.extend(failures);
            let mut before = Families::V4;
            for (n, now) in Families::WALK.into_iter().enumerate() {
                let silences = walks.iter().map(|walk| walk[n]).collect();
                line(format!("{who:?}, {before:?} to {now:?}"), silences);
                before = now;
            }
            line(format!("{who:?}, all six"), walks.concat());
            let (stalls, failures) =
                harness::quietly_often(runs.div_ceil(2), move |_| readdress_twice(who));
            failed.extend(failures);
            line(format!("{who:?}, another address"), stalls.concat());
        }
        failed.iter().for_each(|why| println!("FAILED: {why}"));
        fine && failed.is_empty()
    })
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
    let stall = Transfer::LARGE.interrupted(world, &forward.url, || {
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

/// The flows of UDP that something went through since the NAT forgets so soon, by addresses and ports. What stands before these
/// in a line is the protocol and the seconds that are left; a flow that nobody uses any more has the time of before.
fn in_use(flows: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in flows.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [_, _, "udp", _, left, flow @ ..] = &words[..]
            && left
                .parse()
                .is_ok_and(|left: u64| left <= NAT_FORGETS.as_secs())
        {
            let tuple: Vec<&str> = flow.iter().take(4).copied().collect();
            found.push(format!("{} ", tuple.join(" ")));
        }
    }
    found
}

fn stopped() -> Result<()> {
    let scene = direct_forward()?;
    let Scene { world, forward, .. } = &scene;
    let router = world.client.gate()?;
    router.forget_udp_after(NAT_FORGETS)?;
    // With what passes next the entries have the new time.
    until_answered(world, forward)?;
    let in_use = in_use(&router.flows()?);
    let peer = format!("dst={AGENT_PUBLIC} ");
    ensure!(
        in_use.iter().any(|flow| flow.contains(&peer)),
        "its NAT knows nothing of the direct path: {in_use:?}"
    );
    let emulator = world.emulator();
    let others = ["agent", "relay"];
    forward.process.signal("STOP")?;
    // What comes from outside would keep them.
    others
        .iter()
        .try_for_each(|from| emulator.hole(from, "client"))?;
    std::thread::sleep(STOPPED);
    let known = router.flows()?;
    if let Some(flow) = in_use.iter().find(|flow| known.contains(*flow)) {
        bail!("its NAT has not forgotten {flow}");
    }
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
