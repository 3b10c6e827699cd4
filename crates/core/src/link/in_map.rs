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
//! What is configured here besides stays whatever the map says, and so does what a peer is reached through that we dialled.

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
    /// It is linked for as long as the map names it.
    Kept,
    /// The map named it, and it is kept until another one has us.
    Waits,
    /// Another one has us: it is left.
    Parting,
}

impl InMap {
    /// True if it is linked for the map's sake, now or still.
    pub(super) fn is_kept(self) -> bool {
        matches!(self, Self::Kept | Self::Waits)
    }
}

impl Links {
    /// The map names these relays from now on, each with whether it is to be kept.
    pub(crate) fn set_map(
        &mut self,
        map: impl IntoIterator<Item = (RelayUrl, Vec<SocketAddr>, bool)>,
    ) -> Vec<(RelayId, RelayUrl)> {
        let mut named = BTreeMap::new();
        let mut known = Vec::new();
        for (url, addrs, kept) in map {
            if let Some(id) = self.add(url.clone(), addrs, false) {
                named.insert(id, kept);
                known.push((id, url));
            }
        }
        let mut gone = Vec::new();
        for (&id, r) in &mut self.relays {
            r.in_map = match (named.get(&id), r.in_map) {
                (Some(true), _) => {
                    // The map's word counts, not that of the relay which named it first.
                    r.kept &= r.named.take().is_none();
                    InMap::Kept
                }
                // Configured here as well, or it would not be `kept`.
                (_, InMap::Kept | InMap::Waits) if r.kept => InMap::No,
                (_, InMap::Kept | InMap::Waits) => {
                    gone.push(id);
                    InMap::Waits
                }
                (_, InMap::Parting) => InMap::Parting,
                (Some(false), _) => InMap::Named,
                (None, InMap::Named) if matches!(r.phase, Phase::Idle) => {
                    self.out.push_back(Output::Dropped { relay: id });
                    InMap::No
                }
                (None, _) => InMap::No,
            };
        }
        for id in gone {
            self.take_back(id);
        }
        known
    }

    /// Relays that stood in for one which is left now are kept no longer than it is.
    fn take_back(&mut self, relay: RelayId) {
        for other in self.relays.values_mut() {
            if other.named == Some(relay) && other.kept {
                other.kept = false;
                other.in_map = InMap::Waits;
            }
        }
    }

    /// Leaves what the map names no more, if another relay has us; keeps it after all if none has us any more. True if anything
    /// changed.
    pub(super) fn part(&mut self, now: Instant) -> bool {
        let is = |what: InMap| self.relays.values().any(|r| r.in_map == what);
        if is(InMap::Waits) && self.successors(Link::is_proven).any(|r| r.lasted(now)) {
            self.leave_waiting();
            return true;
        }
        // A link whose data is being asked for once more has not failed.
        if is(InMap::Parting) && self.successors(Link::may_carry_data).next().is_none() {
            self.keep_parting();
            return true;
        }
        false
    }

    /// When a relay will have had us for long enough, if one waits for that.
    pub(super) fn parts_at(&self) -> Option<Wake> {
        let waits = |r: &Relay| r.in_map == InMap::Waits;
        self.relays.values().find(|r| waits(r))?;
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
        for (&relay, r) in &mut self.relays {
            if r.in_map != InMap::Waits {
                continue;
            }
            r.in_map = InMap::Parting;
            self.out.push_back(Output::Parting { relay });
            if matches!(r.phase, Phase::Idle) {
                r.in_map = InMap::No;
                self.out.push_back(Output::Dropped { relay });
            }
        }
    }

    fn keep_parting(&mut self) {
        for (&relay, r) in &mut self.relays {
            if r.in_map == InMap::Parting {
                r.in_map = InMap::Waits;
                self.out.push_back(Output::KeptAfterAll { relay });
            }
        }
    }

    /// A relay goes idle. If it was left for the map, that is done.
    pub(super) fn note_parted(&mut self, relay: RelayId) {
        if let Some(r) = self.relays.get_mut(&relay)
            && r.in_map == InMap::Parting
        {
            r.in_map = InMap::No;
            self.take_back(relay);
            self.out.push_back(Output::Dropped { relay });
        }
    }

    /// A relay that was left is known no more, unless it is in use again.
    pub(crate) fn forget(&mut self, relay: RelayId) {
        let idle = |r: &Relay| matches!(r.phase, Phase::Idle) && !r.is_kept();
        if self.relays.get(&relay).is_some_and(idle) {
            self.relays.remove(&relay);
        }
    }

    /// True if the map names the relay no more, and another one has us.
    pub(crate) fn is_parting(&self, relay: RelayId) -> bool {
        let relay = self.relays.get(&relay);
        relay.is_some_and(|r| r.in_map == InMap::Parting)
    }
    /// True if the map names a relay of this URL no more, and it is kept for want of another.
    pub(crate) fn still_kept(&self, url: &RelayUrl) -> bool {
        self.of_url(url).is_some_and(|r| r.in_map == InMap::Waits)
    }
    /// True if it is, or may come to that again.
    pub(crate) fn is_not_left_yet(&self, url: &RelayUrl) -> bool {
        self.of_url(url)
            .is_some_and(|r| matches!(r.in_map, InMap::Waits | InMap::Parting))
    }
    fn of_url(&self, url: &RelayUrl) -> Option<&Relay> {
        self.relays.values().find(|r| r.url == *url)
    }
    /// True if another relay named it, which stops or stopped: a peer that is there says nothing of it itself.
    pub(crate) fn is_stand_in(&self, relay: RelayId) -> bool {
        let relay = self.relays.get(&relay);
        relay.is_some_and(|r| r.named.is_some())
    }
    /// True if a relay of other name or pin is known at the same host and port, and used or to be used.
    pub(crate) fn has_namesake(&self, relay: RelayId) -> bool {
        let Some(authority) = self.url(relay).map(RelayUrl::authority) else {
            return false;
        };
        let mut others = self.relays.iter().filter(|(id, _)| **id != relay);
        others.any(|(_, r)| {
            let idle = matches!(r.phase, Phase::Idle) && r.in_map == InMap::No && !r.kept;
            !idle && r.url.authority() == authority
        })
    }
}
