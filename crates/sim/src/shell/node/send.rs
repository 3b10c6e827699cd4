//! Datagrams out: a batch of quinn's along the peer's route as it stands, by the rules of `byway`'s `socket/send.rs`.

use bytes::Bytes;
use byway_core::io::{Carrier, PeerId, Way};
use byway_wire::fragment;

use super::{NODE_PORT, NodeShell};
use crate::net::Network;
use crate::quic::{Batch, cut};
use crate::shell::nat64;

impl NodeShell {
    pub(super) fn send_batch(&mut self, net: &mut Network, peer: PeerId, batch: &Batch) {
        let now = net.instant();
        let Some(entry) = self.peers.get_mut(&peer) else {
            return self.count("batch to a forgotten peer");
        };
        let Some((route, primary)) = entry
            .route
            .as_ref()
            .and_then(|r| r.primary.map(|p| (r.clone(), p)))
        else {
            for datagram in batch.datagrams() {
                self.node.send_first(now, peer, datagram);
            }
            return;
        };
        if std::mem::take(&mut entry.flow_wanted) {
            let sample = entry.monitor.sample(now);
            self.node.handle_flow(now, peer, sample);
        }
        let size = batch.segment.unwrap_or(batch.contents.len());
        let probes = batch.segment.is_none() && size > usize::from(entry.mtu.get());
        if probes && size > usize::from(route.max_datagram) {
            // QUIC's MTU search goes beyond what the paths carry: silence is its answer.
            return self.count("mtu probe withheld");
        }
        entry.recent.note_batch(now, &batch.contents, batch.segment);
        self.send_fitting(net, peer, primary, route.primary_max, batch);
        if let Some(standby) = route.standby.filter(|_| route.duplicate) {
            self.send_fitting(net, peer, standby, route.standby_max, batch);
            let copies = self.counts.entry("duplicated").or_default();
            *copies += batch.datagrams().count() as u64;
        }
    }

    /// Sends a batch by a path that carries `most` bytes in one piece: whole, or each datagram as it fits.
    fn send_fitting(
        &mut self,
        net: &mut Network,
        peer: PeerId,
        way: Way,
        most: u16,
        batch: &Batch,
    ) {
        let size = batch.segment.unwrap_or(batch.contents.len());
        if size <= usize::from(most) {
            return self.send_whole(net, way, size, &batch.contents);
        }
        for datagram in batch.datagrams() {
            self.send_one(net, peer, way, most, datagram);
        }
    }

    /// Sends the last datagrams again, on primary and standby; on the standby alone while the primary is suspected.
    pub(super) fn replay(&mut self, net: &mut Network, peer: PeerId) {
        let Some(entry) = self.peers.get(&peer) else {
            return;
        };
        let legs: Vec<(Way, u16)> = entry
            .route
            .iter()
            .flat_map(|r| {
                let primary = r.primary.filter(|_| !r.duplicate);
                [(primary, r.primary_max), (r.standby, r.standby_max)]
            })
            .filter_map(|(way, most)| way.map(|way| (way, most)))
            .collect();
        let recent = entry.recent.newest(net.instant());
        for data in recent.into_iter().map(Bytes::from) {
            for (way, most) in &legs {
                self.send_one(net, peer, *way, *most, data.clone());
            }
        }
        self.nudge(net, peer);
    }

    /// Makes the tunnel say something that must be answered.
    pub(super) fn nudge(&mut self, net: &Network, peer: PeerId) {
        let Some(entry) = self.peers.get(&peer) else {
            return;
        };
        entry.monitor.renew_if_stale(net.instant());
        // An empty datagram frame belongs to no flow, and makes the other side acknowledge something at once.
        if let Some(conn) = entry.conn.and_then(|c| self.quic.conn(c)) {
            let _ = conn.datagrams().send(Bytes::new(), true);
        }
    }

    /// Sends one datagram by a path that carries `most` bytes in one piece.
    fn send_one(&mut self, net: &mut Network, peer: PeerId, way: Way, most: u16, data: Bytes) {
        if data.len() <= usize::from(most) {
            return self.send_by(net, way, data);
        }
        let Some(entry) = self.peers.get_mut(&peer) else {
            return;
        };
        let id = entry.fragment_id;
        entry.fragment_id = id.wrapping_add(1);
        for part in fragment::split(id, &data) {
            self.send_by(net, way, Bytes::from(part));
        }
        self.count("fragmented");
    }

    /// Sends one datagram as it is.
    pub(super) fn send_by(&mut self, net: &mut Network, way: Way, data: Bytes) {
        self.send_whole(net, way, data.len(), &data);
    }

    /// Sends datagrams of this size, the last possibly shorter.
    fn send_whole(&mut self, net: &mut Network, way: Way, size: usize, contents: &Bytes) {
        match way {
            Way::Direct { socket, remote } => {
                let Some(port) = self.sockets.port(socket) else {
                    return self.count("socket closed");
                };
                let remote = nat64::outside(net, self.host, remote);
                for datagram in cut(contents, size) {
                    net.send(self.host, port, remote, datagram);
                }
            }
            Way::Channel {
                link,
                carrier: Carrier::Udp,
                channel,
            } => match self.links.relay_of(link) {
                Some(relay) => {
                    let relay = nat64::outside(net, self.host, relay);
                    for datagram in cut(contents, size) {
                        let whole = [&channel.header()[..], &datagram].concat();
                        net.send(self.host, NODE_PORT, relay, Bytes::from(whole));
                    }
                }
                None => self.count("link gone"),
            },
            Way::Channel {
                link,
                carrier: Carrier::Tls,
                channel,
            } => {
                if !self
                    .links
                    .send_data(net, link, channel, size, contents.clone())
                {
                    self.count("link gone");
                }
            }
        }
    }
}
