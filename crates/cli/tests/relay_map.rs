//! `--relay-map`: an agent whose relays are those of a file, and a check of them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::Stdio;

use byway::Ticket;
use common::{Home, Relay, Running, finish};

/// Another file in the place of the one before.
fn write_map(home: &Home, relays: &[&Relay]) {
    let one = |(n, relay): (usize, &&Relay)| {
        let url = &relay.url;
        format!("[[region]]\nname = \"place {n}\"\n[[region.relay]]\nurl = \"{url}\"\n")
    };
    let text: String = relays.iter().enumerate().map(one).collect();
    fs::write(home.file("new"), text).unwrap();
    fs::rename(home.file("new"), home.file("relays.toml")).unwrap();
}

fn named(ticket: &str) -> Vec<String> {
    let ticket: Ticket = ticket.parse().unwrap();
    let relays = ticket.relays.iter();
    relays.map(|relay| relay.url.to_string()).collect()
}

fn ticket_of(line: &str) -> String {
    let json: serde_json::Value = serde_json::from_str(line).unwrap();
    json["ticket"].as_str().unwrap().to_owned()
}

/// Sends back what comes, for one connection.
fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = [0; 1024];
        while let Ok(n) = stream.read(&mut buffer) {
            if n == 0 || stream.write_all(&buffer[..n]).is_err() {
                break;
            }
        }
    });
    port
}

#[test]
fn an_agent_goes_where_its_map_says_and_a_session_goes_with_it() {
    let home = Home::new();
    let (mut first, second) = (Relay::start(), Relay::start());
    write_map(&home, &[&first]);
    let mut command = home.byway(&["agent", "--json", "--ticket-file", "ticket", "--no-direct"]);
    command.env("BYWAY_RELAY_MAP", "relays.toml");
    let mut agent = Running::start(command);
    let ticket = ticket_of(&agent.line_with("\"event\":\"ticket\""));
    assert_eq!(named(&ticket), [first.url.clone()]);

    let port = echo().to_string();
    let mut session = home
        .byway(&["stdio", &ticket, &port])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = session.stdin.take().unwrap();
    let mut output = BufReader::new(session.stdout.take().unwrap());
    let mut answered = |text: &str| {
        writeln!(input, "{text}").unwrap();
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), text);
    };
    answered("by the first");

    write_map(&home, &[&second]);
    // It is found at both for a moment; the last word is what counts.
    let mut latest = ticket;
    while named(&latest) != [second.url.clone()] {
        latest = ticket_of(&agent.line_with("\"event\":\"ticket\""));
    }
    let left = agent.line_with("\"event\":\"link_lost\"");
    assert!(left.contains(&first.url), "{left}");
    let kept = fs::read_to_string(home.file("ticket")).unwrap();
    assert_eq!(named(&kept), std::slice::from_ref(&second.url));
    first.stop();
    answered("by the second");
    home.run(&["ping", "@ticket", "-c", "1"]).succeeds();
    drop(input);
    session.stdout = Some(output.into_inner());
    assert_eq!(finish(session).code, Some(0));
    assert_eq!(agent.signal("TERM"), Some(0));
}

#[test]
fn a_map_that_is_of_no_use_at_the_start_is_bad_usage() {
    let home = Home::new();
    for command in ["agent", "netcheck"] {
        let run = || home.run(&[command, "--relay-map", "relays.toml"]);
        let _ = fs::remove_file(home.file("relays.toml"));
        run().fails(2, &["relays.toml", "cannot be read"]);
        fs::write(home.file("relays.toml"), "# none yet\n").unwrap();
        run().fails(2, &["relays.toml", "names no relay", "[[region]]"]);
        let wrong = "[[region]]\nname = 'eu'\n[[region.relay]]\nurl = 'relay.test'\n";
        fs::write(home.file("relays.toml"), wrong).unwrap();
        run().fails(2, &["relays.toml: line 4", "relay.test", "https://"]);
    }
}

#[test]
fn a_check_names_the_regions() {
    let home = Home::new();
    let (first, second) = (Relay::start(), Relay::start());
    write_map(&home, &[&first, &second]);
    let check = ["netcheck", "--relay-map", "relays.toml"];
    let table = home.run(&check).succeeds().stdout.clone();
    assert!(
        table.contains("region") && table.contains("place 1"),
        "{table}"
    );
    let json = home.run(&[&check[..], &["--json"]].concat());
    let json: serde_json::Value = serde_json::from_str(&json.succeeds().stdout).unwrap();
    let regions = json["relays"].as_array().unwrap().iter();
    let regions: Vec<_> = regions.map(|relay| relay["region"].as_str()).collect();
    assert_eq!(regions, [Some("place 0"), Some("place 1")]);
    assert!(json["preferred_relay"]["region"].is_string(), "{json}");
    // Without a map there are none.
    let table = home.run(&["netcheck", "--relay", &first.url]);
    assert!(!table.succeeds().stdout.contains("region"), "{table:?}");
}
