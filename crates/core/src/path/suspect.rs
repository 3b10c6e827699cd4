//! Acting on evidence: suspicion, its refutation, and failover. The rules are in [`super::failover`].

use std::time::{Duration, Instant};

use byway_wire::probe::{ProbeBody, TxId};

use super::check::{MIN_SIZE, Path, SMALL_SIZE};
use super::failover::{Suspicion, grace};
use super::paths::{Output, Paths};
use super::score::PathId;
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
        let patience = self.patience();
        let Some(path) = self.primary_path() else {
            return;
        };
        let Some(waiting) = self
            .flow
            .sample
            .waiting_since
            .filter(|_| self.flow.sample.in_flight > 0)
        else {
            self.flow_check = Some(cx.now + patience);
            return;
        };
        // An answered ping proves the path up to then.
        let since = waiting
            .max(self.primary_since)
            .max(path.last_answer.unwrap_or(waiting));
        if since + patience <= cx.now {
            self.suspect(cx);
        } else {
            self.flow_check = Some(since + patience);
        }
    }

    /// When an unanswered regular ping on the primary becomes evidence, unless the flow shows that the path works.
    pub(super) fn ping_evidence_at(&self) -> Option<Instant> {
        if self.doubt.is_some() {
            return None;
        }
        let since = self.primary_path()?.waiting_since?;
        if self.flow.sample.last_ack.is_some_and(|ack| ack > since) {
            return None;
        }
        Some(since.max(self.primary_since) + self.patience())
    }

    pub(super) fn weigh_pings(&mut self, cx: &mut Cx<'_>) {
        if self.flow.is_active(cx.now) && self.ping_evidence_at().is_some_and(|t| t <= cx.now) {
            self.suspect(cx);
        }
    }

    /// We have evidence ourselves: the peer is told.
    pub(super) fn suspect(&mut self, cx: &mut Cx<'_>) {
        let txid = TxId(cx.rng.bytes());
        self.begin_suspicion(cx);
        let Some(primary) = self.primary else { return };
        for id in std::iter::once(primary).chain(self.alternatives(ASKED)) {
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

    /// The peer has evidence: both sides duplicate and look.
    pub(super) fn on_peer_suspects(&mut self, cx: &mut Cx<'_>, txid: TxId) {
        if self.peer_suspicion.replace(txid) == Some(txid) || self.doubt.is_some() {
            return;
        }
        self.begin_suspicion(cx);
    }

    fn begin_suspicion(&mut self, cx: &mut Cx<'_>) {
        let Some(path) = self.primary_path() else {
            return;
        };
        let way = path.way;
        self.doubt = Some(Suspicion::new(cx.now));
        self.challenger = None;
        self.tell(cx, RouteReason::Suspected);
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
        if doubt.take_ping(cx.now)
            && self.can_probe()
            && let Some(primary) = self.primary
        {
            for id in std::iter::once(primary).chain(self.alternatives(ASKED)) {
                // A path that shrank below the size in use is as silent to data as a dead one.
                let size = self
                    .table
                    .get(&id)
                    .and_then(Path::concluded)
                    .unwrap_or(MIN_SIZE);
                self.ping(cx, id, size, true);
            }
        }
        self.tell(cx, RouteReason::Suspected);
    }

    /// A ping sent at `sent` was answered on `id`.
    pub(super) fn on_answer(&mut self, cx: &mut Cx<'_>, id: PathId, sent: Instant) {
        let Some(doubt) = &mut self.doubt else { return };
        if self.primary == Some(id) {
            self.clear(cx);
        } else if sent >= doubt.since && doubt.alternative.is_none() {
            doubt.alternative = Some((id, cx.now));
        }
    }

    fn clear(&mut self, cx: &mut Cx<'_>) {
        let Some(doubt) = self.doubt.take() else {
            return;
        };
        self.flow.refuted();
        self.tell(cx, RouteReason::Cleared);
        if doubt.since + LONG_SILENCE <= cx.now {
            self.out.push_back(Output::Replay);
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
        }
        self.set_primary(cx, winner, RouteReason::Failover);
        self.out.push_back(Output::Replay);
        if self.flow.is_active(cx.now) {
            self.flow_check = Some(cx.now + self.patience());
        }
    }
}
