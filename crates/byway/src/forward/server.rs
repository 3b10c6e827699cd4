//! The agent's side of forwarding: one stream in, one TCP connection to the target out.

use std::sync::Arc;

use byway_wire::tunnel::{Refusal, Refused, StreamReply, Target};
use tokio::sync::Semaphore;

use super::policy::TargetPolicy;
use super::{connect, splice};
use crate::tunnel::dispatch::refuse;
use crate::tunnel::{RecvStream, SendStream, message};

/// Connections one tunnel may have at once: a developer's browser and tools use tens; each costs a file descriptor.
const MAX_STREAMS: usize = 1024;

/// Serves streams to targets on one tunnel. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct ForwardServer {
    policy: Arc<TargetPolicy>,
    streams: Arc<Semaphore>,
}

impl ForwardServer {
    pub(crate) fn new(policy: TargetPolicy) -> Self {
        Self {
            policy: Arc::new(policy),
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
        }
    }

    /// Connects, answers, and carries bytes until both sides are done.
    pub(crate) async fn stream(self, target: Target, mut send: SendStream, recv: RecvStream) {
        let Ok(_slot) = self.streams.try_acquire() else {
            return refuse(
                send,
                recv,
                Refusal::Exhausted,
                "too many connections on this tunnel",
            )
            .await;
        };
        let connected = match &target {
            Target::Tcp { host, port } => {
                tokio::select! {
                    // First the connection: one that is there must be reset, not merely forgotten.
                    biased;
                    connected = connect::connect(&self.policy, host, *port) => connected,
                    // The client has lost interest while the target was slow to answer.
                    _ = send.stopped() => return,
                }
            }
            _ => Err(Refused {
                reason: Refusal::Unsupported,
                detail: "unknown kind of target".to_owned(),
            }),
        };
        let stream = match connected {
            Ok(stream) => stream,
            Err(refused) => {
                tracing::info!(%target, %refused, "a target was refused");
                return refuse(send, recv, refused.reason, &refused.detail).await;
            }
        };
        // Without it, small writes wait for acknowledgements that the tunnel does not hurry.
        let _ = stream.set_nodelay(true);
        if message::write(&mut send, &StreamReply::Connected)
            .await
            .is_err()
        {
            // The client's side was reset meanwhile: the target must not take that for an orderly end.
            let _ = stream.set_zero_linger();
            return;
        }
        tracing::debug!(%target, "connected");
        match splice::tcp(stream, send, recv).await {
            Ok((sent, received)) => tracing::debug!(%target, sent, received, "done"),
            Err(error) => tracing::debug!(%target, %error, "aborted"),
        }
    }
}
