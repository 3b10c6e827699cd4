//! What the commands do when all is well.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use common::{Home, Relay, Running, SpawnPiped, finish};
use serde_json::Value;

/// A server that reads everything, then answers how much it was, once for each connection.
fn counting_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                stream.read_to_end(&mut bytes).unwrap();
                write!(stream, "{} bytes", bytes.len()).unwrap();
            });
        }
    });
    port
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn ping_prints_one_object_a_line_with_the_path() {
    let home = Home::new();
    let relay = Relay::start();
    let agent = home.agent(&relay.url, &[]);
    for (args, kind) in [
        (&["--no-direct", "--link", "udp"][..], "relay_udp"),
        (&["--no-direct", "--link", "tls"], "relay_tls"),
    ] {
        let mut all = vec!["ping", &agent.peer, "-c", "2", "--json"];
        all.extend(args);
        let done = home.run(&all);
        let lines = json_lines(&done.succeeds().stdout);
        assert_eq!(lines.len(), 2);
        for (seq, line) in (1..).zip(&lines) {
            assert_eq!(line["seq"], seq);
            assert!(line["rtt_ms"].as_f64().unwrap() > 0.0);
            assert_eq!(line["path"]["kind"], kind);
            assert_eq!(line["path"]["relay"], relay.url.as_str());
        }
    }
    let done = home.run(&["ping", &agent.peer, "--until-direct", "--json"]);
    let lines = json_lines(&done.succeeds().stdout);
    let last = &lines.last().unwrap()["path"];
    assert_eq!(last["kind"], "direct");
    assert!(last["relay"].is_null());
    assert!(last["remote"].is_string());

    home.run(&[
        "ping",
        &agent.peer,
        "--until-direct",
        "--no-direct",
        "-c",
        "2",
    ])
    .fails(1, &["no direct path", "relay"]);
}

#[test]
fn options_come_from_the_environment_too() {
    let home = Home::new();
    let relay = Relay::start();
    let agent = home.agent(&relay.url, &[]);
    let mut command = home.byway(&["ping", &agent.peer]);
    command
        .env("BYWAY_COUNT", "1")
        .env("BYWAY_JSON", "1")
        .env("BYWAY_NO_DIRECT", "true")
        .env("BYWAY_NO_PORT_MAPPING", "true")
        .env("BYWAY_LINK", "tls");
    let done = finish(command.spawn_piped());
    let lines = json_lines(&done.succeeds().stdout);
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["path"]["kind"], "relay_tls");
}

#[test]
fn stdio_carries_both_directions_and_the_half_close() {
    let home = Home::new();
    let relay = Relay::start();
    let agent = home.agent(&relay.url, &[]);
    let target = counting_server().to_string();
    let mut command = home.byway(&["stdio", &agent.peer, &target]);
    command.stdin(Stdio::piped());
    let mut child = command.spawn_piped();
    let mut input = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        // Longer than any buffer between here and there; its end is what makes the server answer.
        input.write_all(&vec![b'x'; 3_000_000]).unwrap();
    });
    let done = finish(child);
    writer.join().unwrap();
    assert_eq!(done.succeeds().stdout, "3000000 bytes");
    assert_eq!(done.stderr, "");
}

#[test]
fn stdio_passes_on_the_targets_end_while_input_is_still_open() {
    let home = Home::new();
    let relay = Relay::start();
    let agent = home.agent(&relay.url, &[]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap().to_string();
    let mut command = home.byway(&["stdio", &agent.peer, &target]);
    command.stdin(Stdio::piped());
    let mut child = command.spawn_piped();
    let mut input = child.stdin.take().unwrap();
    let (mut far, _) = listener.accept().unwrap();
    far.write_all(b"bye").unwrap();
    far.shutdown(Shutdown::Write).unwrap();
    // ssh waits for this end before it closes our input.
    let mut said = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert_eq!(said, "bye");
    input.write_all(b"last words").unwrap();
    drop(input);
    let mut heard = String::new();
    far.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "last words");
    assert!(child.wait().unwrap().success());
}

fn forward(home: &Home, peer: &str, forwards: &[String]) -> (Running, Vec<String>) {
    let mut args = vec!["forward", peer];
    args.extend(forwards.iter().map(String::as_str));
    let mut running = Running::start(home.byway(&args));
    let locals = forwards
        .iter()
        .map(|_| {
            let line = running.line_with("listening on ");
            line.split(' ').nth(2).unwrap().to_owned()
        })
        .collect();
    (running, locals)
}

fn ask(local: &str, bytes: &[u8]) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(local)?;
    stream.write_all(bytes)?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn several_forwards_share_a_tunnel_and_refusals_are_told() {
    let home = Home::new();
    let relay = Relay::start();
    let agent = home.agent(&relay.url, &[]);
    let (one, two) = (counting_server(), counting_server());
    let unused = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let (mut running, locals) = forward(
        &home,
        &agent.peer,
        &[
            format!("0:localhost:{one}"),
            format!("127.0.0.1:0:127.0.0.1:{two}"),
            format!("0:127.0.0.1:{unused}"),
        ],
    );
    assert_eq!(ask(&locals[0], b"abc").unwrap(), "3 bytes");
    assert_eq!(ask(&locals[1], b"abcd").unwrap(), "4 bytes");
    assert!(ask(&locals[2], b"").is_err(), "reset, not an empty answer");
    running.line_with("connection refused");
    assert_eq!(running.signal("INT"), Some(0));
}

#[test]
fn a_forward_survives_the_agents_restart() {
    let home = Home::new();
    let relay = Relay::start();
    let mut agent = home.agent(&relay.url, &[]);
    let target = counting_server();
    let (mut running, locals) = forward(&home, &agent.peer, &[format!("0:localhost:{target}")]);
    assert_eq!(ask(&locals[0], b"before").unwrap(), "6 bytes");
    assert_eq!(agent.running.signal("TERM"), Some(0));
    running.line_with("reconnecting");
    let again = home.agent(&relay.url, &[]);
    assert_eq!(again.ticket, agent.ticket, "a ticket outlives a restart");
    running.line_with("connected again");
    assert_eq!(ask(&locals[0], b"after").unwrap(), "5 bytes");
}

#[test]
fn an_agent_tells_what_happens_and_keeps_its_ticket_private() {
    let home = Home::new();
    let relay = Relay::start();
    let mut agent = home.agent(&relay.url, &["--name", "desk"]);
    let file = home.file("ticket");
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(fs::read_to_string(&file).unwrap().trim(), agent.ticket);
    let ticket: byway::Ticket = agent.ticket.parse().unwrap();
    assert_eq!(ticket.name.as_deref(), Some("desk"));

    home.run(&["ping", &agent.peer, "--until-direct"])
        .succeeds();
    for event in ["opened", "closed"] {
        let line = agent.running.line_with(&format!("\"event\":\"{event}\""));
        let json: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(json["peer"].as_str().unwrap().len(), 52, "{line}");
    }
    assert_eq!(agent.running.signal("INT"), Some(0));
}

#[test]
fn a_listed_node_is_let_in_by_its_key() {
    let client = Home::new();
    let listed = client.run(&["alias", "list"]);
    let id = listed.stdout.trim().rsplit(' ').next().unwrap().to_owned();
    let home = Home::new();
    let relay = Relay::start();
    let agent = home.agent(&relay.url, &["--allow-node", &id]);
    client.run(&["ping", &agent.peer, "-c", "1"]).succeeds();
}

#[test]
fn aliases_are_kept_and_show_no_secret() {
    let home = Home::new();
    let relay = Relay::start();
    let agent = home.agent(&relay.url, &["--name", "desk"]);
    home.run(&["alias", "add", "work", &agent.peer]).succeeds();
    home.run(&["alias", "add", "copy", "work"]).succeeds();
    let done = home.run(&["alias", "list", "--json"]);
    let lines = json_lines(&done.succeeds().stdout);
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[1]["alias"], "work");
    assert_eq!(lines[1]["name"], "desk");
    assert!(!done.stdout.contains(&agent.ticket));
    let mode = fs::metadata(home.file("aliases"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    home.run(&["ping", "work", "-c", "1"]).succeeds();
    home.run(&["alias", "remove", "work"]).succeeds();
    home.run(&["ping", "work", "-c", "1"]).fails(3, &["copy"]);
}

#[test]
fn ssh_is_run_with_stdio_as_its_proxy_and_its_exit_code_is_ours() {
    let home = Home::new();
    let relay = Relay::start();
    let agent = home.agent(&relay.url, &["--name", "desk"]);
    let bin = home.file("bin");
    fs::create_dir(&bin).unwrap();
    let ssh = bin.join("ssh");
    fs::write(&ssh, "#!/bin/sh\nprintf '%s\\n' \"$@\"\nexit 42\n").unwrap();
    fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = home.byway(&["ssh", "--no-direct", &agent.peer, "-p", "2222", "uptime"]);
    command.env("PATH", format!("{}:/usr/bin:/bin", bin.display()));
    let done = finish(command.spawn_piped());
    assert_eq!(done.code, Some(42), "{done:#?}");
    let words: Vec<_> = done.stdout.lines().collect();
    let node = agent.ticket.parse::<byway::Ticket>().unwrap().node;
    let proxy = format!(
        "ProxyCommand={} stdio --no-direct --link=auto --no-port-mapping --congestion=cubic {} localhost:%p",
        env!("CARGO_BIN_EXE_byway"),
        agent.peer
    );
    let alias = format!("HostKeyAlias=byway-{node}");
    assert_eq!(
        words,
        [
            "-o",
            &proxy,
            "-o",
            &alias,
            &format!("byway-desk-{}", node.short()),
            "-p",
            "2222",
            "uptime"
        ]
    );
}

#[test]
fn a_proxys_password_reaches_the_stdio_under_ssh_and_no_command_line() {
    let home = Home::new();
    let relay = Relay::start();
    let agent = home.agent(&relay.url, &[]);
    let bin = home.file("bin");
    fs::create_dir(&bin).unwrap();
    let ssh = bin.join("ssh");
    fs::write(&ssh, "#!/bin/sh\necho \"$BYWAY_PROXY\"; echo \"$@\"\n").unwrap();
    fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755)).unwrap();
    let url = "http://me:hunter2@proxy:3128";
    let mut command = home.byway(&["ssh", "--proxy", url, &agent.peer]);
    command.env("PATH", format!("{}:/usr/bin:/bin", bin.display()));
    let done = finish(command.spawn_piped());
    let (variable, words) = done.succeeds().stdout.split_once('\n').unwrap();
    assert_eq!(variable, url);
    assert!(words.contains("ProxyCommand="), "{words}");
    assert!(!words.contains("hunter2"), "{words}");
}

#[test]
fn netcheck_prints_one_object_with_the_names_of_the_report() {
    let home = Home::new();
    let relay = Relay::start();
    let done = home.run(&["netcheck", "--relay", &relay.url, "--json"]);
    let lines = json_lines(&done.succeeds().stdout);
    assert_eq!(lines.len(), 1);
    let report = &lines[0];
    // Over loopback there is no network to speak of.
    assert!(report["udp_v4"].is_null());
    assert!(
        report["servers"][0]["fault"]
            .as_str()
            .unwrap()
            .contains("this host")
    );
    assert_eq!(report["relays"][0]["carrier"], "udp");
    for carrier in ["udp", "tls"] {
        assert_eq!(report["relays"][0][carrier], "works");
        assert!(report["relays"][0][format!("{carrier}_ms")].is_number());
    }
    assert_eq!(report["preferred_relay"]["url"], relay.url);
    assert_eq!(report["preferred_relay"]["reason"], "the only one asked");
    for unknown in ["hairpin", "mtu", "captive_portal", "quic_filtered"] {
        assert!(report[unknown].is_null(), "{unknown}");
    }
    assert!(
        report["findings"][0]
            .as_str()
            .unwrap()
            .contains("on this host")
    );
    assert!(report["servers"].is_array());
    assert!(report["mapping"].is_string());
    let shown = home.run(&["netcheck", "--relay", &relay.url]);
    let shown = shown.succeeds();
    assert!(shown.stdout.contains("UDP over IPv4"));
    assert!(shown.stdout.contains("on this host"), "{}", shown.stdout);
}

#[test]
fn netcheck_names_the_proxy_that_the_environment_names() {
    let home = Home::new();
    let relay = Relay::start();
    let netcheck = |variables: &[(&str, &str)], words: &[&str]| {
        let words = [&["netcheck", "--relay", &relay.url], words].concat();
        let mut command = home.byway(&words);
        command.envs(variables.iter().copied());
        let done = finish(command.spawn_piped());
        assert!(!format!("{done:?}").contains("hunter2"), "{done:#?}");
        done.succeeds().stdout.clone()
    };
    let named = [("ALL_PROXY", "socks5://me:hunter2@proxy.invalid:1081")];
    let report = &json_lines(&netcheck(&named, &["--json"]))[0];
    assert_eq!(report["proxy"]["url"], "socks5://proxy.invalid:1081");
    assert_eq!(report["proxy"]["source"], "ALL_PROXY");
    // It is on this host.
    assert_eq!(report["relays"][0]["proxied"], false);
    let shown = netcheck(&named, &[]);
    assert!(
        shown.contains("socks5://proxy.invalid:1081, by ALL_PROXY"),
        "{shown}"
    );
    assert!(shown.contains("goes without the proxy"), "{shown}");

    let given = ["--json", "--proxy", "http://me:hunter2@proxy.invalid"];
    let report = &json_lines(&netcheck(&named, &given))[0];
    assert_eq!(report["proxy"]["url"], "http://proxy.invalid:80");
    assert_eq!(report["proxy"]["source"], "--proxy");
    assert_eq!(report["relays"][0]["proxied"], true);

    let wrong = [("HTTPS_PROXY", "https://me:hunter2@proxy.invalid")];
    let report = &json_lines(&netcheck(&wrong, &["--json"]))[0];
    assert!(report["proxy"]["url"].is_null());
    let error = report["proxy"]["error"].as_str().unwrap();
    assert!(error.contains("https://"), "{error}");
    assert!(json_lines(&netcheck(&[], &["--json"]))[0]["proxy"].is_null());
}

#[test]
fn netcheck_names_what_does_not_resolve_and_fails_if_nobody_answers() {
    let home = Home::new();
    let done = home.run(&["netcheck", "--stun", "nosuch.invalid:3478", "--json"]);
    assert_eq!(done.code, Some(5), "{}", done.stderr);
    let report = &json_lines(&done.stdout)[0];
    assert_eq!(report["unresolved"][0], "nosuch.invalid:3478");
    let shown = home.run(&["netcheck", "--stun", "nosuch.invalid:3478"]);
    assert!(
        shown
            .stdout
            .contains("nosuch.invalid:3478 does not resolve")
    );
}

#[test]
fn the_demo_ends_with_one_object_and_equal_checksums() {
    let home = Home::new();
    let done = home.run(&["demo", "--size", "4MiB", "--json"]);
    let lines = json_lines(&done.succeeds().stdout);
    assert_eq!(lines.len(), 1, "nothing else on standard output");
    let summary = &lines[0];
    assert_eq!(summary["ok"], true);
    assert!(summary["first_byte_ms"].as_f64().unwrap() > 0.0);
    let direct = done
        .stderr
        .lines()
        .find(|line| line.contains(" direct     "));
    assert!(
        direct.unwrap().contains(" 127.0.0.1:"),
        "not on loopback: {direct:?}"
    );
    assert!(summary["direct_ms"].as_f64().unwrap() > 0.0);
    for kind in ["relay_udp", "relay_tls", "direct"] {
        assert_eq!(summary["paths"][kind]["sha256_ok"], true, "{kind}");
        assert!(
            summary["paths"][kind]["mib_s"].as_f64().unwrap() > 0.0,
            "{kind}"
        );
    }
    assert!(done.stderr.contains("first byte"), "the story is told");
}

/// A client that ends in this way has closed its tunnel: the agent hears of it at once, not after hours.
fn ends_in_order(end: impl FnOnce(&mut Running) -> Option<i32>, code: i32) {
    let home = Home::new();
    let relay = Relay::start();
    let mut agent = home.agent(&relay.url, &[]);
    let mut running = Running::start(home.byway(&["ping", &agent.peer, "--json"]));
    running.line_with("\"seq\":1");
    agent.running.line_with("\"event\":\"opened\"");
    assert_eq!(end(&mut running), Some(code));
    agent.running.line_with("\"event\":\"closed\"");
}

#[test]
fn a_client_whose_terminal_hangs_up_closes_its_tunnel() {
    ends_in_order(|running| running.signal("HUP"), 0);
}

#[test]
fn a_client_that_is_told_to_end_closes_its_tunnel() {
    ends_in_order(|running| running.signal("TERM"), 0);
}

#[test]
fn a_client_that_nobody_reads_any_more_closes_its_tunnel() {
    let home = Home::new();
    let relay = Relay::start();
    let mut agent = home.agent(&relay.url, &[]);
    let mut child = home.byway(&["ping", &agent.peer, "--json"]).spawn_piped();
    let mut first = String::new();
    let out = child.stdout.take().unwrap();
    BufReader::new(out).read_line(&mut first).unwrap();
    assert!(first.contains("\"seq\":1"), "{first}");
    // The reader, and with it the pipe, is gone now.
    agent.running.line_with("\"event\":\"closed\"");
    // What a shell shows for a filter that died of SIGPIPE.
    assert_eq!(child.wait().unwrap().code(), Some(141));
}

#[test]
fn a_hangup_that_nohup_has_us_ignore_is_ignored() {
    let home = Home::new();
    let relay = Relay::start();
    let agent = home.agent(&relay.url, &[]);
    let byway = home.byway(&["ping", &agent.peer, "--json"]);
    let mut nohup = std::process::Command::new("nohup");
    nohup.arg(byway.get_program()).args(byway.get_args());
    nohup.current_dir(home.path()).stdin(Stdio::null());
    for (name, value) in byway.get_envs() {
        match value {
            Some(value) => nohup.env(name, value),
            None => nohup.env_remove(name),
        };
    }
    let mut running = Running::start(nohup);
    running.line_with("\"seq\":1");
    let hangup = std::process::Command::new("kill")
        .args(["-HUP", &running.child.id().to_string()])
        .status();
    assert!(hangup.unwrap().success());
    running.line_with("\"seq\":2");
    running.line_with("\"seq\":3");
    assert_eq!(running.signal("INT"), Some(0));
}

#[test]
fn clients_started_side_by_side_do_not_stand_in_each_others_way() {
    let home = Home::new();
    let relay = Relay::start();
    let agent = home.agent(&relay.url, &[]);
    // The key and its epoch exist, as they do from the second command on.
    home.run(&["ping", &agent.peer, "-c", "1"]).succeeds();
    let pings: Vec<_> = (0..8)
        .map(|_| home.byway(&["ping", &agent.peer, "-c", "1"]).spawn_piped())
        .collect();
    for ping in pings {
        finish(ping).succeeds();
    }
}

#[test]
fn a_client_goes_on_where_nothing_can_be_written_and_with_a_damaged_epoch() {
    let home = Home::new();
    let relay = Relay::start();
    let agent = home.agent(&relay.url, &[]);
    home.run(&["ping", &agent.peer, "-c", "1"]).succeeds();
    fs::write(home.file("client.epoch"), "").unwrap();
    home.run(&["ping", &agent.peer, "-c", "1"]).succeeds();
    // Not even root can write to what is a folder.
    fs::remove_file(home.file("client.epoch.lock")).unwrap();
    fs::create_dir(home.file("client.epoch.lock")).unwrap();
    let done = home.run(&["ping", &agent.peer, "-c", "1"]);
    assert!(done.succeeds().stderr.contains("epoch"), "{done:?}");
}

#[test]
fn nobody_who_reads_standard_error_is_no_reason_to_break_down() {
    let home = Home::new();
    let mut child = home.byway(&["ping", "nobody"]).spawn_piped();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(3));
}

#[test]
fn a_command_that_was_interrupted_before_it_was_done_says_so() {
    let home = Home::new();
    let mut relay = Relay::start();
    let agent = home.agent(&relay.url, &[]);
    let until = [
        "ping",
        &agent.peer,
        "--until-direct",
        "--no-direct",
        "--json",
    ];
    for (signal, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let mut running = Running::start(home.byway(&until));
        running.line_with("\"seq\":1");
        assert_eq!(running.signal(signal), Some(code), "{signal}");
    }
    // A ping that has not come so far as to ping.
    relay.stop();
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let mut ping = home.byway(&["ping", &agent.peer]);
        ping.env("RUST_LOG", "debug");
        let mut running = Running::start(ping);
        running.line_with("carrier=Tls");
        assert_eq!(running.signal(signal), Some(code), "{signal}");
    }
    // An agent that was never linked.
    let nowhere = ["agent", "--relay", "https://127.0.0.1:9"];
    let mut running = Running::start(home.byway(&nowhere));
    running.line_with("no link to");
    assert_eq!(running.signal("TERM"), Some(143));
}

#[test]
fn an_agent_tells_of_a_relay_that_it_cannot_link_to() {
    let home = Home::new();
    let relay = Relay::start();
    let mut agent = home.agent(&relay.url, &["--relay", "https://127.0.0.1:9"]);
    let line = agent.running.line_with("\"event\":\"link_lost\"");
    assert!(line.contains("127.0.0.1:9"), "{line}");
}

#[test]
fn ssh_keeps_a_ticket_off_the_command_line() {
    let home = Home::new();
    let relay = Relay::start();
    let agent = home.agent(&relay.url, &[]);
    let fake = home.file("ssh");
    fs::write(
        &fake,
        "#!/bin/sh\nprintf '%s\\n' \"$@\"\nprintf '%s\\n' \"$BYWAY_STDIO_TICKET\"\n",
    )
    .unwrap();
    fs::set_permissions(&fake, fs::Permissions::from_mode(0o755)).unwrap();
    let mut byway = home.byway(&["ssh", &agent.ticket]);
    byway.env("PATH", format!("{}:/usr/bin:/bin", home.path().display()));
    let done = finish(byway.spawn_piped());
    let lines: Vec<&str> = done.succeeds().stdout.lines().collect();
    let (ticket, words) = lines.split_last().unwrap();
    assert_eq!(*ticket, agent.ticket);
    assert!(!words.join(" ").contains("byway1"), "{words:?}");
    assert!(words[1].contains(" @env "), "{words:?}");
}

#[test]
fn an_empty_variable_says_nothing() {
    let home = Home::new();
    let relay = Relay::start();
    let agent = home.agent(&relay.url, &[]);
    let mut byway = home.byway(&["ping", &agent.peer, "-c", "1"]);
    for name in ["LINK", "COUNT", "PROXY", "NO_DIRECT", "JSON"] {
        byway.env(format!("BYWAY_{name}"), "");
    }
    finish(byway.spawn_piped()).succeeds();
}

#[test]
fn aliases_added_at_once_are_all_kept() {
    let home = Home::new();
    let relay = Relay::start();
    let agent = home.agent(&relay.url, &[]);
    let adding: Vec<_> = (0..12)
        .map(|n| {
            home.byway(&["alias", "add", &format!("a{n}"), &agent.ticket])
                .spawn_piped()
        })
        .collect();
    for child in adding {
        finish(child).succeeds();
    }
    let listed = home.run(&["alias", "list", "--json"]);
    let lines = json_lines(&listed.succeeds().stdout);
    assert_eq!(
        lines
            .iter()
            .filter(|line| line["alias"].is_string())
            .count(),
        12
    );
    assert!(lines.last().unwrap()["client"].is_string());
}
