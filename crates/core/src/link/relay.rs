//! One relay and where its link stands.

use std::net::SocketAddr;
use std::time::Instant;

use byway_wire::RelayUrl;

use crate::cx::{Wake, earliest};
use crate::io::{Carrier, LinkError, LinkId};

/// Most addresses remembered for one name.
const MAX_ADDRS: usize = 8;

#[derive(Debug)]
pub(super) struct Relay {
    pub(super) url: RelayUrl,
    pub(super) addrs: Vec<SocketAddr>,
    /// Linked for as long as the node lives.
    pub(super) kept: bool,
    /// Set when nobody needs it: when it goes idle.
    pub(super) linger_until: Option<Instant>,
    /// When the last link was welcomed.
    pub(super) welcomed: Option<Instant>,
    /// Rounds that failed, or gave a link that soon broke, in a row.
    pub(super) failures: u32,
    pub(super) last_error: Option<LinkError>,
    pub(super) phase: Phase,
}

#[derive(Debug)]
pub(super) enum Phase {
    /// Nobody wants a link.
    Idle,
    /// Carriers are being connected.
    Racing(Race),
    /// One link is in use.
    Up { link: LinkId, beside: Beside },
    /// The last round failed.
    Resting { until: Instant },
}

/// What goes on beside the link in use.
#[derive(Debug)]
pub(super) enum Beside {
    Nothing,
    /// This carrier will be tried then.
    TryAt(Instant, Carrier),
    /// It is being made, and replaces the one in use once it is good.
    Trying(LinkId),
    /// It was replaced; what is on its way may still arrive.
    Retiring(LinkId, Instant),
}

/// The lanes of a race.
#[derive(Debug)]
pub(super) struct Race {
    pub(super) udp: Lane,
    pub(super) tls: Lane,
}

#[derive(Debug)]
pub(super) enum Lane {
    /// Not allowed by the settings.
    Off,
    /// Starts then.
    At(Instant),
    /// Being connected, or connected and not yet welcomed.
    Trying(LinkId),
    /// It failed in this round.
    Failed,
}

impl Race {
    /// The links of the lanes, the better carrier first.
    pub(super) fn lanes(&self) -> impl Iterator<Item = LinkId> {
        [&self.udp, &self.tls]
            .into_iter()
            .filter_map(|lane| match lane {
                Lane::Trying(link) => Some(*link),
                _ => None,
            })
    }
    pub(super) fn lane(&mut self, carrier: Carrier) -> &mut Lane {
        match carrier {
            Carrier::Udp => &mut self.udp,
            Carrier::Tls => &mut self.tls,
        }
    }
    pub(super) fn is_lost(&self) -> bool {
        [&self.udp, &self.tls]
            .into_iter()
            .all(|lane| matches!(lane, Lane::Off | Lane::Failed))
    }
}

impl Relay {
    pub(super) fn new(url: RelayUrl, addrs: Vec<SocketAddr>, kept: bool) -> Self {
        let mut relay = Self {
            url,
            addrs: Vec::new(),
            kept,
            linger_until: None,
            welcomed: None,
            failures: 0,
            last_error: None,
            phase: Phase::Idle,
        };
        relay.learn(addrs);
        relay
    }
    /// Remembers addresses of the name, the newest first.
    pub(super) fn learn(&mut self, addrs: Vec<SocketAddr>) {
        for addr in addrs.into_iter().rev() {
            self.addrs.retain(|known| *known != addr);
            self.addrs.insert(0, addr);
        }
        self.addrs.truncate(MAX_ADDRS);
    }
    pub(super) fn deadline(&self) -> Option<Wake> {
        let linger = self.linger_until.map(|t| (t, "link linger"));
        let phase = match &self.phase {
            Phase::Idle => None,
            Phase::Resting { until } => Some((*until, "link back-off")),
            Phase::Racing(race) => [&race.udp, &race.tls]
                .into_iter()
                .fold(None, |first, lane| match lane {
                    Lane::At(at) => earliest(first, Some((*at, "link race"))),
                    _ => first,
                }),
            Phase::Up { beside, .. } => match beside {
                Beside::TryAt(at, _) => Some((*at, "link upgrade")),
                Beside::Retiring(_, until) => Some((*until, "link retire")),
                Beside::Nothing | Beside::Trying(_) => None,
            },
        };
        earliest(linger, phase)
    }
}
