//! Checking one path: the probe ladder, then the size tests. Timers only; the pings themselves are sent by
//! [`super::Paths`].

use std::time::{Duration, Instant};

use super::rtt::{Loss, Rtt, Sample};
use super::score::{PathId, Standing};
use super::size::{Carried, FULL_SIZE, SizeVerdict, Sizing};
use crate::io::{PathKind, Way};

/// Probes that only ask whether somebody is there.
pub(crate) const SMALL_SIZE: u16 = 120;

/// When small pings go to an attested address, in milliseconds after the start: dense while both NATs open.
const LADDER: [u64; 7] = [0, 25, 50, 100, 200, 400, 800];
/// Then slowly and only while the tunnel is active, in milliseconds after the last one.
const SLOW: [u64; 4] = [2_000, 5_000, 15_000, 60_000];
/// Three small probes are all an address gets that nobody attests; spread over the skew between the two sides' starts, of which the
/// longest is the time for which a lost signal waits to be sent again, and over what a network may be silent for.
/// It gets three more, once, when an authenticated ping comes from there: that may be a NAT that just opened, but a
/// source address can be forged, so it is no proof.
const UNATTESTED: [u64; 3] = [0, 100, 2_000];
/// A search whose last ping is older than this has become slow, as has one that came to the end of its ladder: it begins anew when
/// the peer speaks of the address again.
const RESTED: Duration = Duration::from_secs(1);
/// After the last of them, an answer may still come for this long.
const LAST_CHANCE: Duration = Duration::from_secs(1);

/// A direct path that has not answered for this long may have lost its NAT mapping: it is asked before it is used.
const FRESH: Duration = Duration::from_secs(30);

/// A channel that carried something and fell silent is asked for its sizes again after this long, while its tunnel is in use: an
/// answer to any ping begins at once.
const SILENT_REST: Duration = Duration::from_secs(5);

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
    born: Instant,
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
    /// What the last test found it to carry, whatever has become of it since.
    found: Option<u16>,
    /// The shell was told that datagrams may come in here.
    pub(crate) told: bool,
    /// Failovers lost; doubles the quarantine.
    strikes: u32,
    /// How often data left it for a worse sort of path; doubles the time it must be better before data returns.
    left: u32,
    /// The relay that it goes through stops.
    pub(super) leaving: bool,
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
            born: now,
            stage,
            attested,
            heard: false,
            rtt: None,
            loss: Loss::default(),
            last_answer: None,
            waiting_since: None,
            last_ping: None,
            found: None,
            told: false,
            strikes: 0,
            left: 0,
            leaving: false,
        }
    }

    pub(crate) fn is_direct(&self) -> bool {
        self.way.kind() == PathKind::Direct
    }
    /// It answered lately. One that has not may have lost its NAT mapping.
    pub(crate) fn is_fresh(&self, now: Instant) -> bool {
        self.last_answer.is_some_and(|t| t + FRESH > now)
    }
    /// It is being asked for the first time, and may answer yet.
    pub(crate) fn is_young(&self, now: Instant) -> bool {
        let last = self.ladder().last().copied().unwrap_or_default();
        let time = Duration::from_millis(last) + LAST_CHANCE;
        self.last_answer.is_none() && self.born + time > now
    }
    /// The size proven, once the tests are over.
    pub(crate) fn concluded(&self) -> Option<u16> {
        match self.stage {
            Stage::Valid(carried) => Some(carried.size()),
            _ => None,
        }
    }
    /// What a route counts with: while a test runs, what the last one found, and full size before the first.
    pub(crate) fn size_or_hope(&self) -> u16 {
        self.concluded().or(self.found).unwrap_or(FULL_SIZE)
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
            leaving: self.leaving,
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
            // A channel that carried something is good enough for a tunnel that rests: a host whose addresses change has many.
            Stage::Sizing(sizing) => {
                let first = self.found.is_none() || self.is_direct();
                (active || first).then_some(sizing.next())
            }
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
                    SizeVerdict::Asks(sizes) => return Advance::Ping(sizes),
                    SizeVerdict::Waits => {}
                    SizeVerdict::Carries(size) => self.carries(now, size),
                    SizeVerdict::CarriesNothing => match self.found {
                        // The peer may sleep, or be between two networks: silence says nothing of sizes. They are open for as
                        // long, for it may come back to another network than it left.
                        Some(_) if !self.is_direct() && self.strikes == 0 => {
                            self.stage = Stage::Sizing(Sizing::new(now + SILENT_REST));
                        }
                        _ => self.quarantine(now),
                    },
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

    /// A ping of `size` bytes was answered.
    pub(crate) fn answered(&mut self, now: Instant, size: u16, sample: Sample) {
        let rtt = Rtt::after(self.rtt, sample);
        self.rtt = Some(rtt);
        self.last_answer = Some(now);
        self.waiting_since = None;
        match &mut self.stage {
            Stage::Searching { .. } => {
                self.attested = true;
                self.stage = Stage::Sizing(Sizing::new(now));
            }
            Stage::Sizing(sizing) => sizing.answered(now, size, rtt),
            Stage::Valid(carried) => {
                carried.answered(size);
                self.found = Some(carried.size());
            }
            Stage::Quarantined { .. } => {}
        }
    }
    fn carries(&mut self, now: Instant, size: u16) {
        self.found = Some(size);
        self.stage = Stage::Valid(Carried::new(now, size));
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
        // Nobody waits any more for what it was asked: when it is asked again, it has its time to answer.
        self.waiting_since = None;
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
    /// What it carries may be another size than it was: one end of it is elsewhere. Pings under way are the old network's: their
    /// answers prove nothing, and are to be forgotten.
    pub(crate) fn size_anew(&mut self, now: Instant) {
        if matches!(self.stage, Stage::Valid(_) | Stage::Sizing(_)) {
            self.stage = Stage::Sizing(Sizing::new(now));
        }
    }
    /// The peer names this address again, in a new list, or is told anew where we are: it may be looking for us from there, in a network that is another
    /// one than the path was lost in. If the search has become slow, both sides must send at once.
    pub(crate) fn named_again(&mut self, now: Instant) {
        let rested = self.last_ping.is_none_or(|at| at + RESTED <= now);
        match &mut self.stage {
            Stage::Searching { rung, next }
                if self.attested && (rested || *rung >= LADDER.len()) =>
            {
                (*rung, *next) = (0, now);
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{Carrier, LinkId};
    use crate::path::size::MIN_SIZE;
    use byway_wire::ChannelId;

    const MS: Duration = Duration::from_millis(1);

    /// A channel that was found to carry so much, and is looked at anew.
    fn looked_at_anew(size: u16) -> (Path, Instant) {
        #[expect(
            clippy::disallowed_methods,
            reason = "any instant will do to begin with"
        )]
        let now = Instant::now();
        let way = Way::Channel {
            link: LinkId(1),
            carrier: Carrier::Udp,
            channel: ChannelId::from_u64(7),
        };
        let mut path = Path::new(PathId(1), way, true, now);
        let mut now = now;
        while path.concluded().is_none() {
            path.advance(now);
            path.answered(now, size, Sample::Took(20 * MS));
            now += 50 * MS;
        }
        path.size_anew(now);
        (path, now)
    }

    #[test]
    fn a_path_is_young_until_its_last_probe_can_have_been_answered() {
        #[expect(
            clippy::disallowed_methods,
            reason = "any instant will do to begin with"
        )]
        let born = Instant::now();
        let way = Way::Direct {
            socket: crate::io::SocketId(0),
            remote: "192.0.2.80:80".parse().unwrap(),
        };
        for (attested, last) in [(false, 2_000 * MS), (true, 800 * MS)] {
            let path = Path::new(PathId(1), way, attested, born);
            assert!(path.is_young(born + last + 900 * MS));
            assert!(!path.is_young(born + last + 1_000 * MS));
        }
        let mut path = Path::new(PathId(1), way, false, born);
        path.answered(born + MS, SMALL_SIZE, Sample::Took(MS));
        assert!(!path.is_young(born + MS), "it has answered");
    }

    #[test]
    fn a_channel_looked_at_anew_counts_with_what_it_carried() {
        let (mut path, now) = looked_at_anew(1_252);
        assert_eq!((path.concluded(), path.size_or_hope()), (None, 1_252));
        path.advance(now);
        path.answered(now + 20 * MS, FULL_SIZE, Sample::Took(20 * MS));
        path.advance(now + 20 * MS);
        assert_eq!(path.size_or_hope(), FULL_SIZE);
    }

    #[test]
    fn a_channel_at_rest_is_not_looked_at_before_it_is_used() {
        let (path, now) = looked_at_anew(1_252);
        assert_eq!(path.next_check(false), None);
        assert_eq!(path.next_check(true), Some(now));
    }

    #[test]
    fn silence_of_a_peer_that_is_away_does_not_put_its_channel_out_of_use() {
        let (mut path, mut now) = looked_at_anew(1_384);
        for _ in 0..100 {
            path.advance(now);
            now += 50 * MS;
        }
        assert!(!path.is_quarantined());
        assert_eq!(path.size_or_hope(), 1_384);
        // It comes back in a narrower network.
        path.answered(now, MIN_SIZE, Sample::Took(20 * MS));
        let begun = now;
        while path.concluded().is_none() && now < begun + 1_000 * MS {
            path.advance(now);
            now += 10 * MS;
        }
        assert_eq!(path.concluded(), Some(MIN_SIZE));
    }
}
