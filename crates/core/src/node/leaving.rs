//! Leaving a relay that is about to stop: its channels' part (see [`crate::link`] for the links').
//!
//! Both sides of a channel hear of it. The one that dialled opens a channel through another relay, unless it has one; each
//! moves its own data there once the peer has answered by it. The old channel is closed by the side that dialled, some time
//! after its data left it, so that what is on its way arrives.
//!
//! A relay that an agent leaves because its map names it no more is left in the same way by that agent and those who dialled it: the
//! one knows by the map, the others by the agent's record.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use byway_wire::RelayUrl;
use byway_wire::relay::control::CloseReason;

use super::Node;
use super::peer::{Peer, Stage};
use super::relay_map::is_in_a_dial;
use crate::cx::cx;
use crate::io::{LinkId, PeerId, RelayId, Way};

/// How long a channel stays open that is of no use any more: the peer moves its data in its own time, and what was under way
/// arrives meanwhile.
const RETIRE: Duration = Duration::from_secs(3);

impl Node {
    pub(super) fn on_going_away(
        &mut self,
        now: Instant,
        link: LinkId,
        deadline_ms: u32,
        alternates: Vec<RelayUrl>,
    ) {
        let deadline = Duration::from_millis(deadline_ms.into());
        let mut cx = cx!(self, now);
        self.links
            .handle_going_away(&mut cx, link, deadline, alternates);
    }

    /// A relay is left from now on. What it named may take its place.
    pub(super) fn on_leave(
        &mut self,
        now: Instant,
        relay: RelayId,
        alternates: Vec<RelayUrl>,
        lasted: bool,
    ) {
        let kept = self.links.is_kept(relay);
        for url in alternates {
            self.make_room(&[]);
            let spared = |relay| is_in_a_dial(&self.peers, relay);
            let Some(other) = self.links.add_alternate(relay, url, kept, spared) else {
                self.counters.control_unexpected += 1;
                continue;
            };
            for peer in self.peers.values_mut() {
                if let Some(dial) = &mut peer.dial
                    && dial.relays.contains(&relay)
                    && !dial.relays.contains(&other)
                    && dial.relays.len() < super::calls::MAX_RELAYS
                {
                    dial.relays.push(other);
                }
            }
        }
        for peer in self.peers.values_mut() {
            let Some(dial) = &mut peer.dial else { continue };
            if !dial.relays.contains(&relay) {
                continue;
            }
            // Who calls by it alone need not wait until it has refused both carriers, but perhaps until the peer has left it.
            if let Stage::Calling(calling) = &mut peer.stage {
                (calling.next_start, calling.moving) = (now, true);
            }
            // Whatever made a second channel wait has nothing to do with this; but a relay that sends everybody away at once must not
            // have us try all the others.
            if lasted {
                (dial.standby_at, dial.standby_failures) = (now, 0);
            }
        }
        self.touch_users(relay);
    }

    /// Where else a peer is looked for that is looked for at a relay which stops: it may have gone there before it was called.
    pub(super) fn add_alternates(&mut self, relays: &mut Vec<RelayId>) {
        let named = |relay: RelayId| {
            let urls = self.links.alternates_of(relay).into_iter();
            urls.map(move |url| (relay, url))
        };
        let named: Vec<(RelayId, RelayUrl)> = relays.iter().copied().flat_map(named).collect();
        for (by, url) in named {
            self.make_room(relays);
            let peers = &self.peers;
            let spared = |relay| relays.contains(&relay) || is_in_a_dial(peers, relay);
            if relays.len() < super::calls::MAX_RELAYS
                && let Some(other) = self.links.add_alternate(by, url, false, spared)
                && !relays.contains(&other)
            {
                relays.push(other);
            }
        }
    }

    /// Has the peers looked at that are, or may be, reached through a relay.
    pub(super) fn touch_users(&mut self, relay: RelayId) {
        let uses = |peer: &Peer| {
            let dial = peer.dial.as_ref();
            dial.is_some_and(|d| d.relays.contains(&relay))
                || peer.channels.iter().any(|c| c.relay == relay)
        };
        let users = self.peers.iter().filter(|(_, peer)| uses(peer));
        self.touched.extend(users.map(|(&id, _)| id));
    }

    /// Tells a peer's paths which of its channels will end, and closes those that nothing needs any more.
    pub(super) fn leave_channels(&mut self, now: Instant, id: PeerId) {
        let Some(Peer {
            dial,
            channels,
            stage: Stage::Live(live),
            ..
        }) = self.peers.get_mut(&id)
        else {
            return;
        };
        let (links, dial) = (&self.links, &*dial);
        // One of the two left the relay.
        let parts = |relay: RelayId| match dial {
            Some(dial) => dial.left.contains(&relay),
            None => links.is_parting(relay),
        };
        let mut cx = cx!(self, now);
        live.paths.set_leaving(&mut cx, |link| {
            let relay = links.get(link).map(|l| l.relay);
            relay.is_some_and(|relay| links.will_stop(relay) || parts(relay))
        });
        let stays = |c: &super::peer::Channel| {
            c.carried_by().is_some() && !links.will_stop(c.relay) && !parts(c.relay)
        };
        if dial.is_none() || !channels.iter().any(stays) {
            channels.iter_mut().for_each(|c| c.retire_at = None);
            return;
        }
        let primary = match live.paths.primary_way() {
            Some(Way::Channel { channel, .. }) => Some(channel),
            _ => None,
        };
        let mut done = Vec::new();
        for c in channels.iter_mut() {
            let left = links.is_leaving(c.relay) || parts(c.relay);
            if !left || Some(c.id) == primary {
                c.retire_at = None;
                continue;
            }
            if *c.retire_at.get_or_insert(now + RETIRE) <= now {
                done.push(c.id);
            }
        }
        for channel in done {
            // Not `Done`: that would say that we forgot the peer.
            self.close_channel(id, channel, CloseReason::Limit);
        }
    }

    /// Relays whose channels somebody uses; only a relay that is left is asked for it.
    pub(super) fn relays_in_use(&self) -> BTreeSet<RelayId> {
        let channels = self.peers.values().flat_map(|peer| &peer.channels);
        channels.map(|c| c.relay).collect()
    }
}
