//! The agent's part: who may come in, and what they get.

use std::time::{Duration, Instant};

use byway_wire::ChannelId;
use byway_wire::relay::control::{
    CloseReason, Control, Incoming, MAX_FIRST, MAX_FIRST_BYTES, Role,
};

use super::Node;
use super::peer::{Channel, ChannelState, MAX_CHANNELS, MAX_CHANNELS_PER_RELAY, Peer, Stage};
use crate::cx::cx;
use crate::io::{Event, LinkId, PeerError, PeerId, RelayId, Way};

/// Most peers of one node. A workspace has tens; this bounds memory to some tens of megabytes.
const MAX_PEERS: usize = 4_096;
/// Most peers kept of which nothing is heard any more. A laptop that sleeps comes back; a process that was killed does
/// not, and looks the same. Of many, those that have been silent the longest are given up.
const MAX_LOST: usize = 256;
/// Those that fell silent only now are not among them: when our own link breaks, all who came by it are lost for the moment
/// until it is back.
const LOST_FOR_GOOD: Duration = Duration::from_secs(300);

impl Node {
    pub(super) fn on_incoming(&mut self, now: Instant, link: LinkId, incoming: Incoming) {
        let channel = incoming.channel;
        let Some(relay) = self.links.get(link).map(|l| l.relay) else {
            return;
        };
        let peer = match self.admit(now, link, relay, &incoming) {
            Ok(peer) => peer,
            Err(reason) => {
                let count = match reason {
                    CloseReason::NotAllowed => &mut self.counters.open_refused,
                    _ => &mut self.counters.open_limited,
                };
                *count += 1;
                self.events.push_back(Event::Control {
                    link,
                    message: Control::Closed { channel, reason },
                });
                return;
            }
        };
        if let Some(p) = self.peers.get_mut(&peer) {
            p.channels.push(Channel {
                id: channel,
                relay,
                state: ChannelState::Open { link },
                previous: None,
                attested: None,
                retire_at: None,
                rode: Default::default(),
            });
        }
        self.channels.insert((link, channel), peer);
        self.tell_way(peer, link, channel, true);
        self.events.push_back(Event::Control {
            link,
            message: Control::Accept { channel },
        });
        // Tells the route, so that the answers to what is delivered have a way.
        self.channel_opened(now, peer, link, channel, Some(incoming.observed));
        if !incoming.first.is_empty() {
            // A new call: what the peer knew of us, it has forgotten. Or a relay plays an old one again.
            let by = self.channel_way(link, channel);
            self.question(now, peer, by);
        }
        let mut room = MAX_FIRST_BYTES;
        for data in incoming.first.into_iter().take(MAX_FIRST) {
            if data.len() > room {
                self.counters.first_dropped += 1;
                continue;
            }
            room -= data.len();
            self.events.push_back(Event::Deliver { peer, data });
        }
    }

    /// The peer an opener is or becomes. A refused one leaves nothing behind.
    fn admit(
        &mut self,
        now: Instant,
        link: LinkId,
        relay: RelayId,
        incoming: &Incoming,
    ) -> Result<PeerId, CloseReason> {
        if !self.is_authorised(incoming) {
            return Err(CloseReason::NotAllowed);
        }
        if self.channels.contains_key(&(link, incoming.channel))
            || incoming.channel == ChannelId::ECHO
        {
            return Err(CloseReason::ChannelInUse);
        }
        let content = incoming.record.record();
        if let Some(&id) = self.incoming.get(&content.id)
            && let Some(Peer {
                stage: Stage::Live(live),
                channels,
                ..
            }) = self.peers.get_mut(&id)
        {
            if live.record.record().probe_key != content.probe_key {
                return Err(CloseReason::NotAllowed);
            }
            // The opener draws ids at random: another relay that repeats one would confuse the two channels.
            if channels.iter().any(|c| c.id == incoming.channel) {
                return Err(CloseReason::ChannelInUse);
            }
            if incoming.record.is_newer_than(&live.record) {
                live.record = incoming.record.clone();
            }
            // Whoever calls anew has forgotten its channels. If that is a lie it is the relay's, about its own ones.
            let forgotten: Vec<ChannelId> = channels
                .iter()
                .filter(|c| c.relay == relay && !incoming.first.is_empty())
                .map(|c| c.id)
                .collect();
            for channel in forgotten {
                self.close_channel(id, channel, CloseReason::Done);
            }
            if let Some(peer) = self.peers.get(&id)
                && let Some(channel) = in_the_way(&peer.channels, relay)
            {
                self.close_channel(id, channel, CloseReason::Limit);
            }
            return Ok(id);
        }
        self.give_up_lost(now);
        if self.peers.len() >= MAX_PEERS {
            return Err(CloseReason::Limit);
        }
        let live = self
            .make_live(now, incoming.record.clone())
            .ok_or(CloseReason::NotAllowed)?;
        let id = PeerId(self.next_peer);
        self.next_peer += 1;
        self.indexes.insert(live.paths.own_index(), id);
        self.incoming.insert(live.id, id);
        self.events.push_back(Event::PeerIncoming {
            peer: id,
            id: live.id,
        });
        let peer = Peer {
            node: live.id.node,
            dial: None,
            channels: Vec::new(),
            stage: Stage::Live(Box::new(live)),
        };
        self.peers.insert(id, peer);
        Ok(id)
    }

    /// Asks the peer whether it is where its data goes now, unless that is where the call came from.
    fn question(&mut self, now: Instant, id: PeerId, by: Option<Way>) {
        if let Some(Peer {
            stage: Stage::Live(live),
            ..
        }) = self.peers.get_mut(&id)
            && live.paths.primary_way() != by
        {
            let mut cx = cx!(self, now);
            live.paths.question(&mut cx);
            self.drain_peer(now, id);
        }
    }

    fn is_authorised(&self, incoming: &Incoming) -> bool {
        let opener = incoming.record.record();
        if self.config.role != Role::Agent || opener.id.node == self.id.node {
            return false;
        }
        let admission = &self.config.admission;
        let proved = incoming.proof.as_ref().is_some_and(|proof| {
            // Every secret is tried, so that the time says nothing about which one fits.
            let fits = |s: &byway_wire::TicketSecret| {
                s.verify_open_proof(opener.id, &opener.probe_key, self.id.node, proof)
            };
            admission
                .secrets
                .iter()
                .fold(false, |found, secret| found | fits(secret))
        });
        proved || admission.anyone || admission.nodes.contains(&opener.id.node)
    }

    /// Makes room for one more peer among those that dialled us.
    fn give_up_lost(&mut self, now: Instant) {
        let lost_since = |peer: &Peer| match &peer.stage {
            Stage::Live(live) if peer.dial.is_none() => live.paths.lost_since(),
            _ => None,
        };
        let mut lost: Vec<(Instant, PeerId)> = self
            .peers
            .iter()
            .filter_map(|(&id, peer)| Some((lost_since(peer)?, id)))
            .collect();
        lost.sort();
        let old = lost.partition_point(|(since, _)| *since + LOST_FOR_GOOD <= now);
        let too_many = (lost.len() + 1).saturating_sub(MAX_LOST).min(old);
        let no_room = (self.peers.len() + 1).saturating_sub(MAX_PEERS);
        for (_, id) in lost.into_iter().take(too_many.max(no_room)) {
            self.counters.peer_evicted += 1;
            self.fail_peer(id, PeerError::TimedOut);
        }
    }
}

/// Which channel must go before one more is taken from `relay`. The peer knows which channels it lost: of those that one
/// relay carries, the oldest is the likeliest. A relay that plays old opens again pushes out none but its own.
fn in_the_way(channels: &[Channel], relay: RelayId) -> Option<ChannelId> {
    let through = |relay: RelayId| channels.iter().filter(move |c| c.relay == relay);
    let crowded = if through(relay).count() >= MAX_CHANNELS_PER_RELAY {
        relay
    } else if channels.len() >= MAX_CHANNELS {
        let crowd = |c: &&Channel| through(c.relay).count();
        channels.iter().rev().max_by_key(crowd)?.relay
    } else {
        return None;
    };
    through(crowded).next().map(|c| c.id)
}
