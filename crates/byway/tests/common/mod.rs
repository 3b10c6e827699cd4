//! A relay, an agent and a client on loopback sockets.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses its own part of this"
)]

pub mod proxy;

use std::time::Duration;

use byway::{Admission, Endpoint, Ticket, TicketSecret, Tunnel};
use byway_relay::{Server, ServerConfig};

/// Nothing here takes long; whoever waits longer has found a fault.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// The pieces; dropping them ends them.
pub struct Pair {
    pub relay: Server,
    pub agent: Endpoint,
    pub client: Endpoint,
    /// The client's end of the tunnel.
    pub ours: Tunnel,
    /// The agent's end.
    pub theirs: Tunnel,
}

/// An agent that admits holders of a secret.
pub async fn agent(relay: &Server) -> Endpoint {
    let admission = Admission {
        secrets: vec![TicketSecret::from_bytes([7; 32])],
        ..Admission::default()
    };
    agent_that_admits(relay, admission).await
}

/// An agent that is linked.
pub async fn agent_that_admits(relay: &Server, admission: Admission) -> Endpoint {
    let agent = Endpoint::builder()
        .port_mapping(false)
        .relay(relay.url())
        .accept(admission)
        .bind()
        .await
        .unwrap();
    agent.online(DEADLINE).await.unwrap();
    agent
}

/// Opens a tunnel and takes both ends of it.
pub async fn tunnel(client: &Endpoint, agent: &Endpoint, ticket: &Ticket) -> (Tunnel, Tunnel) {
    let (ours, theirs) =
        within(async { tokio::join!(client.connect(ticket), agent.accept()) }).await;
    (ours.unwrap(), theirs.unwrap())
}

/// All of it.
pub async fn pair() -> Pair {
    let relay = Server::start(ServerConfig::dev()).await.unwrap();
    let agent = agent(&relay).await;
    let client = Endpoint::builder()
        .port_mapping(false)
        .bind()
        .await
        .unwrap();
    let (ours, theirs) = tunnel(&client, &agent, &agent.ticket(None)).await;
    Pair {
        relay,
        agent,
        client,
        ours,
        theirs,
    }
}

/// Fails rather than wait for ever.
pub async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, what).await.expect("in time")
}
