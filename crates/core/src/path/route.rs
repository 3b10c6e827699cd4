//! Which path carries data: judging, the standby, and telling the shell.

use std::time::Duration;

use super::check::Path;
use super::paths::{Output, Paths};
use super::score::{PathId, Standing, Verdict, score};
use crate::cx::Cx;
use crate::io::{Health, PathKind, Route, RouteReason, Way};

/// A challenger must be better in this many samples in a row.
const HOLD: u32 = 3;

impl Paths {
    /// Judges the paths and moves if the policy says so. `tick`: this is one of the regular samples. `reason` is given
    /// for a change that follows.
    pub(super) fn review(&mut self, cx: &mut Cx<'_>, tick: bool, reason: RouteReason) {
        if self.doubt.is_some() && self.primary.is_some() {
            self.tell(cx, RouteReason::Standby);
            return;
        }
        let mut standings: Vec<Standing> = self
            .table
            .values()
            .filter(|p| self.may_carry(cx, p))
            .map(Path::standing)
            .collect();
        if standings.is_empty() && self.primary.is_none() {
            // Better a doubtful channel than none.
            standings = self
                .table
                .values()
                .filter(|p| !p.is_direct())
                .map(Path::standing)
                .collect();
        }
        match self.policy.judge(self.primary, &standings) {
            Verdict::Keep => self.challenger = None,
            Verdict::Move(id) => match self.return_hold(id) {
                0 => {
                    let returned = self.primary.is_none() && self.epoch > 0;
                    self.set_primary(cx, id, reason);
                    if returned {
                        self.out.push_back(Output::Replay);
                    }
                }
                hold => self.challenge(cx, id, hold, tick),
            },
            Verdict::Challenge(id) => self.challenge(cx, id, HOLD.max(self.return_hold(id)), tick),
        }
        self.tell(
            cx,
            if self.primary.is_none() {
                RouteReason::NoPath
            } else {
                RouteReason::Standby
            },
        );
    }

    /// For how many samples a move to this path must wait because data left it before.
    fn return_hold(&self, id: PathId) -> u32 {
        let stops = self.primary_path().is_some_and(|p| p.leaving);
        match (self.primary, self.table.get(&id)) {
            (Some(_), Some(path)) if !stops => path.return_hold(),
            _ => 0,
        }
    }

    /// Moves once `id` was better for `hold` samples in a row.
    fn challenge(&mut self, cx: &mut Cx<'_>, id: PathId, hold: u32, tick: bool) {
        let held = match self.challenger {
            Some((known, held)) if known == id => held,
            _ => 0,
        } + u32::from(tick);
        if held >= hold {
            self.set_primary(cx, id, RouteReason::Better);
        } else {
            self.challenger = Some((id, held));
        }
    }

    pub(super) fn set_primary(&mut self, cx: &mut Cx<'_>, id: PathId, reason: RouteReason) {
        self.challenger = None;
        self.doubt = None;
        self.ping_tries = 0;
        if self.primary == Some(id) {
            return;
        }
        let worse = |old: &Path| {
            let new = self.table.get(&id);
            new.is_some_and(|new| new.way.kind() > old.way.kind())
        };
        if self.primary_path().is_some_and(worse)
            && let Some(left) = self.primary.and_then(|old| self.table.get_mut(&old))
        {
            left.note_left();
        }
        self.primary = Some(id);
        self.primary_since = cx.now;
        self.epoch += 1;
        // Idle tunnels are kept from now on, and an active one is watched at once.
        if let Some(path) = self.table.get_mut(&id) {
            path.last_ping.get_or_insert(cx.now);
        }
        let first = self.epoch == 1;
        if first {
            self.flow.active_until = Some(cx.now + Duration::from_secs(1));
            self.watching = true;
            self.next_tick = Some(cx.now + Duration::from_secs(1));
        }
        self.tell(cx, if first { RouteReason::First } else { reason });
    }

    /// Tells the shell the route if it changed.
    pub(super) fn tell(&mut self, cx: &Cx<'_>, reason: RouteReason) {
        let primary = self.primary_path().map(|p| (p.way, p.size_or_hope()));
        let standby = self.standby().map(|p| (p.way, p.size_or_hope()));
        let route = Route {
            epoch: self.epoch,
            primary: primary.map(|p| p.0),
            standby: standby.map(|s| s.0),
            duplicate: standby.is_some()
                && self.doubt.as_ref().is_some_and(|d| d.duplicates(cx.now)),
            max_datagram: [primary, standby]
                .into_iter()
                .flatten()
                .map(|p| p.1)
                .min()
                .unwrap_or(super::size::FULL_SIZE),
            primary_max: primary.map_or(super::size::FULL_SIZE, |p| p.1),
            standby_max: standby.map_or(super::size::FULL_SIZE, |s| s.1),
            health: match &self.doubt {
                _ if primary.is_none() => Health::Lost,
                None => Health::Good,
                Some(doubt) if doubt.lost_at() <= cx.now => Health::Lost,
                Some(_) => Health::Degraded,
            },
        };
        if route.health == Health::Lost {
            self.lost_since.get_or_insert(cx.now);
        } else {
            self.lost_since = None;
        }
        if self.told.is_none() && route.primary.is_none() {
            return;
        }
        if self.told.as_ref() != Some(&route) {
            self.told = Some(route.clone());
            self.out.push_back(Output::Route(route, reason));
        }
    }

    /// Paths other than the primary that could carry data, best first; channels in quarantine if there are no others.
    pub(super) fn alternatives(&self, most: usize) -> Vec<PathId> {
        let usable = |p: &&Path| {
            Some(p.id) != self.primary
                && if p.is_direct() {
                    p.concluded().is_some()
                } else {
                    !p.is_quarantined()
                }
        };
        let mut standings: Vec<Standing> = self
            .table
            .values()
            .filter(usable)
            .map(Path::standing)
            .collect();
        if standings.is_empty() {
            // A channel that lost a failover is doubtful, but better than none when the winner dies as well.
            standings = self
                .table
                .values()
                .filter(|p| Some(p.id) != self.primary && !p.is_direct())
                .map(Path::standing)
                .collect();
        }
        let best_rtt = standings.iter().filter_map(|s| s.rtt).min();
        standings.sort_by_key(|s| score(s, best_rtt));
        standings.truncate(most);
        standings.into_iter().map(|s| s.id).collect()
    }

    /// The path that takes over: of the other sort if there is one, for two paths of one sort often fail together.
    pub(super) fn standby(&self) -> Option<&Path> {
        let primary = self.primary_path()?;
        let shares_fate = |p: &Path| match (p.way, primary.way) {
            (Way::Direct { .. }, Way::Direct { .. }) => true,
            (Way::Channel { link: a, .. }, Way::Channel { link: b, .. }) => a == b,
            _ => false,
        };
        let candidates: Vec<&Path> = self
            .alternatives(usize::MAX)
            .iter()
            .filter_map(|id| self.table.get(id))
            .collect();
        // A direct path is no standby while a channel can be: its mapping is not kept.
        let rank = |p: &&Path| (shares_fate(p), p.way.kind() == PathKind::Direct);
        candidates.into_iter().min_by_key(rank)
    }

    /// True if data may go there by the policy's choice.
    fn may_carry(&self, cx: &Cx<'_>, path: &Path) -> bool {
        if self.primary == Some(path.id) {
            return true;
        }
        if !path.is_direct() {
            return !path.is_quarantined();
        }
        // A narrow one too: what is too large for it is sent in two parts, which costs less than a detour.
        path.is_fresh(cx.now) && path.concluded().is_some()
    }
}
