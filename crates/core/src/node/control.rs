//! Control messages from relays: who handles what.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use byway_wire::relay::control::Control;
use byway_wire::{ChannelId, SignedRecord};

use super::Node;
use super::peer::{Peer, Stage};
use crate::cx::cx;
use crate::io::{Event, LinkId, PeerId, RelayId};

/// Between two words to the shell that a relay throttles us.
const THROTTLED_EVERY: Duration = Duration::from_secs(10);

impl Node {
    pub(super) fn on_control(&mut self, now: Instant, link: LinkId, message: Control) {
        if self.links.get(link).is_none() {
            self.counters.stale_input += 1;
            return;
        }
        let mut cx = cx!(self, now);
        match message {
            Control::Welcome(welcome) => self.links.handle_welcome(&mut cx, link, &welcome),
            Control::Refused { reason, detail } => {
                self.links.handle_refused(&mut cx, link, reason, detail);
            }
            Control::Opened(opened) => self.on_opened(now, link, opened),
            Control::Incoming(incoming) => self.on_incoming(now, link, incoming),
            Control::Closed { channel, reason } => self.on_closed(now, link, channel, reason),
            Control::Attached { channel } => self.on_attached(now, link, channel),
            Control::Signal { channel, sealed } => self.on_signal(now, link, channel, &sealed),
            Control::Rebound { observed } => self.on_rebound(now, link, observed),
            Control::PeerMoved { channel, observed } => {
                self.on_peer_moved(now, link, channel, observed);
            }
            Control::Ping { token } => {
                self.events.push_back(Event::Control {
                    link,
                    message: Control::Pong { token },
                });
            }
            Control::Record(record) => self.on_record(now, &record),
            Control::GoingAway {
                deadline_ms,
                alternates,
            } => self.on_going_away(now, link, deadline_ms, alternates),
            Control::Pong { token } => self.links.handle_pong(&mut cx, link, token),
            Control::TokenTaken { admitted_for } => {
                self.links.handle_token_taken(&mut cx, link, admitted_for);
            }
            Control::Throttled { bytes, datagrams } => {
                self.on_throttled(now, link, bytes, datagrams);
            }
            Control::TokenRefused { detail } => {
                if let Some(relay) = self.links.handle_token_refused(&mut cx, link) {
                    self.events.push_back(Event::TokenRefused { relay, detail });
                }
            }
            Control::Unknown => {}
            // What only nodes say, or what the shell answers itself.
            _ => self.counters.control_unexpected += 1,
        }
    }

    /// A relay may say so as often as it likes, and people hear it seldom.
    fn on_throttled(
        &mut self,
        now: Instant,
        link: LinkId,
        bytes: Option<u64>,
        datagrams: Option<u64>,
    ) {
        self.counters.throttled += 1;
        if self
            .throttled_told
            .is_some_and(|at| at + THROTTLED_EVERY > now)
        {
            return;
        }
        self.throttled_told = Some(now);
        if let Some(relay) = self.links.get(link).map(|l| l.relay) {
            self.events.push_back(Event::Throttled {
                relay,
                bytes,
                datagrams,
            });
        }
    }

    fn on_signal(&mut self, now: Instant, link: LinkId, channel: ChannelId, sealed: &[u8]) {
        let Some(&id) = self.channels.get(&(link, channel)) else {
            self.counters.signal_unknown += 1;
            return;
        };
        match self.peers.get_mut(&id).map(|p| &mut p.stage) {
            Some(Stage::Live(live)) => {
                let mut cx = cx!(self, now);
                live.paths
                    .handle_signal(&mut cx, sealed, &self.local, live.same_host);
                self.touched.insert(id);
            }
            _ => self.counters.signal_unknown += 1,
        }
    }

    /// The relay sees the peer at another address from now on.
    fn on_peer_moved(
        &mut self,
        now: Instant,
        link: LinkId,
        channel: ChannelId,
        observed: SocketAddr,
    ) {
        let Some(&id) = self.channels.get(&(link, channel)) else {
            self.counters.control_unexpected += 1;
            return;
        };
        let known = self.peers.get_mut(&id).map(|peer| &mut peer.channels);
        if let Some(known) = known.and_then(|all| all.iter_mut().find(|c| c.id == channel)) {
            if known.attested.is_none() {
                // It has not moved: it let us in, and that is how we hear where it is.
                self.peer_seen(now, id, link, channel, observed);
                self.drain_peer(now, id);
                self.offer(now, id);
                return;
            }
            known.attested = Some(observed);
        }
        let mut followed = false;
        self.with_paths(now, id, |paths, cx| {
            followed = paths.peer_moved(cx, (link, channel), observed);
        });
        if followed {
            // What was offered while its link was dead went nowhere. What it has is ignored there.
            self.offer(now, id);
        }
    }

    fn on_rebound(&mut self, now: Instant, link: LinkId, observed: SocketAddr) {
        if self.links.handle_rebound(link, observed) {
            self.observed_changed(now);
        } else {
            self.counters.control_unexpected += 1;
        }
    }

    /// A newer record of a peer: where it can be reached from now on. Another instance is another process, which only
    /// an answer to `Open` can introduce.
    fn on_record(&mut self, now: Instant, record: &SignedRecord) {
        let mut expected = false;
        let mut moved = Vec::new();
        for (&id, peer) in &mut self.peers {
            if let Peer {
                stage: Stage::Live(live),
                ..
            } = peer
                && live.id == record.record().id
                && live.record.record().probe_key == record.record().probe_key
            {
                expected = true;
                if record.is_newer_than(&live.record) {
                    live.record = record.clone();
                    moved.push(id);
                }
            }
        }
        self.counters.control_unexpected += u64::from(!expected);
        for id in moved {
            self.follow_record(now, id);
        }
    }

    pub(super) fn learn_record(&mut self, now: Instant, id: PeerId, record: &SignedRecord) {
        let Some(Peer {
            stage: Stage::Live(live),
            ..
        }) = self.peers.get_mut(&id)
        else {
            self.counters.stale_input += 1;
            return;
        };
        let (known, told) = (live.record.record(), record.record());
        if (known.id, known.probe_key) != (told.id, told.probe_key) {
            // The relay gave us the record of another instance, so no probe of ours opens there: the tunnel stays
            // relayed. Nothing that the peer could mend.
            self.counters.record_mismatch += 1;
            return;
        }
        if record.is_newer_than(&live.record) {
            live.record = record.clone();
        }
        self.follow_record(now, id);
    }

    /// A peer that we dialled is looked for where it says itself that it is, by its newest record. What else we know stays:
    /// channels through a relay that it does not name are left when another one carries data, and such a relay is asked
    /// last; one that carries a channel is never forgotten, for the record may name relays that nobody reaches. What stands in
    /// for a relay that it names and that stops is named with it: the peer is there for the time being.
    pub(super) fn follow_record(&mut self, now: Instant, id: PeerId) {
        let Some(Peer {
            dial: Some(_),
            stage: Stage::Live(live),
            ..
        }) = self.peers.get(&id)
        else {
            return;
        };
        let told = live.record.record().relays.clone();
        let mut told_at = Vec::new();
        for url in &told {
            told_at.extend(self.know(url.clone(), Vec::new(), &told_at));
        }
        let Some(Peer {
            dial: Some(dial),
            channels,
            ..
        }) = self.peers.get_mut(&id)
        else {
            return;
        };
        // One that says nothing of relays leaves none.
        let is_named = |relay: &RelayId| told.is_empty() || self.links.is_known_by(*relay, &told);
        // A channel may be through one that the record before did not name.
        let used: BTreeSet<RelayId> = channels.iter().map(|c| c.relay).collect();
        let mut known = dial.relays.clone();
        known.extend(used.iter().filter(|relay| !dial.relays.contains(relay)));
        let (mut relays, left): (Vec<_>, Vec<_>) = known.iter().copied().partition(is_named);
        for relay in told_at.iter().copied() {
            if relays.len() < super::calls::MAX_RELAYS && !relays.contains(&relay) {
                relays.push(relay);
            }
        }
        dial.left = left.iter().copied().collect();
        for relay in left {
            if relays.len() < super::calls::MAX_RELAYS || used.contains(&relay) {
                relays.push(relay);
            }
        }
        dial.relays.clone_from(&relays);
        for relay in relays.iter().filter(|relay| !known.contains(relay)) {
            if let Some(url) = self.links.url(*relay).cloned() {
                let addrs = self.links.addrs(*relay).to_vec();
                self.add_relay_servers(now, &url, &addrs);
            }
        }
        known.extend(told_at);
        for relay in known {
            if !relays.contains(&relay) {
                self.let_go(now, relay);
            }
        }
        self.touched.insert(id);
    }
}
