//! Forwarding: local TCP connections to targets behind an agent, with half-close and typed refusals.

use std::net::SocketAddr;

use byway_wire::tunnel::{Refused, Target};

use crate::tunnel::Tunnel;

/// Which targets an agent lets clients reach. Default: loopback ports only.
#[derive(Clone, Debug, Default)]
pub struct TargetPolicy {
    _private: (),
}

impl TargetPolicy {
    /// Loopback ports only.
    pub fn loopback() -> Self {
        unimplemented!()
    }
    /// Allows one more: `HOST:PORT`, `HOST:*`, `CIDR:PORT`, `CIDR:*` or `PORT` (loopback). The first call replaces the
    /// default. The resolved address is checked at connect.
    pub fn allow(self, rule: &str) -> Result<Self, PolicyError> {
        let _ = rule;
        unimplemented!()
    }
}

/// Why a text is not a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a rule: write PORT, HOST:PORT, HOST:* or CIDR:PORT")]
pub struct PolicyError(pub String);

/// A listening forward. Dropping it stops listening; streams that are open stay.
#[derive(Debug)]
pub struct Forward {
    _private: (),
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
        let _ = (tunnel, bind, target, on_refused);
        unimplemented!()
    }
    /// Where it listens (the port is known even if 0 was asked).
    pub fn local_addr(&self) -> SocketAddr {
        unimplemented!()
    }
    /// Waits until the tunnel ends.
    pub async fn closed(&self) -> crate::tunnel::TunnelClosed {
        unimplemented!()
    }
}

/// Carries bytes both ways until both sides are done: half-close and reset are passed on. Returns bytes (sent, received).
pub async fn splice<R, W>(
    reader: R,
    writer: W,
    send: crate::tunnel::SendStream,
    recv: crate::tunnel::RecvStream,
) -> std::io::Result<(u64, u64)>
where
    R: tokio::io::AsyncRead + Unpin,
    W: tokio::io::AsyncWrite + Unpin,
{
    let _ = (reader, writer, send, recv);
    unimplemented!()
}
