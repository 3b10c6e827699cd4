//! Acting on evidence: suspicion, its refutation, and failover. The rules are in [`super::failover`].

use std::time::{Duration, Instant};

use byway_wire::probe::{ProbeBody, TxId};

use super::check::{Path, SMALL_SIZE};
use super::failover::{Cause, Suspicion, grace, steady_threshold};
use super::paths::{Output, Paths};
use super::score::PathId;
use super::size::MIN_SIZE;
use crate::cx::Cx;
use crate::io::{Carrier, RouteReason, Way};

/// Alternatives asked during suspicion.
const ASKED: usize = 4;
/// After a silence of this length quinn's own retransmission timer has backed off: replay when the path is back.
const LONG_SILENCE: Duration = Duration::from_secs(1);

impl Paths {
    /// The tunnel's bytes wait for an acknowledgement: for too long?
    pub(super) fn weigh_flow(&mut self, cx: &mut Cx<'_>, acked: bool) {
        if self.doubt.is_some() {
            // Without probes the flow is the only witness, though it cannot say by which path.
            if acked && !self.can_probe() {
                self.clear(cx);
            }
            return;
        }
        match self.flow_evidence_at() {
            Some(at) if at <= cx.now => self.suspect(cx, Cause::Evidence),
            at => {
                let at = at.unwrap_or_else(|| cx.now + self.patience());
                let nudge = self.nudge(cx);
                self.flow_check = Some(nudge.map_or(at, |nudge| nudge.min(at)));
            }
        }
    }

    /// When the silence that the last sample shows becomes evidence; none while nothing waits.
    fn flow_evidence_at(&self) -> Option<Instant> {
        let path = self.primary_path()?;
        let sample = &self.flow.sample;
        let waiting = sample.waiting_since.filter(|_| sample.in_flight > 0)?;
        let (silent, limit) = match sample.last_ack.filter(|ack| *ack > waiting) {
            Some(ack) => (ack, steady_threshold(sample) * self.flow.patience()),
            None => (waiting, self.patience()),
        };
        // An answered ping proves the path up to then.
        let since = silent
            .max(self.primary_since)
            .max(path.last_answer.unwrap_or(silent));
        Some(since + limit)
    }

    /// We have evidence ourselves: the peer is told.
    pub(super) fn suspect(&mut self, cx: &mut Cx<'_>, cause: Cause) {
        self.begin_suspicion(cx, cause);
        self.warn_peer(cx);
    }

    /// Tells the peer by several paths to duplicate, and to look which of its own still work.
    pub(super) fn warn_peer(&mut self, cx: &mut Cx<'_>) {
        let txid = TxId(cx.rng.bytes());
        for id in self.asked() {
            let Some(way) = self.table.get(&id).map(|p| p.way) else {
                continue;
            };
            if let Some(data) = self.association.seal_probe(
                cx.rng,
                ProbeBody::Suspect { txid },
                usize::from(SMALL_SIZE),
            ) {
                self.out.push_back(Output::Send { way, data });
            }
        }
    }

    /// A relay says that the peer is gone, or that it calls anew. Its word is no proof, and asking costs little: where the
    /// peer is still there, its answer on the primary ends the doubt; where it is not, the doubt leads to the channel by
    /// which it calls, or shows that it is lost.
    pub(crate) fn question(&mut self, cx: &mut Cx<'_>) {
        let doubtless = self.primary.is_some() && self.doubt.is_none();
        if doubtless && self.questions.take(cx.now) {
            self.suspect(cx, Cause::Hearsay);
        }
    }

    /// True if nothing leads to the peer, or if it has been asked on every path for so long and did not answer.
    pub(crate) fn is_unanswered_for(&self, now: Instant, time: Duration) -> bool {
        match &self.doubt {
            Some(doubt) => {
                let rtt = self.primary_path().and_then(Path::smoothed);
                doubt.since + time.max(rtt.unwrap_or_default() * 4) <= now
            }
            None => self.primary.is_none(),
        }
    }

    /// Who is asked during suspicion: the primary, what stands by for it, and the best of the others. Without the second a
    /// few paths that share the primary's fate (other sockets, other ports of one NAT) would be all that is ever asked.
    fn asked(&self) -> Vec<PathId> {
        let mut asked: Vec<PathId> = self.primary.into_iter().collect();
        let standby = self.standby().map(|path| path.id);
        for id in standby.into_iter().chain(self.alternatives(ASKED)) {
            if !asked.contains(&id) {
                asked.push(id);
            }
        }
        asked
    }

    /// The peer has evidence: both sides duplicate and look.
    pub(super) fn on_peer_suspects(&mut self, cx: &mut Cx<'_>, txid: TxId) {
        if self.peer_suspicion.replace(txid) == Some(txid) || self.doubt.is_some() {
            return;
        }
        // Duplicating a bulk flow that works, perhaps into the very queue that made the peer wait, would do harm.
        if self.flow.is_healthy(cx.now) {
            return;
        }
        self.begin_suspicion(cx, Cause::Hearsay);
    }

    fn begin_suspicion(&mut self, cx: &mut Cx<'_>, cause: Cause) {
        let Some(path) = self.primary_path() else {
            return;
        };
        let way = path.way;
        self.doubt = Some(Suspicion::new(cx.now, cause));
        self.challenger = None;
        let reason = match cause {
            Cause::Network => RouteReason::NetworkChanged,
            Cause::Evidence | Cause::Hearsay => RouteReason::Suspected,
        };
        self.tell(cx, reason);
        self.out.push_back(Output::Replay);
        if let Way::Channel {
            link,
            carrier: Carrier::Udp,
            ..
        } = way
        {
            self.out.push_back(Output::SuspectLink(link));
        }
        self.run_suspicion(cx);
    }

    /// When the primary's time to answer is over.
    pub(super) fn decide_at(&self) -> Option<Instant> {
        let (_, answered) = self.doubt.as_ref()?.alternative?;
        Some(answered + grace(self.primary_path()?.rtt))
    }

    pub(super) fn run_suspicion(&mut self, cx: &mut Cx<'_>) {
        if self.decide_at().is_some_and(|t| t <= cx.now) {
            self.fail_over(cx);
            return;
        }
        let Some(doubt) = &mut self.doubt else { return };
        if doubt.take_ping(cx.now) && self.can_probe() {
            for id in self.asked() {
                self.ask(cx, id);
            }
        }
        let lost = self.doubt.as_ref().is_some_and(|d| d.lost_at() <= cx.now);
        let reason = if lost {
            RouteReason::Silent
        } else {
            RouteReason::Suspected
        };
        self.tell(cx, reason);
    }

    /// A ping sent at `sent` was answered on `id`.
    pub(super) fn on_answer(&mut self, cx: &mut Cx<'_>, id: PathId, sent: Instant) {
        let Some(doubt) = &mut self.doubt else { return };
        if self.primary == Some(id) {
            self.clear(cx);
        } else if sent >= doubt.since && doubt.alternative.is_none() {
            doubt.alternative = Some((id, cx.now));
            // All paths may have been silent until a moment ago, and the longer one's ping have come through at the end of
            // that: the primary is judged by a ping of now, and has its round trip to answer it.
            if let Some(primary) = self.primary {
                self.ask(cx, primary);
            }
        }
    }

    /// Pings a path at the size in use: one that shrank below it is as silent to data as a dead one.
    fn ask(&mut self, cx: &mut Cx<'_>, id: PathId) {
        let size = self.table.get(&id).and_then(Path::concluded);
        self.ping(cx, id, size.unwrap_or(MIN_SIZE), true);
    }

    fn clear(&mut self, cx: &mut Cx<'_>) {
        let Some(doubt) = self.doubt.take() else {
            return;
        };
        if doubt.cause == Cause::Evidence {
            self.flow.refuted();
        }
        self.tell(cx, RouteReason::Cleared);
        if doubt.since + LONG_SILENCE <= cx.now {
            self.out.push_back(Output::Replay);
        }
        // While the path was in doubt, what waits for an answer was no activity. It is again: where QUIC cannot send, nobody else would
        // look whether the tunnel is to be made to speak.
        if !self.flow.is_active(cx.now) && self.flow.sample.in_flight > 0 {
            self.flow.wake(cx.now);
            self.watching = true;
            self.next_tick.get_or_insert(cx.now);
        }
        if self.flow.is_active(cx.now) {
            self.flow_check = Some(cx.now + self.patience());
        }
    }

    /// An alternative answered, the primary did not: data moves, the loser is quarantined.
    fn fail_over(&mut self, cx: &mut Cx<'_>) {
        let Some(since) = self.doubt.as_ref().map(|d| d.since) else {
            return;
        };
        let answered = |id: &PathId| {
            self.table
                .get(id)
                .is_some_and(|p| p.last_answer.is_some_and(|t| t >= since))
        };
        let Some(winner) = self.alternatives(usize::MAX).into_iter().find(answered) else {
            if let Some(doubt) = &mut self.doubt {
                doubt.alternative = None;
            }
            return;
        };
        if let Some(loser) = self.primary.and_then(|id| self.table.get_mut(&id)) {
            loser.quarantine(cx.now);
            cx.counters.quarantines += 1;
        }
        self.set_primary(cx, winner, RouteReason::Failover);
        self.out.push_back(Output::Replay);
        if self.flow.is_active(cx.now) {
            self.flow_check = Some(cx.now + self.patience());
        }
    }
}
