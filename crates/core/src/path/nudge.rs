//! Making QUIC speak where its own timer waits for too long.
//!
//! QUIC sends again what is unanswered after its probe timeout, and declares lost, by the time of a round trip, what came
//! just before something that was answered. Both go by its estimate of the round trip, and by how often nothing came before.
//! After a sleep of one of the machines the estimate may hold the sleep, on either side (`docs/decisions/0019`), and the side that
//! stayed awake may have backed off for hours. Suspicion does not help then: the path answers its pings, there is nothing to
//! suspect.
//!
//! So here is a probe timeout that goes by what the path's own pings measure. When it is over, the tunnel is made to say something
//! that must be answered: that answer tells QUIC what was lost, and ends its back-off (RFC 9002 sections 6.1.1 and 6.2.1).

use std::time::{Duration, Instant};

use super::failover::threshold;
use super::paths::{Output, Paths};
use super::rtt::Rtt;
use crate::cx::Cx;
use crate::io::FlowSample;

/// Where QUIC's estimate is sound, it is given the time of its first two timeouts, and this much at the least.
const OWN_TIME: Duration = Duration::from_secs(1);
const OWN_TIMEOUTS: u32 = 4;
/// Nudges that change nothing come at doubling intervals, up to this.
const LONGEST: Duration = Duration::from_secs(2);

/// Since when nothing of what is in flight was answered, and how often the tunnel was made to speak in that time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Nudges {
    quiet: Option<Quiet>,
}

#[derive(Clone, Copy, Debug)]
struct Quiet {
    since: Instant,
    /// When the last nudge was, and how many there were.
    last: Option<Instant>,
    given: u32,
}

impl Nudges {
    /// The flow was looked at.
    pub(super) fn observe(&mut self, sample: &FlowSample) {
        if self.quiet.map(|quiet| quiet.since) != sample.quiet_since {
            self.quiet = sample.quiet_since.map(|since| Quiet {
                since,
                last: None,
                given: 0,
            });
        }
    }

    /// When the tunnel is to be made to speak; none while nothing is in flight.
    fn at(&self, sample: &FlowSample, path: Option<Rtt>) -> Option<Instant> {
        let Quiet { since, last, given } = self.quiet?;
        let own = || threshold(path, sample) * OWN_TIMEOUTS;
        let first = match path {
            // What the flow measures holds the stalls of before.
            Some(_) if sample.slept => threshold(path, &FlowSample::default()),
            None if sample.slept => threshold(path, sample),
            _ => own().max(OWN_TIME),
        };
        let gap = first * 2u32.saturating_pow(given.min(8));
        Some(last.unwrap_or(since) + gap.min(LONGEST.max(first)))
    }

    fn give(&mut self, now: Instant) {
        if let Some(quiet) = &mut self.quiet {
            quiet.last = Some(now);
            quiet.given += 1;
        }
    }
}

impl Paths {
    /// Makes the tunnel speak if that is due. Returns when it is next.
    pub(super) fn nudge(&mut self, cx: &mut Cx<'_>) -> Option<Instant> {
        let path = self.primary_path()?.rtt;
        let due = self.nudges.at(&self.flow.sample, path)?;
        if due > cx.now {
            return Some(due);
        }
        self.nudges.give(cx.now);
        self.out.push_back(Output::Nudge);
        self.nudges.at(&self.flow.sample, path)
    }
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "a virtual clock needs one instant to count from"
)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const PATH: Rtt = Rtt {
        smoothed: Duration::from_millis(40),
        variation: Duration::from_millis(5),
    };

    fn waits(slept: bool, quiet: Instant) -> FlowSample {
        FlowSample {
            in_flight: 1_200,
            quiet_since: Some(quiet),
            srtt: 400 * MS,
            rttvar: 100 * MS,
            slept,
            ..FlowSample::default()
        }
    }

    /// After so long without an answer each of the first nudges is due, and after so long again the next one.
    fn gaps(slept: bool, path: Option<Rtt>) -> [Duration; 7] {
        let mut now = Instant::now();
        let mut nudges = Nudges::default();
        let sample = waits(slept, now);
        [(); 7].map(|()| {
            nudges.observe(&sample);
            let due = nudges.at(&sample, path).unwrap();
            let gap = due - now;
            now = due;
            nudges.give(now);
            gap
        })
    }

    #[test]
    fn where_quics_estimate_holds_a_sleep_the_paths_own_pings_say_when() {
        let doubling = [120, 240, 480, 960, 1920, 2000, 2000];
        assert_eq!(gaps(true, Some(PATH)), doubling.map(|ms| ms * MS));
        assert_eq!(
            gaps(true, None)[0],
            1400 * MS,
            "of a path that is not pinged"
        );
    }

    #[test]
    fn where_it_is_sound_quic_is_given_its_time() {
        assert_eq!(gaps(false, Some(PATH))[..2], [5600 * MS; 2]);
        let now = Instant::now();
        let quick = FlowSample {
            in_flight: 1,
            quiet_since: Some(now),
            ..FlowSample::default()
        };
        let mut nudges = Nudges::default();
        nudges.observe(&quick);
        assert_eq!(nudges.at(&quick, Some(PATH)), Some(now + OWN_TIME));
    }

    #[test]
    fn an_answer_begins_the_time_anew_and_with_nothing_in_flight_there_is_none() {
        let now = Instant::now();
        let mut nudges = Nudges::default();
        let sample = waits(true, now);
        nudges.observe(&sample);
        nudges.give(now + 20 * MS);
        assert_eq!(nudges.at(&sample, Some(PATH)), Some(now + 260 * MS));
        let answered = waits(true, now + 50 * MS);
        nudges.observe(&answered);
        assert_eq!(nudges.at(&answered, Some(PATH)), Some(now + 170 * MS));
        nudges.observe(&FlowSample::default());
        assert_eq!(nudges.at(&sample, Some(PATH)), None);
    }
}
