//! The gateway, and our address towards it.

use std::net::{IpAddr, Ipv4Addr};

use futures_util::future::BoxFuture;
use tokio::net::UdpSocket;

/// The default gateway of IPv4. (IPv6 has no address translation that a port could be mapped through.)
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Gateway {
    pub(super) addr: Ipv4Addr,
    /// Our own address on its network.
    pub(super) local: Ipv4Addr,
}

/// How the gateway is found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Finder(fn() -> BoxFuture<'static, Result<Gateway, String>>);

impl Finder {
    /// The host's default gateway.
    pub(crate) const DEFAULT_ROUTE: Self = Self(|| Box::pin(Gateway::find()));

    #[cfg(all(test, target_os = "linux"))]
    pub(super) const fn by(find: fn() -> BoxFuture<'static, Result<Gateway, String>>) -> Self {
        Self(find)
    }

    pub(super) async fn find(self) -> Result<Gateway, String> {
        (self.0)().await
    }
}

impl Gateway {
    async fn find() -> Result<Self, String> {
        let found = tokio::task::spawn_blocking(netdev::get_default_gateway)
            .await
            .map_err(|error| error.to_string())?;
        let device = found.map_err(|error| format!("no gateway: {error}"))?;
        let addr = *device.ipv4.first().ok_or("no gateway for IPv4")?;
        let local = local_towards(addr)
            .await
            .map_err(|error| format!("no address towards the gateway {addr}: {error}"))?;
        Ok(Self { addr, local })
    }
}

/// The address from which the system would send there. Connecting a UDP socket sends nothing.
async fn local_towards(addr: Ipv4Addr) -> std::io::Result<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    socket.connect((addr, crab_nat::GATEWAY_PORT)).await?;
    match socket.local_addr()?.ip() {
        IpAddr::V4(ip) => Ok(ip),
        IpAddr::V6(_) => Err(std::io::ErrorKind::AddrNotAvailable.into()),
    }
}
