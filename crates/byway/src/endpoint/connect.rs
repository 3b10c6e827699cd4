//! Opening a tunnel.

use std::sync::Arc;
use std::time::{Duration, Instant};

use byway_core::io::{PeerId, PeerTarget};
use byway_wire::Ticket;
use tokio::sync::oneshot;

use super::{ConnectError, Inner, tunnels};
use crate::driver::{Input, Lease};
use crate::socket::Virtual;
use crate::tls;
use crate::tunnel::{PathInfo, Tunnel, greeting};

/// From asking to an authenticated tunnel: a dial over TLS after one over UDP failed, a relay that waits 2 s for an
/// absent agent, a handshake with losses.
const DEADLINE: Duration = Duration::from_secs(20);

pub(super) async fn connect(inner: &Inner, ticket: &Ticket) -> Result<Tunnel, ConnectError> {
    if ticket.relays.is_empty() {
        return Err(ConnectError::NoRelay);
    }
    let began = Instant::now();
    let attempt = async {
        let lease = lease(inner, ticket, None).await?;
        let peer = Arc::clone(lease.peer());
        let used_before = peer.had_path();
        let opened = tokio::select! {
            result = open(inner, ticket, lease, began) => result,
            // Waiting on would be for a process that is gone. (Where tunnels wait too, the network may be.)
            () = peer.lost(), if used_before && !peer.has_tunnels() => {
                Err(ConnectError::TimedOut(began.elapsed()))
            }
        };
        match opened {
            // A peer that was kept from an earlier tunnel may be gone without our knowledge.
            Err(error) if used_before => {
                let again = self::lease(inner, ticket, Some(peer.id)).await?;
                if again.peer().id == peer.id && !peer.is_lost() {
                    return Err(error);
                }
                open(inner, ticket, again, began).await
            }
            result => result,
        }
    };
    match tokio::time::timeout(DEADLINE, attempt).await {
        Ok(result) => result,
        Err(_) => Err(ConnectError::TimedOut(DEADLINE)),
    }
}

/// A hold on the peer, which may have been there before.
async fn lease(
    inner: &Inner,
    ticket: &Ticket,
    instead_of: Option<PeerId>,
) -> Result<Lease, ConnectError> {
    let target = PeerTarget {
        node: ticket.node,
        relays: ticket
            .relays
            .iter()
            .map(|relay| (relay.url.clone(), relay.addrs.clone()))
            .collect(),
        secret: ticket.secret.clone(),
    };
    let (reply, answer) = oneshot::channel();
    inner
        .input
        .send(Input::Connect {
            target,
            instead_of,
            reply,
        })
        .await
        .map_err(|_| ConnectError::Closed)?;
    answer.await.map_err(|_| ConnectError::Closed)
}

async fn open(
    inner: &Inner,
    ticket: &Ticket,
    lease: Lease,
    began: Instant,
) -> Result<Tunnel, ConnectError> {
    let peer = Arc::clone(lease.peer());
    let monitor = peer.new_monitor(Instant::now());
    let connecting = inner
        .quinn
        .connect_with(
            inner.quic.connect(&peer, &monitor),
            Virtual::Peer(peer.id).to_addr(),
            &ticket.node.server_name(),
        )
        .map_err(|error| match error {
            quinn::ConnectError::EndpointStopping => ConnectError::Closed,
            other => ConnectError::Handshake(other.to_string()),
        })?;
    let mut failure = peer.failure.subscribe();
    let given_up = async {
        match failure.wait_for(Option::is_some).await {
            Ok(error) => error.clone(),
            Err(_) => None,
        }
    };
    let mut path = peer.path.subscribe();
    let connected = async {
        let connection = connecting
            .await
            .map_err(|error| ConnectError::from_connection(&error, began.elapsed()))?;
        // An agent that is near answers before its relay's word that it is there, which names the path. Nothing of the
        // tunnel's leaves before that.
        let known = |path: &PathInfo| path.remote.is_some() || path.relay.is_some();
        match path.wait_for(known).await {
            Ok(_) => Ok(connection),
            Err(_) => Err(ConnectError::Closed),
        }
    };
    let connection = tokio::select! {
        biased;
        error = given_up => return Err(match error {
            Some(error) => ConnectError::from_peer(error, ticket, began.elapsed()),
            None => ConnectError::Closed,
        }),
        result = connected => result?,
    };
    // The server name pinned it; this costs nothing and fails closed.
    if tls::proved_node(&connection) != Ok(ticket.node) {
        return Err(ConnectError::Handshake(
            "the agent proved another key than the ticket's".to_owned(),
        ));
    }
    let own = (**inner.shared.record.borrow()).clone();
    let mut records = greeting::greet_as_client(&connection, own, ticket.secret.as_ref())
        .await
        .map_err(|error| match connection.close_reason() {
            Some(reason) => ConnectError::from_connection(&reason, began.elapsed()),
            None => ConnectError::Handshake(error.to_string()),
        })?;
    // Nobody waits for the agent's greeting; if it refuses, the tunnel says so.
    let (node, id, input) = (ticket.node, peer.id, inner.input.clone());
    tokio::spawn(async move {
        while let Ok(Some(record)) = records.next(node).await {
            // An endpoint that is closed has no use for it.
            if input.send(Input::Record(id, record)).await.is_err() {
                return;
            }
        }
    });
    Ok(tunnels::establish(connection, lease, &monitor))
}
