//! What the endpoint hands over when a connection's handshake is done: everything a [`Tunnel`](super::Tunnel) is made of.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use byway_core::io::PathKind;
use byway_wire::NodeId;
use tokio::sync::watch;

use super::{PathInfo, TunnelClosed};

/// The parts of a tunnel. The connection's identity was proved and, on the agent, its greeting verified
/// ([`super::greeting`]); [`Tunnel::new`](super::Tunnel::new) starts taking streams at once.
#[derive(Debug)]
pub(crate) struct TunnelParts {
    /// The QUIC connection, its greeting stream already opened (client) or answered (agent).
    pub(crate) connection: quinn::Connection,
    /// The node at the other end.
    pub(crate) remote: NodeId,
    /// The path in use; the sender lives with the peer's route.
    pub(crate) path: watch::Receiver<PathInfo>,
    /// Counted by the socket and by the driver.
    pub(crate) counters: Arc<RouteCounters>,
    /// Set, before the connection is closed locally, by whoever gives the peer up for a reason the application must
    /// see (the peer restarted, the path layer lost it); [`TunnelClosed::Local`] otherwise.
    pub(crate) verdict: Arc<OnceLock<TunnelClosed>>,
}

/// Counters of a peer's route. Relaxed atomics: they are for showing, nothing depends on their order.
#[derive(Debug, Default)]
pub(crate) struct RouteCounters {
    /// UDP payload bytes sent: direct, UDP link, TLS link.
    sent: [AtomicU64; 3],
    /// Changes of the primary path.
    switches: AtomicU64,
    /// Longest wait for an answer before a failover, in microseconds; 0 for none.
    longest_stall_us: AtomicU64,
}

impl RouteCounters {
    /// Counts bytes sent on a path of this kind.
    pub(crate) fn add_sent(&self, kind: PathKind, bytes: u64) {
        self.sent[kind_index(kind)].fetch_add(bytes, Ordering::Relaxed);
    }
    /// Counts one change of the primary path.
    pub(crate) fn add_switch(&self) {
        self.switches.fetch_add(1, Ordering::Relaxed);
    }
    /// Records how long an answer was awaited before a failover.
    pub(crate) fn note_stall(&self, stall: Duration) {
        let us = u64::try_from(stall.as_micros()).unwrap_or(u64::MAX);
        self.longest_stall_us.fetch_max(us, Ordering::Relaxed);
    }
    /// Bytes sent by kind of path: direct, UDP link, TLS link.
    pub(crate) fn sent_by_kind(&self) -> [u64; 3] {
        [0, 1, 2].map(|kind: usize| self.sent[kind].load(Ordering::Relaxed))
    }
    /// How often the primary path changed.
    pub(crate) fn switches(&self) -> u64 {
        self.switches.load(Ordering::Relaxed)
    }
    /// The longest stall, if there was one.
    pub(crate) fn longest_stall(&self) -> Option<Duration> {
        match self.longest_stall_us.load(Ordering::Relaxed) {
            0 => None,
            us => Some(Duration::from_micros(us)),
        }
    }
}

/// The place of a kind in arrays by kind.
fn kind_index(kind: PathKind) -> usize {
    match kind {
        PathKind::Direct => 0,
        PathKind::RelayUdp => 1,
        PathKind::RelayTls => 2,
    }
}
