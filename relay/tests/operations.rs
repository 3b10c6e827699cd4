//! What operators are given in `docs/operations/`: rules, a dashboard, explanations. They name what a relay really serves, and Prometheus
//! can read them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must panic")]

mod common;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use common::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn document(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../docs/operations")
        .join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(document(name)).unwrap()
}

/// Words that are a metric's name.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let ours = words.filter(|w| w.starts_with("byway_relay_") || w.starts_with("process_"));
    ours.map(str::to_owned).collect()
}

/// A page of metrics.
async fn page() -> String {
    let server = start_with(|config| config.observe = Some(([127, 0, 0, 1], 0).into())).await;
    let addr = server.observe_addr().unwrap();
    let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    soon("metrics", stream.read_to_string(&mut answer))
        .await
        .unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// The name of a sample, of a family, and what a histogram's parts are called.
fn served(page: &str) -> BTreeSet<String> {
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    let mut names: BTreeSet<String> = samples
        .map(|line| line.split(['{', ' ']).next().unwrap().to_owned())
        .collect();
    let families = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    names.extend(families.map(|line| line.split(' ').next().unwrap().to_owned()));
    names.insert("byway_relay_handshake_seconds_bucket".to_owned());
    names
}

#[tokio::test]
async fn rules_dashboard_and_explanations_name_what_a_relay_serves() {
    let page = page().await;
    let served = served(&page);
    for name in ["alerts.yml", "grafana-dashboard.json", "metrics.md"] {
        let named = metrics_in(&read(name));
        assert!(named.len() > 5, "{name}");
        let unknown: Vec<_> = named.difference(&served).collect();
        assert!(
            unknown.is_empty(),
            "{name} names what is not served: {unknown:?}"
        );
    }
    // And the other way round: nothing is served that is not explained, and no reason is left out.
    let explained = read("metrics.md");
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        let base = ["_bucket", "_count", "_sum"]
            .iter()
            .find_map(|part| name.strip_suffix(part));
        assert!(
            explained.contains(base.unwrap_or(name)),
            "{name} is not explained"
        );
        if let Some(reason) = line.strip_prefix("byway_relay_dropped_total{reason=\"") {
            let reason = reason.split('"').next().unwrap();
            assert!(
                explained.contains(&format!("`{reason}`")),
                "{reason} is not explained"
            );
        }
    }
}

#[test]
fn the_dashboard_is_json_with_queries() {
    let dashboard: serde_json::Value =
        serde_json::from_str(&read("grafana-dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let queries = panels.iter().flat_map(|p| p["targets"].as_array().unwrap());
    assert!(queries.count() >= panels.len());
}

fn promtool() -> Command {
    match Command::new("promtool")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
    {
        Ok(_) => Command::new("promtool"),
        Err(_) => panic!("promtool is missing: apt-get install --no-install-recommends prometheus"),
    }
}

#[tokio::test]
async fn prometheus_reads_the_rules_and_the_metrics() {
    let checked = promtool()
        .args(["check", "rules"])
        .arg(document("alerts.yml"))
        .output()
        .unwrap();
    assert!(checked.status.success(), "{checked:?}");
    // The linter reads the older text format, which has no marks of OpenMetrics at its end and calls no family an info.
    let page = page().await;
    let lines = page.lines().filter(|l| {
        *l != "# EOF" && !l.contains("byway_relay info") && !l.contains("byway_relay_info")
    });
    let older: String = lines
        .map(|line| {
            let counter = line
                .strip_suffix(" counter")
                .and_then(|l| l.strip_prefix("# TYPE "));
            counter.map_or(format!("{line}\n"), |name| {
                format!("# TYPE {name}_total counter\n")
            })
        })
        .filter(|line| !line.starts_with("# HELP"))
        .collect();
    let mut linter = promtool();
    let mut linter = linter
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    linter
        .stdin
        .take()
        .unwrap()
        .write_all(older.as_bytes())
        .unwrap();
    let linted = linter.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&linted.stderr).into_owned();
    // 3: it reads them, and would like help texts.
    let serious: Vec<_> = said
        .lines()
        .filter(|line| !line.contains("no help text"))
        .collect();
    assert!(
        matches!(linted.status.code(), Some(0 | 3)) && serious.is_empty(),
        "{said}"
    );
}

fn systemd_analyze(args: &[&str]) -> String {
    let output = Command::new("systemd-analyze")
        .args(args)
        .env("SYSTEMD_COLORS", "0")
        .output();
    let Ok(output) = output else {
        panic!("systemd-analyze is missing: apt-get install --no-install-recommends systemd");
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text + &String::from_utf8_lossy(&output.stderr)
}

/// As systemd reads it, with the program that was built here; and it leaves a relay little that could be misused.
#[test]
fn the_unit_is_good_and_hardened() {
    let unit = document("../../packaging/systemd/byway-relay.service");
    let text = std::fs::read_to_string(&unit).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("byway-relay.service");
    let built = env!("CARGO_BIN_EXE_byway-relay");
    assert_eq!(text.matches("=/usr/local/bin/byway-relay ").count(), 1);
    std::fs::write(&copy, text.replace("/usr/local/bin/byway-relay", built)).unwrap();
    let socket = folder.path().join("byway-relay.socket");
    std::fs::copy(
        document("../../packaging/systemd/byway-relay.socket"),
        &socket,
    )
    .unwrap();
    let units = [&copy, &socket].map(|path| path.display().to_string());
    let verified = systemd_analyze(&["verify", &units[0], &units[1]]);
    let of_ours: Vec<_> = verified
        .lines()
        .filter(|line| line.contains("byway"))
        // Since systemd 254; an older one says this, and leaves them out.
        .filter(|line| {
            let later = ["RestartSteps", "RestartMaxDelaySec"];
            !later
                .iter()
                .any(|key| line.contains(&format!("Unknown key '{key}'")))
        })
        .collect();
    assert!(of_ours.is_empty(), "{verified}");
    let judged = systemd_analyze(&["security", "--offline=true", &unit.display().to_string()]);
    let exposure = judged
        .lines()
        .find(|line| line.contains("Overall exposure level"));
    let exposure = exposure.and_then(|line| {
        line.split(": ")
            .nth(1)?
            .split(' ')
            .next()?
            .parse::<f64>()
            .ok()
    });
    assert!(exposure.is_some_and(|level| level <= 2.0), "{judged}");
}

/// A relay that was drained stays away, one that fails comes again for ever, and one whose configuration is wrong does not try.
#[test]
fn the_unit_restarts_what_failed_and_nothing_else() {
    let unit = document("../../packaging/systemd/byway-relay.service");
    let text = std::fs::read_to_string(unit).unwrap();
    let said: Vec<&str> = text.lines().filter(|line| line.contains('=')).collect();
    for line in [
        "Restart=on-failure",
        "RestartPreventExitStatus=2",
        "StartLimitIntervalSec=0",
        "RestartMaxDelaySec=60",
    ] {
        assert!(said.contains(&line), "{line}");
    }
    // One that refuses would be started again: RestartPreventExitStatus= is about ExecStart= alone.
    assert!(!said.iter().any(|line| line.starts_with("ExecStartPre=")));
    // While the socket is active, whatever comes in starts the service.
    assert!(read("README.md").contains("systemctl stop byway-relay.socket byway-relay"));
}

/// Credentials are copied once, so that a renewed certificate would never be seen.
#[test]
fn a_certificate_that_is_renewed_comes_by_a_folder() {
    let text = read("README.md");
    let hook = text.find("renewal-hooks/deploy").unwrap();
    assert!(text[hook..].contains("RENEWED_LINEAGE"));
    assert!(text.contains("SupplementaryGroups="));
}

/// The sockets that systemd keeps are those that a relay listens on if nothing else is said: others would be refused.
#[test]
fn the_socket_unit_has_the_ports_of_the_default_configuration() {
    let unit = document("../../packaging/systemd/byway-relay.socket");
    let text = std::fs::read_to_string(unit).unwrap();
    let config = byway_relay::config::File::parse("admission = \"open\"").unwrap();
    let config = config.resolve(Default::default()).unwrap();
    for kind in ["ListenStream", "ListenDatagram"] {
        let lines = text
            .lines()
            .filter_map(|line| line.strip_prefix(kind)?.strip_prefix('='));
        let named: BTreeSet<std::net::SocketAddr> =
            lines.map(|addr| addr.parse().unwrap()).collect();
        assert_eq!(named, config.listen.iter().copied().collect(), "{kind}");
    }
}

/// Containers are given configurations and flags that a relay knows.
#[test]
fn what_containers_are_given_is_known() {
    let config = document("../../packaging/compose/etc/relay.toml");
    let file = byway_relay::config::File::load(&config).unwrap();
    file.resolve(Default::default()).unwrap();
    let help = Command::new(env!("CARGO_BIN_EXE_byway-relay"))
        .args(["serve", "--help"])
        .output()
        .unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let given = |name: &str| {
        let text = std::fs::read_to_string(document(name)).unwrap();
        let words = text.split(|c: char| c.is_whitespace() || "\"=[],".contains(c));
        let flags = words.filter(|word| word.starts_with("--") && word.len() > 2);
        let flags: Vec<String> = flags.map(str::to_owned).collect();
        (text, flags)
    };
    let (set, flags) = given("../../packaging/helm/byway-relay/templates/daemonset.yaml");
    assert!(flags.len() >= 5);
    for flag in flags {
        assert!(help.contains(&format!("{flag} ")), "{flag}");
    }
    let variables = set
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- name: BYWAY_RELAY_"));
    for name in variables {
        assert!(
            help.contains(&format!("[env: BYWAY_RELAY_{name}")),
            "{name}"
        );
    }
    // Longer than nodes are given, or they would be cut off.
    let (values, _) = given("../../packaging/helm/byway-relay/values.yaml");
    let seconds = |key: &str| -> u64 {
        let line = values.lines().find_map(|line| line.strip_prefix(key));
        line.unwrap()
            .trim_start_matches(':')
            .trim()
            .parse()
            .unwrap()
    };
    assert!(seconds("drainSeconds") + 10 <= seconds("terminationGracePeriodSeconds"));
}
