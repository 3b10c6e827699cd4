//! The tables between quinn's virtual addresses and the world: who is where.
//!
//! Written by the driver at control events; read by the socket for every batch, without a lock.

use std::net::SocketAddr;
use std::sync::Arc;

use byway_core::io::{Carrier, LinkId, PeerId, SocketId, Way};
use byway_wire::ChannelId;
use papaya::{HashMap, Operation};

use super::addr::Virtual;
use super::route::{PeerRoute, Via};
use crate::links::Egress;

/// How data reaches the relay at the other end of a link.
#[derive(Clone, Debug)]
pub(crate) enum LinkRoute {
    /// By plain datagrams.
    Udp {
        /// From this socket.
        socket: SocketId,
        /// To the relay's address.
        relay: SocketAddr,
    },
    /// In frames.
    Tls(Arc<Egress>),
}

/// Where relay data comes in: channels are named by the relay, so their ids mean something only together with it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum ChannelSource {
    /// Plain datagrams from this relay address.
    Udp(SocketId, SocketAddr),
    /// Frames of this TLS link.
    Tls(LinkId),
}

/// Whose a channel is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ChannelEntry {
    pub(crate) peer: PeerId,
    pub(crate) link: LinkId,
}

/// Whose QUIC may come from one address. Mostly one's; but two nodes that dialled each other are two peers at one address,
/// two names of one relay lead to one address, and an authenticated probe may claim any source address at all. So nobody
/// displaces anybody: each owner gets its copy of a datagram, and QUIC drops what is of no connection of that owner's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Owners([Option<Virtual>; MAX_OWNERS]);

/// Copies cost time: no more than a few, and whoever comes later stays on other paths.
const MAX_OWNERS: usize = 4;

impl Owners {
    fn one(owner: Virtual) -> Self {
        let mut owners = [None; MAX_OWNERS];
        owners[0] = Some(owner);
        Self(owners)
    }

    /// The same if it is there already, or if there is no room.
    fn with(mut self, owner: Virtual) -> Self {
        if !self.iter().any(|known| known == owner)
            && let Some(free) = self.0.iter_mut().find(|slot| slot.is_none())
        {
            *free = Some(owner);
        }
        self
    }

    /// None if nobody is left.
    fn without(self, gone: impl Fn(Virtual) -> bool) -> Option<Self> {
        let mut left = self.iter().filter(|owner| !gone(*owner));
        let first = Self::one(left.next()?);
        Some(left.fold(first, Self::with))
    }

    /// The first came first.
    pub(super) fn iter(&self) -> impl Iterator<Item = Virtual> {
        self.0.into_iter().flatten()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Tables {
    pub(super) peers: HashMap<PeerId, Arc<PeerRoute>>,
    /// One entry for each dial that came so far; a dial of several addresses has one while it races and one after.
    pub(super) links: HashMap<(LinkId, u16), LinkRoute>,
    /// What QUIC from a real address belongs to.
    pub(super) sources: HashMap<(SocketId, SocketAddr), Owners>,
    pub(super) channels: HashMap<(ChannelSource, ChannelId), ChannelEntry>,
}

/// How many entries each table has; all zero when nothing is open.
#[cfg(test)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct TableSizes {
    pub(crate) peers: usize,
    pub(crate) links: usize,
    pub(crate) sources: usize,
    pub(crate) channels: usize,
}

impl Tables {
    #[cfg(test)]
    pub(crate) fn sizes(&self) -> TableSizes {
        TableSizes {
            peers: self.peers.len(),
            links: self.links.len(),
            sources: self.sources.len(),
            channels: self.channels.len(),
        }
    }

    pub(crate) fn insert_peer(&self, route: Arc<PeerRoute>) {
        self.peers.pin().insert(route.peer(), route);
    }

    /// Forgets a peer and its ways.
    pub(crate) fn remove_peer(&self, peer: PeerId) {
        self.peers.pin().remove(&peer);
        self.disown_all(|owner| owner == Virtual::Peer(peer));
        self.channels.pin().retain(|_, entry| entry.peer != peer);
    }

    /// A UDP link's dial begins: QUIC to and from `relay` belongs to it.
    pub(crate) fn insert_dial(
        &self,
        link: LinkId,
        attempt: u16,
        socket: SocketId,
        relay: SocketAddr,
    ) {
        self.links
            .pin()
            .insert((link, attempt), LinkRoute::Udp { socket, relay });
        self.own((socket, relay), Virtual::Link(link, attempt));
    }

    /// An attempt of a dial lost the race.
    pub(crate) fn remove_dial(&self, link: LinkId, attempt: u16) {
        self.links.pin().remove(&(link, attempt));
        self.disown_all(|owner| owner == Virtual::Link(link, attempt));
    }

    pub(crate) fn insert_tls(&self, link: LinkId, egress: Arc<Egress>) {
        self.links.pin().insert((link, 0), LinkRoute::Tls(egress));
    }

    /// Forgets a link and the channels on it.
    pub(crate) fn remove_link(&self, link: LinkId) {
        self.links.pin().retain(|(id, _), _| *id != link);
        self.disown_all(|owner| matches!(owner, Virtual::Link(id, _) if id == link));
        self.channels.pin().retain(|_, entry| entry.link != link);
    }

    fn own(&self, source: (SocketId, SocketAddr), owner: Virtual) {
        self.sources.pin().update_or_insert(
            source,
            |owners| owners.with(owner),
            Owners::one(owner),
        );
    }

    fn disown(&self, source: (SocketId, SocketAddr), gone: impl Fn(Virtual) -> bool) {
        self.sources.pin().compute(source, |entry| match entry {
            Some((_, owners)) => match owners.without(&gone) {
                Some(left) => Operation::Insert(left),
                None => Operation::Remove,
            },
            None => Operation::Abort(()),
        });
    }

    fn disown_all(&self, gone: impl Fn(Virtual) -> bool) {
        let sources = self.sources.pin();
        for (source, owners) in &sources {
            if owners.iter().any(&gone) {
                self.disown(*source, &gone);
            }
        }
    }

    /// True if something is known by this address.
    pub(super) fn owns(&self, socket: SocketId, addr: SocketAddr) -> bool {
        self.sources.pin().contains_key(&(socket, addr))
    }

    fn link(&self, link: LinkId) -> Option<LinkRoute> {
        self.links
            .pin()
            .iter()
            .find(|((id, _), _)| *id == link)
            .map(|(_, route)| route.clone())
    }

    /// What comes in by `way` is the peer's.
    pub(crate) fn learn(&self, peer: PeerId, way: Way) {
        match way {
            Way::Direct { socket, remote } => {
                self.own((socket, remote), Virtual::Peer(peer));
            }
            Way::Channel { link, channel, .. } => {
                if let Some(source) = self.channel_source(link) {
                    self.channels
                        .pin()
                        .insert((source, channel), ChannelEntry { peer, link });
                }
            }
        }
    }

    /// What comes in by `way` is not the peer's any longer.
    pub(crate) fn unlearn(&self, peer: PeerId, way: Way) {
        match way {
            Way::Direct { socket, remote } => {
                self.disown((socket, remote), |owner| owner == Virtual::Peer(peer));
            }
            Way::Channel { link, channel, .. } => {
                let Some(source) = self.channel_source(link) else {
                    return;
                };
                let channels = self.channels.pin();
                if channels.get(&(source, channel)) == Some(&ChannelEntry { peer, link }) {
                    channels.remove(&(source, channel));
                }
            }
        }
    }

    fn channel_source(&self, link: LinkId) -> Option<ChannelSource> {
        Some(match self.link(link)? {
            LinkRoute::Udp { socket, relay } => ChannelSource::Udp(socket, relay),
            LinkRoute::Tls(_) => ChannelSource::Tls(link),
        })
    }

    /// How to send by `way`; none if its link is gone.
    pub(crate) fn via(&self, way: Way) -> Option<Via> {
        Some(match way {
            Way::Direct { socket, remote } => Via::Direct { socket, remote },
            Way::Channel { link, channel, .. } => match self.link(link)? {
                LinkRoute::Udp { socket, relay } => Via::Udp {
                    socket,
                    relay,
                    header: channel.header(),
                },
                LinkRoute::Tls(egress) => Via::Tls { egress, channel },
            },
        })
    }

    /// The address of the relay at the other end of a link, unless only a proxy knows it.
    pub(crate) fn relay_addr(&self, link: LinkId) -> Option<SocketAddr> {
        match self.link(link)? {
            LinkRoute::Udp { relay, .. } => Some(relay),
            LinkRoute::Tls(egress) => egress.relay(),
        }
    }

    /// The peer whose channel this is on a TLS link.
    pub(crate) fn tls_peer(&self, link: LinkId, channel: ChannelId) -> Option<PeerId> {
        self.channels
            .pin()
            .get(&(ChannelSource::Tls(link), channel))
            .map(|entry| entry.peer)
    }

    /// By which way a control datagram came: through a channel if its source is a relay's.
    pub(super) fn channel_way(
        &self,
        source: (SocketId, SocketAddr),
        channel: ChannelId,
    ) -> Option<Way> {
        let owners = *self.sources.pin().get(&source)?;
        let links = owners.iter().filter_map(|owner| match owner {
            Virtual::Link(link, _) => Some(link),
            Virtual::Peer(_) => None,
        });
        // Of two links to one address, the one whose channel it is; an echo belongs to the newest, which is being proven.
        let known = self
            .channels
            .pin()
            .get(&(ChannelSource::Udp(source.0, source.1), channel))
            .map(|entry| entry.link);
        Some(Way::Channel {
            link: known.or(links.max())?,
            carrier: Carrier::Udp,
            channel,
        })
    }
}
