//! What the node says, done.

use bytes::Bytes;
use byway_core::io::{Event, PeerId, Route, RouteReason, Way};

use super::{MAX_OWNERS, NodeShell, Note};
use crate::net::Network;
use crate::quic::ConnId;

impl NodeShell {
    pub(super) fn carry_out(&mut self, net: &mut Network, event: Event) {
        match event {
            Event::Dial {
                link,
                url,
                addrs,
                carrier,
                ..
            } => self
                .links
                .dial(net, &mut self.quic, self.host, link, &url, &addrs, carrier),
            Event::HangUp { link } => self.links.hang_up(net, &mut self.quic, link),
            Event::Control { link, message } => {
                self.links.send(net, &mut self.quic, link, &message);
            }
            Event::LinkReady { link, carrier, .. } => {
                self.note(net, Note::LinkReady(link, carrier));
            }
            Event::LinkLost { link, error, .. } => self.note(net, Note::LinkLost(link, error)),
            Event::PeerIncoming { peer, .. } | Event::PeerKnown { peer, .. } => {
                self.peer(net, peer);
            }
            Event::PeerFailed { peer, error } => {
                self.note(net, Note::Failed(peer, error));
                self.end_tunnel(net, peer);
            }
            Event::WayKnown { peer, way } => self.learn(peer, way),
            Event::WayForgotten { peer, way } => {
                if let Some(owners) = self.sources.get_mut(&way) {
                    owners.retain(|owner| *owner != peer);
                    if owners.is_empty() {
                        self.sources.remove(&way);
                    }
                }
            }
            Event::Route {
                peer,
                route,
                reason,
            } => self.new_route(net, peer, route, reason),
            Event::Deliver { peer, data } => {
                self.peer(net, peer);
                self.tunnel_datagram(net, peer, &data);
            }
            Event::Replay { peer } => self.replay(net, peer),
            Event::Nudge { peer } => self.nudge(net, peer),
            Event::WatchFlow { peer } => self.peer(net, peer).flow_wanted = true,
            Event::Report(report) => self.report = Some(report),
            // For a person.
            Event::Candidates(_) | Event::LinkFailed { .. } | Event::RelayDropped { .. } => {}
            Event::OpenSockets { peer, count } => self.open_sockets(net, peer, count),
            Event::CloseSockets(sockets) => self.close_sockets(net, &sockets),
            Event::Replaced => self.note(net, Note::Replaced),
            _ => self.count("unknown event"),
        }
    }

    fn learn(&mut self, peer: PeerId, way: Way) {
        let owners = self.sources.entry(way).or_default();
        if matches!(way, Way::Channel { .. }) {
            *owners = vec![peer];
        } else if owners.len() < MAX_OWNERS && !owners.contains(&peer) {
            owners.push(peer);
        }
    }

    fn new_route(&mut self, net: &mut Network, peer: PeerId, route: Route, reason: RouteReason) {
        self.note(net, Note::Route(peer, route.clone(), reason));
        for way in [route.primary, route.standby].into_iter().flatten() {
            self.learn(peer, way);
        }
        let now = net.instant();
        let entry = self.peer(net, peer);
        if let Some(way) = &route.primary {
            entry.monitor.switch(now, way);
        }
        entry.route = Some(route);
    }

    /// The peer was given up: its connection ends, and what waited for it never begins.
    fn end_tunnel(&mut self, net: &Network, peer: PeerId) {
        if let Some(conn) = self.forget(net, peer) {
            self.tunnels.remove(&conn);
            if let Some(c) = self.quic.conn(conn) {
                c.close(net.instant(), 0u32.into(), Bytes::new());
            }
        }
    }

    pub(super) fn forget(&mut self, net: &Network, peer: PeerId) -> Option<ConnId> {
        self.sources.retain(|_, owners| {
            owners.retain(|owner| *owner != peer);
            !owners.is_empty()
        });
        let entry = self.peers.remove(&peer)?;
        for task in entry.queued {
            self.app.give_up(net.now(), task, "the peer was given up");
        }
        entry.conn
    }
}
