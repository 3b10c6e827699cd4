//! The same transfer through a Byway tunnel, on each kind of path.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use byway::{Endpoint, LinkMode, PathKind, Tunnel};
use byway_transfer::send_bytes;

/// A path that has not come up in this time will not.
const DEADLINE: Duration = Duration::from_secs(20);

/// An agent and a client in this process, with one tunnel on the wanted kind of path.
#[derive(Debug)]
pub struct ThroughByway {
    client: Tunnel,
    agent: Tunnel,
    endpoints: [Endpoint; 2],
}

impl ThroughByway {
    /// Starts both ends against the relay and waits until the tunnel runs on `kind`.
    pub async fn connect(relay: &byway::RelayUrl, kind: PathKind) -> Result<Self> {
        let links = if kind == PathKind::RelayTls {
            LinkMode::Tls
        } else {
            LinkMode::Udp
        };
        let builder = || {
            Endpoint::builder()
                .port_mapping(false)
                .links(links)
                .direct(kind == PathKind::Direct)
        };
        let admission = byway::Admission {
            anyone: true,
            ..Default::default()
        };
        let agent_end = builder()
            .relay(relay.clone())
            .accept(admission)
            .bind()
            .await?;
        agent_end.online(DEADLINE).await?;
        let client_end = builder().bind().await?;
        let ticket = agent_end.ticket(None);
        let accept = async {
            agent_end
                .accept()
                .await
                .context("the agent's endpoint closed")
        };
        let (client, agent) =
            tokio::try_join!(async { Ok(client_end.connect(&ticket).await?) }, accept)?;
        for tunnel in [&client, &agent] {
            tokio::time::timeout(DEADLINE, tunnel.wait_for(kind))
                .await
                .context("the path did not come up")??;
        }
        Ok(Self {
            client,
            agent,
            endpoints: [client_end, agent_end],
        })
    }

    /// Carries `bytes` on one stream from agent to client, and checks that the path stayed what it was.
    pub async fn transfer(&self, bytes: u64) -> Result<()> {
        let kind = self.agent.path().borrow().kind;
        let send = async {
            let (mut stream, _) = self.agent.open().await?;
            send_bytes(&mut stream, bytes).await
        };
        let receive = async {
            let (_, mut stream) = self.client.accept().await.context("the tunnel ended")?;
            receive_bytes(&mut stream, bytes).await
        };
        tokio::try_join!(send, receive)?;
        ensure!(
            self.agent.path().borrow().kind == kind,
            "the path changed during the transfer"
        );
        Ok(())
    }

    /// Ends both sides.
    pub async fn close(self) {
        for endpoint in self.endpoints {
            endpoint.close().await;
        }
    }
}

/// Reads to the end of the stream and checks the count.
pub async fn receive_bytes(stream: &mut quinn::RecvStream, bytes: u64) -> Result<()> {
    let mut received = 0;
    while let Some(chunk) = stream.read_chunk(usize::MAX, true).await? {
        received += chunk.bytes.len() as u64;
    }
    ensure!(received == bytes, "{received} of {bytes} bytes arrived");
    Ok(())
}
