//! Waking up: which channels are gone for certain.

use std::time::{Duration, Instant};

use byway_wire::relay::control::CloseReason;

use super::Node;
use super::peer::{Peer, Stage};
use crate::io::PeerId;
use crate::link::wake::GONE;

impl Node {
    /// After a sleep that no channel outlives, those that we opened are opened anew, with what the tunnel has to say inside,
    /// on the first link that connects. Attaching them would cost a round trip for the answer that there are none. If the
    /// clock was merely set, this costs a relayed tunnel a round trip; hence not on every sleep.
    pub(super) fn give_up_channels(&mut self, now: Instant, slept: Duration) {
        self.now = now;
        let ids: Vec<PeerId> = self.peers.keys().copied().collect();
        for id in ids {
            let Some(Peer {
                dial: Some(dial),
                stage: Stage::Live(_),
                channels,
                ..
            }) = self.peers.get_mut(&id)
            else {
                continue;
            };
            // Whatever failed before, failed in another network and long ago.
            dial.failures = 0;
            dial.reopen_at = now;
            let gone: Vec<_> = channels
                .iter()
                .filter(|_| slept >= GONE)
                .map(|c| c.id)
                .collect();
            for channel in gone {
                // Not `Done`: that would say that we forgot the peer.
                self.close_channel(id, channel, CloseReason::Limit);
            }
            self.touched.insert(id);
        }
    }
}
