//! The transitions of one relay: who starts when, who wins, who replaces whom.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::backoff;
use super::leaving::Leaving;
use super::relay::{Beside, Lane, LeftOut, Phase, Race};
use super::{DIAL_LIMIT, Link, LinkState, Links, Output};
use crate::cx::Cx;
use crate::io::{Carrier, LinkError, LinkId, LinkMode, RelayId};

/// TLS starts this much after UDP: a UDP handshake over a usual round trip is done by then.
pub(super) const TLS_AFTER: Duration = Duration::from_millis(300);
/// When UDP connected in time, TLS still starts this much later unless the relay has welcomed us.
const TLS_AFTER_CONNECTED: Duration = Duration::from_secs(1);
/// While on TLS, UDP is tried again this often (design section 7).
const UPGRADE_MIN: Duration = Duration::from_secs(30);
const UPGRADE_MAX: Duration = Duration::from_secs(60);
/// How long a replaced link stays: attaching takes a round trip, and what was under way arrives meanwhile.
const RETIRE: Duration = Duration::from_secs(3);
/// A relay whose link lasted this long works; one that welcomes everybody and breaks at once is dialled ever more seldom.
pub(super) const STEADY: Duration = Duration::from_secs(10);
/// Rounds in a row that a relay may fail which another one named: about two minutes.
const NAMED_ROUNDS: u32 = 16;

impl Links {
    pub(super) fn start_race(&mut self, cx: &mut Cx<'_>, relay: RelayId) {
        let race = self.plan(cx.now, TLS_AFTER);
        self.race(cx, relay, race);
    }

    /// A race from now on, as the settings allow.
    pub(super) fn plan(&self, now: Instant, tls_after: Duration) -> Race {
        let (udp, tls) = match self.mode {
            LinkMode::Auto => (Lane::At(now), Lane::At(now + tls_after)),
            LinkMode::Udp => (Lane::At(now), Lane::Off),
            LinkMode::Tls => (Lane::Off, Lane::At(now)),
        };
        Race { udp, tls }
    }

    pub(super) fn race(&mut self, cx: &mut Cx<'_>, relay: RelayId, mut race: Race) {
        let mode = self.mode;
        if let Some(r) = self.relays.get_mut(&relay) {
            race.leave_out(r.left_out, cx.now);
            r.phase = if race.is_lost() {
                let until = r.left_out.first_free(mode, cx.now);
                Phase::Resting { until }
            } else {
                Phase::Racing(race)
            };
        }
        self.start_due_lanes(cx, relay);
    }

    pub(super) fn start_due_lanes(&mut self, cx: &mut Cx<'_>, relay: RelayId) {
        for carrier in [Carrier::Udp, Carrier::Tls] {
            let race = self.relays.get_mut(&relay).and_then(|r| r.phase.race());
            let due = race
                .is_some_and(|race| matches!(race.lane(carrier), Lane::At(at) if *at <= cx.now));
            if due {
                let link = self.dial(cx, relay, carrier);
                let race = self.relays.get_mut(&relay).and_then(|r| r.phase.race());
                if let Some(race) = race {
                    *race.lane(carrier) = Lane::Trying(link);
                }
            }
        }
    }

    fn dial(&mut self, cx: &Cx<'_>, relay: RelayId, carrier: Carrier) -> LinkId {
        let id = LinkId(self.next_link);
        self.next_link += 1;
        self.links.insert(
            id,
            Link {
                relay,
                carrier,
                state: LinkState::Dialing {
                    until: cx.now + DIAL_LIMIT,
                },
                shown: None,
                tokens_out: VecDeque::new(),
            },
        );
        self.out.push_back(Output::Dial {
            link: id,
            relay,
            carrier,
        });
        id
    }

    /// Ends a link that lost; channels on it are reported lost too.
    pub(super) fn drop_link(&mut self, id: LinkId, error: LinkError) {
        let Some(link) = self.links.remove(&id) else {
            return;
        };
        self.hang_up(id);
        if link.is_usable() {
            self.out.push_back(Output::Lost {
                link: id,
                relay: link.relay,
                error,
                welcomed: link.is_ready(),
            });
        }
    }

    pub(super) fn on_connected(&mut self, cx: &mut Cx<'_>, relay: RelayId, id: LinkId) {
        self.take_over(cx, relay, id);
        let udp = self
            .links
            .get(&id)
            .is_some_and(|l| l.carrier == Carrier::Udp);
        if let Some(Phase::Racing(race)) = self.relays.get_mut(&relay).map(|r| &mut r.phase)
            && udp
            && matches!(race.tls, Lane::At(_))
        {
            race.tls = Lane::At(cx.now + TLS_AFTER_CONNECTED);
        }
    }

    pub(super) fn on_welcomed(&mut self, cx: &mut Cx<'_>, relay: RelayId, id: LinkId) {
        let Some(carrier) = self.links.get(&id).map(|l| l.carrier) else {
            return;
        };
        let Some(r) = self.relays.get_mut(&relay) else {
            return;
        };
        r.welcomed = Some(cx.now);
        // Who stops welcomes no newcomer: this is its successor, or it says again that it stops.
        r.leaving = Leaving::No;
        r.last_carrier = Some(carrier);
        r.last_error = None;
        match &mut r.phase {
            Phase::Racing(race) => {
                let other = match carrier {
                    Carrier::Udp => &race.tls,
                    Carrier::Tls => &race.udp,
                };
                let other = match other {
                    Lane::Trying(link) => Some(*link),
                    _ => None,
                };
                let other_usable =
                    other.is_some_and(|o| self.links.get(&o).is_some_and(Link::is_usable));
                let beside = match (carrier, other) {
                    // UDP goes on beside TLS: it replaces it when it is good.
                    (Carrier::Tls, Some(udp)) => Beside::Trying(udp),
                    (Carrier::Tls, None) => upgrade(cx, self.mode),
                    // Opens may have gone out on the TLS link: let their answers arrive.
                    (Carrier::Udp, Some(tls)) if other_usable => {
                        self.out.push_back(Output::Replace { old: tls, new: id });
                        Beside::Retiring(tls, cx.now + RETIRE)
                    }
                    (Carrier::Udp, _) => Beside::Nothing,
                };
                let drop_tls = (carrier == Carrier::Udp && !other_usable)
                    .then_some(other)
                    .flatten();
                r.phase = Phase::Up { link: id, beside };
                if let Some(tls) = drop_tls {
                    self.drop_link(tls, LinkError::HungUp);
                }
            }
            Phase::Up { .. } => self.replace_if_good(cx, relay, id),
            Phase::Idle | Phase::Resting { .. } => self.drop_link(id, LinkError::HungUp),
        }
    }

    pub(super) fn on_proven(&mut self, cx: &mut Cx<'_>, relay: RelayId, id: LinkId) {
        // What failed beside it is of no account any more.
        if let Some(r) = self.relays.get_mut(&relay)
            && matches!(r.phase, Phase::Up { link, .. } if link == id)
        {
            r.last_error = None;
        }
        // The link in use proved itself: what was to replace it for its silence is not needed.
        if let Some(Phase::Up { link, beside }) = self.relays.get_mut(&relay).map(|r| &mut r.phase)
            && *link == id
            && let Beside::Trying(other) = *beside
            && self
                .links
                .get(&other)
                .is_some_and(|l| l.carrier == Carrier::Tls)
        {
            *beside = Beside::Nothing;
            self.drop_link(other, LinkError::HungUp);
        }
        self.replace_if_good(cx, relay, id);
    }

    /// The link being made beside the one in use takes over once it is good.
    fn replace_if_good(&mut self, cx: &mut Cx<'_>, relay: RelayId, id: LinkId) {
        if !self.links.get(&id).is_some_and(Link::is_proven) {
            return;
        }
        let Some(Phase::Up { link, beside }) = self.relays.get_mut(&relay).map(|r| &mut r.phase)
        else {
            return;
        };
        if !matches!(beside, Beside::Trying(trying) if *trying == id) {
            return;
        }
        let old = std::mem::replace(link, id);
        *beside = Beside::Retiring(old, cx.now + RETIRE);
        self.out.push_back(Output::Replace { old, new: id });
    }

    /// A UDP link does not carry data.
    pub(super) fn on_data_failed(&mut self, cx: &mut Cx<'_>, relay: RelayId, id: LinkId) {
        let mode = self.mode;
        let Some(Phase::Up { link, beside }) = self.relays.get_mut(&relay).map(|r| &mut r.phase)
        else {
            return;
        };
        if *link == id {
            if mode == LinkMode::Auto && matches!(beside, Beside::Nothing | Beside::TryAt(..)) {
                self.try_beside(cx, relay, Carrier::Tls);
            }
        } else if matches!(beside, Beside::Trying(trying) if *trying == id) {
            *beside = upgrade(cx, mode);
            self.drop_link(id, LinkError::HungUp);
        }
    }

    /// A dial failed or a link ended, whoever ended it.
    pub(super) fn on_gone(&mut self, cx: &mut Cx<'_>, id: LinkId, error: LinkError) {
        let Some(gone) = self.links.remove(&id) else {
            return;
        };
        let relay = gone.relay;
        self.note_stopped(relay);
        let Some(r) = self.relays.get_mut(&relay) else {
            return;
        };
        if let Some(time) = backoff::hold(cx.rng, &error) {
            r.left_out.hold(gone.carrier, cx.now + time);
        }
        let timed_out = error == LinkError::TimedOut;
        r.silent |= timed_out && gone.is_ready();
        // That the other carrier leads nowhere is no news beside what was said over this one; and no proxy carries UDP.
        let (by, error) = match r.last_error.take() {
            Some((by, told)) if by != gone.carrier && !error.is_news_beside(&told) => (by, told),
            _ => (gone.carrier, error),
        };
        r.last_error = Some((by, error.clone()));
        if gone.is_usable() {
            self.out.push_back(Output::Lost {
                link: id,
                relay,
                error: error.clone(),
                welcomed: gone.is_ready(),
            });
        }
        let mut of_relay = self.links.values().filter(|l| l.relay == relay);
        if !gone.is_ready() && !of_relay.any(Link::is_ready) {
            let error = error.clone();
            self.out.push_back(Output::Failed { relay, error });
        }
        // It was good, and fell silent: this machine slept, or had no network. That its relay is not to be dialled by
        // all its nodes at once is no reason to wait then, for nobody else's link fell silent at this moment.
        let fell_silent = timed_out && r.welcomed.is_some_and(|at| at + STEADY <= cx.now);
        match &mut r.phase {
            Phase::Racing(race) => {
                *race.lane(gone.carrier) = Lane::Failed;
                if race.is_lost() {
                    self.rest(cx, relay, error);
                    return;
                }
                // No use in waiting for UDP's head start any more.
                race.hurry(cx.now);
                self.start_due_lanes(cx, relay);
            }
            Phase::Up { link, beside } if *link == id => match *beside {
                Beside::Trying(other) => {
                    let head_start = if fell_silent {
                        Duration::ZERO
                    } else {
                        TLS_AFTER
                    };
                    let carrier = self.links.get(&other).map_or(Carrier::Tls, |l| l.carrier);
                    let welcomed = self.links.get(&other).is_some_and(Link::is_ready);
                    if welcomed {
                        r.phase = Phase::Up {
                            link: other,
                            beside: Beside::Nothing,
                        };
                        if carrier == Carrier::Tls {
                            self.plan_upgrade(cx, relay);
                        }
                        return;
                    }
                    let race = match carrier {
                        Carrier::Udp => Race {
                            udp: Lane::Trying(other),
                            tls: Lane::At(cx.now + head_start),
                        },
                        Carrier::Tls => Race {
                            udp: Lane::At(cx.now),
                            tls: Lane::Trying(other),
                        },
                    };
                    self.race(cx, relay, race);
                }
                Beside::Retiring(old, _) => {
                    self.drop_link(old, LinkError::HungUp);
                    self.rest(cx, relay, error);
                }
                Beside::Racing(_) => {
                    self.race_on(cx, relay);
                }
                Beside::Nothing | Beside::TryAt(..) if fell_silent => {
                    self.race_anew(cx, relay, true);
                }
                Beside::Nothing | Beside::TryAt(..) => self.rest(cx, relay, error),
            },
            Phase::Up {
                beside: Beside::Racing(race),
                ..
            } => {
                *race.lane(gone.carrier) = Lane::Failed;
                race.hurry(cx.now);
                if race.is_lost() {
                    self.end_race_beside(cx, relay);
                } else {
                    self.start_due_lanes(cx, relay);
                }
            }
            Phase::Up { link, beside } => {
                let tls = self
                    .links
                    .get(link)
                    .is_some_and(|l| l.carrier == Carrier::Tls);
                if matches!(*beside, Beside::Trying(b) | Beside::Retiring(b, _) if b == id) {
                    // Beside UDP, TLS is tried only because UDP carries no data: that need has not gone.
                    *beside = match (tls, gone.carrier, &*beside) {
                        (true, ..) => upgrade(cx, self.mode),
                        (false, Carrier::Tls, Beside::Trying(_)) => Beside::TryAt(
                            cx.now + cx.rng.between(UPGRADE_MIN, UPGRADE_MAX) / 6,
                            Carrier::Tls,
                        ),
                        _ => Beside::Nothing,
                    };
                }
            }
            Phase::Idle | Phase::Resting { .. } => {}
        }
    }

    /// Waits before the next round. A link that worked until now is dialled again almost at once.
    fn rest(&mut self, cx: &mut Cx<'_>, relay: RelayId, error: LinkError) {
        let mode = self.mode;
        let Some(r) = self.relays.get_mut(&relay) else {
            return;
        };
        if r.welcomed.take().is_some_and(|at| at + STEADY <= cx.now) {
            r.failures = 0;
        }
        let delay = backoff::delay(cx.rng, r.failures, &error);
        r.failures = r.failures.saturating_add(1);
        let until = r.left_out.first_free(mode, cx.now).max(cx.now + delay);
        // One that stops and says so refuses whoever comes, and what it named is of use until it is asked anew.
        let until = r.leaving.rest_until(until);
        r.phase = Phase::Resting { until };
        // What a relay named is not called for ever: nobody here asked for it.
        if r.named.is_some() && r.failures > NAMED_ROUNDS {
            r.kept = false;
            r.linger_until.get_or_insert(cx.now);
        }
        self.out.push_back(Output::RoundFailed { relay, error });
    }

    pub(super) fn on_relay_due(&mut self, cx: &mut Cx<'_>, relay: RelayId) {
        self.run_leaving(cx.now, relay);
        let Some(r) = self.relays.get_mut(&relay) else {
            return;
        };
        if r.linger_until.is_some_and(|t| t <= cx.now) {
            r.linger_until = None;
            r.left_out = LeftOut::default();
            // Before its links are told of: that they end is no loss then.
            self.note_parted(relay);
            if !self.leave(cx, relay) {
                if let Some(r) = self.relays.get_mut(&relay) {
                    r.failures = 0;
                    r.phase = Phase::Idle;
                }
                self.hang_up_all(relay);
            }
            return;
        }
        match &mut r.phase {
            Phase::Idle => {}
            Phase::Racing(_) => self.start_due_lanes(cx, relay),
            Phase::Resting { until } => {
                if *until <= cx.now {
                    self.start_race(cx, relay);
                }
            }
            Phase::Up { beside, .. } => match *beside {
                Beside::Racing(_) => self.start_due_lanes(cx, relay),
                Beside::TryAt(at, carrier) if at <= cx.now => self.try_beside(cx, relay, carrier),
                Beside::Retiring(old, until) if until <= cx.now => {
                    *beside = Beside::Nothing;
                    self.drop_link(old, LinkError::HungUp);
                    self.plan_upgrade(cx, relay);
                }
                _ => {}
            },
        }
    }

    /// Has a link made beside the one in use, now or when its carrier is not left out any more.
    fn try_beside(&mut self, cx: &mut Cx<'_>, relay: RelayId, carrier: Carrier) {
        let left_out = self.relays.get(&relay).map(|r| r.left_out);
        let next = match left_out.and_then(|out| out.until(carrier, cx.now)) {
            Some(at) => Beside::TryAt(at, carrier),
            None => Beside::Trying(self.dial(cx, relay, carrier)),
        };
        if let Some(Phase::Up { beside, .. }) = self.relays.get_mut(&relay).map(|r| &mut r.phase) {
            *beside = next;
        }
    }

    /// On TLS, UDP will be tried again.
    pub(super) fn plan_upgrade(&mut self, cx: &mut Cx<'_>, relay: RelayId) {
        let mode = self.mode;
        if let Some(Phase::Up { link, beside }) = self.relays.get_mut(&relay).map(|r| &mut r.phase)
            && self
                .links
                .get(link)
                .is_some_and(|l| l.carrier == Carrier::Tls)
        {
            *beside = upgrade(cx, mode);
        }
    }
}

/// When a node on TLS tries UDP again.
fn upgrade(cx: &mut Cx<'_>, mode: LinkMode) -> Beside {
    match mode {
        LinkMode::Auto => Beside::TryAt(
            cx.now + cx.rng.between(UPGRADE_MIN, UPGRADE_MAX),
            Carrier::Udp,
        ),
        LinkMode::Udp | LinkMode::Tls => Beside::Nothing,
    }
}
