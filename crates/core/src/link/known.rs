//! Which relays a node knows, and which of them it wants linked.
//!
//! Peers have a part in what is known: their tickets and records name relays. So there is a bound, and who reaches it pushes out
//! only what nobody has any use for: no relay that is kept, linked, configured, in the map, or where a peer is looked for.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use byway_wire::RelayUrl;

use super::Links;
use super::relay::{Phase, Relay};
use crate::cx::Cx;
use crate::io::RelayId;

/// How long a client keeps a link nobody needs: the next command or tunnel often goes to the same place.
const LINGER: Duration = Duration::from_secs(30);
/// Most relays a node knows: far more than any directory of regions, and a bound on what `GoingAway` can add.
const MAX_RELAYS: usize = 256;
/// Most relays that `GoingAway` may introduce: a region's neighbours. Without a bound one relay could have every node
/// dial any host there is.
const MAX_ALTERNATES: usize = 8;

impl Links {
    /// Knows a relay from now on; the same URL is the same relay. None when there are too many: see [`Links::make_room`].
    pub(crate) fn add(
        &mut self,
        url: RelayUrl,
        addrs: Vec<SocketAddr>,
        kept: bool,
    ) -> Option<RelayId> {
        if let Some((&id, relay)) = self.relays.iter_mut().find(|(_, r)| r.url == url) {
            relay.learn(addrs);
            if kept {
                // Asked for here as well: not given back when whoever named it is back.
                (relay.kept, relay.named) = (true, None);
            }
            return Some(id);
        }
        if self.relays.len() >= MAX_RELAYS {
            return None;
        }
        let id = RelayId(self.next_relay);
        self.next_relay += 1;
        self.relays.insert(id, Relay::new(url, addrs, kept));
        Some(id)
    }

    /// Knows a relay that another one named. None when relays have named enough that are in use, or `spared`.
    pub(crate) fn add_alternate(
        &mut self,
        by: RelayId,
        url: RelayUrl,
        kept: bool,
        spared: impl Fn(RelayId) -> bool,
    ) -> Option<RelayId> {
        let known = self.relays.values().any(|r| r.url == url);
        let named = self.relays.values().filter(|r| r.named.is_some());
        let full = !known && named.count() >= MAX_ALTERNATES;
        if full && !self.forget_one_idle_if(|id, r| r.named.is_some() && !spared(id)) {
            return None;
        }
        // What was known before is what it was: no other relay makes it one that is kept.
        let id = self.add(url, Vec::new(), kept && !known)?;
        if let Some(r) = self.relays.get_mut(&id) {
            if !known {
                r.named = Some(by);
            } else if r.named.is_some() {
                r.kept |= kept;
            }
        }
        Some(id)
    }

    /// If there are as many as there may be, drops one that nobody keeps, needs or names; `spared` has a use for it.
    pub(crate) fn make_room(&mut self, spared: impl Fn(RelayId, &RelayUrl) -> bool) {
        if self.relays.len() >= MAX_RELAYS {
            self.forget_one_idle_if(|id, r| !spared(id, &r.url));
        }
    }
    fn forget_one_idle_if(&mut self, which: impl Fn(RelayId, &Relay) -> bool) -> bool {
        let mut all = self.relays.iter();
        let idle = all.find(|(id, r)| r.is_of_no_use() && which(**id, r));
        let idle = idle.map(|(&id, _)| id);
        idle.is_some_and(|id| self.relays.remove(&id).is_some())
    }

    /// Which relays peers need now, beside those that are kept. Starts races and lets links linger out.
    /// True if that changed anything.
    pub(crate) fn set_needed(&mut self, cx: &mut Cx<'_>, needed: &BTreeSet<RelayId>) -> bool {
        let mut changed = self.part(cx.now);
        self.plan_leaving(cx.now, needed);
        let ids: Vec<RelayId> = self.relays.keys().copied().collect();
        for id in ids {
            let Some(relay) = self.relays.get_mut(&id) else {
                continue;
            };
            if relay.is_left() && !matches!(relay.phase, Phase::Idle) {
                continue;
            }
            let wanted = relay.is_kept() || needed.contains(&id);
            if wanted {
                relay.linger_until = None;
                if matches!(relay.phase, Phase::Idle) {
                    self.start_race(cx, id);
                    changed = true;
                }
            } else if !matches!(relay.phase, Phase::Idle) && relay.linger_until.is_none() {
                relay.linger_until = Some(cx.now + LINGER);
            }
        }
        changed
    }
}
