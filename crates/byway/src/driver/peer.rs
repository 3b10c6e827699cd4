//! A peer as driver, endpoint and tunnels share it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use byway_congestion::FlowMonitor;
use byway_core::io::{FlowSample, Health, PathKind, PeerError, PeerId, RouteReason, Way};
use byway_wire::NodeId;
use byway_wire::tunnel::CloseCode;
use tokio::sync::{mpsc, watch};

use crate::socket::PeerRoute;
use crate::tunnel::{PathInfo, TunnelClosed, close_code};

/// A peer instance, or the node a client dials.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) id: PeerId,
    pub(crate) node: NodeId,
    /// We dialled it, rather than it us.
    pub(crate) dialled: bool,
    pub(crate) route: Arc<PeerRoute>,
    pub(crate) path: watch::Sender<PathInfo>,
    /// Why the node gave the peer up.
    pub(crate) failure: watch::Sender<Option<PeerError>>,
    leases: AtomicUsize,
    released: mpsc::UnboundedSender<PeerId>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Where data goes now, for controllers that are built later.
    primary: Option<Way>,
    /// One for each QUIC connection, owned by its congestion controller.
    monitors: Vec<Weak<FlowMonitor>>,
    /// Since when an answer has been due, from suspicion until the path is cleared or left.
    stalled_since: Option<Instant>,
    tunnels: Vec<Live>,
}

/// An established tunnel.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    pub(crate) connection: quinn::Connection,
    pub(crate) verdict: Arc<OnceLock<TunnelClosed>>,
    pub(crate) monitor: Weak<FlowMonitor>,
}

/// Keeps a peer. Its tunnels and the attempts to open one hold leases; when none is left, the driver closes the peer.
#[derive(Debug)]
pub(crate) struct Lease(Arc<Peer>);

impl Lease {
    pub(crate) fn peer(&self) -> &Arc<Peer> {
        &self.0
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.0.leases.fetch_sub(1, Ordering::AcqRel) == 1 {
            // If the driver is gone, so is the peer.
            let _ = self.0.released.send(self.0.id);
        }
    }
}

impl Peer {
    pub(crate) fn new(
        now: Instant,
        id: PeerId,
        node: NodeId,
        dialled: bool,
        released: mpsc::UnboundedSender<PeerId>,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            node,
            dialled,
            route: Arc::new(PeerRoute::new(id)),
            path: watch::Sender::new(PathInfo {
                kind: PathKind::RelayUdp,
                remote: None,
                relay: None,
                reason: RouteReason::NoPath,
                since: now,
                health: Health::Lost,
                stall: None,
            }),
            failure: watch::Sender::new(None),
            leases: AtomicUsize::new(0),
            released,
            state: Mutex::default(),
        })
    }

    pub(crate) fn lease(self: &Arc<Self>) -> Lease {
        self.leases.fetch_add(1, Ordering::AcqRel);
        Lease(Arc::clone(self))
    }

    pub(crate) fn is_leased(&self) -> bool {
        self.leases.load(Ordering::Acquire) > 0
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failure.borrow().is_some()
    }

    /// It had a path, and nothing has been heard by any for long.
    pub(crate) fn is_lost(&self) -> bool {
        self.had_path() && is_silent(&self.path.borrow())
    }

    /// Data went to it before.
    pub(crate) fn had_path(&self) -> bool {
        self.state().primary.is_some()
    }

    /// Waits until a peer that had a path is lost; for ever if it is forgotten.
    pub(crate) async fn lost(&self) {
        let mut path = self.path.subscribe();
        if path.wait_for(is_silent).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// For the congestion controller of one more connection.
    pub(crate) fn new_monitor(&self, now: Instant) -> Arc<FlowMonitor> {
        let monitor = Arc::new(FlowMonitor::new(now).keeping_mtu_in(Arc::clone(&self.route.mtu)));
        let mut state = self.state();
        if let Some(primary) = &state.primary {
            monitor.switch(now, primary);
        }
        state.monitors.retain(|monitor| monitor.strong_count() > 0);
        state.monitors.push(Arc::downgrade(&monitor));
        monitor
    }

    /// Data goes along `way` from now on: congestion control must know before the first datagram does.
    pub(crate) fn switch(&self, now: Instant, way: Way) {
        let mut state = self.state();
        state.primary = Some(way);
        for monitor in state.monitors.iter().filter_map(Weak::upgrade) {
            monitor.switch(now, &way);
        }
    }

    /// What waited over a sleep is not to hold up what is sent now.
    pub(crate) fn renew_if_stale(&self, now: Instant) {
        for monitor in self.state().monitors.iter().filter_map(Weak::upgrade) {
            monitor.renew_if_stale(now);
        }
    }

    /// What congestion control sees, all connections to the peer together. They share the path, so the one that was
    /// answered last tells most about it.
    pub(crate) fn sample(&self, now: Instant) -> FlowSample {
        let state = self.state();
        let samples: Vec<FlowSample> = state
            .monitors
            .iter()
            .filter_map(Weak::upgrade)
            .map(|monitor| monitor.sample(now))
            .collect();
        merge(&samples)
    }

    /// The path in use is suspected.
    pub(crate) fn stall_begins(&self, now: Instant) {
        let since = self.sample(now).waiting_since.unwrap_or(now);
        self.state().stalled_since.get_or_insert(since);
    }

    /// The path answered again, or was left for another. Says how long no answer came.
    pub(crate) fn stall_ends(&self, now: Instant) -> Option<Duration> {
        let last_ack = self.sample(now).last_ack;
        let since = self.state().stalled_since.take()?;
        // Copies on the standby may have been answered before the switch.
        let until = last_ack.filter(|ack| *ack > since).unwrap_or(now);
        Some(until - since)
    }

    pub(crate) fn add_tunnel(&self, live: Live) {
        self.state().tunnels.push(live);
    }

    /// The node gave the peer up: its tunnels end, and say why.
    pub(crate) fn fail(&self, error: PeerError) {
        self.failure.send_replace(Some(error));
        self.close_if_failed();
    }

    /// Ends the tunnels of a peer that was given up.
    pub(crate) fn close_if_failed(&self) {
        let verdict = match &*self.failure.borrow() {
            None => return,
            Some(PeerError::Restarted) => TunnelClosed::Reset,
            Some(PeerError::NotAllowed(_)) => TunnelClosed::NotAllowed,
            // No way leads there any more.
            Some(_) => TunnelClosed::TimedOut,
        };
        for live in self.tunnels() {
            let _ = live.verdict.set(verdict.clone());
            live.connection.close(close_code(CloseCode::Done), b"");
        }
    }

    pub(crate) fn remove_tunnel(&self, connection: &quinn::Connection) {
        let stable = connection.stable_id();
        let mut state = self.state();
        let State {
            tunnels, monitors, ..
        } = &mut *state;
        for ended in tunnels.extract_if(.., |live| live.connection.stable_id() == stable) {
            // What it still waits for will never be answered: that says nothing about the path.
            monitors.retain(|monitor| !monitor.ptr_eq(&ended.monitor));
        }
        if tunnels.is_empty() {
            self.route.forget_recent();
        }
    }

    pub(crate) fn has_tunnels(&self) -> bool {
        !self.state().tunnels.is_empty()
    }

    pub(crate) fn tunnels(&self) -> Vec<Live> {
        self.state().tunnels.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_silent(path: &PathInfo) -> bool {
    path.health == Health::Lost
}

fn merge(samples: &[FlowSample]) -> FlowSample {
    let latest = samples
        .iter()
        .filter(|sample| sample.in_flight > 0)
        .max_by_key(|sample| sample.last_ack)
        .or_else(|| samples.iter().max_by_key(|sample| sample.last_ack));
    let Some(latest) = latest else {
        return FlowSample::default();
    };
    let sum = |field: fn(&FlowSample) -> u64| samples.iter().map(field).sum();
    FlowSample {
        in_flight: sum(|sample| sample.in_flight),
        sent: sum(|sample| sample.sent),
        acked: sum(|sample| sample.acked),
        lost: sum(|sample| sample.lost),
        // Each is made to speak for itself, whatever another one hears.
        quiet_since: samples.iter().filter_map(|s| s.quiet_since).min(),
        slept: samples.iter().any(|s| s.slept && s.in_flight > 0),
        ..*latest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_connections_the_one_answered_last_is_the_evidence() {
        let now = Instant::now();
        let stuck = FlowSample {
            in_flight: 10,
            waiting_since: Some(now),
            quiet_since: Some(now),
            sent: 10,
            ..FlowSample::default()
        };
        let alive = FlowSample {
            in_flight: 5,
            last_ack: Some(now + Duration::from_secs(1)),
            quiet_since: Some(now + Duration::from_secs(1)),
            sent: 7,
            acked: 2,
            ..FlowSample::default()
        };
        let merged = merge(&[stuck, alive]);
        assert_eq!(merged.waiting_since, None);
        assert_eq!(merged.quiet_since, Some(now), "for the stuck one");
        assert_eq!(merged.in_flight, 15);
        assert_eq!(merged.sent, 17);
        assert_eq!(merge(&[stuck]).waiting_since, Some(now));
        assert_eq!(merge(&[]), FlowSample::default());
    }
}
