//! Opens that wait for an absent peer: relays restart, links change, machines sleep.
//!
//! An open waits for two seconds, and keeps its first datagrams meanwhile, so that a client does not notice that the peer was away.
//! An opener that has a tunnel to the peer asks for a longer wait: so it hears of the peer's return when it happens, and need not
//! ask again and again. First datagrams are of no use then, for QUIC says them again, and none are kept.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use byway_wire::relay::control::CloseReason;
use byway_wire::{ChannelId, NodeId, NodeInstance};

use crate::channels::Target;
use crate::relay::Relay;
use crate::timers::Timer;

/// How long every open waits: long enough for a node to come back after a drain or a restart.
pub(crate) const ABSENT_WAIT: Duration = Duration::from_secs(2);
/// How long one may wait at the most: an opener that is gone without a word is known to be by then.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(60);
/// Most opens of one instance that wait no longer than that, and of all nodes: each holds up to 6 KiB of first datagrams, 24 MiB in
/// all. Beyond, an absent peer is offline at once.
const MAX_AWAITING: u32 = 32;
pub(crate) const MAX_AWAITED: usize = 4_096;
/// Most that wait longer, of one instance and of all nodes, less than a kilobyte each: workspaces of a whole region are stopped in the
/// evening, while the laptops of their developers still have tunnels to them. Beyond, an open waits as any other does.
const MAX_LONG: u32 = 32;
pub(crate) const MAX_LONG_IN_ALL: usize = 65_536;
/// Most opens that wait for one node: a quarter of the channels that it may have then.
const MAX_FOR_ONE: usize = 256;

/// How an open waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wait {
    /// As long as every open does, with its first datagrams.
    Short,
    /// Longer, and without them.
    Long,
}

/// How many wait, one way and the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Waits {
    pub(crate) short: u32,
    pub(crate) long: u32,
}

impl Waits {
    fn of(&mut self, wait: Wait) -> &mut u32 {
        match wait {
            Wait::Short => &mut self.short,
            Wait::Long => &mut self.long,
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Awaited {
    /// By whom they wait for, in the order in which they came.
    of: BTreeMap<NodeId, BTreeMap<u64, ChannelId>>,
    next: u64,
    pub(crate) waits: Waits,
}

impl Awaited {
    fn len_for(&self, node: NodeId) -> usize {
        self.of.get(&node).map_or(0, BTreeMap::len)
    }
    /// Its place in the queue.
    fn add(&mut self, node: NodeId, id: ChannelId) -> u64 {
        let turn = self.next;
        self.next += 1;
        self.of.entry(node).or_default().insert(turn, id);
        turn
    }
    /// False if it was not there.
    fn remove(&mut self, node: NodeId, turn: u64) -> bool {
        let Some(queue) = self.of.get_mut(&node) else {
            return false;
        };
        let was_there = queue.remove(&turn).is_some();
        if queue.is_empty() {
            self.of.remove(&node);
        }
        was_there
    }
    fn of(&self, node: NodeId) -> Vec<ChannelId> {
        let queue = self.of.get(&node).into_iter();
        queue.flat_map(BTreeMap::values).copied().collect()
    }
    pub(crate) fn all(&self) -> Vec<ChannelId> {
        self.of
            .values()
            .flat_map(BTreeMap::values)
            .copied()
            .collect()
    }
}

/// What waits.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// For whom.
    pub(crate) node: NodeId,
    pub(crate) proof: Option<[u8; 32]>,
    pub(crate) first: Vec<Bytes>,
    /// Its place in the queue, and how it waits; none of both before it does.
    pub(crate) place: Option<(u64, Wait)>,
}

impl Relay {
    /// An open whose peer is not here.
    pub(crate) fn await_peer(&mut self, now: Instant, id: ChannelId, wait: Duration) {
        let Some((opener, waiting)) = self.waiting(id) else {
            return;
        };
        let node = waiting.node;
        let Some(session) = self.sessions.get(&opener) else {
            return;
        };
        let (own, all) = (session.waits, self.awaited.waits);
        let many_long = own.long >= MAX_LONG || all.long as usize >= MAX_LONG_IN_ALL;
        let (wait, until) = if wait <= ABSENT_WAIT || many_long {
            (Wait::Short, now + ABSENT_WAIT)
        } else {
            (Wait::Long, now + wait.min(MAX_WAIT))
        };
        let many_short = own.short >= MAX_AWAITING || all.short as usize >= MAX_AWAITED;
        let many = wait == Wait::Short && many_short || self.awaited.len_for(node) >= MAX_FOR_ONE;
        // Nobody comes to a relay that leaves.
        if many || self.ending.has_begun() {
            return self.give_up(id, CloseReason::Offline);
        }
        let turn = self.awaited.add(node, id);
        *self.awaited.waits.of(wait) += 1;
        if let Some(session) = self.sessions.get_mut(&opener) {
            *session.waits.of(wait) += 1;
        }
        if let Some((_, waiting)) = self.waiting(id) {
            waiting.place = Some((turn, wait));
            match wait {
                // What waits must not hold the frame it came in, which may be ten times as large.
                Wait::Short => {
                    for datagram in &mut waiting.first {
                        *datagram = Bytes::copy_from_slice(datagram);
                    }
                }
                Wait::Long => waiting.first = Vec::new(),
            }
        }
        self.counters.awaited += 1;
        self.timers.arm(Timer::Open(id), until);
    }

    /// An open that waits, or is about to, and whose it is.
    fn waiting(&mut self, id: ChannelId) -> Option<(NodeInstance, &mut Waiting)> {
        let channel = self.channels.get_mut(&id)?;
        match &mut channel.target {
            Target::Awaited(waiting) => Some((channel.opener.owner, waiting)),
            Target::Here { .. } => None,
        }
    }

    /// An agent came: the opens that waited for it go on, the first to come first.
    pub(crate) fn serve_awaited(&mut self, now: Instant, node: NodeId) {
        for id in self.awaited.of(node) {
            self.serve(now, id);
        }
    }

    /// The relay leaves: whoever is absent does not come here any more.
    pub(crate) fn give_up_awaited(&mut self) {
        for id in self.awaited.all() {
            self.give_up(id, CloseReason::Offline);
        }
    }

    /// The open no longer waits for its peer to come.
    pub(crate) fn forget_awaited(&mut self, id: ChannelId) {
        let Some((opener, waiting)) = self.waiting(id) else {
            return;
        };
        let node = waiting.node;
        let Some((turn, wait)) = waiting.place.take() else {
            return;
        };
        if self.awaited.remove(node, turn) {
            *self.awaited.waits.of(wait) -= 1;
            if let Some(session) = self.sessions.get_mut(&opener) {
                *session.waits.of(wait) -= 1;
            }
        }
    }
}
