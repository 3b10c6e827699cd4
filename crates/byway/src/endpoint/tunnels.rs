//! From a connection to a tunnel, and what happens when it ends.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use byway_congestion::FlowMonitor;

use crate::driver::{Lease, Live};
use crate::tunnel::parts::TunnelParts;
use crate::tunnel::{Tunnel, TunnelClosed};

/// Makes the tunnel, and watches for its end to give the peer back.
pub(super) fn establish(
    connection: quinn::Connection,
    lease: Lease,
    monitor: &Arc<FlowMonitor>,
) -> Tunnel {
    let verdict = Arc::new(OnceLock::<TunnelClosed>::new());
    let peer = lease.peer();
    peer.add_tunnel(Live {
        connection: connection.clone(),
        verdict: Arc::clone(&verdict),
        monitor: Arc::downgrade(monitor),
    });
    // Given up between the handshake and now? Whoever gave it up did not see this tunnel.
    peer.close_if_failed();
    let parts = TunnelParts {
        connection: connection.clone(),
        remote: peer.node,
        path: peer.path.subscribe(),
        counters: Arc::clone(&peer.route.counters),
        verdict,
    };
    linger(connection, lease);
    Tunnel::new(parts)
}

/// Holds the peer until the connection ended and the word of it had time to leave: without a route the other side would
/// learn of the end from its idle timeout, hours later.
pub(super) fn linger(connection: quinn::Connection, lease: Lease) {
    tokio::spawn(async move {
        connection.closed().await;
        lease.peer().remove_tunnel(&connection);
        // QUIC drains for three probe timeouts (RFC 9000 section 10.2); more than a second is of no use to anybody.
        let drain = (3 * connection.rtt()).clamp(Duration::from_millis(50), Duration::from_secs(1));
        tokio::time::sleep(drain).await;
        drop(lease);
    });
}
