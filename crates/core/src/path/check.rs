//! Checking one path: the probe ladder, then the size tests. Timers only; the pings themselves are sent by
//! [`super::Paths`].

use std::time::{Duration, Instant};

use super::rtt::{Loss, Rtt};
use super::score::{PathId, Standing};
use super::size::{Carried, FULL_SIZE, Sized, Sizing};
use crate::io::{PathKind, Way};

/// Probes that only ask whether somebody is there.
pub(crate) const SMALL_SIZE: u16 = 120;

/// When small pings go to an attested address, in milliseconds after the start: dense while both NATs open.
const LADDER: [u64; 7] = [0, 25, 50, 100, 200, 400, 800];
/// Then slowly and only while the tunnel is active, in milliseconds after the last one.
const SLOW: [u64; 4] = [2_000, 5_000, 15_000, 60_000];
/// Three small probes are all an address gets that nobody attests; spread over the skew between the two sides' starts.
/// It gets three more, once, when an authenticated ping comes from there: that may be a NAT that just opened, but a
/// source address can be forged, so it is no proof.
const UNATTESTED: [u64; 3] = [0, 100, 400];
/// A search whose last ping is older than this has become slow: it begins anew when the peer speaks of the address again.
const RESTED: Duration = Duration::from_secs(1);
/// After the last of them, an answer may still come for this long.
const LAST_CHANCE: Duration = Duration::from_secs(1);

/// A direct path that has not answered for this long may have lost its NAT mapping: it is asked before it is used.
const FRESH: Duration = Duration::from_secs(30);

/// A loser of a failover stays out this long at first, doubling to ten minutes.
const QUARANTINE: Duration = Duration::from_secs(10);
const QUARANTINE_MAX: Duration = Duration::from_secs(600);

/// Samples for which a path that data has left must be better before data returns: a path that is bad and good by turns
/// would otherwise take the tunnel along each time. Doubles with each return, to a minute.
const RETURN_HOLD: u32 = 3;
const RETURN_HOLD_MAX: u32 = 60;

/// How far a path has been proven.
#[derive(Debug)]
pub(crate) enum Stage {
    /// Nothing came back yet.
    Searching { rung: usize, next: Instant },
    /// It answers; which datagrams does it carry?
    Sizing(Sizing),
    /// Proven both ways at a size.
    Valid(Carried),
    /// It lost a failover, or does not carry 1,200 bytes.
    Quarantined { until: Instant },
}

/// One way to the peer, with what is known of it.
#[derive(Debug)]
pub(crate) struct Path {
    pub(crate) id: PathId,
    pub(crate) way: Way,
    pub(crate) stage: Stage,
    /// A relay, or the peer itself by an answer, says that the peer is at this address.
    pub(crate) attested: bool,
    /// An authenticated ping came from here: an unattested address was given its further probes.
    pub(crate) heard: bool,
    pub(crate) rtt: Option<Rtt>,
    pub(crate) loss: Loss,
    pub(crate) last_answer: Option<Instant>,
    /// When the first ping was sent that no later answer followed.
    pub(crate) waiting_since: Option<Instant>,
    pub(crate) last_ping: Option<Instant>,
    /// The shell was told that datagrams may come in here.
    pub(crate) told: bool,
    /// Failovers lost; doubles the quarantine.
    strikes: u32,
    /// How often data left it for a worse sort of path; doubles the time it must be better before data returns.
    left: u32,
}

impl Path {
    pub(crate) fn new(id: PathId, way: Way, attested: bool, now: Instant) -> Self {
        let stage = match way.kind() {
            PathKind::Direct => Stage::Searching { rung: 0, next: now },
            // The relay says that the peer is on the channel: only the sizes are open.
            PathKind::RelayUdp | PathKind::RelayTls => Stage::Sizing(Sizing::new(now)),
        };
        Self {
            id,
            way,
            stage,
            attested,
            heard: false,
            rtt: None,
            loss: Loss::default(),
            last_answer: None,
            waiting_since: None,
            last_ping: None,
            told: false,
            strikes: 0,
            left: 0,
        }
    }

    pub(crate) fn is_direct(&self) -> bool {
        self.way.kind() == PathKind::Direct
    }
    /// It answered lately. One that has not may have lost its NAT mapping.
    pub(crate) fn is_fresh(&self, now: Instant) -> bool {
        self.last_answer.is_some_and(|t| t + FRESH > now)
    }
    /// The size proven, once the tests are over.
    pub(crate) fn concluded(&self) -> Option<u16> {
        match self.stage {
            Stage::Valid(carried) => Some(carried.size()),
            _ => None,
        }
    }
    /// What a route counts with: full size until the tests have said otherwise.
    pub(crate) fn size_or_hope(&self) -> u16 {
        self.concluded().unwrap_or(FULL_SIZE)
    }
    pub(crate) fn is_quarantined(&self) -> bool {
        matches!(self.stage, Stage::Quarantined { .. })
    }
    pub(crate) fn smoothed(&self) -> Option<Duration> {
        self.rtt.map(|r| r.smoothed)
    }
    pub(crate) fn standing(&self) -> Standing {
        let family = match self.way {
            Way::Direct { remote, .. } if remote.is_ipv6() => 0,
            Way::Direct { .. } => 1,
            Way::Channel { .. } => 2,
        };
        Standing {
            id: self.id,
            kind: self.way.kind(),
            family,
            rtt: self.smoothed(),
            narrow: self.concluded().is_some_and(|size| size < FULL_SIZE),
            loss_percent: self.loss.percent(),
            pings: self.loss.pings(),
        }
    }

    /// When this path wants to ping next by itself. `active`: the tunnel is in use.
    pub(crate) fn next_check(&self, active: bool) -> Option<Instant> {
        match self.stage {
            Stage::Searching { rung, next } => {
                (active || rung <= self.ladder().len()).then_some(next)
            }
            Stage::Sizing(sizing) => Some(sizing.next()),
            Stage::Quarantined { until } => active.then_some(until),
            Stage::Valid(carried) => carried.next().filter(|_| active),
        }
    }

    /// Advances the check; gives the sizes of the pings to send now, or says that the path is done with.
    pub(crate) fn advance(&mut self, now: Instant) -> Advance {
        match &mut self.stage {
            Stage::Searching { rung, next } if *next <= now => {
                let ladder: &[u64] = if self.attested { &LADDER } else { &UNATTESTED };
                let step = *rung;
                *rung += 1;
                if let Some(gap) = ladder.get(step + 1).map(|at| at - ladder[step]) {
                    *next = now + Duration::from_millis(gap);
                } else if step + 1 == ladder.len() {
                    *next = now
                        + if self.attested {
                            Duration::from_millis(SLOW[0])
                        } else {
                            LAST_CHANCE
                        };
                } else if !self.attested {
                    return Advance::Hopeless;
                } else {
                    let slow = SLOW[(step + 1 - ladder.len()).min(SLOW.len() - 1)];
                    *next = now + Duration::from_millis(slow);
                }
                Advance::Ping(vec![SMALL_SIZE])
            }
            Stage::Sizing(sizing) => {
                match sizing.advance(now, self.rtt) {
                    Sized::Asks(sizes) => return Advance::Ping(sizes),
                    Sized::Waits => {}
                    Sized::Carries(size) => self.stage = Stage::Valid(Carried::new(now, size)),
                    Sized::CarriesNothing => self.quarantine(now),
                }
                Advance::Ping(Vec::new())
            }
            Stage::Valid(carried) => Advance::Ping(carried.advance(now)),
            Stage::Quarantined { until } if *until <= now => {
                self.stage = match self.way.kind() {
                    PathKind::Direct => Stage::Searching { rung: 0, next: now },
                    PathKind::RelayUdp | PathKind::RelayTls => Stage::Sizing(Sizing::new(now)),
                };
                self.advance(now)
            }
            _ => Advance::Ping(Vec::new()),
        }
    }

    /// A ping of `size` bytes was answered after `sample`.
    pub(crate) fn answered(&mut self, now: Instant, size: u16, sample: Duration) {
        let rtt = match &mut self.rtt {
            Some(rtt) => {
                rtt.add(sample);
                *rtt
            }
            None => *self.rtt.insert(Rtt::first(sample)),
        };
        self.last_answer = Some(now);
        self.waiting_since = None;
        match &mut self.stage {
            Stage::Searching { .. } => {
                self.attested = true;
                self.stage = Stage::Sizing(Sizing::new(now));
            }
            Stage::Sizing(sizing) => sizing.answered(now, size, rtt),
            Stage::Valid(carried) => carried.answered(size),
            Stage::Quarantined { .. } => {}
        }
    }

    /// The peer pinged us here: probably it can be reached now.
    pub(crate) fn heard_ping(&mut self, now: Instant) {
        let again = !std::mem::replace(&mut self.heard, true);
        if !self.attested
            && let Stage::Searching { rung, next } = &mut self.stage
        {
            if again && *rung > 0 {
                (*rung, *next) = (0, now);
            }
            return;
        }
        match &mut self.stage {
            Stage::Searching { rung, next } => {
                let rested = self
                    .last_ping
                    .is_none_or(|at| at + Duration::from_millis(LADDER[1]) <= now);
                if *rung > 0 && *next > now && rested {
                    *next = now;
                }
            }
            // The peer takes the path for good again, and it has been out for its time.
            Stage::Quarantined { until } if *until <= now => {
                self.stage = Stage::Searching { rung: 0, next: now }
            }
            _ => {}
        }
    }

    pub(crate) fn quarantine(&mut self, now: Instant) {
        let wait = (QUARANTINE * 2u32.saturating_pow(self.strikes.min(16))).min(QUARANTINE_MAX);
        self.strikes = self.strikes.saturating_add(1);
        self.stage = Stage::Quarantined { until: now + wait };
        self.loss = Loss::default();
    }

    /// The network under it is another one: what was known of it is of no use, and it is looked for anew. What never was
    /// more than somebody's word stays what it was. `in_use`: data goes there, and goes on to until it is known better.
    pub(crate) fn start_over(&mut self, now: Instant, in_use: bool) {
        if !self.attested {
            return;
        }
        self.rtt = None;
        self.loss = Loss::default();
        self.last_answer = None;
        self.waiting_since = None;
        self.forgive();
        self.stage = if in_use {
            Stage::Sizing(Sizing::new(now))
        } else {
            Stage::Searching { rung: 0, next: now }
        };
    }
    /// What it carries may be another size than it was: one end of it is elsewhere.
    pub(crate) fn size_anew(&mut self, now: Instant) {
        if matches!(self.stage, Stage::Valid(_)) {
            self.stage = Stage::Sizing(Sizing::new(now));
        }
    }
    /// The peer names this address again, in a new list: it may be looking for us from there, in a network that is another
    /// one than the path was lost in. If nothing came from it for a while, both sides must send at once.
    pub(crate) fn named_again(&mut self, now: Instant) {
        let rested = self.last_ping.is_none_or(|at| at + RESTED <= now);
        match &mut self.stage {
            Stage::Searching { rung, next } if self.attested && rested => (*rung, *next) = (0, now),
            Stage::Quarantined { .. } => self.start_over(now, false),
            Stage::Searching { .. } | Stage::Sizing(_) | Stage::Valid(_) => {}
        }
    }
    /// Data left it for a worse sort of path.
    pub(crate) fn note_left(&mut self) {
        self.left = self.left.saturating_add(1);
    }
    /// How many samples in a row it must be better before data returns to it; none if data never left it.
    pub(crate) fn return_hold(&self) -> u32 {
        match self.left.checked_sub(1) {
            Some(again) => (RETURN_HOLD * 2u32.saturating_pow(again.min(16))).min(RETURN_HOLD_MAX),
            None => 0,
        }
    }
    /// It carried data for long: what it did before is forgotten.
    pub(crate) fn forgive(&mut self) {
        self.strikes = 0;
        self.left = 0;
    }

    fn ladder(&self) -> &'static [u64] {
        if self.attested { &LADDER } else { &UNATTESTED }
    }
}

/// What [`Path::advance`] wants.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Advance {
    /// Send pings of these sizes now.
    Ping(Vec<u16>),
    /// Nobody answers there: forget the path.
    Hopeless,
}
