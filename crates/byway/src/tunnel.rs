//! A tunnel: one QUIC connection between two nodes, above all their paths.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use byway_core::io::{PathKind, RouteReason};
use byway_wire::tunnel::{Refused, Target};
use byway_wire::{NodeId, RelayUrl};
use tokio::sync::watch;

/// Sends on a stream. QUIC semantics: `finish` is a half-close, `reset` an abort.
pub type SendStream = quinn::SendStream;
/// Receives on a stream.
pub type RecvStream = quinn::RecvStream;

/// The path a tunnel uses now.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct PathInfo {
    /// Direct, or through which kind of link.
    pub kind: PathKind,
    /// The peer's address (direct) or the relay's.
    pub remote: Option<SocketAddr>,
    /// The relay, when relayed.
    pub relay: Option<RelayUrl>,
    /// Why it was chosen.
    pub reason: RouteReason,
    /// Since when.
    pub since: Instant,
    /// True while the path is suspected and datagrams go both ways.
    pub suspected: bool,
}

/// Counters of a tunnel.
#[derive(Clone, PartialEq, Debug, Default)]
#[non_exhaustive]
pub struct TunnelStats {
    /// Smoothed round-trip time.
    pub rtt: Duration,
    /// UDP bytes sent, all paths.
    pub sent_bytes: u64,
    /// UDP bytes received, all paths.
    pub received_bytes: u64,
    /// Packets declared lost.
    pub lost_packets: u64,
    /// Largest UDP payload in use.
    pub mtu: u16,
    /// How often the path changed.
    pub switches: u64,
    /// Longest time an answer was awaited before a failover, if there was one.
    pub longest_stall: Option<Duration>,
    /// Bytes sent by kind of path: direct, UDP link, TLS link.
    pub sent_by_kind: [u64; 3],
}

/// One QUIC connection between two nodes, above all their paths. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tunnel {
    _private: (),
}

/// Why a stream to a target could not be opened.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The agent refused, and says why.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The tunnel ended.
    #[error("the tunnel ended: {0}")]
    Closed(TunnelClosed),
    /// The agent does not keep to the protocol.
    #[error("the agent does not keep to the protocol: {0}")]
    Protocol(String),
}

/// Why a tunnel ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TunnelClosed {
    /// This side closed it.
    #[error("closed by this side")]
    Local,
    /// The other side closed it.
    #[error("closed by the other side")]
    Done,
    /// The agent does not allow this client.
    #[error("the agent does not allow this client")]
    NotAllowed,
    /// The other side shut down.
    #[error("the other side shut down")]
    Shutdown,
    /// The other side restarted: this tunnel's other end is gone.
    #[error("the other side restarted")]
    Reset,
    /// Nothing was heard for longer than the idle timeout.
    #[error("nothing was heard for too long")]
    TimedOut,
    /// The other side does not keep to the protocol, or the transport failed.
    #[error("{0}")]
    Protocol(String),
}

impl Tunnel {
    /// The node at the other end; its key was proved.
    pub fn remote(&self) -> NodeId {
        unimplemented!()
    }
    /// Opens a stream to the embedding program on the other side. The first bytes written announce it.
    pub async fn open(&self) -> Result<(SendStream, RecvStream), StreamError> {
        unimplemented!()
    }
    /// The next stream the other side opened for the embedding program; none when the tunnel ends.
    pub async fn accept(&self) -> Option<(SendStream, RecvStream)> {
        unimplemented!()
    }
    /// Opens a stream to a target behind the agent; waits for its answer.
    pub async fn connect(&self, target: &Target) -> Result<(SendStream, RecvStream), StreamError> {
        let _ = target;
        unimplemented!()
    }
    /// Sends a datagram: unreliable, at most [`Tunnel::max_datagram`] bytes.
    pub fn send_datagram(&self, data: Bytes) -> Result<(), StreamError> {
        let _ = data;
        unimplemented!()
    }
    /// The next datagram.
    pub async fn read_datagram(&self) -> Result<Bytes, TunnelClosed> {
        unimplemented!()
    }
    /// Longest datagram now, in bytes.
    pub fn max_datagram(&self) -> usize {
        unimplemented!()
    }
    /// One round trip through the tunnel and the other side's process.
    pub async fn ping(&self) -> Result<Duration, StreamError> {
        unimplemented!()
    }
    /// The path in use; changes are seen by waiting on the receiver.
    pub fn path(&self) -> watch::Receiver<PathInfo> {
        unimplemented!()
    }
    /// Waits until the tunnel runs on this kind of path.
    pub async fn wait_for(&self, kind: PathKind) -> Result<(), TunnelClosed> {
        let _ = kind;
        unimplemented!()
    }
    /// Counters.
    pub fn stats(&self) -> TunnelStats {
        unimplemented!()
    }
    /// Serve streams to targets on this tunnel as `policy` allows (the agent's side of forwarding). Runs until the
    /// tunnel ends; embedders' own streams still arrive at [`Tunnel::accept`].
    pub fn serve(&self, policy: crate::forward::TargetPolicy) {
        let _ = policy;
        unimplemented!()
    }
    /// Ends the tunnel; data not yet acknowledged may be lost.
    pub fn close(&self) {
        unimplemented!()
    }
    /// Waits for the end.
    pub async fn closed(&self) -> TunnelClosed {
        unimplemented!()
    }
}
