//! Endpoints with a real relay, all on loopback.

use std::time::Duration;

use byway_core::io::{Admission, LinkMode, PathKind};
use byway_relay::{Server, ServerConfig};
use byway_wire::SecretKey;
use tokio::time::timeout;

use super::*;
use crate::socket::TableSizes;
use crate::tunnel::TunnelClosed;

mod calls;
mod checks;
mod closing;
mod paths;
mod relay_map;

const DEADLINE: Duration = Duration::from_secs(20);
const LOOPBACK: &str = "127.0.0.1:0";

async fn relay() -> Server {
    // Shown only for a test that fails, or with --nocapture; what, RUST_LOG says.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_test_writer()
        .try_init();
    Server::start(ServerConfig::dev()).await.unwrap()
}

fn builder() -> Builder {
    Endpoint::builder().bind_addr(LOOPBACK.parse().unwrap())
}

fn secret(n: u8) -> TicketSecret {
    TicketSecret::from_bytes([n; 32])
}

fn admission() -> Admission {
    Admission {
        secrets: vec![secret(1)],
        ..Admission::default()
    }
}

async fn agent(relay: &Server, builder: Builder) -> Endpoint {
    let agent = builder
        .relay(relay.url())
        .accept(admission())
        .bind()
        .await
        .unwrap();
    agent.online(DEADLINE).await.unwrap();
    agent
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.expect("in time")
}

async fn pair(client: &Endpoint, agent: &Endpoint, ticket: &Ticket) -> (Tunnel, Tunnel) {
    within(async {
        let (near, far) = tokio::join!(client.connect(ticket), agent.accept());
        (near.unwrap(), far.unwrap())
    })
    .await
}

/// A megabyte each way on one stream, compared.
async fn exchange(near: &Tunnel, far: &Tunnel) {
    const BYTES: usize = 1024 * 1024;
    let sent: Vec<u8> = (0..BYTES).map(|n| (n % 251) as u8).collect();
    within(async {
        let opening = async {
            let (mut send, mut recv) = near.open().await.unwrap();
            let writing = async {
                send.write_all(&sent).await.unwrap();
                send.finish().unwrap();
            };
            let reading = recv.read_to_end(BYTES);
            tokio::join!(writing, reading).1.unwrap()
        };
        let echoing = async {
            let (mut send, mut recv) = far.accept().await.unwrap();
            while let Some(chunk) = recv.read_chunk(64 * 1024, true).await.unwrap() {
                send.write_chunk(chunk.bytes).await.unwrap();
            }
            send.finish().unwrap();
        };
        let (received, ()) = tokio::join!(opening, echoing);
        assert!(received == sent, "what came back is not what was sent");
    })
    .await;
}

/// A byte goes round and round while something happens; the longest round.
async fn chatter(near: &Tunnel, far: &Tunnel, during: impl Future<Output = ()>) -> Duration {
    let (mut send, mut recv) = within(near.open()).await.unwrap();
    let echoing = async {
        let (mut send, mut recv) = far.accept().await.unwrap();
        while let Ok(Some(chunk)) = recv.read_chunk(1024, true).await {
            send.write_chunk(chunk.bytes).await.unwrap();
        }
    };
    let mut longest = Duration::ZERO;
    let mut byte = [7];
    let asking = async {
        let mut pause = tokio::time::interval(Duration::from_millis(5));
        loop {
            pause.tick().await;
            let began = Instant::now();
            send.write_all(&byte).await.unwrap();
            recv.read_exact(&mut byte).await.unwrap();
            longest = longest.max(began.elapsed());
        }
    };
    tokio::select! {
        () = within(during) => {}
        () = echoing => panic!("the stream ended"),
        () = asking => {}
    }
    longest
}
