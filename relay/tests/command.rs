//! The command itself: what scripts rely on.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must panic")]

mod common;

use common::process::{Running, command, output};
use tempfile::{TempDir, tempdir};

/// A file of that name in a folder.
fn file(folder: &TempDir, name: &str) -> String {
    folder.path().join(name).display().to_string()
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
    let folder = tempdir().unwrap();
    let config = file(&folder, "relay.toml");
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
        let mut relay = Running::start(args);
        let url = relay.url();
        assert_eq!(url.host(), "127.0.0.1");
        assert!(url.pin().is_some());
        std::net::TcpStream::connect((url.host(), url.port())).unwrap();
        assert_eq!(relay.terminated(), (Some(0), Vec::new()));
    }
}

#[test]
fn the_log_is_a_json_object_a_line_for_who_wants_that() {
    let relay = Running::logging(&["--dev", "--log-format", "json"]);
    loop {
        let line = relay.log();
        let said: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert!(
            said["timestamp"].is_string() && said["level"].is_string(),
            "{line}"
        );
        if said["message"] == "ready" {
            break;
        }
    }
}

#[test]
fn logs_in_a_file_have_no_colours() {
    let relay = Running::logging(&["--dev"]);
    let text = relay.log_until("ready").join("\n");
    assert!(!text.contains('\u{1b}'), "{text}");
    // What the kernel granted decides how much a busy shard loses.
    assert!(text.contains("UDP buffers"), "{text}");
}

#[test]
fn open_listens_where_it_is_told() {
    let relay = Running::start(&[
        "--open",
        "--listen",
        "127.0.0.1:0",
        "--public-host",
        "relay.example",
    ]);
    let url = relay.url();
    assert_eq!(url.host(), "relay.example");
    assert!(
        url.pin().is_some(),
        "its own certificate is known by its pin only"
    );
}

#[test]
fn a_port_in_use_is_an_error() {
    let first = Running::start(&["--dev"]);
    let listen = format!("127.0.0.1:{}", first.url().port());
    let second = output(&["--open", "--listen", &listen]);
    assert_eq!(second.status.code(), Some(1));
    let text = String::from_utf8(second.stderr).unwrap();
    assert!(
        text.contains(&listen) && text.contains("--listen"),
        "{text}"
    );
}

#[test]
fn a_key_is_made_once_and_signs_tokens_that_a_relay_by_configuration_asks_for() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempdir().unwrap();
    let key = file(&folder, "issuer.key");
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

    let config = file(&folder, "relay.toml");
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
    Running::start(&["--config", &config]).url();
}

#[test]
fn a_configuration_is_checked_with_what_its_files_hold() {
    let folder = tempdir().unwrap();
    let config = file(&folder, "relay.toml");
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
fn certificate(folder: &TempDir, host: &str) -> String {
    let made = rcgen::generate_simple_self_signed(vec![host.to_owned()]).unwrap();
    let (cert, key) = (file(folder, "cert.pem"), file(folder, "key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    format!("cert = \"{cert}\"\nkey = \"{key}\"\n")
}

#[test]
fn a_good_certificate_is_good() {
    let folder = tempdir().unwrap();
    let config = file(&folder, "relay.toml");
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
    let folder = tempdir().unwrap();
    let config = file(&folder, "relay.toml");
    let files = certificate(&folder, "relay.example");
    std::fs::write(&config, format!("admission = \"open\"\n{files}")).unwrap();
    let key = std::fs::read_to_string(file(&folder, "key.pem")).unwrap();
    let key = rcgen::KeyPair::from_pem(&key).unwrap();
    for (from, to, expected) in [
        (2001, 2002, "EXPIRED 2002-01-01"),
        (4001, 4002, "DOES NOT HOLD before 4001-01-01"),
    ] {
        let mut params = rcgen::CertificateParams::new(vec!["relay.example".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(to, 1, 1);
        let made = params.self_signed(&key).unwrap();
        std::fs::write(file(&folder, "cert.pem"), made.pem()).unwrap();
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
    let folder = tempdir().unwrap();
    let config = file(&folder, "relay.toml");
    let broken = file(&folder, "broken.pem");
    std::fs::write(&broken, "spoilt").unwrap();
    let missing = file(&folder, "missing/file");
    let cache = file(&folder, "cache");
    let acme = format!("[acme]\ndomains = [\"a.example\"]\ncache = \"{cache}\"\n");
    let mut cases = vec![
        (format!("identity = \"{broken}\"\n"), &broken),
        (format!("identity = \"{missing}\"\n"), &missing),
        (format!("audit = \"{missing}\"\n"), &missing),
        (format!("control = \"{missing}\"\n"), &missing),
        (format!("control = \"{broken}\"\n"), &broken),
    ];
    // A relay that orders no certificates refuses the table as such.
    if cfg!(feature = "acme") {
        cases.push((format!("{acme}roots = [\"{missing}\"]\n"), &missing));
        cases.push((format!("{acme}roots = [\"{broken}\"]\n"), &broken));
    }
    for (more, expected) in cases {
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
        file(&folder, "identity.pem"),
        file(&folder, "audit.jsonl"),
        file(&folder, "control.sock")
    );
    std::fs::write(&config, good).unwrap();
    let before = std::fs::read_dir(folder.path()).unwrap().count();
    assert!(output(&["check-config", &config]).status.success());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), before);
}

#[test]
fn a_value_is_taken_from_a_flag_before_the_environment_and_from_that_before_the_file() {
    let folder = tempdir().unwrap();
    let config = file(&folder, "relay.toml");
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
    let folder = tempdir().unwrap();
    let config = file(&folder, "relay.toml");
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
