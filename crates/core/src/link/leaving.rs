//! Leaving a relay that is about to stop (design section 7, "Drain").
//!
//! A relay says some time before it stops that it will (`GoingAway`), and names others that may take its place. Nodes leave
//! it then, make before break: tunnels get a channel through another relay, their data moves there, and only then is the old
//! channel closed; a link that carries nothing any more is hung up. An agent, whose links are kept, hangs up once another of
//! its relays has it, so that it can be reached all the time. Who has nowhere to go stays until the relay ends the link.
//!
//! All nodes of a relay hear of it in one instant, and must not arrive at its neighbours in one: what has a way through another
//! relay is moved there at once, but new links and channels wait for a random share of the first quarter of the time that the
//! relay gives.
//!
//! A relay that was left is not dialled for some seconds, and then again by the usual back-off: while it drains it refuses
//! newcomers, and what answers after that is its successor. It is as good as any other from its `Welcome` on.
//!
//! A newcomer that it refuses is told the same before: whom it calls has gone to the alternates, or will. It was in no hurry to
//! leave, for it has not come in, so it looks there at once.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use byway_wire::RelayUrl;

use super::relay::Phase;
use super::{Links, Output, backoff};
use crate::cx::Cx;
use crate::io::{LinkError, LinkId, RelayId};

/// Most alternates taken from one `GoingAway`: a relay names its neighbours, not the world.
const MAX_NAMED: usize = 4;
/// Nodes spread their departure over this part of the time that is left, and at most over this long: a relay has thousands of
/// nodes, and each that arrives at a neighbour costs that one a handshake.
const SPREAD: u32 = 4;
const SPREAD_MAX: Duration = Duration::from_secs(30);
/// From when nothing needs the link any more until it is hung up: what was said last on it (`Closed`) gets there.
const FAREWELL: Duration = Duration::from_secs(1);
/// A relay that was left is dialled again after this long: the last nodes leave it about then.
const AWAY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(4));

/// Whether a relay is being left.
#[derive(Debug, Default)]
pub(super) enum Leaving {
    #[default]
    No,
    /// It will stop; it is left from then on.
    Announced {
        at: Instant,
        alternates: Vec<RelayUrl>,
    },
    /// Whoever can goes elsewhere, to these for one.
    Now { alternates: Vec<RelayUrl> },
    /// There is no link any more, or none that was welcomed. It is dialled before that for a call or a peer without a channel alone.
    Left {
        until: Instant,
        alternates: Vec<RelayUrl>,
    },
}

impl Leaving {
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Announced { at, .. } => Some(*at),
            Self::Left { until, .. } => Some(*until),
            Self::No | Self::Now { .. } => None,
        }
    }
    /// Until when a relay is left alone that would be dialled again then: that of one that was left, or does not let us in any more, is put
    /// off together with it.
    pub(super) fn rest_until(&mut self, at: Instant) -> Instant {
        match self {
            Self::Left { until, .. } => {
                *until = at.max(*until);
                *until
            }
            Self::No | Self::Announced { .. } | Self::Now { .. } => at,
        }
    }
    pub(super) fn is_now(&self) -> bool {
        matches!(self, Self::Now { .. })
    }
    fn is_under_way(&self) -> bool {
        matches!(self, Self::Now { .. } | Self::Left { .. })
    }
}

impl Links {
    /// The relay of a link will stop in `deadline`. One that has not welcomed us will not do so any more.
    pub(crate) fn handle_going_away(
        &mut self,
        cx: &mut Cx<'_>,
        link: LinkId,
        deadline: Duration,
        mut alternates: Vec<RelayUrl>,
    ) {
        let known = self.links.get(&link).filter(|l| l.is_usable());
        let Some(relay) = known.map(|l| l.relay) else {
            cx.counters.control_unexpected += 1;
            return;
        };
        let welcomed = known.is_some_and(super::Link::is_ready);
        let mut others = self.links.values().filter(|l| l.relay == relay);
        if !welcomed && others.any(super::Link::is_ready) {
            // Two processes behind one name, of which only the other is to stop. It refuses this link, and that is all.
            cx.counters.control_unexpected += 1;
            return;
        }
        let Some(r) = self.relays.get_mut(&relay) else {
            return;
        };
        if !matches!(r.leaving, Leaving::No) {
            return; // It says so on each link.
        }
        self.out.push_back(Output::WillStop { relay });
        alternates.truncate(MAX_NAMED);
        if !welcomed {
            r.leaving = Leaving::Left {
                until: cx.now + cx.rng.between(AWAY.0, AWAY.1),
                alternates: alternates.clone(),
            };
            self.out.push_back(Output::Leave {
                relay,
                alternates,
                lasted: false,
            });
            return;
        }
        let spread = (deadline / SPREAD).min(SPREAD_MAX);
        r.leaving = Leaving::Announced {
            at: cx.now + cx.rng.between(Duration::ZERO, spread),
            alternates,
        };
        self.run_leaving(cx.now, relay);
    }

    /// What is due of a relay's departure.
    pub(super) fn run_leaving(&mut self, now: Instant, relay: RelayId) {
        let Some(r) = self.relays.get_mut(&relay) else {
            return;
        };
        if r.leaving.deadline().is_none_or(|at| at > now) {
            return;
        }
        match std::mem::take(&mut r.leaving) {
            Leaving::Announced { alternates, .. } => {
                let lasted = r.lasted(now);
                r.leaving = Leaving::Now {
                    alternates: alternates.clone(),
                };
                self.out.push_back(Output::Leave {
                    relay,
                    alternates,
                    lasted,
                });
            }
            Leaving::Left { .. } => self.out.push_back(Output::MayReturn { relay }),
            Leaving::No | Leaving::Now { .. } => {}
        }
    }

    /// A link to the relay ended before we did it. What it named is of use all the more.
    pub(super) fn note_stopped(&mut self, relay: RelayId) {
        if self.links.values().any(|l| l.relay == relay) {
            return;
        }
        let leaving = self.relays.get_mut(&relay).map(|r| &mut r.leaving);
        if let Some(leaving @ (Leaving::Announced { .. } | Leaving::Now { .. })) = leaving
            && let Leaving::Announced { alternates, .. } = std::mem::take(leaving)
        {
            self.out.push_back(Output::Leave {
                relay,
                alternates,
                lasted: false,
            });
        }
    }

    /// Of the relays that are left, plans to hang up on those that nothing needs any more.
    pub(super) fn plan_leaving(&mut self, now: Instant, needed: &BTreeSet<RelayId>) {
        let elsewhere = self.is_kept_elsewhere();
        for (id, r) in &mut self.relays {
            if !r.is_left() {
                continue;
            }
            if needed.contains(id) || (r.is_kept() && !elsewhere) {
                r.linger_until = None;
            } else {
                let at = now + FAREWELL;
                if r.linger_until.is_none_or(|t| t > at) {
                    r.linger_until = Some(at);
                }
            }
        }
    }

    /// Hangs up on a relay that stops. False if it does not.
    pub(super) fn leave(&mut self, cx: &mut Cx<'_>, relay: RelayId) -> bool {
        let r = self.relays.get_mut(&relay);
        let Some(r) = r.filter(|r| r.leaving.is_now()) else {
            return false;
        };
        // One that welcomes everybody and sends them away at once is dialled ever more seldom, as one that breaks at once is.
        r.failures = if r.lasted(cx.now) {
            0
        } else {
            r.failures.saturating_add(1)
        };
        let pause = backoff::delay(cx.rng, r.failures, &LinkError::HungUp);
        let until = cx.now + cx.rng.between(AWAY.0, AWAY.1).max(pause);
        let alternates = match std::mem::take(&mut r.leaving) {
            Leaving::Now { alternates } => alternates,
            _ => Vec::new(),
        };
        r.leaving = Leaving::Left { until, alternates };
        r.welcomed = None;
        r.phase = if r.is_kept() {
            Phase::Resting { until }
        } else {
            Phase::Idle
        };
        self.hang_up_all(relay);
        true
    }

    /// True if a relay that does not stop has us, as an agent's relays are to.
    pub(super) fn is_kept_elsewhere(&self) -> bool {
        let mut kept = self.relays.values().filter(|r| r.is_to_stay());
        kept.any(|r| {
            !r.leaving.is_under_way()
                && matches!(r.phase, Phase::Up { link, .. } if self.links.get(&link).is_some_and(super::Link::is_proven))
        })
    }

    pub(super) fn hang_up_all(&mut self, relay: RelayId) {
        let links = self.links.iter().filter(|(_, l)| l.relay == relay);
        for id in links.map(|(&id, _)| id).collect::<Vec<_>>() {
            self.drop_link(id, LinkError::HungUp);
        }
    }

    /// True if it is time to leave the relay, or it was left a moment ago.
    pub(crate) fn is_leaving(&self, relay: RelayId) -> bool {
        let relay = self.relays.get(&relay);
        relay.is_some_and(|r| r.leaving.is_under_way())
    }
    /// True if the relay said that it will stop, or stopped a moment ago: nothing new is to go there.
    pub(crate) fn will_stop(&self, relay: RelayId) -> bool {
        let relay = self.relays.get(&relay);
        relay.is_some_and(|r| !matches!(r.leaving, Leaving::No))
    }
    /// Where to look for peers instead that are looked for at this relay.
    pub(crate) fn alternates_of(&self, relay: RelayId) -> Vec<RelayUrl> {
        match self.relays.get(&relay).map(|r| &r.leaving) {
            Some(
                Leaving::Announced { alternates, .. }
                | Leaving::Now { alternates }
                | Leaving::Left { alternates, .. },
            ) => alternates.clone(),
            Some(Leaving::No) | None => Vec::new(),
        }
    }
    /// True if it is one of these, or stands in for one of them that stops or stopped: of that a peer that is there says nothing
    /// itself.
    pub(crate) fn is_known_by(&self, relay: RelayId, urls: &[RelayUrl]) -> bool {
        // One that stands in may stop as well, and name another: nobody is named by one that came later.
        let mut chain = std::iter::successors(self.relays.get(&relay), |r| {
            r.named.and_then(|by| self.relays.get(&by))
        });
        chain.any(|r| urls.contains(&r.url))
    }
    /// A relay that stopped is back: those that it had named are kept for it no more.
    pub(super) fn give_back(&mut self, relay: RelayId) {
        for other in self.relays.values_mut() {
            if other.named == Some(relay) {
                other.kept = false;
            }
        }
    }
    /// True while any relay is being left.
    pub(crate) fn is_any_leaving(&self) -> bool {
        let mut all = self.relays.values();
        all.any(super::Relay::is_left)
    }
}

#[cfg(test)]
impl Links {
    /// As if no relay had ever said that it will stop.
    pub(crate) fn forget_announcements(&mut self) {
        for relay in self.relays.values_mut() {
            relay.leaving = Leaving::No;
        }
    }
}
