//! The sockets that were opened for a spray: which of them carry a path, and what becomes of the others.

use std::collections::BTreeSet;

use super::Ask;
use crate::cx::Cx;
use crate::io::{RouteReason, SocketId, Way};
use crate::path::check::Path;
use crate::path::paths::{Output, Paths};
use crate::path::score::PathId;

impl Paths {
    /// All sockets that were opened for this peer; it is about to be forgotten.
    pub(crate) fn take_spray_sockets(&mut self) -> Vec<SocketId> {
        std::mem::take(&mut self.spray.sockets)
            .into_iter()
            .collect()
    }

    /// The system ended one: what went by it goes elsewhere at once, and the peer, which still sends to it, is told to look.
    pub(crate) fn lose_socket(&mut self, cx: &mut Cx<'_>, socket: SocketId) {
        if !self.spray.sockets.remove(&socket) {
            return;
        }
        let before = self.primary;
        let by = |p: &&Path| matches!(p.way, Way::Direct { socket: id, .. } if id == socket);
        let lost: Vec<PathId> = self.table.values().filter(by).map(|p| p.id).collect();
        if lost.is_empty() {
            return;
        }
        for id in lost {
            self.remove(id);
        }
        // It may have stood by for the primary.
        self.review(cx, false, RouteReason::LinkLost);
        if self.primary != before {
            self.warn_peer(cx);
        }
    }

    /// Gives back the sockets that no path goes by, once the spray they were opened for is over.
    pub(in crate::path) fn release_unused(&mut self) {
        if self.spray.sockets.is_empty() || self.spray.is_under_way() {
            return;
        }
        let socket = |p: &Path| match p.way {
            Way::Direct { socket, .. } => Some(socket),
            Way::Channel { .. } => None,
        };
        let used: BTreeSet<SocketId> = self.table.values().filter_map(socket).collect();
        let unused: Vec<SocketId> = self
            .spray
            .sockets
            .extract_if(.., |id| !used.contains(id))
            .collect();
        if !unused.is_empty() {
            self.out.push_back(Output::Spray(Ask::Release(unused)));
        }
    }

    /// True if the socket was opened for this peer.
    pub(in crate::path) fn is_spray_socket(&self, socket: SocketId) -> bool {
        self.spray.sockets.contains(&socket)
    }
}
