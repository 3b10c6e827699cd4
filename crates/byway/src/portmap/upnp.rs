//! UPnP: an Internet Gateway Device on the local network.
//!
//! Whoever is on the local network can answer the search. Only the default gateway itself is listened to, for the answer
//! names a web server that we then talk to. It is asked by its own address too: of a search of the whole network we learn the
//! first answer only, and another device may be faster.
//!
//! Some devices give a port for ever or not at all (error 725). Such a port is asked for, checked as often as one that ends, and
//! given back like that one; what a process leaves that dies without a word stays, until somebody has the gateway forget it. Others give a
//! port for a shorter time than was asked for, and tell in their list alone.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use igd_next::aio::Gateway as Device;
use igd_next::aio::tokio::{Tokio, search_gateway};
use igd_next::{AddAnyPortError, AddPortError, PortMappingProtocol, RequestError, SearchOptions};

use super::gateway::Gateway;
use super::term::Unrenewed;

/// What igd-next asks of devices is to answer at a time of their choice within three seconds (its `MX`).
const SEARCH: Duration = Duration::from_secs(3);
/// Where devices listen for searches (UPnP Device Architecture 1.1 section 1.3.2).
const SSDP_PORT: u16 = 1900;
/// Shown in the gateway's own list.
const DESCRIPTION: &str = "byway";
/// The lease without an end, and the error of a device that gives no other (WANIPConnection:1 section 2.4.16).
const PERMANENT: u32 = 0;
const ONLY_PERMANENT: u16 = 725;
/// To find a port in the device's list: a household's takes a slow one a second.
const LOOK: Duration = Duration::from_secs(3);
/// Ports of a list that are looked at: a household's.
const LISTED: u32 = 64;

#[derive(Debug)]
pub(super) struct Upnp {
    device: Device<Tokio>,
    local: SocketAddr,
    external: SocketAddr,
    /// For which it is to be kept.
    wanted: Duration,
    /// The device said that it gives ports for ever alone.
    permanent_alone: bool,
    /// The device keeps it for ever, or lists it so: it is to be given back. Some list no lease though they keep to it, and are
    /// asked for one as ever.
    is_permanent: bool,
    /// After which it may be gone, or is to be checked.
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
        let local = SocketAddr::new(gateway.local.into(), port);
        let ask = async |seconds| {
            let asked =
                device.get_any_address(PortMappingProtocol::UDP, local, seconds, DESCRIPTION);
            asked.await
        };
        let mut asked = ask(super::seconds(lifetime)).await;
        let permanent_alone = asked.as_ref().is_err_and(wants_no_end);
        if permanent_alone {
            asked = ask(PERMANENT).await;
        }
        let external = asked.map_err(|error| format!("UPnP: {error}"))?;
        Ok(Self {
            device,
            local,
            external,
            wanted: lifetime,
            permanent_alone,
            is_permanent: permanent_alone,
            lifetime,
        })
    }

    /// For how long it is there, as far as the device tells; what was asked for, if it is there for ever.
    pub(super) fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// True if the device keeps it until it is given back.
    pub(super) fn is_permanent(&self) -> bool {
        self.is_permanent
    }

    pub(super) fn external(&self) -> SocketAddr {
        self.external
    }

    pub(super) async fn renew(&mut self) -> Result<(), Unrenewed> {
        let mut added = self.add().await;
        if matches!(added, Err(AddPortError::OnlyPermanentLeasesSupported)) && !self.permanent_alone
        {
            self.permanent_alone = true;
            self.is_permanent = true;
            added = self.add().await;
        }
        added.map_err(unrenewed)?;
        let ip = self.device.get_external_ip().await;
        let ip = ip.map_err(|error| Unrenewed::Silent(error.to_string()))?;
        self.external.set_ip(ip);
        self.look().await;
        Ok(())
    }

    async fn add(&self) -> Result<(), AddPortError> {
        let seconds = match self.permanent_alone {
            true => PERMANENT,
            false => super::seconds(self.wanted),
        };
        let (device, port) = (&self.device, self.external.port());
        let added = device.add_port(
            PortMappingProtocol::UDP,
            port,
            self.local,
            seconds,
            DESCRIPTION,
        );
        added.await
    }

    /// A port that is listed with another lease than was asked for has that one. It is there whether or not this comes to its end.
    pub(super) async fn look(&mut self) {
        let listed = tokio::time::timeout(LOOK, self.listed()).await;
        self.lifetime = match listed.ok().flatten() {
            Some(PERMANENT) => {
                self.is_permanent = true;
                self.wanted
            }
            Some(seconds) => self.wanted.min(Duration::from_secs(seconds.into())),
            // It may list too much to be read in this time: what it told before holds.
            None => self.lifetime,
        };
    }

    /// The lease that the device lists; none if it does not list the port.
    async fn listed(&self) -> Option<u32> {
        for index in 0..LISTED {
            let entry = self
                .device
                .get_generic_port_mapping_entry(index)
                .await
                .ok()?;
            if entry.protocol == PortMappingProtocol::UDP
                && entry.external_port == self.external.port()
            {
                return Some(entry.lease_duration);
            }
        }
        None
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

/// True if the device gives ports for ever alone.
fn wants_no_end(error: &AddAnyPortError) -> bool {
    match error {
        AddAnyPortError::OnlyPermanentLeasesSupported => true,
        AddAnyPortError::RequestError(RequestError::ErrorCode(code, _)) => *code == ONLY_PERMANENT,
        _ => false,
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
    // Tests have theirs on loopback, where the crate trusts nobody who is not named.
    #[cfg(test)]
    options.allowed_gateway_ips.push(gateway.addr.into());
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

#[cfg(all(test, target_os = "linux"))]
mod leases {
    use super::super::fake_igd::{Did, EXTERNAL, Igd, Leases};
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);
    const PORT: u16 = 5000;

    async fn mapped(igd: &Igd) -> Upnp {
        let device = search(igd.gateway).await.unwrap();
        let mut upnp = Upnp::map(device, igd.gateway, PORT, HOUR).await.unwrap();
        upnp.look().await;
        upnp
    }

    #[tokio::test]
    async fn a_device_that_gives_ports_for_ever_alone_is_asked_for_one_and_has_it_back() {
        let igd = Igd::start(21, Leases::Permanent).await;
        let mut upnp = mapped(&igd).await;
        let port = upnp.external().port();
        assert_eq!(upnp.external().ip(), IpAddr::V4(EXTERNAL));
        assert!(upnp.is_permanent());
        assert_eq!(upnp.lifetime(), HOUR, "it is checked as often");
        assert_eq!(upnp.renew().await, Ok(()));
        let did = igd.did();
        assert!(matches!(did[0], Did::Refuse(_, 3_600)), "{did:?}");
        assert_eq!(did[1..], [Did::Map(port, 0), Did::Map(port, 0)]);
        upnp.release().await;
        assert_eq!(igd.did()[3..], [Did::Unmap(port)]);
        assert!(igd.mapped().is_empty());
    }

    #[tokio::test]
    async fn a_device_that_wants_it_from_the_renewal_on_has_its_will() {
        let igd = Igd::start(22, Leases::AtMost(86_400)).await;
        let mut upnp = mapped(&igd).await;
        let port = upnp.external().port();
        assert!(!upnp.is_permanent());
        igd.set(Leases::Permanent);
        assert_eq!(upnp.renew().await, Ok(()));
        assert!(upnp.is_permanent());
        let renewed = [Did::Refuse(port, 3_600), Did::Map(port, 0)];
        assert_eq!(igd.did()[1..], renewed);
    }

    #[tokio::test]
    async fn a_shorter_lease_is_seen_in_the_list_at_first_and_at_each_renewal() {
        let igd = Igd::start(23, Leases::AtMost(600)).await;
        let mut upnp = mapped(&igd).await;
        assert_eq!(upnp.lifetime(), Duration::from_secs(600));
        igd.set(Leases::AtMost(120));
        assert_eq!(upnp.renew().await, Ok(()));
        assert_eq!(upnp.lifetime(), Duration::from_secs(120));
        igd.set(Leases::AtMost(86_400));
        assert_eq!(upnp.renew().await, Ok(()));
        assert_eq!(upnp.lifetime(), HOUR);
        // It asks for the whole time, whatever was given.
        let port = upnp.external().port();
        assert_eq!(igd.did(), [Did::Map(port, 3_600); 3]);
    }

    #[tokio::test]
    async fn a_list_that_is_slow_to_read_is_read() {
        let igd = Igd::start(25, Leases::AtMost(600)).await;
        igd.take_for_each_entry(Duration::from_millis(150));
        let mut upnp = mapped(&igd).await;
        assert_eq!(upnp.lifetime(), Duration::from_secs(600));
        igd.set(Leases::AtMost(120));
        assert_eq!(upnp.renew().await, Ok(()));
        assert_eq!(upnp.lifetime(), Duration::from_secs(120));
    }

    #[tokio::test]
    async fn a_port_that_is_listed_without_an_end_is_taken_for_permanent() {
        let igd = Igd::start(24, Leases::NoneTold).await;
        let upnp = mapped(&igd).await;
        assert!(upnp.is_permanent());
        assert_eq!(upnp.lifetime(), HOUR);
    }
}
