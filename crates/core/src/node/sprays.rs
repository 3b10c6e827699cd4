//! The node's part in crossing hard NATs: how many sprays at once, and the sockets for them.

use std::time::{Duration, Instant};

use super::Node;
use super::peer::{Peer, Stage};
use crate::io::{Event, PeerId, SocketId};
use crate::path::{Ask, MOST_AT_ONCE};

/// How long a spray counts against the node it was for.
const COUNTED: Duration = Duration::from_secs(300);
/// Sprays for all instances of one node in that time: a person starts a few commands in a row.
const MOST_BY_NODE: usize = 4;
/// Sprays for all nodes in that time; with this many the node sends at most some two hundred small datagrams a second.
const MOST_COUNTED: usize = 32;

impl Node {
    /// The sockets that [`Event::OpenSockets`] asked for: as many as the host has to give, perhaps none.
    pub fn handle_opened_sockets(&mut self, now: Instant, peer: PeerId, sockets: Vec<SocketId>) {
        self.now = now;
        match self.peers.get(&peer) {
            Some(Peer {
                stage: Stage::Live(_),
                ..
            }) => {
                self.with_paths(now, peer, |paths, cx| paths.spray_from(cx, sockets));
            }
            _ => self.close_sockets(sockets),
        }
        self.settle(now);
    }

    /// The system ended a socket that was opened so, and it is closed: no path goes by it any more. The host's other sockets are
    /// bound anew instead.
    pub fn handle_socket_ended(&mut self, now: Instant, socket: SocketId) {
        self.now = now;
        for peer in self.peer_ids() {
            self.with_paths(now, peer, |paths, cx| paths.lose_socket(cx, socket));
        }
        self.settle(now);
    }

    pub(super) fn on_spray(&mut self, now: Instant, peer: PeerId, ask: Ask) {
        match ask {
            Ask::Permission => {
                let sprays =
                    |p: &&Peer| matches!(&p.stage, Stage::Live(l) if l.paths.is_spraying());
                let permitted = self.peers.values().filter(sprays).count() < MOST_AT_ONCE
                    && self.may_spray(now, peer);
                self.with_paths(now, peer, |paths, cx| paths.permit_spray(cx, permitted));
            }
            Ask::Sockets(count) => self.events.push_back(Event::OpenSockets { peer, count }),
            Ask::Release(sockets) => self.close_sockets(sockets),
        }
    }

    /// Whoever calls again and again with new instances gets no more than a few for all of them.
    pub(super) fn may_spray(&mut self, now: Instant, peer: PeerId) -> bool {
        let Some(node) = self.peers.get(&peer).map(|p| p.node) else {
            return false;
        };
        self.sprayed.retain(|(at, _)| *at + COUNTED > now);
        let by_node = self.sprayed.iter().filter(|(_, who)| *who == node).count();
        let fine = by_node < MOST_BY_NODE && self.sprayed.len() < MOST_COUNTED;
        if fine {
            self.sprayed.push((now, node));
        }
        fine
    }

    pub(super) fn close_sockets(&mut self, sockets: Vec<SocketId>) {
        if !sockets.is_empty() {
            self.events.push_back(Event::CloseSockets(sockets));
        }
    }
}
