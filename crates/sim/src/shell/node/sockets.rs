//! Sockets that the node opens beside its own, for crossing hard NATs (`byway`'s `socket/extra.rs`).

use std::collections::BTreeSet;

use byway_core::io::{PeerId, SocketId};

use super::{NODE_PORT, NodeShell, SOCKET};
use crate::net::Network;

/// Ports follow from the numbers, and those run up to here before they begin again.
const LAST: u16 = u16::MAX - NODE_PORT;

/// Which sockets there are beside the one that is always there.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    open: BTreeSet<SocketId>,
    last: u16,
}

impl Sockets {
    /// The socket bound to a port.
    pub(super) fn at(&self, port: u16) -> Option<SocketId> {
        let id = SocketId(port.checked_sub(NODE_PORT)?);
        (id == SOCKET || self.open.contains(&id)).then_some(id)
    }

    /// Where a socket is bound; none if it was closed.
    pub(super) fn port(&self, id: SocketId) -> Option<u16> {
        (id == SOCKET || self.open.contains(&id)).then(|| NODE_PORT + id.0)
    }
}

impl NodeShell {
    pub(super) fn open_sockets(&mut self, net: &mut Network, peer: PeerId, count: u16) {
        let mut opened = Vec::new();
        // Through NAT64 all IPv4 leaves by one socket (`open_extra` in `socket/mod.rs`).
        let count = if net.nat64(self.host).is_some() {
            0
        } else {
            count
        };
        for _ in 0..count {
            self.sockets.last = self.sockets.last % LAST + 1;
            let id = SocketId(self.sockets.last);
            if self.sockets.open.insert(id) {
                net.bind(self.host, NODE_PORT + id.0);
                opened.push(id);
            }
        }
        self.node.handle_opened_sockets(net.instant(), peer, opened);
    }

    pub(super) fn close_sockets(&mut self, net: &mut Network, sockets: &[SocketId]) {
        for id in sockets {
            if self.sockets.open.remove(id) {
                net.unbind(self.host, NODE_PORT + id.0);
            }
        }
    }

    /// The system ends all of them: they are closed, and the node is told.
    pub fn end_extra_sockets(&mut self, net: &mut Network) {
        for id in std::mem::take(&mut self.sockets.open) {
            net.unbind(self.host, NODE_PORT + id.0);
            self.node.handle_socket_ended(net.instant(), id);
        }
        self.turn(net);
    }

    /// Sockets that are open now beside the one that is always there.
    pub fn extra_sockets(&self) -> usize {
        self.sockets.open.len()
    }
}
