//! Pings: sending them, matching their answers, and the regular ones (each second while active, keep-alives when idle).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use byway_wire::probe::{ProbeBody, TxId};

use super::check::{Advance, Path, SMALL_SIZE};
use super::failover::{Cause, threshold};
use super::paths::{Output, Paths};
use super::rtt::Sample;
use super::score::PathId;
use crate::cx::{Cx, Wake, earliest};
use crate::io::{Health, RouteReason};

/// While active, paths are pinged and judged this often.
const TICK: Duration = Duration::from_secs(1);
/// Idle direct paths are kept this often: NATs keep UDP mappings for 30 s at the least in practice (RFC 4787 section 4.3
/// asks for two minutes).
const KEEPALIVE: Duration = Duration::from_secs(20);
/// An unanswered ping of the primary is repeated after this long: not sooner, for a burst that fills a queue delays it...
const RETRY: Duration = Duration::from_millis(400);
/// ...and this many unanswered ones are a suspicion.
const TRIES: u8 = 3;
/// A regular ping without an answer for this long is lost.
const LOST_AFTER: Duration = Duration::from_secs(2);
/// A path beside the primary that answers nothing for this long is given up for a while.
const GIVEN_UP: Duration = Duration::from_secs(10);
/// A primary that has carried data for this long starts with a clean slate.
const FORGIVEN: Duration = Duration::from_secs(300);
/// Other valid paths measured beside primary and standby.
const MEASURED: usize = 4;
/// Pings of one peer answered in a second: its ladders and ticks need less than 300.
pub(super) const PINGS_PER_SECOND: u32 = 512;
/// Most pings remembered; the oldest is forgotten.
const MAX_PINGS: usize = 512;

/// A ping under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ping {
    path: PathId,
    pub(super) sent: Instant,
    pub(super) size: u16,
    /// Counts for the loss measure.
    pub(super) regular: bool,
}

impl Ping {
    /// What an answer that comes now says of the path's round trip. On a tunnel at rest no ping is ever given up: a peer that slept
    /// may answer after hours, and would be waited for as long from then on.
    pub(super) fn round_trip(&self, now: Instant) -> Sample {
        let took = now.saturating_duration_since(self.sent);
        if took < LOST_AFTER {
            Sample::Took(took)
        } else {
            Sample::HeldUp(LOST_AFTER)
        }
    }
}

/// All pings under way to one peer.
#[derive(Debug, Default)]
pub(super) struct Pings {
    under_way: BTreeMap<TxId, Ping>,
}

impl Pings {
    fn insert(&mut self, txid: TxId, ping: Ping) {
        if self.under_way.len() >= MAX_PINGS
            && let Some(oldest) = self
                .under_way
                .iter()
                .min_by_key(|(_, p)| p.sent)
                .map(|(&txid, _)| txid)
        {
            self.under_way.remove(&oldest);
        }
        self.under_way.insert(txid, ping);
    }
    /// The ping that a pong of `len` bytes on `path` answers.
    pub(super) fn take(&mut self, txid: TxId, path: PathId, len: usize) -> Option<Ping> {
        let ping = self.under_way.get(&txid)?;
        if ping.path != path || len < usize::from(ping.size) {
            return None;
        }
        self.under_way.remove(&txid)
    }
    pub(super) fn forget(&mut self, path: PathId) {
        self.under_way.retain(|_, p| p.path != path);
    }
    /// Removes what is lost; gives the paths of regular pings among it.
    fn expire(&mut self, now: Instant) -> Vec<PathId> {
        let mut lost = Vec::new();
        self.under_way.retain(|_, p| {
            let keep = p.sent + LOST_AFTER > now;
            if !keep && p.regular {
                lost.push(p.path);
            }
            keep
        });
        lost
    }
}

impl Paths {
    /// Sends one ping. `regular`: at a size that must pass, so that its silence is evidence.
    pub(super) fn ping(&mut self, cx: &mut Cx<'_>, id: PathId, size: u16, regular: bool) {
        let txid = TxId(cx.rng.bytes());
        let Some(path) = self.table.get_mut(&id) else {
            return;
        };
        let Some(data) =
            self.association
                .seal_probe(cx.rng, ProbeBody::Ping { txid }, usize::from(size))
        else {
            return;
        };
        path.last_ping = Some(cx.now);
        if regular {
            path.waiting_since.get_or_insert(cx.now);
        }
        // Never longer than the probe really is: the answer is compared with this.
        let size = size.min(data.len() as u16);
        self.pings.insert(
            txid,
            Ping {
                path: id,
                sent: cx.now,
                size,
                regular,
            },
        );
        self.out.push_back(Output::Send {
            way: path.way,
            data,
        });
    }

    /// Runs the ladders and size tests that are due.
    pub(super) fn run_checks(&mut self, cx: &mut Cx<'_>) {
        if !self.can_probe() {
            return;
        }
        let active = self.flow.is_active(cx.now);
        let due: Vec<PathId> = self
            .table
            .values()
            .filter(|p| p.next_check(active).is_some_and(|t| t <= cx.now))
            .map(|p| p.id)
            .collect();
        let mut changed = false;
        for id in due {
            let Some(path) = self.table.get_mut(&id) else {
                continue;
            };
            let was = path.is_quarantined();
            let next = path.advance(cx.now);
            cx.counters.quarantines += u64::from(!was && path.is_quarantined());
            match next {
                Advance::Ping(sizes) => {
                    changed |= sizes.is_empty();
                    for size in sizes {
                        self.ping(cx, id, size, false);
                    }
                }
                Advance::Hopeless => {
                    self.remove(id);
                    changed = true;
                }
            }
        }
        if changed {
            self.review(cx, false, RouteReason::Better);
        }
    }

    /// The second's work of an active tunnel; the end of activity.
    pub(super) fn run_activity(&mut self, cx: &mut Cx<'_>) {
        if self.flow.is_active(cx.now) {
            if self.next_tick.is_some_and(|t| t <= cx.now) {
                self.tick(cx);
            }
            if self.flow_check.is_some_and(|t| t <= cx.now) {
                // The wake-up was the purpose: the shell samples the flow at it.
                self.flow_check = Some(cx.now + self.patience());
            }
        } else if self.watching {
            self.watching = false;
            self.next_tick = None;
            self.flow_check = None;
            self.out.push_back(Output::WatchFlow);
        }
    }

    pub(super) fn tick(&mut self, cx: &mut Cx<'_>) {
        self.next_tick = Some(cx.now + TICK);
        if self.primary_since + FORGIVEN <= cx.now
            && let Some(path) = self.primary.and_then(|id| self.table.get_mut(&id))
        {
            path.forgive();
        }
        for id in self.pings.expire(cx.now) {
            if let Some(path) = self.table.get_mut(&id) {
                path.loss.add(true);
            }
        }
        // What stays silent beside a path that works is dead; as a primary it would be suspected instead. Where nothing
        // works, the peer may sleep, and is not to find its best path shut out for minutes when it is back.
        let answered = self.table.values().filter_map(|p| p.last_answer).max();
        for path in self.table.values_mut() {
            let silent = path
                .waiting_since
                .is_some_and(|t| t + GIVEN_UP <= cx.now && answered >= Some(t));
            if silent && path.is_direct() && self.primary != Some(path.id) && !path.is_quarantined()
            {
                path.quarantine(cx.now);
                cx.counters.quarantines += 1;
            }
        }
        self.review(cx, true, RouteReason::Better);
        if !self.can_probe() || self.doubt.is_some() {
            return;
        }
        for id in self.primary.into_iter().chain(self.alternatives(MEASURED)) {
            self.ping(cx, id, SMALL_SIZE, true);
        }
    }

    /// When the primary must be pinged (again) beside the regular measurements: an idle direct one for its NAT mapping,
    /// any one because its last ping is unanswered. One lost ping proves nothing; where bytes flow they say it sooner.
    fn keepalive_at(&self) -> Option<Instant> {
        let path = self.primary_path()?;
        if !self.can_probe() || self.doubt.is_some() {
            return None;
        }
        let last = path.last_ping?;
        if path.waiting_since.is_some() && !self.flow_bears_out(path) {
            return Some(last + RETRY.max(self.patience()));
        }
        (path.is_direct() && !self.watching).then_some(last + KEEPALIVE)
    }

    /// True if bytes were acknowledged after the ping that is unanswered: the path works, the ping was lost.
    fn flow_bears_out(&self, path: &Path) -> bool {
        let acked = self.flow.sample.last_ack;
        path.waiting_since
            .is_some_and(|since| acked.is_some_and(|ack| ack > since))
    }

    pub(super) fn run_keepalive(&mut self, cx: &mut Cx<'_>) {
        if self.keepalive_at().is_none_or(|t| t > cx.now) {
            return;
        }
        if self
            .primary_path()
            .is_some_and(|path| self.flow_bears_out(path))
        {
            // What was lost then is no part of the silence that may begin now.
            self.ping_tries = 0;
            if let Some(path) = self.primary.and_then(|id| self.table.get_mut(&id)) {
                path.waiting_since = None;
            }
        }
        if self.ping_tries >= TRIES {
            self.ping_tries = 0;
            self.suspect(cx, Cause::Evidence);
        } else if let Some(id) = self.primary {
            self.ping_tries += 1;
            self.ping(cx, id, SMALL_SIZE, true);
        }
    }

    /// How long silence must last now to be evidence.
    pub(super) fn patience(&self) -> Duration {
        threshold(self.primary_path().and_then(|p| p.rtt), &self.flow.sample) * self.flow.patience()
    }

    pub(super) fn next_wake(&self) -> Option<Wake> {
        let mut wake = None;
        let mut consider =
            |at: Option<Instant>, why: &'static str| wake = earliest(wake, at.map(|t| (t, why)));
        let active = self.watching;
        if self.can_probe() {
            consider(
                self.table
                    .values()
                    .filter_map(|p| p.next_check(active))
                    .min(),
                "path check",
            );
        }
        if let Some(doubt) = &self.doubt {
            if self.can_probe() {
                consider(Some(doubt.next_ping), "suspicion ping");
            }
            consider(self.decide_at(), "suspicion verdict");
            if self.told.as_ref().is_some_and(|r| r.health < Health::Lost) {
                consider(Some(doubt.lost_at()), "peer lost");
            }
            if self.told.as_ref().is_some_and(|r| r.duplicate) {
                consider(Some(doubt.duplicate_until), "end of duplication");
            }
        }
        if active {
            consider(self.next_tick, "path measurement");
            if self.doubt.is_none() {
                consider(self.flow_check, "flow evidence");
            }
            consider(self.flow.active_until, "end of activity");
        }
        consider(self.keepalive_at(), "path keep-alive");
        consider(self.spray.wake(), "spray");
        consider(self.deferred.at, "addresses to ask");
        wake
    }
}
