//! The way of TCP to a relay: straight there, or through the proxy that applies to it. Links and looks take the same one.

use std::net::SocketAddr;
use std::time::Duration;

use byway_core::io::{LinkError, ProxyError};
use byway_wire::RelayUrl;
use tokio::net::TcpStream;

use super::connect_tcp;
use crate::proxy::{self, ProxyUrl};
use crate::socket::Nat64;

/// The proxy before a relay, or why it cannot be used; none where none applies.
pub(crate) type Before<'a> = Option<Result<&'a ProxyUrl, ProxyError>>;

/// A connection that leads to a relay.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) tcp: TcpStream,
    /// None through a proxy: TCP's handshake ended there.
    pub(crate) straight: Option<Straight>,
}

/// Where a connection without a proxy leads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Straight {
    pub(crate) relay: SocketAddr,
    /// How long TCP's handshake took.
    pub(crate) handshake: Duration,
}

/// Connects. `addrs`, the relay's addresses, are asked for only where there is no proxy: behind one, names outside often do not
/// resolve. A proxy that applies is used, or its failure is the connection's.
pub(crate) async fn connect_relay(
    url: &RelayUrl,
    proxy: Before<'_>,
    nat64: &Nat64,
    addrs: impl Future<Output = Result<Vec<SocketAddr>, LinkError>>,
) -> Result<Connected, LinkError> {
    if let Some(proxy) = proxy {
        let tcp = proxy::connect(proxy?, url, nat64).await?;
        return Ok(Connected {
            tcp,
            straight: None,
        });
    }
    let connected = connect_tcp(addrs.await?, nat64).await;
    let (tcp, relay, handshake) = connected.map_err(|e| LinkError::Broken(e.to_string()))?;
    let straight = Some(Straight { relay, handshake });
    Ok(Connected { tcp, straight })
}

/// A round trip to the relay: TCP's handshake; through a proxy, the upgrade, which is the first thing that the relay itself
/// answers.
pub(crate) fn round_trip(straight: Option<Straight>, upgrade: Duration) -> Duration {
    straight.map_or(upgrade, |s| s.handshake)
}
