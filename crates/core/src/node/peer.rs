//! One peer: who it is, where its channels stand, how far it got.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use byway_wire::relay::control::CloseReason;
use byway_wire::{ChannelId, NodeId, NodeInstance, SignedRecord, TicketSecret};

use crate::cx::{Wake, earliest};
use crate::io::{LinkError, LinkId, RelayId};
use crate::link::Links;
use crate::path::Paths;

use super::waiting::{Rode, Waiting};

/// Most channels with one peer: two relays, each once more while a channel moves.
pub(super) const MAX_CHANNELS: usize = 4;
/// Most of them through one relay.
pub(super) const MAX_CHANNELS_PER_RELAY: usize = 2;

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) node: NodeId,
    /// Set if we dialled it: then opening channels is our part.
    pub(super) dial: Option<Dial>,
    pub(super) channels: Vec<Channel>,
    pub(super) stage: Stage,
}

/// What is needed to open a channel to the peer, now and again.
#[derive(Debug)]
pub(super) struct Dial {
    pub(super) relays: Vec<RelayId>,
    /// Those of them, and of its channels, at which the peer says that it is not to be looked for (any more).
    pub(super) left: BTreeSet<RelayId>,
    pub(super) secret: Option<TicketSecret>,
    /// A channel that is lost for good is opened anew, not before this.
    pub(super) reopen_at: Instant,
    /// Openings in a row that failed.
    pub(super) failures: u32,
    /// A second channel, through another relay, is opened not before this.
    pub(super) standby_at: Instant,
    /// Openings of it in a row that failed.
    pub(super) standby_failures: u32,
}

/// Relays through which a live peer is reached at once: the death of either costs a failover, not a dial.
const WARM_RELAYS: usize = 2;

impl Dial {
    /// An opening failed; the relay to blame is the last to be asked next time.
    pub(super) fn ask_last(&mut self, relay: Option<RelayId>) {
        self.failures = self.failures.saturating_add(1);
        self.put_last(relay);
    }

    /// The other relays have their turn before this one.
    pub(super) fn put_last(&mut self, relay: Option<RelayId>) {
        if let Some(relay) = relay
            && let Some(at) = self.relays.iter().position(|&r| r == relay)
        {
            self.relays[at..].rotate_left(1);
        }
    }
}

#[derive(Debug)]
pub(super) enum Stage {
    /// No relay has named its instance yet.
    Calling(Calling),
    /// Its instance and keys are known.
    Live(Box<Live>),
}

#[derive(Debug)]
pub(super) struct Calling {
    /// The tunnel's first datagrams.
    pub(super) first: Vec<Bytes>,
    /// What the tunnel said after that, for the channel once it is open.
    pub(super) second: Vec<Bytes>,
    /// An `Open` left: later datagrams would not be in it.
    pub(super) sent: bool,
    /// When `Open` goes out even if (more) datagrams of the first flight are missing.
    pub(super) open_at: Instant,
    /// How many of the dial's relays are being tried.
    pub(super) started: usize,
    /// When the next one is.
    pub(super) next_start: Instant,
    pub(super) deadline: Instant,
    /// Relays that said no, and how.
    pub(super) refusals: BTreeMap<RelayId, CloseReason>,
    /// A relay by which it was called stops: the peer may be on its way to another one.
    pub(super) moving: bool,
    /// Relays that said that it is not there, and when they may be asked again, where it may come yet.
    pub(super) again: BTreeMap<RelayId, Instant>,
    /// Relays that could not be reached: rounds that failed, and the last error.
    pub(super) errors: BTreeMap<RelayId, (u32, LinkError)>,
    /// Channel ids that were in use.
    pub(super) collisions: u8,
}

#[derive(Debug)]
pub(super) struct Live {
    pub(super) id: NodeInstance,
    pub(super) record: SignedRecord,
    pub(super) paths: Paths,
    /// A relay attests that the peer is on this host.
    pub(super) same_host: bool,
    /// What the tunnel says while no way leads to the peer.
    pub(super) waiting: Waiting,
}

#[derive(Debug)]
pub(super) struct Channel {
    pub(super) id: ChannelId,
    pub(super) relay: RelayId,
    pub(super) state: ChannelState,
    /// A link it was on; what is on its way there may still arrive.
    pub(super) previous: Option<LinkId>,
    /// The peer's address as the relay sees it.
    pub(super) attested: Option<SocketAddr>,
    /// Its relay stops, and another channel carries data: when it is closed.
    pub(super) retire_at: Option<Instant>,
    /// What its `Open` carried of the datagrams that waited.
    pub(super) rode: Rode,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ChannelState {
    /// `Open` is out; without an answer it is given up.
    Opening {
        link: LinkId,
        since: Instant,
        until: Instant,
    },
    /// It carries data.
    Open { link: LinkId },
    /// It carries data on `from`; `Attach` is out on `to`.
    Moving { from: LinkId, to: LinkId },
    /// Its link is gone; the relay keeps our side for a while.
    Detached { until: Instant },
    /// As above; `Attach` is out.
    Attaching { link: LinkId, until: Instant },
}

impl Channel {
    /// The link that carries its data.
    pub(super) fn carried_by(&self) -> Option<LinkId> {
        match self.state {
            ChannelState::Open { link } | ChannelState::Moving { from: link, .. } => Some(link),
            _ => None,
        }
    }
    /// The links on which control messages for it may come.
    pub(super) fn links(&self) -> impl Iterator<Item = LinkId> + use<> {
        let (a, b) = match self.state {
            ChannelState::Opening { link, .. }
            | ChannelState::Open { link }
            | ChannelState::Attaching { link, .. } => (Some(link), None),
            ChannelState::Moving { from, to } => (Some(from), Some(to)),
            ChannelState::Detached { .. } => (None, None),
        };
        a.into_iter().chain(b)
    }
    fn is_detached(&self) -> bool {
        matches!(
            self.state,
            ChannelState::Detached { .. } | ChannelState::Attaching { .. }
        )
    }
}

impl Peer {
    /// The link of a channel that carries data, and the channel; the newest, which the peer is the least likely to have lost.
    pub(super) fn carried_by(&self) -> Option<(LinkId, ChannelId)> {
        let mut newest = self.channels.iter().rev();
        newest.find_map(|c| Some((c.carried_by()?, c.id)))
    }

    /// When the `Open` of a channel was sent that is not answered yet.
    pub(super) fn open_sent(&self, channel: ChannelId) -> Option<Instant> {
        let channel = self.channels.iter().find(|c| c.id == channel)?;
        match channel.state {
            ChannelState::Opening { since, .. } => Some(since),
            _ => None,
        }
    }

    /// True while a channel carries data or is about to.
    pub(super) fn has_channel(&self) -> bool {
        self.channels.iter().any(|c| !c.is_detached())
    }

    /// The relay through which a second channel is to be opened now, if one is wanted. A detached channel of a relay is
    /// about to be attached and counts; one of a relay that stops, or that the peer left, does not, and none is opened there.
    pub(super) fn standby_relay(&self, links: &Links, now: Instant) -> Option<RelayId> {
        let dial = self.dial.as_ref()?;
        let used: BTreeSet<RelayId> = self.channels.iter().map(|c| c.relay).collect();
        let is_left = |r: &RelayId| links.is_leaving(*r) || dial.left.contains(r);
        let warm = used.iter().filter(|r| !is_left(r)).count();
        let wanted = matches!(self.stage, Stage::Live(_))
            && self.has_channel()
            && warm < WARM_RELAYS
            && dial.standby_at <= now;
        let ends = |r: &RelayId| links.will_stop(*r) || dial.left.contains(r);
        let free = |r: &&RelayId| !used.contains(r) && !ends(r);
        wanted
            .then(|| dial.relays.iter().find(free).copied())
            .flatten()
    }

    /// Adds the relays this peer needs a link to.
    pub(super) fn needs(&self, links: &Links, now: Instant, needed: &mut BTreeSet<RelayId>) {
        let Some(dial) = &self.dial else { return };
        match &self.stage {
            Stage::Calling(calling) => {
                let tried = dial.relays.iter().take(calling.started);
                needed.extend(tried.filter(|r| !calling.refusals.contains_key(r)));
            }
            Stage::Live(_) if self.has_channel() => {
                needed.extend(self.channels.iter().map(|c| c.relay));
                needed.extend(self.standby_relay(links, now));
            }
            Stage::Live(_) => needed.extend(&dial.relays),
        }
    }

    /// When this peer wants to be looked at again.
    pub(super) fn wake(&self, links: &Links, now: Instant) -> Option<Wake> {
        let stage = match &self.stage {
            Stage::Calling(calling) => {
                let mut wake = Some((calling.deadline, "call deadline"));
                let more = self
                    .dial
                    .as_ref()
                    .is_some_and(|d| calling.started < d.relays.len());
                wake = earliest(wake, more.then_some((calling.next_start, "next relay")));
                let again = calling.again.values().filter(|at| **at > now).min();
                wake = earliest(wake, again.map(|at| (*at, "relay that is asked again")));
                let waits = calling.open_at > now;
                earliest(wake, waits.then_some((calling.open_at, "first flight")))
            }
            Stage::Live(live) => live.paths.poll_timeout(),
        };
        let channels = self.channels.iter().map(|c| match c.state {
            ChannelState::Opening { since, until, .. } => {
                let patience = super::calls::SECOND_RELAY_AFTER;
                let retry = if now < since + patience {
                    since + patience
                } else {
                    until
                };
                Some((retry, "open limit"))
            }
            ChannelState::Detached { until } | ChannelState::Attaching { until, .. } => {
                Some((until, "channel limit"))
            }
            ChannelState::Open { .. } | ChannelState::Moving { .. } => None,
        });
        let retire = self.channels.iter().filter_map(|c| c.retire_at).min();
        let stage = earliest(
            stage,
            retire.map(|at| (at, "channel of a relay that stops")),
        );
        let reopen = match (&self.dial, &self.stage) {
            (Some(dial), Stage::Live(_)) if !self.has_channel() && dial.reopen_at > now => {
                Some((dial.reopen_at, "reopen"))
            }
            (Some(dial), Stage::Live(_)) if dial.standby_at > now && dial.relays.len() > 1 => self
                .standby_relay(links, dial.standby_at)
                .map(|_| (dial.standby_at, "second relay")),
            _ => None,
        };
        channels.fold(earliest(stage, reopen), earliest)
    }
}
