//! A finished tunnel leaves nothing behind, and an idle one does nothing but keep itself alive.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::Duration;

use byway::{Admission, Endpoint, PathKind, Ticket};
use byway_relay::{Server, ServerConfig};
use common::{DEADLINE, agent_that_admits};

/// These tests count what the whole process uses, so they run one at a time.
static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

async fn agent(relay: &Server) -> Endpoint {
    let admission = Admission {
        anyone: true,
        ..Default::default()
    };
    agent_that_admits(relay, admission).await
}

/// One tunnel with one stream's echo, closed by the client and seen closed by the agent.
async fn one_tunnel(client: &Endpoint, agent: &Endpoint, ticket: &Ticket) {
    let (ours, theirs) = tokio::join!(client.connect(ticket), agent.accept());
    let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
    ours.ping().await.unwrap();
    ours.close();
    tokio::time::timeout(DEADLINE, theirs.closed())
        .await
        .expect("the agent hears of the close");
}

struct Usage {
    tasks: usize,
    descriptors: usize,
    resident_kib: usize,
}

fn usage() -> Usage {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let resident = status
        .lines()
        .find_map(|l| l.strip_prefix("VmRSS:"))
        .unwrap();
    Usage {
        tasks: tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks(),
        descriptors: std::fs::read_dir("/proc/self/fd").unwrap().count(),
        resident_kib: resident.trim().trim_end_matches(" kB").parse().unwrap(),
    }
}

/// Waits until the number of tasks has come down to `tasks`: the last ones end a moment after a close is seen.
async fn settled(tasks: usize) -> Usage {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        let now = usage();
        if now.tasks <= tasks || tokio::time::Instant::now() > deadline {
            return now;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_tunnels_opened_and_closed_leave_nothing_behind() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let relay = Server::start(ServerConfig::dev()).await.unwrap();
    let agent = agent(&relay).await;
    let ticket = agent.ticket(None);
    let client = Endpoint::builder()
        .port_mapping(false)
        .bind()
        .await
        .unwrap();

    // The first tunnels fill caches and pools that stay: they are the base line, not a leak.
    for _ in 0..200 {
        one_tunnel(&client, &agent, &ticket).await;
    }
    let before = settled(0).await;
    for _ in 0..1_000 {
        one_tunnel(&client, &agent, &ticket).await;
    }
    let after = settled(before.tasks).await;

    assert!(
        after.tasks <= before.tasks,
        "tasks: {} before, {} after",
        before.tasks,
        after.tasks
    );
    assert!(
        after.descriptors <= before.descriptors,
        "descriptors: {} before, {} after",
        before.descriptors,
        after.descriptors
    );
    // 4 KiB a tunnel would be a leak; allocator noise over 1,000 tunnels stays below it by far.
    let grown = after.resident_kib.saturating_sub(before.resident_kib);
    assert!(
        grown < 4_000,
        "resident memory grew by {grown} KiB over 1,000 tunnels"
    );

    client.close().await;
    agent.close().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_endpoint_leaves_no_task_and_no_socket() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let relay = Server::start(ServerConfig::dev()).await.unwrap();
    let agent = agent(&relay).await;
    let ticket = agent.ticket(None);
    let fresh_client = || async {
        let client = Endpoint::builder()
            .port_mapping(false)
            .bind()
            .await
            .unwrap();
        one_tunnel(&client, &agent, &ticket).await;
        client.close().await;
    };
    fresh_client().await;
    let before = settled(0).await;
    for _ in 0..20 {
        fresh_client().await;
    }
    let after = settled(before.tasks).await;
    assert!(
        after.tasks <= before.tasks,
        "tasks: {} before, {} after",
        before.tasks,
        after.tasks
    );
    assert!(
        after.descriptors <= before.descriptors,
        "a socket stayed open"
    );
    agent.close().await;
    relay.stop().await;
}

/// Voluntary context switches of all threads of this process: each wake-up of a sleeping runtime is at least one.
fn wake_ups() -> u64 {
    let mut sum = 0;
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let Ok(status) = std::fs::read_to_string(task.unwrap().path().join("status")) else {
            continue;
        };
        let line = status
            .lines()
            .find_map(|l| l.strip_prefix("voluntary_ctxt_switches:"));
        sum += line.and_then(|n| n.trim().parse::<u64>().ok()).unwrap_or(0);
    }
    sum
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_tunnel_wakes_nobody_between_keep_alives() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let relay = Server::start(ServerConfig::dev()).await.unwrap();
    let agent = agent(&relay).await;
    let client = Endpoint::builder()
        .port_mapping(false)
        .bind()
        .await
        .unwrap();
    let ticket = agent.ticket(None);
    let (ours, theirs) = tokio::join!(client.connect(&ticket), agent.accept());
    let (ours, _theirs) = (ours.unwrap(), theirs.unwrap());
    tokio::time::timeout(DEADLINE, ours.wait_for(PathKind::Direct))
        .await
        .unwrap()
        .unwrap();
    // Validation, MTU search and delayed acknowledgements end within a few seconds.
    tokio::time::sleep(Duration::from_secs(6)).await;

    let before = wake_ups();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let woken = wake_ups() - before;
    // Both ends and the relay run in this process. In 5 s each of the two nodes may send one keep-alive on its link
    // and one on its direct path (every 20 s); each passes through up to four tasks at each of its two ends, and this
    // test's own timer wakes too. A timer that spins would show as hundreds.
    assert!(woken <= 60, "{woken} wake-ups in 5 idle seconds");

    client.close().await;
    agent.close().await;
    relay.stop().await;
}
