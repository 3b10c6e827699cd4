//! The node's part in crossing hard NATs: how many sprays at once, and the sockets for them.

use std::time::Instant;

use super::Node;
use super::peer::{Peer, Stage};
use crate::io::{Event, PeerId, SocketId};
use crate::path::{Ask, MOST_AT_ONCE};

impl Node {
    /// The sockets that [`Event::OpenSockets`] asked for: as many as the host has to give, perhaps none.
    pub fn handle_opened_sockets(&mut self, now: Instant, peer: PeerId, sockets: Vec<SocketId>) {
        self.now = now;
        match self.peers.get(&peer) {
            Some(Peer {
                stage: Stage::Live(_),
                ..
            }) => self.with_paths(now, peer, |paths, cx| paths.spray_from(cx, sockets)),
            _ => self.close_sockets(sockets),
        }
        self.settle(now);
    }

    pub(super) fn on_spray(&mut self, now: Instant, peer: PeerId, ask: Ask) {
        match ask {
            Ask::Permission => {
                let sprays =
                    |p: &&Peer| matches!(&p.stage, Stage::Live(l) if l.paths.is_spraying());
                let permitted = self.peers.values().filter(sprays).count() < MOST_AT_ONCE;
                self.with_paths(now, peer, |paths, cx| paths.permit_spray(cx, permitted));
            }
            Ask::Sockets(count) => self.events.push_back(Event::OpenSockets { peer, count }),
            Ask::Release(sockets) => self.close_sockets(sockets),
        }
    }

    pub(super) fn close_sockets(&mut self, sockets: Vec<SocketId>) {
        if !sockets.is_empty() {
            self.events.push_back(Event::CloseSockets(sockets));
        }
    }
}
