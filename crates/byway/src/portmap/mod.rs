//! A port of the gateway's, where it gives one: then peers get in whatever the NAT does otherwise (design section 5).
//!
//! PCP is asked first, and what answers that it is older is asked by NAT-PMP; UPnP is asked a little later beside
//! them, because it takes several requests to a web server. The first that gives a port wins, and what another one gives too
//! late is given back. The port is renewed when half of its lifetime is over or the gateway announces that it began anew, asked
//! for anew when the gateway changes or refuses it, and given back at the end. A gateway that gives none, or takes back what it
//! gave, is asked ever more seldom: most never will, some were only starting.
//!
//! Nobody waits for any of this. What a gateway says is the word of the local network: it becomes one more address for
//! peers to try, and nothing is believed of it before a probe has come through.

mod announce;
#[cfg(all(test, target_os = "linux"))]
mod fake;
#[cfg(all(test, target_os = "linux"))]
mod fake_igd;
mod gateway;
mod granted;
mod pcp;
mod requests;
mod restart;
mod term;
mod upnp;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use byway_core::discovery::GatewayPort;
use tokio::sync::{Notify, mpsc, watch};

use crate::driver::Input;
use crate::socket::Socket;
use announce::Announcements;
pub(crate) use gateway::Finder;
use gateway::Gateway;
use granted::Granted;
use requests::Requests;
use restart::Known;
use term::{Pauses, Term, Unrenewed, Verdict};

/// Lifetime asked for by default: a process that died without a word holds its port for an hour.
pub(crate) const LIFETIME: Duration = Duration::from_secs(3_600);
/// Of which the shortest leaves room for two renewals, and the longest ends before most people notice what was left behind.
pub(crate) const LIFETIMES: RangeInclusive<Duration> =
    Duration::from_secs(10)..=Duration::from_secs(86_400);
/// UPnP begins this much after PCP, whose first request has not been answered then.
const UPNP_AFTER: Duration = Duration::from_millis(250);
/// Before a gateway that gave nothing, or takes back what it gave, is asked again, doubling.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(3_600);
/// A port is not renewed more often than this, whatever lifetime the gateway gives (RFC 6887 section 11.2.1).
const SHORTEST_RENEWAL: Duration = Duration::from_secs(4);
/// When the host's addresses change and the gateway seems to be the same, a renewal tells; they may change all the time.
const AFTER_CHANGE: Duration = Duration::from_secs(30);
/// To give a port back. The process is about to end, and the lease does so too.
const RELEASE: Duration = Duration::from_millis(500);
/// At the end, for the answer to what was asked just before. A gateway that answers takes some milliseconds, by UPnP some tens,
/// and one that does not should hold nobody up.
const LAST_ANSWER: Duration = Duration::from_millis(150);

/// What moves the port mapper.
#[derive(Debug)]
pub(crate) struct PortMapper {
    /// Whose local port it is, that of the socket for IPv4.
    pub(crate) socket: Arc<Socket>,
    pub(crate) gateways: Finder,
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
    Given(Place, Granted, Requests<Granted>),
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

/// Why a port is not held any more.
enum Ended {
    /// The gateway does not keep it.
    Lost {
        /// It had been kept for a while, renewals included.
        was_good: bool,
    },
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
        let mut pauses = Pauses::new();
        loop {
            let (gateway, pause) = match self.acquire().await {
                Asked::Given(place, granted, requests) => {
                    let term = Term::new(Instant::now(), granted.lifetime());
                    let ended = self.hold(place, granted, term, requests, &mut announcements);
                    let pause = match ended.await {
                        Ended::Lost { was_good } => pauses.after_loss(was_good),
                        Ended::NetworkChanged => {
                            pauses = Pauses::new();
                            Duration::ZERO
                        }
                        Ended::Stopped => return,
                    };
                    (Some(place.gateway), pause)
                }
                Asked::Nothing(gateway, why) => {
                    tracing::debug!(%why, "no port mapping");
                    (gateway, pauses.after_nothing())
                }
                Asked::Stopped => return,
            };
            if pause.is_zero() {
                self.tell(GatewayPort::Unknown).await;
                continue;
            }
            self.tell(GatewayPort::None).await;
            match self.rest(gateway, pause, &mut announcements).await {
                Woken::Due => pauses.passed(),
                Woken::Announced => {}
                Woken::NetworkChanged => {
                    pauses = Pauses::new();
                    self.tell(GatewayPort::Unknown).await;
                }
                Woken::Stopped => return,
            }
        }
    }

    /// Leaves the gateway alone for a while. One that began anew may give something now. That it did is anybody's word on the local
    /// network: it is asked once, and not more often from then on.
    async fn rest(
        &mut self,
        gateway: Option<Gateway>,
        pause: Duration,
        announcements: &mut Announcements,
    ) -> Woken {
        let known = gateway.map(|gateway| Known {
            gateway: gateway.addr,
            external: None,
            epoch: None,
        });
        tokio::select! {
            woken = self.wait(pause) => woken,
            () = announcements.heard(known) => Woken::Announced,
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
            let gateway = match self.gateways.find().await {
                Ok(gateway) => gateway,
                Err(why) => return Asked::Nothing(None, why),
            };
            let place = Place {
                gateway,
                port: self.port(),
                lifetime: self.lifetime,
            };
            let mut requests = granted::ask(place);
            loop {
                tokio::select! {
                    given = requests.next() => return match given {
                        Some(granted) => Asked::Given(place, granted, requests),
                        None => Asked::Nothing(Some(gateway), requests.failures()),
                    },
                    Ok(()) = self.network.changed() => {
                        if !self.is_still(place).await {
                            self.leave(requests);
                            break;
                        }
                    }
                    () = stopped(&mut self.stop) => {
                        requests.end(LAST_ANSWER, give_back).await;
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
        mut granted: Granted,
        mut term: Term,
        mut requests: Requests<Granted>,
        announcements: &mut Announcements,
    ) -> Ended {
        self.tell(GatewayPort::Held(granted.mapping())).await;
        tokio::select! {
            () = granted.look() => term.is_now(Instant::now(), granted.lifetime()),
            () = stopped(&mut self.stop) => {}
        }
        let mut asking = true;
        let (ended, is_there) = loop {
            let mapping = granted.mapping();
            let known = Known {
                gateway: place.gateway.addr,
                external: Some(mapping.external.ip()),
                epoch: granted.epoch(),
            };
            let due = term.renew_at().saturating_duration_since(Instant::now());
            let woken = tokio::select! {
                woken = self.wait(due) => woken,
                () = announcements.heard(Some(known)) => Woken::Announced,
                late = requests.next(), if asking => {
                    match late {
                        Some(late) => self.settle(&mut granted, late).await,
                        None => asking = false,
                    }
                    if granted.mapping() != mapping {
                        term.is_now(Instant::now(), granted.lifetime());
                    }
                    continue;
                }
            };
            match woken {
                Woken::Due | Woken::Announced => {}
                // Addresses come and go (a container's) beside the gateway that holds the port: peers come in by it. Another
                // network may have the same addresses, though, and a renewal tells.
                Woken::NetworkChanged if self.is_still(place).await => {
                    term.doubt(Instant::now());
                    continue;
                }
                Woken::NetworkChanged => break (Ended::NetworkChanged, true),
                Woken::Stopped => break (Ended::Stopped, true),
            }
            let renewed = tokio::select! {
                renewed = granted.renew() => renewed,
                () = stopped(&mut self.stop) => break (Ended::Stopped, true),
            };
            let now = Instant::now();
            if let Err(why) = renewed {
                tracing::debug!(?why, "port mapping not renewed");
                let announced = matches!(woken, Woken::Announced);
                let verdict = term.failed(now, &why, announced);
                if verdict == Verdict::Held {
                    continue;
                }
                let was_good = term.was_good(now);
                // One that did not answer until the end may keep for ever what it gave so.
                let stays = granted.is_permanent() && matches!(why, Unrenewed::Silent(_));
                break (
                    Ended::Lost { was_good },
                    verdict == Verdict::Doubtful || stays,
                );
            }
            term.renewed(now, granted.lifetime());
            if granted.mapping() != mapping {
                self.tell(GatewayPort::Held(granted.mapping())).await;
            }
        };
        // On another network the old gateway may not hear it; its lease ends by itself.
        let released = async {
            if is_there {
                give_back(granted).await;
            }
        };
        if matches!(ended, Ended::NetworkChanged) {
            self.leave(requests);
            self.tell(GatewayPort::Unknown).await;
            released.await;
        } else {
            tokio::join!(released, requests.end(LAST_ANSWER, give_back));
        }
        ended
    }

    /// Nobody waits for what is still asked, of a gateway that is not ours any more.
    fn leave(&self, requests: Requests<Granted>) {
        let mut stop = self.stop.clone();
        tokio::spawn(async move {
            requests
                .end_unless(stopped(&mut stop), LAST_ANSWER, give_back)
                .await;
        });
    }

    /// Another protocol gave a port as well: one of the two goes back.
    async fn settle(&self, granted: &mut Granted, late: Granted) {
        let before = granted.mapping();
        tracing::debug!(granted = ?before, late = ?late.mapping(), "two port mappings");
        let surplus = granted.settle(late);
        if granted.mapping() != before {
            self.tell(GatewayPort::Held(granted.mapping())).await;
        }
        if let Some(surplus) = surplus {
            give_back(surplus).await;
        }
    }

    /// The local port: another one when the system ended the socket and its old port was taken.
    fn port(&self) -> u16 {
        let v4 = self.socket.bound().find(|(_, addr)| addr.is_ipv4());
        v4.map_or(0, |(_, addr)| addr.port())
    }

    async fn is_still(&self, place: Place) -> bool {
        place.port == self.port() && self.gateways.find().await.ok() == Some(place.gateway)
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

/// Gives a port back, if the gateway takes it in time.
async fn give_back(granted: Granted) {
    let _ = tokio::time::timeout(RELEASE, granted.release()).await;
}

/// As the protocols say it.
fn seconds(lifetime: Duration) -> u32 {
    u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
