//! What goes wrong, and what the command says and returns then (design section 13).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use byway::{Ticket, TicketSecret};
use byway_relay::ServerConfig;
use common::{Home, Relay};

/// An agent's ticket for a relay where nothing listens, or anything else one wants to do to it.
fn ticket() -> Ticket {
    let home = Home::new();
    let relay = Relay::start();
    home.agent(&relay.url, &[]).ticket.parse().unwrap()
}

#[test]
fn a_bad_or_damaged_ticket_is_bad_usage() {
    let home = Home::new();
    let good = ticket().to_string();
    home.run(&["ping", &good[..good.len() / 2], "-c", "1"])
        .fails(2, &["ticket", "try"]);
    let last = if good.ends_with('a') { 'b' } else { 'a' };
    let damaged = format!("{}{last}", &good[..good.len() - 1]);
    home.run(&["ping", &damaged, "-c", "1"])
        .fails(2, &["ticket", "whole"]);
    home.run(&["ping", "byway1", "-c", "1"])
        .fails(2, &["ticket"]);
    home.run(&["ping", &good[6..], "-c", "1"])
        .fails(2, &["ticket"]);
    home.run(&["ping", "@/nonexistent/ticket"])
        .fails(2, &["/nonexistent/ticket"]);
    fs::write(home.file("junk"), "hello\n").unwrap();
    home.run(&["ping", "@junk"]).fails(2, &["ticket in junk"]);
}

#[test]
fn an_unknown_alias_is_a_peer_not_found() {
    let home = Home::new();
    home.run(&["ping", "nobody"])
        .fails(3, &["nobody", "alias add nobody"]);
    let good = ticket().to_string();
    home.run(&["alias", "add", "work", &good]).succeeds();
    home.run(&["ping", "nobody"]).fails(3, &["work"]);
}

#[test]
fn what_is_not_supported_yet_says_so() {
    let home = Home::new();
    let good = ticket().to_string();
    home.run(&["forward", &good, "53:dns:53/udp"])
        .fails(2, &["udp is not supported yet"]);
}

#[test]
fn a_proxy_that_is_none_is_bad_usage_and_its_password_stays_unsaid() {
    let home = Home::new();
    let good = ticket().to_string();
    let secret = |done: &common::Done| {
        assert!(!format!("{done:?}").contains("hunter2"), "{done:#?}");
    };
    for (url, why) in [
        ("ftp://me:hunter2@proxy", "http://, socks5://"),
        ("https://me:hunter2@proxy:3128", "not supported"),
        ("http://me:hunter2@proxy:3128/x", "ends with its port"),
        ("http://me:hunter2@proxy:99999", "from 1 to 65535"),
    ] {
        for words in [
            &["ping", &good][..],
            &["stdio", &good, "22"],
            &["forward", &good, "8080"],
            &["ssh", "--proxy", url, &good],
            &["agent", "--relay", "https://127.0.0.1:1"],
            &["netcheck", "--relay", "https://127.0.0.1:1"],
        ] {
            let done = match words[0] {
                "ssh" => home.run(words),
                _ => home.run(&[words, &["--proxy", url]].concat()),
            };
            secret(done.fails(2, &["--proxy", why]));
        }
        let mut by_environment = home.byway(&["ping", &good]);
        by_environment.env("BYWAY_PROXY", url);
        let done = common::finish(common::SpawnPiped::spawn_piped(&mut by_environment));
        secret(done.fails(2, &["byway_proxy", why]));
    }
}

#[test]
fn a_proxy_that_refuses_is_no_path_and_named_without_its_password() {
    let home = Home::new();
    let mut elsewhere = ticket();
    elsewhere.relays[0].url = "https://relay.invalid".parse().unwrap();
    elsewhere.relays[0].addrs.clear();
    let peer = elsewhere.to_string();
    let nobody = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let url = format!("http://me:hunter2@{nobody}");
    let shown = format!("the proxy http://{nobody} takes no connection");
    let mut by_environment = home.byway(&["ping", &peer, "-vvv"]);
    by_environment.env("HTTPS_PROXY", &url);
    let done = common::finish(common::SpawnPiped::spawn_piped(&mut by_environment));
    done.fails(5, &[&shown, "--proxy none"]);
    assert!(!format!("{done:?}").contains("hunter2"), "{done:#?}");
    let mut excepted = home.byway(&["ping", &peer]);
    excepted
        .env("HTTPS_PROXY", &url)
        .env("NO_PROXY", "relay.invalid");
    let done = common::finish(common::SpawnPiped::spawn_piped(&mut excepted));
    assert!(!done.fails(5, &["resolve"]).stderr.contains("proxy"));
    let mut none = home.byway(&["ping", &peer, "--proxy", "none"]);
    none.env("HTTPS_PROXY", &url);
    let done = common::finish(common::SpawnPiped::spawn_piped(&mut none));
    assert!(!done.fails(5, &["resolve"]).stderr.contains("proxy"));
}

#[test]
fn commands_without_what_they_need_are_bad_usage() {
    let home = Home::new();
    home.run(&["ping"]).fails(2, &["usage"]);
    home.run(&["netcheck"]).fails(2, &["--relay", "--stun"]);
    home.run(&["agent"]).fails(2, &["--relay", "byway-relay"]);
    home.run(&[
        "agent",
        "--relay",
        "https://127.0.0.1:1",
        "--allow",
        "nonsense",
    ])
    .fails(2, &["nonsense", "host:port"]);
    home.run(&[
        "agent",
        "--relay",
        "https://127.0.0.1:1",
        "--key",
        "x.ticket-secret",
    ])
    .fails(2, &["x.ticket-secret cannot be a key", "another name"]);
    home.run(&["alias", "add", "@x", "y"])
        .fails(2, &["'@x' cannot be an alias", "1-63"]);
    home.run(&["alias", "remove", "x"]).fails(3, &["no alias"]);
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let home = Home::new();
    let good = ticket().to_string();
    home.run(&["alias", "list"]).succeeds();
    let key = home.file("client.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    home.run(&["ping", &good])
        .fails(1, &["client.key", "chmod 600"]);
    home.run(&[
        "agent",
        "--relay",
        "https://127.0.0.1:1",
        "--key",
        "client.key",
    ])
    .fails(1, &["client.key", "chmod 600"]);
}

#[test]
fn a_relay_that_is_down_is_no_path() {
    let home = Home::new();
    let mut relay = Relay::start();
    let agent = home.agent(&relay.url, &[]);
    relay.stop();
    let address = relay.url.split('#').next().unwrap().replace("https://", "");
    home.run(&["ping", &agent.peer, "-c", "1"])
        .fails(5, &["relay", &address, "netcheck"]);
}

#[test]
fn an_agent_that_is_gone_is_offline() {
    let home = Home::new();
    let relay = Relay::start();
    let mut agent = home.agent(&relay.url, &[]);
    assert_eq!(agent.running.signal("TERM"), Some(0));
    home.run(&["ping", &agent.peer, "-c", "1"])
        .fails(3, &["offline", "byway agent"]);
    home.run(&["stdio", &agent.peer, "22"])
        .fails(3, &["offline"]);
}

#[test]
fn a_wrong_secret_or_a_node_that_is_not_listed_is_not_allowed() {
    let home = Home::new();
    let relay = Relay::start();
    let agent = home.agent(&relay.url, &[]);
    let mut wrong: Ticket = agent.ticket.parse().unwrap();
    wrong.secret = Some(TicketSecret::from_bytes([1; 32]));
    home.run(&["ping", &wrong.to_string(), "-c", "1"])
        .fails(4, &["not allowed", "ticket"]);
    wrong.secret = None;
    home.run(&["ping", &wrong.to_string(), "-c", "1"])
        .fails(4, &["not allowed"]);
    drop(agent);

    let somebody = wrong.node.to_string();
    let closed = Home::new();
    let agent = closed.agent(&relay.url, &["--allow-node", &somebody]);
    let ticket: Ticket = agent.ticket.parse().unwrap();
    assert!(ticket.secret.is_none(), "a list admits by key alone");
    home.run(&["ping", &agent.peer, "-c", "1"])
        .fails(4, &["not allowed", "--allow-node"]);
}

#[test]
fn a_target_that_is_not_to_be_had_says_why() {
    let home = Home::new();
    let relay = Relay::start();
    let agent = home.agent(&relay.url, &["--allow", "9", "--allow", "127.0.0.1:10"]);
    home.run(&["stdio", &agent.peer, "127.0.0.1:9"])
        .fails(1, &["nothing listens", "127.0.0.1:9"]);
    home.run(&["stdio", &agent.peer, "9"])
        .fails(1, &["nothing listens", "localhost:9"]);
    home.run(&["stdio", &agent.peer, "127.0.0.1:22"])
        .fails(4, &["not allowed", "--allow 127.0.0.1:22"]);
    home.run(&["stdio", &agent.peer, "203.0.113.10:443"])
        .fails(4, &["not allowed"]);
}

#[test]
fn a_relay_with_another_key_is_no_path() {
    let home = Home::new();
    let mut relay = Relay::start();
    let agent = home.agent(&relay.url, &[]);
    let ticket: Ticket = agent.ticket.parse().unwrap();
    relay.stop();
    // Another relay at the same address, as an impostor would.
    let port = ticket.relays[0].url.port();
    let mut config = ServerConfig::dev();
    config.listen = vec![([127, 0, 0, 1], port).into()];
    let impostor = Relay::with(config);
    assert_ne!(impostor.url, relay.url);
    for link in ["udp", "tls"] {
        home.run(&["ping", &agent.peer, "-c", "1", "--link", link])
            .fails(5, &["certificate", "pin"]);
    }
}

#[test]
fn an_agent_that_never_reaches_its_relay_gives_up_with_the_reason() {
    let home = Home::new();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", nobody.local_addr().unwrap());
    drop(nobody);
    home.run(&["agent", "--relay", &url])
        .fails(5, &["trying on", "relay"]);
}

#[test]
fn a_local_port_in_use_says_what_to_do() {
    let home = Home::new();
    let relay = Relay::start();
    let agent = home.agent(&relay.url, &[]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    home.run(&["forward", &agent.peer, &port])
        .fails(1, &["cannot listen", &port, "another local port"]);
}

#[test]
fn a_ticket_that_names_the_wrong_relay_is_told_from_an_agent_that_is_gone() {
    let home = Home::new();
    let (right, wrong) = (Relay::start(), Relay::start());
    let agent = home.agent(&right.url, &[]);
    let mut ticket: Ticket = agent.ticket.parse().unwrap();
    ticket.relays[0].url = wrong.url.parse().unwrap();
    ticket.relays[0].addrs.clear();
    let (host, _) = wrong.url.split_once('#').unwrap();
    home.run(&["ping", &ticket.to_string(), "-c", "1"])
        .fails(3, &["offline", host]);
}

#[test]
fn a_ticket_with_something_around_it_is_read_and_a_damaged_one_is_not_shown() {
    let home = Home::new();
    let relay = Relay::start();
    let agent = home.agent(&relay.url, &[]);
    let wrapped = format!(" \"{}\"\n", agent.ticket);
    home.run(&["ping", &wrapped, "-c", "1"]).succeeds();
    let damaged = format!("x{}", agent.ticket);
    let done = home.run(&["ping", &damaged, "-c", "1"]);
    assert!(
        !done.stderr.contains(&agent.ticket[8..40]),
        "{}",
        done.stderr
    );
    done.fails(2, &["ticket"]);
}

#[test]
fn aliases_that_others_can_read_are_refused() {
    let home = Home::new();
    let good = ticket().to_string();
    home.run(&["alias", "add", "work", &good]).succeeds();
    fs::set_permissions(home.file("aliases"), fs::Permissions::from_mode(0o644)).unwrap();
    home.run(&["ping", "work"])
        .fails(1, &["others can read", "chmod 600"]);
}
