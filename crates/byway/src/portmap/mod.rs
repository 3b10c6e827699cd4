//! A port of the gateway's, where it gives one: then peers get in whatever the NAT does otherwise (design section 5).
//!
//! PCP is asked first, and what answers that it is older is asked by NAT-PMP; UPnP is asked half a second later beside
//! them, because it takes several requests to a web server. The first that gives a port wins. The port is renewed when
//! half of its lifetime is over or the gateway announces that it began anew, asked for anew when the gateway changes, and
//! given back at the end. A gateway that gives none is asked ever more seldom: most never will, some were only starting.
//!
//! Nobody waits for any of this. What a gateway says is the word of the local network: it becomes one more address for
//! peers to try, and nothing is believed of it before a probe has come through.

mod announce;
mod gateway;
mod pcp;
mod upnp;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use byway_core::discovery::{GatewayPort, MappingProtocol, PortMapping};
use tokio::sync::{mpsc, watch};

use crate::driver::Input;
use crate::socket::Socket;
use announce::Announcements;
use gateway::Gateway;
use pcp::Pcp;
use upnp::Upnp;

/// Lifetime asked for, in seconds: a process that died without a word holds its port for an hour.
const LIFETIME: u32 = 3_600;
/// UPnP begins this much after PCP, which needs one round trip on the local network.
const UPNP_AFTER: Duration = Duration::from_millis(500);
/// Before a gateway that gave nothing is asked again, doubling.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(3_600);
/// A port is not renewed more often than this, whatever lifetime the gateway gives (RFC 6887 section 11.2.1).
const SHORTEST_RENEWAL: Duration = Duration::from_secs(4);
/// When the host's addresses change and the gateway seems to be the same, a renewal tells; they may change all the time.
const AFTER_CHANGE: Duration = Duration::from_secs(30);
/// To give the port back. The process is about to end, and the lease does so too.
const RELEASE: Duration = Duration::from_millis(500);

/// What moves the port mapper.
#[derive(Debug)]
pub(crate) struct PortMapper {
    /// Whose local port it is, that of the socket for IPv4.
    pub(crate) socket: Arc<Socket>,
    /// How long to wait first: what ends at once should not trouble a gateway.
    pub(crate) delay: Duration,
    pub(crate) driver: mpsc::Sender<Input>,
    /// Counts changes of the host's addresses.
    pub(crate) network: watch::Receiver<u64>,
    /// Becomes true when the endpoint closes.
    pub(crate) stop: watch::Receiver<bool>,
}

/// What a mapping is between.
#[derive(Clone, Copy, Debug)]
struct Place {
    gateway: Gateway,
    /// The local port.
    port: u16,
}

/// Why the mapper stopped waiting.
enum Woken {
    Due,
    /// The network is another one, or began anew.
    NetworkChanged,
    Stopped,
}

impl PortMapper {
    /// Runs until the endpoint closes.
    pub(crate) async fn run(mut self) {
        self.tell(GatewayPort::Unknown).await;
        if matches!(self.wait(self.delay).await, Woken::Stopped) {
            return;
        }
        let mut announcements = Announcements::listen();
        let mut pause = FIRST_PAUSE;
        loop {
            match self.acquire().await {
                Some(Ok((place, held))) => {
                    pause = FIRST_PAUSE;
                    let woken = self.hold(place, held, &mut announcements).await;
                    if matches!(woken, Woken::Stopped) {
                        return;
                    }
                }
                Some(Err(why)) => {
                    tracing::debug!(%why, "no port mapping");
                    self.tell(GatewayPort::None).await;
                    match self.pause(pause, &mut announcements).await {
                        Woken::Due => pause = (pause * 2).min(LONGEST_PAUSE),
                        Woken::NetworkChanged => {
                            pause = FIRST_PAUSE;
                            self.tell(GatewayPort::Unknown).await;
                        }
                        Woken::Stopped => return,
                    }
                }
                None => return,
            }
        }
    }

    /// Asks the gateway; none if the endpoint closes meanwhile. Another gateway is asked anew. The same one is not: it may have
    /// given a port already, to a request that nobody would know any more.
    async fn acquire(&mut self) -> Option<Result<(Place, Held), String>> {
        loop {
            self.network.mark_unchanged();
            let gateway = match Gateway::find().await {
                Ok(gateway) => gateway,
                Err(why) => return Some(Err(why)),
            };
            let place = Place {
                gateway,
                port: self.port(),
            };
            let asking = ask(place);
            tokio::pin!(asking);
            loop {
                tokio::select! {
                    held = &mut asking => return Some(held.map(|held| (place, held))),
                    Ok(()) = self.network.changed() => {
                        if !self.is_still(place).await {
                            break;
                        }
                    }
                    () = stopped(&mut self.stop) => return None,
                }
            }
        }
    }

    /// Keeps a port until it is lost or not needed any more.
    async fn hold(
        &mut self,
        place: Place,
        mut held: Held,
        announcements: &mut Announcements,
    ) -> Woken {
        self.tell(GatewayPort::Held(held.mapping())).await;
        let mut renew_at = Instant::now() + renewal(&held);
        let woken = loop {
            let due = self.wait(renew_at.saturating_duration_since(Instant::now()));
            let woken = tokio::select! {
                woken = due => woken,
                who = announcements.heard() => {
                    if who == IpAddr::V4(place.gateway.addr) {
                        renew_at = Instant::now();
                    }
                    continue;
                }
            };
            match woken {
                Woken::Due => {}
                // Addresses come and go (a container's) beside the gateway that holds the port: peers come in by it. Another
                // network may have the same addresses, though, and a renewal tells.
                Woken::NetworkChanged if self.is_still(place).await => {
                    renew_at = renew_at.min(Instant::now() + AFTER_CHANGE);
                    continue;
                }
                other => break other,
            }
            let before = held.mapping();
            let renewed = tokio::select! {
                renewed = held.renew() => renewed,
                () = stopped(&mut self.stop) => break Woken::Stopped,
            };
            if let Err(why) = renewed {
                tracing::debug!(%why, "port mapping lost");
                self.tell(GatewayPort::Unknown).await;
                return Woken::Due;
            }
            renew_at = Instant::now() + renewal(&held);
            if held.mapping() != before {
                self.tell(GatewayPort::Held(held.mapping())).await;
            }
        };
        if matches!(woken, Woken::NetworkChanged) {
            self.tell(GatewayPort::Unknown).await;
        }
        // On another network the old gateway may not hear it; its lease ends by itself.
        let _ = tokio::time::timeout(RELEASE, held.release()).await;
        woken
    }

    /// The local port: another one when the system ended the socket and its old port was taken.
    fn port(&self) -> u16 {
        let v4 = self.socket.bound().find(|(_, addr)| addr.is_ipv4());
        v4.map_or(0, |(_, addr)| addr.port())
    }

    async fn is_still(&self, place: Place) -> bool {
        place.port == self.port() && Gateway::find().await.ok() == Some(place.gateway)
    }

    /// Before a gateway that gave nothing is asked again. One that began anew may give something now.
    async fn pause(&mut self, time: Duration, announcements: &mut Announcements) -> Woken {
        let until = Instant::now() + time;
        loop {
            let over = self.wait(until.saturating_duration_since(Instant::now()));
            let who = tokio::select! {
                woken = over => return woken,
                who = announcements.heard() => who,
            };
            let gateway = Gateway::find().await;
            if gateway.is_ok_and(|gateway| IpAddr::V4(gateway.addr) == who) {
                return Woken::NetworkChanged;
            }
        }
    }

    async fn tell(&self, mapping: GatewayPort) {
        tracing::debug!(?mapping, "port mapping");
        // If the driver is gone, nobody needs it.
        let _ = self.driver.send(Input::PortMapping(mapping)).await;
    }

    async fn wait(&mut self, time: Duration) -> Woken {
        tokio::select! {
            () = tokio::time::sleep(time) => Woken::Due,
            Ok(()) = self.network.changed() => Woken::NetworkChanged,
            () = stopped(&mut self.stop) => Woken::Stopped,
        }
    }
}

/// Ends when the endpoint closes, or is gone.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Until half of its lifetime is over.
fn renewal(held: &Held) -> Duration {
    (held.lifetime() / 2).max(SHORTEST_RENEWAL)
}

/// A port that a gateway holds.
#[derive(Debug)]
enum Held {
    Pcp(Pcp),
    Upnp(Box<Upnp>),
}

/// Asks for a port in every way there is.
async fn ask(Place { gateway, port }: Place) -> Result<Held, String> {
    let upnp = async {
        tokio::time::sleep(UPNP_AFTER).await;
        Upnp::map(gateway, port).await
    };
    let pcp = Pcp::map(gateway, port);
    tokio::pin!(pcp, upnp);
    tokio::select! {
        mapped = &mut pcp => match mapped {
            Ok(mapped) => Ok(Held::Pcp(mapped)),
            Err(first) => match upnp.await {
                Ok(mapped) => Ok(Held::Upnp(Box::new(mapped))),
                Err(second) => Err(format!("{first}; {second}")),
            },
        },
        mapped = &mut upnp => match mapped {
            Ok(mapped) => Ok(Held::Upnp(Box::new(mapped))),
            Err(first) => match pcp.await {
                Ok(mapped) => Ok(Held::Pcp(mapped)),
                Err(second) => Err(format!("{second}; {first}")),
            },
        },
    }
}

impl Held {
    fn mapping(&self) -> PortMapping {
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

    fn lifetime(&self) -> Duration {
        match self {
            Self::Pcp(pcp) => pcp.lifetime(),
            Self::Upnp(_) => Duration::from_secs(LIFETIME.into()),
        }
    }

    async fn renew(&mut self) -> Result<(), String> {
        match self {
            Self::Pcp(pcp) => pcp.renew().await,
            Self::Upnp(upnp) => upnp.renew().await,
        }
    }

    async fn release(self) {
        match self {
            Self::Pcp(pcp) => pcp.release().await,
            Self::Upnp(upnp) => upnp.release().await,
        }
    }
}
