//! What passes from node to node through the relay's control messages: sealed signals and records.
//!
//! Both are bounded, because here one node's message becomes another node's work. Signals: by size, and by an allowance
//! per end. Records: a newer record goes to every peer with a channel at once, but at most once a second; of several in
//! that second only the last one counts.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use byway_wire::relay::control::Control;
use byway_wire::{ChannelId, NodeInstance, SignedRecord};

use crate::io::*;
use crate::relay::Relay;
use crate::timers::Timer;

/// Longest sealed signal passed on: 32 candidates of 22 bytes and their seal take about 1 KiB.
pub(crate) const MAX_SIGNAL: usize = 4 * 1024;
/// Signals an end may send in a burst: candidates change in bursts when interfaces come and go.
pub(crate) const SIGNAL_BURST: u32 = 32;
/// Time after which one more is allowed.
const SIGNAL_REFILL: Duration = Duration::from_millis(100);
/// Least time between two records of a session that are passed on: one message here is up to 1,024 there.
const RECORD_INTERVAL: Duration = Duration::from_secs(1);

/// A token bucket in whole signals.
#[derive(Debug)]
pub(crate) struct Allowance {
    left: u32,
    /// When `left` was last brought up to date.
    since: Instant,
}

impl Allowance {
    pub(crate) fn full(now: Instant) -> Self {
        Self {
            left: SIGNAL_BURST,
            since: now,
        }
    }
    fn take(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.since);
        let earned = elapsed.as_millis() / SIGNAL_REFILL.as_millis();
        match u32::try_from(earned) {
            // What is not yet a whole signal stays on the clock, or a steady sender would never earn one.
            Ok(earned) if earned < SIGNAL_BURST => {
                self.left = (self.left + earned).min(SIGNAL_BURST);
                self.since += SIGNAL_REFILL * earned;
            }
            _ => *self = Self::full(now),
        }
        let had = self.left > 0;
        self.left = self.left.saturating_sub(1);
        had
    }
}

impl Relay {
    pub(crate) fn signal(&mut self, now: Instant, me: NodeInstance, id: ChannelId, sealed: Bytes) {
        let Some(side) = self.owned(id, me) else {
            return;
        };
        let allowed = sealed.len() <= MAX_SIGNAL
            && self
                .channels
                .get_mut(&id)
                .and_then(|c| c.end_mut(side))
                .is_some_and(|end| end.signals.take(now));
        match self.bound_link(id, side.other()) {
            Some(link) if allowed => {
                self.counters.signals += 1;
                self.send(
                    link,
                    Control::Signal {
                        channel: id,
                        sealed,
                    },
                );
            }
            _ => self.counters.signals_dropped += 1,
        }
    }

    /// A session's record, by `Hello` or later. Peers with a channel hear of a newer one.
    pub(crate) fn record(&mut self, now: Instant, me: NodeInstance, record: SignedRecord) {
        let Some(session) = self.sessions.get_mut(&me) else {
            return;
        };
        if record.as_bytes() == session.record.as_bytes() {
            return; // The one it already has, on another link.
        }
        if record.record().id != me || !record.is_newer_than(&session.record) {
            self.counters.records_ignored += 1;
            return;
        }
        session.record = record;
        if self.timers.is_armed(Timer::Record(me)) {
            session.record_pending = true;
        } else {
            self.push_record(now, me);
        }
    }

    pub(crate) fn record_due(&mut self, now: Instant, me: NodeInstance) {
        if self.sessions.get(&me).is_some_and(|s| s.record_pending) {
            self.push_record(now, me);
        }
    }

    fn push_record(&mut self, now: Instant, me: NodeInstance) {
        let Some(session) = self.sessions.get_mut(&me) else {
            return;
        };
        session.record_pending = false;
        let record = session.record.clone();
        let peers: BTreeSet<LinkId> = session
            .channels
            .iter()
            .filter_map(|id| {
                let channel = self.channels.get(id)?;
                channel.end(channel.side_of(me)?.other())?.link
            })
            .collect();
        if peers.is_empty() {
            return;
        }
        self.timers.arm(Timer::Record(me), now + RECORD_INTERVAL);
        for link in peers {
            self.counters.records += 1;
            self.send(link, Control::Record(record.clone()));
        }
    }
}
