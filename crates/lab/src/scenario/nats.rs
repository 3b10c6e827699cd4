//! The laboratory checked first: are its NATs what they claim to be? Small UDP tools judge, not Byway.

pub(super) mod punch;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use byway_sim::model::Access;

use super::NAMESPACES;
use crate::harness::{Need, Scenario, say};
use crate::process::Running;
use crate::programs;
use crate::tool::Observation;
use crate::world::{CLIENT_PUBLIC, Place, STUN_1, STUN_2, Site, World};

/// Neither of Byway's programs is asked here.
const WITH_CURL_ALONE: &[Need] = &[Need::Namespaces, Need::Tool("curl")];

/// The same and what stands before a network that has a proxy.
const WITH_PROXY_ALONE: &[Need] = &[
    Need::Namespaces,
    Need::Tool("curl"),
    Need::Tool("tinyproxy"),
];

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "nat::an_open_host_has_no_mapping_and_no_filter",
        needs: NAMESPACES,
        run: open,
    },
    Scenario {
        name: "nat::a_port_restricted_cone_maps_by_source_and_filters_by_port",
        needs: NAMESPACES,
        run: restricted,
    },
    Scenario {
        name: "nat::a_full_cone_lets_everybody_in",
        needs: NAMESPACES,
        run: full_cone,
    },
    Scenario {
        name: "nat::an_address_restricted_cone_lets_those_in_who_were_called",
        needs: NAMESPACES,
        run: address_restricted,
    },
    Scenario {
        name: "nat::two_routers_in_a_row_are_as_one",
        needs: NAMESPACES,
        run: carrier_grade,
    },
    Scenario {
        name: "nat::a_sequential_nat_counts_its_ports_up",
        needs: NAMESPACES,
        run: sequential,
    },
    Scenario {
        name: "nat::a_sequential_nat_may_count_them_down",
        needs: NAMESPACES,
        run: sequential_down,
    },
    Scenario {
        name: "nat::a_cone_with_random_ports_keeps_the_one_it_drew",
        needs: NAMESPACES,
        run: random_cone,
    },
    Scenario {
        name: "nat::a_symmetric_nat_gives_each_destination_a_random_port",
        needs: NAMESPACES,
        run: symmetric,
    },
    Scenario {
        name: "nat::an_address_dependent_nat_gives_each_address_a_port",
        needs: NAMESPACES,
        run: address_dependent,
    },
    Scenario {
        name: "nat::a_preserving_nat_keeps_the_port_for_the_first_destination_alone",
        needs: NAMESPACES,
        run: preserving,
    },
    Scenario {
        name: "nat::a_mapping_is_forgotten_when_its_time_is_over",
        needs: NAMESPACES,
        run: forgets,
    },
    Scenario {
        name: "nat::who_is_answered_through_a_mapping_keeps_it_open_to_others",
        needs: NAMESPACES,
        run: kept_open,
    },
    Scenario {
        name: "nat::two_networks_behind_one_router_meet_outside_it_where_it_hairpins",
        needs: NAMESPACES,
        run: hairpins,
    },
    Scenario {
        name: "nat::nothing_but_tcp_to_443_gets_out_where_only_that_may",
        needs: WITH_CURL_ALONE,
        run: only_443,
    },
    Scenario {
        name: "nat::blocked_udp_stays_inside_while_tcp_passes",
        needs: WITH_CURL_ALONE,
        run: blocked,
    },
    Scenario {
        name: "nat::behind_a_proxy_nothing_gets_out_but_through_it",
        needs: WITH_PROXY_ALONE,
        run: proxy_only,
    },
    Scenario {
        name: "nat::the_delay_between_sites_is_what_was_asked",
        needs: WITH_CURL_ALONE,
        run: delay,
    },
    Scenario {
        name: "nat::nothing_is_left_of_a_world_that_ended_in_a_panic",
        needs: NAMESPACES,
        run: panic_leaves_nothing,
    },
];

const QUICK: Duration = Duration::from_secs(20);
/// Between a site and another whose accesses take 5 ms each, in seconds.
const ROUND_TRIP: f64 = 0.020;
/// Of which one will find the machine free.
const TRIES: usize = 8;

fn open() -> Result<()> {
    let seen = observe(Access::Open)?;
    ensure!(
        seen.mapped
            .iter()
            .flatten()
            .all(|a| a.ip() == CLIENT_PUBLIC && a.port() == seen.local_port),
        "{seen:?}"
    );
    // The fifth is another host, which cannot answer for the first.
    ensure!(
        seen.passed == [true, true, true, true, false],
        "everything should come through: {seen:?}"
    );
    Ok(())
}

fn restricted() -> Result<()> {
    cone(Access::PortRestricted, [true, false, false, false, false])
}

fn full_cone() -> Result<()> {
    // The fifth is another host, which cannot answer for the first.
    cone(Access::FullCone, [true, true, true, true, false])
}

fn address_restricted() -> Result<()> {
    cone(Access::AddressRestricted, [true, true, false, false, false])
}

fn carrier_grade() -> Result<()> {
    let world = World::new(Access::CarrierGrade, Access::Open)?;
    let seen = ask(&world)?;
    is_cone(
        Access::CarrierGrade,
        &seen,
        [true, false, false, false, false],
    )?;
    // Two translations: what the outer router forwards comes from the carrier's range, not from the host's.
    let (local, host) = (seen.local_port, world.client.addr);
    let flows = world.client.gate()?.flows()?;
    let outer = flows
        .lines()
        .find(|flow| flow.contains(&format!("sport={local} ")))
        .with_context(|| format!("the outer router knows nothing of port {local}: {flows}"))?;
    ensure!(
        outer.contains("src=100.64.") && !flows.contains(&format!("src={host} ")),
        "one router alone: {flows}"
    );
    Ok(())
}

/// One mapping for all; of five, those that are let in when only the first was spoken to: the address and port itself, then
/// another port, another address, and both.
fn cone(kind: Access, passed: [bool; 5]) -> Result<()> {
    is_cone(kind, &observe(kind)?, passed)
}

fn is_cone(kind: Access, seen: &Observation, passed: [bool; 5]) -> Result<()> {
    ensure!(
        seen.mapped
            .iter()
            .all(|a| *a == seen.mapped[0] && a.is_some_and(|a| a.ip() == CLIENT_PUBLIC)),
        "{seen:?}"
    );
    ensure!(seen.passed == passed, "{kind:?}: {seen:?}");
    Ok(())
}

fn sequential() -> Result<()> {
    counts(Access::Sequential, 1)
}

fn sequential_down() -> Result<()> {
    counts(Access::SequentialDown, -2)
}

fn counts(kind: Access, step: i16) -> Result<()> {
    let seen = observe(kind)?;
    let ports = ports(&seen)?;
    ensure!(
        ports
            .windows(2)
            .all(|w| w[0].checked_add_signed(step) == Some(w[1])),
        "the next port each time, by {step}: {seen:?}"
    );
    ensure!(
        seen.passed == [true, false, false, false, false],
        "{seen:?}"
    );
    Ok(())
}

fn random_cone() -> Result<()> {
    let (one, other) = (observe(Access::RandomCone)?, observe(Access::RandomCone)?);
    for seen in [&one, &other] {
        is_cone(Access::RandomCone, seen, [true, false, false, false, false])?;
    }
    let drawn = [ports(&one)?[0], ports(&other)?[0]];
    // One of 64,512: the same one again, or the host's own, comes once in tens of thousands of runs.
    ensure!(
        drawn[0] != drawn[1] && drawn[0] != one.local_port && drawn[1] != other.local_port,
        "ports are to be drawn: {one:?}, {other:?}"
    );
    Ok(())
}

fn symmetric() -> Result<()> {
    let seen = observe(Access::Symmetric)?;
    let mut ports: Vec<u16> = seen.mapped.iter().flatten().map(|a| a.port()).collect();
    ensure!(
        ports.len() == 5,
        "every reflector should have answered: {seen:?}"
    );
    ensure!(
        !ports.contains(&seen.local_port),
        "no port may be preserved: {seen:?}"
    );
    ports.sort_unstable();
    // Random ports collide or follow each other once in thousands of runs; a pattern does always.
    ensure!(
        ports.windows(2).all(|w| w[1] - w[0] > 1),
        "ports must differ and not count up: {seen:?}"
    );
    ensure!(
        seen.passed == [true, false, false, false, false],
        "{seen:?}"
    );
    Ok(())
}

fn address_dependent() -> Result<()> {
    let seen = observe(Access::AddressDependent)?;
    let ports = ports(&seen)?;
    let [a1, a2, b1, b2, c] = ports;
    ensure!(
        a1 == a2 && b1 == b2,
        "one port for all ports of an address: {seen:?}"
    );
    ensure!(
        a1 != b1 && b1 != c && a1 != c && !ports.contains(&seen.local_port),
        "another port for each address: {seen:?}"
    );
    ensure!(
        seen.passed == [true, false, false, false, false],
        "{seen:?}"
    );
    Ok(())
}

fn preserving() -> Result<()> {
    let seen = observe(Access::Preserving)?;
    let mut ports = ports(&seen)?;
    ensure!(
        ports[0] == seen.local_port,
        "the first destination should see the port itself: {seen:?}"
    );
    ports.sort_unstable();
    ensure!(
        ports.windows(2).all(|w| w[1] - w[0] > 1),
        "each its own, by chance: {seen:?}"
    );
    ensure!(
        seen.passed == [true, false, false, false, false],
        "{seen:?}"
    );
    Ok(())
}

/// The ports that all five reflectors saw.
fn ports(seen: &Observation) -> Result<[u16; 5]> {
    let ports: Vec<u16> = seen.mapped.iter().flatten().map(|a| a.port()).collect();
    let ports = ports.try_into().ok();
    ports.with_context(|| format!("every reflector should have answered: {seen:?}"))
}

fn forgets() -> Result<()> {
    const AFTER: Duration = Duration::from_secs(2);
    let client = Site::behind(Access::Symmetric).forgets(AFTER);
    let world = World::of(
        World::servers()
            .site("client", client)
            .site("agent", Access::Open),
    )?;
    let at = format!("{}:7001", STUN_1[0]);
    let _reflector = reflect(&world.stun_1, std::slice::from_ref(&at))?;
    let args = ["0.0.0.0:5000".to_owned(), at];
    let look = || observation(&world.client, &args);
    let (one, again) = (look()?, look()?);
    ensure!(one == again, "forgotten at once: {one:?}, {again:?}");
    // It is the time that does it; conntrack looks for what is over once a second or so, and at each look-up.
    std::thread::sleep(AFTER + Duration::from_millis(500));
    let later = look()?;
    ensure!(one.mapped != later.mapped, "never forgotten: {one:?}");
    Ok(())
}

/// Answers go out too (RFC 4787, REQ-6).
fn kept_open() -> Result<()> {
    const AFTER: Duration = Duration::from_secs(2);
    let client = Site::behind(Access::FullCone).forgets(AFTER);
    let world = World::of(
        World::servers()
            .site("client", client)
            .site("agent", Access::Open),
    )?;
    let inside = world.client.at(5000).to_string();
    let at = format!("{}:7001", STUN_1[0]);
    let outside = format!("{CLIENT_PUBLIC}:5000");
    let called = reflect(&world.stun_1, std::slice::from_ref(&at))?;
    let seen = observation(&world.client, &[inside.clone(), at])?;
    ensure!(
        seen.mapped == [outside.parse().ok()],
        "the port is not kept: {seen:?}"
    );
    drop(called);
    let _answers = reflect(&world.client, std::slice::from_ref(&inside))?;
    let knock = |place: &Place, from: &str| -> Result<bool> {
        let seen = observation(place, &[from.to_owned(), outside.clone()])?;
        Ok(seen.mapped != [None])
    };
    // One stranger, always from the same port: a flow that began outside.
    let began = Instant::now();
    while began.elapsed() < 2 * AFTER {
        ensure!(
            knock(&world.stun_2, "0.0.0.0:6000")?,
            "no stranger is let in"
        );
        std::thread::sleep(AFTER / 4);
    }
    ensure!(
        knock(&world.agent, "0.0.0.0:0")?,
        "the port was closed while answers went out through it"
    );
    std::thread::sleep(AFTER + Duration::from_millis(500));
    ensure!(
        !knock(&world.agent, "0.0.0.0:0")?,
        "the port is open long after the last answer"
    );
    Ok(())
}

fn hairpins() -> Result<()> {
    let site = Site::behind(Access::PortRestricted);
    for (site, meet) in [(site.hairpins(), true), (site, false)] {
        let world = World::of(World::servers().site("client", site).guest("agent"))?;
        // They do not see each other inside.
        let at = world.agent.at(7001).to_string();
        let _reflector = reflect(&world.agent, std::slice::from_ref(&at))?;
        let seen = observation(&world.client, &["0.0.0.0:0".to_owned(), at])?;
        ensure!(seen.mapped == [None], "guests see the others: {seen:?}");
        let met = punch::between(&world, false)?;
        ensure!(met == meet, "met outside: {met}, where it should be {meet}");
    }
    Ok(())
}

fn only_443() -> Result<()> {
    for (kind, quic) in [(Access::Only443, false), (Access::Only443WithQuic, true)] {
        let world = World::new(kind, Access::Open)?;
        let at = [443, 7001].map(|port| format!("{}:{port}", STUN_1[0]));
        let _reflector = reflect(&world.stun_1, &at)?;
        let [to_443, elsewhere] = at;
        let seen = observation(&world.client, &["0.0.0.0:0".to_owned(), to_443, elsewhere])?;
        let answers: Vec<bool> = seen.mapped.iter().map(Option::is_some).collect();
        ensure!(answers == [quic, false], "{kind:?}: {seen:?}");

        let (_web, url) = programs::web(&world.relay, 443)?;
        let url = format!("{url}/1000");
        programs::curl(&world, &world.client, &url, "in", &[], QUICK)?;
        let (_web, url) = programs::web(&world.relay, 8080)?;
        let url = format!("{url}/1000");
        let patience = ["--connect-timeout", "2"];
        let past = programs::start_curl(&world, &world.client, &url, "past", &patience)?;
        ensure!(
            past.finish(QUICK)?.code != Some(0),
            "{kind:?}: TCP got out to another port"
        );
    }
    Ok(())
}

fn blocked() -> Result<()> {
    let world = World::new(Access::UdpBlocked, Access::Open)?;
    let seen = ask(&world)?;
    ensure!(
        seen.mapped.iter().all(Option::is_none) && seen.passed.iter().all(|p| !p),
        "{seen:?}"
    );
    let (_web, url) = programs::web(&world.relay, 8080)?;
    programs::curl(
        &world,
        &world.client,
        &format!("{url}/1000"),
        "small",
        &[],
        QUICK,
    )?;
    Ok(())
}

fn proxy_only() -> Result<()> {
    let world = World::new(Access::ProxyOnly, Access::Open)?;
    let seen = ask(&world)?;
    ensure!(
        seen.mapped.iter().all(Option::is_none) && seen.passed.iter().all(|p| !p),
        "{seen:?}"
    );
    let (_web, url) = programs::web(&world.relay, 443)?;
    let url = format!("{url}/1000");
    let past = ["--connect-timeout", "2"];
    let past = programs::start_curl(&world, &world.client, &url, "past", &past)?.finish(QUICK)?;
    ensure!(past.code != Some(0), "TCP got past the proxy");
    let proxy = &world.client.proxy.as_ref().context("a proxy")?.url;
    // The later --noproxy takes back the one that keeps the caller's settings out; -p asks for a tunnel.
    let through = ["--noproxy", "", "-p", "-x", proxy.as_str()];
    programs::curl(&world, &world.client, &url, "through", &through, QUICK)?;
    let traffic = world.client.traffic()?;
    ensure!(traffic.proxied > 1000, "{traffic:?}");
    Ok(())
}

fn delay() -> Result<()> {
    let world = World::with_delay(
        Access::PortRestricted,
        Access::Open,
        Duration::from_millis(5),
    )?;
    let (_web, url) = programs::web(&world.agent, 8080)?;
    // The handshake is one round trip of the access delay, both ways, the answer another.
    let args = ["-w", "%{time_connect} %{time_starttransfer}"];
    let mut least = [f64::INFINITY; 2];
    for _ in 0..TRIES {
        let done = programs::curl(
            &world,
            &world.client,
            &format!("{url}/1000"),
            "small",
            &args,
            QUICK,
        )?;
        let out = done.stdout();
        let mut times = out.split_whitespace().map(str::parse);
        for (least, trips) in least.iter_mut().zip([1.0, 2.0]) {
            let time: f64 = times.next().context("curl tells two times")??;
            // Never sooner, not even once. The clocks of two programs are one.
            ensure!(time >= trips * ROUND_TRIP, "too early: {out}");
            *least = least.min(time);
        }
    }
    say(format!(
        "connected and first byte at best after {least:?} s"
    ));
    // How late it can be is the machine's affair; that it can be on time is the switch's.
    ensure!(
        least[0] < 1.5 * ROUND_TRIP && least[1] < 3.0 * ROUND_TRIP,
        "always late: {least:?}"
    );
    let bulk = programs::curl(
        &world,
        &world.client,
        &format!("{url}/50000000"),
        "bulk",
        &[],
        QUICK,
    )?;
    say(format!("50 MB in {:.2} s", bulk.took.as_secs_f64()));
    Ok(())
}

fn panic_leaves_nothing() -> Result<()> {
    let (name, dir, pid) = std::thread::spawn(|| {
        let left = std::sync::Mutex::default();
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let Ok(world) = World::new(Access::PortRestricted, Access::Open) else {
                return;
            };
            let Ok((web, _)) = programs::web(&world.agent, 8080) else {
                return;
            };
            if let Ok(mut left) = left.lock() {
                *left = (world.name().to_owned(), world.dir().to_owned(), web.pid());
            }
            std::panic::resume_unwind(Box::new("on purpose"));
        }));
        left.into_inner().unwrap_or_default()
    })
    .join()
    .unwrap_or_default();
    ensure!(!name.is_empty(), "the world was not built");
    let process = std::path::PathBuf::from(format!("/proc/{pid}"));
    ensure!(!process.exists(), "its web server, {pid}, still runs");
    let kept = std::env::var_os("BYWAY_LAB_KEEP").is_some();
    ensure!(kept || !dir.exists(), "its directory is still there");
    let left = std::fs::read_dir("/run/netns")?.flatten().filter(|e| {
        e.file_name()
            .to_string_lossy()
            .starts_with(&format!("{name}-"))
    });
    ensure!(left.count() == 0, "its namespaces are still there");
    Ok(())
}

/// What five reflecting sockets on three addresses show of the client's NAT.
fn observe(kind: Access) -> Result<Observation> {
    ask(&World::new(kind, Access::Open)?)
}

fn ask(world: &World) -> Result<Observation> {
    // The same address with another port first, then another address of the same host, then another host.
    let one: Vec<String> = [
        (STUN_1[0], 7001),
        (STUN_1[0], 7002),
        (STUN_1[1], 7001),
        (STUN_1[1], 7002),
    ]
    .iter()
    .map(|(ip, port)| format!("{ip}:{port}"))
    .collect();
    let two = format!("{STUN_2}:7001");
    let _reflector = reflect(&world.stun_1, &one)?;
    let _second = reflect(&world.stun_2, std::slice::from_ref(&two))?;
    let mut args = vec!["0.0.0.0:0".to_owned()];
    args.extend(one);
    args.push(two);
    observation(&world.client, &args)
}

/// Sockets at these addresses that tell whom they see.
fn reflect(place: &Place, at: &[String]) -> Result<Running> {
    let reflector = programs::tool(&place.namespace, "reflect", at)?;
    reflector.first_line("readiness", QUICK)?;
    Ok(reflector)
}

/// What a socket of this address is seen as by reflectors at those that follow.
fn observation(place: &Place, args: &[String]) -> Result<Observation> {
    let observer = programs::tool(&place.namespace, "observe", args)?;
    let seen = Observation::parse(&observer.first_line("observation", QUICK)?)?;
    say(format!("{seen:?}"));
    Ok(seen)
}
