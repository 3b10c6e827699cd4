//! A node's links to relays, in both carriers: what `links/udp.rs` and `links/tls.rs` are in `byway`.
//!
//! Below one dial a relay's addresses race, by the rules of `resolve.rs`, of `schedule` in `links/udp.rs` and of
//! `race` in `links/tcp.rs`. The race between a relay's ports is left out: a simulated relay has one.

mod race;
mod tls;
mod udp;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use byway_core::io::{Carrier, LinkError, LinkId, LinkUp, ProxyError, ProxyFault};
use byway_wire::relay::control::{Control, Role};
use byway_wire::relay::frame::StreamDecoder;
use byway_wire::{NodeId, RelayUrl};
use quinn_proto::StreamId;

use super::egress::Egress;
use super::heartbeat::Heartbeat;
use super::nat64;
use super::virt::Virtual;
use crate::net::pipe::PipeId;
use crate::net::{HostId, Network};
use crate::quic::crypto::{Client, Credentials};
use crate::quic::{ConnId, QuicHost, link_client_transport};
use race::Race;
pub(crate) use tls::{CLIENT_HELLO, SERVER_HELLO, SWITCHING, UPGRADE, exporter};

/// What a link tells the node.
#[derive(Debug)]
pub(crate) enum Said {
    Dialed(LinkId, Result<LinkUp, LinkError>),
    Control(LinkId, Control),
    Lost(LinkId, LinkError),
}

/// A dial over UDP that took this long failed (`DEADLINE` in `links/udp.rs`).
const UDP_DEADLINE: Duration = Duration::from_secs(5);
/// TCP, TLS, upgrade and challenge together (`DEADLINE` in `links/tls.rs`).
const TLS_DEADLINE: Duration = Duration::from_secs(10);
/// To a proxy and through it (`DEADLINE` in `proxy/connect.rs`).
const PROXY_DEADLINE: Duration = Duration::from_secs(7);
/// What a proxy is called in errors.
const PROXY: &str = "http://proxy.test:3128";

#[derive(Debug)]
enum State {
    Udp(UdpLink),
    Tls(TlsLink),
}

#[derive(Debug)]
struct UdpLink {
    race: Race<ConnId>,
    /// The name the relay is pinned by.
    name: String,
    stream: Option<StreamId>,
    decoder: StreamDecoder,
    unsent: BytesMut,
    /// Hung up: when the connection is closed, and when its last packets have left.
    leaving: Option<Leaving>,
}

#[derive(Clone, Copy, Debug)]
enum Leaving {
    /// Until then the relay may acknowledge what was said.
    Said(Instant),
    /// Closed; until then its last packets find their way.
    Closed(Instant),
}

#[derive(Debug)]
struct TlsLink {
    race: Race<PipeId>,
    stage: Stage,
    /// The round trip that TCP's handshake took; through a proxy, the upgrade (`round_trip` in `links/connect.rs`).
    rtt: Option<Duration>,
    /// When the upgrade was asked for.
    asked: Instant,
    /// When all of the dial must be over.
    deadline: Instant,
    url: RelayUrl,
    egress: Egress,
    heartbeat: Heartbeat,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Connecting,
    Hello,
    Upgrade,
    Challenge,
    Up,
}

#[derive(Debug)]
struct Link {
    state: State,
    /// Until when the dial must have succeeded; none once it has.
    dialing_until: Option<Instant>,
}

/// All dials and links of a node.
pub(crate) struct Links {
    credentials: Arc<Credentials>,
    role: Role,
    /// TLS links go through the network's proxy.
    proxy: bool,
    all: BTreeMap<LinkId, Link>,
    /// The host they are dialled from.
    host: Option<HostId>,
    said: VecDeque<Said>,
}

impl Links {
    pub(crate) fn new(credentials: Arc<Credentials>, role: Role, proxy: bool) -> Self {
        Self {
            credentials,
            role,
            proxy,
            all: BTreeMap::new(),
            host: None,
            said: VecDeque::new(),
        }
    }
    pub(crate) fn poll(&mut self) -> Option<Said> {
        self.said.pop_front()
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the fields of one event, and the two things it acts on"
    )]
    pub(crate) fn dial(
        &mut self,
        net: &mut Network,
        quic: &mut QuicHost,
        host: HostId,
        link: LinkId,
        url: &RelayUrl,
        addrs: &[SocketAddr],
        carrier: Carrier,
    ) {
        let now = net.instant();
        let addrs = race::resolve(url, addrs);
        if addrs.is_empty() {
            let error = LinkError::Resolve(url.host().to_owned());
            return self.said.push_back(Said::Dialed(link, Err(error)));
        }
        let pinned = url.pin().and_then(|pin| NodeId::from_bytes(&pin.0).ok());
        let Some(pinned) = pinned else {
            let error = LinkError::Certificate("no pin".to_owned());
            return self.said.push_back(Said::Dialed(link, Err(error)));
        };
        let (state, deadline) = match carrier {
            Carrier::Udp => {
                let state = State::Udp(UdpLink {
                    race: Race::new(race::udp(now, &addrs)),
                    name: pinned.server_name(),
                    stream: None,
                    decoder: StreamDecoder::default(),
                    unsent: BytesMut::new(),
                    leaving: None,
                });
                (state, UDP_DEADLINE)
            }
            Carrier::Tls => {
                let planned = if self.proxy {
                    race::by_proxy(now, &addrs)
                } else {
                    race::tcp(now, addrs)
                };
                let state = State::Tls(TlsLink {
                    race: Race::new(planned),
                    stage: Stage::Connecting,
                    rtt: None,
                    asked: now,
                    deadline: now + TLS_DEADLINE,
                    url: url.clone(),
                    egress: Egress::default(),
                    heartbeat: Heartbeat::new(now),
                });
                let first = if self.proxy {
                    PROXY_DEADLINE
                } else {
                    TLS_DEADLINE
                };
                (state, first)
            }
        };
        let entry = Link {
            state,
            dialing_until: Some(now + deadline),
        };
        self.all.insert(link, entry);
        self.host = Some(host);
        self.try_due(net, quic, link);
    }

    /// Makes the attempts whose time has come.
    fn try_due(&mut self, net: &mut Network, quic: &mut QuicHost, id: LinkId) {
        let (Some(host), Some(link)) = (self.host, self.all.get_mut(&id)) else {
            return;
        };
        let mut families: Vec<bool> = net.addrs(host).iter().map(IpAddr::is_ipv4).collect();
        if net.nat64(host).is_some() {
            families.push(true);
        }
        let now = net.instant();
        let hopeless = match &mut link.state {
            State::Udp(udp) => {
                while let Some((number, addr)) = udp.race.due(now) {
                    let crypto = Client {
                        credentials: self.credentials.clone(),
                        alpn: b"byway-relay/1",
                    };
                    let crypto = Arc::new(crypto);
                    let transport = Arc::new(link_client_transport());
                    let to = Virtual::Link(id, number).to_addr();
                    let conn = families
                        .contains(&addr.is_ipv4())
                        .then(|| quic.connect(now, crypto, transport, to, &udp.name));
                    match conn.flatten() {
                        Some(conn) => udp.race.began(now, (number, addr), conn),
                        None => udp.race.hurry(now),
                    }
                }
                udp.race.is_lost()
            }
            State::Tls(tls) => {
                while let Some((number, addr)) = tls.race.due(now) {
                    if self.proxy {
                        let pipe = net.pipe_connect_by_proxy(host, addr);
                        tls.race.began(now, (number, addr), pipe);
                    } else if families.contains(&addr.is_ipv4()) {
                        let pipe = net.pipe_connect(host, nat64::outside(net, host, addr));
                        tls.race.began(now, (number, addr), pipe);
                    } else {
                        tls.race.hurry(now);
                    }
                }
                tls.race.is_lost()
            }
        };
        if hopeless {
            let error = "this machine has no address of the relay's family";
            self.ended(id, LinkError::Broken(error.to_owned()));
        }
    }

    /// Ends a dial at once; a link after what was said has been sent.
    pub(crate) fn hang_up(&mut self, net: &mut Network, quic: &mut QuicHost, id: LinkId) {
        let Some(link) = self.all.get_mut(&id) else {
            return;
        };
        match &mut link.state {
            State::Udp(udp) if link.dialing_until.is_none() => udp.leave(net.instant(), quic),
            State::Udp(udp) => {
                udp.close(net.instant(), quic);
                self.all.remove(&id);
            }
            State::Tls(tls) => {
                tls.close(net);
                self.all.remove(&id);
            }
        }
    }

    pub(crate) fn send(
        &mut self,
        net: &mut Network,
        quic: &mut QuicHost,
        link: LinkId,
        message: &Control,
    ) {
        match self.all.get_mut(&link).map(|l| &mut l.state) {
            Some(State::Udp(udp)) => udp.send(quic, message),
            Some(State::Tls(tls)) => tls.send(net, message),
            None => {}
        }
    }

    /// Fires the timers that are due; how many of them there were.
    pub(crate) fn handle_timeout(&mut self, net: &mut Network, quic: &mut QuicHost) -> usize {
        let now = net.instant();
        let all = self.all.iter();
        let due: Vec<LinkId> = all
            .filter(|(_, link)| link.poll_timeout().is_some_and(|at| at <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in &due {
            let Some(link) = self.all.get_mut(id) else {
                continue;
            };
            if link.dialing_until.is_some_and(|at| at <= now) {
                let mut error = LinkError::TimedOut;
                match &mut link.state {
                    State::Udp(udp) => udp.close(now, quic),
                    State::Tls(tls) => {
                        if self.proxy && tls.stage == Stage::Connecting {
                            error = proxys(ProxyFault::TimedOut(PROXY_DEADLINE.as_secs()));
                        }
                        tls.close(net);
                    }
                }
                self.ended(*id, error);
                continue;
            }
            if link.dialing_until.is_some() {
                self.try_due(net, quic, *id);
            }
            let Some(link) = self.all.get_mut(id) else {
                continue;
            };
            let over = match &mut link.state {
                State::Udp(udp) => udp.handle_timeout(now, quic),
                State::Tls(tls) => tls.handle_timeout(net),
            };
            match over {
                None => {}
                Some(Over::Left) => drop(self.all.remove(id)),
                Some(Over::Lost(error)) => self.ended(*id, error),
            }
        }
        due.len()
    }
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.all.values().filter_map(Link::poll_timeout).min()
    }

    fn ended(&mut self, id: LinkId, error: LinkError) {
        let Some(link) = self.all.remove(&id) else {
            return;
        };
        if link.dialing_until.is_some() {
            self.said.push_back(Said::Dialed(id, Err(error)));
        } else if !link.is_leaving() {
            self.said.push_back(Said::Lost(id, error));
        }
    }
}

/// A proxy did not let a link through.
fn proxys(fault: ProxyFault) -> LinkError {
    let proxy = PROXY.to_owned();
    ProxyError { proxy, fault }.into()
}

/// A link is over.
enum Over {
    /// The node hung up.
    Left,
    /// It broke.
    Lost(LinkError),
}

impl Link {
    /// The node hung up, and has forgotten it.
    fn is_leaving(&self) -> bool {
        matches!(&self.state, State::Udp(udp) if udp.leaving.is_some())
    }
    fn poll_timeout(&self) -> Option<Instant> {
        let own = match &self.state {
            State::Udp(udp) => udp.poll_timeout(),
            State::Tls(tls) => tls.poll_timeout(),
        };
        let next = match &self.state {
            State::Udp(udp) => udp.race.next(),
            State::Tls(tls) => tls.race.next(),
        };
        [self.dialing_until, own, next].into_iter().flatten().min()
    }
}
