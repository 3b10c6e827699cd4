//! The relay map's part of links: which relays it has a node keep, and how those are left that it names no more.
//!
//! A map is replaced while links are up and tunnels run over them. A relay that is new in it is linked at once. One that is
//! gone from it is left as one that stops (see `leaving`), make before break, only at nobody's deadline:
//!
//! 1. It *waits*: it is kept as before until another relay that this node is to keep has us, over a link that has lasted ten
//!    seconds and is known to carry data, and says nothing of its own end. A map that names relays which nobody can reach, or
//!    which welcome everybody and break at once, costs nothing but that.
//! 2. It is *parting*: the node's record names it no more, by which clients learn of it; their channels and our data go
//!    elsewhere. The link stays for as long as a channel is on it, and is hung up a second after the last one. If none of
//!    those that are to stay has us any more before that, it waits again.
//!
//! What is configured here besides stays whatever the map says, and so does what a peer is reached through that we dialled, until
//! no peer needs it any more. A map may name more than is kept: a relay that loses its place to another is left in the same way,
//! and is one of the map's still.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use byway_wire::RelayUrl;

use super::leaving::Leaving;
use super::race::STEADY;
use super::relay::{Phase, Relay};
use super::{Link, Links, Output};
use crate::cx::Wake;
use crate::io::RelayId;

/// What the map says of a relay.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum InMap {
    /// Nothing.
    #[default]
    No,
    /// It names it, and nobody keeps it for that.
    Named,
    /// It named it, and nobody kept it for that; a peer is reached through it for now.
    Gone,
    /// It is linked for as long as the map has it linked.
    Kept,
    /// It was, and is kept until another one has us. `named`: the map has it still, beside more than are kept.
    Waits { named: bool },
    /// Another one has us: it is left.
    Parting { named: bool },
}

impl InMap {
    /// True if it is linked for the map's sake, now or still.
    pub(super) fn is_kept(self) -> bool {
        matches!(self, Self::Kept | Self::Waits { .. })
    }
    fn waits(self) -> bool {
        matches!(self, Self::Waits { .. })
    }
    pub(super) fn is_parting(self) -> bool {
        matches!(self, Self::Parting { .. })
    }

    /// What it is once it is idle, if that makes a difference.
    fn when_idle(self) -> Option<Self> {
        match self {
            Self::Parting { named: true } => Some(Self::Named),
            Self::Parting { named: false } | Self::Gone => Some(Self::No),
            Self::No | Self::Named | Self::Kept | Self::Waits { .. } => None,
        }
    }
}

impl Links {
    /// The map names these relays from now on, each with whether it is to be kept; what is gone from it was dropped before.
    /// `spared`: see [`Links::make_room`].
    pub(crate) fn set_map(
        &mut self,
        map: impl IntoIterator<Item = (RelayUrl, Vec<SocketAddr>, bool)>,
        spared: impl Fn(RelayId, &RelayUrl) -> bool,
    ) -> Vec<(RelayId, RelayUrl)> {
        let mut named = BTreeMap::new();
        let mut known = Vec::new();
        for (url, addrs, kept) in map {
            self.make_room(|id, url| spared(id, url) || named.contains_key(&id));
            if let Some(id) = self.add(url.clone(), addrs, false) {
                named.insert(id, kept);
                known.push((id, url));
            }
        }
        let mut gone = Vec::new();
        for (&id, r) in &mut self.relays {
            let word = named.get(&id);
            let named = word.is_some();
            r.in_map = match (word, r.in_map) {
                (Some(true), _) => {
                    // The map's word counts, not that of the relay which named it first.
                    r.kept &= r.named.take().is_none();
                    InMap::Kept
                }
                (_, InMap::Parting { .. }) => InMap::Parting { named },
                // What is configured here as well is linked all the same.
                (_, InMap::Kept | InMap::Waits { .. }) if !r.kept => {
                    gone.push(id);
                    InMap::Waits { named }
                }
                (Some(false), _) => InMap::Named,
                (None, InMap::Gone) => InMap::Gone,
                (None, _) => InMap::No,
            };
        }
        for id in gone {
            self.take_back(id);
        }
        known
    }

    /// What the map named, and nobody kept for that, is gone from it unless it `stays`.
    pub(crate) fn drop_from_map(&mut self, stays: impl Fn(&RelayUrl) -> bool) {
        for r in self.relays.values_mut() {
            if r.in_map == InMap::Named && !stays(&r.url) {
                r.in_map = InMap::Gone;
            }
        }
        for id in self.relays.keys().copied().collect::<Vec<_>>() {
            self.note_idle(id);
        }
    }

    /// Relays that stood in for one which is left now are kept no longer than it is.
    fn take_back(&mut self, relay: RelayId) {
        for other in self.relays.values_mut() {
            if other.named == Some(relay) && other.kept {
                other.kept = false;
                let named = other.in_map == InMap::Named;
                other.in_map = InMap::Waits { named };
            }
        }
    }

    /// Leaves what the map names no more, if another relay has us; keeps it after all if none has us any more. True if anything
    /// changed.
    pub(super) fn part(&mut self, now: Instant) -> bool {
        let is = |what: fn(InMap) -> bool| self.relays.values().any(|r| what(r.in_map));
        if is(InMap::waits) && self.successors(Link::is_proven).any(|r| r.lasted(now)) {
            self.leave_waiting();
            return true;
        }
        // A link whose data is being asked for once more has not failed.
        if is(InMap::is_parting) && self.successors(Link::may_carry_data).next().is_none() {
            self.keep_parting();
            return true;
        }
        false
    }

    /// When a relay will have had us for long enough, if one waits for that.
    pub(super) fn parts_at(&self) -> Option<Wake> {
        self.relays.values().find(|r| r.in_map.waits())?;
        let welcomed = self.successors(Link::is_proven).filter_map(|r| r.welcomed);
        let first = welcomed.min()?;
        Some((first + STEADY, "relay that takes over"))
    }

    /// The relays in whose favour others may be left: they are to stay, nobody else's stand-in, say nothing of their own end, and
    /// have us over such a link.
    fn successors(&self, good: impl Fn(&Link) -> bool) -> impl Iterator<Item = &Relay> {
        self.relays.values().filter(move |r| {
            let link = match r.phase {
                Phase::Up { link, .. } => self.links.get(&link),
                _ => None,
            };
            r.is_to_stay()
                && r.named.is_none()
                && matches!(r.leaving, Leaving::No)
                && link.is_some_and(&good)
        })
    }

    fn leave_waiting(&mut self) {
        let mut left = Vec::new();
        for (&relay, r) in &mut self.relays {
            if let InMap::Waits { named } = r.in_map {
                r.in_map = InMap::Parting { named };
                self.out.push_back(Output::Parting { relay });
                left.push(relay);
            }
        }
        for relay in left {
            self.note_idle(relay);
        }
    }

    fn keep_parting(&mut self) {
        for (&relay, r) in &mut self.relays {
            if let InMap::Parting { named } = r.in_map {
                r.in_map = InMap::Waits { named };
                self.out.push_back(Output::KeptAfterAll { relay });
            }
        }
    }

    /// A relay that is idle was left, if that was what the map had done with it.
    fn note_idle(&mut self, relay: RelayId) {
        let r = self.relays.get(&relay);
        if r.is_some_and(|r| matches!(r.phase, Phase::Idle)) {
            self.note_parted(relay);
        }
    }

    /// A relay goes idle. If it was left for the map, that is done.
    pub(super) fn note_parted(&mut self, relay: RelayId) {
        let Some(r) = self.relays.get_mut(&relay) else {
            return;
        };
        let Some(next) = r.in_map.when_idle() else {
            return;
        };
        let before = std::mem::replace(&mut r.in_map, next);
        if before.is_parting() {
            self.take_back(relay);
        }
        if next == InMap::No {
            self.out.push_back(Output::Dropped { relay });
        }
    }

    /// A relay is known no more, unless it is of use. True if that is so.
    pub(crate) fn forget(&mut self, relay: RelayId) -> bool {
        let r = self.relays.get(&relay);
        r.is_some_and(Relay::is_of_no_use) && self.relays.remove(&relay).is_some()
    }

    /// True if the map names the relay no more, and another one has us.
    pub(crate) fn is_parting(&self, relay: RelayId) -> bool {
        let relay = self.relays.get(&relay);
        relay.is_some_and(|r| r.in_map.is_parting())
    }
    /// True if the map names a relay of this URL no more, and it is kept for want of another.
    pub(crate) fn still_kept(&self, url: &RelayUrl) -> bool {
        self.of_url(url).is_some_and(|r| r.in_map.waits())
    }
    /// True if it is, or may come to that again.
    pub(crate) fn is_not_left_yet(&self, url: &RelayUrl) -> bool {
        self.of_url(url)
            .is_some_and(|r| r.in_map.waits() || r.in_map.is_parting())
    }
    /// True if the relay of this URL has us now.
    pub(crate) fn has_us(&self, url: &RelayUrl) -> bool {
        let Some(Phase::Up { link, .. }) = self.of_url(url).map(|r| &r.phase) else {
            return false;
        };
        self.links.get(link).is_some_and(Link::is_ready)
    }
    /// True if it has, or ever had.
    pub(crate) fn had_us(&self, url: &RelayUrl) -> bool {
        self.of_url(url).is_some_and(|r| r.last_carrier.is_some())
    }
    /// The relays of these URLs.
    pub(crate) fn known_as(&self, urls: &[RelayUrl]) -> Vec<RelayId> {
        let known = self.relays.iter().filter(|(_, r)| urls.contains(&r.url));
        known.map(|(&id, _)| id).collect()
    }
    fn of_url(&self, url: &RelayUrl) -> Option<&Relay> {
        self.relays.values().find(|r| r.url == *url)
    }
    /// True if a relay of other name or pin is known at the same host and port, and used or to be used.
    pub(crate) fn has_namesake(&self, relay: RelayId) -> bool {
        let Some(authority) = self.url(relay).map(RelayUrl::authority) else {
            return false;
        };
        let mut others = self.relays.iter().filter(|(id, _)| **id != relay);
        others.any(|(_, r)| !r.is_of_no_use() && r.url.authority() == authority)
    }
}
