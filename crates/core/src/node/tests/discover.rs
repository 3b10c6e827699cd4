//! When servers are asked that become known late.

use std::net::SocketAddr;

use super::world::*;
use crate::io::Way;
use crate::node::Node;

const SERVER: ([u8; 4], u16) = ([192, 0, 2, 53], 3478);

/// How often the server has been asked since the last call.
fn asked(node: &mut Node) -> usize {
    let to_server =
        |way| matches!(way, Way::Direct { remote, .. } if remote == SocketAddr::from(SERVER));
    std::iter::from_fn(|| node.poll_transmit())
        .filter(|transmit| to_server(transmit.way))
        .count()
}

#[test]
fn a_server_whose_name_resolves_while_somebody_waits_is_asked_as_well() {
    let mut world = World::new();
    let now = world.now;
    let node = &mut world.hosts[CLIENT].node;
    node.refresh(now);
    assert_eq!(asked(node), 0, "there is nobody to ask yet");
    node.add_stun_server(now + ms(100), "stun.test".into(), SERVER.into());
    assert_eq!(asked(node), 1);
}

#[test]
fn a_client_without_a_peer_for_which_nobody_waits_asks_no_one() {
    let mut world = World::new();
    let now = world.now;
    let node = &mut world.hosts[CLIENT].node;
    node.refresh(now);
    node.add_stun_server(now + ms(5_000), "stun.test".into(), SERVER.into());
    assert_eq!(asked(node), 0);
}
