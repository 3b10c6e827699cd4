//! When a port is renewed, when it counts as lost, and how soon another one is asked for then.
//!
//! An answer that did not come says nothing: the gateway holds the port until its lifetime is over, and refuses it to whoever asks
//! as somebody else meanwhile (RFC 6887 section 11.3). So it is asked again, at half of the time that is left (section 11.2.1),
//! and the port stays told to peers.

use std::time::{Duration, Instant};

use super::{AFTER_CHANGE, FIRST_PAUSE, LONGEST_PAUSE, SHORTEST_RENEWAL};

/// Why a port was not renewed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Unrenewed {
    /// No answer, or none that decides.
    Silent(String),
    /// The gateway does not keep it.
    Refused(String),
}

/// What a failed renewal means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// The port is still there.
    Held,
    /// It may be there, on a network that may be another one.
    Doubtful,
    Lost,
}

/// The time for which a port was given.
#[derive(Clone, Debug)]
pub(super) struct Term {
    given: Instant,
    ends: Instant,
    renew_at: Instant,
    renewed: bool,
    /// The network may be another one since.
    in_doubt: bool,
}

impl Term {
    pub(super) fn new(now: Instant, lifetime: Duration) -> Self {
        Self {
            given: now,
            ends: now + lifetime,
            renew_at: now + half(lifetime),
            renewed: false,
            in_doubt: false,
        }
    }

    pub(super) fn renew_at(&self) -> Instant {
        self.renew_at
    }

    /// The same port, told of for this time by another protocol.
    pub(super) fn is_now(&mut self, now: Instant, lifetime: Duration) {
        self.ends = now + lifetime;
        self.renew_at = now + half(lifetime);
    }

    pub(super) fn renewed(&mut self, now: Instant, lifetime: Duration) {
        self.is_now(now, lifetime);
        self.renewed = true;
        self.in_doubt = false;
    }

    /// The host's addresses changed, and the gateway seems to be the same: a renewal tells.
    pub(super) fn doubt(&mut self, now: Instant) {
        self.in_doubt = true;
        self.renew_at = self.renew_at.min(now + AFTER_CHANGE);
    }

    /// A renewal failed. One that the gateway's announcement asked for is tried again soon: it may be starting.
    pub(super) fn failed(&mut self, now: Instant, why: &Unrenewed, announced: bool) -> Verdict {
        if matches!(why, Unrenewed::Refused(_)) || now >= self.ends {
            return Verdict::Lost;
        }
        if self.in_doubt {
            return Verdict::Doubtful;
        }
        self.renew_at = now + half(self.ends - now);
        if announced {
            self.renew_at = self.renew_at.min(now + AFTER_CHANGE);
        }
        Verdict::Held
    }

    /// True if the port was worth telling peers of: it outlived a renewal, and the first pause.
    pub(super) fn was_good(&self, now: Instant) -> bool {
        self.renewed && now.saturating_duration_since(self.given) >= FIRST_PAUSE
    }
}

fn half(time: Duration) -> Duration {
    (time / 2).max(SHORTEST_RENEWAL)
}

/// How long a gateway is left alone before it is asked for a port again.
#[derive(Clone, Debug)]
pub(super) struct Pauses {
    next: Duration,
    /// The last port was lost, and was no good one.
    lost: bool,
}

impl Pauses {
    pub(super) fn new() -> Self {
        Self {
            next: FIRST_PAUSE,
            lost: false,
        }
    }

    /// The gateway gave nothing.
    pub(super) fn after_nothing(&self) -> Duration {
        self.next
    }

    /// A port was lost. A gateway that began anew gives another one at once; one that gives and takes all the time would make
    /// every peer hear of it each time.
    pub(super) fn after_loss(&mut self, was_good: bool) -> Duration {
        if was_good {
            *self = Self::new();
        }
        match std::mem::replace(&mut self.lost, true) {
            false => Duration::ZERO,
            true => self.next,
        }
    }

    /// The whole pause went by.
    pub(super) fn passed(&mut self) {
        self.next = (self.next * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn silent() -> Unrenewed {
        Unrenewed::Silent("nothing heard".to_owned())
    }

    fn refused() -> Unrenewed {
        Unrenewed::Refused("not authorised".to_owned())
    }

    #[test]
    fn a_silent_gateway_is_asked_again_at_half_of_what_is_left_until_the_end() {
        let given = Instant::now();
        let mut term = Term::new(given, HOUR);
        let mut asked = Vec::new();
        loop {
            let now = term.renew_at();
            asked.push((now - given).as_secs());
            assert!(asked.len() < 100, "it never ends: {asked:?}");
            match term.failed(now, &silent(), false) {
                Verdict::Held => assert!(term.renew_at() - now >= SHORTEST_RENEWAL),
                verdict => {
                    assert_eq!(verdict, Verdict::Lost);
                    break;
                }
            }
        }
        assert_eq!(asked[..4], [1_800, 2_700, 3_150, 3_375]);
        let last = *asked.last().unwrap();
        assert!((3_600..=3_604).contains(&last), "{asked:?}");
    }

    #[test]
    fn a_renewal_that_comes_through_later_is_one() {
        let given = Instant::now();
        let mut term = Term::new(given, HOUR);
        let first = term.renew_at();
        assert_eq!(term.failed(first, &silent(), false), Verdict::Held);
        let second = term.renew_at();
        term.renewed(second, HOUR);
        assert_eq!(term.renew_at(), second + HOUR / 2);
        // The first lifetime is over by then.
        let third = term.renew_at();
        assert!(third > given + HOUR);
        assert_eq!(term.failed(third, &silent(), false), Verdict::Held);
    }

    #[test]
    fn what_the_gateway_refuses_is_lost_at_once() {
        let given = Instant::now();
        let mut term = Term::new(given, HOUR);
        let now = term.renew_at();
        assert_eq!(term.failed(now, &refused(), false), Verdict::Lost);
    }

    #[test]
    fn silence_on_a_network_that_may_be_another_leaves_doubt() {
        let given = Instant::now();
        let mut term = Term::new(given, HOUR);
        term.doubt(given);
        let now = term.renew_at();
        assert_eq!(now, given + AFTER_CHANGE);
        assert_eq!(term.failed(now, &silent(), false), Verdict::Doubtful);
        // An answer ends it.
        term.renewed(now, HOUR);
        assert_eq!(term.failed(now, &silent(), false), Verdict::Held);
    }

    #[test]
    fn a_gateway_that_is_still_starting_is_asked_again_soon() {
        let given = Instant::now();
        let mut term = Term::new(given, HOUR);
        assert_eq!(term.failed(given, &silent(), true), Verdict::Held);
        assert_eq!(term.renew_at(), given + AFTER_CHANGE);
    }

    #[test]
    fn a_gateway_that_gives_and_takes_is_asked_ever_more_seldom() {
        let mut now = Instant::now();
        let mut pauses = Pauses::new();
        let mut waited = Vec::new();
        for _ in 0..9 {
            let term = Term::new(now, Duration::from_secs(8));
            now = term.renew_at();
            let pause = pauses.after_loss(term.was_good(now));
            waited.push(pause.as_secs());
            if !pause.is_zero() {
                pauses.passed();
            }
            now += pause;
        }
        assert_eq!(waited, [0, 60, 120, 240, 480, 960, 1_920, 3_600, 3_600]);
    }

    #[test]
    fn one_renewal_within_seconds_makes_no_good_port() {
        let given = Instant::now();
        let lifetime = Duration::from_secs(8);
        let mut term = Term::new(given, lifetime);
        term.renewed(term.renew_at(), lifetime);
        assert!(!term.was_good(term.renew_at()));
        assert!(term.was_good(given + FIRST_PAUSE));
        // Nor does a long time without any.
        assert!(!Term::new(given, HOUR).was_good(given + HOUR));
    }

    #[test]
    fn the_loss_of_a_good_port_is_the_first_again() {
        let mut pauses = Pauses::new();
        assert_eq!(pauses.after_loss(false), Duration::ZERO);
        assert_eq!(pauses.after_loss(false), FIRST_PAUSE);
        pauses.passed();
        assert_eq!(pauses.after_loss(true), Duration::ZERO);
        assert_eq!(pauses.after_loss(false), FIRST_PAUSE);
    }
}
