//! Whether a loss says that too much was sent.
//!
//! Loss has two causes. A queue overflows, because more is sent than the narrowest place of the path carries: then sending
//! less is right. Or a network loses packets whatever is sent (radio, a poor access line): then sending less helps nobody.
//! [`LossJudge`] tells them apart by what each leaves behind:
//!
//! - **A queue shows in the round trip.** A loss while the *least* round-trip time of a round is well above the path's is
//!   congestion. The least, because one packet may be late for many reasons, but a standing queue delays all. How much is
//!   much, follows HyStart++ (RFC 9406 section 4.2), which asks a like question.
//! - **A queue too short to show overflows at a rate.** If more is lost than [`TOLERATED`] beyond what this path is known to
//!   lose, and more than chance explains, it is taken for congestion on trial: the window shrinks, stays so for some round
//!   trips, and what is lost meanwhile decides. Overload is gone when less is sent; the network's own loss is not. If the
//!   loss stayed, it is what this path is known to lose from then on, and the window is put back as it was (as RFC 4015
//!   does for a timeout that proves spurious).
//! - **Where that was overload, the path is met with care** for a while ([`REMEMBERED`]): any loss beyond the known is a
//!   question there, and none is excused. So who shares a short queue with loss-based senders is one of them most of the time.
//!
//! Other loss is none of congestion's. The ideas are not new: TCP Veno (Fu and Liew, 2003) takes a loss for random while its
//! backlog estimate is below three packets; BBR's third version (draft-ietf-ccwg-bbr) tolerates the loss of 2 % of a round.
//!
//! What is known to be lost falls at once when less is, and rises by a trial alone: what others cause by sending more and
//! more is not mistaken for the network's, for who reacts to loss leaves room after it, and takes it back slowly.

use std::time::{Duration, Instant};

use byway_core::recent::UNDER_WAY;

/// The loss beyond what the path is known to lose that is no reason to send less (draft-ietf-ccwg-bbr, `BBR.LossThresh`).
const TOLERATED: f64 = 0.02;
/// A loss beyond this has no excuse, and none is learnt: a network that loses as much of its own is hardly one, and
/// what remains lost of a heavy overload when a little less is sent must never count as the network's.
const MOST: f64 = 0.25;
/// What a back-off leaves of the window (RFC 9438 section 4.6).
const BACK_OFF: f64 = 0.7;
/// By how many standard deviations a count must differ from what chance would bring.
const BEYOND_CHANCE: f64 = 3.0;
/// Over how many round trips losses are counted: at the windows of slow lines a round has too few packets to tell 2 % from
/// chance, and what was longer ago was sent by another window.
const ROUNDS: usize = 8;
/// How much of the round trip a queue adds to show, and within which bounds: half the share of RFC 9406 section 4.3, for it asks
/// whether to go on doubling, and here others may share the queue.
const RISE_SHARE: u32 = 16;
const RISE_LEAST: Duration = Duration::from_millis(4);
const RISE_MOST: Duration = Duration::from_millis(16);
/// As there: so many samples make a round's least round trip worth something. Rounds with fewer are taken together.
const RISE_SAMPLES: u32 = 8;
/// How long what was seen of a path counts, its least round-trip time and an overflow that did not show: routes change, and
/// a queue that never empties hides both.
const REMEMBERED: Duration = Duration::from_secs(30);
/// How long a trial lasts at least: the first round trip's packets met the queue that was there.
const TRIAL_ROUNDS: u32 = 4;
/// How many packets a trial needs: among 128, a loss of 5 % and none are told apart 19 times in 20.
const TRIAL_PACKETS: u32 = 128;
/// Fewer losses in a trial say nothing of a rate.
const TRIAL_LOSSES: u32 = 3;
/// So many say enough before it has its packets: where much is lost windows are small, and packets take long to count.
const TRIAL_ENOUGH: u32 = 6;

/// What a loss says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// The network loses so much whatever is sent, or the loss belongs to congestion that was reacted to.
    Chance,
    /// Send less.
    Congestion,
    /// Send less, and hold the window: a trial began.
    Trial,
}

/// How a trial ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// What was lost is lost no more: sending less was right.
    Helped,
    /// As much is lost as before: the window may be what it was.
    Useless,
}

/// Judges the losses of one path.
#[derive(Clone, Debug, Default)]
pub(crate) struct LossJudge {
    base: Base,
    round: Round,
    /// Of the round, or of a few of them while windows are small.
    late: Late,
    /// The least round-trip time of the last that had samples enough.
    least: Option<Duration>,
    /// Of the last rounds, in no order: the oldest is at `next`.
    tallies: [Tally; ROUNDS],
    next: usize,
    /// The share that is known to be lost whatever is sent.
    known: f64,
    /// Losses of what was sent before are known already.
    reacted: Option<Instant>,
    /// When a queue last overflowed that did not show.
    unseen: Option<Instant>,
    trial: Option<Trial>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Round {
    /// An acknowledgement of something sent since ends it.
    began: Option<Instant>,
    tally: Tally,
}

/// The least round-trip time of some packets.
#[derive(Clone, Copy, Debug, Default)]
struct Late {
    least: Option<Duration>,
    samples: u32,
}

#[derive(Clone, Copy, Debug)]
struct Trial {
    began: Instant,
    rounds: u32,
    /// The share lost that caused it.
    before: f64,
    /// Of what was sent since.
    tally: Tally,
}

/// Packets.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    acked: u32,
    lost: u32,
}

/// The least round-trip time of the last [`REMEMBERED`] to twice that.
#[derive(Clone, Copy, Debug, Default)]
struct Base {
    since: Option<Instant>,
    now: Option<Duration>,
    before: Option<Duration>,
}

impl LossJudge {
    /// A packet was acknowledged. Says how the trial ended, if this ends it.
    pub(crate) fn on_ack(&mut self, now: Instant, sent: Instant) -> Option<Outcome> {
        let rtt = now.saturating_duration_since(sent);
        if self.round.began.is_none_or(|began| sent >= began) {
            self.end_round(now);
        }
        if rtt <= UNDER_WAY {
            // Else a machine slept, which is no queue.
            self.base.put(now, rtt);
            self.late.least = Some(self.late.least.map_or(rtt, |least| least.min(rtt)));
            self.late.samples = self.late.samples.saturating_add(1);
        }
        self.round.tally.acked = self.round.tally.acked.saturating_add(1);
        let trial = self.trial.as_mut().filter(|trial| sent > trial.began)?;
        trial.tally.acked = trial.tally.acked.saturating_add(1);
        let enough = trial.tally.lost >= TRIAL_ENOUGH || trial.tally.packets() >= TRIAL_PACKETS;
        if !enough || trial.rounds < TRIAL_ROUNDS {
            return None;
        }
        let trial = self.trial.take()?;
        Some(self.end_trial(now, trial))
    }

    /// So many packets were lost, the newest of which was sent then.
    pub(crate) fn on_lost(&mut self, now: Instant, sent: Instant, packets: u32) -> Verdict {
        if self.reacted.is_some_and(|at| sent <= at) {
            return Verdict::Chance;
        }
        self.round.tally.lost = self.round.tally.lost.saturating_add(packets);
        if self.queue_shows() {
            self.react(now);
            return Verdict::Congestion;
        }
        if let Some(trial) = &mut self.trial {
            trial.tally.lost = trial.tally.lost.saturating_add(packets);
            if trial.tally.exceeds(MOST) {
                return self.overflowed(now);
            }
            return Verdict::Chance;
        }
        let recent = self.recent();
        let tolerated = if self.careful(now) { 0.0 } else { TOLERATED };
        if !recent.exceeds(self.known + tolerated) {
            return Verdict::Chance;
        }
        if recent.exceeds(MOST) {
            return self.overflowed(now);
        }
        self.react(now);
        self.trial = Some(Trial {
            began: now,
            rounds: 0,
            before: recent.rate(),
            tally: Tally::default(),
        });
        Verdict::Trial
    }

    /// Less is sent from now on: what was lost until now has had its consequence.
    pub(crate) fn react(&mut self, now: Instant) {
        self.reacted = Some(now);
        self.trial = None;
        self.forget();
    }

    /// True while a queue that overflowed unseen is remembered. Then nothing is learnt: many senders in a short queue would
    /// teach each other that their overload is the network's loss, for less of one is not felt.
    fn careful(&self, now: Instant) -> bool {
        self.unseen.is_some_and(|at| age(now, at) <= REMEMBERED)
    }

    /// It is overload, though no queue shows.
    fn overflowed(&mut self, now: Instant) -> Verdict {
        self.react(now);
        self.unseen = Some(now);
        Verdict::Congestion
    }

    fn end_round(&mut self, now: Instant) {
        if self.late.is_enough() {
            self.least = std::mem::take(&mut self.late).least;
        }
        self.tallies[self.next] = self.round.tally;
        self.next = (self.next + 1) % ROUNDS;
        self.round = Round {
            began: Some(now),
            ..Round::default()
        };
        if let Some(trial) = &mut self.trial {
            trial.rounds = trial.rounds.saturating_add(1);
        }
        let recent = self.recent();
        if recent.falls_short(self.known) {
            self.known = recent.rate();
        }
    }

    fn end_trial(&mut self, now: Instant, trial: Trial) -> Outcome {
        let Trial { before, tally, .. } = trial;
        let after = tally.rate();
        // If it was overload, as much gets through as before. A third is nearer to that than to what was before, which was chosen
        // for being high.
        let overload = (1.0 - (1.0 - before) / BACK_OFF).max(self.known);
        let stayed = after > overload + (before - overload) / 3.0;
        let learn = stayed && after <= MOST && tally.lost >= TRIAL_LOSSES;
        if !learn || self.careful(now) {
            // What was a question for care alone is no more reason for it, nor is loss that stayed.
            if before > self.known + TOLERATED && !learn {
                self.unseen = Some(now);
            }
            return Outcome::Helped;
        }
        self.known = self.known.max(after);
        self.forget();
        Outcome::Useless
    }

    fn forget(&mut self) {
        self.tallies = Default::default();
        self.round.tally = Tally::default();
    }

    fn recent(&self) -> Tally {
        let past = self.tallies.iter();
        past.fold(self.round.tally, |sum, tally| Tally {
            acked: sum.acked.saturating_add(tally.acked),
            lost: sum.lost.saturating_add(tally.lost),
        })
    }

    /// True if the least round trip of late is so much above the path's that a queue stands.
    fn queue_shows(&self) -> bool {
        let least = if self.late.is_enough() {
            self.late.least
        } else {
            self.least
        };
        let (Some(base), Some(least)) = (self.base.get(), least) else {
            return false;
        };
        least >= base + (base / RISE_SHARE).clamp(RISE_LEAST, RISE_MOST)
    }
}

impl Late {
    fn is_enough(self) -> bool {
        self.samples >= RISE_SAMPLES
    }
}

impl Tally {
    fn packets(self) -> u32 {
        self.acked.saturating_add(self.lost)
    }

    /// The share lost; zero of nothing.
    fn rate(self) -> f64 {
        f64::from(self.lost) / f64::from(self.packets().max(1))
    }

    /// More are lost than chance makes of this share.
    fn exceeds(self, share: f64) -> bool {
        let mean = share * f64::from(self.packets());
        f64::from(self.lost) > mean + BEYOND_CHANCE * mean.sqrt()
    }

    /// Fewer are lost than chance makes of this share.
    fn falls_short(self, share: f64) -> bool {
        let mean = share * f64::from(self.packets());
        f64::from(self.lost) < mean - BEYOND_CHANCE * mean.sqrt()
    }
}

impl Base {
    fn put(&mut self, now: Instant, rtt: Duration) {
        let age = self.since.map(|since| age(now, since));
        if age.is_none_or(|age| age > REMEMBERED) {
            // After a pause longer than that, neither is of use.
            self.before = self
                .now
                .filter(|_| age.is_some_and(|age| age <= 2 * REMEMBERED));
            self.now = None;
            self.since = Some(now);
        }
        self.now = Some(self.now.map_or(rtt, |least| least.min(rtt)));
    }

    fn get(&self) -> Option<Duration> {
        self.now.into_iter().chain(self.before).min()
    }
}

fn age(now: Instant, since: Instant) -> Duration {
    now.saturating_duration_since(since)
}

#[cfg(test)]
mod tests;
