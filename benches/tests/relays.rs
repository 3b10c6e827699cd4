//! Relays that end under tunnels with traffic: no stream is lost and no byte is wrong. How long traffic pauses is the
//! benchmark's to say (`relays`), and the simulation's.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must panic")]

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use byway::RelayUrl;
use byway_benches::fleet::Fleet;
use byway_relay::{Admission, Server, ServerConfig};

const TUNNELS: usize = 20;
/// What the relays give their nodes; a quarter of it is what they spread over.
const DRAIN: Duration = Duration::from_secs(12);
/// Long enough for nodes to leave, and to come back.
const PATIENCE: Duration = Duration::from_secs(60);

async fn relay(dir: &Path, name: &str, listen: SocketAddr) -> Server {
    let mut config = ServerConfig::new(vec![listen], Admission::Open);
    config.name = name.into();
    config.identity = Some(dir.join(name));
    Server::start(config).await.unwrap()
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "did not happen in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Ends the relays in turn, and starts each again.
async fn end_in_turn(turns: usize, drain: bool) {
    let dir = tempfile::tempdir().unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut relays = vec![
        relay(dir.path(), "a", any).await,
        relay(dir.path(), "b", any).await,
    ];
    let urls: Vec<RelayUrl> = relays.iter().map(Server::url).collect();
    let fleet = Fleet::start(&urls, TUNNELS).await.unwrap();
    let warm = |relay: &Server| relay.stats().load.channels == TUNNELS;
    for relay in &relays {
        until("all are warm", || warm(relay)).await;
    }
    for turn in 0..turns {
        let ending = relays.remove(0);
        let addr = ending.local_addrs()[0];
        if drain {
            assert!(ending.drain(DRAIN).await, "turn {turn}: nobody may stay");
            ending.stop().await;
        } else {
            ending.kill();
        }
        let before = fleet.received();
        let (name, other) = [("a", "b"), ("b", "a")][turn % 2];
        until("all go on by the other relay", || {
            let (through, _) = fleet.spread(&[relays[0].url()]);
            through[0] == TUNNELS && fleet.received() > before + 100_000
        })
        .await;
        assert_eq!(relays[0].url().pin(), urls[1 - turn % 2].pin(), "{other}");
        // A socket that was killed is free a moment later.
        let deadline = Instant::now() + PATIENCE;
        relays.push(loop {
            let mut config = ServerConfig::new(vec![addr], Admission::Open);
            config.name = name.into();
            config.identity = Some(dir.path().join(name));
            match Server::start(config).await {
                Ok(relay) => break relay,
                Err(error) => assert!(Instant::now() < deadline, "{error:#}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        });
        until("all are warm again", || warm(&relays[1])).await;
    }
    fleet.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolling_upgrades_of_two_relays_lose_no_stream() {
    end_in_turn(3, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relays_that_are_killed_in_turn_lose_no_stream() {
    end_in_turn(3, false).await;
}
