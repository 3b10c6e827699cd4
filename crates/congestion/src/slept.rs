//! What a sleep puts into quinn's estimate of the round trip, and how much may be sent while it is there.
//!
//! An acknowledgement that a machine slept over is a round trip of hours to quinn, and it would pace by that for minutes or
//! hours. It does not pace what has a window above 4 GiB, and asks no pacer where the window is full. So while its estimate
//! holds a sleep it is told of one of two windows, no limit or none at all, and the limits are kept here:
//!
//! - **The window is the true one**, and a burst more: quinn's timer for a lost tail holds the sleep as well, so that losses are
//!   found by what is sent after them alone. It is compared with the least that quinn can have in flight: its own count
//!   after the last acknowledgement, and since then what certainly was more than a bare ACK. Never with more: who waits for
//!   answers to bytes that are not under way waits for ever.
//! - **A burst is bounded** (RFC 9002 section 7.7: a sender MUST either pace or limit bursts). There may leave as much as at a path's
//!   beginning, and then twice what is acknowledged, when it is: as in slow start, up to the window. An answer that the sleep
//!   held up counts for nothing here: they may come by the dozen at once.
//! - **A probe is held up by neither** (as in RFC 9002 section 7.5): when the path layer wants an answer, one batch may leave.
//!
//! All are looked at before each batch, and quinn counts what is in a batch by itself: each may be exceeded by one batch.

use std::time::Duration;

use byway_core::recent::UNDER_WAY;
use quinn_proto::RttEstimator;

/// No bare ACK is larger: quinn acknowledges at most 64 ranges, in practice a few bytes each.
pub(crate) const MAX_BARE_ACK: u64 = 400;

/// What a path may begin with, in datagrams (RFC 9002 section 7.2).
const BURST: u64 = 10;

/// No queue of a path in use makes quinn's round trip this much longer than ours.
const QUEUE: Duration = Duration::from_secs(1);

/// Quinn's estimate beside ours, and the limits while they are far apart.
#[derive(Clone, Default)]
pub(crate) struct Slept {
    /// quinn's estimate, after the last acknowledgement.
    quinns: Duration,
    /// It holds a sleep.
    held: bool,
    /// The last of quinn's estimates that held none.
    sane: Option<RttEstimator>,
    /// The last round trip measured by us, of whichever path.
    ours: Duration,
    /// The longest of the paths that were left: quinn's estimate is one over all paths, and may still be theirs.
    left: Duration,
    /// The least that quinn has in flight, in bytes.
    in_flight: u64,
    /// What was acknowledged since the last answer, in bytes.
    acked: u64,
    /// What may leave before the next answer, in bytes.
    credit: u64,
    /// Probes wanted when something left last.
    probes: u32,
}

impl Slept {
    /// Something left.
    pub(crate) fn on_sent(&mut self, bytes: u64, probes: u32) {
        if bytes > MAX_BARE_ACK {
            self.in_flight += bytes;
            self.credit = self.credit.saturating_sub(bytes);
            self.probes = probes;
        }
    }

    /// quinn's estimate as it was before this acknowledgement. Returns the one to go by.
    pub(crate) fn sane(&mut self, quinns: &RttEstimator) -> &RttEstimator {
        self.quinns = quinns.get();
        if !self.held {
            self.sane = Some(*quinns);
        }
        self.sane.get_or_insert(*quinns)
    }

    /// True while quinn's estimate holds a sleep.
    pub(crate) fn is_held(&self) -> bool {
        self.held
    }

    /// A packet was acknowledged.
    pub(crate) fn on_acked(&mut self, bytes: u64) {
        self.in_flight = self.in_flight.saturating_sub(bytes);
        self.acked += bytes;
    }

    /// A round trip was measured by us.
    pub(crate) fn measured(&mut self, smoothed: Duration) {
        self.ours = smoothed;
    }

    /// An ACK frame was read: its newest packet was sent so long ago, and quinn has so much in flight. quinn takes `sample`
    /// behind this call, and paces by it before there is another one.
    pub(crate) fn on_answer(&mut self, sample: Duration, in_flight: u64, mtu: u16) {
        self.in_flight = in_flight;
        let acked = std::mem::take(&mut self.acked);
        if sample <= UNDER_WAY {
            self.earn(2 * acked, mtu);
        }
        self.quinns = (7 * self.quinns + sample) / 8;
        let known = self.ours.max(self.left);
        let most = if known.is_zero() {
            UNDER_WAY
        } else {
            2 * known + QUEUE
        };
        if self.quinns > most {
            if !self.held {
                self.credit = burst(mtu);
            }
            self.held = true;
        } else if !self.ours.is_zero() && self.quinns <= 2 * self.ours {
            self.held = false;
            self.left = Duration::ZERO;
        }
    }

    /// So much was lost, the newest of it sent so long ago: as much may be sent instead. What the sleep lost is no reason for a burst.
    pub(crate) fn on_lost(&mut self, bytes: u64, age: Duration, mtu: u16) {
        self.in_flight = self.in_flight.saturating_sub(bytes);
        if age <= UNDER_WAY {
            self.earn(bytes, mtu);
        }
    }

    /// What is sent now goes by a path that is new, or taken for new.
    pub(crate) fn on_switch(&mut self, mtu: u16) {
        self.left = self.left.max(self.ours);
        self.credit = burst(mtu);
    }

    /// More may leave. What is not used is worth no more than a path's beginning, or than it was earned for at once.
    fn earn(&mut self, bytes: u64, mtu: u16) {
        self.credit = (self.credit + bytes).min(burst(mtu).max(bytes));
    }

    /// What quinn is told of a window while its estimate holds a sleep. `switched` says that a switch is not known here yet, `probes` how many were wanted so far.
    pub(crate) fn window(&self, window: u64, mtu: u16, switched: bool, probes: u32) -> u64 {
        let room = self.in_flight < window.saturating_add(burst(mtu));
        let free = room && (self.credit > 0 || switched) || self.probes != probes;
        if free { u64::MAX } else { 1 }
    }
}

fn burst(mtu: u16) -> u64 {
    BURST * u64::from(mtu)
}
