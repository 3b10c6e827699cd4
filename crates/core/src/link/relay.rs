//! One relay and where its link stands.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use byway_wire::RelayUrl;

use super::in_map::InMap;
use super::leaving::Leaving;
use super::wake::Woken;
use crate::cx::{Wake, earliest};
use crate::io::{Carrier, LinkError, LinkId, LinkMode, RelayId};

/// Most addresses remembered for one name.
const MAX_ADDRS: usize = 8;

#[derive(Debug)]
pub(super) struct Relay {
    pub(super) url: RelayUrl,
    pub(super) addrs: Vec<SocketAddr>,
    /// Linked for as long as the node lives, whatever the map says.
    pub(super) kept: bool,
    /// What the map says.
    pub(super) in_map: InMap,
    /// Set when nobody needs it: when it goes idle.
    pub(super) linger_until: Option<Instant>,
    /// When the last link was welcomed.
    pub(super) welcomed: Option<Instant>,
    /// Rounds that failed, or gave a link that soon broke, in a row.
    pub(super) failures: u32,
    pub(super) last_error: Option<(Carrier, LinkError)>,
    pub(super) left_out: LeftOut,
    /// The carrier of the last link that was welcomed.
    pub(super) last_carrier: Option<Carrier>,
    pub(super) woken: Woken,
    /// A link fell silent, and none was welcomed since.
    pub(super) silent: bool,
    pub(super) leaving: Leaving,
    /// How many tokens we had been given when it was last dialled anew at once, because it had refused an older one.
    pub(super) anew_for: u64,
    /// This relay named it; nobody here asked for it.
    pub(super) named: Option<RelayId>,
    pub(super) phase: Phase,
}

/// Carriers that are left out until then: only a person can change what is in their way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LeftOut {
    udp: Option<Instant>,
    tls: Option<Instant>,
    /// When another network was given its chance.
    forgiven: Option<Instant>,
}

/// A host that starts containers changes its addresses all day, and a proxy may lock the account of who asks each time.
const FORGIVEN_EVERY: Duration = Duration::from_secs(30);

impl LeftOut {
    /// The network is another one, and what stood in the way may not be in it.
    pub(super) fn forgive(&mut self, now: Instant) {
        if self.forgiven.is_none_or(|at| at + FORGIVEN_EVERY <= now) {
            *self = Self {
                forgiven: Some(now),
                ..Self::default()
            };
        }
    }
    pub(super) fn hold(&mut self, carrier: Carrier, until: Instant) {
        match carrier {
            Carrier::Udp => self.udp = Some(until),
            Carrier::Tls => self.tls = Some(until),
        }
    }
    /// Until when it is left out, if it is.
    pub(super) fn until(self, carrier: Carrier, now: Instant) -> Option<Instant> {
        let until = match carrier {
            Carrier::Udp => self.udp,
            Carrier::Tls => self.tls,
        };
        until.filter(|at| *at > now)
    }
    /// When the first of the carriers that these settings allow may be tried.
    pub(super) fn first_free(self, mode: LinkMode, now: Instant) -> Instant {
        let free = |carrier| self.until(carrier, now).unwrap_or(now);
        match mode {
            LinkMode::Auto => free(Carrier::Udp).min(free(Carrier::Tls)),
            LinkMode::Udp => free(Carrier::Udp),
            LinkMode::Tls => free(Carrier::Tls),
        }
    }
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
    /// The host slept, and the one in use may be dead: the first that connects takes over, unless the one in use answers
    /// before.
    Racing(Race),
}

impl Phase {
    /// The race that is run, for the link or beside it.
    pub(super) fn race(&mut self) -> Option<&mut Race> {
        match self {
            Self::Racing(race)
            | Self::Up {
                beside: Beside::Racing(race),
                ..
            } => Some(race),
            _ => None,
        }
    }
}

/// The lanes of a race.
#[derive(Clone, Copy, Debug)]
pub(super) struct Race {
    pub(super) udp: Lane,
    pub(super) tls: Lane,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Lane {
    /// Not allowed by the settings.
    Off,
    /// Starts then.
    At(Instant),
    /// Being connected, or connected and not yet welcomed.
    Trying(LinkId),
    /// It failed in this round, or is left out of it.
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
    /// What has not begun of a carrier that is left out is not begun.
    pub(super) fn leave_out(&mut self, left_out: LeftOut, now: Instant) {
        for carrier in [Carrier::Udp, Carrier::Tls] {
            let lane = self.lane(carrier);
            if matches!(lane, Lane::At(_)) && left_out.until(carrier, now).is_some() {
                *lane = Lane::Failed;
            }
        }
    }
    /// What was to begin later begins now.
    pub(super) fn hurry(&mut self, now: Instant) {
        for carrier in [Carrier::Udp, Carrier::Tls] {
            if let Lane::At(at) = self.lane(carrier) {
                *at = now;
            }
        }
    }
    /// When the next lane starts.
    fn next(&self) -> Option<Instant> {
        let at = |lane: &Lane| match lane {
            Lane::At(at) => Some(*at),
            _ => None,
        };
        [at(&self.udp), at(&self.tls)].into_iter().flatten().min()
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
            in_map: InMap::No,
            linger_until: None,
            welcomed: None,
            failures: 0,
            last_error: None,
            left_out: LeftOut::default(),
            last_carrier: None,
            woken: Woken::default(),
            silent: false,
            leaving: Leaving::No,
            anew_for: 0,
            named: None,
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
    /// True if it is linked whether a peer needs it or not.
    pub(super) fn is_kept(&self) -> bool {
        self.kept || self.in_map.is_kept()
    }
    /// True if it is idle, and nobody here asks for anything else.
    pub(super) fn is_of_no_use(&self) -> bool {
        matches!(self.phase, Phase::Idle) && !self.kept && self.in_map == InMap::No
    }
    /// True if it is to stay so, for all that is known now.
    pub(super) fn is_to_stay(&self) -> bool {
        self.kept || self.in_map == InMap::Kept
    }
    /// True if it is being left: who can goes elsewhere, and then the link ends.
    pub(super) fn is_left(&self) -> bool {
        self.leaving.is_now() || self.in_map.is_parting()
    }
    /// True if its link was welcomed long enough ago that it works.
    pub(super) fn lasted(&self, now: Instant) -> bool {
        self.welcomed
            .is_some_and(|at| at + super::race::STEADY <= now)
    }
    pub(super) fn deadline(&self) -> Option<Wake> {
        let leaving = self.leaving.deadline().map(|t| (t, "relay that leaves"));
        let linger = earliest(leaving, self.linger_until.map(|t| (t, "link linger")));
        let phase = match &self.phase {
            Phase::Idle => None,
            Phase::Resting { until } => Some((*until, "link back-off")),
            Phase::Racing(race) => race.next().map(|at| (at, "link race")),
            Phase::Up { beside, .. } => match beside {
                Beside::TryAt(at, _) => Some((*at, "link upgrade")),
                Beside::Retiring(_, until) => Some((*until, "link retire")),
                Beside::Racing(race) => race.next().map(|at| (at, "link race")),
                Beside::Nothing | Beside::Trying(_) => None,
            },
        };
        earliest(linger, phase)
    }
}
