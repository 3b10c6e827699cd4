//! Networks that let nothing out but through a proxy: tunnels through other people's proxies, and what they refuse.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use byway_sim::model::Access::{Open, PortRestricted, ProxyOnly};

use super::{ACCESS, SHORT, WEB_PORT, WITH_PROXY};
use crate::harness::{Need, Scenario, say};
use crate::kinds::IPV6_ONLY;
use crate::process::{Finished, Running};
use crate::programs::{
    self, Agent, Forward, Options, Proxy, Relay, http_on, microsocks, socks_on, tinyproxy,
};
use crate::world::World;

const SOCKS: &[Need] = &[
    Need::Namespaces,
    Need::Binaries,
    Need::Tool("curl"),
    Need::Tool("tinyproxy"),
    Need::Tool("microsocks"),
];

const WITHOUT_IPV4: &[Need] = &[
    Need::Namespaces,
    Need::Binaries,
    Need::Tool("tinyproxy"),
    Need::Tool("microsocks"),
    Need::Tool("tayga"),
    Need::Tool("dnsmasq"),
    Need::Tool("bash"),
];

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "proxy::both_sides_go_through_tinyproxy_that_the_environment_names",
        needs: WITH_PROXY,
        run: http_by_environment,
    },
    Scenario {
        name: "proxy::both_sides_go_through_tinyproxy_that_asks_for_a_password",
        needs: WITH_PROXY,
        run: http_with_password,
    },
    Scenario {
        name: "proxy::both_sides_go_through_microsocks",
        needs: SOCKS,
        run: || socks(None),
    },
    Scenario {
        name: "proxy::both_sides_go_through_microsocks_that_asks_for_a_password",
        needs: SOCKS,
        run: || socks(Some(ACCOUNT)),
    },
    Scenario {
        name: "proxy::a_forward_goes_on_when_its_proxy_is_restarted",
        needs: WITH_PROXY,
        run: restarted,
    },
    Scenario {
        name: "proxy::one_that_has_an_ipv4_address_is_reached_from_a_host_without_ipv4",
        needs: WITHOUT_IPV4,
        run: through_nat64,
    },
    Scenario {
        name: "proxy::netcheck_names_the_proxy_and_the_link_through_it",
        needs: WITH_PROXY,
        run: netcheck,
    },
    Scenario {
        name: "proxy::what_a_proxy_refuses_ends_5_and_is_told_by_its_name",
        needs: SOCKS,
        run: refusals,
    },
];

/// For a proxy that asks.
const ACCOUNT: (&str, &str) = ("dev", "hunter2");
/// The size of a download: large beside all handshakes.
const SIZE: u64 = 4 << 20;

fn http_by_environment() -> Result<()> {
    carries(&World::with_delay(ProxyOnly, ProxyOnly, ACCESS)?, None)
}

fn http_with_password() -> Result<()> {
    let mut world = World::with_delay(ProxyOnly, ProxyOnly, ACCESS)?;
    // The world's own ones ask for nothing; these take their places.
    let _ = (world.client.proxy.take(), world.agent.proxy.take());
    let near = tinyproxy(&world, &world.client, Some(ACCOUNT))?;
    let far = tinyproxy(&world, &world.agent, Some(ACCOUNT))?;
    carries(&world, Some([&near, &far].map(with_account)))
}

fn socks(account: Option<(&str, &str)>) -> Result<()> {
    let mut world = World::with_delay(ProxyOnly, ProxyOnly, ACCESS)?;
    let _ = (world.client.proxy.take(), world.agent.proxy.take());
    let near = microsocks(&world.client, account)?;
    let far = microsocks(&world.agent, account)?;
    let url = |proxy: &Proxy| match account {
        Some(_) => with_account(proxy),
        None => proxy.url.clone(),
    };
    carries(&world, Some([url(&near), url(&far)]))
}

fn with_account(proxy: &Proxy) -> String {
    proxy.url_for(ACCOUNT.0, ACCOUNT.1)
}

/// A tunnel comes up, and what it carries goes through the proxies and arrives unchanged. `given`: the proxies of client
/// and agent, where their environment names none.
fn carries(world: &World, given: Option<[String; 2]>) -> Result<()> {
    let relay = Relay::start(world)?;
    let (_web, _) = programs::web(&world.agent, WEB_PORT)?;
    let (near, far) = match &given {
        Some([near, far]) => (
            vec!["--proxy", near.as_str()],
            vec!["--proxy", far.as_str()],
        ),
        None => (Vec::new(), Vec::new()),
    };
    let agent = Agent::start(world, &relay.url, Options::default(), &far)?;
    let ticket = std::fs::read_to_string(&agent.ticket)?;
    ensure!(!ticket.contains(ACCOUNT.1), "the password is in the ticket");
    let words = [&near[..], &["-c", "5"]].concat();
    let pongs = programs::ping(world, &agent.peer(), Options::default(), &words)?;
    ensure!(
        pongs.len() == 5 && pongs.iter().all(|pong| pong.kind == "relay_tls"),
        "every answer should have come by relay_tls: {pongs:?}"
    );
    let forward = Forward::start_with(world, &agent.peer(), WEB_PORT, Options::default(), &near)?;
    let (client_before, agent_before) = (world.client.traffic()?, world.agent.traffic()?);
    let url = format!("{}/{SIZE}", forward.url);
    programs::curl(world, &world.client, &url, "body", &[], SHORT)?;
    let client = world.client.traffic()?.since(client_before);
    let agent = world.agent.traffic()?.since(agent_before);
    say(format!("client {client:?}, agent {agent:?}"));
    for side in [client, agent] {
        ensure!(
            side.proxied >= SIZE && side.proxied < SIZE * 3 / 2,
            "the bytes should have gone through the proxy, once: {side:?}"
        );
        ensure!(side.relay_tcp == 0, "past the proxy: {side:?}");
    }
    Ok(())
}

fn restarted() -> Result<()> {
    let mut world = World::with_delay(ProxyOnly, PortRestricted, ACCESS)?;
    let relay = Relay::start(&world)?;
    let (_web, _) = programs::web(&world.agent, WEB_PORT)?;
    let agent = Agent::start(&world, &relay.url, Options::default(), &[])?;
    let forward = Forward::start(&world, &agent.peer(), WEB_PORT, Options::default())?;
    let url = format!("{}/{SIZE}", forward.url);
    programs::curl(&world, &world.client, &url, "before", &[], SHORT)?;
    world.client.proxy = None;
    world.client.proxy = Some(tinyproxy(&world, &world.client, None)?);
    programs::curl(&world, &world.client, &url, "after", &[], SHORT)?;
    Ok(())
}

/// The proxies are somewhere on the internet of IPv4, and the client is where there is none; nor UDP, which would go past them.
fn through_nat64() -> Result<()> {
    let world = World::with_delay(IPV6_ONLY, Open, ACCESS)?;
    world
        .client
        .gate()?
        .nft("add rule inet filter cut meta l4proto udp drop\n")?;
    let relay = Relay::start(&world)?;
    let agent = Agent::start(&world, &relay.url, Options::default(), &[])?;
    let host = &world.stun_2;
    let proxies = [
        http_on(
            &world,
            &host.namespace,
            host.addr,
            world.client.public,
            None,
        )?,
        socks_on(&host.namespace, host.addr, None)?,
    ];
    for proxy in &proxies {
        let by = ["--proxy", proxy.url.as_str()];
        let words = [&by[..], &["--relay", &relay.url]].concat();
        let report = programs::netcheck(&world, &world.client, &words)?;
        let of_relay = &report["relays"][0];
        say(format!("{of_relay}"));
        let observed = of_relay["observed"].as_str().unwrap_or_default();
        ensure!(
            of_relay["carrier"] == "tls" && of_relay["proxied"] == true,
            "the link: {report}"
        );
        ensure!(
            observed.starts_with(&format!("{}:", host.addr)),
            "the relay sees {observed}, which is not the proxy: {report}"
        );
        ensure!(report["nat64"] == true, "no IPv4 without it: {report}");
        let words = [&by[..], &["-c", "5"]].concat();
        let pongs = programs::ping(&world, &agent.peer(), Options::default(), &words)?;
        ensure!(
            pongs.len() == 5 && pongs.iter().all(|pong| pong.kind == "relay_tls"),
            "every answer should have come by relay_tls: {pongs:?}"
        );
    }
    Ok(())
}

fn netcheck() -> Result<()> {
    let world = World::new(ProxyOnly, Open)?;
    let relay = Relay::start(&world)?;
    let report = programs::netcheck(&world, &world.client, &["--relay", &relay.url])?;
    say(format!("{report}"));
    let url = &world.client.proxy.as_ref().context("a proxy")?.url;
    ensure!(
        report["proxy"]["url"] == url.as_str(),
        "which proxy: {report}"
    );
    ensure!(
        report["proxy"]["source"] == "HTTPS_PROXY",
        "who named it: {report}"
    );
    ensure!(
        report["relays"][0]["carrier"] == "tls",
        "the link: {report}"
    );
    ensure!(report["relays"][0]["proxied"] == true, "the way: {report}");
    ensure!(report["servers"][0]["mapped"].is_null(), "UDP: {report}");
    // TLS through a proxy is no TLS that ends at the proxy.
    ensure!(report["relays"][0]["tls_intercepted"] == false, "{report}");
    Ok(())
}

fn refusals() -> Result<()> {
    let mut world = World::new(ProxyOnly, Open)?;
    let relay = Relay::start(&world)?;
    let agent = Agent::start(&world, &relay.url, Options::default(), &[])?;
    let asks = microsocks(&world.client, Some(ACCOUNT))?;
    let ping = |words: &[&str]| -> Result<Finished> {
        let mut command = programs::byway(&world, &world.client, "client")?;
        command.args(["ping", &agent.peer(), "-c", "1", "--link", "tls"]);
        command.args(words);
        Running::run("byway ping", &mut command, Duration::from_secs(30))
    };
    let wrong = asks.url_for(ACCOUNT.0, "letmein");
    told(
        &ping(&["--proxy", &wrong])?,
        &["does not accept the user name"],
    )?;
    told(&ping(&["--proxy", &asks.url])?, &["asks for a user name"])?;
    told(&ping(&["--proxy", "none"])?, &["no relay could be reached"])?;
    // HTTP spoken to one that speaks SOCKS5, and to one that is not there.
    let other = asks.url.replace("socks5h", "http");
    told(&ping(&["--proxy", &other])?, &["the proxy http://"])?;
    let nobody = asks.url.replace(":1080", ":1");
    told(&ping(&["--proxy", &nobody])?, &["takes no connection"])?;

    // A port that tinyproxy does not connect to.
    let elsewhere = world.relay.at(8443).to_string();
    let second = Relay::start_at(&world, std::slice::from_ref(&elsewhere))?;
    let mut command = programs::byway(&world, &world.client, "client")?;
    command.args(["agent", "--relay", &second.url, "--link", "tls", "-v"]);
    let refused = Running::start("byway agent", &mut command)?;
    let text = |line: &crate::process::Line| line.text.contains("403").then_some(());
    refused.wait_for("word of the refusal", SHORT, text)?;
    drop(refused);
    world.client.proxy = None;
    Ok(())
}

/// It ended 5, with these words and without the password.
fn told(done: &Finished, words: &[&str]) -> Result<()> {
    let text = done.stderr();
    say(text.trim());
    ensure!(done.code == Some(5), "it ended {:?}: {text}", done.code);
    for word in words {
        ensure!(text.contains(word), "nothing of {word:?} in: {text}");
    }
    ensure!(
        !text.contains(ACCOUNT.1) && !text.contains("letmein"),
        "a password is in: {text}"
    );
    Ok(())
}
