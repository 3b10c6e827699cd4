//! PCP (RFC 6887), and NAT-PMP (RFC 6886) where the gateway says that it is older.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use byway_core::discovery::MappingProtocol;
use crab_nat::{
    InternetProtocol, PortMapping, PortMappingOptions, PortMappingType, TimeoutConfig, natpmp,
};

use super::gateway::Gateway;
use super::restart::Epoch;

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
}

impl Pcp {
    pub(super) async fn map(
        gateway: Gateway,
        port: u16,
        lifetime: Duration,
    ) -> Result<Self, String> {
        let port = NonZeroU16::new(port).ok_or("no local port")?;
        let options = PortMappingOptions {
            external_port: Some(port),
            lifetime_seconds: Some(super::seconds(lifetime)),
            timeout_config: Some(PATIENCE),
        };
        let mapping = PortMapping::new(
            gateway.addr.into(),
            gateway.local.into(),
            InternetProtocol::Udp,
            port,
            options,
        )
        .await
        .map_err(|error| format!("PCP and NAT-PMP: {error}"))?;
        match external(&mapping).await {
            Ok(external) => Ok(Self { mapping, external }),
            Err(why) => {
                // A port of which nobody can be told is of no use.
                give_back(mapping).await;
                Err(why)
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

    pub(super) async fn renew(&mut self) -> Result<(), String> {
        self.mapping
            .renew()
            .await
            .map_err(|error| error.to_string())?;
        self.external = external(&self.mapping).await?;
        Ok(())
    }

    pub(super) async fn release(self) {
        give_back(self.mapping).await;
    }
}

async fn give_back(mapping: PortMapping) {
    if let Err((error, _)) = mapping.try_drop().await {
        tracing::debug!(%error, "port mapping not given back");
    }
}

/// PCP says the address with the port; NAT-PMP is asked for it.
async fn external(mapping: &PortMapping) -> Result<SocketAddr, String> {
    let ip: IpAddr = match mapping.mapping_type() {
        PortMappingType::Pcp { external_ip, .. } => external_ip.to_canonical(),
        PortMappingType::NatPmp => natpmp::external_address(mapping.gateway(), Some(PATIENCE))
            .await
            .map_err(|error| format!("NAT-PMP: {error}"))?
            .into(),
    };
    Ok(SocketAddr::new(ip, mapping.external_port().get()))
}
