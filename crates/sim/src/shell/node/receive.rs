//! Datagrams in: told apart by their first byte, and peers by the ways the node announced, by the rules of `byway`'s
//! `socket/demux.rs` and `socket/tables.rs`.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use byway_congestion::PathAwareFactory;
use byway_core::io::{Carrier, LinkId, PeerId, SocketId, Way};
use byway_core::reassemble::Joined;
use byway_wire::demux::{Kind, classify};
use byway_wire::relay::data;
use byway_wire::{ChannelId, fragment};

use super::{NodeShell, SOCKET, tunnel_server};
use crate::net::Network;
use crate::quic::tunnel_transport;
use crate::shell::virt::Virtual;

impl NodeShell {
    pub(super) fn datagram(
        &mut self,
        net: &mut Network,
        socket: SocketId,
        (from, to): (SocketAddr, SocketAddr),
        data: Bytes,
    ) {
        let now = net.instant();
        let way = Way::Direct {
            socket,
            remote: from,
        };
        match classify(&data) {
            Kind::Stun | Kind::Probe | Kind::RebindCookie => {
                self.node.handle_datagram(now, way, Some(to.ip()), &data);
            }
            Kind::Quic => self.direct_quic(net, socket, from, &data),
            Kind::RelayData => {
                let Some((channel, payload)) = data::decode(&data) else {
                    return self.count("short relay data");
                };
                match self.udp_channel(from, channel) {
                    Some(way) => self.channel_datagram(net, way, payload),
                    None => self.count("relay data from a stranger"),
                }
            }
            Kind::Fragment => {
                let owners = self.owners(way);
                if owners.is_empty() {
                    return self.count("fragment from a stranger");
                }
                for peer in owners {
                    self.fragment(net, peer, &data);
                }
            }
            Kind::Unknown => self.count("unknown datagram"),
        }
    }

    /// Each link and each peer that an address belongs to gets its copy, and QUIC drops what is of no connection of
    /// its own.
    fn direct_quic(&mut self, net: &mut Network, socket: SocketId, from: SocketAddr, data: &[u8]) {
        // Links go by the socket that is always there.
        let attempts = if socket == SOCKET {
            self.links.attempts_at(from)
        } else {
            Vec::new()
        };
        let way = Way::Direct {
            socket,
            remote: from,
        };
        let peers = self.owners(way);
        if attempts.is_empty() && peers.is_empty() {
            return self.count("quic from a stranger");
        }
        for (link, attempt) in attempts {
            let virt = Virtual::Link(link, attempt).to_addr();
            self.quic.handle(net.instant(), virt, data, |_| None);
        }
        for peer in peers {
            self.tunnel_datagram(net, peer, data);
        }
    }

    /// By which way relay data came: of two links to one address, the one whose channel it is; an echo belongs to the
    /// newest, which is being proven.
    fn udp_channel(&self, from: SocketAddr, channel: ChannelId) -> Option<Way> {
        let links = self.links.by_relay(from);
        let way = |link: LinkId| Way::Channel {
            link,
            carrier: Carrier::Udp,
            channel,
        };
        let known = links.iter().find(|l| self.sources.contains_key(&way(**l)));
        known.or(links.last()).map(|link| way(*link))
    }

    pub(super) fn channel_datagram(&mut self, net: &mut Network, way: Way, payload: &[u8]) {
        let now = net.instant();
        let Way::Channel {
            carrier, channel, ..
        } = way
        else {
            return;
        };
        let peer = self.owners(way).first().copied();
        match (classify(payload), peer) {
            (Kind::Probe, _) => self.node.handle_datagram(now, way, None, payload),
            _ if channel == ChannelId::ECHO && carrier == Carrier::Udp => {
                self.node.handle_datagram(now, way, None, payload);
            }
            (Kind::Quic, Some(peer)) => self.tunnel_datagram(net, peer, payload),
            // On a TLS link too: the other side may be on a narrow UDP link.
            (Kind::Fragment, Some(peer)) => self.fragment(net, peer, payload),
            (Kind::Quic | Kind::Fragment, None) => self.count("unknown channel"),
            _ => self.count("unknown channel data"),
        }
    }

    fn owners(&self, way: Way) -> Vec<PeerId> {
        self.sources.get(&way).cloned().unwrap_or_default()
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

    fn fragment(&mut self, net: &mut Network, peer: PeerId, data: &[u8]) {
        let Ok(part) = fragment::decode(data) else {
            return self.count("malformed fragment");
        };
        match self.parts.take(peer, part) {
            Joined::Whole(whole) if classify(&whole) == Kind::Quic => {
                self.tunnel_datagram(net, peer, &whole);
            }
            Joined::Whole(_) => self.count("unknown datagram in parts"),
            Joined::Waits => {}
            Joined::Displaced => self.count("lost part"),
        }
    }
}
