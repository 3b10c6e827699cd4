//! The opener's part: trying relays, sending `Open` with the first flight, and what can become of it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use byway_wire::relay::control::{CloseReason, Control, MAX_FIRST, MAX_FIRST_BYTES, Open, Opened};
use byway_wire::{ChannelId, NodeInstance, RelayUrl, SignedRecord};

use super::Node;
use super::peer::{Calling, Channel, ChannelState, Dial, Live, Peer, Stage};
use crate::cx::cx;
use crate::io::{Event, LinkError, LinkId, PeerError, PeerId, PeerTarget, RelayId, Transmit};
use crate::link::is_lasting;
use crate::path::{Association, Paths};

/// From `connect` to the first route, or a `PeerFailed`.
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// Each further relay of a ticket is tried this much after the one before (design section 7).
const NEXT_RELAY_AFTER: Duration = Duration::from_millis(300);
/// On a warm link `Open` waits this long for the tunnel's first datagram, which follows `connect` in microseconds...
const FIRST_WITHIN: Duration = Duration::from_millis(50);
/// ...and this long for the rest of the flight: a ClientHello with a post-quantum key takes two datagrams.
const FLIGHT_WITHIN: Duration = Duration::from_millis(1);
/// A relay that answers nothing to `Open` for this long is not waited for alone.
pub(super) const SECOND_RELAY_AFTER: Duration = Duration::from_secs(1);
/// An unanswered `Open` is given up; a relay answers at the latest after the 2 s that it waits for any absent peer, or after as
/// much more as it was asked to wait.
const OPEN_LIMIT: Duration = Duration::from_secs(5);
/// As long as a relay waits for a peer. One that answers sooner that it is not there has no room to wait for it, and is asked again then.
const ASKED_AGAIN_AFTER: Duration = Duration::from_secs(2);
/// For a peer that is known to have been here, and not to be here now, a relay is asked to wait this long: so the peer's return
/// is told when it happens. A sleep is of hours, and the tunnel goes on after it.
const RETURN_WAIT: Duration = Duration::from_secs(30);
/// Rounds in which every carrier failed before a relay counts as unreachable.
const ROUNDS: u32 = 2;
/// Random 56-bit ids do not collide; a relay that says so this often lies.
const COLLISIONS: u8 = 3;
/// Most relays of one ticket that are tried.
pub(super) const MAX_RELAYS: usize = 8;
/// An instance that did not answer for so long, several pings on every path, is gone if a relay has a newer one's record.
const RESTART_CERTAIN: Duration = Duration::from_secs(1);
/// The second channel waits this long: the tunnel's beginning has the network for itself, and what ends at once (a
/// short `ssh` command) troubles one relay only.
const STANDBY_AFTER: Duration = Duration::from_secs(2);

impl Node {
    pub(super) fn call(&mut self, now: Instant, target: PeerTarget) -> PeerId {
        let id = PeerId(self.next_peer);
        self.next_peer += 1;
        let mut relays = self.add_relays(now, target.relays);
        self.add_alternates(&mut relays);
        // A relay that is linked already costs no handshake: it goes first. One that stops goes last.
        relays.sort_by_key(|&relay| {
            let linked = self.links.usable(relay).is_some();
            (self.links.will_stop(relay), !linked)
        });
        let moving = relays.iter().any(|&relay| self.links.will_stop(relay));
        let calling = Calling {
            first: Vec::new(),
            second: Vec::new(),
            sent: false,
            open_at: now + FIRST_WITHIN,
            started: 0,
            next_start: now,
            deadline: now + CALL_LIMIT,
            refusals: Default::default(),
            moving,
            again: Default::default(),
            errors: Default::default(),
            collisions: 0,
        };
        let dial = Dial {
            relays,
            left: Default::default(),
            secret: target.secret,
            reopen_at: now,
            failures: 0,
            standby_at: now,
            standby_failures: 0,
        };
        let peer = Peer {
            node: target.node,
            dial: Some(dial),
            channels: Vec::new(),
            stage: Stage::Calling(calling),
        };
        self.peers.insert(id, peer);
        self.touched.insert(id);
        id
    }

    /// The target's relays, each once.
    fn add_relays(
        &mut self,
        now: Instant,
        target: Vec<(RelayUrl, Vec<SocketAddr>)>,
    ) -> Vec<RelayId> {
        let mut relays = Vec::new();
        for (url, addrs) in target {
            if relays.len() >= MAX_RELAYS {
                break;
            }
            self.add_relay_servers(now, &url, &addrs);
            if let Some(relay) = self.know(url, addrs, &relays)
                && !relays.contains(&relay)
            {
                relays.push(relay);
            }
        }
        relays
    }

    /// A live peer that was dialled is looked for at once, through these relays too. What waits for it at others waits no more: it
    /// would stand in the way.
    pub(super) fn call_again(&mut self, now: Instant, id: PeerId, target: PeerTarget) {
        let Some(known) = self.dial_of(id).map(|dial| dial.relays.clone()) else {
            return;
        };
        // The new ones first: those known may be why it is silent.
        let mut relays = self.add_relays(now, target.relays);
        for relay in known {
            if relays.len() < MAX_RELAYS && !relays.contains(&relay) {
                relays.push(relay);
            }
        }
        if let Some(dial) = self.dial_of(id) {
            dial.relays = relays;
            dial.failures = 0;
            dial.reopen_at = now;
            dial.standby_at = now;
        }
        self.close_opening(id, |_| true);
        self.touched.insert(id);
    }

    fn dial_of(&mut self, id: PeerId) -> Option<&mut Dial> {
        self.peers.get_mut(&id)?.dial.as_mut()
    }

    pub(super) fn add_first(&mut self, now: Instant, id: PeerId, data: Bytes) {
        let calling = match self.peers.get_mut(&id).map(|p| &mut p.stage) {
            Some(Stage::Calling(calling)) => calling,
            // The route came while the datagram was on its way to us.
            Some(Stage::Live(live)) if live.paths.primary_way().is_some() => {
                let way = live.paths.primary_way();
                self.transmits.extend(way.map(|way| Transmit { way, data }));
                return;
            }
            Some(Stage::Live(live)) => {
                let dropped = &mut self.counters.first_dropped;
                live.waiting.push(now, data, dropped);
                return;
            }
            None => {
                self.counters.first_dropped += 1;
                return;
            }
        };
        // An agent that is near answers by the channel before the relay's `Opened` is here, and the tunnel goes on.
        let held = if calling.sent {
            &mut calling.second
        } else {
            &mut calling.first
        };
        let bytes: usize = held.iter().map(Bytes::len).sum();
        if held.len() >= MAX_FIRST || bytes + data.len() > MAX_FIRST_BYTES || data.is_empty() {
            self.counters.first_dropped += 1;
            return;
        }
        if calling.sent {
            held.push(data);
            return;
        }
        if calling.first.is_empty() {
            calling.open_at = calling.open_at.min(now + FLIGHT_WITHIN);
        }
        calling.first.push(data);
        self.touched.insert(id);
    }

    /// Carries a call on: starts relays, opens where a link is usable, fails when nothing is left to try.
    pub(super) fn drive_call(&mut self, now: Instant, id: PeerId) {
        let Some(Peer {
            dial: Some(dial),
            stage: Stage::Calling(calling),
            channels,
            ..
        }) = self.peers.get_mut(&id)
        else {
            return;
        };
        if let Some(error) = verdict(now, dial, calling, channels, &self.links) {
            self.fail_peer(id, error);
            return;
        }
        // The next relay starts when its time has come, or at once when all before it failed.
        let failed = |c: &Calling, relay: &RelayId| {
            c.refusals.contains_key(relay)
                || c.errors.contains_key(relay)
                || c.again.contains_key(relay)
        };
        while calling.started < dial.relays.len()
            && (calling.next_start <= now
                || dial.relays[..calling.started]
                    .iter()
                    .all(|r| failed(calling, r)))
        {
            calling.started += 1;
            calling.next_start = now + NEXT_RELAY_AFTER;
        }
        let waited_for = |c: &Channel| matches!(c.state, ChannelState::Opening { since, .. } if now < since + SECOND_RELAY_AFTER);
        if calling.open_at > now || channels.iter().any(waited_for) {
            return;
        }
        let usable = dial.relays[..calling.started].iter().filter_map(|&relay| {
            // An `Open` on a link that connected and then said no more (UDP that is cut off after its handshake) does not
            // keep us from opening on the one that was welcomed.
            let link = self.links.usable(relay)?;
            let open_there = |c: &Channel| {
                c.relay == relay
                    && !matches!(c.state, ChannelState::Opening { link: l, .. } if l != link)
            };
            let later = calling.again.get(&relay).is_some_and(|at| *at > now);
            let done = calling.refusals.contains_key(&relay) || channels.iter().any(open_there);
            (!done && !later).then_some((relay, link))
        });
        // Those that were not asked yet first, or one that is asked again and again would keep them from it.
        let next = usable.min_by_key(|(relay, _)| calling.again.get(relay));
        if let Some((relay, link)) = next {
            self.open(now, id, relay, link);
        }
    }

    /// Opens a channel to a dialled peer.
    pub(super) fn open(&mut self, now: Instant, id: PeerId, relay: RelayId, link: LinkId) {
        let own = self.record.record();
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let Some(dial) = &peer.dial else { return };
        let live = matches!(peer.stage, Stage::Live(_));
        let missed = live && dial.failures > 0 && peer.carried_by().is_none();
        let wait = if missed { RETURN_WAIT } else { Duration::ZERO };
        let proof = dial
            .secret
            .as_ref()
            .map(|secret| secret.open_proof(own.id, &own.probe_key, peer.node));
        let (rode, first) = match &mut peer.stage {
            Stage::Calling(calling) => {
                calling.sent = true;
                (Default::default(), calling.first.clone())
            }
            Stage::Live(live) => {
                let dropped = &mut self.counters.first_dropped;
                live.waiting.ride(now, dropped)
            }
        };
        let channel = self.rng.channel();
        peer.channels.push(Channel {
            id: channel,
            relay,
            state: ChannelState::Opening {
                link,
                since: now,
                until: now + OPEN_LIMIT + wait,
            },
            previous: None,
            attested: None,
            retire_at: None,
            rode,
        });
        let message = Control::Open(Open {
            channel,
            peer: peer.node,
            proof,
            first,
            wait_ms: wait.as_millis() as u32,
        });
        self.channels.insert((link, channel), id);
        self.events.push_back(Event::Control { link, message });
        self.tell_way(id, link, channel, true);
        self.touched.insert(id);
    }

    /// The relay has the peer: its record gives the keys, the channel is a path.
    pub(super) fn on_opened(&mut self, now: Instant, link: LinkId, opened: Opened) {
        let Some(&id) = self.channels.get(&(link, opened.channel)) else {
            self.counters.control_unexpected += 1;
            return;
        };
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let opening = |c: &Channel| {
            c.id == opened.channel
                && matches!(c.state, ChannelState::Opening { link: l, .. } if l == link)
        };
        if !peer.channels.iter().any(opening) {
            self.counters.control_unexpected += 1;
            return;
        }
        if opened.record.node() != peer.node {
            let error = LinkError::Protocol("it answered with the record of another node".into());
            let mut cx = cx!(self, now);
            self.links.fail(&mut cx, link, error);
            return;
        }
        let mut second = Vec::new();
        match &mut peer.stage {
            Stage::Calling(calling) => {
                second = std::mem::take(&mut calling.second);
                let Some(live) = self.make_live(now, opened.record) else {
                    self.close_channel(id, opened.channel, CloseReason::NotAllowed);
                    self.fail_peer(id, PeerError::NotAllowed(CloseReason::NotAllowed));
                    return;
                };
                self.indexes.insert(live.paths.own_index(), id);
                self.events.push_back(Event::PeerKnown {
                    peer: id,
                    id: live.id,
                });
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.stage = Stage::Live(Box::new(live));
                    if let Some(dial) = &mut peer.dial {
                        dial.standby_at = now + STANDBY_AFTER;
                    }
                }
            }
            Stage::Live(live) => {
                let (known, told) = (live.record.record(), opened.record.record());
                if (known.id, known.probe_key) != (told.id, told.probe_key) {
                    // An older one: a relay that has not noticed the restart yet.
                    let newer = opened.record.is_newer_than(&live.record);
                    // A newer one may run beside it, or be long gone: a relay can show any record it ever got. While the
                    // instance we talk to answers, it stays.
                    if newer && live.paths.is_unanswered_for(now, RESTART_CERTAIN) {
                        self.fail_peer(id, PeerError::Restarted);
                        return;
                    }
                    self.another_instance(now, id, opened.channel, newer);
                    return;
                }
                if opened.record.is_newer_than(&live.record) {
                    live.record = opened.record;
                    self.follow_record(now, id);
                }
            }
        }
        self.channel_opened(now, id, link, opened.channel, None);
        if let Some(way) = self.channel_way(link, opened.channel) {
            let datagrams = second.into_iter().map(|data| Transmit { way, data });
            self.transmits.extend(datagrams);
        }
    }

    /// The channel leads to another instance than the one we talk to: it is of no use here. If the other one is newer, ours
    /// is asked whether it is still there.
    fn another_instance(&mut self, now: Instant, id: PeerId, channel: ChannelId, newer: bool) {
        let relay = self.close_channel(id, channel, CloseReason::Done);
        let other = self.peers.get(&id).is_some_and(Peer::has_channel);
        if let Some(Peer {
            dial: Some(dial),
            stage: Stage::Live(live),
            ..
        }) = self.peers.get_mut(&id)
        {
            if newer {
                let mut cx = cx!(self, now);
                live.paths.question(&mut cx);
            }
            dial.failed(now, relay, other, &mut self.rng);
        }
    }

    /// A channel ended, or was refused.
    pub(super) fn on_closed(
        &mut self,
        now: Instant,
        link: LinkId,
        channel: ChannelId,
        reason: CloseReason,
    ) {
        let Some(&id) = self.channels.get(&(link, channel)) else {
            // Both sides may close at once.
            self.counters.stale_input += 1;
            return;
        };
        let sent = self.peers.get(&id).and_then(|p| p.open_sent(channel));
        let sent = sent.unwrap_or(now);
        let relay = self.drop_channel(now, id, channel);
        let other = self.peers.get(&id).is_some_and(Peer::has_channel);
        self.touched.insert(id);
        if let Some(Peer {
            stage: Stage::Live(live),
            channels,
            ..
        }) = self.peers.get_mut(&id)
            && matches!(
                reason,
                CloseReason::Done | CloseReason::PeerGone | CloseReason::Offline
            )
            && channels.is_empty()
        {
            let mut cx = cx!(self, now);
            live.paths.question(&mut cx);
        }
        let Some(Peer {
            dial: Some(dial),
            stage,
            ..
        }) = self.peers.get_mut(&id)
        else {
            return;
        };
        match stage {
            // Whatever the reason, it is the relay that says so: another one may say otherwise.
            Stage::Calling(calling) => match (reason, relay) {
                (CloseReason::ChannelInUse, _) if calling.collisions < COLLISIONS => {
                    calling.collisions += 1;
                }
                // It may be on its way there from a relay that stops, for which agents take their time.
                (CloseReason::Offline, Some(relay)) if calling.moving => {
                    calling
                        .again
                        .insert(relay, now.max(sent + ASKED_AGAIN_AFTER));
                }
                (_, Some(relay)) => {
                    calling.refusals.insert(relay, reason);
                }
                (_, None) => {}
            },
            // The agent refuses, and nothing else leads there.
            Stage::Live(live) if reason == CloseReason::NotAllowed && !live.paths.has_primary() => {
                self.fail_peer(id, PeerError::NotAllowed(reason));
            }
            Stage::Live(_) => {
                dial.failed(sent, relay, other, &mut self.rng);
                // Attaching came too late: nothing speaks against opening at once.
                if !other && reason == CloseReason::NoSuchChannel && dial.failures == 1 {
                    dial.reopen_at = now;
                }
            }
        }
    }

    /// A relay did not answer an `Open` in time.
    pub(super) fn open_expired(&mut self, now: Instant, id: PeerId, relay: RelayId, sent: Instant) {
        let other = self.peers.get(&id).is_some_and(Peer::has_channel);
        let Some(Peer {
            dial: Some(dial),
            stage,
            channels,
            ..
        }) = self.peers.get_mut(&id)
        else {
            return;
        };
        match stage {
            // Another `Open` at that relay, on a better link, may still be answered.
            Stage::Calling(_) if channels.iter().any(|c| c.relay == relay) => {}
            Stage::Calling(calling) => {
                calling
                    .refusals
                    .entry(relay)
                    .or_insert(CloseReason::Offline);
            }
            Stage::Live(_) => {
                dial.failed(sent, Some(relay), other, &mut self.rng);
                if !other {
                    dial.reopen_at = now;
                }
            }
        }
    }

    /// A relay could not be reached in this round.
    pub(super) fn on_round_failed(&mut self, now: Instant, relay: RelayId, error: &LinkError) {
        for (&id, peer) in &mut self.peers {
            // One that cannot be reached must not keep the others from being the second.
            if peer.standby_relay(&self.links, now) == Some(relay) {
                if let Some(dial) = &mut peer.dial {
                    dial.put_last(Some(relay));
                }
                self.touched.insert(id);
            }
            let Some(dial) = &peer.dial else { continue };
            if let Stage::Calling(calling) = &mut peer.stage
                && dial.relays.contains(&relay)
            {
                let entry = calling.errors.entry(relay).or_insert((0, error.clone()));
                *entry = (entry.0 + 1, error.clone());
                self.touched.insert(id);
            }
        }
    }

    /// The association and paths with the instance a record speaks of; none if its probe key is weak.
    pub(super) fn make_live(&mut self, now: Instant, record: SignedRecord) -> Option<Live> {
        let content = record.record();
        let id: NodeInstance = content.id;
        let keys = byway_wire::pair::PairKeys::derive(
            &self.probe_secret.0,
            self.id,
            &content.probe_key,
            id,
        )
        .ok()?;
        let index = byway_wire::probe::Index(self.rng.u64());
        // Microseconds since the node began: nobody sends a million probes a second, so a later association with the
        // same instance always counts on from above the earlier one.
        let counter = now.saturating_duration_since(self.began).as_micros() as u64;
        let association = Association::new(keys, index, counter);
        let paths = Paths::new(now, association, &self.config, self.sockets.clone());
        Some(Live {
            id,
            record,
            paths,
            same_host: false,
            waiting: Default::default(),
        })
    }
}

/// Says whether a call is lost.
fn verdict(
    now: Instant,
    dial: &Dial,
    calling: &Calling,
    channels: &[Channel],
    links: &crate::link::Links,
) -> Option<PeerError> {
    let out_of_reach = |relay: &RelayId| {
        calling.errors.get(relay).is_some_and(|(rounds, error)| {
            // Silence was waited for long enough in one round; a refusal may be a relay that restarts.
            *rounds >= ROUNDS || *error == LinkError::TimedOut || is_lasting(error)
        }) && links.usable(*relay).is_none()
    };
    let all_tried = dial
        .relays
        .iter()
        .all(|r| calling.refusals.contains_key(r) || out_of_reach(r));
    let late = calling.deadline <= now;
    if !all_tried && !late {
        return None;
    }
    let offline =
        |reason: &CloseReason| matches!(reason, CloseReason::Offline | CloseReason::PeerGone);
    if let Some(reason) = calling.refusals.values().find(|r| !offline(r)) {
        return Some(PeerError::NotAllowed(*reason));
    }
    if !calling.again.is_empty() || !calling.refusals.is_empty() {
        return Some(PeerError::Offline);
    }
    if !channels.is_empty() || dial.relays.iter().any(|&r| links.usable(r).is_some()) {
        return Some(PeerError::TimedOut);
    }
    let error = |relay: &RelayId| {
        let known = calling
            .errors
            .get(relay)
            .map(|(_, e)| e)
            .or(links.last_error(*relay));
        known.cloned().unwrap_or(LinkError::TimedOut)
    };
    let errors = dial
        .relays
        .iter()
        .filter_map(|r| Some((links.url(*r)?.clone(), error(r))));
    Some(PeerError::NoRelay(errors.collect()))
}
