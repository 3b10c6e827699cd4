//! What a tunnel carries: half-closed streams, many streams, two clients, and all of it while strangers throw
//! garbage at the relay.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use byway_sim::model::Access::{Open, PortRestricted, Symmetric, UdpBlocked};
use serde_json::Value;

use super::{ACCESS, LONG, PROGRAMS, SHORT, WEB_PORT, WITH_CURL};
use crate::harness::{Scenario, say};
use crate::process::Running;
use crate::programs::{self, Agent, Forward, Options, Relay};
use crate::tool::{body_sha256, sha256_of};
use crate::world::World;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "carry::the_demo_shows_all_three_kinds_of_path",
        needs: PROGRAMS,
        run: demo,
    },
    Scenario {
        name: "carry::a_half_closed_stream_still_brings_its_answer",
        needs: PROGRAMS,
        run: half_close,
    },
    Scenario {
        name: "carry::twenty_downloads_share_one_forward",
        needs: WITH_CURL,
        run: twenty,
    },
    Scenario {
        name: "carry::garbage_thrown_at_the_relay_disturbs_no_udp_link",
        needs: WITH_CURL,
        run: || {
            garbage(Options {
                no_direct: true,
                link: Some("udp"),
                ..Options::default()
            })
        },
    },
    Scenario {
        name: "carry::garbage_thrown_at_the_relay_disturbs_no_tls_link",
        needs: WITH_CURL,
        run: || {
            garbage(Options {
                no_direct: true,
                link: Some("tls"),
                ..Options::default()
            })
        },
    },
    Scenario {
        name: "carry::a_bulk_download_arrives_whole_over_every_kind_of_path",
        needs: WITH_CURL,
        run: bulk,
    },
];

fn demo() -> Result<()> {
    let world = World::new(Open, Open)?;
    let mut command = programs::byway(&world, &world.client, "client")?;
    command.args(["demo", "--size", "16MiB", "--json"]);
    let done = Running::run("byway demo", &mut command, SHORT)?.success()?;
    let last = done
        .stdout()
        .lines()
        .last()
        .context("no output")?
        .to_owned();
    let result: Value = serde_json::from_str(&last).with_context(|| format!("not JSON: {last}"))?;
    say(format!("{:.1} s: {result}", done.took.as_secs_f64()));
    ensure!(result["ok"] == true, "not ok: {result}");
    for kind in ["relay_udp", "relay_tls", "direct"] {
        let path = &result["paths"][kind];
        ensure!(
            path["sha256_ok"] == true && path["mib_s"].as_f64().is_some_and(|r| r > 0.0),
            "{kind}: {result}"
        );
    }
    ensure!(
        result["first_byte_ms"].is_number() && result["direct_ms"].is_number(),
        "{result}"
    );
    ensure!(
        done.took < Duration::from_secs(15),
        "it took {:?}",
        done.took
    );
    Ok(())
}

fn half_close() -> Result<()> {
    let world = World::with_delay(PortRestricted, Symmetric, ACCESS)?;
    let relay = Relay::start(&world)?;
    let agent = Agent::start(&world, &relay.url, Options::default(), &[])?;
    let digest = programs::tool(
        &world.agent.namespace,
        "digest",
        &["127.0.0.1:9100".to_owned()],
    )?;
    digest.first_line("readiness", SHORT)?;
    let source = world.dir().join("source");
    fs::write(&source, b"byway".repeat(1_000_000))?;
    for options in [
        Options::default(),
        Options {
            no_direct: true,
            link: Some("tls"),
            ..Options::default()
        },
    ] {
        let mut command = programs::byway(&world, &world.client, "client")?;
        // Standard input ends with the file; standard output must bring what is said after that.
        command
            .args(["stdio", &agent.peer(), "127.0.0.1:9100"])
            .args(options.args());
        let done = Running::start_from(&source, "byway stdio", &mut command)?
            .finish(SHORT)?
            .success()?;
        ensure!(
            done.stdout().trim() == sha256_of(&source)?,
            "{options:?}: the answer was {:?}",
            done.stdout()
        );
    }
    Ok(())
}

fn twenty() -> Result<()> {
    const SIZE: u64 = 2 << 20;
    let world = World::new(PortRestricted, PortRestricted)?;
    let relay = Relay::start(&world)?;
    let (_web, _) = programs::web(&world.agent, WEB_PORT)?;
    let agent = Agent::start(&world, &relay.url, Options::default(), &[])?;
    let forward = Forward::start(&world, &agent.peer(), WEB_PORT, Options::default())?;
    let url = format!("{}/{SIZE}", forward.url);
    let all = (0..20)
        .map(|n| programs::start_curl(&world, &world.client, &url, &format!("part{n}"), &[]))
        .collect::<Result<Vec<_>>>()?;
    let expected = body_sha256(SIZE);
    for (n, curl) in all.into_iter().enumerate() {
        curl.finish(LONG)?.success()?;
        ensure!(
            sha256_of(&world.dir().join(format!("part{n}")))? == expected,
            "download {n} arrived changed"
        );
    }
    Ok(())
}

/// A few thousand datagrams and some connections, bounded, from a host that is nobody's peer.
fn garbage(options: Options) -> Result<()> {
    let world = World::new(PortRestricted, Symmetric)?;
    let mut relay = Relay::start(&world)?;
    let (_web, _) = programs::web(&world.agent, WEB_PORT)?;
    let mut agent = Agent::start(&world, &relay.url, options, &[])?;
    let forward = Forward::start(&world, &agent.peer(), WEB_PORT, options)?;
    let url = format!("{}/{}", forward.url, 32 << 20);
    let curl = programs::start_curl(
        &world,
        &world.client,
        &url,
        "bulk",
        &["--limit-rate", "16M"],
    )?;
    let args = [
        world.relay.at(443).to_string(),
        "20000".to_owned(),
        "60".to_owned(),
    ];
    let thrower = programs::tool(&world.stun_1.namespace, "garbage", &args)?;
    thrower.first_line("last of the garbage", SHORT)?;
    say("20,000 datagrams and 60 connections of garbage were thrown");
    curl.finish(LONG)?.success()?;
    programs::check_body(&world, &url, "bulk")?;
    ensure!(
        relay.process.is_running() && agent.process.is_running(),
        "a program ended"
    );
    // Newcomers are served as well, while the silent connections linger.
    let pongs = programs::ping(&world, &agent.peer(), options, &["-c", "1"])?;
    ensure!(pongs.len() == 1, "{pongs:?}");
    Ok(())
}

fn bulk() -> Result<()> {
    let size = programs::bulk_size()?;
    for (client, options, kind) in [
        (PortRestricted, Options::default(), "direct"),
        (
            PortRestricted,
            Options {
                no_direct: true,
                link: Some("udp"),
                ..Options::default()
            },
            "udp link",
        ),
        (UdpBlocked, Options::default(), "tls link"),
    ] {
        let world = World::new(client, PortRestricted)?;
        let relay = Relay::start(&world)?;
        let (_web, _) = programs::web(&world.agent, WEB_PORT)?;
        let agent = Agent::start(&world, &relay.url, Options::default(), &[])?;
        let forward = Forward::start(&world, &agent.peer(), WEB_PORT, options)?;
        if kind == "direct" {
            super::matrix::wait_until_direct(&world, &forward.url)?;
        }
        let before = world.client.traffic()?;
        let done = programs::curl(
            &world,
            &world.client,
            &format!("{}/{size}", forward.url),
            "bulk",
            &[],
            LONG,
        )?;
        let moved = world.client.traffic()?.since(before);
        let way = match kind {
            "direct" => moved.direct,
            "udp link" => moved.relay_udp,
            _ => moved.relay_tcp,
        };
        ensure!(
            way > size,
            "the bytes should have gone by the {kind}: {moved:?}"
        );
        let rate = size as f64 / done.took.as_secs_f64() / f64::from(1 << 20);
        say(format!(
            "{kind}: {size} bytes in {:.2} s, {rate:.0} MiB/s",
            done.took.as_secs_f64()
        ));
    }
    Ok(())
}
