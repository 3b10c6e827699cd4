//! What the shell and the congestion controller of one tunnel share.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use byway_core::io::{FlowSample, Way};
use byway_core::recent::UNDER_WAY;

use crate::mtu::{LargestMtu, OwnMtu};

/// Shared between one tunnel's [`crate::PathAware`] controller, which writes what it sees, and the shell, which
/// announces switches and reads samples.
///
/// Every field is its own relaxed atomic: a sample taken in the middle of an update may mix two neighbouring
/// moments. Evidence is read again and again, so that is harmless, and the packet path pays a plain store.
#[derive(Debug)]
pub struct FlowMonitor {
    base: Instant,
    /// Rises with each switch, written after `switched`.
    epoch: AtomicU32,
    switched: Mutex<Switch>,
    /// The epoch the controller last acted under; evidence of an earlier one is not shown.
    seen: AtomicU32,
    in_flight: AtomicU64,
    sent: AtomicU64,
    acked: AtomicU64,
    lost: AtomicU64,
    /// Nanoseconds since `base`, plus one; zero for none.
    waiting_since: AtomicU64,
    last_ack: AtomicU64,
    /// When something in flight was last answered, or came to be in flight when nothing was.
    progress: AtomicU64,
    srtt: AtomicU64,
    rttvar: AtomicU64,
    slept: AtomicBool,
    mtu: OwnMtu,
    /// How often an answer was wanted.
    probes: AtomicU32,
}

/// The latest switch.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Switch {
    /// When; none before the first.
    pub(crate) at: Option<Instant>,
    /// To which path; none before the first.
    pub(crate) way: Option<Way>,
    /// How often the path in use was taken for a new one.
    pub(crate) renewals: u32,
}

/// The bytes a controller counted since the tunnel began.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) in_flight: u64,
    pub(crate) sent: u64,
    pub(crate) acked: u64,
    pub(crate) lost: u64,
}

impl FlowMonitor {
    /// A monitor of a tunnel that has no path yet. `base` is any instant not later than the tunnel's first packet.
    pub fn new(base: Instant) -> Self {
        Self {
            base,
            epoch: AtomicU32::new(0),
            switched: Mutex::new(Switch::default()),
            seen: AtomicU32::new(0),
            in_flight: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            acked: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            waiting_since: AtomicU64::new(0),
            last_ack: AtomicU64::new(0),
            progress: AtomicU64::new(0),
            srtt: AtomicU64::new(0),
            rttvar: AtomicU64::new(0),
            slept: AtomicBool::new(false),
            mtu: OwnMtu::new(Arc::default()),
            probes: AtomicU32::new(0),
        }
    }

    /// Has what QUIC takes for its MTU counted there, beside that of other tunnels, for as long as this monitor lives.
    #[must_use]
    pub fn keeping_mtu_in(self, all: Arc<LargestMtu>) -> Self {
        Self {
            mtu: OwnMtu::new(all),
            ..self
        }
    }

    /// What QUIC takes for this tunnel's MTU, in bytes of UDP payload: what its search has found, or found again after a black
    /// hole; zero before it found any.
    #[cfg(test)]
    pub(crate) fn mtu(&self) -> u16 {
        self.mtu.get()
    }

    /// Data goes along `way` from `now` on. Call it with the primary of every new route, before the first datagram
    /// is sent there; naming the path in use again does nothing.
    pub fn switch(&self, now: Instant, way: &Way) {
        let mut switched = self.lock();
        if switched.way == Some(*way) {
            return;
        }
        switched.at = Some(now);
        switched.way = Some(*way);
        self.epoch.fetch_add(1, Ordering::Release);
    }

    /// If what is in flight has waited for longer than any network holds it, because a machine slept: the path in use is
    /// taken for a new one, so that what is sent now is not held up by what was lost then. Call it before the datagram
    /// that is to draw an answer: while QUIC's own timer holds a sleep, that datagram is held up by no window.
    pub fn renew_if_stale(&self, now: Instant) {
        self.probes.fetch_add(1, Ordering::Relaxed);
        let stale = |since: Instant| now.saturating_duration_since(since) > UNDER_WAY;
        if self.sample(now).waiting_since.is_some_and(stale) {
            let mut switched = self.lock();
            switched.at = Some(now);
            switched.renewals = switched.renewals.wrapping_add(1);
            self.epoch.fetch_add(1, Ordering::Release);
        }
    }

    /// What is known now. Everything but the byte totals and `quiet_since` is about packets sent since the last switch; between a switch
    /// and the first packet after it, it is unknown.
    pub fn sample(&self, now: Instant) -> FlowSample {
        let totals = self.totals();
        let current = self.seen.load(Ordering::Relaxed) == self.epoch();
        let mut sample = FlowSample {
            in_flight: totals.in_flight,
            sent: totals.sent,
            acked: totals.acked,
            lost: totals.lost,
            slept: self.slept.load(Ordering::Relaxed),
            ..FlowSample::default()
        };
        if current {
            // Another thread may have written after the caller read its clock.
            sample.waiting_since = self.load_instant(&self.waiting_since).map(|t| t.min(now));
            sample.last_ack = self.load_instant(&self.last_ack).map(|t| t.min(now));
            sample.srtt = Duration::from_nanos(self.srtt.load(Ordering::Relaxed));
            sample.rttvar = Duration::from_nanos(self.rttvar.load(Ordering::Relaxed));
        }
        if sample.in_flight > 0 {
            let progress = self.load_instant(&self.progress).map(|t| t.min(now));
            // What was sent a moment ago is given its time.
            sample.quiet_since = progress.max(sample.waiting_since);
        }
        sample
    }

    pub(crate) fn probes(&self) -> u32 {
        self.probes.load(Ordering::Relaxed)
    }

    pub(crate) fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::Acquire)
    }

    /// The latest switch, with its epoch.
    pub(crate) fn latest(&self) -> (u32, Switch) {
        let switched = self.lock();
        // Under the lock the epoch belongs to what is read.
        (self.epoch(), *switched)
    }

    pub(crate) fn totals(&self) -> Totals {
        Totals {
            in_flight: self.in_flight.load(Ordering::Relaxed),
            sent: self.sent.load(Ordering::Relaxed),
            acked: self.acked.load(Ordering::Relaxed),
            lost: self.lost.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn put_totals(&self, totals: &Totals) {
        self.in_flight.store(totals.in_flight, Ordering::Relaxed);
        self.sent.store(totals.sent, Ordering::Relaxed);
        self.acked.store(totals.acked, Ordering::Relaxed);
        self.lost.store(totals.lost, Ordering::Relaxed);
    }

    pub(crate) fn put_mtu(&self, mtu: u16) {
        self.mtu.put(mtu);
    }

    pub(crate) fn put_seen(&self, epoch: u32) {
        self.seen.store(epoch, Ordering::Relaxed);
    }

    pub(crate) fn put_waiting(&self, since: Option<Instant>) {
        self.store_instant(&self.waiting_since, since);
    }

    pub(crate) fn put_last_ack(&self, at: Option<Instant>) {
        self.store_instant(&self.last_ack, at);
    }

    pub(crate) fn put_progress(&self, at: Instant) {
        self.store_instant(&self.progress, Some(at));
    }

    pub(crate) fn put_rtt(&self, srtt: Duration, rttvar: Duration) {
        self.srtt.store(nanos(srtt), Ordering::Relaxed);
        self.rttvar.store(nanos(rttvar), Ordering::Relaxed);
    }

    pub(crate) fn put_slept(&self, slept: bool) {
        self.slept.store(slept, Ordering::Relaxed);
    }

    fn store_instant(&self, field: &AtomicU64, at: Option<Instant>) {
        let value = at.map_or(0, |at| {
            nanos(at.saturating_duration_since(self.base)).saturating_add(1)
        });
        field.store(value, Ordering::Relaxed);
    }

    fn load_instant(&self, field: &AtomicU64) -> Option<Instant> {
        let value = field.load(Ordering::Relaxed);
        self.base
            .checked_add(Duration::from_nanos(value.checked_sub(1)?))
    }

    fn lock(&self) -> MutexGuard<'_, Switch> {
        // A `Switch` is written in one assignment: there is no half-written state that a panic could leave.
        self.switched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nanoseconds in 64 bits last 584 years.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
