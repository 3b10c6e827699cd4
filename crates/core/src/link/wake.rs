//! Waking up: a client's link is most probably gone, and another one is dialled beside the question whether it is.
//!
//! A relay gives up a link that has been silent for half a minute, and keep-alives come every twenty seconds, so that a
//! sleep of more than the difference may have cost the link. Then the relay is dialled as if there were none, while the link
//! in use is asked: the first that connects takes over, and if the old one answers before that, the dials are dropped. What
//! carried the last link goes first; where that was TLS, both carriers begin at once, for UDP may be open where the machine
//! woke up.
//!
//! A machine whose clock is set looks as if it had slept. An agent's links, of which a region has thousands, are only
//! asked where they may be there yet: agents seldom sleep, and a fleet whose clocks are set at once must not dial at once. After a sleep that
//! no link outlives ([`GONE`]) an agent would dial a moment later anyway. A node dials no more than
//! once in [`EVERY`] for it. Our clock may have stood still, so that a sleep of hours counts as time that passed; but only
//! [`EARLY`] times in an [`HOUR`] of our own clock, for what is called a sleep may be none. (`docs/decisions/0019`)

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Links;
use super::relay::{Beside, Phase, Race};
use crate::cx::Cx;
use crate::io::{Carrier, LinkError, LinkId, RelayId};

/// From this sleep on the relay may have given the link up: its idle time of 30 s, less the 20 s between keep-alives.
pub(crate) const DOUBTFUL: Duration = Duration::from_secs(10);
/// After this sleep a relay has given up our links and our side of every channel: a link that was silent for 50 s (TLS; 30 s
/// for UDP) is ended, and a side without a link lasts for 10 s more.
pub(crate) const GONE: Duration = Duration::from_secs(60);
/// More often nobody closes and opens a laptop.
const EVERY: Duration = Duration::from_secs(60);
/// A laptop that is looked at for less than [`EVERY`], and closed again, several times in a row; a clock that is set all day
/// costs a relay so many dials more.
const EARLY: usize = 4;
const HOUR: Duration = Duration::from_secs(3600);
/// UDP's head start over TLS where TLS carried the last link: none.
const AT_ONCE: Duration = Duration::ZERO;

/// When sleeps had links to a relay dialled beside the one in use.
#[derive(Debug, Default)]
pub(super) struct Woken {
    last: Option<Instant>,
    /// Those that our clock alone would not have allowed yet, [`EARLY`] at most.
    early: VecDeque<Instant>,
}

impl Woken {
    /// True if a sleep of so long may have links dialled now.
    fn is_due(&self, now: Instant, slept: Duration) -> bool {
        let Some(awake) = self.awake(now) else {
            return true;
        };
        let recent = |at: &&Instant| now.saturating_duration_since(**at) < HOUR;
        awake >= EVERY
            || (awake.saturating_add(slept) >= EVERY
                && self.early.iter().filter(recent).count() < EARLY)
    }

    fn note(&mut self, now: Instant) {
        if self.awake(now).is_some_and(|awake| awake < EVERY) {
            self.early.push_back(now);
            if self.early.len() > EARLY {
                self.early.pop_front();
            }
        }
        self.last = Some(now);
    }

    /// For how long our clock has gone on since the last time.
    fn awake(&self, now: Instant) -> Option<Duration> {
        self.last.map(|at| now.saturating_duration_since(at))
    }
}

impl Links {
    /// Dials beside the link in use, after a sleep of so long.
    pub(super) fn race_beside(&mut self, cx: &mut Cx<'_>, relay: RelayId, slept: Duration) {
        let Some(r) = self.relays.get(&relay) else {
            return;
        };
        let may_be_there = r.is_kept() && slept < GONE;
        if may_be_there || r.linger_until.is_some() || !r.woken.is_due(cx.now, slept) {
            return;
        }
        let mut race = self.plan_waking(cx, relay);
        let Some(r) = self.relays.get_mut(&relay) else {
            return;
        };
        race.leave_out(r.left_out, cx.now);
        let Phase::Up { beside, .. } = &mut r.phase else {
            return;
        };
        if race.is_lost() {
            return;
        }
        r.woken.note(cx.now);
        let before = std::mem::replace(beside, Beside::Racing(race));
        // What was being made or left is as old as the link in use.
        for link in links_of(&before) {
            self.drop_link(link, LinkError::TimedOut);
        }
        self.start_due_lanes(cx, relay);
    }

    /// A race after a sleep: the way that worked last is not made to wait.
    pub(super) fn plan_waking(&self, cx: &Cx<'_>, relay: RelayId) -> Race {
        let last = self.relays.get(&relay).and_then(|r| r.last_carrier);
        let head_start = match last {
            Some(Carrier::Tls) => AT_ONCE,
            _ => super::race::TLS_AFTER,
        };
        self.plan(cx.now, head_start)
    }

    /// A link connected. If it was dialled beside one that has not answered since, that one is given up.
    pub(super) fn take_over(&mut self, cx: &mut Cx<'_>, relay: RelayId, id: LinkId) {
        let old = match self.relays.get(&relay).map(|r| &r.phase) {
            Some(Phase::Up {
                link,
                beside: Beside::Racing(race),
            }) if race.lanes().any(|lane| lane == id) => *link,
            _ => return,
        };
        self.give_up(cx, relay, old, LinkError::TimedOut);
    }

    /// The link in use is gone: who is dialled beside it runs for it now. False if nobody is.
    pub(super) fn race_on(&mut self, cx: &mut Cx<'_>, relay: RelayId) -> bool {
        let Some(r) = self.relays.get_mut(&relay) else {
            return false;
        };
        let Phase::Up {
            beside: Beside::Racing(race),
            ..
        } = r.phase
        else {
            return false;
        };
        r.failures = 0;
        self.race(cx, relay, race);
        true
    }

    /// The link in use answered, or nobody else can be reached: it stays.
    pub(super) fn end_race_beside(&mut self, cx: &mut Cx<'_>, relay: RelayId) {
        let Some(Phase::Up {
            beside: beside @ Beside::Racing(_),
            ..
        }) = self.relays.get_mut(&relay).map(|r| &mut r.phase)
        else {
            return;
        };
        let race = std::mem::replace(beside, Beside::Nothing);
        for link in links_of(&race) {
            self.drop_link(link, LinkError::HungUp);
        }
        self.plan_upgrade(cx, relay);
    }
}

/// The links that are made, or left, beside the one in use.
fn links_of(beside: &Beside) -> Vec<LinkId> {
    match beside {
        Beside::Nothing | Beside::TryAt(..) => Vec::new(),
        Beside::Trying(link) | Beside::Retiring(link, _) => vec![*link],
        Beside::Racing(race) => race.lanes().collect(),
    }
}
