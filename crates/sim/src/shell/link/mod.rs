//! A node's links to relays, in both carriers: what `links/udp.rs` and `links/tls.rs` are in `byway`.
//!
//! The races between a relay's addresses and ports, which happen there below one dial, are left out: a simulated relay has
//! one address.

mod tls;
mod udp;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use byway_core::io::{Carrier, LinkError, LinkId, LinkUp};
use byway_wire::relay::control::{Control, Role};
use byway_wire::relay::frame::StreamDecoder;
use byway_wire::{NodeId, RelayUrl};
use quinn_proto::StreamId;

use super::egress::Egress;
use super::heartbeat::Heartbeat;
use super::virt::Virtual;
use crate::net::pipe::{PipeId, Side};
use crate::net::{HostId, Network};
use crate::quic::crypto::{Client, Credentials};
use crate::quic::{ConnId, QuicHost, link_client_transport};
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

#[derive(Debug)]
enum State {
    Udp(UdpLink),
    Tls(TlsLink),
}

#[derive(Debug)]
struct UdpLink {
    conn: ConnId,
    relay: SocketAddr,
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
    pipe: PipeId,
    stage: Stage,
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
    began: Instant,
}

/// All dials and links of a node.
pub(crate) struct Links {
    credentials: Arc<Credentials>,
    role: Role,
    all: BTreeMap<LinkId, Link>,
    said: VecDeque<Said>,
}

impl Links {
    pub(crate) fn new(credentials: Arc<Credentials>, role: Role) -> Self {
        Self {
            credentials,
            role,
            all: BTreeMap::new(),
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
        let addr = match url.host().parse::<IpAddr>() {
            Ok(ip) => Some(SocketAddr::new(ip, url.port())),
            Err(_) => addrs.first().copied(),
        };
        let Some(relay) = addr else {
            let error = LinkError::Resolve(url.host().to_owned());
            return self.said.push_back(Said::Dialed(link, Err(error)));
        };
        let pinned = url.pin().and_then(|pin| NodeId::from_bytes(&pin.0).ok());
        let Some(pinned) = pinned else {
            let error = LinkError::Certificate("no pin".to_owned());
            return self.said.push_back(Said::Dialed(link, Err(error)));
        };
        let (state, deadline) = match carrier {
            Carrier::Udp => {
                let crypto = Client {
                    credentials: self.credentials.clone(),
                    alpn: b"byway-relay/1",
                };
                let conn = quic.connect(
                    now,
                    Arc::new(crypto),
                    Arc::new(link_client_transport()),
                    Virtual::Link(link).to_addr(),
                    &pinned.server_name(),
                );
                let Some(conn) = conn else {
                    let error = LinkError::Broken("cannot connect".to_owned());
                    return self.said.push_back(Said::Dialed(link, Err(error)));
                };
                let state = State::Udp(UdpLink {
                    conn,
                    relay,
                    stream: None,
                    decoder: StreamDecoder::default(),
                    unsent: BytesMut::new(),
                    leaving: None,
                });
                (state, UDP_DEADLINE)
            }
            Carrier::Tls => {
                let state = State::Tls(TlsLink {
                    pipe: net.pipe_connect(host, relay),
                    stage: Stage::Connecting,
                    url: url.clone(),
                    egress: Egress::default(),
                    heartbeat: Heartbeat::new(now),
                });
                (state, TLS_DEADLINE)
            }
        };
        let entry = Link {
            state,
            dialing_until: Some(now + deadline),
            began: now,
        };
        self.all.insert(link, entry);
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
                net.pipe_close(tls.pipe, Side::Dialler);
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
                match &mut link.state {
                    State::Udp(udp) => udp.close(now, quic),
                    State::Tls(tls) => net.pipe_close(tls.pipe, Side::Dialler),
                }
                self.ended(*id, LinkError::TimedOut);
                continue;
            }
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
        [self.dialing_until, own].into_iter().flatten().min()
    }
}
