//! Channels of a peer that is known and was dialled: opened anew when they are lost, and a second one beside the first.

use std::time::{Duration, Instant};

use super::Node;
use super::peer::{Dial, Stage};
use crate::io::{PeerId, RelayId};
use crate::rng::Rng;

/// Lost channels are opened anew after this long, doubling.
const REOPEN: Duration = Duration::from_millis(200);
const REOPEN_MAX: Duration = Duration::from_secs(30);

impl Node {
    /// A live peer that we dialled has no channel any more: opens one where a link is usable. Or it has one only: opens
    /// the second, through another relay.
    pub(super) fn reopen(&mut self, now: Instant, id: PeerId) {
        let Some(peer) = self.peers.get(&id) else {
            return;
        };
        let (Some(dial), Stage::Live(_)) = (&peer.dial, &peer.stage) else {
            return;
        };
        if let Some(relay) = peer.standby_relay(&self.links, now) {
            if let Some(link) = self.links.usable(relay) {
                self.open(now, id, relay, link);
            }
            return;
        }
        if peer.has_channel()
            || dial.reopen_at > now
            || peer.channels.len() >= super::peer::MAX_CHANNELS
        {
            return;
        }
        // A detached channel of the same relay is about to be attached.
        let usable = dial.relays.iter().filter_map(|&relay| {
            let waits = peer.channels.iter().any(|c| c.relay == relay);
            let link = self.links.usable(relay).filter(|_| !waits)?;
            Some((relay, link))
        });
        let ends = |relay| self.links.will_stop(relay) || dial.left.contains(&relay);
        let next = usable.min_by_key(|&(relay, _)| ends(relay));
        if let Some((relay, link)) = next {
            self.open(now, id, relay, link);
        }
    }
}

impl Dial {
    /// A channel could not be opened, or is gone; `other`: another one carries data, or is being opened. The next pause counts
    /// from when that was `sent`: a relay that waited for the peer meanwhile made the pause.
    pub(super) fn failed(
        &mut self,
        sent: Instant,
        relay: Option<RelayId>,
        other: bool,
        rng: &mut Rng,
    ) {
        if other {
            self.standby_failed(sent, relay, rng);
        } else {
            self.ask_last(relay);
            self.reopen_at = sent + reopen_wait(self.failures, rng);
        }
    }

    /// The second channel could not be opened, or is gone.
    fn standby_failed(&mut self, sent: Instant, relay: Option<RelayId>, rng: &mut Rng) {
        self.put_last(relay);
        self.standby_failures = self.standby_failures.saturating_add(1);
        self.standby_at = sent + reopen_wait(self.standby_failures, rng);
    }
}

/// The wait before the next opening, after so many failed in a row; jittered, for many lose a relay in one instant.
fn reopen_wait(failures: u32, rng: &mut Rng) -> Duration {
    let wait = (REOPEN * 2u32.saturating_pow(failures.min(16))).min(REOPEN_MAX);
    rng.between(wait / 2, wait)
}
