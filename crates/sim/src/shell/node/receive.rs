//! Datagrams in: told apart by their first byte, and peers by the ways the node announced.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use byway_congestion::PathAwareFactory;
use byway_core::io::{Carrier, PeerId, Way};
use byway_wire::demux::{Kind, classify};
use byway_wire::relay::data;
use byway_wire::{ChannelId, fragment};

use super::{NodeShell, PARTS, SOCKET, tunnel_server};
use crate::net::Network;
use crate::quic::tunnel_transport;
use crate::shell::virt::Virtual;

impl NodeShell {
    pub(super) fn datagram(
        &mut self,
        net: &mut Network,
        from: SocketAddr,
        to: SocketAddr,
        data: Bytes,
    ) {
        let now = net.instant();
        let way = Way::Direct {
            socket: SOCKET,
            remote: from,
        };
        match classify(&data) {
            Kind::Stun | Kind::Probe | Kind::RebindCookie => {
                self.node.handle_datagram(now, way, Some(to.ip()), &data);
            }
            Kind::Quic => {
                if let Some(link) = self.links.by_relay(from) {
                    let virt = Virtual::Link(link).to_addr();
                    self.quic.handle(now, virt, &data, |_| None);
                } else {
                    self.quic_from(net, way, &data);
                }
            }
            Kind::RelayData => {
                let Some((channel, payload)) = data::decode(&data) else {
                    return self.count("short relay data");
                };
                let Some(link) = self.links.by_relay(from) else {
                    return self.count("relay data from a stranger");
                };
                let way = Way::Channel {
                    link,
                    carrier: Carrier::Udp,
                    channel,
                };
                self.channel_datagram(net, way, payload);
            }
            Kind::Fragment => self.fragment(net, way, &data),
            _ => self.count("unknown datagram"),
        }
    }

    pub(super) fn channel_datagram(&mut self, net: &mut Network, way: Way, payload: &[u8]) {
        let now = net.instant();
        if matches!(
            way,
            Way::Channel {
                channel: ChannelId::ECHO,
                ..
            }
        ) {
            return self.node.handle_datagram(now, way, None, payload);
        }
        match classify(payload) {
            Kind::Probe => self.node.handle_datagram(now, way, None, payload),
            Kind::Quic => self.quic_from(net, way, payload),
            Kind::Fragment => self.fragment(net, way, payload),
            _ => self.count("unknown channel data"),
        }
    }

    pub(super) fn quic_from(&mut self, net: &mut Network, way: Way, data: &[u8]) {
        match self.sources.get(&way).copied() {
            Some(peer) => self.tunnel_datagram(net, peer, data),
            None => self.count("quic from a stranger"),
        }
    }

    pub(super) fn tunnel_datagram(&mut self, net: &mut Network, peer: PeerId, data: &[u8]) {
        let from = Virtual::Peer(peer).to_addr();
        let entry = self.peer(net, peer);
        let transport = tunnel_transport(Arc::new(PathAwareFactory::new(entry.monitor.clone())));
        let credentials = self.credentials.clone();
        self.quic.handle(net.instant(), from, data, |_| {
            Some(tunnel_server(&credentials, transport))
        });
    }

    pub(super) fn fragment(&mut self, net: &mut Network, way: Way, data: &[u8]) {
        let Some(peer) = self.sources.get(&way).copied() else {
            return self.count("fragment from a stranger");
        };
        let Ok(part) = fragment::decode(data) else {
            return self.count("malformed fragment");
        };
        let parts = &mut self.peer(net, peer).parts;
        let other = parts
            .iter()
            .position(|(id, second, _)| *id == part.id && *second != part.second);
        match other.and_then(|at| parts.remove(at)) {
            Some((_, _, other)) if part.second => {
                let whole = [&other, part.payload].concat();
                self.tunnel_datagram(net, peer, &whole);
            }
            Some((_, _, other)) => {
                let whole = [part.payload, &other].concat();
                self.tunnel_datagram(net, peer, &whole);
            }
            None => {
                if parts.len() == PARTS {
                    parts.pop_front();
                }
                let payload = Bytes::copy_from_slice(part.payload);
                parts.push_back((part.id, part.second, payload));
            }
        }
    }
}
