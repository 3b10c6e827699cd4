//! Keeping channels: from open to closed, and from link to link.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use byway_wire::ChannelId;
use byway_wire::relay::control::{CloseReason, Control};

use super::Node;
use super::peer::{Channel, ChannelState, Peer, Stage};
use crate::cx::cx;
use crate::io::{Event, LinkId, PeerError, PeerId, RelayId, Route, RouteReason, Transmit, Way};
use crate::path;

/// A channel whose link is gone is given up after this long: the relay keeps our side for 10 s of its own clock, and a
/// relay that restarted knows nothing of it anyway.
const DETACHED_LIMIT: Duration = Duration::from_secs(15);

impl Node {
    /// A better link is ready: every channel of the old one is attached to it, and carries on meanwhile.
    pub(super) fn move_channels(&mut self, now: Instant, old: LinkId, new: LinkId) {
        for (id, channel) in self.channels_on(old) {
            let Some(c) = self
                .peers
                .get_mut(&id)
                .and_then(|p| p.channels.iter_mut().find(|c| c.id == channel))
            else {
                continue;
            };
            match c.state {
                ChannelState::Open { link } | ChannelState::Moving { from: link, .. }
                    if link == old =>
                {
                    c.state = ChannelState::Moving { from: old, to: new };
                }
                ChannelState::Attaching { until, .. } => {
                    c.state = ChannelState::Attaching { link: new, until }
                }
                // Opened anew, if the call of a new tunnel is not waiting for the answer: then it is moved when that comes.
                _ => {
                    self.touched.insert(id);
                    continue;
                }
            }
            self.send_attach(now, id, new, channel);
        }
    }

    fn send_attach(&mut self, _now: Instant, id: PeerId, link: LinkId, channel: ChannelId) {
        self.channels.insert((link, channel), id);
        self.events.push_back(Event::Control {
            link,
            message: Control::Attach { channel },
        });
        self.tell_way(id, link, channel, true);
    }

    /// The relay moved our side of a channel.
    pub(super) fn on_attached(&mut self, now: Instant, link: LinkId, channel: ChannelId) {
        let Some(&id) = self.channels.get(&(link, channel)) else {
            self.counters.control_unexpected += 1;
            return;
        };
        let new = self.channel_way(link, channel);
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let Some(c) = peer.channels.iter_mut().find(|c| c.id == channel) else {
            return;
        };
        let from = match c.state {
            ChannelState::Moving { from, to } if to == link => Some(from),
            ChannelState::Attaching { link: to, .. } if to == link => None,
            _ => {
                self.counters.control_unexpected += 1;
                return;
            }
        };
        c.state = ChannelState::Open { link };
        // What is under way on the old link may still come in by it.
        c.previous = from;
        let attested = c.attested;
        let old = from.and_then(|from| self.channel_way(from, channel));
        if let Some(dial) = self.peers.get_mut(&id).and_then(|p| p.dial.as_mut()) {
            dial.failures = 0;
        }
        if let (
            Some(new),
            Some(Peer {
                stage: Stage::Live(live),
                ..
            }),
        ) = (new, self.peers.get_mut(&id))
        {
            let mut cx = cx!(self, now);
            match old {
                Some(old) => live.paths.move_channel(&mut cx, old, new),
                None => live.paths.add_channel(&mut cx, new, attested),
            }
        }
        self.offer(now, id);
        self.touched.insert(id);
    }

    /// A link is gone: its channels wait for another one.
    pub(super) fn detach_channels(&mut self, now: Instant, gone: LinkId) {
        for (id, channel) in self.channels_on(gone) {
            self.channels.remove(&(gone, channel));
            self.touched.insert(id);
            let Some(peer) = self.peers.get_mut(&id) else {
                continue;
            };
            let Some(c) = peer.channels.iter_mut().find(|c| c.id == channel) else {
                continue;
            };
            if c.previous == Some(gone) {
                c.previous = None;
            }
            let mut carried = false;
            match c.state {
                ChannelState::Opening { link, .. } if link == gone => {
                    peer.channels.retain(|c| c.id != channel);
                }
                ChannelState::Open { link } if link == gone => {
                    c.state = ChannelState::Detached {
                        until: now + DETACHED_LIMIT,
                    };
                    carried = true;
                }
                ChannelState::Moving { from, to } if from == gone => {
                    c.state = ChannelState::Attaching {
                        link: to,
                        until: now + DETACHED_LIMIT,
                    };
                    carried = true;
                }
                ChannelState::Moving { from, to } if to == gone => {
                    c.state = ChannelState::Open { link: from }
                }
                ChannelState::Attaching { link, until } if link == gone => {
                    c.state = ChannelState::Detached { until }
                }
                _ => {}
            }
            self.forget_way(now, id, gone, channel, carried);
        }
    }

    /// The shell, and the paths if it carried data, learn that a channel is no longer on a link.
    fn forget_way(
        &mut self,
        now: Instant,
        id: PeerId,
        link: LinkId,
        channel: ChannelId,
        carried: bool,
    ) {
        // The link may be gone, so both carriers are looked for.
        for carrier in [crate::io::Carrier::Udp, crate::io::Carrier::Tls] {
            let way = Way::Channel {
                link,
                carrier,
                channel,
            };
            if self.known_ways.remove(&way) {
                if carried
                    && let Some(Peer {
                        stage: Stage::Live(live),
                        ..
                    }) = self.peers.get_mut(&id)
                {
                    let mut cx = cx!(self, now);
                    live.paths.remove_way(&mut cx, way);
                }
                self.events.push_back(Event::WayForgotten { peer: id, way });
            }
        }
    }

    /// Gives up what is being opened on such links.
    pub(super) fn close_opening(&mut self, id: PeerId, on: impl Fn(LinkId) -> bool) {
        let Some(peer) = self.peers.get(&id) else {
            return;
        };
        let opening =
            |c: &&Channel| matches!(c.state, ChannelState::Opening { link, .. } if on(link));
        let opening: Vec<ChannelId> = peer.channels.iter().filter(opening).map(|c| c.id).collect();
        for channel in opening {
            // Not `Done`: that would say that we forgot the peer.
            self.close_channel(id, channel, CloseReason::Limit);
        }
    }

    /// Attaches what is detached, opens what is missing, gives up what waited too long.
    pub(super) fn keep_channels(&mut self, now: Instant, id: PeerId) {
        let Some(peer) = self.peers.get(&id) else {
            return;
        };
        let states: Vec<_> = peer
            .channels
            .iter()
            .map(|c| (c.id, c.relay, c.state))
            .collect();
        for (channel, relay, state) in states {
            match state {
                ChannelState::Opening { since, until, .. } if until <= now => {
                    // Not `Done`: that would say that we forgot the peer.
                    self.close_channel(id, channel, CloseReason::Limit);
                    self.open_expired(now, id, relay, since);
                }
                ChannelState::Detached { until } | ChannelState::Attaching { until, .. }
                    if until <= now =>
                {
                    self.drop_channel(now, id, channel);
                }
                ChannelState::Detached { until } => {
                    if let Some(link) = self.links.usable(relay) {
                        self.set_state(id, channel, ChannelState::Attaching { link, until });
                        self.send_attach(now, id, link, channel);
                    }
                }
                _ => {}
            }
        }
        self.leave_old_links(id);
        self.leave_channels(now, id);
        self.reopen(now, id);
    }

    /// A relay that has a better link now is asked by that one for a peer that is away: the old link ends soon, and what waits on it
    /// with it.
    fn leave_old_links(&mut self, id: PeerId) {
        let Some(Peer {
            stage: Stage::Live(_),
            channels,
            ..
        }) = self.peers.get(&id)
        else {
            return;
        };
        let old = |c: &Channel| match c.state {
            ChannelState::Opening { link, .. } => {
                let usable = self.links.usable(c.relay);
                (usable.is_some() && usable != Some(link)).then_some(link)
            }
            _ => None,
        };
        let old: BTreeSet<LinkId> = channels.iter().filter_map(old).collect();
        if !old.is_empty() {
            self.close_opening(id, |link| old.contains(&link));
        }
    }

    /// A channel carries data from now on. `observed`: where the relay sees the peer; who opened it hears that later, once the
    /// peer has let it in.
    pub(super) fn channel_opened(
        &mut self,
        now: Instant,
        id: PeerId,
        link: LinkId,
        channel: ChannelId,
        observed: Option<SocketAddr>,
    ) {
        let way = self.channel_way(link, channel);
        self.set_state(id, channel, ChannelState::Open { link });
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let mut relay = None;
        if let Some(c) = peer.channels.iter_mut().find(|c| c.id == channel) {
            relay = Some(c.relay);
        }
        let open = |c: &Channel| matches!(c.state, ChannelState::Open { .. });
        let several = peer.channels.iter().filter(|c| open(c)).count() > 1;
        if let Some(dial) = &mut peer.dial {
            dial.failures = 0;
            if several {
                dial.standby_failures = 0;
            }
        }
        if let (Some(way), Stage::Live(live)) = (way, &mut peer.stage) {
            let mut cx = cx!(self, now);
            live.paths.add_channel(&mut cx, way, None);
        }
        if let Some(observed) = observed {
            self.peer_seen(now, id, link, channel, observed);
        }
        self.drain_peer(now, id);
        self.offer(now, id);
        // The relay may have got a better link meanwhile.
        if let Some(better) = relay.and_then(|relay| self.links.usable(relay))
            && better != link
        {
            self.set_state(
                id,
                channel,
                ChannelState::Moving {
                    from: link,
                    to: better,
                },
            );
            self.send_attach(now, id, better, channel);
        }
        self.touched.insert(id);
    }

    /// The relay says for the first time where it sees the peer of a channel.
    pub(super) fn peer_seen(
        &mut self,
        now: Instant,
        id: PeerId,
        link: LinkId,
        channel: ChannelId,
        observed: SocketAddr,
    ) {
        let observed = byway_wire::canonical(observed);
        let local = self.links.is_local(link);
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if let Some(c) = peer.channels.iter_mut().find(|c| c.id == channel) {
            c.attested = Some(observed);
        }
        if let Stage::Live(live) = &mut peer.stage {
            // Seen at its own loopback by a relay on this host, or at an address of this host.
            let both_loopback = local && observed.ip().is_loopback();
            let same_host = both_loopback || self.local.is_own_ip(observed.ip());
            if same_host && !live.same_host {
                live.same_host = true;
                // The list has our loopback addresses now: another one than the peer may have.
                self.generation += 1;
            }
            let mut cx = cx!(self, now);
            live.paths.attest(&mut cx, observed);
        }
        self.touched.insert(id);
    }

    /// Ends a channel and says so to the relay.
    pub(super) fn close_channel(
        &mut self,
        id: PeerId,
        channel: ChannelId,
        reason: CloseReason,
    ) -> Option<RelayId> {
        let link = self
            .peers
            .get(&id)
            .and_then(|p| p.channels.iter().find(|c| c.id == channel))
            .and_then(|c| {
                // Of two links the new one: closing there closes the channel whether or not it moved already.
                c.links().last()
            });
        if let Some(link) = link {
            self.events.push_back(Event::Control {
                link,
                message: Control::Closed { channel, reason },
            });
        }
        self.drop_channel(self.now, id, channel)
    }

    /// Forgets a channel; gives the relay it was on.
    pub(super) fn drop_channel(
        &mut self,
        now: Instant,
        id: PeerId,
        channel: ChannelId,
    ) -> Option<RelayId> {
        let peer = self.peers.get_mut(&id)?;
        let at = peer.channels.iter().position(|c| c.id == channel)?;
        let gone = peer.channels.remove(at);
        let carried = gone.carried_by();
        for link in gone.links().chain(gone.previous) {
            self.channels.remove(&(link, channel));
            self.forget_way(now, id, link, channel, carried == Some(link));
        }
        self.touched.insert(id);
        Some(gone.relay)
    }

    /// Forgets a peer without a word to the shell.
    pub(super) fn forget_peer(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get(&id) else {
            self.counters.stale_input += 1;
            return;
        };
        let channels: Vec<ChannelId> = peer.channels.iter().map(|c| c.id).collect();
        self.say_goodbye(id);
        for channel in channels {
            self.close_channel(id, channel, CloseReason::Done);
        }
        let Some(peer) = self.peers.remove(&id) else {
            return;
        };
        if let Stage::Live(mut live) = peer.stage {
            self.indexes.remove(&live.paths.own_index());
            self.close_sockets(live.paths.take_spray_sockets());
            if self.incoming.get(&live.id) == Some(&id) {
                self.incoming.remove(&live.id);
            }
        }
        self.wakeups.forget(id);
        self.touched.remove(&id);
    }

    /// In front of `Closed`, which any relay could say.
    fn say_goodbye(&mut self, id: PeerId) {
        let Some(Peer {
            stage: Stage::Live(live),
            ..
        }) = self.peers.get_mut(&id)
        else {
            return;
        };
        let mut cx = cx!(self, self.now);
        let sealed = live.paths.goodbye(&mut cx);
        self.send_signal(id, sealed);
    }

    /// Gives a peer up.
    pub(super) fn fail_peer(&mut self, id: PeerId, error: PeerError) {
        if self.peers.contains_key(&id) {
            self.forget_peer(id);
            self.events.push_back(Event::PeerFailed { peer: id, error });
        }
    }

    /// Tells the shell by which way a peer's datagrams may come in.
    pub(super) fn tell_way(&mut self, id: PeerId, link: LinkId, channel: ChannelId, known: bool) {
        if let Some(way) = self.channel_way(link, channel)
            && known
            && self.known_ways.insert(way)
        {
            self.events.push_back(Event::WayKnown { peer: id, way });
        }
    }

    /// Passes on what a peer's paths want.
    pub(super) fn drain_peer(&mut self, now: Instant, id: PeerId) {
        while let Some(Peer {
            stage: Stage::Live(live),
            channels,
            ..
        }) = self.peers.get_mut(&id)
        {
            let Some(output) = live.paths.poll() else {
                break;
            };
            match output {
                path::Output::Send { way, data } => {
                    self.transmits.push_back(Transmit { way, data });
                }
                path::Output::Signal(sealed) => self.send_signal(id, sealed),
                path::Output::Route(route, reason) => {
                    let follow = route.primary.map(|way| {
                        let made_by = |c: &&Channel| matches!(way, Way::Channel { channel, .. } if channel == c.id);
                        let rode = channels.iter().find(made_by).map(|c| c.rode);
                        let dropped = &mut self.counters.first_dropped;
                        let waited = live.waiting.follow(now, rode.unwrap_or_default(), dropped);
                        waited.into_iter().map(move |data| Transmit { way, data })
                    });
                    self.route(id, route, reason);
                    self.transmits.extend(follow.into_iter().flatten());
                }
                path::Output::Replay => self.events.push_back(Event::Replay { peer: id }),
                path::Output::Nudge => self.events.push_back(Event::Nudge { peer: id }),
                path::Output::WatchFlow => self.events.push_back(Event::WatchFlow { peer: id }),
                path::Output::SuspectLink(link) => {
                    let mut cx = cx!(self, now);
                    self.links.suspect(&mut cx, link);
                }
                path::Output::WayKnown(way) => {
                    self.events.push_back(Event::WayKnown { peer: id, way });
                }
                path::Output::Spray(ask) => self.on_spray(now, id, ask),
                path::Output::WayForgotten(way) => {
                    self.events.push_back(Event::WayForgotten { peer: id, way });
                }
            }
        }
    }

    fn route(&mut self, id: PeerId, route: Route, reason: RouteReason) {
        self.events.push_back(Event::Route {
            peer: id,
            route,
            reason,
        });
    }

    /// A signal goes by one channel that is open.
    fn send_signal(&mut self, id: PeerId, sealed: bytes::Bytes) {
        let Some(peer) = self.peers.get(&id) else {
            return;
        };
        if let Some((link, channel)) = peer.carried_by() {
            self.events.push_back(Event::Control {
                link,
                message: Control::Signal { channel, sealed },
            });
        }
    }

    /// The way through a channel on a link that is up.
    pub(super) fn channel_way(&self, link: LinkId, channel: ChannelId) -> Option<Way> {
        let carrier = self.links.get(link)?.carrier;
        Some(Way::Channel {
            link,
            carrier,
            channel,
        })
    }

    pub(super) fn set_state(&mut self, id: PeerId, channel: ChannelId, state: ChannelState) {
        if let Some(c) = self
            .peers
            .get_mut(&id)
            .and_then(|p| p.channels.iter_mut().find(|c| c.id == channel))
        {
            c.state = state;
        }
    }

    fn channels_on(&self, link: LinkId) -> Vec<(PeerId, ChannelId)> {
        let low = (link, ChannelId::from_u64(0));
        let high = (link, ChannelId::from_u64(u64::MAX));
        self.channels
            .range(low..=high)
            .map(|(&(_, channel), &id)| (id, channel))
            .collect()
    }
}
