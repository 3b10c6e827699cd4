//! The node and its network: our own candidates, and who is told of them.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use byway_wire::RelayUrl;
use byway_wire::signal::{Candidate, CandidateKind, Mapping};

use super::Node;
use super::peer::{Peer, Stage};
use crate::cx::{Cx, Wake};
use crate::io::{Event, LinkId, LocalSocket, PeerId, SocketId};
use crate::path::candidate::Source;

#[derive(Debug)]
pub(super) struct Discoverer {}

impl Discoverer {
    pub(super) fn new(_seed: [u8; 32]) -> Self {
        Self {}
    }
    pub(super) fn set_sockets(&mut self, _now: Instant, _sockets: &[LocalSocket]) {}
    pub(super) fn add_server(&mut self, _now: Instant, _label: String, _addr: SocketAddr) {}
    pub(super) fn run(&mut self, _now: Instant) {}
    pub(super) fn handle_stun(
        &mut self,
        _now: Instant,
        _socket: SocketId,
        _from: SocketAddr,
        _to: Option<IpAddr>,
        _data: &[u8],
    ) -> bool {
        false
    }
    pub(super) fn handle_timeout(&mut self, _now: Instant, _active: bool) {}
    pub(super) fn poll_timeout(&self, _active: bool) -> Option<Wake> {
        None
    }
    fn mapping(&self) -> Mapping {
        Mapping::Unknown
    }
}

impl Node {
    /// A relay answers STUN on its own port: addresses known for it are asked.
    pub(super) fn add_relay_servers(&mut self, now: Instant, url: &RelayUrl, addrs: &[SocketAddr]) {
        for &addr in addrs {
            self.discovery.add_server(now, url.to_string(), addr);
        }
    }

    /// The address of a link's relay is known now.
    pub(super) fn learn_relay_server(&mut self, now: Instant, link: LinkId) {
        let known = self
            .links
            .get(link)
            .and_then(|l| Some((l.udp()?.1, self.links.url(l.relay)?.clone())));
        if let Some((addr, url)) = known {
            self.discovery.add_server(now, url.to_string(), addr);
            self.discover_if_useful(now);
        }
    }

    pub(super) fn discover_if_useful(&mut self, _now: Instant) {}

    pub(super) fn drain_discovery(&mut self, _now: Instant) -> bool {
        false
    }

    /// Relays see our UDP links at addresses that are candidates: links and paths share sockets.
    pub(super) fn observed_changed(&mut self, now: Instant) {
        let seen = self
            .links
            .observed_udp()
            .map(|addr| Candidate {
                kind: CandidateKind::Reflexive,
                addr,
            })
            .collect();
        if self.local.set(Source::Links, seen) {
            self.candidates_changed(now);
        }
    }

    /// Tells the shell and every peer.
    pub(super) fn candidates_changed(&mut self, now: Instant) {
        self.generation += 1;
        self.events
            .push_back(Event::Candidates(self.local.offered().to_vec()));
        let live: Vec<PeerId> = self
            .peers
            .iter()
            .filter(|(_, p)| matches!(p.stage, Stage::Live(_)))
            .map(|(&id, _)| id)
            .collect();
        for id in live {
            self.offer(now, id);
        }
    }

    /// Sends our candidates to one peer. A list it has is ignored there, so repeating does no harm.
    pub(super) fn offer(&mut self, now: Instant, id: PeerId) {
        let mapping = self.discovery.mapping();
        if let Some(Peer {
            stage: Stage::Live(live),
            channels,
            ..
        }) = self.peers.get_mut(&id)
            && channels.iter().any(|c| c.carried_by().is_some())
        {
            let list = self.local.for_peer(live.same_host);
            let mut cx = Cx {
                now,
                rng: &mut self.rng,
                counters: &mut self.counters,
            };
            live.paths.offer(&mut cx, list, mapping, self.generation);
            self.touched.insert(id);
        }
    }
}
