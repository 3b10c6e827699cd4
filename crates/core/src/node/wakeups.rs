//! When peers want to be looked at: one queue, so that thousands of peers cost an input no more than one does.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::Node;
use super::peer::Stage;
use crate::cx::Wake;
use crate::io::PeerId;

#[derive(Debug, Default)]
pub(super) struct Wakeups {
    of: BTreeMap<PeerId, Wake>,
    queue: BTreeSet<(Instant, PeerId)>,
    watching: BTreeSet<PeerId>,
}

impl Wakeups {
    fn set(&mut self, id: PeerId, wake: Option<Wake>, watching: bool) {
        self.forget(id);
        if let Some(wake) = wake {
            self.of.insert(id, wake);
            self.queue.insert((wake.0, id));
        }
        if watching {
            self.watching.insert(id);
        }
    }
    pub(super) fn forget(&mut self, id: PeerId) {
        if let Some((at, _)) = self.of.remove(&id) {
            self.queue.remove(&(at, id));
        }
        self.watching.remove(&id);
    }
    pub(super) fn first(&self) -> Option<Wake> {
        let (_, id) = self.queue.first()?;
        self.of.get(id).copied()
    }
    pub(super) fn due(&self, now: Instant) -> Vec<PeerId> {
        self.queue
            .iter()
            .take_while(|(at, _)| *at <= now)
            .map(|&(_, id)| id)
            .collect()
    }
    pub(super) fn is_any_watching(&self) -> bool {
        !self.watching.is_empty()
    }
    pub(super) fn watching(&self) -> &BTreeSet<PeerId> {
        &self.watching
    }
}

impl Node {
    /// Brings one peer to rest: calls, channels, queues, timer.
    pub(super) fn settle_peer(&mut self, now: Instant, id: PeerId) {
        self.drain_peer(now, id);
        self.drive_call(now, id);
        self.keep_channels(now, id);
        self.drain_peer(now, id);
        if let Some(peer) = self.peers.get(&id) {
            let watching = matches!(&peer.stage, Stage::Live(live) if live.paths.is_watching());
            self.wakeups.set(id, peer.wake(&self.links, now), watching);
        }
    }
}
