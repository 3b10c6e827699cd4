//! Suspicion: when the primary path must be doubted, and what ends the doubt. Pure rules; [`super::Paths`] acts on them.

use std::time::{Duration, Instant};

use super::rtt::Rtt;
use super::score::PathId;
use crate::io::FlowSample;

/// Silence shorter than this is never evidence: delayed acknowledgements, scheduling and Wi-Fi pauses reach it.
const SHORTEST: Duration = Duration::from_millis(100);
/// After an alternative answered, the primary has its round trip and this much more to answer too.
const GRACE: Duration = Duration::from_millis(50);
/// How long data is duplicated: long enough for every switch, short enough that a pause does not double the traffic.
const DUPLICATE: Duration = Duration::from_secs(2);
/// A peer that is silent on every path for this long is lost to whoever waits for it: longer than Wi-Fi pauses and a
/// relay's restart, shorter than a person's patience.
const LOST_AFTER: Duration = Duration::from_secs(5);
/// Pings during suspicion: this often at first, doubling; the first ones must survive loss.
const FIRST_GAP: Duration = Duration::from_millis(50);
/// From this gap on an end of the silence is noticed late.
const SELDOM: Duration = Duration::from_secs(1);
/// For the first minute of silence the end of it is to be noticed soon...
const SOON: Duration = Duration::from_secs(2);
const SOON_FOR: Duration = Duration::from_secs(60);
/// ...later it may take what a keep-alive takes.
const LATE: Duration = Duration::from_secs(20);
/// A primary that answers pings while the flow stays silent is doubted again only after up to this many times longer.
const MAX_PATIENCE: u32 = 8;

/// Silence of this length is evidence (design section 6): max(2.5 srtt + 4 rttvar, 100 ms), over the slower of what
/// the flow and the path's own pings measured (under load the flow's is the truth).
pub(crate) fn threshold(path: Option<Rtt>, flow: &FlowSample) -> Duration {
    let of = |smoothed: Duration, variation: Duration| smoothed * 5 / 2 + variation * 4;
    let path = path.map_or(Duration::ZERO, |r| of(r.smoothed, r.variation));
    of(flow.srtt, flow.rttvar).max(path).max(SHORTEST)
}

/// In a steady flow (an acknowledgement came after the oldest unanswered byte left) silence says more: the sender's
/// retransmission timeout, restarted by each acknowledgement (RFC 6298 section 5.3), is evidence already. Under load,
/// where the round trip is mostly queue, this is much sooner than [`threshold`].
pub(crate) fn steady_threshold(flow: &FlowSample) -> Duration {
    (flow.srtt + flow.rttvar * 4).max(SHORTEST)
}

/// How long a primary may still answer after an alternative did.
pub(crate) fn grace(primary: Option<Rtt>) -> Duration {
    primary.map_or(SHORTEST, |r| r.smoothed) + GRACE
}

/// What the tunnel's own traffic says.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    pub(crate) sample: FlowSample,
    pub(crate) sampled_at: Option<Instant>,
    /// The tunnel counts as active until then.
    pub(crate) active_until: Option<Instant>,
    /// Suspicions in a row that pings refuted while the flow did not move: each doubles the patience.
    refuted: u32,
}

/// A tunnel is active for this long after its last progress; then its evidence timer sleeps.
const ACTIVE: Duration = Duration::from_secs(1);

impl Flow {
    /// `doubted`: the primary is suspected already, so that bytes which merely wait have nothing more to say.
    pub(crate) fn update(&mut self, now: Instant, sample: FlowSample, doubted: bool) {
        let moved = sample.sent != self.sample.sent || sample.acked != self.sample.acked;
        if sample.acked != self.sample.acked {
            self.refuted = 0;
        }
        if moved || (sample.in_flight > 0 && !doubted) || self.sampled_at.is_none() {
            self.active_until = Some(now + ACTIVE);
        }
        self.sample = sample;
        self.sampled_at = Some(now);
    }
    /// Something was sent, whatever it was.
    pub(crate) fn wake(&mut self, now: Instant) {
        self.active_until = Some(now + ACTIVE);
    }
    pub(crate) fn is_active(&self, now: Instant) -> bool {
        self.active_until.is_some_and(|t| t > now)
    }
    /// True if our own bytes were acknowledged just now. It contradicts a peer's suspicion: what is acknowledged went
    /// there on our path and came back on the peer's, more recently than a peer could have begun to wonder.
    pub(crate) fn is_healthy(&self, now: Instant) -> bool {
        let fresh = |ack: Instant| ack + SHORTEST / 2 > now;
        self.sample.last_ack.is_some_and(fresh)
    }
    pub(crate) fn refuted(&mut self) {
        self.refuted = self.refuted.saturating_add(1);
    }
    pub(crate) fn patience(&self) -> u32 {
        2u32.saturating_pow(self.refuted).min(MAX_PATIENCE)
    }
}

/// What raised a doubt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cause {
    /// Something of our own is unanswered. Refuted, it was impatience.
    Evidence,
    /// A relay or the peer says so. Refuted, it tells nothing about how long answers take here.
    Hearsay,
    /// The host's network changed, or it slept: whatever was known is to be asked again.
    Network,
}

/// A doubt about the primary.
#[derive(Debug)]
pub(crate) struct Suspicion {
    pub(crate) since: Instant,
    pub(crate) cause: Cause,
    pub(crate) next_ping: Instant,
    gap: Duration,
    pub(crate) duplicate_until: Instant,
    /// The first alternative that answered since, and when.
    pub(crate) alternative: Option<(PathId, Instant)>,
}

impl Suspicion {
    pub(crate) fn new(now: Instant, cause: Cause) -> Self {
        Self {
            since: now,
            cause,
            next_ping: now,
            gap: FIRST_GAP,
            duplicate_until: now + DUPLICATE,
            alternative: None,
        }
    }
    pub(crate) fn duplicates(&self, now: Instant) -> bool {
        now < self.duplicate_until
    }
    /// When the peer counts as lost, if nothing is heard until then.
    pub(crate) fn lost_at(&self) -> Instant {
        self.since + LOST_AFTER
    }
    /// The peer's own ping came, so it is there again: who asks seldom by now asks at once. The gaps grow anew, so that two sides
    /// in doubt do not answer each ping by another.
    pub(crate) fn heard(&mut self, now: Instant) {
        if self.gap >= SELDOM {
            self.next_ping = now;
            self.gap = FIRST_GAP;
        }
    }
    /// True if pings are due now; plans the next ones.
    pub(crate) fn take_ping(&mut self, now: Instant) -> bool {
        let due = self.next_ping <= now;
        if due {
            self.next_ping = now + self.gap;
            let longest = if self.since + SOON_FOR > now {
                SOON
            } else {
                LATE
            };
            self.gap = (self.gap * 2).min(longest);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threshold_is_never_below_100_ms() {
        let quick = Rtt {
            smoothed: Duration::from_millis(1),
            variation: Duration::ZERO,
        };
        assert_eq!(threshold(Some(quick), &FlowSample::default()), SHORTEST);
    }
    #[test]
    fn the_threshold_follows_the_slower_measure() {
        let path = Rtt {
            smoothed: Duration::from_millis(20),
            variation: Duration::from_millis(1),
        };
        let flow = FlowSample {
            srtt: Duration::from_millis(80),
            rttvar: Duration::from_millis(10),
            ..FlowSample::default()
        };
        assert_eq!(threshold(Some(path), &flow), Duration::from_millis(240));
    }
    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "a virtual clock needs one instant to count from"
    )]
    fn a_peer_that_is_heard_again_is_asked_at_once_where_it_is_seldom_asked() {
        let mut now = Instant::now();
        let mut doubt = Suspicion::new(now, Cause::Evidence);
        assert!(doubt.take_ping(now));
        doubt.heard(now);
        assert!(!doubt.take_ping(now), "it is asked again soon anyway");
        while doubt.gap < SELDOM {
            now = doubt.next_ping;
            assert!(doubt.take_ping(now));
        }
        doubt.heard(now);
        assert!(doubt.take_ping(now));
        assert_eq!(doubt.next_ping, now + FIRST_GAP);
        doubt.heard(now);
        assert!(!doubt.take_ping(now), "not by each of its pings");
    }
    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "a virtual clock needs one instant to count from"
    )]
    fn patience_doubles_with_each_refuted_suspicion_and_ends_with_progress() {
        let now = Instant::now();
        let mut flow = Flow::default();
        for expected in [1, 2, 4, 8, 8] {
            assert_eq!(flow.patience(), expected);
            flow.refuted();
        }
        flow.update(
            now,
            FlowSample {
                acked: 1,
                ..FlowSample::default()
            },
            false,
        );
        assert_eq!(flow.patience(), 1);
    }
}
