//! A port that a gateway holds, by whichever protocol it was got.

use std::time::Duration;

use byway_core::discovery::{MappingProtocol, PortMapping};
use tokio::sync::oneshot;

use super::pcp::Pcp;
use super::requests::Requests;
use super::restart::Epoch;
use super::term::Unrenewed;
use super::upnp::{self, Upnp};
use super::{Place, UPNP_AFTER};

#[derive(Debug)]
pub(super) enum Granted {
    Pcp(Box<Pcp>),
    Upnp(Box<Upnp>),
}

/// Asks for a port in every way there is.
pub(super) fn ask(place: Place) -> Requests<Granted> {
    let Place {
        gateway,
        port,
        lifetime,
    } = place;
    let mut requests = Requests::new();
    let (asking, refused) = oneshot::channel::<()>();
    requests.add(|_| async move {
        let mapped = Pcp::map(gateway, port, lifetime).await;
        drop(asking);
        mapped.map(|pcp| Granted::Pcp(Box::new(pcp)))
    });
    requests.add(|mut decided| async move {
        // A gateway that does not speak PCP says so at once, if it says anything.
        let _ = tokio::time::timeout(UPNP_AFTER, refused).await;
        let device = tokio::select! {
            biased;
            _ = decided.wait_for(|decided| *decided) => Err("not needed any more".to_owned()),
            found = upnp::search(gateway) => found,
        };
        let device = device.map_err(|why| format!("UPnP: {why}"))?;
        let mapped = Upnp::map(device, gateway, port, lifetime).await;
        mapped.map(|upnp| Granted::Upnp(Box::new(upnp)))
    });
    requests
}

/// What to do with a port that came beside the one that is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Surplus {
    /// It is given back.
    Late,
    /// It takes the place of the one that is held, which is given back.
    Held,
    /// It is the same: the gateway has one mapping, told of twice. The better protocol keeps it.
    Neither { swap: bool },
}

/// Between a port by PCP or NAT-PMP and one by UPnP the former stays, whichever came first: UPnP takes back the external port
/// that it is told, and nothing else, while the others take back whatever the gateway maps to our inside port (RFC 6886 section
/// 3.4), and with it the other's.
fn surplus(held: PortMapping, late: PortMapping) -> Surplus {
    let swap = held.protocol == MappingProtocol::Upnp && late.protocol != MappingProtocol::Upnp;
    if held.external.port() == late.external.port() {
        Surplus::Neither { swap }
    } else if swap {
        Surplus::Held
    } else {
        Surplus::Late
    }
}

impl Granted {
    pub(super) fn mapping(&self) -> PortMapping {
        match self {
            Self::Pcp(pcp) => PortMapping {
                protocol: pcp.protocol(),
                external: pcp.external(),
            },
            Self::Upnp(upnp) => PortMapping {
                protocol: MappingProtocol::Upnp,
                external: upnp.external(),
            },
        }
    }

    /// For which it was given.
    pub(super) fn lifetime(&self) -> Duration {
        match self {
            Self::Pcp(pcp) => pcp.lifetime(),
            Self::Upnp(upnp) => upnp.lifetime(),
        }
    }

    /// True if the gateway keeps it until it is given back.
    pub(super) fn is_permanent(&self) -> bool {
        match self {
            Self::Pcp(_) => false,
            Self::Upnp(upnp) => upnp.is_permanent(),
        }
    }

    /// How the gateway's time stood when it last answered. UPnP tells nothing of it.
    pub(super) fn epoch(&self) -> Option<Epoch> {
        match self {
            Self::Pcp(pcp) => Some(pcp.epoch()),
            Self::Upnp(_) => None,
        }
    }

    /// Another protocol gave a port too. One of the two is left, and the other comes back to be released, if there is another.
    pub(super) fn settle(&mut self, late: Self) -> Option<Self> {
        match surplus(self.mapping(), late.mapping()) {
            Surplus::Late => Some(late),
            Surplus::Held => Some(std::mem::replace(self, late)),
            Surplus::Neither { swap } => {
                if swap {
                    *self = late;
                }
                None
            }
        }
    }

    /// Finds out more of what was given: [`Granted::lifetime`] is right afterwards.
    pub(super) async fn look(&mut self) {
        match self {
            Self::Pcp(_) => {}
            Self::Upnp(upnp) => upnp.look().await,
        }
    }

    pub(super) async fn renew(&mut self) -> Result<(), Unrenewed> {
        match self {
            Self::Pcp(pcp) => pcp.renew().await,
            Self::Upnp(upnp) => upnp.renew().await,
        }
    }

    pub(super) async fn release(self) {
        match self {
            Self::Pcp(pcp) => pcp.release().await,
            Self::Upnp(upnp) => upnp.release().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(protocol: MappingProtocol, external: &str) -> PortMapping {
        PortMapping {
            protocol,
            external: external.parse().unwrap(),
        }
    }

    #[test]
    fn of_two_ports_the_one_stays_whose_end_would_take_the_other_along() {
        let upnp = mapping(MappingProtocol::Upnp, "203.0.113.9:40000");
        for protocol in [MappingProtocol::Pcp, MappingProtocol::NatPmp] {
            let other = mapping(protocol, "203.0.113.9:5000");
            assert_eq!(surplus(other, upnp), Surplus::Late);
            assert_eq!(surplus(upnp, other), Surplus::Held);
        }
    }

    #[test]
    fn one_port_told_of_twice_is_given_back_by_nobody() {
        let upnp = mapping(MappingProtocol::Upnp, "203.0.113.9:5000");
        let pcp = mapping(MappingProtocol::Pcp, "203.0.113.9:5000");
        assert_eq!(surplus(pcp, upnp), Surplus::Neither { swap: false });
        assert_eq!(surplus(upnp, pcp), Surplus::Neither { swap: true });
    }
}
