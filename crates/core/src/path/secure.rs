//! The association with one peer instance: keys, indexes, counters, replay window (design section 4).

use bytes::Bytes;
use byway_wire::pair::{PairKeys, ReplayWindow};
use byway_wire::probe::{self, Index, Probe, ProbeBody, ProbeError};
use byway_wire::signal::{self, Signal, SignalBody};

use crate::counters::Counters;
use crate::rng::Rng;

/// Seals and opens what goes between us and one peer instance.
pub(crate) struct Association {
    keys: PairKeys,
    /// What the peer writes into probes for us.
    own_index: Index,
    /// What we write into probes for the peer; known with its first candidates.
    peer_index: Option<Index>,
    /// Of the last message we sealed; one count for probes and signals.
    counter: u64,
    /// Of probes, which overtake each other.
    window: ReplayWindow,
    /// Of the last signal obeyed. A relay that held an older one back must not undo what came after it. They are repeated until they
    /// arrive, and a spray has more probes than a window while one is under way: so the window is not theirs.
    last_signal: u64,
}

impl std::fmt::Debug for Association {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Association")
            .field("own_index", &self.own_index)
            .field("peer_index", &self.peer_index)
            .finish_non_exhaustive()
    }
}

impl Association {
    /// `counter` must be above that of any earlier association of ours with the same instance, for its window outlives
    /// our forgetting.
    pub(crate) fn new(keys: PairKeys, own_index: Index, counter: u64) -> Self {
        Self {
            keys,
            own_index,
            peer_index: None,
            counter,
            window: ReplayWindow::new(),
            last_signal: 0,
        }
    }
    pub(crate) fn own_index(&self) -> Index {
        self.own_index
    }
    pub(crate) fn peer_index(&self) -> Option<Index> {
        self.peer_index
    }
    pub(crate) fn set_peer_index(&mut self, index: Index) {
        self.peer_index = Some(index);
    }
    pub(crate) fn forget_peer_index(&mut self) {
        self.peer_index = None;
    }

    /// None until the peer's index is known.
    pub(crate) fn seal_probe(
        &mut self,
        rng: &mut Rng,
        body: ProbeBody,
        size: usize,
    ) -> Option<Bytes> {
        let index = self.peer_index?;
        self.counter += 1;
        let probe = Probe {
            counter: self.counter,
            body,
        };
        Some(probe::seal(&self.keys, index, &rng.bytes(), &probe, size).into())
    }
    pub(crate) fn seal_signal(&mut self, rng: &mut Rng, body: SignalBody) -> Bytes {
        self.counter += 1;
        let signal = Signal {
            counter: self.counter,
            body,
        };
        signal::seal(&self.keys, &rng.bytes(), &signal).into()
    }

    /// None if it is not the peer's, or was seen before: counted, and nothing changes.
    pub(crate) fn open_probe(
        &mut self,
        counters: &mut Counters,
        datagram: &[u8],
    ) -> Option<ProbeBody> {
        match probe::open(&self.keys, datagram) {
            Ok(probe) if self.window.accept(probe.counter) => return Some(probe.body),
            Ok(_) => counters.probe_replayed += 1,
            Err(ProbeError::Forged) => counters.probe_forged += 1,
            Err(_) => counters.probe_malformed += 1,
        }
        None
    }
    pub(crate) fn open_signal(
        &mut self,
        counters: &mut Counters,
        sealed: &[u8],
    ) -> Option<SignalBody> {
        match signal::open(&self.keys, sealed) {
            Ok(signal) if signal.counter > self.last_signal => {
                self.last_signal = signal.counter;
                return Some(signal.body);
            }
            Ok(_) => counters.signal_replayed += 1,
            Err(_) => counters.signal_forged += 1,
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use byway_wire::probe::TxId;

    use super::*;
    use crate::path::rig::Rig;

    fn goodbye(of: &mut Association, rng: &mut Rng) -> Bytes {
        of.seal_signal(rng, SignalBody::Goodbye)
    }

    #[test]
    fn a_signal_that_a_spray_overtakes_is_heard_and_none_is_twice() {
        let Rig {
            mut rng,
            mut counters,
            paths,
            peer: mut own,
            ..
        } = Rig::new(false);
        let mut peer = paths.association;
        let signals = [(); 2].map(|()| goodbye(&mut own, &mut rng));
        for n in 0..3_000u32 {
            let txid = TxId([n as u8; 12]);
            let probe = own.seal_probe(&mut rng, ProbeBody::Ping { txid }, 120);
            assert!(peer.open_probe(&mut counters, &probe.unwrap()).is_some());
        }
        assert!(peer.open_signal(&mut counters, &signals[1]).is_some());
        for signal in &signals {
            assert!(peer.open_signal(&mut counters, signal).is_none());
        }
        assert_eq!(counters.signal_replayed, 2);
        let next = goodbye(&mut own, &mut rng);
        assert!(peer.open_signal(&mut counters, &next).is_some());
    }
}
