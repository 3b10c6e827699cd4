//! PCP (RFC 6887), and NAT-PMP (RFC 6886) where the gateway says that it is older.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use byway_core::discovery::MappingProtocol;
use crab_nat::{
    InternetProtocol, MappingFailure, PortMapping, PortMappingOptions, PortMappingType,
    TimeoutConfig, natpmp, pcp,
};

use super::gateway::Gateway;
use super::restart::Epoch;
use super::term::Unrenewed;

/// A gateway answers within milliseconds: RFC 6886 begins with 250 ms and doubles. After three requests on a local network,
/// 1.75 s, it does not speak this.
const PATIENCE: TimeoutConfig = TimeoutConfig {
    initial_timeout: Duration::from_millis(250),
    max_retries: 2,
    max_retry_timeout: None,
};

#[derive(Debug)]
pub(super) struct Pcp {
    mapping: PortMapping,
    external: SocketAddr,
    /// For how many seconds it is asked: a gateway may give less today, and more tomorrow.
    wanted: u32,
}

impl Pcp {
    pub(super) async fn map(
        gateway: Gateway,
        port: u16,
        lifetime: Duration,
    ) -> Result<Self, String> {
        let port = NonZeroU16::new(port).ok_or("no local port")?;
        let wanted = super::seconds(lifetime);
        let mapping = PortMapping::new(
            gateway.addr.into(),
            gateway.local.into(),
            InternetProtocol::Udp,
            port,
            options(port, wanted),
        )
        .await
        .map_err(|error| format!("PCP and NAT-PMP: {error}"))?;
        if mapping.lifetime() == 0 {
            return Err("PCP and NAT-PMP: a port for no time".to_owned());
        }
        match external(&mapping).await {
            Ok(external) => Ok(Self {
                mapping,
                external,
                wanted,
            }),
            Err(error) => {
                // A port of which nobody can be told is of no use.
                give_back(mapping).await;
                Err(error.to_string())
            }
        }
    }

    pub(super) fn protocol(&self) -> MappingProtocol {
        match self.mapping.mapping_type() {
            PortMappingType::NatPmp => MappingProtocol::NatPmp,
            PortMappingType::Pcp { .. } => MappingProtocol::Pcp,
        }
    }

    pub(super) fn external(&self) -> SocketAddr {
        self.external
    }

    pub(super) fn lifetime(&self) -> Duration {
        Duration::from_secs(self.mapping.lifetime().into())
    }

    /// The gateway's time when it gave or renewed the port.
    pub(super) fn epoch(&self) -> Epoch {
        let expires = self.mapping.expiration();
        Epoch {
            seconds: self.mapping.gateway_epoch(),
            at: expires
                .checked_sub(self.lifetime())
                .unwrap_or_else(Instant::now),
        }
    }

    /// Asks for the same port again, for the whole time that is wanted.
    pub(super) async fn renew(&mut self) -> Result<(), Unrenewed> {
        let mapping = self.again().await.map_err(|error| unrenewed(&error))?;
        if mapping.lifetime() == 0 {
            return Err(Unrenewed::Refused("a port for no time".to_owned()));
        }
        self.mapping = mapping;
        self.external = external(&self.mapping)
            .await
            .map_err(|error| unrenewed(&error))?;
        Ok(())
    }

    /// The crate's own renewal asks for the time that was given last, and a gateway that once gave little would do so for ever.
    async fn again(&self) -> Result<PortMapping, MappingFailure> {
        let held = &self.mapping;
        let (gateway, protocol, port) = (held.gateway(), held.protocol(), held.internal_port());
        let options = options(held.external_port(), self.wanted);
        match held.mapping_type() {
            PortMappingType::NatPmp => {
                let mapped = natpmp::port_mapping(gateway, protocol, port, options).await;
                Ok(mapped?)
            }
            PortMappingType::Pcp {
                client,
                nonce,
                external_ip,
            } => {
                let base = pcp::BaseMapRequest::new(gateway, client, protocol, port);
                let mapped = pcp::port_mapping(base, Some(nonce), Some(external_ip), options);
                Ok(mapped.await?)
            }
        }
    }

    pub(super) async fn release(self) {
        give_back(self.mapping).await;
    }
}

fn options(external_port: NonZeroU16, seconds: u32) -> PortMappingOptions {
    PortMappingOptions {
        external_port: Some(external_port),
        lifetime_seconds: Some(seconds),
        timeout_config: Some(PATIENCE),
    }
}

/// What the gateway calls temporary (RFC 6887 section 7.4) takes nothing away, nor does what is no answer at all.
fn unrenewed(error: &MappingFailure) -> Unrenewed {
    let passes = match error {
        MappingFailure::Pcp(failure) => matches!(
            failure,
            pcp::Failure::Socket(_)
                | pcp::Failure::Timeout
                | pcp::Failure::Nonce
                | pcp::Failure::InvalidResponse(_)
                | pcp::Failure::NetworkFailure(_)
                | pcp::Failure::NoResources(_)
        ),
        MappingFailure::NatPmp(failure) => matches!(
            failure,
            natpmp::Failure::Socket(_)
                | natpmp::Failure::Timeout
                | natpmp::Failure::InvalidResponse(_)
                | natpmp::Failure::NetworkFailure
                | natpmp::Failure::OutOfResources
        ),
    };
    match passes {
        true => Unrenewed::Silent(error.to_string()),
        false => Unrenewed::Refused(error.to_string()),
    }
}

async fn give_back(mapping: PortMapping) {
    if let Err((error, _)) = mapping.try_drop().await {
        tracing::debug!(%error, "port mapping not given back");
    }
}

/// PCP says the address with the port; NAT-PMP is asked for it.
async fn external(mapping: &PortMapping) -> Result<SocketAddr, MappingFailure> {
    let ip: IpAddr = match mapping.mapping_type() {
        PortMappingType::Pcp { external_ip, .. } => external_ip.to_canonical(),
        PortMappingType::NatPmp => natpmp::external_address(mapping.gateway(), Some(PATIENCE))
            .await?
            .into(),
    };
    Ok(SocketAddr::new(ip, mapping.external_port().get()))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::fake::{NO_RESOURCES, NOT_AUTHORIZED, SUCCESS, answer, gateway};
    use super::*;

    const WANTED: Duration = Duration::from_secs(3_600);
    const PORT: u16 = 5000;

    #[tokio::test]
    async fn a_renewal_asks_for_the_time_that_is_wanted_and_not_for_the_time_that_was_given() {
        let (socket, gateway) = gateway(1).await;
        let (mapped, first) = tokio::join!(
            Pcp::map(gateway, PORT, WANTED),
            answer(&socket, SUCCESS, 120)
        );
        let mut held = mapped.unwrap();
        assert_eq!(held.lifetime(), Duration::from_secs(120));
        let (renewed, second) = tokio::join!(held.renew(), answer(&socket, SUCCESS, 3_600));
        assert_eq!(renewed, Ok(()));
        assert_eq!((first.0, second.0), (3_600, 3_600));
        assert_eq!(first.1, second.1, "the gateway knows a port by its nonce");
        assert_eq!(held.lifetime(), WANTED);
    }

    #[tokio::test]
    async fn a_port_for_no_time_is_none() {
        let (socket, gateway) = gateway(2).await;
        let (mapped, _) =
            tokio::join!(Pcp::map(gateway, PORT, WANTED), answer(&socket, SUCCESS, 0));
        mapped.unwrap_err();
        let (mapped, _) = tokio::join!(
            Pcp::map(gateway, PORT, WANTED),
            answer(&socket, SUCCESS, 120)
        );
        let mut held = mapped.unwrap();
        let (renewed, _) = tokio::join!(held.renew(), answer(&socket, SUCCESS, 0));
        assert!(matches!(renewed, Err(Unrenewed::Refused(_))), "{renewed:?}");
        assert_eq!(held.lifetime(), Duration::from_secs(120));
    }

    #[tokio::test]
    async fn a_refusal_is_told_from_silence_and_from_what_passes() {
        let (socket, gateway) = gateway(3).await;
        let (mapped, _) = tokio::join!(
            Pcp::map(gateway, PORT, WANTED),
            answer(&socket, SUCCESS, 120)
        );
        let mut held = mapped.unwrap();
        let (renewed, _) = tokio::join!(held.renew(), answer(&socket, NOT_AUTHORIZED, 60));
        assert!(matches!(renewed, Err(Unrenewed::Refused(_))), "{renewed:?}");
        let (renewed, _) = tokio::join!(held.renew(), answer(&socket, NO_RESOURCES, 60));
        assert!(matches!(renewed, Err(Unrenewed::Silent(_))), "{renewed:?}");
        drop(socket);
        let renewed = held.renew().await;
        assert!(matches!(renewed, Err(Unrenewed::Silent(_))), "{renewed:?}");
        // What it held before is still known, and can be renewed.
        assert_eq!(held.external().ip(), Ipv4Addr::new(203, 0, 113, 9));
    }
}
