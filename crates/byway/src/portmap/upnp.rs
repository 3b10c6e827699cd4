//! UPnP: an Internet Gateway Device on the local network.
//!
//! Whoever is on the local network can answer the search. Only the default gateway itself is listened to, for the answer
//! names a web server that we then talk to. It is asked by its own address too: of a search of the whole network we learn the
//! first answer only, and another device may be faster.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use igd_next::aio::Gateway as Device;
use igd_next::aio::tokio::{Tokio, search_gateway};
use igd_next::{AddPortError, PortMappingProtocol, RequestError, SearchOptions};

use super::gateway::Gateway;
use super::term::Unrenewed;

/// What igd-next asks of devices is to answer at a time of their choice within three seconds (its `MX`).
const SEARCH: Duration = Duration::from_secs(3);
/// Where devices listen for searches (UPnP Device Architecture 1.1 section 1.3.2).
const SSDP_PORT: u16 = 1900;
/// Shown in the gateway's own list.
const DESCRIPTION: &str = "byway";

#[derive(Debug)]
pub(super) struct Upnp {
    device: Device<Tokio>,
    local: SocketAddr,
    external: SocketAddr,
    lifetime: Duration,
}

impl Upnp {
    /// Asks what [`search`] found. From then on a port may be there, whoever is still interested in it.
    pub(super) async fn map(
        device: Device<Tokio>,
        gateway: Gateway,
        port: u16,
        lifetime: Duration,
    ) -> Result<Self, String> {
        let seconds = super::seconds(lifetime);
        let local = SocketAddr::new(gateway.local.into(), port);
        let external = device
            .get_any_address(PortMappingProtocol::UDP, local, seconds, DESCRIPTION)
            .await
            .map_err(|error| format!("UPnP: {error}"))?;
        Ok(Self {
            device,
            local,
            external,
            lifetime,
        })
    }

    /// What was asked for: a device that gives less does not say so.
    pub(super) fn lifetime(&self) -> Duration {
        self.lifetime
    }

    pub(super) fn external(&self) -> SocketAddr {
        self.external
    }

    pub(super) async fn renew(&mut self) -> Result<(), Unrenewed> {
        let port = self.external.port();
        self.device
            .add_port(
                PortMappingProtocol::UDP,
                port,
                self.local,
                super::seconds(self.lifetime),
                DESCRIPTION,
            )
            .await
            .map_err(unrenewed)?;
        let ip = self.device.get_external_ip().await;
        let ip = ip.map_err(|error| Unrenewed::Silent(error.to_string()))?;
        self.external = SocketAddr::new(ip, port);
        Ok(())
    }

    pub(super) async fn release(self) {
        let removed = self
            .device
            .remove_port(PortMappingProtocol::UDP, self.external.port())
            .await;
        if let Err(error) = removed {
            tracing::debug!(%error, "port mapping not given back");
        }
    }
}

/// A device that began anew may be found at another port, and nobody listens at the old one: that decides as a refusal does.
fn unrenewed(error: AddPortError) -> Unrenewed {
    let why = error.to_string();
    let AddPortError::RequestError(request) = error else {
        return Unrenewed::Refused(why);
    };
    match request {
        RequestError::ErrorCode(..) | RequestError::UnsupportedAction(_) => Unrenewed::Refused(why),
        other if nobody_listens(&other) => Unrenewed::Refused(why),
        _ => Unrenewed::Silent(why),
    }
}

/// True if a connection was refused, whoever wraps the system's error.
fn nobody_listens(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|error| {
        let system = error.downcast_ref::<std::io::Error>();
        system.is_some_and(|system| system.kind() == std::io::ErrorKind::ConnectionRefused)
    })
}

/// Finds the gateway's device: whichever search it answers first.
pub(super) async fn search(gateway: Gateway) -> Result<Device<Tokio>, String> {
    let everyone = search_by(gateway, SearchOptions::default().broadcast_address);
    let itself = search_by(gateway, SocketAddr::new(gateway.addr.into(), SSDP_PORT));
    tokio::pin!(everyone, itself);
    tokio::select! {
        found = &mut itself => match found {
            Ok(device) => Ok(device),
            Err(_) => everyone.await,
        },
        found = &mut everyone => match found {
            Ok(device) => Ok(device),
            Err(why) => itself.await.map_err(|_| why),
        },
    }
}

async fn search_by(gateway: Gateway, asked: SocketAddr) -> Result<Device<Tokio>, String> {
    let mut options = SearchOptions::default();
    options.broadcast_address = asked;
    // Out by the interface that leads to the gateway, whatever other networks there are.
    options.bind_addr = SocketAddr::new(gateway.local.into(), 0);
    options.timeout = Some(SEARCH);
    options.single_search_timeout = Some(SEARCH);
    let device = search_gateway(options)
        .await
        .map_err(|error| error.to_string())?;
    let from = device.addr.ip();
    if from == IpAddr::V4(gateway.addr) {
        Ok(device)
    } else {
        Err(format!("{from} answered, which is not the gateway"))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};

    use super::*;

    #[test]
    fn only_an_answer_or_a_closed_port_loses_what_the_gateway_holds() {
        let system = |kind| AddPortError::RequestError(Error::from(kind).into());
        let code = RequestError::ErrorCode(501, "failed".to_owned());
        for error in [
            AddPortError::PortInUse,
            AddPortError::RequestError(code),
            system(ErrorKind::ConnectionRefused),
        ] {
            assert!(matches!(unrenewed(error), Unrenewed::Refused(_)));
        }
        for kind in [ErrorKind::TimedOut, ErrorKind::HostUnreachable] {
            assert!(matches!(unrenewed(system(kind)), Unrenewed::Silent(_)));
        }
    }
}
