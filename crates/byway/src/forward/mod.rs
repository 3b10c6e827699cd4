//! Forwarding: local TCP connections to targets behind an agent, with half-close and typed refusals.
//!
//! The client listens ([`Forward`]), opens one stream a connection and asks for the target; what the local program
//! writes leaves behind the question, without waiting for the answer. The agent ([`TargetPolicy`], the server behind
//! [`Tunnel::serve`]) checks the target by its policy, resolves it, checks the address that came out, connects, and
//! answers. From then on both sides [`splice`]: bytes are passed on as they come, a half-close as a half-close, a
//! reset as a reset.

mod batch;
mod connect;
mod policy;
mod server;
mod splice;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use byway_wire::tunnel::{Refused, Target};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

pub use policy::{PolicyError, TargetPolicy};
pub(crate) use server::ForwardServer;
pub(crate) use splice::LAST_WORDS;
pub use splice::{CarryError, carry, splice};

use crate::tunnel::{StreamError, Tunnel};

/// Local connections carried at once by one forward; further ones wait in the listener's backlog. The agent's own
/// limit is the same.
const MAX_CONNECTIONS: usize = 1024;

/// A connection made while the tunnel is down waits this long for [`Forward::redirect`]: a person who reloads a page
/// while an agent restarts sees a slow page rather than an error.
const RECONNECT_GRACE: Duration = Duration::from_secs(15);

/// When the process is out of file descriptors, accepting at once again would spin.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// A listening forward. Dropping it stops listening; streams that are open stay.
#[derive(Debug)]
pub struct Forward {
    local: SocketAddr,
    tunnel: watch::Sender<Tunnel>,
    listener: tokio::task::AbortHandle,
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl Forward {
    /// Listens on `bind` and carries every connection to `target` through the tunnel. `on_refused` hears of each
    /// connection the agent refused.
    pub async fn listen(
        tunnel: Tunnel,
        bind: SocketAddr,
        target: Target,
        on_refused: impl Fn(SocketAddr, Refused) + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind(bind).await?;
        let local = listener.local_addr()?;
        let (tunnel, current) = watch::channel(tunnel);
        let shared = Arc::new(Shared {
            target,
            current,
            on_refused: Box::new(on_refused),
        });
        let listener = tokio::spawn(accept(listener, shared)).abort_handle();
        Ok(Self {
            local,
            tunnel,
            listener,
        })
    }

    /// Where it listens (the port is known even if 0 was asked).
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Carries connections through another tunnel from now on, such as one opened after the agent restarted. Streams
    /// of the old tunnel stay on it; connections that wait because it ended go on over the new one.
    pub fn redirect(&self, tunnel: Tunnel) {
        self.tunnel.send_replace(tunnel);
    }

    /// Waits until the tunnel ends.
    pub async fn closed(&self) -> crate::tunnel::TunnelClosed {
        let tunnel = self.tunnel.borrow().clone();
        tunnel.closed().await
    }
}

/// What every connection of a forward needs.
struct Shared {
    target: Target,
    current: watch::Receiver<Tunnel>,
    on_refused: Box<dyn Fn(SocketAddr, Refused) + Send + Sync>,
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    shared.carry(stream, peer).await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a local connection could not be accepted");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

impl Shared {
    async fn carry(&self, stream: TcpStream, peer: SocketAddr) {
        // Without it, small writes wait for acknowledgements that the tunnel does not hurry.
        let _ = stream.set_nodelay(true);
        match self.connect().await {
            Ok((tunnel, (send, recv))) => {
                // Neither a dropped forward nor a redirected one ends the tunnel under its streams.
                let keep = tunnel.clone();
                let connected = |mut recv| async move {
                    let answer = tunnel.connected(&mut recv).await;
                    (recv, answer)
                };
                let stuck = async {
                    keep.closed().await;
                    tokio::time::sleep(LAST_WORDS).await;
                };
                tokio::select! {
                    result = splice::forward(stream, send, recv, connected) => match result {
                        Ok(counts) => tracing::debug!(%peer, ?counts, "connection done"),
                        Err(splice::Failure::Refused(StreamError::Refused(refused))) => {
                            (self.on_refused)(peer, refused);
                        }
                        Err(error) => tracing::debug!(%peer, %error, "connection aborted"),
                    },
                    () = stuck => tracing::debug!(%peer, "connection aborted with its tunnel"),
                }
            }
            Err(error) => {
                tracing::debug!(%peer, %error, "connection not carried");
                let _ = stream.set_zero_linger();
            }
        }
    }

    /// A stream on the current tunnel, or on the one that replaces it soon.
    async fn connect(
        &self,
    ) -> Result<
        (
            Tunnel,
            (crate::tunnel::SendStream, crate::tunnel::RecvStream),
        ),
        StreamError,
    > {
        let mut current = self.current.clone();
        loop {
            let tunnel = current.borrow_and_update().clone();
            match tunnel.connect_early(&self.target).await {
                Ok(streams) => return Ok((tunnel, streams)),
                Err(error @ StreamError::Closed(_)) => {
                    // The dead tunnel must not be kept alive by those who wait for its successor.
                    drop(tunnel);
                    let another = tokio::time::timeout(RECONNECT_GRACE, current.changed()).await;
                    if !matches!(another, Ok(Ok(()))) {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }
}
