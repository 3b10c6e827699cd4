//! Relay maps, with real relays: given, followed in a file, and changed while a tunnel runs.

use std::path::Path;

use super::*;
use crate::relay_map::{MappedRelay, Region};

fn map(relays: &[&Server]) -> RelayMap {
    let region = |(n, relay): (usize, &&Server)| Region {
        name: format!("region {n}"),
        relays: vec![MappedRelay::new(relay.url())],
    };
    RelayMap::new(relays.iter().enumerate().map(region).collect()).unwrap()
}

/// As an editor does it: another file in the place of the one before.
fn write_map(file: &Path, relays: &[&Server]) {
    let one = |relay: &&Server| {
        let url = relay.url();
        let name = url.authority();
        format!("[[region]]\nname = '{name}'\n[[region.relay]]\nurl = '{url}'\n")
    };
    let text: String = relays.iter().map(one).collect();
    let new = file.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, file).unwrap();
}

fn named(endpoint: &Endpoint) -> Vec<RelayUrl> {
    let relays = endpoint.ticket(None).relays.into_iter();
    relays.map(|relay| relay.url).collect()
}

/// Waits until both ends of a tunnel send through this relay, and the agent has left the other.
async fn moved(tunnels: [&Tunnel; 2], agent: &Endpoint, to: &Server, from: &Server) {
    for tunnel in tunnels {
        let mut path = tunnel.path();
        path.wait_for(|path| path.relay == Some(to.url()))
            .await
            .unwrap();
    }
    let mut links = agent.links();
    links
        .wait_for(|links| links.iter().all(|link| link.relay != from.url()))
        .await
        .unwrap();
}

#[tokio::test]
async fn an_agent_moves_to_what_its_file_names_now_and_a_stream_goes_on() {
    let (first, second) = (relay().await, relay().await);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("relays.toml");
    write_map(&file, &[&first]);
    let agent = builder()
        .direct(false)
        .relay_map_file(&file)
        .accept(admission())
        .bind()
        .await
        .unwrap();
    // A ticket may be wanted before there is a link.
    assert_eq!(named(&agent), [first.url()]);
    agent.online(DEADLINE).await.unwrap();
    let client = builder().direct(false).bind().await.unwrap();
    let (near, far) = pair(&client, &agent, &agent.ticket(None)).await;
    let longest = chatter(&near, &far, async {
        write_map(&file, &[&second]);
        moved([&near, &far], &agent, &second, &first).await;
    })
    .await;
    assert!(longest < Duration::from_secs(1), "{longest:?}");
    assert_eq!(named(&agent), [second.url()]);
    // Nobody misses it.
    first.stop().await;
    exchange(&near, &far).await;
    let other = builder().direct(false).bind().await.unwrap();
    let (near, far) = pair(&other, &agent, &agent.ticket(None)).await;
    exchange(&near, &far).await;
}

#[tokio::test]
async fn a_map_that_is_given_may_be_given_anew_and_a_configured_relay_stays() {
    let (first, second, third) = (relay().await, relay().await, relay().await);
    let agent = builder()
        .direct(false)
        .relay(third.url())
        .relay_map(map(&[&first]))
        .accept(admission())
        .bind()
        .await
        .unwrap();
    agent.online(DEADLINE).await.unwrap();
    assert_eq!(named(&agent), [third.url(), first.url()]);
    let mut found_at = agent.found_at();
    agent.set_relay_map(map(&[&second, &third])).await;
    let expected = [third.url(), second.url()];
    within(found_at.wait_for(|relays| *relays == expected))
        .await
        .unwrap();
    let mut links = agent.links();
    let up = |links: &Vec<LinkStatus>| {
        let urls: Vec<_> = links.iter().map(|link| link.relay.clone()).collect();
        let linked = links.iter().all(|link| link.carrier.is_some());
        linked && urls == [third.url(), second.url()]
    };
    within(links.wait_for(up)).await.unwrap();
    assert_eq!(agent.own_relays(), [third.url(), second.url()]);
}

#[tokio::test]
async fn who_is_on_a_direct_path_alone_learns_from_the_agent_where_it_is_now() {
    let (first, second) = (relay().await, relay().await);
    let bound = builder().relay_map(map(&[&first]));
    let agent = bound.accept(admission()).bind().await.unwrap();
    agent.online(DEADLINE).await.unwrap();
    let client = builder().bind().await.unwrap();
    let (near, far) = pair(&client, &agent, &agent.ticket(None)).await;
    for tunnel in [&near, &far] {
        let mut path = tunnel.path();
        within(path.wait_for(|path| path.kind == PathKind::Direct))
            .await
            .unwrap();
    }
    // The relay that both know is gone, and with it whoever could pass anything on.
    first.stop().await;
    let mut links = client.links();
    let found = second.url();
    agent.set_relay_map(map(&[&second])).await;
    let up = |links: &Vec<LinkStatus>| {
        links
            .iter()
            .any(|link| link.relay == found && link.carrier.is_some())
    };
    within(links.wait_for(up)).await.unwrap();
    exchange(&near, &far).await;
}

#[tokio::test]
async fn a_file_that_is_no_map_is_refused_at_the_start() {
    let first = relay().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("relays.toml");
    let bind = || builder().relay_map_file(&file).accept(admission()).bind();
    let error = bind().await.unwrap_err();
    assert!(matches!(error, BindError::RelayMap(_)), "{error}");
    std::fs::write(&file, "[[region]]\nname = 7\n").unwrap();
    let error = bind().await.unwrap_err().to_string();
    assert!(error.contains("relays.toml: line 2: "), "{error}");
    write_map(&file, &[&first]);
    let agent = bind().await.unwrap();
    agent.online(DEADLINE).await.unwrap();
}

#[tokio::test]
async fn a_client_looks_at_the_relays_of_its_map() {
    let (first, second) = (relay().await, relay().await);
    let client = builder()
        .relay_map(map(&[&first, &second]))
        .bind()
        .await
        .unwrap();
    let report = within(client.netcheck()).await;
    let urls: Vec<_> = report.relays.iter().map(|row| row.url.clone()).collect();
    assert_eq!(urls, [first.url(), second.url()]);
    assert_eq!(client.own_relays(), urls);
    assert!(named(&client).is_empty(), "nobody finds a client");
}
