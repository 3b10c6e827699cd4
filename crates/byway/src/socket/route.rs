//! A peer's route as the data path sees it: a snapshot, replaced whole at a change and read without a lock.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};

use arc_swap::ArcSwap;
use byway_congestion::LargestMtu;
use byway_core::io::{PathKind, PeerId, Route, SocketId, Way};
use byway_wire::ChannelId;
use byway_wire::relay::data::HEADER_LEN;

use super::recent::Recent;
use super::tables::Tables;
use super::together::Held;
use crate::links::Egress;
use crate::tunnel::parts::RouteCounters;

/// A way, resolved to what a send needs.
#[derive(Clone, Debug)]
pub(crate) enum Via {
    /// Straight to the peer.
    Direct {
        socket: SocketId,
        remote: SocketAddr,
    },
    /// Through a channel on a UDP link.
    Udp {
        socket: SocketId,
        relay: SocketAddr,
        header: [u8; HEADER_LEN],
    },
    /// Through a channel on a TLS link.
    Tls {
        egress: Arc<Egress>,
        channel: ChannelId,
    },
}

impl Via {
    /// The address that is seen from outside: the peer's or the relay's. None through a proxy.
    pub(crate) fn remote(&self) -> Option<SocketAddr> {
        match self {
            Self::Direct { remote, .. } => Some(*remote),
            Self::Udp { relay, .. } => Some(*relay),
            Self::Tls { egress, .. } => egress.relay(),
        }
    }
}

/// One path of a route.
#[derive(Clone, Debug)]
pub(crate) struct Leg {
    pub(crate) way: Way,
    pub(crate) via: Via,
    /// This destination refuses batches: send one datagram at a time. Others keep segmentation offload.
    pub(crate) one_by_one: Arc<AtomicBool>,
}

impl Leg {
    pub(crate) fn kind(&self) -> PathKind {
        self.way.kind()
    }
}

/// What holds until the next change.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) primary: Option<Leg>,
    pub(crate) standby: Option<Leg>,
    pub(crate) duplicate: bool,
    /// What primary and standby carry both; quinn is to search no further.
    pub(crate) max_datagram: usize,
    /// What the primary carries in one piece.
    pub(crate) primary_max: usize,
    /// What the standby carries in one piece.
    pub(crate) standby_max: usize,
}

/// A peer instance, as the socket knows it.
#[derive(Debug)]
pub(crate) struct PeerRoute {
    peer: PeerId,
    pub(super) snapshot: ArcSwap<Snapshot>,
    pub(super) recent: Recent,
    pub(crate) counters: Arc<RouteCounters>,
    /// The node's evidence timer sleeps: the next send wakes it ([`byway_core::io::Event::WatchFlow`]).
    pub(super) flow_wanted: AtomicBool,
    /// What QUIC takes for the MTU of the peer's tunnels, written by congestion control.
    pub(crate) mtu: Arc<LargestMtu>,
    pub(super) fragment_id: AtomicU16,
    pub(super) held: Held,
}

impl PeerRoute {
    /// A peer without a route; its first datagrams go to the driver.
    pub(crate) fn new(peer: PeerId) -> Self {
        Self {
            peer,
            snapshot: ArcSwap::default(),
            recent: Recent::default(),
            counters: Arc::default(),
            flow_wanted: AtomicBool::new(false),
            mtu: Arc::default(),
            fragment_id: AtomicU16::new(0),
            held: Held::default(),
        }
    }

    pub(crate) fn peer(&self) -> PeerId {
        self.peer
    }

    /// Puts the node's new route in force. What was found out about a way stays with it as long as the route keeps it.
    pub(crate) fn update(&self, route: &Route, tables: &Tables) -> Arc<Snapshot> {
        let old = self.snapshot.load();
        let leg = |way: Option<Way>| {
            let way = way?;
            let via = tables.via(way)?;
            let known = [&old.primary, &old.standby]
                .into_iter()
                .flatten()
                .find(|leg| leg.way == way);
            Some(Leg {
                way,
                via,
                one_by_one: known.map_or_else(Arc::default, |leg| Arc::clone(&leg.one_by_one)),
            })
        };
        let new = Arc::new(Snapshot {
            primary: leg(route.primary),
            standby: leg(route.standby),
            duplicate: route.duplicate,
            max_datagram: usize::from(route.max_datagram),
            primary_max: usize::from(route.primary_max),
            standby_max: usize::from(route.standby_max),
        });
        self.snapshot.store(Arc::clone(&new));
        new
    }

    /// How far one more tunnel may search for its MTU, in bytes of UDP payload, if another has gone beyond what the route carries now.
    /// It is not seen here whose datagram is sent: probes of a size between the two would be taken for the other's data, go in
    /// two parts, and arrive, and so would everything after them have to.
    pub(crate) fn search_bound(&self) -> Option<u16> {
        let snapshot = self.snapshot.load();
        snapshot.primary.as_ref()?;
        let carries = u16::try_from(snapshot.max_datagram).ok()?;
        (self.mtu.get() > carries).then_some(carries)
    }

    /// Asks for word of the next send.
    pub(crate) fn want_flow(&self) {
        self.flow_wanted.store(true, Ordering::Relaxed);
    }

    /// What was sent last is of no use any more.
    pub(crate) fn forget_recent(&self) {
        self.recent.clear();
    }

    pub(crate) fn current(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }
}
