//! The world of the tests: hosts with a node and a toy tunnel each, relays that forward, links with a delay.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use byway_wire::relay::control::*;
use byway_wire::{ChannelId, NodeId, RelayUrl, SecretKey, SignedRecord, TicketSecret};

use crate::io::*;
use crate::node::{Identity, Node};

mod host;
mod network;
mod relay;
mod tunnel;

pub(super) use host::Host;
pub(super) use relay::Relay;

pub(super) const CLIENT: usize = 0;
pub(super) const AGENT: usize = 1;
pub(super) const SECRET: [u8; 32] = [9; 32];

pub(super) fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}
pub(super) fn relay_url(n: usize) -> RelayUrl {
    RelayUrl::new(&format!("relay{n}.test"), 443, None).unwrap()
}
fn relay_addr(n: usize) -> SocketAddr {
    SocketAddr::new(IpAddr::from([203, 0, 113, n as u8 + 1]), 443)
}

#[derive(Debug)]
enum Happening {
    Dialed {
        host: usize,
        link: LinkId,
    },
    ToRelay {
        host: usize,
        link: LinkId,
        message: Control,
    },
    ToNode {
        host: usize,
        link: LinkId,
        message: Control,
    },
    Broken {
        host: usize,
        link: LinkId,
    },
    Datagram {
        host: usize,
        way: Way,
        data: Bytes,
    },
}

pub(super) struct World {
    pub(super) start: Instant,
    pub(super) now: Instant,
    pub(super) hosts: Vec<Host>,
    pub(super) relays: Vec<Relay>,
    links: BTreeMap<(usize, LinkId), (usize, Carrier)>,
    queue: BTreeMap<(Instant, u64), Happening>,
    next: u64,
    /// One way, host to host and host to relay.
    pub(super) direct_delay: Duration,
    pub(super) relay_delay: Duration,
    pub(super) direct_open: bool,
    /// By host.
    pub(super) udp_open: [bool; 2],
    pub(super) tls_open: bool,
    /// What TLS dials end with at once where TLS is not open; UDP's end in silence then, as they do behind a real firewall.
    pub(super) tls_error: Option<LinkError>,
    /// And what UDP's do, where it is not silence.
    pub(super) udp_error: Option<LinkError>,
    /// Nothing direct reaches this host.
    pub(super) deaf: Option<usize>,
    /// Largest datagram that fits the direct path.
    pub(super) direct_mtu: usize,
    /// Probes are lost on the direct path, data is not.
    pub(super) lose_probes: bool,
}

/// How long a shell waits for a UDP link that nobody answers.
const SILENCE: Duration = Duration::from_secs(10);

pub(super) fn config(role: Role) -> Config {
    Config {
        role,
        links: LinkMode::Auto,
        direct: true,
        spray: true,
        admission: match role {
            Role::Agent => Admission {
                secrets: vec![TicketSecret::from_bytes(SECRET)],
                ..Admission::default()
            },
            Role::Client => Admission::default(),
        },
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a virtual clock needs one instant to count from"
)]
fn some_instant() -> Instant {
    Instant::now()
}

impl World {
    /// A client and an agent on open networks, and one relay.
    pub(super) fn new() -> Self {
        Self::with(config(Role::Client), config(Role::Agent), 1)
    }
    pub(super) fn with(client: Config, agent: Config, relays: usize) -> Self {
        let start = some_instant();
        let mut world = Self {
            start,
            now: start,
            hosts: Vec::new(),
            relays: (0..relays).map(|_| Relay::new()).collect(),
            links: BTreeMap::new(),
            queue: BTreeMap::new(),
            next: 0,
            direct_delay: ms(10),
            relay_delay: ms(8),
            direct_open: true,
            udp_open: [true; 2],
            tls_error: None,
            udp_error: None,
            tls_open: true,
            deaf: None,
            direct_mtu: 1_472,
            lose_probes: false,
        };
        world
            .hosts
            .push(Host::new(start, client, 1, [198, 51, 100, 1]));
        world
            .hosts
            .push(Host::new(start, agent, 2, [198, 51, 100, 2]));
        for host in [CLIENT, AGENT] {
            let socket = world.socket(host);
            world.hosts[host].node.handle_sockets(start, vec![socket]);
        }
        for n in 0..relays {
            world.hosts[AGENT]
                .node
                .add_relay(start, relay_url(n), vec![]);
        }
        world
    }

    /// Both hosts move behind NATs that let everything in: their own addresses are private ones.
    pub(super) fn behind_nats(&mut self) {
        for host in [CLIENT, AGENT] {
            let ip = IpAddr::from([10, host as u8, 0, 1]);
            let socket = LocalSocket {
                addrs: vec![ip],
                ..self.socket(host)
            };
            self.hosts[host].node.handle_sockets(self.now, vec![socket]);
        }
    }
    pub(super) fn socket(&self, host: usize) -> LocalSocket {
        let addr = self.hosts[host].addr;
        LocalSocket {
            id: SocketId(0),
            port: addr.port(),
            v4: true,
            v6: false,
            addrs: vec![addr.ip()],
        }
    }

    pub(super) fn restart(&mut self, host: usize, role: Role, epoch: u64) {
        let old = std::mem::replace(
            &mut self.hosts[host],
            Host::new_epoch(self.now, config(role), 2, [198, 51, 100, 2], epoch),
        );
        drop(old);
        let dead: Vec<_> = self
            .links
            .keys()
            .filter(|(h, _)| *h == host)
            .copied()
            .collect();
        for (h, link) in dead {
            self.unlink(h, link);
        }
        let socket = self.socket(host);
        self.hosts[host].node.handle_sockets(self.now, vec![socket]);
        for n in 0..self.relays.len() {
            self.hosts[host]
                .node
                .add_relay(self.now, relay_url(n), vec![]);
        }
    }

    pub(super) fn target(&self) -> PeerTarget {
        PeerTarget {
            node: self.hosts[AGENT].node.id().node,
            relays: (0..self.relays.len())
                .map(|n| (relay_url(n), vec![]))
                .collect(),
            secret: Some(TicketSecret::from_bytes(SECRET)),
        }
    }
    pub(super) fn connect(&mut self) -> PeerId {
        let target = self.target();
        self.connect_to(target)
    }
    pub(super) fn connect_to(&mut self, target: PeerTarget) -> PeerId {
        if self.now == self.start {
            // The agent is there first.
            self.pass(ms(1_000));
        }
        let now = self.now;
        let host = &mut self.hosts[CLIENT];
        let peer = host.node.connect(now, target);
        host.peer = Some(peer);
        for part in [&b"first flight, part one"[..], b"part two"] {
            host.node.send_first(now, peer, Bytes::from_static(part));
        }
        peer
    }
    /// Two hosts whose links are TLS.
    pub(super) fn by_tls() -> Self {
        let tls = |role| Config {
            links: LinkMode::Tls,
            ..config(role)
        };
        Self::with(tls(Role::Client), tls(Role::Agent), 1)
    }
    /// A tunnel that has gone direct.
    pub(super) fn direct() -> Self {
        let mut world = Self::new();
        world.connect();
        assert!(
            world.run_for(ms(2_000), |w| w.both(|k| k == Some(PathKind::Direct))),
            "never direct"
        );
        world
    }
    pub(super) fn kind(&self, host: usize) -> Option<PathKind> {
        self.hosts[host].route.as_ref()?.primary.map(|w| w.kind())
    }
    pub(super) fn both(&self, fine: impl Fn(Option<PathKind>) -> bool) -> bool {
        fine(self.kind(CLIENT)) && fine(self.kind(AGENT))
    }
    pub(super) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// Runs until `done` or for `limit`; says whether it was done.
    pub(super) fn run_for(&mut self, limit: Duration, mut done: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now + limit;
        let mut same_instant = 0;
        loop {
            for host in 0..self.hosts.len() {
                self.drain(host);
            }
            if done(self) {
                return true;
            }
            let wakes = self
                .hosts
                .iter()
                .filter_map(|h| h.node.poll_timeout().map(|w| w.0));
            let next = wakes.chain(self.queue.keys().next().map(|k| k.0)).min();
            let Some(next) = next.filter(|t| *t <= end) else {
                self.now = end;
                return false;
            };
            same_instant = if next <= self.now {
                same_instant + 1
            } else {
                0
            };
            assert!(
                same_instant < 10_000,
                "spins: {:?}",
                self.hosts
                    .iter()
                    .map(|h| h.node.poll_timeout())
                    .collect::<Vec<_>>()
            );
            self.now = self.now.max(next);
            while let Some(entry) = self.queue.first_entry()
                && entry.key().0 <= self.now
            {
                let happening = entry.remove();
                self.happen(happening);
            }
            for host in 0..self.hosts.len() {
                self.sample(host);
                if let Some((at, why)) = self.hosts[host].node.poll_timeout()
                    && at <= self.now
                {
                    if why != "output is queued" {
                        *self.hosts[host].wakeups.entry(why).or_default() += 1;
                    }
                    self.hosts[host].node.handle_timeout(self.now);
                }
            }
        }
    }
    pub(super) fn pass(&mut self, time: Duration) {
        self.run_for(time, |_| false);
    }

    pub(super) fn link_of(&self, host: usize) -> LinkId {
        self.links
            .keys()
            .rfind(|(h, _)| *h == host)
            .map(|(_, l)| *l)
            .unwrap()
    }
}
