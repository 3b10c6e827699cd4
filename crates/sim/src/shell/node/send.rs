//! Datagrams out: a batch of quinn's along the peer's route as it stands.

use bytes::Bytes;
use byway_core::io::{Carrier, PathKind, PeerId, Way};
use byway_wire::fragment;

use super::{NODE_PORT, NodeShell, REPLAYED};
use crate::net::Network;
use crate::quic::Batch;

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
        let max = usize::from(route.max_datagram);
        let size = batch.segment.unwrap_or(batch.contents.len());
        if batch.segment.is_some_and(|s| batch.contents.len() > s) {
            entry.in_use = entry.in_use.max(size);
        }
        if let Some(last) = batch.datagrams().last()
            && (size <= max || size <= entry.in_use)
        {
            if entry.recent.len() == REPLAYED {
                entry.recent.pop_front();
            }
            entry.recent.push_back(last);
        }
        if size > max && batch.segment.is_none() && size > entry.in_use {
            // A probe of quinn's MTU search beyond what the paths carry: silence is its answer.
            return self.count("mtu probe withheld");
        }
        let split_id = entry.fragment_id;
        for (n, datagram) in batch.datagrams().enumerate() {
            if datagram.len() > max && !matches!(primary.kind(), PathKind::RelayTls) {
                let id = split_id.wrapping_add(n as u16);
                for part in fragment::split(id, &datagram) {
                    self.send_by(net, primary, Bytes::from(part));
                }
                self.count("fragmented");
                if let Some(entry) = self.peers.get_mut(&peer) {
                    entry.fragment_id = id.wrapping_add(1);
                }
                continue;
            }
            self.send_by(net, primary, datagram.clone());
            if let Some(standby) = route.standby.filter(|_| route.duplicate) {
                self.send_by(net, standby, datagram);
            }
        }
    }

    pub(super) fn send_by(&mut self, net: &mut Network, way: Way, data: Bytes) {
        match way {
            Way::Direct { remote, .. } => net.send(self.host, NODE_PORT, remote, data),
            Way::Channel {
                link,
                carrier: Carrier::Udp,
                channel,
            } => match self.links.relay_of(link) {
                Some(relay) => {
                    let datagram = [&channel.header()[..], &data].concat();
                    net.send(self.host, NODE_PORT, relay, Bytes::from(datagram));
                }
                None => self.count("link gone"),
            },
            Way::Channel {
                link,
                carrier: Carrier::Tls,
                channel,
            } => {
                if !self.links.send_data(net, link, channel, data) {
                    self.count("tls egress dropped");
                }
            }
        }
    }
}
