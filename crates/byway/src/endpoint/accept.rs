//! Taking tunnels in: handshake, identity, greeting, and then the queue of [`super::Endpoint::accept`].
//!
//! Each connection has a task of its own, so that a slow or silent client delays nobody, and there is a bound on how many
//! may be under way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use byway_congestion::FlowMonitor;
use byway_core::io::Admission;
use byway_wire::SignedRecord;
use byway_wire::tunnel::CloseCode;
use tokio::sync::{Semaphore, mpsc};

use super::quic::Quic;
use super::tunnels;
use crate::driver::{Input, Lease, Shared};
use crate::socket::Virtual;
use crate::tls;
use crate::tunnel::{Tunnel, close_code, greeting, records};

/// Tunnels that may wait for [`super::Endpoint::accept`]; beyond, each waits in its own task.
pub(super) const QUEUE: usize = 128;
/// Connections between their first packet and the queue (design section 12: Retry above 128 is the relay's; here the
/// relay has admitted each peer already).
const MAX_PENDING: usize = 512;
/// A handshake takes three round trips at worst.
const HANDSHAKE: Duration = Duration::from_secs(10);

pub(super) struct Acceptor {
    pub(super) quinn: quinn::Endpoint,
    pub(super) quic: Arc<Quic>,
    pub(super) shared: Arc<Shared>,
    pub(super) admission: Arc<Admission>,
    pub(super) accepted: mpsc::Sender<Tunnel>,
    pub(super) driver: mpsc::Sender<Input>,
}

impl Acceptor {
    pub(super) async fn run(self) {
        let pending = Arc::new(Semaphore::new(MAX_PENDING));
        let mut tasks = tokio::task::JoinSet::new();
        while let Some(incoming) = self.quinn.accept().await {
            while tasks.try_join_next().is_some() {}
            // Only peers that the node let in have an address; others were dropped by the socket already.
            let peer = match Virtual::from_addr(incoming.remote_address()) {
                Some(Virtual::Peer(id)) => self.shared.peer(id),
                _ => None,
            };
            let Some(peer) = peer else {
                incoming.ignore();
                continue;
            };
            let Ok(permit) = Arc::clone(&pending).try_acquire_owned() else {
                incoming.refuse();
                continue;
            };
            let monitor = peer.new_monitor(Instant::now());
            let config = self.quic.accept(&peer, &monitor);
            let connecting = match incoming.accept_with(config) {
                Ok(connecting) => connecting,
                Err(error) => {
                    tracing::debug!(%error, "not a connection");
                    continue;
                }
            };
            let lease = peer.lease();
            let shared = Arc::clone(&self.shared);
            let admission = Arc::clone(&self.admission);
            let accepted = self.accepted.clone();
            let driver = self.driver.clone();
            tasks.spawn(async move {
                let id = lease.peer().id;
                let admitted = admit(connecting, lease, &monitor, &shared, &admission).await;
                if let Some((tunnel, record)) = admitted {
                    // An endpoint that is closed has no use for it.
                    let _ = driver.send(Input::Record(id, record)).await;
                    // Waits as long as the program does not accept; its own tunnel alone waits.
                    let _ = accepted.send(tunnel).await;
                }
                drop(permit);
            });
        }
    }
}

async fn admit(
    connecting: quinn::Connecting,
    lease: Lease,
    monitor: &Arc<FlowMonitor>,
    shared: &Shared,
    admission: &Admission,
) -> Option<(Tunnel, SignedRecord)> {
    let node = lease.peer().node;
    let connection = match tokio::time::timeout(HANDSHAKE, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            tracing::debug!(node = %node.short(), %error, "handshake failed");
            return None;
        }
        Err(_) => {
            tracing::debug!(node = %node.short(), "handshake timed out");
            return None;
        }
    };
    // The relay said whose channel it is; only this says who is really there.
    if tls::proved_node(&connection) != Ok(node) {
        tracing::warn!(node = %node.short(), "the client is another node than its channel says");
        connection.close(close_code(CloseCode::NotAllowed), b"");
        return None;
    }
    let mut own = shared.record.subscribe();
    let current = (**own.borrow_and_update()).clone();
    match greeting::greet_as_agent(&connection, current, node, admission).await {
        Ok(greeted) => {
            tokio::spawn(records::tell(greeted.later, own, records::PAUSE));
            let tunnel = tunnels::establish(connection, lease, monitor);
            Some((tunnel, greeted.record))
        }
        Err(error) => {
            tracing::info!(node = %node.short(), %error, "client refused");
            tunnels::linger(connection, lease);
            None
        }
    }
}
