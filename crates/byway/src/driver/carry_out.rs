//! What the node says, done.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use byway_core::io::{
    Event, Health, LinkError, LinkId, LinkUp, PeerError, PeerId, Route, RouteReason, Way,
};
use byway_wire::relay::control::Control;
use quinn::udp::EcnCodepoint;
use tokio::sync::mpsc;

use super::link_table::{LinkEntry, UpLink};
use super::{Driver, Input, Peer, UNUSED};
use crate::links::Dial;
use crate::socket::Injected;
use crate::tunnel::PathInfo;

/// Control messages that may wait for one link. A node with a thousand peers sends each a few at a reconnection; a link
/// that lags farther behind is broken.
const CONTROL_QUEUE: usize = 4096;

impl Driver {
    pub(super) fn carry_out(&mut self, event: Event) {
        match event {
            Event::Dial {
                link,
                relay,
                url,
                addrs,
                carrier,
            } => {
                tracing::debug!(link = link.0, %url, ?carrier, "dial");
                self.note_relay(relay, &url);
                let (control, messages) = mpsc::channel(CONTROL_QUEUE);
                let task = self.link_tasks.spawn(self.links.clone().run(Dial {
                    link,
                    url,
                    addrs,
                    carrier,
                    control: messages,
                }));
                let entry = LinkEntry {
                    relay,
                    control,
                    task,
                    up: false,
                };
                self.link_table.insert(link, entry);
            }
            Event::HangUp { link } => self.hang_up(link),
            Event::Control { link, message } => self.say(link, message),
            Event::LinkReady {
                link,
                relay,
                carrier,
                observed,
                intercepted,
            } => {
                tracing::debug!(link = link.0, ?carrier, %observed, intercepted, "link ready");
                let up = UpLink {
                    since: Instant::now(),
                    carrier,
                    address: self.socket.tables.relay_addr(link),
                    observed,
                    intercepted,
                };
                self.link_table.ready(relay, link, up);
                self.publish_links();
            }
            Event::LinkLost { link, relay, error } => {
                tracing::debug!(link = link.0, %error, "link lost");
                self.link_table.lost(relay, link, &error);
                self.publish_links();
            }
            Event::LinkFailed { relay, error } => {
                self.link_table.failed(relay, &error);
                self.publish_links();
            }
            Event::PeerIncoming { peer, id } => {
                let now = Instant::now();
                self.add_peer(now, peer, id.node, false);
                self.unused.insert(peer, now + UNUSED);
            }
            Event::PeerKnown { peer, id } => {
                tracing::debug!(peer = peer.0, node = %id.node.short(), "peer known");
            }
            Event::PeerFailed { peer, error } => self.peer_failed(peer, error),
            Event::WayKnown { peer, way } => self.socket.tables.learn(peer, way),
            Event::WayForgotten { peer, way } => self.socket.tables.unlearn(peer, way),
            Event::Route {
                peer,
                route,
                reason,
            } => self.route(peer, &route, reason),
            Event::Deliver { peer, data } => {
                let segment = data.len();
                tracing::trace!(peer = peer.0, segment, "deliver");
                let injected = Injected {
                    peer,
                    data,
                    segment,
                    // QUIC marks every packet so until it is told otherwise, and takes a first acknowledgement
                    // without marks for a path that loses them; nothing between marked it as congested.
                    ecn: Some(EcnCodepoint::Ect0),
                };
                if self.socket.inject().try_send(injected).is_err() {
                    self.socket.counters.spilled.add();
                }
            }
            Event::Replay { peer } => {
                if let Some(peer) = self.shared.peer(peer) {
                    self.replay(&peer);
                }
            }
            Event::Nudge { peer } => {
                if let Some(peer) = self.shared.peer(peer) {
                    nudge(&peer);
                }
            }
            Event::WatchFlow { peer } => {
                if let Some(peer) = self.shared.peer(peer) {
                    peer.route.want_flow();
                }
            }
            Event::Report(report) => {
                self.shared.report.send_replace(report);
            }
            Event::Candidates(candidates) => {
                self.shared.addresses.send_replace(candidates);
            }
            Event::OpenSockets { peer, count } => {
                let opened = self.socket.open_extra(count);
                tracing::debug!(
                    peer = peer.0,
                    opened = opened.len(),
                    "sockets for a hard NAT"
                );
                self.node
                    .handle_opened_sockets(Instant::now(), peer, opened);
            }
            Event::CloseSockets(sockets) => self.socket.close_extra(&sockets),
            Event::RelayDropped { relay } => self.relay_dropped(relay),
            Event::TokenWanted => self.want_token(),
            Event::Throttled {
                relay,
                bytes,
                datagrams,
            } => self.throttled(relay, bytes, datagrams),
            Event::TokenRefused { relay, detail } => self.token_refused(relay, &detail),
            Event::Replaced => {
                tracing::warn!("a newer process with this node's key took over");
            }
            // An event of a later version of the node: nothing depends on it.
            other => tracing::debug!(?other, "unknown event"),
        }
    }

    fn say(&mut self, link: LinkId, message: Control) {
        let Some(entry) = self.link_table.get(link) else {
            return;
        };
        tracing::trace!(link = link.0, name = message.name(), "control out");
        if let Err(mpsc::error::TrySendError::Full(_)) = entry.control.try_send(message) {
            entry.task.abort();
            let error = LinkError::Broken("the relay takes no control messages".to_owned());
            self.input(Input::LinkLost(link, error));
        }
    }

    /// Ends a dial at once; a link after what was said has been sent.
    fn hang_up(&mut self, link: LinkId) {
        if let Some(entry) = self.link_table.remove(link)
            && !entry.up
        {
            entry.task.abort();
        }
    }

    pub(super) fn dialed(&mut self, link: LinkId, result: Result<&LinkUp, &LinkError>) {
        match result {
            Ok(_) => self.link_table.set_up(link),
            Err(error) => {
                tracing::debug!(link = link.0, %error, "dial failed");
                self.link_table.remove(link);
            }
        }
    }

    /// Order matters: congestion control knows of a switch before the first datagram goes there, and what comes from a
    /// new way is the peer's before it is told to come.
    fn route(&mut self, id: PeerId, route: &Route, reason: RouteReason) {
        let Some(peer) = self.shared.peer(id) else {
            return;
        };
        let now = Instant::now();
        let old = peer.route.current();
        let old_primary = old.primary.as_ref().map(|leg| leg.way);
        let switched = old_primary.is_some() && route.primary != old_primary;
        if switched {
            peer.route.counters.add_switch();
        }
        let mut stall = None;
        if route.health != Health::Good {
            peer.stall_begins(now);
        } else if let Some(ended) = peer.stall_ends(now)
            && reason == RouteReason::Failover
        {
            peer.route.counters.note_stall(ended);
            stall = Some(ended);
        }
        for way in [route.primary, route.standby].into_iter().flatten() {
            self.socket.tables.learn(id, way);
        }
        if let Some(primary) = route.primary {
            peer.switch(now, primary);
        }
        let snapshot = peer.route.update(route, &self.socket.tables);
        tracing::debug!(peer = id.0, ?reason, ?route, "route");

        let primary = snapshot.primary.as_ref();
        let relay = match route.primary {
            Some(Way::Channel { link, .. }) => self
                .link_table
                .relay(link)
                .map(|status| status.relay.clone()),
            _ => None,
        };
        let moved = switched || old_primary.is_none();
        peer.path.send_if_modified(|info| {
            let new = PathInfo {
                kind: primary.map_or(info.kind, |leg| leg.way.kind()),
                remote: primary.and_then(|leg| leg.via.remote()),
                relay,
                reason: if moved { reason } else { info.reason },
                since: if moved { now } else { info.since },
                health: route.health,
                stall: if switched { stall } else { info.stall },
            };
            // A new standby is no news to those who watch the path in use.
            let news = reason != RouteReason::Standby
                || (new.kind, new.remote, new.health) != (info.kind, info.remote, info.health);
            if news {
                *info = new;
            }
            news
        });
    }

    fn replay(&self, peer: &Arc<Peer>) {
        self.socket.replay(&peer.route);
        nudge(peer);
    }

    fn peer_failed(&mut self, id: PeerId, error: PeerError) {
        tracing::debug!(peer = id.0, %error, "peer failed");
        let Some(peer) = self.shared.peer(id) else {
            return;
        };
        peer.fail(error);
        if !peer.is_leased() {
            self.unused.insert(id, Instant::now());
        }
    }
}

/// Makes each tunnel say something that must be answered.
fn nudge(peer: &Peer) {
    peer.renew_if_stale(Instant::now());
    for live in peer.tunnels() {
        // Empty: it belongs to no flow, and makes the other side acknowledge something.
        let _ = live.connection.send_datagram(Bytes::new());
    }
}
