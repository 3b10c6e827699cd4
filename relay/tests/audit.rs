//! The audit log of a real relay: who, when, how much, and why it ended.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must panic")]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Instant;

use byway_wire::relay::control::{CloseReason, Control, Role};
use common::tls::TlsNode;
use common::udp::{UdpNode, pair};
use common::*;
use serde_json::Value;

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Waits for a line that `is` so.
async fn line(path: &Path, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + SOON;
    loop {
        let lines = lines(path);
        if let Some(line) = lines.iter().find(|line| is(line)) {
            return line.clone();
        }
        assert!(Instant::now() < deadline, "no {what} in {lines:#?}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_channels_life_is_on_record() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let server = start_with(|config| config.audit = Some(path.clone())).await;
    let (mut client, mut agent) = pair(&server).await;
    for _ in 0..3 {
        client.send_data(&data(9, 7, 508));
        agent.recv_data().await;
    }
    agent.send_data(&data(9, 7, 108));
    client.recv_data().await;
    let linked = line(&path, "agent's link", |l| {
        l["event"] == "linked" && l["role"] == "agent"
    })
    .await;
    assert_eq!(linked["node"], node(2).to_string());
    assert_eq!(linked["address"], agent.local().to_string());
    assert_eq!(linked["carrier"], "udp");
    let opened = line(&path, "channel", |l| l["event"] == "opened").await;
    assert_eq!(
        (&opened["opener"], &opened["target"]),
        (&node(1).to_string().into(), &node(2).to_string().into())
    );
    let reason = CloseReason::Done;
    client
        .say(&Control::Closed {
            channel: channel(9),
            reason,
        })
        .await;
    let ended = line(&path, "its end", |l| l["event"] == "ended").await;
    assert_eq!(ended["reason"], "closed_by_opener");
    assert_eq!(
        (&ended["opener_datagrams"], &ended["opener_bytes"]),
        (&3.into(), &1_500.into())
    );
    assert_eq!(
        (&ended["target_datagrams"], &ended["target_bytes"]),
        (&1.into(), &100.into())
    );
    assert_eq!(ended["channel"], opened["channel"]);
    assert!(ended["time"].as_str().unwrap().ends_with('Z') && ended["duration_ms"].is_u64());
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    drop(client);
    let unlinked = line(&path, "client's end", |l| {
        l["event"] == "unlinked" && l["node"] == node(1).to_string()
    })
    .await;
    assert_eq!(unlinked["reason"], "connection_ended");
}

#[tokio::test]
async fn a_link_is_on_record_with_what_carries_it_and_why_the_relay_ended_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let server = start_with(|config| config.audit = Some(path.clone())).await;
    let mut node = TlsNode::welcome(&server, 3, Role::Client).await;
    let linked = line(&path, "link", |l| l["event"] == "linked").await;
    assert_eq!(linked["carrier"], "tls");
    // Nobody says hello twice.
    node.say(hello(3, Role::Client)).await;
    let unlinked = line(&path, "its end", |l| l["event"] == "unlinked").await;
    assert_eq!(
        (&unlinked["link"], &unlinked["reason"]),
        (&linked["link"], &"protocol".into())
    );
}

#[tokio::test]
async fn what_is_open_when_the_relay_stops_is_on_record_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let server = start_with(|config| config.audit = Some(path.clone())).await;
    let _nodes = pair(&server).await;
    server.stop().await;
    let ended = line(&path, "the channel's end", |l| l["event"] == "ended").await;
    assert_eq!(ended["reason"], "shutdown");
    let unlinked = line(&path, "a link's end", |l| l["event"] == "unlinked").await;
    assert_eq!(unlinked["reason"], "shutdown");
    assert!(ended["opener_bytes"].is_u64());
}

#[tokio::test]
async fn who_is_refused_is_on_record_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let nobody = byway_relay::Admission::Nodes([node(7)].into());
    let server = start_with(|config| {
        config.audit = Some(path.clone());
        config.admission = nobody.into();
    })
    .await;
    let mut stranger = UdpNode::connect(&server, 1).await;
    stranger.say(&hello(1, Role::Client)).await;
    let refused = line(&path, "refusal", |l| l["event"] == "refused").await;
    assert_eq!(
        (&refused["node"], &refused["reason"]),
        (&node(1).to_string().into(), &"not_admitted".into())
    );
    assert!(refused["detail"].as_str().unwrap().contains("list"));
}

/// Anybody who reaches the relay can be refused as often as they like, and the disk is not theirs.
#[tokio::test]
async fn a_flood_of_strangers_is_a_number_in_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let nobody = byway_relay::Admission::Nodes([node(200)].into());
    let server = start_with(|config| {
        config.audit = Some(path.clone());
        config.admission = nobody.into();
    })
    .await;
    let mut strangers = Vec::new();
    for n in 1..=60 {
        strangers.push(UdpNode::connect(&server, n).await);
    }
    for stranger in &mut strangers {
        stranger.say(&hello(stranger.n, Role::Client)).await;
    }
    until(&server, "all are refused", |s| {
        s.control.refused_admission == 60
    })
    .await;
    let count = |is: &str| -> u64 {
        let lines = lines(&path);
        let found = lines.iter().filter(|l| l["event"] == is);
        found.map(|l| l["count"].as_u64().unwrap_or(1)).sum()
    };
    let deadline = Instant::now() + SOON;
    // None is without a trace, and few have a line of their own.
    while count("refused") + count("refused_suppressed") < 60 {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(count("refused") + count("refused_suppressed"), 60);
    assert!(count("refused_suppressed") >= 10, "{:?}", lines(&path));
}

#[tokio::test]
async fn a_log_that_was_renamed_or_removed_goes_on_under_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let server = start_with(|config| config.audit = Some(path.clone())).await;
    let _first = UdpNode::welcome(&server, 1, Role::Client).await;
    line(&path, "link", |l| l["event"] == "linked").await;
    std::fs::rename(&path, folder.path().join("audit.1")).unwrap();
    let deadline = Instant::now() + SOON;
    let mut n = 2;
    // It is looked for once in a second.
    while lines(&path).is_empty() {
        assert!(Instant::now() < deadline);
        drop(UdpNode::welcome(&server, n, Role::Client).await);
        n = 2 + n % 200;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(!lines(&folder.path().join("audit.1")).is_empty());
}

#[tokio::test]
async fn a_log_that_cannot_be_written_is_no_start() {
    let mut config = byway_relay::ServerConfig::dev();
    config.audit = Some("/nonexistent/audit.jsonl".into());
    let error = format!(
        "{:#}",
        byway_relay::Server::start(config).await.unwrap_err()
    );
    assert!(
        error.contains("audit log /nonexistent/audit.jsonl"),
        "{error}"
    );
}

/// A full disk takes the name and refuses every line; whoever watches the metrics must see it.
#[tokio::test]
async fn a_line_that_the_disk_refuses_is_counted() {
    let server = start_with(|config| config.audit = Some("/dev/full".into())).await;
    let _first = UdpNode::welcome(&server, 1, Role::Client).await;
    until(&server, "a lost line", |s| s.data.audit_dropped == 1).await;
    // The line that would say so is lost as well, and is no event.
    let _second = UdpNode::welcome(&server, 2, Role::Client).await;
    until(&server, "another", |s| s.data.audit_dropped == 2).await;
}
