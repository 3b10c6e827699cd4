//! The endpoint: one node of this process.
//!
//! It is put together here from the parts that do the work: the socket beneath quinn (`socket`), the driver that
//! owns the node's state machine (`driver`), the links it dials (`links`), and quinn itself, which
//! carries tunnels and UDP links alike on one set of sockets.

mod accept;
mod builder;
mod check;
mod connect;
mod epoch;
mod error;
pub(crate) mod names;
mod quic;
#[cfg(test)]
mod tests;
mod tunnels;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use byway_core::discovery::NatReport;
use byway_core::io::Carrier;
use byway_wire::signal::Candidate;
use byway_wire::ticket::TicketRelay;
use byway_wire::tunnel::CloseCode;
use byway_wire::{NodeId, RelayUrl, Ticket, TicketSecret};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinHandle};

use crate::driver::{Input, Shared, drops};
use crate::proxy::{Proxies, ProxyInUse};
use crate::relay_map::RelayMap;
use crate::socket::Socket;
use crate::tunnel::{Tunnel, close_code};
pub use builder::Builder;
pub use error::{BindError, ConnectError};

/// How long peers have to hear that the endpoint closes.
const CLOSE: Duration = Duration::from_secs(1);
/// The same where round trips are next to nothing, as on loopback.
const LEAST_WORD: Duration = Duration::from_millis(20);
/// Discovery gives up after 3 s (design section 5).
const DISCOVERY: Duration = Duration::from_millis(3200);
/// How long discovery waits for names at the start; those that resolve later are asked then.
const NAMES: Duration = Duration::from_secs(1);

/// One node of this process. Cheap to clone; the node ends when [`Endpoint::close`] is called or the last clone drops.
#[derive(Clone, Debug)]
pub struct Endpoint {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    node: NodeId,
    proxies: Arc<Proxies>,
    /// Goes into tickets.
    secret: Option<TicketSecret>,
    socket: Arc<Socket>,
    quinn: quinn::Endpoint,
    quic: Arc<quic::Quic>,
    shared: Arc<Shared>,
    input: mpsc::Sender<Input>,
    /// How many names of servers are not resolved yet, at the start.
    names: Arc<watch::Sender<usize>>,
    accepting: tokio::sync::Mutex<mpsc::Receiver<Tunnel>>,
    /// Becomes true when the endpoint closes.
    stop: watch::Sender<bool>,
    /// The gateway is asked for a port at once, where that was put off.
    map_now: Arc<Notify>,
    /// Gives the gateway's port back before it ends.
    port_mapper: std::sync::Mutex<Option<JoinHandle<()>>>,
    tasks: Vec<AbortHandle>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.quinn.close(close_code(CloseCode::Shutdown), b"");
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// The state of a link to a relay, for showing.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct LinkStatus {
    /// The relay.
    pub relay: RelayUrl,
    /// Since when it is up; none while it is not.
    pub since: Option<Instant>,
    /// `udp` or `tls` while up.
    pub carrier: Option<Carrier>,
    /// The address at which it was reached, while up; none through a proxy, which alone knows it.
    pub address: Option<SocketAddr>,
    /// Our address as the relay sees it.
    pub observed: Option<SocketAddr>,
    /// TLS to the relay is ended in between, by an ingress or an inspecting proxy (TLS links only). Tunnels are sealed end
    /// to end all the same.
    pub intercepted: bool,
    /// Why it is not up.
    pub error: Option<String>,
    /// It is not up because the relay shows another certificate than expected.
    pub certificate_refused: bool,
    /// It is not up over TLS because of the proxy before it.
    pub proxy_failed: bool,
    /// It is not up because the relay does not admit this node: it asks for a token, or for another one.
    pub not_admitted: bool,
}

impl LinkStatus {
    /// Of a relay that there is no link to, and nothing known of.
    pub fn unlinked(relay: RelayUrl) -> Self {
        Self {
            relay,
            since: None,
            carrier: None,
            address: None,
            observed: None,
            intercepted: false,
            error: None,
            certificate_refused: false,
            proxy_failed: false,
            not_admitted: false,
        }
    }
}

impl Endpoint {
    /// Settings for a new endpoint.
    pub fn builder() -> Builder {
        Builder::default()
    }

    fn assemble(inner: Inner) -> Self {
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Who this node is.
    pub fn node_id(&self) -> NodeId {
        self.inner.node
    }

    /// Waits until at least one of its relays is linked; errs with the reason when none is within `deadline`. This is for
    /// agents: a node that accepts nothing has a link only while a tunnel needs it.
    pub async fn online(&self, deadline: Duration) -> Result<(), ConnectError> {
        let mut links = self.links();
        let linked = links.wait_for(|links| links.iter().any(|link| link.carrier.is_some()));
        match tokio::time::timeout(deadline, linked).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(_)) => return Err(ConnectError::Closed),
            Err(_) => {}
        }
        Err(ConnectError::from_links(&links.borrow(), deadline))
    }

    /// A ticket for this node: its key, the relays at which it is found, and the first secret of its admission. Where those
    /// change ([`Endpoint::found_at`]), clients need another one in time.
    ///
    /// The secret admits whoever holds the ticket: show it to nobody else.
    pub fn ticket(&self, name: Option<&str>) -> Ticket {
        let links = self.inner.shared.links.borrow();
        // An address stands in for a name that does not resolve; each relay has its own.
        let addrs = |url: &RelayUrl| {
            let of_relay = links.iter().filter(|link| link.relay == *url);
            let named = url.host().parse::<std::net::IpAddr>().is_err();
            of_relay
                .filter_map(|link| link.address.filter(|_| named))
                .collect()
        };
        Ticket {
            node: self.inner.node,
            relays: self
                .inner
                .shared
                .found_at
                .borrow()
                .iter()
                .map(|url| TicketRelay {
                    url: url.clone(),
                    addrs: addrs(url),
                })
                .collect(),
            secret: self.inner.secret.clone(),
            name: name.map(str::to_owned),
        }
    }

    /// Opens a tunnel. Returns as soon as the tunnel is encrypted and authenticated, over whatever path came first.
    pub async fn connect(&self, ticket: &Ticket) -> Result<Tunnel, ConnectError> {
        connect::connect(&self.inner, ticket).await
    }

    /// The next tunnel a client opened; none when the endpoint is closed, or accepts none.
    pub async fn accept(&self) -> Option<Tunnel> {
        self.inner.accepting.lock().await.recv().await
    }

    /// The relays at which this node is found, those that its tickets name; none of a node that accepts nothing. They change with
    /// the relay map. One that the map names no more is among them for as long as the node has no other.
    pub fn found_at(&self) -> watch::Receiver<Vec<RelayUrl>> {
        self.inner.shared.found_at.subscribe()
    }

    /// The relays of this node, linked or not: those of [`Builder::relay`], then those of the map that is in force, in its order, and
    /// then those that it names no more and the node has no other for yet. A client's are those that it looks at
    /// ([`Endpoint::netcheck`]). Which of them has the node, [`Endpoint::links`] says.
    pub fn own_relays(&self) -> Vec<RelayUrl> {
        self.inner.shared.own_relays.load().to_vec()
    }

    /// Puts another relay map in the place of the one before, while everything runs. A node that accepts links to the relays that
    /// are new. Those that are gone it leaves once it is linked to another one and its tunnels have moved there, if their clients can
    /// be reached by it; no stream is lost. Relays of [`Builder::relay`], and those that tickets name, stay. A file that is
    /// followed ([`Builder::relay_map_file`]) replaces it when it changes.
    pub async fn set_relay_map(&self, map: RelayMap) {
        // An endpoint that is closed has no relays.
        let _ = self.inner.input.send(Input::RelayMap(map)).await;
    }

    /// The links to relays.
    pub fn links(&self) -> watch::Receiver<Vec<LinkStatus>> {
        self.inner.shared.links.subscribe()
    }

    /// The proxy that applies to TLS links, if any; some relays may be excepted from it.
    pub fn proxy(&self) -> Option<ProxyInUse> {
        self.inner.proxies.in_use()
    }

    /// True if TLS links to this relay go through the proxy, or fail because it cannot be used.
    pub fn is_proxied(&self, relay: &RelayUrl) -> bool {
        self.inner.proxies.before(relay).is_some()
    }

    /// Our own candidates.
    pub fn addresses(&self) -> watch::Receiver<Vec<Candidate>> {
        self.inner.shared.addresses.subscribe()
    }

    /// What is known of the network.
    pub fn nat_report(&self) -> watch::Receiver<Arc<NatReport>> {
        self.inner.shared.report.subscribe()
    }

    /// Names of relays and STUN servers that do not resolve at present. They are tried again for as long as the endpoint
    /// lives.
    pub fn unresolved(&self) -> Vec<String> {
        self.inner.shared.unresolved().iter().cloned().collect()
    }

    /// Runs discovery to its end (at most 3 s) and returns its report. [`Endpoint::netcheck`] finds out more.
    pub async fn discover(&self) -> Arc<NatReport> {
        let inner = &self.inner;
        // Servers whose names are not resolved yet could not be asked.
        let mut names = inner.names.subscribe();
        let _ = tokio::time::timeout(NAMES, names.wait_for(|unresolved| *unresolved == 0)).await;
        let (reply, settled) = oneshot::channel();
        if inner.input.send(Input::Discover(reply)).await.is_ok()
            && let Ok(Ok(report)) = tokio::time::timeout(DISCOVERY, settled).await
        {
            return report;
        }
        // It did not settle: what is known by now is the answer.
        Arc::clone(&inner.shared.report.borrow())
    }

    /// Closes all tunnels and links and waits until peers and relays were told (at most 3 s).
    pub async fn close(&self) {
        let inner = &self.inner;
        // Tunnels before links: the word of a tunnel's end may have to go over a link.
        let tunnels = inner.shared.tunnels();
        for live in &tunnels {
            let code = close_code(CloseCode::Shutdown);
            live.connection.close(code, b"shutting down");
        }
        // Long enough for the word to be repeated once if it is lost.
        let word = tunnels.iter().map(|live| 3 * live.connection.rtt()).max();
        if let Some(word) = word {
            tokio::time::sleep(word.clamp(LEAST_WORD, CLOSE)).await;
        }
        inner.stop.send_replace(true);
        // The relays then, so that they forget the channels and tell the other side, should the word have been lost.
        let (done, left) = oneshot::channel();
        let leaving = async {
            if inner.input.send(Input::Leave(done)).await.is_ok() {
                // An error: another call was faster.
                let _ = left.await;
            }
        };
        let _ = tokio::time::timeout(CLOSE, leaving).await;
        inner
            .quinn
            .close(close_code(CloseCode::Shutdown), b"shutting down");
        // A silent peer must not hold up the end.
        let _ = tokio::time::timeout(CLOSE, inner.quinn.wait_idle()).await;
        let mapper = match inner.port_mapper.lock() {
            Ok(mut mapper) => mapper.take(),
            Err(_) => None,
        };
        if let Some(mapper) = mapper {
            // It says goodbye to the gateway; another call to close has it already.
            let _ = tokio::time::timeout(CLOSE, mapper).await;
        }
        for task in &inner.tasks {
            task.abort();
        }
    }

    /// Counts of what was dropped and refused since the start, by name; for diagnosis. Datagrams that the socket threw away, and
    /// what the node made nothing of: forged and repeated probes and signals, addresses that a peer may not name, openers
    /// without permission. Four that are no drops stand beside them: `quarantines`, `sprays`, `spray_pings` and `peer_evicted`, what
    /// the node gave up, and what it sent to where perhaps nobody is. The log says the same with the meaning of each, at level `info`, when there is news.
    pub fn drops(&self) -> Vec<(&'static str, u64)> {
        let inner = &self.inner;
        let drops = drops::all(&inner.socket.counters, &inner.shared.counters());
        drops
            .into_iter()
            .map(|(name, _, count)| (name, count))
            .collect()
    }
}
