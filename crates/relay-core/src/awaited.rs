//! Opens that wait for an absent peer: relays restart, links change, machines sleep.
//!
//! For two seconds an open keeps its first datagrams, so that a client does not notice that the peer was away. Later they are
//! of no use, for QUIC has said them again. An opener that has a tunnel to the peer asks for a longer wait, which goes on
//! without them: so it hears of the peer's return when it happens, and need not ask again and again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use byway_wire::relay::control::CloseReason;
use byway_wire::{ChannelId, NodeId};

use crate::channels::{Channel, Target};
use crate::relay::Relay;
use crate::timers::Timer;

/// How long every open waits: long enough for a node to come back after a drain or a restart.
pub(crate) const ABSENT_WAIT: Duration = Duration::from_secs(2);
/// How long one may wait at the most: an opener that is gone without a word is known to be by then.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(60);
/// Most opens of one instance that wait; each holds up to 6 KiB of first datagrams.
const MAX_AWAITING: u32 = 32;
/// Most opens of all nodes that hold first datagrams: 24 MiB of them. Beyond, an absent peer is offline at once.
pub(crate) const MAX_HOLDING: usize = 4_096;
/// Most opens of all nodes that wait: half a kilobyte each, 32 MiB. Workspaces of a whole region are stopped in the evening, while
/// the laptops of their developers still have tunnels to them.
pub(crate) const MAX_AWAITED: usize = 65_536;

#[derive(Debug, Default)]
pub(crate) struct Awaited {
    of: BTreeMap<NodeId, BTreeSet<ChannelId>>,
    pub(crate) count: usize,
    /// Those with first datagrams.
    pub(crate) holding: usize,
}

impl Awaited {
    fn add(&mut self, node: NodeId, id: ChannelId, holds: bool) {
        self.of.entry(node).or_default().insert(id);
        self.count += 1;
        self.holding += usize::from(holds);
    }
    /// False if it was not there.
    fn remove(&mut self, node: NodeId, id: ChannelId, holds: bool) -> bool {
        let Some(ids) = self.of.get_mut(&node) else {
            return false;
        };
        if !ids.remove(&id) {
            return false;
        }
        if ids.is_empty() {
            self.of.remove(&node);
        }
        self.count -= 1;
        self.holding -= usize::from(holds);
        true
    }
    fn of(&self, node: NodeId) -> Vec<ChannelId> {
        self.of.get(&node).into_iter().flatten().copied().collect()
    }
    #[cfg(test)]
    pub(crate) fn all(&self) -> impl Iterator<Item = ChannelId> + use<'_> {
        self.of.values().flatten().copied()
    }
}

/// Whether it keeps first datagrams for an absent peer.
pub(crate) fn holds(channel: &Channel) -> bool {
    matches!(&channel.target, Target::Awaited { first, .. } if !first.is_empty())
}

impl Relay {
    /// An open whose peer is not here.
    pub(crate) fn await_peer(&mut self, now: Instant, id: ChannelId, wait: Duration) {
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        let (holds, opener) = (holds(channel), channel.opener.owner);
        let Target::Awaited {
            node, first, until, ..
        } = &mut channel.target
        else {
            return;
        };
        *until = now + wait.clamp(ABSENT_WAIT, MAX_WAIT);
        // What waits must not hold the frame it came in, which may be ten times as large.
        for datagram in first {
            *datagram = Bytes::copy_from_slice(datagram);
        }
        let node = *node;
        let Some(session) = self.sessions.get_mut(&opener) else {
            return;
        };
        session.awaiting += 1;
        self.awaited.add(node, id, holds);
        let many = session.awaiting > MAX_AWAITING
            || self.awaited.count > MAX_AWAITED
            || self.awaited.holding > MAX_HOLDING;
        if many {
            return self.give_up(id, CloseReason::Offline);
        }
        self.counters.awaited += 1;
        self.timers.arm(Timer::Open(id), now + ABSENT_WAIT);
    }

    /// An agent came: the opens that waited for it go on.
    pub(crate) fn serve_awaited(&mut self, now: Instant, node: NodeId) {
        for id in self.awaited.of(node) {
            self.serve(now, id);
        }
    }

    /// The peer did not come yet.
    pub(crate) fn wait_expired(&mut self, now: Instant, id: ChannelId) {
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        let Target::Awaited { first, until, .. } = &mut channel.target else {
            return;
        };
        if *until <= now {
            return self.give_up(id, CloseReason::Offline);
        }
        if !first.is_empty() {
            *first = Vec::new();
            self.awaited.holding -= 1;
        }
        self.timers.arm(Timer::Open(id), *until);
    }

    /// The open no longer waits for its peer to come.
    pub(crate) fn forget_awaited(&mut self, id: ChannelId, node: NodeId) {
        let Some(channel) = self.channels.get(&id) else {
            return;
        };
        let opener = channel.opener.owner;
        if self.awaited.remove(node, id, holds(channel))
            && let Some(session) = self.sessions.get_mut(&opener)
        {
            session.awaiting -= 1;
        }
    }
}
