//! What tests of a peer's paths begin with.

use std::time::Instant;

use byway_wire::pair::PairKeys;
use byway_wire::probe::Index;
use byway_wire::relay::control::Role;
use byway_wire::{Instance, NodeInstance, ProbeSecret, SecretKey};

use super::Association;
use super::paths::Paths;
use crate::asked::Asked;
use crate::counters::Counters;
use crate::cx::Cx;
use crate::io::{Admission, Config, LinkMode, LocalSocket, SocketId};
use crate::rng::Rng;

/// One node's paths to a peer, and what they are driven by.
pub(super) struct Rig {
    pub(super) now: Instant,
    pub(super) rng: Rng,
    pub(super) counters: Counters,
    pub(super) asked: Asked,
    pub(super) paths: Paths,
    /// What the peer seals its probes with.
    pub(super) peer: Association,
}

impl Rig {
    /// With one socket, for IPv4 on port 5000.
    #[expect(
        clippy::disallowed_methods,
        reason = "a virtual clock needs one instant to count from"
    )]
    pub(super) fn new(spray: bool) -> Self {
        let now = Instant::now();
        let config = Config {
            role: Role::Client,
            links: LinkMode::Auto,
            direct: true,
            spray,
            admission: Admission::default(),
        };
        let socket = LocalSocket {
            id: SocketId(0),
            port: 5000,
            v4: true,
            v6: false,
            addrs: vec![],
        };
        Self {
            now,
            rng: Rng::new([3; 32]),
            counters: Counters::default(),
            asked: Asked::default(),
            paths: Paths::new(now, associate(1, 2), &config, vec![socket]),
            peer: associate(2, 1),
        }
    }

    pub(super) fn with<T>(&mut self, f: impl FnOnce(&mut Paths, &mut Cx<'_>) -> T) -> T {
        let mut cx = Cx {
            now: self.now,
            rng: &mut self.rng,
            counters: &mut self.counters,
            asked: &mut self.asked,
        };
        f(&mut self.paths, &mut cx)
    }
}

/// Node `own`, as it speaks to node `other`.
fn associate(own: u8, other: u8) -> Association {
    let side = |n: u8| NodeInstance {
        node: SecretKey::from_bytes(&[n; 32]).node_id(),
        instance: Instance(u64::from(n)),
    };
    let secret = |n: u8| ProbeSecret::from_bytes([n; 32]);
    let public = secret(other).public();
    let keys = PairKeys::derive(&secret(own), side(own), &public, side(other));
    let mut association = Association::new(keys.unwrap(), Index(u64::from(own)), 0);
    association.set_peer_index(Index(u64::from(other)));
    association
}
