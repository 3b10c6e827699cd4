//! Settings of an endpoint, and its start.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use byway_congestion::Congestion;
use byway_core::io::{Admission, Config, LinkMode};
use byway_core::node::{Identity, Node};
use byway_wire::relay::control::Role;
use byway_wire::{RelayUrl, SecretKey};
use tokio::sync::{Notify, mpsc, watch};
use zeroize::Zeroizing;

use super::names::Names;
use super::quic::{self, Quic};
use super::{BindError, Endpoint, accept, epoch};
use crate::driver::{Driver, INPUT_QUEUE, Inputs, Shared};
use crate::links::Links;
use crate::portmap::{self, Finder, PortMapper};
use crate::proxy::{Proxies, Proxy};
use crate::relay_map::RelayMap;
use crate::relay_map::follow::Follower;
use crate::relay_token::RelayToken;
use crate::socket::Socket;
use crate::tls;

/// What a person types and is done with at once should not trouble the gateway.
const CLIENT_MAPS_AFTER: Duration = Duration::from_secs(2);
/// The largest UDP payload: with 8 bytes of relay header and 48 of IPv6 and UDP it makes 1,500. It is also the largest that
/// the path tests prove; more would be searched for in vain.
const MAX_DATAGRAM: u16 = 1444;
/// From QUIC's smallest.
const DATAGRAM_RANGE: std::ops::RangeInclusive<u16> = 1200..=MAX_DATAGRAM;

/// Settings of an endpoint; every one has a default that works.
#[derive(Debug)]
#[must_use = "an endpoint starts with `bind`"]
pub struct Builder {
    key: Option<SecretKey>,
    relays: Vec<RelayUrl>,
    stun_servers: Vec<String>,
    admission: Option<Admission>,
    links: LinkMode,
    proxy: Proxy,
    direct: bool,
    spray: bool,
    congestion: Congestion,
    port_mapping: bool,
    port_mapping_lifetime: Duration,
    bind: Vec<SocketAddr>,
    max_datagram: u16,
    epoch_file: Option<PathBuf>,
    relay_token: Option<RelayToken>,
    relay_map: MapSource,
}

/// Where the relay map comes from.
#[derive(Debug, Default)]
enum MapSource {
    #[default]
    None,
    Given(RelayMap),
    File(PathBuf),
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            key: None,
            relays: Vec::new(),
            stun_servers: Vec::new(),
            admission: None,
            links: LinkMode::default(),
            proxy: Proxy::default(),
            direct: true,
            spray: true,
            congestion: Congestion::default(),
            port_mapping: true,
            port_mapping_lifetime: portmap::LIFETIME,
            bind: Vec::new(),
            max_datagram: MAX_DATAGRAM,
            epoch_file: None,
            relay_token: None,
            relay_map: MapSource::None,
        }
    }
}

impl Builder {
    /// The node's key; a fresh one otherwise.
    pub fn secret_key(mut self, key: SecretKey) -> Self {
        self.key = Some(key);
        self
    }
    /// A relay to keep a link to. Give an agent at least one, or a relay map.
    pub fn relay(mut self, url: RelayUrl) -> Self {
        if !self.relays.contains(&url) {
            self.relays.push(url);
        }
        self
    }
    /// The relays of this map, as if each had been given by [`Builder::relay`], until [`Endpoint::set_relay_map`] gives another. Of
    /// more than eight (with those given by `relay`) a node that accepts keeps links to eight, for its tickets name no more; no
    /// region has two among them while another has none. Takes the place of what was given by this or the next before.
    pub fn relay_map(mut self, map: RelayMap) -> Self {
        self.relay_map = MapSource::Given(map);
        self
    }
    /// The relays of the map in this file, which is followed: another map in it takes the place of the one before within a few seconds
    /// (within a minute where the system does not tell that it changed, as on a disk of another machine), as
    /// [`Endpoint::set_relay_map`] does it. What is no map, or names no relay, is logged and changes nothing. `bind` reads it
    /// first, and fails if it is of no use then.
    pub fn relay_map_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.relay_map = MapSource::File(path.into());
        self
    }
    /// Another STUN server, `host:port`; relays are asked anyway.
    pub fn stun_server(mut self, host_port: impl Into<String>) -> Self {
        self.stun_servers.push(host_port.into());
        self
    }
    /// Accept tunnels from those whom `admission` admits.
    pub fn accept(mut self, admission: Admission) -> Self {
        self.admission = Some(admission);
        self
    }
    /// Which carriers links may use; [`LinkMode::Auto`] otherwise.
    pub fn links(mut self, mode: LinkMode) -> Self {
        self.links = mode;
        self
    }
    /// Whether TLS links go through a proxy; [`Proxy::Environment`] otherwise. A proxy that fails is reported as the link's
    /// error and not gone round. UDP links and direct paths take no proxy: where none must be passed by, ask for
    /// [`LinkMode::Tls`] and no direct paths.
    pub fn proxy(mut self, proxy: Proxy) -> Self {
        self.proxy = proxy;
        self
    }
    /// False: never leave the relay; true otherwise.
    pub fn direct(mut self, direct: bool) -> Self {
        self.direct = direct;
        self
    }
    /// Whether a NAT that gives every destination another port at random may be crossed by trying many of them (design
    /// section 6); true otherwise. One side sends up to 2,048 datagrams of 120 bytes within some two seconds, the other opens
    /// up to 256 sockets for five, at most once in five minutes for each peer. Where it is off at either end, such pairs stay
    /// on the relay.
    pub fn spray(mut self, spray: bool) -> Self {
        self.spray = spray;
        self
    }
    /// What decides how much this side has under way at once; [`Congestion::Cubic`] otherwise.
    pub fn congestion(mut self, congestion: Congestion) -> Self {
        self.congestion = congestion;
        self
    }
    /// Bind here rather than to any address and port; may be called once for IPv4 and once for IPv6. If it is called,
    /// only what it names is bound.
    pub fn bind_addr(mut self, addr: SocketAddr) -> Self {
        self.bind.push(addr);
        self
    }
    /// Whether to ask the gateway for a port (PCP, NAT-PMP, UPnP); by default it is asked, by an agent at once and by a
    /// client after two seconds. Never without direct paths, or where a given address is bound.
    pub fn port_mapping(mut self, ask: bool) -> Self {
        self.port_mapping = ask;
        self
    }
    /// For how long the gateway's port is asked at a time, from 10 s to a day; an hour otherwise. It is renewed when half of that
    /// is over, and given back at the end: this is how long a process that was killed leaves it behind. A gateway may give less.
    pub fn port_mapping_lifetime(mut self, lifetime: Duration) -> Self {
        self.port_mapping_lifetime = lifetime;
        self
    }
    /// Largest UDP payload QUIC may search for, in bytes, 1,200-1,444; 1,444 otherwise.
    pub fn max_datagram(mut self, bytes: u16) -> Self {
        self.max_datagram = bytes;
        self
    }
    /// Where the token comes from by which relays admit this node, where they ask for one; none otherwise. `bind` gets the first, and
    /// fails if there is none.
    pub fn relay_token(mut self, token: RelayToken) -> Self {
        self.relay_token = Some(token);
        self
    }
    /// A file that keeps the node's epoch between starts (design section 4); the wall clock alone otherwise, or where a
    /// client cannot write it.
    pub fn epoch_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.epoch_file = Some(path.into());
        self
    }

    /// Binds sockets and starts the node. Call it within a tokio runtime; the node's tasks run there.
    pub async fn bind(self) -> Result<Endpoint, BindError> {
        self.check()?;
        let first_token = match &self.relay_token {
            Some(source) => {
                let token = source.fetch().await;
                Some(token.map_err(|error| BindError::Setting(error.to_string()))?)
            }
            None => None,
        };
        let mut follower = None;
        let map = match self.relay_map {
            MapSource::None => None,
            MapSource::Given(map) => Some(map),
            MapSource::File(path) => {
                let started = follower.insert(Follower::start(path).await?);
                Some(started.map().clone())
            }
        };
        let seed = random()?;
        warm_up();
        let key = Arc::new(match self.key {
            Some(key) => key,
            None => {
                let bytes = random()?;
                SecretKey::from_bytes(&bytes)
            }
        });
        let epoch = match epoch::next(self.epoch_file.as_deref()) {
            Ok(epoch) => epoch,
            // A client's tunnels are short, and a clock that was set back is rare.
            Err(error) if self.admission.is_none() => {
                tracing::warn!(%error, "the epoch cannot be kept; the clock stands in for it");
                epoch::clock()
            }
            Err(error) => {
                let file = self.epoch_file.clone().unwrap_or_default();
                let text = format!("epoch file {}: {error}", file.display());
                return Err(BindError::Setting(text));
            }
        };

        let (socket, datagrams) = bind_sockets(&self.bind, self.max_datagram)?;
        let quic = Arc::new(
            Quic::new(&key, self.max_datagram, self.congestion).map_err(BindError::Setting)?,
        );
        let endpoint_config =
            quic::endpoint_config(&key, self.max_datagram).map_err(BindError::Setting)?;
        let server = self.admission.as_ref().map(|_| quic.endpoint_server());
        let quinn = quinn::Endpoint::new_with_abstract_socket(
            endpoint_config,
            server,
            Arc::clone(&socket) as _,
            Arc::new(quinn::TokioRuntime),
        )
        .map_err(|error| BindError::Setting(error.to_string()))?;

        let role = if self.admission.is_some() {
            Role::Agent
        } else {
            Role::Client
        };
        let config = Config {
            role,
            links: self.links,
            direct: self.direct,
            spray: self.spray,
            admission: self.admission.clone().unwrap_or_default(),
        };
        let identity = Identity {
            key: Arc::clone(&key),
            epoch,
        };
        let node = Node::new(Instant::now(), config, identity, *seed);
        let shared = Arc::new(Shared::new(node.record().clone()));
        let (input, inputs) = mpsc::channel(INPUT_QUEUE);
        let proxies = Arc::new(Proxies::from_process(&self.proxy));
        if let Some(proxy) = proxies.in_use()
            && let Err(error) = &proxy.url
        {
            // Not an end: UDP needs no proxy.
            tracing::warn!(
                "the proxy {} cannot be used, and no TLS link without it: {error}",
                proxy.source
            );
        }
        let links = Links {
            socket: Arc::clone(&socket),
            quic: quinn.clone(),
            key: Arc::clone(&key),
            role,
            proxies: Arc::clone(&proxies),
            driver: input.clone(),
        };
        let pending = Arc::new(watch::Sender::new(0));
        let mut driver = Driver::new(node, Arc::clone(&shared), links, Arc::clone(&pending));
        if let (Some(source), Some(first)) = (self.relay_token, first_token) {
            driver.set_token(source, first);
        }
        for url in &self.relays {
            driver.add_relay(url.clone(), literal_addr(url).into_iter().collect());
        }
        if let Some(map) = &map {
            driver.set_relay_map(map);
        }
        // A ticket may be asked for at once.
        driver.show_record();
        driver.show_own_relays();
        // Servers named by their addresses need no resolver, and are there when the first round begins.
        let mut to_resolve = Vec::new();
        for server in self.stun_servers {
            match server.parse() {
                Ok(addr) => driver.add_stun_server(server, addr),
                Err(_) => to_resolve.push(server),
            }
        }

        let mut tasks = vec![tokio::spawn(driver.run(Inputs { inputs, datagrams })).abort_handle()];
        let names = || Names::new(&pending, &shared, &input);
        for url in &self.relays {
            if literal_addr(url).is_none() {
                let resolving = names().relay(url.clone());
                tasks.push(tokio::spawn(resolving).abort_handle());
            }
        }
        for server in to_resolve {
            let resolving = names().stun_server(server);
            tasks.push(tokio::spawn(resolving).abort_handle());
        }
        let watched = Arc::clone(&socket);
        let watch_sockets = async move { watched.watch().await };
        tasks.push(tokio::spawn(watch_sockets).abort_handle());
        let held = Arc::clone(&socket);
        let send_held = async move { held.send_waiting().await };
        tasks.push(tokio::spawn(send_held).abort_handle());
        if let Some(follower) = follower {
            tasks.push(tokio::spawn(follower.run(input.clone())).abort_handle());
        }
        let stop = watch::Sender::new(false);
        let map_now = Arc::new(Notify::new());
        let v4 = socket.bound().find(|(_, addr)| addr.is_ipv4());
        let port_mapper = v4
            .filter(|(_, addr)| self.port_mapping && self.direct && addr.ip().is_unspecified())
            .map(|_| {
                let mapper = PortMapper {
                    socket: Arc::clone(&socket),
                    gateways: Finder::DEFAULT_ROUTE,
                    delay: match role {
                        Role::Agent => Duration::ZERO,
                        Role::Client => CLIENT_MAPS_AFTER,
                    },
                    hurry: Arc::clone(&map_now),
                    lifetime: self.port_mapping_lifetime,
                    driver: input.clone(),
                    network: shared.network.subscribe(),
                    stop: stop.subscribe(),
                };
                tokio::spawn(mapper.run())
            });
        let (accepted, accepting) = mpsc::channel(accept::QUEUE);
        if let Some(admission) = &self.admission {
            let acceptor = accept::Acceptor {
                quinn: quinn.clone(),
                quic: Arc::clone(&quic),
                shared: Arc::clone(&shared),
                admission: Arc::new(admission.clone()),
                accepted,
                driver: input.clone(),
            };
            tasks.push(tokio::spawn(acceptor.run()).abort_handle());
        }
        Ok(Endpoint::assemble(super::Inner {
            node: key.node_id(),
            proxies,
            secret: self
                .admission
                .and_then(|admission| admission.secrets.into_iter().next()),
            socket,
            quinn,
            quic,
            shared,
            input,
            names: pending,
            stop,
            map_now,
            port_mapper: std::sync::Mutex::new(port_mapper),
            accepting: tokio::sync::Mutex::new(accepting),
            tasks,
        }))
    }

    fn check(&self) -> Result<(), BindError> {
        let (least, most) = DATAGRAM_RANGE.into_inner();
        if !DATAGRAM_RANGE.contains(&self.max_datagram) {
            return Err(BindError::Setting(format!(
                "the largest datagram must be from {least} to {most} bytes, not {}",
                self.max_datagram
            )));
        }
        let (shortest, longest) = portmap::LIFETIMES.into_inner();
        if !portmap::LIFETIMES.contains(&self.port_mapping_lifetime) {
            return Err(BindError::Setting(format!(
                "the gateway's port must be asked for {} to {} seconds, not {:?}",
                shortest.as_secs(),
                longest.as_secs(),
                self.port_mapping_lifetime
            )));
        }
        for family in [SocketAddr::is_ipv4, SocketAddr::is_ipv6] {
            if self.bind.iter().filter(|addr| family(addr)).count() > 1 {
                return Err(BindError::Setting(
                    "give at most one IPv4 and one IPv6 address to bind to".to_owned(),
                ));
            }
        }
        Ok(())
    }
}

/// One socket for IPv4 and one for IPv6, unless told otherwise. A host without one of the families has one socket.
fn bind_sockets(
    asked: &[SocketAddr],
    max_datagram: u16,
) -> Result<(Arc<Socket>, mpsc::Receiver<crate::socket::ToDriver>), BindError> {
    let failed = |(addr, source)| BindError::Socket { addr, source };
    if !asked.is_empty() {
        return Socket::bind(asked, max_datagram).map_err(failed);
    }
    let any: [SocketAddr; 2] = [
        (Ipv4Addr::UNSPECIFIED, 0).into(),
        (Ipv6Addr::UNSPECIFIED, 0).into(),
    ];
    Socket::bind(&any, max_datagram)
        .or_else(|_| Socket::bind(&any[..1], max_datagram))
        .or_else(|_| Socket::bind(&any[1..], max_datagram))
        .map_err(failed)
}

/// A relay named by its address needs no resolver.
fn literal_addr(url: &RelayUrl) -> Option<SocketAddr> {
    let ip = url.host().parse::<IpAddr>().ok()?;
    Some(SocketAddr::new(ip.to_canonical(), url.port()))
}

fn random() -> Result<Zeroizing<[u8; 32]>, BindError> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(bytes.as_mut_slice()).map_err(|error| BindError::Random(error.to_string()))?;
    Ok(bytes)
}

/// The first use of the TLS library's generator takes tens of milliseconds, which the first tunnel should not pay.
fn warm_up() {
    let mut bytes = [0; 1];
    let _ = tls::provider().secure_random.fill(&mut bytes);
}
