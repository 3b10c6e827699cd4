//! A port of the gateway's, where it gives one: then peers get in whatever the NAT does otherwise (design section 5).
//!
//! PCP is asked first, and what answers that it is older is asked by NAT-PMP; UPnP is asked a little later beside
//! them, because it takes several requests to a web server. The first that gives a port wins, and what another one gives too
//! late is given back. The port is renewed when half of its lifetime is over or the gateway announces that it began anew, asked
//! for anew when the gateway changes, and given back at the end. A gateway that gives none is asked ever more seldom: most never
//! will, some were only starting.
//!
//! Nobody waits for any of this. What a gateway says is the word of the local network: it becomes one more address for
//! peers to try, and nothing is believed of it before a probe has come through.

mod announce;
mod gateway;
mod held;
mod pcp;
mod race;
mod restart;
mod upnp;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use byway_core::discovery::GatewayPort;
use tokio::sync::{Notify, mpsc, watch};

use crate::driver::Input;
use crate::socket::Socket;
use announce::Announcements;
use gateway::Gateway;
use held::Held;
use race::Race;
use restart::Known;

/// Lifetime asked for by default: a process that died without a word holds its port for an hour.
pub(crate) const LIFETIME: Duration = Duration::from_secs(3_600);
/// Of which the shortest leaves room for two renewals, and the longest ends before most people notice what was left behind.
pub(crate) const LIFETIMES: RangeInclusive<Duration> =
    Duration::from_secs(10)..=Duration::from_secs(86_400);
/// UPnP begins this much after PCP, whose first request has not been answered then.
const UPNP_AFTER: Duration = Duration::from_millis(250);
/// Before a gateway that gave nothing is asked again, doubling.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(3_600);
/// A port is not renewed more often than this, whatever lifetime the gateway gives (RFC 6887 section 11.2.1).
const SHORTEST_RENEWAL: Duration = Duration::from_secs(4);
/// When the host's addresses change and the gateway seems to be the same, a renewal tells; they may change all the time.
const AFTER_CHANGE: Duration = Duration::from_secs(30);
/// To give the port back. The process is about to end, and the lease does so too.
const RELEASE: Duration = Duration::from_millis(500);
/// At the end, for the answer to what was asked just before. A gateway that answers takes some milliseconds, by UPnP some tens,
/// and one that does not should hold nobody up.
const LAST_ANSWER: Duration = Duration::from_millis(150);

/// What moves the port mapper.
#[derive(Debug)]
pub(crate) struct PortMapper {
    /// Whose local port it is, that of the socket for IPv4.
    pub(crate) socket: Arc<Socket>,
    /// How long to wait first: what ends at once should not trouble a gateway.
    pub(crate) delay: Duration,
    /// Ends that wait: somebody wants to know.
    pub(crate) hurry: Arc<Notify>,
    /// For which a port is asked, in whole seconds.
    pub(crate) lifetime: Duration,
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
    lifetime: Duration,
}

/// What the gateway said.
enum Asked {
    /// It gave a port. Other protocols may still answer.
    Given(Place, Held, Race<Held>),
    /// It gave none, and why; there may be no gateway at all.
    Nothing(Option<Gateway>, String),
    /// The endpoint closed meanwhile.
    Stopped,
}

/// Why the mapper stopped waiting.
enum Woken {
    Due,
    /// The gateway says that it began anew.
    Announced,
    NetworkChanged,
    Stopped,
}

impl PortMapper {
    /// Runs until the endpoint closes.
    pub(crate) async fn run(mut self) {
        self.tell(GatewayPort::Unknown).await;
        if matches!(self.first_wait().await, Woken::Stopped) {
            return;
        }
        let mut announcements = Announcements::listen(Arc::clone(&self.socket));
        let mut pause = FIRST_PAUSE;
        loop {
            match self.acquire().await {
                Asked::Given(place, held, race) => {
                    pause = FIRST_PAUSE;
                    let woken = self.hold(place, held, race, &mut announcements).await;
                    if matches!(woken, Woken::Stopped) {
                        return;
                    }
                }
                Asked::Nothing(gateway, why) => {
                    tracing::debug!(%why, "no port mapping");
                    self.tell(GatewayPort::None).await;
                    let known = gateway.map(|gateway| Known {
                        gateway: gateway.addr,
                        external: None,
                        epoch: None,
                    });
                    // One that began anew may give something now. That it did is anybody's word on the local network: it is asked
                    // once, and not more often from then on.
                    let woken = tokio::select! {
                        woken = self.wait(pause) => woken,
                        () = announcements.heard(known) => Woken::Announced,
                    };
                    match woken {
                        Woken::Due => pause = (pause * 2).min(LONGEST_PAUSE),
                        Woken::Announced => {}
                        Woken::NetworkChanged => {
                            pause = FIRST_PAUSE;
                            self.tell(GatewayPort::Unknown).await;
                        }
                        Woken::Stopped => return,
                    }
                }
                Asked::Stopped => return,
            }
        }
    }

    /// Before the gateway is asked at all.
    async fn first_wait(&mut self) -> Woken {
        let hurry = Arc::clone(&self.hurry);
        tokio::select! {
            woken = self.wait(self.delay) => woken,
            () = hurry.notified() => Woken::Due,
        }
    }

    /// Asks the gateway. Another gateway is asked anew. The same one is not: it may have given a port already, to a request that
    /// nobody would know any more.
    async fn acquire(&mut self) -> Asked {
        loop {
            self.network.mark_unchanged();
            let gateway = match Gateway::find().await {
                Ok(gateway) => gateway,
                Err(why) => return Asked::Nothing(None, why),
            };
            let place = Place {
                gateway,
                port: self.port(),
                lifetime: self.lifetime,
            };
            let mut race = held::ask(place);
            loop {
                tokio::select! {
                    given = race.next() => return match given {
                        Some(held) => Asked::Given(place, held, race),
                        None => Asked::Nothing(Some(gateway), race.failures()),
                    },
                    Ok(()) = self.network.changed() => {
                        if !self.is_still(place).await {
                            end(race).await;
                            break;
                        }
                    }
                    () = stopped(&mut self.stop) => {
                        end(race).await;
                        return Asked::Stopped;
                    }
                }
            }
        }
    }

    /// Keeps a port until it is lost or not needed any more, and gives back what another protocol gives beside it.
    async fn hold(
        &mut self,
        place: Place,
        mut held: Held,
        mut race: Race<Held>,
        announcements: &mut Announcements,
    ) -> Woken {
        self.tell(GatewayPort::Held(held.mapping())).await;
        let mut renew_at = held.renewal();
        let mut racing = true;
        let woken = loop {
            let mapping = held.mapping();
            let known = Known {
                gateway: place.gateway.addr,
                external: Some(mapping.external.ip()),
                epoch: held.epoch(),
            };
            let due = renew_at.saturating_duration_since(Instant::now());
            let woken = tokio::select! {
                woken = self.wait(due) => woken,
                () = announcements.heard(Some(known)) => Woken::Announced,
                late = race.next(), if racing => {
                    match late {
                        Some(late) => self.settle(&mut held, late).await,
                        None => racing = false,
                    }
                    if held.mapping() != mapping {
                        renew_at = held.renewal();
                    }
                    continue;
                }
            };
            match woken {
                Woken::Due | Woken::Announced => {}
                // Addresses come and go (a container's) beside the gateway that holds the port: peers come in by it. Another
                // network may have the same addresses, though, and a renewal tells.
                Woken::NetworkChanged if self.is_still(place).await => {
                    renew_at = renew_at.min(Instant::now() + AFTER_CHANGE);
                    continue;
                }
                other => break other,
            }
            let renewed = tokio::select! {
                renewed = held.renew() => renewed,
                () = stopped(&mut self.stop) => break Woken::Stopped,
            };
            if let Err(why) = renewed {
                tracing::debug!(%why, "port mapping lost");
                self.tell(GatewayPort::Unknown).await;
                end(race).await;
                return Woken::Due;
            }
            renew_at = held.renewal();
            if held.mapping() != mapping {
                self.tell(GatewayPort::Held(held.mapping())).await;
            }
        };
        if matches!(woken, Woken::NetworkChanged) {
            self.tell(GatewayPort::Unknown).await;
        }
        // On another network the old gateway may not hear it; its lease ends by itself.
        let released = tokio::time::timeout(RELEASE, held.release());
        let _ = tokio::join!(released, end(race));
        woken
    }

    /// Another protocol gave a port as well: one of the two goes back.
    async fn settle(&self, held: &mut Held, late: Held) {
        let before = held.mapping();
        tracing::debug!(held = ?before, late = ?late.mapping(), "two port mappings");
        let surplus = held.settle(late);
        if held.mapping() != before {
            self.tell(GatewayPort::Held(held.mapping())).await;
        }
        if let Some(surplus) = surplus {
            let _ = tokio::time::timeout(RELEASE, surplus.release()).await;
        }
    }

    /// The local port: another one when the system ended the socket and its old port was taken.
    fn port(&self) -> u16 {
        let v4 = self.socket.bound().find(|(_, addr)| addr.is_ipv4());
        v4.map_or(0, |(_, addr)| addr.port())
    }

    async fn is_still(&self, place: Place) -> bool {
        place.port == self.port() && Gateway::find().await.ok() == Some(place.gateway)
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

/// Gives back what those give who have asked already.
async fn end(mut race: Race<Held>) {
    race.decide();
    let given = async {
        while let Some(held) = race.next().await {
            let _ = tokio::time::timeout(RELEASE, held.release()).await;
        }
    };
    let _ = tokio::time::timeout(LAST_ANSWER, given).await;
}

/// As the protocols say it.
fn seconds(lifetime: Duration) -> u32 {
    u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapper(delay: Duration, stop: &watch::Sender<bool>) -> PortMapper {
        let (socket, _driver) = Socket::bind(&["127.0.0.1:0".parse().unwrap()], 1444).unwrap();
        PortMapper {
            socket,
            delay,
            hurry: Arc::new(Notify::new()),
            lifetime: LIFETIME,
            driver: mpsc::channel(1).0,
            network: watch::channel(0).1,
            stop: stop.subscribe(),
        }
    }

    #[tokio::test]
    async fn whoever_wants_to_know_need_not_wait_for_the_delay() {
        let stop = watch::Sender::new(false);
        let delay = Duration::from_secs(3_600);
        // Before it waits, or while it does.
        for waits in [false, true] {
            let mut mapper = mapper(delay, &stop);
            let hurry = Arc::clone(&mapper.hurry);
            if !waits {
                hurry.notify_one();
            }
            let asked = async {
                tokio::task::yield_now().await;
                if waits {
                    hurry.notify_one();
                }
            };
            let (woken, ()) = tokio::join!(mapper.first_wait(), asked);
            assert!(matches!(woken, Woken::Due));
        }
    }
}
