//! The controller that follows switches. The algorithm is in the crate's documentation.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use byway_core::io::Way;
use byway_core::recent::UNDER_WAY;
use quinn_proto::RttEstimator;
use quinn_proto::congestion::{
    BbrConfig, Controller, ControllerFactory, ControllerMetrics, CubicConfig,
};

use crate::FlowMonitor;
use crate::monitor::{Switch, Totals};
use crate::rtt::Rtt;
use crate::slept::{MAX_BARE_ACK, Slept};
use crate::tolerant::TolerantFactory;
use crate::unanswered::Unanswered;

/// How many paths keep their state, the current one included: direct over each family, and two relays.
pub const KEPT_PATHS: usize = 4;

/// How long the state of a path that is not in use stays of use. Beyond it, what was measured says little about the
/// load the path has now, and a fresh start is the safer guess.
pub const KEEP_FOR: Duration = Duration::from_secs(600);

/// quinn asks for the window this often before a datagram that elicits an acknowledgement leaves: once to compare it
/// with what is in flight, once for the pacer.
const WINDOW_CALLS: u8 = 2;

/// One inner controller per path; swaps them when the [`FlowMonitor`] announces a switch.
///
/// Which sends elicit an acknowledgement, quinn does not say; the crate's documentation lists what can be observed. A
/// send counts if quinn asked for the window twice since the last one, or if it is larger than any bare ACK. Two errors
/// remain, both small: a loss probe without data is not counted (something older is unanswered then already), and
/// reading `Connection::stats()` twice between two sends makes a bare ACK look like more. Callers with a clock of
/// their own should therefore read statistics no oftener than they must.
pub struct PathAware {
    monitor: Arc<FlowMonitor>,
    factory: Arc<dyn ControllerFactory + Send + Sync>,
    /// The epoch of the monitor that this state belongs to.
    epoch: u32,
    renewals: u32,
    current: PathState,
    /// Paths used before, the latest first.
    kept: VecDeque<PathState>,
    mtu: u16,
    totals: Totals,
    /// Packets sent before this were sent on an earlier path.
    switched_at: Option<Instant>,
    /// What is left in flight of those, in bytes.
    before: u64,
    /// No packet of this path was acknowledged yet: `before` adds to the window.
    unproven: bool,
    unanswered: Unanswered,
    /// When the newest packet was sent, of any path, that the ACK frame being processed acknowledged.
    newest_acked: Option<Instant>,
    slept: Slept,
    /// How often the window was asked for since the last send, up to [`WINDOW_CALLS`].
    window_calls: AtomicU8,
}

struct PathState {
    /// None until the first path is known.
    way: Option<Way>,
    controller: Box<dyn Controller>,
    rtt: Rtt,
    /// When it was last in use.
    left: Instant,
}

/// What decides how much is under way at once on a path. Each side decides for what it sends.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum Congestion {
    /// Takes every loss for congestion (RFC 9438): fair to others, and slow where the network loses packets for other
    /// reasons. One lost packet in a hundred leaves some 0.7 MiB/s at a round trip of 20 ms.
    #[default]
    Cubic,
    /// Cubic that sends less only for loss that comes of sending too much: while a queue shows in the round-trip time, or where
    /// less is lost when less is sent. With a twentieth lost for other reasons (radio, a poor access line) four of five transfers still
    /// have most of the link; without such loss it is Cubic. A transfer that a machine slept over for hours may go on late. New, and
    /// not the default yet: see decision 0018.
    Tolerant,
    /// quinn's BBR (first version), which quinn calls experimental. It measures what the path delivers, but its estimate never
    /// falls: where queues are short it loses a quarter to a half of what it sends, and leaves others next to nothing.
    Bbr,
}

/// Builds [`PathAware`] controllers for one tunnel. One factory per tunnel: QUIC gives a controller no identity, so
/// the factory brings the tunnel's [`FlowMonitor`].
pub struct PathAwareFactory {
    monitor: Arc<FlowMonitor>,
    inner: Arc<dyn ControllerFactory + Send + Sync>,
}

impl PathAwareFactory {
    /// The default ([`Congestion`]) on every path.
    pub fn new(monitor: Arc<FlowMonitor>) -> Self {
        Self::choosing(monitor, Congestion::default())
    }

    /// A controller of this kind on every path.
    pub fn choosing(monitor: Arc<FlowMonitor>, congestion: Congestion) -> Self {
        match congestion {
            Congestion::Tolerant => Self::with_inner(monitor, Arc::new(TolerantFactory::default())),
            Congestion::Cubic => Self::with_inner(monitor, Arc::new(CubicConfig::default())),
            Congestion::Bbr => Self::with_inner(monitor, Arc::new(BbrConfig::default())),
        }
    }

    /// Controllers of `inner` on every path.
    pub fn with_inner(
        monitor: Arc<FlowMonitor>,
        inner: Arc<dyn ControllerFactory + Send + Sync>,
    ) -> Self {
        Self { monitor, inner }
    }
}

impl ControllerFactory for PathAwareFactory {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(PathAware::new(
            Arc::clone(&self.monitor),
            Arc::clone(&self.inner),
            now,
            current_mtu,
        ))
    }
}

impl Controller for PathAware {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.follow(now);
        let calls = std::mem::take(self.window_calls.get_mut());
        if calls >= WINDOW_CALLS || bytes > MAX_BARE_ACK {
            if self.totals.in_flight == 0 {
                self.monitor.put_progress(now);
            }
            self.totals.sent += bytes;
            self.totals.in_flight += bytes;
            self.unanswered.on_sent(now, self.current.rtt.smoothed);
            self.publish();
        }
        self.slept.on_sent(bytes, self.monitor.probes());
        self.current
            .controller
            .on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        let own = self.acked(now, sent, bytes);
        let rtt = self.slept.sane(rtt);
        if own {
            let inner = &mut self.current.controller;
            inner.on_ack(now, sent, bytes, app_limited, rtt);
        }
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        self.follow(now);
        self.totals.in_flight = in_flight;
        self.before = self.before.min(in_flight);
        if in_flight == 0 {
            self.unanswered.clear();
        }
        let newest = self.newest_acked.take();
        let own = newest.filter(|sent| !self.is_before(*sent));
        if let Some(newest) = own {
            self.unanswered.on_acked(newest);
            if self.current.rtt.on_ack(now, newest) {
                let rtt = &self.current.rtt;
                self.slept.measured(rtt.smoothed);
                self.monitor.put_rtt(rtt.smoothed, rtt.variation);
            }
            self.monitor.put_last_ack(Some(now));
            self.current.controller.on_end_acks(
                now,
                in_flight - self.before,
                app_limited,
                largest_packet_num_acked,
            );
        }
        if let Some(newest) = newest {
            self.monitor.put_progress(now);
            let sample = now.saturating_duration_since(newest);
            self.slept.on_answer(sample, in_flight, self.mtu);
            if sample > UNDER_WAY && own.is_some() {
                self.renew(now);
            }
        }
        self.publish();
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.follow(now);
        self.totals.lost += lost_bytes;
        self.totals.in_flight = self.totals.in_flight.saturating_sub(lost_bytes);
        let age = now.saturating_duration_since(sent);
        self.slept.on_lost(lost_bytes, age, self.mtu);
        if self.totals.in_flight == 0 {
            self.unanswered.clear();
        }
        if self.is_before(sent) {
            self.before = self.before.saturating_sub(lost_bytes);
        } else if lost_bytes == 0 {
            // An ECN mark.
            self.current
                .controller
                .on_congestion_event(now, sent, false, 0);
        } else {
            // Whatever of the old path was still in flight is older than the newest lost packet, hence lost with it:
            // the bytes are not this path's, and neither is a period of congestion that began with them. The newest is this
            // path's though `before` may count an MTU probe, which is in flight and never among the lost: zero would be an ECN mark.
            let mixed = self.before > 0;
            let own = lost_bytes
                .saturating_sub(std::mem::take(&mut self.before))
                .max(1);
            self.current.controller.on_congestion_event(
                now,
                sent,
                is_persistent_congestion && !mixed,
                own,
            );
        }
        self.publish();
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = new_mtu;
        self.monitor.put_mtu(new_mtu);
        self.current.controller.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        let calls = self.window_calls.load(Ordering::Relaxed);
        if calls < WINDOW_CALLS {
            // A connection is driven by one thread at a time, so this needs no read-modify-write.
            self.window_calls.store(calls + 1, Ordering::Relaxed);
        }
        let window = self.peek_window();
        if !self.slept.is_held() {
            return window;
        }
        let switched = self.monitor.epoch() != self.epoch;
        let probes = self.monitor.probes();
        self.slept.window(window, self.mtu, switched, probes)
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = self.current.controller.metrics();
        metrics.congestion_window = self.peek_window();
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self {
            monitor: Arc::clone(&self.monitor),
            factory: Arc::clone(&self.factory),
            epoch: self.epoch,
            renewals: self.renewals,
            current: self.current.duplicate(),
            kept: self.kept.iter().map(PathState::duplicate).collect(),
            mtu: self.mtu,
            totals: self.totals,
            switched_at: self.switched_at,
            before: self.before,
            unproven: self.unproven,
            unanswered: self.unanswered,
            newest_acked: self.newest_acked,
            slept: self.slept.clone(),
            window_calls: AtomicU8::new(0),
        })
    }

    fn initial_window(&self) -> u64 {
        self.current.controller.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

impl PathAware {
    fn new(
        monitor: Arc<FlowMonitor>,
        factory: Arc<dyn ControllerFactory + Send + Sync>,
        now: Instant,
        mtu: u16,
    ) -> Self {
        let (epoch, Switch { way, renewals, .. }) = monitor.latest();
        let current = PathState {
            way,
            controller: Arc::clone(&factory).build(now, mtu),
            rtt: Rtt::default(),
            left: now,
        };
        let totals = monitor.totals();
        monitor.put_seen(epoch);
        Self {
            monitor,
            factory,
            epoch,
            renewals,
            current,
            kept: VecDeque::with_capacity(KEPT_PATHS),
            mtu,
            totals,
            switched_at: None,
            before: 0,
            unproven: false,
            unanswered: Unanswered::default(),
            newest_acked: None,
            slept: Slept::default(),
            window_calls: AtomicU8::new(0),
        }
    }

    /// Acts on a switch that was announced since the last call.
    #[inline]
    fn follow(&mut self, now: Instant) {
        if self.monitor.epoch() != self.epoch {
            self.follow_slow(now);
        }
    }

    #[cold]
    fn follow_slow(&mut self, now: Instant) {
        let (epoch, switch) = self.monitor.latest();
        self.epoch = epoch;
        let renewed = std::mem::replace(&mut self.renewals, switch.renewals) != switch.renewals;
        match self.current.way {
            // There and back between two calls: nothing was sent elsewhere.
            Some(_) if self.current.way == switch.way && !renewed => {}
            Some(_) => self.swap(now, switch),
            // The tunnel's first flight was held until there was a path: it is this path's.
            None => {
                self.current.way = switch.way;
                self.unanswered.clear();
            }
        }
        let rtt = &self.current.rtt;
        self.monitor.put_rtt(rtt.smoothed, rtt.variation);
        self.monitor.put_waiting(self.unanswered.since());
        self.monitor.put_seen(epoch);
    }

    /// An answer that was held up by a sleep is the first word of it, on the peer's side always. The path is taken for a new one
    /// here too: the window is one from before.
    #[cold]
    fn renew(&mut self, now: Instant) {
        if let way @ Some(_) = self.current.way {
            let renewals = self.renewals;
            let at = Some(now);
            self.swap(now, Switch { at, way, renewals });
        }
    }

    fn swap(&mut self, now: Instant, switch: Switch) {
        self.current.left = now;
        let next = match self.position(switch.way, now) {
            Some(index) => self.kept.remove(index),
            None => None,
        };
        let next = match next {
            Some(mut next) => {
                next.controller.on_mtu_update(self.mtu);
                next
            }
            None => PathState {
                way: switch.way,
                controller: Arc::clone(&self.factory).build(now, self.mtu),
                rtt: Rtt::default(),
                left: now,
            },
        };
        // An expired state of the same path is of no use beside its successor.
        self.kept
            .push_front(std::mem::replace(&mut self.current, next));
        self.kept.retain(|state| state.way != switch.way);
        self.kept.truncate(KEPT_PATHS - 1);

        // quinn may have read its clock before the shell announced the switch.
        self.switched_at = Some(switch.at.map_or(now, |at| at.min(now)));
        self.before = self.totals.in_flight;
        self.unproven = true;
        self.slept.on_switch(self.mtu);
        self.unanswered.clear();
        self.monitor.put_last_ack(None);
    }

    /// Where among the kept paths `way` is, if its state is still of use.
    fn position(&self, way: Option<Way>, now: Instant) -> Option<usize> {
        self.kept.iter().position(|state| {
            state.way == way && now.saturating_duration_since(state.left) <= KEEP_FOR
        })
    }

    /// Counts an acknowledged packet. True if it is this path's, so that the inner controller is to know.
    fn acked(&mut self, now: Instant, sent: Instant, bytes: u64) -> bool {
        self.follow(now);
        self.newest_acked = self.newest_acked.max(Some(sent));
        self.totals.acked += bytes;
        self.totals.in_flight = self.totals.in_flight.saturating_sub(bytes);
        self.slept.on_acked(bytes);
        if self.is_before(sent) {
            self.before = self.before.saturating_sub(bytes);
            return false;
        }
        self.unproven = false;
        true
    }

    fn is_before(&self, sent: Instant) -> bool {
        self.switched_at.is_some_and(|at| sent < at)
    }

    fn peek_window(&self) -> u64 {
        if self.monitor.epoch() != self.epoch {
            return self.window_after_switch();
        }
        let window = self.current.controller.window();
        if self.unproven {
            window.saturating_add(self.before)
        } else {
            window
        }
    }

    /// quinn asks for the window before it sends; the first question after a switch comes before any call that could
    /// act on it.
    #[cold]
    fn window_after_switch(&self) -> u64 {
        let (_, switch) = self.monitor.latest();
        let renewed = self.renewals != switch.renewals;
        if self.current.way.is_none() || (self.current.way == switch.way && !renewed) {
            return self.current.controller.window();
        }
        // How long ago the path was left is not known without a clock; a state that expired is replaced at the next
        // send, so at most one batch leaves under its window.
        let window = self
            .kept
            .iter()
            .find(|state| state.way == switch.way)
            .map_or_else(
                || self.current.controller.initial_window(),
                |state| state.controller.window(),
            );
        window.saturating_add(self.totals.in_flight)
    }

    fn publish(&self) {
        self.monitor.put_totals(&self.totals);
        self.monitor.put_waiting(self.unanswered.since());
        self.monitor.put_slept(self.slept.is_held());
    }
}

impl PathState {
    fn duplicate(&self) -> Self {
        Self {
            way: self.way,
            controller: self.controller.clone_box(),
            rtt: self.rtt,
            left: self.left,
        }
    }
}

#[cfg(test)]
mod tests;
