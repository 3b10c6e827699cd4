//! The endpoint: one node of this process.

use std::net::SocketAddr;
use std::time::Duration;

use byway_core::discovery::NatReport;
use byway_core::io::{Admission, LinkMode};
use byway_wire::signal::Candidate;
use byway_wire::{NodeId, RelayUrl, SecretKey, Ticket};
use tokio::sync::watch;

use crate::tunnel::Tunnel;

/// Settings of an endpoint; every one has a default that works.
#[derive(Debug)]
pub struct Builder {
    _private: (),
}

impl Builder {
    /// The node's key; a fresh one otherwise.
    pub fn secret_key(self, key: SecretKey) -> Self {
        let _ = key;
        unimplemented!()
    }
    /// A relay to keep a link to. Give an agent at least one.
    pub fn relay(self, url: RelayUrl) -> Self {
        let _ = url;
        unimplemented!()
    }
    /// Another STUN server, `host:port`; relays are asked anyway.
    pub fn stun_server(self, host_port: impl Into<String>) -> Self {
        let _ = host_port.into();
        unimplemented!()
    }
    /// Accept tunnels from those whom `admission` admits.
    pub fn accept(self, admission: Admission) -> Self {
        let _ = admission;
        unimplemented!()
    }
    /// Which carriers links may use; [`LinkMode::Auto`] otherwise.
    pub fn links(self, mode: LinkMode) -> Self {
        let _ = mode;
        unimplemented!()
    }
    /// False: never leave the relay; true otherwise.
    pub fn direct(self, direct: bool) -> Self {
        let _ = direct;
        unimplemented!()
    }
    /// Bind here rather than to any address and port; may be called once for IPv4 and once for IPv6.
    pub fn bind_addr(self, addr: SocketAddr) -> Self {
        let _ = addr;
        unimplemented!()
    }
    /// Largest UDP payload QUIC may search for, in bytes, 1,200-8,952; 1,444 otherwise.
    pub fn max_datagram(self, bytes: u16) -> Self {
        let _ = bytes;
        unimplemented!()
    }
    /// A file that keeps the node's epoch between starts (design section 4); the wall clock alone otherwise.
    pub fn epoch_file(self, path: impl Into<std::path::PathBuf>) -> Self {
        let _ = path.into();
        unimplemented!()
    }
    /// Binds sockets and starts the node.
    pub async fn bind(self) -> Result<Endpoint, BindError> {
        unimplemented!()
    }
}

/// Why an endpoint could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// A socket could not be opened.
    #[error("cannot open a UDP socket on {addr}: {source}")]
    Socket {
        /// Where.
        addr: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The system gave no randomness.
    #[error("the system gives no randomness: {0}")]
    Random(String),
    /// A setting is out of its range.
    #[error("{0}")]
    Setting(String),
}

/// One node of this process. Cheap to clone; the node ends when [`Endpoint::close`] is called or the last clone drops.
#[derive(Clone, Debug)]
pub struct Endpoint {
    _private: (),
}

/// Why a tunnel could not be opened.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The ticket names no relay.
    #[error("the ticket names no relay, so there is no way to reach the agent")]
    NoRelay,
    /// No relay could be reached. Each with the reason.
    #[error("no relay could be reached: {0}")]
    RelayUnreachable(String),
    /// The agent is not connected to any of its relays.
    #[error("the agent is offline: it is not connected to {0}")]
    Offline(String),
    /// The agent or the relay refuses us.
    #[error("not allowed: {0}")]
    NotAllowed(String),
    /// The agent did not answer in time.
    #[error("the agent did not answer within {0:?}")]
    TimedOut(Duration),
    /// The TLS or QUIC handshake failed.
    #[error("the tunnel's handshake failed: {0}")]
    Handshake(String),
    /// The endpoint is closed.
    #[error("this endpoint is closed")]
    Closed,
}

/// The state of a link to a relay, for showing.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct LinkStatus {
    /// The relay.
    pub relay: RelayUrl,
    /// `udp` or `tls` while up.
    pub carrier: Option<byway_core::io::Carrier>,
    /// Our address as the relay sees it.
    pub observed: Option<SocketAddr>,
    /// Why it is not up.
    pub error: Option<String>,
}

impl Endpoint {
    /// Settings for a new endpoint.
    pub fn builder() -> Builder {
        unimplemented!()
    }
    /// Who this node is.
    pub fn node_id(&self) -> NodeId {
        unimplemented!()
    }
    /// Waits until at least one of its relays is linked; errs with the reason when none is within `deadline`.
    pub async fn online(&self, deadline: Duration) -> Result<(), ConnectError> {
        let _ = deadline;
        unimplemented!()
    }
    /// A ticket for this node: its key, its relays, and the first secret of its admission.
    pub fn ticket(&self, name: Option<&str>) -> Ticket {
        let _ = name;
        unimplemented!()
    }
    /// Opens a tunnel. Returns as soon as the tunnel is encrypted and authenticated, over whatever path came first.
    pub async fn connect(&self, ticket: &Ticket) -> Result<Tunnel, ConnectError> {
        let _ = ticket;
        unimplemented!()
    }
    /// The next tunnel a client opened; none when the endpoint is closed.
    pub async fn accept(&self) -> Option<Tunnel> {
        unimplemented!()
    }
    /// The links to relays.
    pub fn links(&self) -> watch::Receiver<Vec<LinkStatus>> {
        unimplemented!()
    }
    /// Our own candidates.
    pub fn addresses(&self) -> watch::Receiver<Vec<Candidate>> {
        unimplemented!()
    }
    /// What is known of the network.
    pub fn nat_report(&self) -> watch::Receiver<std::sync::Arc<NatReport>> {
        unimplemented!()
    }
    /// Runs discovery to its end (at most 3 s) and returns its report.
    pub async fn discover(&self) -> std::sync::Arc<NatReport> {
        unimplemented!()
    }
    /// Closes all tunnels and links and waits until peers were told (at most 1 s).
    pub async fn close(&self) {
        unimplemented!()
    }
}
