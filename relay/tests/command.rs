//! The command itself: what scripts rely on.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must panic")]

mod common;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Output, Stdio};

use byway_wire::RelayUrl;

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_byway-relay"));
    command.args(args);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("BYWAY_RELAY_")) {
        command.env_remove(name);
    }
    command
}
fn output(args: &[&str]) -> Output {
    command(args).output().unwrap()
}
fn running(args: &[&str]) -> (Child, String) {
    let mut child = command(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    out.read_line(&mut line).unwrap();
    child.stdout = Some(out.into_inner());
    (child, line.trim_end().to_owned())
}
fn terminate(child: &mut Child) -> (Option<i32>, String) {
    let pid = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .unwrap()
            .success()
    );
    let mut rest = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut rest)
        .unwrap();
    (child.wait().unwrap().code(), rest)
}

#[test]
fn without_a_word_about_admission_it_does_not_run() {
    for args in [&[][..], &["serve"], &["serve", "--listen", "127.0.0.1:0"]] {
        let output = output(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains("--config") && text.contains("--open") && text.contains("--dev"));
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_configuration_that_is_not_there_is_an_error_that_names_it() {
    let output = output(&["serve", "--config", "/nonexistent/relay.toml"]);
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("/nonexistent/relay.toml"), "{text}");
}

#[test]
fn open_and_dev_exclude_each_other() {
    assert_eq!(output(&["--open", "--dev"]).status.code(), Some(2));
}

#[test]
fn dev_does_not_listen_where_others_can_reach_it() {
    // 192.0.2.77 is no machine's, so that a relay that does not look ends as well.
    for (flag, addr) in [
        ("--listen", "0.0.0.0:0"),
        ("--listen", "192.0.2.77:0"),
        ("--observe", "192.0.2.77:0"),
        ("--plain-http", "192.0.2.77:0"),
    ] {
        let output = output(&["--dev", "--public-host", "localhost", flag, addr]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(addr) && text.contains("--open"), "{text}");
    }
}

#[test]
fn a_wide_network_of_proxies_is_warned_about() {
    let folder = Folder::new("wide");
    let config = folder.file("relay.toml");
    let text =
        "admission = \"open\"\nlisten = [\"192.0.2.77:0\"]\ntrusted_proxies = [\"10.0.0.0/8\"]\n";
    std::fs::write(&config, text).unwrap();
    let checked = output(&["check-config", &config]);
    let started = output(&["--config", &config]);
    assert!(checked.status.success());
    for said in [checked.stdout, started.stderr] {
        let said = String::from_utf8(said).unwrap();
        assert!(said.contains("everybody in 10.0.0.0/8"), "{said}");
    }
}

#[test]
fn dev_prints_one_line_when_it_is_ready_and_ends_on_sigterm() {
    for args in [&["--dev"][..], &["serve", "--dev"]] {
        let (mut child, line) = running(args);
        let url: RelayUrl = line.parse().unwrap();
        assert_eq!(url.host(), "127.0.0.1");
        assert!(url.pin().is_some());
        std::net::TcpStream::connect((url.host(), url.port())).unwrap();
        let (code, rest) = terminate(&mut child);
        assert_eq!((code, rest.as_str()), (Some(0), ""));
    }
}

#[test]
fn the_log_is_a_json_object_a_line_for_who_wants_that() {
    let mut child = command(&["--dev", "--log-format", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = BufReader::new(child.stderr.take().unwrap());
    for line in log.lines().map(Result::unwrap) {
        let said: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert!(
            said["timestamp"].is_string() && said["level"].is_string(),
            "{line}"
        );
        if said["message"] == "ready" {
            break;
        }
    }
    terminate(&mut child);
}

#[test]
fn logs_in_a_file_have_no_colours() {
    let mut child = command(&["--dev"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = BufReader::new(child.stderr.take().unwrap());
    let mut lines = Vec::new();
    for line in log.lines().map(Result::unwrap) {
        lines.push(line);
        if lines.last().is_some_and(|line| line.contains("ready")) {
            break;
        }
    }
    terminate(&mut child);
    let text = lines.join("\n");
    assert!(text.contains("ready") && !text.contains('\u{1b}'), "{text}");
    // What the kernel granted decides how much a busy shard loses.
    assert!(text.contains("UDP buffers"), "{text}");
}

#[test]
fn open_listens_where_it_is_told() {
    let (mut child, line) = running(&[
        "--open",
        "--listen",
        "127.0.0.1:0",
        "--public-host",
        "relay.example",
    ]);
    let url: RelayUrl = line.parse().unwrap();
    assert_eq!(url.host(), "relay.example");
    assert!(
        url.pin().is_some(),
        "its own certificate is known by its pin only"
    );
    assert_eq!(terminate(&mut child).0, Some(0));
}

#[test]
fn a_port_in_use_is_an_error() {
    let (mut child, line) = running(&["--dev"]);
    let url: RelayUrl = line.parse().unwrap();
    let listen = format!("127.0.0.1:{}", url.port());
    let second = output(&["--open", "--listen", &listen]);
    assert_eq!(second.status.code(), Some(1));
    let text = String::from_utf8(second.stderr).unwrap();
    assert!(
        text.contains(&listen) && text.contains("--listen"),
        "{text}"
    );
    terminate(&mut child);
}

/// Gone with the test.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("byway-relay-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
    fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}
impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_key_is_made_once_and_signs_tokens_that_a_relay_by_configuration_asks_for() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new("keygen");
    let key = folder.file("issuer.key");
    let made = output(&["keygen", "--out", &key, "--jwk"]);
    assert!(made.status.success());
    let said = String::from_utf8(made.stdout).unwrap();
    assert!(
        said.starts_with(&format!("{key}.pub\n{{\"alg\":\"EdDSA\"")),
        "{said}"
    );
    let mode = std::fs::metadata(&key).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let before = std::fs::read(&key).unwrap();
    let again = output(&["keygen", "--out", &key]);
    assert_eq!(again.status.code(), Some(1));
    assert_eq!(
        std::fs::read(&key).unwrap(),
        before,
        "tokens would be worth nothing"
    );

    let node = byway_wire::SecretKey::from_bytes(&[1; 32])
        .node_id()
        .to_string();
    let token = output(&[
        "token", "--key", &key, "--node", &node, "--role", "agent", "--for", "12h",
    ]);
    assert!(token.status.success(), "{token:?}");
    let token = String::from_utf8(token.stdout).unwrap();
    assert_eq!((token.lines().count(), token.matches('.').count()), (1, 2));

    let config = folder.file("relay.toml");
    let text = format!(
        "admission = \"tokens\"\nlisten = [\"127.0.0.1:0\"]\n[tokens]\nkeys = [\"{key}.pub\"]\n"
    );
    std::fs::write(&config, text).unwrap();
    let checked = output(&["check-config", &config]);
    let said = String::from_utf8(checked.stdout).unwrap();
    assert!(
        checked.status.success() && said.contains("good") && said.contains("1 key for byway-relay"),
        "{said}"
    );
    let (mut child, line) = running(&["--config", &config]);
    assert!(line.parse::<RelayUrl>().is_ok(), "{line}");
    assert_eq!(terminate(&mut child).0, Some(0));
}

#[test]
fn a_configuration_is_checked_with_what_its_files_hold() {
    let folder = Folder::new("check");
    let config = folder.file("relay.toml");
    let cases = [
        (
            "admission = \"tokens\"\n[tokens]\nkeys = [\"/nonexistent.pub\"]\n",
            "/nonexistent.pub",
        ),
        (
            "admission = \"open\"\ncert = \"/nonexistent.pem\"\nkey = \"/nonexistent.key\"\n",
            "/nonexistent.pem",
        ),
        ("admission = \"open\"\nnmae = \"x\"\n", "line 2"),
        ("admission = \"open\"\nshards = 1000\n", "line 2"),
        ("", "admission"),
    ];
    for (text, expected) in cases {
        std::fs::write(&config, text).unwrap();
        let checked = output(&["check-config", &config]);
        assert_eq!(checked.status.code(), Some(2), "{text}");
        let said = String::from_utf8(checked.stderr).unwrap();
        assert!(said.contains(expected) && said.contains(&config), "{said}");
        // A file may come later, so a start that misses one may be tried again; what is wrong in the configuration itself stays so.
        let code = if text.contains("/nonexistent") { 1 } else { 2 };
        let started = output(&["--config", &config, "--listen", "127.0.0.1:0"]);
        assert_eq!(started.status.code(), Some(code), "{text}");
    }
}

/// A certificate for this host, and the lines of a configuration that name it.
fn certificate(folder: &Folder, host: &str) -> String {
    let made = rcgen::generate_simple_self_signed(vec![host.to_owned()]).unwrap();
    let (cert, key) = (folder.file("cert.pem"), folder.file("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    format!("cert = \"{cert}\"\nkey = \"{key}\"\n")
}

#[test]
fn a_good_certificate_is_good() {
    let folder = Folder::new("pair");
    let config = folder.file("relay.toml");
    let files = certificate(&folder, "relay.example");
    std::fs::write(&config, format!("admission = \"open\"\n{files}")).unwrap();
    let checked = output(&["check-config", &config]);
    let said = String::from_utf8(checked.stdout).unwrap();
    assert!(checked.status.success(), "{:?}", checked.stderr);
    assert!(said.contains("good") && said.contains("cert.pem"), "{said}");
    assert!(
        said.contains("; expires 4096-01-01T00:00:00Z, in "),
        "{said}"
    );
    // For the public host, by a relay as by the check.
    for (host, good) in [
        ("relay.example", true),
        ("192.0.2.1", true),
        ("other.example", false),
    ] {
        let text = format!(
            "admission = \"open\"\nlisten = [\"127.0.0.1:0\"]\npublic_host = \"{host}\"\n{files}"
        );
        std::fs::write(&config, text).unwrap();
        let checked = output(&["check-config", &config]);
        assert_eq!(checked.status.success(), good, "{checked:?}");
        if good {
            continue;
        }
        let started = output(&["--config", &config]);
        assert_eq!(started.status.code(), Some(1));
        for output in [checked, started] {
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(
                said.contains("is for relay.example") && said.contains("other.example"),
                "{said}"
            );
        }
    }
}

#[test]
fn a_certificate_that_does_not_hold_is_told() {
    let folder = Folder::new("dates");
    let config = folder.file("relay.toml");
    let files = certificate(&folder, "relay.example");
    std::fs::write(&config, format!("admission = \"open\"\n{files}")).unwrap();
    let key = std::fs::read_to_string(folder.file("key.pem")).unwrap();
    let key = rcgen::KeyPair::from_pem(&key).unwrap();
    for (from, to, expected) in [
        (2001, 2002, "EXPIRED 2002-01-01"),
        (4001, 4002, "DOES NOT HOLD before 4001-01-01"),
    ] {
        let mut params = rcgen::CertificateParams::new(vec!["relay.example".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(to, 1, 1);
        let made = params.self_signed(&key).unwrap();
        std::fs::write(folder.file("cert.pem"), made.pem()).unwrap();
        let checked = output(&["check-config", &config]);
        let said = String::from_utf8(checked.stdout).unwrap();
        assert!(
            checked.status.success() && said.contains(expected),
            "{said}"
        );
    }
}

/// What a relay would refuse at its start, the check refuses as well.
#[test]
fn the_check_says_good_to_nothing_that_a_relay_refuses() {
    let folder = Folder::new("same");
    let config = folder.file("relay.toml");
    let broken = folder.file("broken.pem");
    std::fs::write(&broken, "spoilt").unwrap();
    let missing = folder.file("missing/file");
    let cache = folder.file("cache");
    let acme = format!("[acme]\ndomains = [\"a.example\"]\ncache = \"{cache}\"\n");
    for (more, expected) in [
        (format!("identity = \"{broken}\"\n"), &broken),
        (format!("identity = \"{missing}\"\n"), &missing),
        (format!("audit = \"{missing}\"\n"), &missing),
        (format!("control = \"{missing}\"\n"), &missing),
        (format!("control = \"{broken}\"\n"), &broken),
        (format!("{acme}roots = [\"{missing}\"]\n"), &missing),
        (format!("{acme}roots = [\"{broken}\"]\n"), &broken),
    ] {
        let text = format!("admission = \"open\"\nlisten = [\"127.0.0.1:0\"]\n{more}");
        std::fs::write(&config, text).unwrap();
        let checked = output(&["check-config", &config]);
        let started = output(&["--config", &config]);
        let codes = (checked.status.code(), started.status.code());
        assert_eq!(codes, (Some(2), Some(1)), "{more}");
        for output in [checked, started] {
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(said.contains(expected.as_str()), "{said}");
        }
    }
    // It makes nothing.
    let good = format!(
        "admission = \"open\"\nidentity = \"{}\"\naudit = \"{}\"\ncontrol = \"{}\"\n",
        folder.file("identity.pem"),
        folder.file("audit.jsonl"),
        folder.file("control.sock")
    );
    std::fs::write(&config, good).unwrap();
    let before = std::fs::read_dir(&folder.0).unwrap().count();
    assert!(output(&["check-config", &config]).status.success());
    assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), before);
}

#[test]
fn a_value_is_taken_from_a_flag_before_the_environment_and_from_that_before_the_file() {
    let folder = Folder::new("order");
    let config = folder.file("relay.toml");
    std::fs::write(
        &config,
        "admission = \"open\"\nname = \"file\"\nregion = \"file\"\n",
    )
    .unwrap();
    let checked = |args: &[&str]| {
        let mut command = command(&["check-config", &config]);
        let output = command
            .args(args)
            .env("BYWAY_RELAY_NAME", "environment")
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(checked(&[]).contains("environment, in region file"));
    assert!(checked(&["--name", "flag"]).contains("flag, in region file"));
}

#[test]
fn a_variable_that_is_mistyped_is_an_error_before_anything_starts() {
    let folder = Folder::new("typo");
    let config = folder.file("relay.toml");
    std::fs::write(&config, "admission = \"open\"\n").unwrap();
    // An address that no machine has, so that a relay that does not look ends as well.
    let open = ["serve", "--open", "--listen", "192.0.2.77:0"];
    for args in [&open[1..], &open, &["check-config", &config]] {
        let mut command = command(args);
        let output = command.env("BYWAY_RELAY_REGOIN", "fra").output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(
            text.contains("BYWAY_RELAY_REGOIN") && text.contains("BYWAY_RELAY_REGION?"),
            "{text}"
        );
        assert!(output.stdout.is_empty());
    }
}

/// It has no certificate files, so nobody else listens for the signal.
#[test]
fn sighup_does_not_end_a_relay() {
    let mut child = command(&["--dev"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap())
        .lines()
        .map(Result::unwrap);
    assert!(log.any(|line| line.contains("ready")));
    let pid = child.id().to_string();
    let sent = Command::new("kill").args(["-HUP", &pid]).status().unwrap();
    assert!(sent.success());
    assert!(log.any(|line| line.contains("SIGHUP")), "it has ended");
    assert_eq!(terminate(&mut child).0, Some(0));
}

/// A relay with a control socket, and what it logs.
fn controlled(dir: &std::path::Path, drain: &str) -> (Child, String, String) {
    let socket = dir.join("control.sock").display().to_string();
    let args = ["--dev", "--control", &socket, "--drain-seconds", drain];
    let (child, url) = running(&args);
    (child, url, socket)
}

/// A node that has nowhere to go, so that the relay has somebody to wait for.
fn stay(url: &str) -> (tokio::runtime::Runtime, common::tls::TlsNode) {
    let url: RelayUrl = url.parse().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let to = (url.host().parse::<std::net::IpAddr>().unwrap(), url.port()).into();
    let node = runtime.block_on(async {
        let pin = url.pin().unwrap();
        let mut node = common::tls::TlsNode::connect_to(to, pin, &url.authority()).await;
        node.prove(1, 1).await;
        let hello = common::hello(1, byway_wire::relay::control::Role::Client);
        node.say(hello).await;
        let welcome = node.hear().await;
        assert!(matches!(
            welcome,
            byway_wire::relay::control::Control::Welcome(_)
        ));
        node
    });
    (runtime, node)
}

#[test]
fn drain_says_who_is_left_and_ends_with_the_relay() {
    let dir = tempfile::tempdir().unwrap();
    let (mut child, url, socket) = controlled(dir.path(), "3600");
    let (_runtime, _node) = stay(&url);
    let drained = output(&["drain", "--within", "1", &socket]);
    let text = String::from_utf8_lossy(&drained.stderr);
    assert_eq!(drained.status.code(), Some(0), "{text}");
    assert!(
        text.contains("1 links left") && text.contains("it has stopped"),
        "{text}"
    );
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(!std::path::Path::new(&socket).exists());
    // And where there is none.
    let nobody = output(&["drain", &socket]);
    let text = String::from_utf8_lossy(&nobody.stderr);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(
        text.contains(&socket) && text.contains("--control"),
        "{text}"
    );
}

#[test]
fn a_second_sigterm_ends_a_relay_that_drains_and_so_does_an_interrupt() {
    let dir = tempfile::tempdir().unwrap();
    for signal in ["-TERM", "-INT"] {
        let (mut child, url, _) = controlled(dir.path(), "3600");
        let (runtime, mut node) = stay(&url);
        let pid = child.id().to_string();
        let send = |signal: &str| {
            let sent = Command::new("kill").args([signal, &pid]).status().unwrap();
            assert!(sent.success());
        };
        send("-TERM");
        let told = runtime.block_on(node.hear());
        use byway_wire::relay::control::Control;
        assert!(
            matches!(
                told,
                Control::GoingAway {
                    deadline_ms: 3_600_000,
                    ..
                }
            ),
            "{told:?}"
        );
        send(signal);
        assert_eq!(child.wait().unwrap().code(), Some(0), "{signal}");
    }
}

/// Whoever hands sockets over numbers them from 3.
fn with_sockets(fds: &[i32], args: &[&str]) -> Command {
    let moves: String = (3..)
        .zip(fds)
        .map(|(to, from)| format!("{to}<&{from} "))
        .collect();
    let exe = env!("CARGO_BIN_EXE_byway-relay");
    let script = format!("exec {moves}; LISTEN_PID=$$ exec {exe} \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &script, "relay"]).args(args);
    command.env("LISTEN_FDS", fds.len().to_string());
    command
}

#[test]
fn sockets_that_are_handed_over_outlive_the_relay() {
    use std::os::fd::AsRawFd;
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = tcp.local_addr().unwrap();
    let udp = std::net::UdpSocket::bind(addr).unwrap();
    for fd in [rustix::fd::AsFd::as_fd(&tcp), rustix::fd::AsFd::as_fd(&udp)] {
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty()).unwrap();
    }
    let fds = [tcp.as_raw_fd(), udp.as_raw_fd()];
    let here = addr.to_string();
    // A connection made while there is no relay waits for it.
    let waiting = std::net::TcpStream::connect(addr).unwrap();
    for _ in 0..2 {
        let mut child = with_sockets(&fds, &["--dev", "--listen", &here])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        let url: RelayUrl = line.trim().parse().unwrap();
        assert_eq!(url.port(), addr.port());
        drop(stay(line.trim()));
        child.stdout = Some(out.into_inner());
        assert_eq!(terminate(&mut child).0, Some(0));
    }
    drop(waiting);
    // Sockets that the configuration does not name are a mistake, not a guess.
    let other = with_sockets(&fds, &["--dev", "--listen", "127.0.0.1:0"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&other.stderr);
    assert_eq!(other.status.code(), Some(1));
    assert!(text.contains(&here) && text.contains("'listen'"), "{text}");
}

fn fifo(path: &str) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// Waits until somebody opens the pipe to read it, who then waits for what nobody writes while the result is held.
fn held_by_a_reader(path: &str) -> std::fs::File {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = rustix::fs::OFlags::NONBLOCK.bits();
    let deadline = std::time::Instant::now() + common::SOON;
    loop {
        let mut options = std::fs::File::options();
        // Refused for as long as there is no reader.
        match options
            .write(true)
            .custom_flags(flags.try_into().unwrap())
            .open(path)
        {
            Ok(file) => return file,
            Err(error) => assert!(std::time::Instant::now() < deadline, "{error}"),
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

/// How it ended, if it does within what systemd and people are ready to wait.
fn ended(child: &mut Child) -> Option<i32> {
    let deadline = std::time::Instant::now() + common::SOON * 2;
    while std::time::Instant::now() < deadline {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    child.kill().unwrap();
    panic!("it does not end");
}

fn signal(child: &Child, signal: &str) {
    let pid = child.id().to_string();
    let sent = Command::new("kill").args([signal, &pid]).status().unwrap();
    assert!(sent.success());
}

#[test]
fn a_relay_that_cannot_read_its_files_at_the_start_can_be_told_to_end() {
    let folder = Folder::new("hung-start");
    let (config, keys) = (folder.file("relay.toml"), folder.file("keys"));
    fifo(&keys);
    let text = format!(
        "admission = \"tokens\"\nlisten = [\"127.0.0.1:0\"]\n[tokens]\nkeys = [\"{keys}\"]\n"
    );
    std::fs::write(&config, text).unwrap();
    let mut child = command(&["--config", &config]).spawn().unwrap();
    let _held = held_by_a_reader(&keys);
    signal(&child, "-TERM");
    assert_eq!(ended(&mut child), Some(0));
}

#[test]
fn a_file_that_hangs_while_it_is_read_stops_neither_the_relay_nor_its_end() {
    let folder = Folder::new("hung-look");
    let [config, key, revoked, new] =
        ["relay.toml", "issuer.key", "revoked", "new"].map(|name| folder.file(name));
    assert!(output(&["keygen", "--out", &key]).status.success());
    std::fs::write(&revoked, "# nobody\n").unwrap();
    let text = format!(
        "admission = \"tokens\"\nlisten = [\"127.0.0.1:0\"]\n[tokens]\nkeys = [\"{key}.pub\"]\nrevoked = \"{revoked}\"\n"
    );
    std::fs::write(&config, text).unwrap();
    let (mut child, line) = running(&["--config", &config]);
    fifo(&new);
    std::fs::rename(&new, &revoked).unwrap();
    let _held = held_by_a_reader(&revoked);
    let url: RelayUrl = line.parse().unwrap();
    std::net::TcpStream::connect((url.host(), url.port())).unwrap();
    signal(&child, "-TERM");
    assert_eq!(ended(&mut child), Some(0));
}

/// The relay's last words go to its nodes, and to a disk that takes none.
#[test]
fn a_relay_that_stops_ends_at_once_when_it_is_told_again() {
    use std::io::Write;
    let folder = Folder::new("hung-end");
    let audit = folder.file("audit");
    fifo(&audit);
    let mut both = std::fs::File::options()
        .read(true)
        .write(true)
        .open(&audit)
        .unwrap();
    both.write_all(&[b'\n'; 65_536]).unwrap();
    for (again, expected) in [(false, 0), (true, 1)] {
        let mut child = command(&["--dev", "--audit", &audit])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut url = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut url).unwrap();
        let node = stay(url.trim());
        signal(&child, "-TERM");
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let stopping = log.find(|line| line.as_ref().unwrap().contains("stopping"));
        assert!(stopping.is_some());
        if again {
            // The second signal is one only if the first was taken, which the log has said; the disk holds it up for two seconds.
            signal(&child, "-TERM");
        }
        assert_eq!(ended(&mut child), Some(expected));
        drop(node);
    }
}

/// A terminal that is held, or a journal whose disk hangs.
#[test]
fn a_log_that_nobody_reads_stops_neither_the_relay_nor_its_end() {
    use std::io::Write;
    let (_unread, mut full) = std::io::pipe().unwrap();
    full.write_all(&[b'\n'; 65_536]).unwrap();
    let mut child = command(&["--dev"])
        .stdout(Stdio::piped())
        .stderr(full.try_clone().unwrap())
        .spawn()
        .unwrap();
    let mut url = String::new();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let reading = std::thread::spawn(move || {
        out.read_line(&mut url).unwrap();
        url
    });
    let deadline = std::time::Instant::now() + common::SOON;
    while !reading.is_finished() && std::time::Instant::now() < deadline {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    if !reading.is_finished() {
        child.kill().unwrap();
        panic!("it does not start");
    }
    let node = stay(reading.join().unwrap().trim());
    signal(&child, "-TERM");
    assert_eq!(ended(&mut child), Some(0));
    drop(node);
}
