//! What passes between the node's state machine and its shell.

mod proxy;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use byway_wire::relay::control::{CloseReason, Control, RefuseReason, Role};
use byway_wire::text::printable;
use byway_wire::{ChannelId, NodeId, NodeInstance, RelayUrl, TicketSecret};

pub use proxy::{ProxyError, ProxyFault};

/// One UDP socket of the node, numbered by the shell.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SocketId(pub u16);

/// A relay the node knows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RelayId(pub u32);

/// One attempt to reach a relay over one carrier and, if it succeeds, the link. Numbered by the node, never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinkId(pub u64);

/// One peer instance (or, on a client that has not heard of it yet, the node it dials). Numbered by the node, never
/// reused; the shell derives the peer's virtual address from it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PeerId(pub u32);

/// What carries a link.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Carrier {
    /// QUIC control, plain relay data beside it.
    Udp,
    /// WebSocket over TLS.
    Tls,
}

/// Which carriers a node may use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LinkMode {
    /// UDP, and TLS where UDP does not work.
    #[default]
    Auto,
    /// UDP only.
    Udp,
    /// TLS only.
    Tls,
}

/// One way for datagrams to reach a peer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Way {
    /// From a local socket straight to an address.
    Direct {
        /// The local socket.
        socket: SocketId,
        /// The peer's address, canonical.
        remote: SocketAddr,
    },
    /// Through a channel on a link.
    Channel {
        /// The link.
        link: LinkId,
        /// Its carrier.
        carrier: Carrier,
        /// The channel.
        channel: ChannelId,
    },
}

/// What kind of path a way is, best first (the tier of design section 6).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PathKind {
    /// Straight between the nodes.
    Direct,
    /// Through a relay's UDP link.
    RelayUdp,
    /// Through a relay's TLS link.
    RelayTls,
}

impl Way {
    /// The way's kind.
    pub fn kind(&self) -> PathKind {
        match self {
            Way::Direct { .. } => PathKind::Direct,
            Way::Channel {
                carrier: Carrier::Udp,
                ..
            } => PathKind::RelayUdp,
            Way::Channel {
                carrier: Carrier::Tls,
                ..
            } => PathKind::RelayTls,
        }
    }
}

/// A datagram the shell must send (STUN, probes). Data never comes this way.
#[derive(Clone, Debug)]
pub struct Transmit {
    /// Where to. Over a channel the shell adds the relay-data header.
    pub way: Way,
    /// The datagram.
    pub data: Bytes,
}

/// Where a peer's data goes: the shell keeps the latest as a lock-free snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {
    /// Rises with each change of `primary`; congestion control starts a path's own state on it.
    pub epoch: u32,
    /// Where data goes. None: hold the first datagrams and hand them to [`crate::node::Node::send_first`].
    pub primary: Option<Way>,
    /// The validated path that takes over; the relay channel while direct.
    pub standby: Option<Way>,
    /// Send every datagram on the standby too (suspicion; the node bounds how long).
    pub duplicate: bool,
    /// The smallest datagram size proven on primary and standby, in bytes; larger MTU probes are not to be sent.
    pub max_datagram: u16,
    /// The datagram size proven on the primary, in bytes; what is larger is sent in two parts.
    pub primary_max: u16,
    /// The same for the standby.
    pub standby_max: u16,
    /// Whether the peer is heard.
    pub health: Health,
}

/// Whether a peer is heard; for people, for it changes nothing about where data goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Health {
    /// Nothing speaks against the path.
    Good,
    /// An answer is overdue.
    Degraded,
    /// Nothing was heard by any path for five seconds, or there is none. The tunnel waits, and goes on when the peer is
    /// heard again.
    Lost,
}

/// Why a route changed; for people and for counters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum RouteReason {
    /// The first path of the tunnel.
    First,
    /// A better path was validated.
    Better,
    /// The primary stopped answering.
    Failover,
    /// The primary is suspected: datagrams are duplicated.
    Suspected,
    /// The host's network changed, or the host slept: the primary is asked again, and datagrams are duplicated meanwhile.
    NetworkChanged,
    /// The primary answered again.
    Cleared,
    /// The link under the path went away.
    LinkLost,
    /// Nothing was heard by any path for long.
    Silent,
    /// Only standby or size changed.
    Standby,
    /// No path is left; the tunnel waits.
    NoPath,
}

impl RouteReason {
    /// The name that scripts know.
    pub fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Better => "better",
            Self::Failover => "failover",
            Self::Suspected => "suspected",
            Self::NetworkChanged => "network_changed",
            Self::Cleared => "cleared",
            Self::LinkLost => "link_lost",
            Self::Silent => "silent",
            Self::Standby => "standby",
            Self::NoPath => "no_path",
        }
    }
}

/// For people.
impl std::fmt::Display for RouteReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::First => "the first path there was",
            Self::Better => "a better path was proven",
            Self::Failover => "the path before stopped answering",
            Self::Suspected => "an answer is overdue",
            Self::NetworkChanged => "this host's network changed",
            Self::Cleared => "the path answered again",
            Self::LinkLost => "the link under the path before ended",
            Self::Silent => "nothing is heard by any path",
            Self::Standby => "another path stands by",
            Self::NoPath => "there is no path",
        })
    }
}

/// What congestion control saw of a tunnel, read by the shell at every wake-up while the tunnel is active.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FlowSample {
    /// Ack-eliciting bytes in flight.
    pub in_flight: u64,
    /// When the oldest send that no later acknowledgement has answered happened; none when nothing waits.
    pub waiting_since: Option<Instant>,
    /// When an acknowledgement of such bytes last arrived.
    pub last_ack: Option<Instant>,
    /// Since when nothing of what is in flight was answered, by whatever path it left; none when nothing is in flight. The first send
    /// on a path is given its time, and so begins it anew. Of several connections, that of the one which has waited for the longest.
    pub quiet_since: Option<Instant>,
    /// Smoothed round-trip time; zero when unknown.
    pub srtt: Duration,
    /// Round-trip time variation.
    pub rttvar: Duration,
    /// Bytes sent, acknowledged and lost since the tunnel began.
    pub sent: u64,
    /// Acknowledged bytes.
    pub acked: u64,
    /// Lost bytes.
    pub lost: u64,
    /// QUIC's estimate of the round trip holds a sleep of one of the machines: its timers wait for minutes or hours.
    pub slept: bool,
}

/// A local socket and the addresses at which it can be reached on its host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LocalSocket {
    /// Which.
    pub id: SocketId,
    /// The port it is bound to.
    pub port: u16,
    /// True if it can send to IPv4 destinations.
    pub v4: bool,
    /// True if it can send to IPv6 destinations.
    pub v6: bool,
    /// Addresses of the host's interfaces that reach it.
    pub addrs: Vec<IpAddr>,
}

/// A link came up: the shell authenticated both ends, control messages may flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinkUp {
    /// Round trip measured while connecting, if known.
    pub rtt: Option<Duration>,
    /// For a UDP carrier: the socket and the relay's address, by which its datagrams are known.
    pub udp: Option<(SocketId, SocketAddr)>,
}

/// Why a dial failed or a link ended.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The relay's name has no address.
    #[error("the relay's name does not resolve: {}", printable(.0))]
    Resolve(String),
    /// Nobody answers there.
    #[error("no answer from the relay")]
    TimedOut,
    /// The transport broke.
    #[error("the connection to the relay broke: {}", printable(.0))]
    Broken(String),
    /// The relay's certificate is not the pinned one, or not valid for its name.
    #[error("the relay's certificate is not the expected one: {}", printable(.0))]
    Certificate(String),
    /// The relay refused this node.
    #[error("the relay refuses: {} ({})", .0, printable(.1))]
    Refused(RefuseReason, String),
    /// The relay did not keep to the protocol.
    #[error("the relay does not keep to the protocol: {}", printable(.0))]
    Protocol(String),
    /// A proxy before the relay did not let the link through (TLS links only).
    #[error(transparent)]
    Proxy(Box<ProxyError>),
    /// The local side hung up.
    #[error("hung up")]
    HungUp,
}

impl LinkError {
    /// True for what stands in the way of one carrier alone: a proxy, who shows another certificate, and who ends TLS before a
    /// relay that does not take that.
    pub fn is_in_the_way(&self) -> bool {
        matches!(
            self,
            Self::Proxy(_) | Self::Certificate(_) | Self::Refused(RefuseReason::Identity, _)
        )
    }

    /// False if a person is told more by what was said over the other carrier: silence tells nothing beside what only a person
    /// can mend, nor does anything about UDP beside what a proxy said, which carries none.
    pub(crate) fn is_news_beside(&self, other: &Self) -> bool {
        match other {
            Self::Proxy(_) => false,
            _ => *self != Self::TimedOut || !crate::link::is_lasting(other),
        }
    }
}

impl From<ProxyError> for LinkError {
    fn from(error: ProxyError) -> Self {
        Self::Proxy(Box::new(error))
    }
}

/// Why a peer could not be reached, or is no longer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// No relay of the ticket could be reached; the last error of each.
    #[error("no relay could be reached")]
    NoRelay(Vec<(RelayUrl, LinkError)>),
    /// A relay was reached, and the peer is not connected to it.
    #[error("the peer is not connected to any of its relays")]
    Offline,
    /// The peer, or a relay, refuses us.
    #[error("not allowed: {0:?}")]
    NotAllowed(CloseReason),
    /// The peer is there but did not answer in time.
    #[error("the peer did not answer")]
    TimedOut,
    /// Another process answers under the peer's key: the one this tunnel led to is gone.
    #[error("the peer restarted")]
    Restarted,
}

/// What the shell must carry out or pass on.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// Connect a carrier; answer with `Node::handle_dialed`.
    Dial {
        /// To be used in the answer.
        link: LinkId,
        /// The relay.
        relay: RelayId,
        /// Its URL; the shell resolves it.
        url: RelayUrl,
        /// Addresses known from a ticket, to be tried when the name does not resolve (or is slow to).
        addrs: Vec<SocketAddr>,
        /// How.
        carrier: Carrier,
    },
    /// End a dial or a link; no answer needed.
    HangUp {
        /// Which.
        link: LinkId,
    },
    /// Send a control message on a link.
    Control {
        /// Which.
        link: LinkId,
        /// What.
        message: Control,
    },
    /// A link was admitted by its relay (`Welcome`).
    LinkReady {
        /// Which.
        link: LinkId,
        /// Its relay.
        relay: RelayId,
        /// Its carrier.
        carrier: Carrier,
        /// Where the relay sees us.
        observed: SocketAddr,
        /// The relay says that TLS is ended between us and it.
        intercepted: bool,
    },
    /// A ready link ended; the node dials again by itself.
    LinkLost {
        /// Which.
        link: LinkId,
        /// Its relay.
        relay: RelayId,
        /// Why; or what was said over the other carrier, if a person is told more by that.
        error: LinkError,
    },
    /// A dial failed, or a link ended before it was ready, while no other one serves the relay; the node dials again by itself.
    LinkFailed {
        /// The relay.
        relay: RelayId,
        /// Why it has no link: of what the carriers ended with, what tells a person most.
        error: LinkError,
    },
    /// A peer instance opened a channel to us and was authorised: make a virtual address for it.
    PeerIncoming {
        /// The node's name for it.
        peer: PeerId,
        /// Who it says it is; the tunnel's TLS proves it.
        id: NodeInstance,
    },
    /// The instance of a dialled peer became known.
    PeerKnown {
        /// Which.
        peer: PeerId,
        /// Who.
        id: NodeInstance,
    },
    /// A dialled peer cannot be reached (before its first route), or an established one was given up.
    PeerFailed {
        /// Which.
        peer: PeerId,
        /// Why.
        error: PeerError,
    },
    /// The peer's datagrams may come in by this way: an authenticated probe came by it, or a channel to the peer was
    /// opened on it (say so as soon as `Open` is sent or `Incoming` admitted). The shell maps the source to the peer;
    /// QUIC from sources it does not know is dropped. Primary and standby of a [`Event::Route`] are known without it.
    WayKnown {
        /// Whose.
        peer: PeerId,
        /// Which.
        way: Way,
    },
    /// The way is no longer the peer's. Ways of a peer that was closed or failed are forgotten without it.
    WayForgotten {
        /// Whose.
        peer: PeerId,
        /// Which.
        way: Way,
    },
    /// Where the peer's data goes from now on.
    Route {
        /// Which.
        peer: PeerId,
        /// The new route.
        route: Route,
        /// Why.
        reason: RouteReason,
    },
    /// A datagram for the tunnel that came by a control message (the first flight).
    Deliver {
        /// From whom.
        peer: PeerId,
        /// The datagram.
        data: Bytes,
    },
    /// Send the last datagrams again, on the primary and on the standby, then make the tunnel say something
    /// (suspicion, a switch, waking up).
    Replay {
        /// Of which peer.
        peer: PeerId,
    },
    /// Make each tunnel of this peer's say something that must be answered: its own timers wait for too long.
    Nudge {
        /// Which.
        peer: PeerId,
    },
    /// Call `Node::handle_flow` at the next activity of this peer: its evidence timer sleeps while nothing is sent.
    WatchFlow {
        /// Which.
        peer: PeerId,
    },
    /// The network report changed.
    Report(std::sync::Arc<crate::discovery::NatReport>),
    /// Our candidates changed.
    Candidates(Vec<byway_wire::signal::Candidate>),
    /// Open so many more UDP sockets for IPv4, on ports of the system's choice, for crossing a hard NAT with this peer.
    /// Answer with [`crate::node::Node::handle_opened_sockets`], with fewer if the host has no more to give. What comes in on
    /// them is handled as on any socket. One that the system ends is told of by [`crate::node::Node::handle_socket_ended`].
    OpenSockets {
        /// Of which peer.
        peer: PeerId,
        /// How many.
        count: u16,
    },
    /// Close sockets that were opened so. A number is not to be used for another socket soon: datagrams that it names may
    /// still be queued.
    CloseSockets(Vec<SocketId>),
    /// The relay map names this relay no more, and the node has left it, or never used it; or a peer had named it, and names it no
    /// more. Its links end without another word.
    RelayDropped {
        /// Which.
        relay: RelayId,
    },
    /// This agent instance was replaced by a newer one.
    Replaced,
    /// The admission token will soon hold no more, or a relay refused it: [`crate::node::Node::set_token`] with a fresh one, if there
    /// is one. Comes again for as long as that is so: after 15 s, and ever more seldom, up to once an hour, while no relay takes what is given.
    TokenWanted,
    /// This node sends more through a relay than it may there: what is beyond is dropped or held back. Comes at most every ten seconds.
    Throttled {
        /// Which.
        relay: RelayId,
        /// What it may send in a second, in bytes; none where those are not limited.
        bytes: Option<u64>,
        /// The same in datagrams.
        datagrams: Option<u64>,
    },
    /// A relay did not take the token it was shown in band. The one before still holds there, until it expires.
    TokenRefused {
        /// Which.
        relay: RelayId,
        /// The relay's words.
        detail: String,
    },
}

/// One relay of a relay map.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MapRelay {
    /// Where it is, and its pin.
    pub url: RelayUrl,
    /// Addresses that its name has, to be tried when the name does not resolve.
    pub addrs: Vec<SocketAddr>,
    /// The region that it is in: what fails together.
    pub region: String,
}

/// A peer to dial.
#[derive(Clone, Debug)]
pub struct PeerTarget {
    /// The node.
    pub node: NodeId,
    /// Its relays, with addresses known for their names.
    pub relays: Vec<(RelayUrl, Vec<SocketAddr>)>,
    /// The ticket's secret, if any.
    pub secret: Option<TicketSecret>,
}

/// Who may open tunnels to this node. Empty and not `anyone`: nobody.
#[derive(Clone, Debug, Default)]
pub struct Admission {
    /// Nodes admitted by their key.
    pub nodes: std::collections::BTreeSet<NodeId>,
    /// Holders of these secrets are admitted.
    pub secrets: Vec<TicketSecret>,
    /// Anyone is admitted (for programs with authorisation of their own inside the tunnel).
    pub anyone: bool,
}

/// The node's settings; the defaults are the design's.
#[derive(Clone, Debug)]
pub struct Config {
    /// As agent or as client.
    pub role: Role,
    /// Which carriers links may use.
    pub links: LinkMode,
    /// False: relay paths only (`--no-direct`). No address is offered, and none is probed but through channels.
    pub direct: bool,
    /// Whether hard NATs may be crossed by trying many ports (design section 6): up to 2,048 small datagrams at no more than
    /// 1,000 a second, or 256 sockets, at most once in five minutes for each peer.
    pub spray: bool,
    /// Who may open tunnels to us.
    pub admission: Admission,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_relay_writes_cannot_steer_a_terminal() {
        let text = || "a\u{1b}]0;owned\u{7}b\nc".to_owned();
        for error in [
            LinkError::Resolve(text()),
            LinkError::Broken(text()),
            LinkError::Certificate(text()),
            LinkError::Refused(RefuseReason::Limit, text()),
            LinkError::Protocol(text()),
        ] {
            let shown = error.to_string();
            assert!(!shown.chars().any(char::is_control), "{shown:?}");
        }
    }
}
