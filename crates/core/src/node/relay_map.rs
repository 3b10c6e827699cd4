//! The relays of this node: those that are configured, and those of a relay map, which may be another one at any time.
//!
//! An agent keeps links to all that it can be found at, and its record names them: those configured first, then the map's in
//! the map's order. A record names eight ([`MAX_RECORD_RELAYS`]), and a link that nobody is told of is of no use, so of a map
//! with more an agent keeps as many as are left. They are taken region by region in turn, so that what is left out is never a
//! whole region while another has two. A client keeps none; it asks the map's relays by STUN.
//!
//! How relays are left that the map names no more is told in `link::in_map`. The record goes on naming one for as long as it
//! is kept for want of another, and such ones come first if they ever had the node: there it is to be found beyond doubt. A
//! record is cut off at its end, by number and by length; of more than fit, those that have the node now come first.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Instant;

use byway_wire::relay::control::Role;
use byway_wire::{RelayUrl, SignedRecord};

use super::peer::Peer;
use super::{MAX_RECORD_RELAYS, Node};
use crate::io::{Event, MapRelay, PeerId, RelayId};

/// Which relays are this node's own.
#[derive(Debug, Default)]
pub(super) struct OwnRelays {
    configured: Vec<RelayUrl>,
    /// All that the map names, in its order.
    map: Vec<RelayUrl>,
    /// Those of them that an agent keeps.
    chosen: Vec<RelayUrl>,
    /// Those that it kept before; the record names one for as long as it is still kept.
    before: Vec<RelayUrl>,
    /// The record does not name all that it should: it has no room.
    cut: bool,
    /// The record may have to be another one.
    stale: bool,
}

impl OwnRelays {
    /// What an agent keeps of a map, by position.
    fn choose(&self, map: &[MapRelay]) -> BTreeSet<usize> {
        let mut room = MAX_RECORD_RELAYS.saturating_sub(self.configured.len());
        let mut regions: Vec<(&str, Vec<usize>)> = Vec::new();
        let mut chosen = BTreeSet::new();
        for (n, relay) in map.iter().enumerate() {
            if self.configured.contains(&relay.url) {
                // It has its place, and keeps it when it is configured no more.
                chosen.insert(n);
                continue;
            }
            match regions.iter_mut().find(|(name, _)| *name == relay.region) {
                Some((_, relays)) => relays.push(n),
                None => regions.push((&relay.region, vec![n])),
            }
        }
        let rounds = regions.iter().map(|(_, relays)| relays.len()).max();
        for round in 0..rounds.unwrap_or_default() {
            for (_, relays) in &regions {
                if let Some(n) = relays.get(round).filter(|_| room > 0) {
                    room -= 1;
                    chosen.insert(*n);
                }
            }
        }
        chosen
    }
}

impl Node {
    /// How many of its own relays a node asks at most, the first of them, how they are reached ([`Node::refresh`]): a map of
    /// regions, and no flood of handshakes.
    pub const MAX_ASKED: usize = 32;

    /// Keep a link to this relay (an agent's relays; a client's only while a peer needs them), whatever a map says.
    pub fn add_relay(&mut self, now: Instant, url: RelayUrl, addrs: Vec<SocketAddr>) -> RelayId {
        self.now = now;
        let agent = self.config.role == Role::Agent;
        self.add_relay_servers(now, &url, &addrs);
        self.make_room(&[]);
        let id = self
            .links
            .add(url.clone(), addrs, agent)
            .unwrap_or(RelayId(u32::MAX));
        if !self.own.configured.contains(&url) {
            self.own.configured.push(url);
            self.own.stale = true;
        }
        self.settle(now);
        id
    }

    /// The relays of the map, which takes the place of the one before. An agent keeps links to those that are new; those that
    /// are gone it leaves once another relay has it and its clients' channels have moved ([`Event::RelayDropped`]). What was
    /// added by [`Node::add_relay`], and what peers that were dialled are reached through, stays. Answers with the relays that the
    /// node knows now by the map.
    pub fn set_relay_map(&mut self, now: Instant, map: Vec<MapRelay>) -> Vec<(RelayId, RelayUrl)> {
        self.now = now;
        // Two of the largest maps are as many relays as a node knows: the one before makes room first.
        let stays = |url: &RelayUrl| map.iter().any(|relay| relay.url == *url);
        self.links.drop_from_map(stays);
        self.settle(now);
        for relay in &map {
            self.add_relay_servers(now, &relay.url, &relay.addrs);
        }
        let kept = match self.config.role {
            Role::Agent => self.own.choose(&map),
            Role::Client => BTreeSet::new(),
        };
        let own = &mut self.own;
        let chosen = kept.iter().filter_map(|n| Some(map.get(*n)?.url.clone()));
        let mut before = std::mem::replace(&mut own.chosen, chosen.collect());
        before.append(&mut own.before);
        own.map = map.iter().map(|relay| relay.url.clone()).collect();
        own.stale = true;
        let map = map.into_iter().enumerate();
        let map = map.map(|(n, relay)| (relay.url, relay.addrs, kept.contains(&n)));
        let (peers, configured) = (&self.peers, &self.own.configured);
        let spared = |id: RelayId, url: &RelayUrl| is_spared(peers, configured, id, url);
        let known = self.links.set_map(map, spared);
        before.retain(|url| self.links.is_not_left_yet(url));
        self.own.before = before;
        self.settle(now);
        known
    }

    /// The name of a relay was looked up. Of one that is none of the node's own (any more) nothing is noted.
    pub fn handle_relay_addrs(&mut self, now: Instant, url: &RelayUrl, addrs: Vec<SocketAddr>) {
        self.now = now;
        if self.own.configured.contains(url) || self.own.map.contains(url) {
            self.add_relay_servers(now, url, &addrs);
            self.know(url.clone(), addrs, &[]);
        }
        self.settle(now);
    }

    /// The node's own relays: those configured, the map's, and those that are still kept though the map names them no more.
    pub fn own_relays(&self) -> Vec<RelayUrl> {
        self.listed(&self.own.map)
    }

    /// What the record is to name.
    fn found_at(&self) -> Vec<RelayUrl> {
        if self.config.role == Role::Client {
            return Vec::new();
        }
        let had_us = |url: &&RelayUrl| self.links.still_kept(url) && self.links.had_us(url);
        let mut list: Vec<RelayUrl> = self.own.before.iter().filter(had_us).cloned().collect();
        // Maps may change faster than relays are left: those that it is at now come before those that it was at.
        list.sort_by_key(|url| !self.links.has_us(url));
        for url in self.listed(&self.own.chosen) {
            if !list.contains(&url) {
                list.push(url);
            }
        }
        list
    }

    /// Those that are linked to for who asks how relays are reached. What peers are reached through is linked for that.
    pub(super) fn relays_to_ask(&self) -> Vec<RelayId> {
        let mut own = self.own_relays();
        own.truncate(Self::MAX_ASKED);
        self.links.known_as(&own)
    }

    fn listed(&self, map: &[RelayUrl]) -> Vec<RelayUrl> {
        let own = &self.own;
        let before = own.before.iter().filter(|url| self.links.still_kept(url));
        let mut list = own.configured.clone();
        for url in map.iter().chain(before) {
            if !list.contains(url) {
                list.push(url.clone());
            }
        }
        list
    }

    /// Has the record name the relays at which the node is to be found. True if it is another one.
    pub(super) fn renew_record(&mut self) -> bool {
        if !std::mem::take(&mut self.own.stale) {
            return false;
        }
        let mut relays = self.found_at();
        let mut record = self.sign(relays.clone());
        self.own.cut = record.record().relays.len() < relays.len();
        if self.own.cut {
            relays.sort_by_key(|url| !self.links.has_us(url));
            record = self.sign(relays);
        }
        if record.record().relays == self.record.record().relays {
            return false;
        }
        self.record = record;
        self.links.set_record(self.record.clone());
        true
    }

    fn sign(&self, relays: Vec<RelayUrl>) -> SignedRecord {
        let mut content = self.record.record().clone();
        content.seq += 1;
        content.relays = relays;
        SignedRecord::sign(&self.key, content)
    }

    /// A relay has us: it may be one that is to be named before others.
    pub(super) fn on_found(&mut self, relay: RelayId) {
        let url = self.links.url(relay);
        self.own.stale |= self.own.cut || url.is_some_and(|url| self.links.still_kept(url));
    }

    /// The map names a relay no more, and another one has us: who came by it goes elsewhere. Or none has us any more, and it is to
    /// be come by for the time being.
    pub(super) fn on_parting(&mut self, relay: RelayId) {
        self.own.stale = true;
        self.touch_users(relay);
    }

    /// A relay was left, or never used, and is none of the node's own any more.
    pub(super) fn on_dropped(&mut self, now: Instant, relay: RelayId) {
        self.own.stale = true;
        if let Some(url) = self.links.url(relay).cloned()
            && !self.links.has_namesake(relay)
        {
            self.forget_relay_servers(now, &url);
        }
        // Who was reached through it may look for it again.
        if !is_in_a_dial(&self.peers, relay) {
            self.links.forget(relay);
        }
        self.events.push_back(Event::RelayDropped { relay });
    }

    /// A peer is not looked for at this relay any more. If it was alone in that, and nobody asked for it here, it is known no
    /// more: a peer may name others as often as it likes.
    pub(super) fn let_go(&mut self, now: Instant, relay: RelayId) {
        let Some(url) = self.links.url(relay).cloned() else {
            return;
        };
        if is_in_a_dial(&self.peers, relay) || self.own.configured.contains(&url) {
            return;
        }
        let namesake = self.links.has_namesake(relay);
        if self.links.forget(relay) {
            if !namesake {
                self.forget_relay_servers(now, &url);
            }
            self.events.push_back(Event::RelayDropped { relay });
        }
    }

    /// Knows a relay from now on; `new` are others that are about to be used. None when there are too many that are of use.
    pub(super) fn know(
        &mut self,
        url: RelayUrl,
        addrs: Vec<SocketAddr>,
        new: &[RelayId],
    ) -> Option<RelayId> {
        self.make_room(new);
        self.links.add(url, addrs, false)
    }

    /// See [`crate::link::Links::make_room`].
    pub(super) fn make_room(&mut self, new: &[RelayId]) {
        let (peers, configured) = (&self.peers, &self.own.configured);
        self.links
            .make_room(|id, url| new.contains(&id) || is_spared(peers, configured, id, url));
    }
}

/// True of a relay where a peer is looked for, and of one that is configured (a client keeps neither).
fn is_spared(
    peers: &BTreeMap<PeerId, Peer>,
    configured: &[RelayUrl],
    relay: RelayId,
    url: &RelayUrl,
) -> bool {
    configured.contains(url) || is_in_a_dial(peers, relay)
}

/// True of a relay at which a peer is looked for.
pub(super) fn is_in_a_dial(peers: &BTreeMap<PeerId, Peer>, relay: RelayId) -> bool {
    let mut dials = peers.values().filter_map(|peer| peer.dial.as_ref());
    dials.any(|dial| dial.relays.contains(&relay))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(name: &str) -> RelayUrl {
        RelayUrl::new(&format!("{name}.test"), 443, None).unwrap()
    }
    /// Named by region and number.
    fn map(relays: &[&str]) -> Vec<MapRelay> {
        let relay = |name: &&str| MapRelay {
            url: url(name),
            addrs: Vec::new(),
            region: name[..1].to_owned(),
        };
        relays.iter().map(relay).collect()
    }
    fn chosen(own: &OwnRelays, relays: &[&str]) -> String {
        let chosen = own.choose(&map(relays));
        let names: Vec<&str> = chosen.into_iter().map(|n| relays[n]).collect();
        names.join(" ")
    }

    #[test]
    fn of_a_small_map_all_are_kept() {
        let own = OwnRelays::default();
        assert_eq!(chosen(&own, &["a1", "a2", "b1"]), "a1 a2 b1");
        assert_eq!(chosen(&own, &[]), "");
    }

    #[test]
    fn of_a_large_one_no_region_has_two_while_another_has_none() {
        let own = OwnRelays::default();
        let large = [
            "a1", "a2", "a3", "a4", "a5", "a6", "a7", "a8", "b1", "b2", "c1",
        ];
        assert_eq!(chosen(&own, &large), "a1 a2 a3 a4 a5 b1 b2 c1");
        let one_each = ["a1", "b1", "c1", "d1", "e1", "f1", "g1", "h1", "i1"];
        assert_eq!(chosen(&own, &one_each), "a1 b1 c1 d1 e1 f1 g1 h1");
    }

    #[test]
    fn what_is_configured_takes_room_and_is_counted_once() {
        let configured = (0..7).map(|n| url(&format!("x{n}"))).collect();
        let own = OwnRelays {
            configured,
            ..OwnRelays::default()
        };
        assert_eq!(chosen(&own, &["x3", "a1", "a2"]), "x3 a1");
    }
}
