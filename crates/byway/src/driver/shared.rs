//! What the driver shows to the endpoint's callers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use byway_core::counters::Counters;
use byway_core::discovery::NatReport;
use byway_core::io::PeerId;
use byway_wire::signal::Candidate;
use byway_wire::{RelayUrl, SignedRecord};
use tokio::sync::{Semaphore, watch};

use super::peer::{Live, Peer};
use crate::endpoint::LinkStatus;

/// A resolver answers more in no less time.
const LOOKUPS: usize = 16;

#[derive(Debug)]
pub(crate) struct Shared {
    /// The node's own record, for greetings and for those who have been greeted.
    pub(crate) record: watch::Sender<Arc<SignedRecord>>,
    /// The relays that it names.
    pub(crate) found_at: watch::Sender<Vec<RelayUrl>>,
    /// All relays that are configured, or in the relay map.
    pub(crate) own_relays: ArcSwap<Vec<RelayUrl>>,
    /// Names that are looked up at once: a relay map has many, and each takes a thread.
    pub(crate) lookups: Semaphore,
    pub(crate) links: watch::Sender<Vec<LinkStatus>>,
    pub(crate) addresses: watch::Sender<Vec<Candidate>>,
    pub(crate) report: watch::Sender<Arc<NatReport>>,
    /// Counts changes of the host's addresses.
    pub(crate) network: watch::Sender<u64>,
    /// Names of servers that do not resolve at present.
    unresolved: Mutex<BTreeSet<String>>,
    peers: Mutex<BTreeMap<PeerId, Arc<Peer>>>,
    /// What the node dropped and refused, as of its last turn.
    counters: Mutex<Counters>,
}

impl Shared {
    pub(crate) fn new(record: SignedRecord) -> Self {
        Self {
            record: watch::Sender::new(Arc::new(record)),
            found_at: watch::Sender::new(Vec::new()),
            own_relays: ArcSwap::default(),
            lookups: Semaphore::new(LOOKUPS),
            links: watch::Sender::new(Vec::new()),
            addresses: watch::Sender::new(Vec::new()),
            report: watch::Sender::new(Arc::default()),
            network: watch::Sender::new(0),
            unresolved: Mutex::default(),
            peers: Mutex::default(),
            counters: Mutex::default(),
        }
    }

    pub(crate) fn peer(&self, id: PeerId) -> Option<Arc<Peer>> {
        self.peers().get(&id).cloned()
    }

    /// Every established tunnel of this endpoint.
    pub(crate) fn tunnels(&self) -> Vec<Live> {
        let peers = self.peers();
        peers.values().flat_map(|peer| peer.tunnels()).collect()
    }

    /// Notes whether a server's name resolves.
    pub(crate) fn note_name(&self, name: &str, resolves: bool) {
        let mut unresolved = self.unresolved();
        if resolves {
            unresolved.remove(name);
        } else {
            unresolved.insert(name.to_owned());
        }
    }

    pub(crate) fn unresolved(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.unresolved
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn counters(&self) -> Counters {
        *self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_counters(&self, counters: Counters) {
        *self.counters.lock().unwrap_or_else(PoisonError::into_inner) = counters;
    }

    pub(super) fn peers(&self) -> MutexGuard<'_, BTreeMap<PeerId, Arc<Peer>>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
