//! The round-trip time of one path, as the sender sees it.

use std::time::{Duration, Instant};

use byway_core::recent::UNDER_WAY;

/// RFC 6298 smoothing of the time from sending a packet to its acknowledgement, the peer's ACK delay included.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rtt {
    /// Zero while unknown.
    pub(crate) smoothed: Duration,
    pub(crate) variation: Duration,
    /// Only an acknowledgement of something sent later than all before is a sample (RFC 9002 section 5.1): a late
    /// one of an older packet measures reordering.
    newest: Option<Instant>,
}

impl Rtt {
    /// Takes the newest packet that an ACK frame acknowledged. True if that was a sample.
    pub(crate) fn on_ack(&mut self, now: Instant, sent: Instant) -> bool {
        if self.newest.is_some_and(|newest| sent <= newest) {
            return false;
        }
        self.newest = Some(sent);
        let sample = now.saturating_duration_since(sent);
        if sample > UNDER_WAY {
            // A machine slept: that is no property of the path.
            return false;
        }
        if self.smoothed.is_zero() {
            self.smoothed = sample;
            self.variation = sample / 2;
        } else {
            self.variation = (3 * self.variation + self.smoothed.abs_diff(sample)) / 4;
            self.smoothed = (7 * self.smoothed + sample) / 8;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn first_sample_is_taken_whole_and_later_ones_are_smoothed() {
        let start = Instant::now();
        let mut rtt = Rtt::default();
        assert!(rtt.on_ack(start + 40 * MS, start));
        assert_eq!((rtt.smoothed, rtt.variation), (40 * MS, 20 * MS));
        assert!(rtt.on_ack(start + 88 * MS, start + 40 * MS));
        assert_eq!((rtt.smoothed, rtt.variation), (41 * MS, 17 * MS));
    }

    #[test]
    fn an_acknowledgement_that_a_machine_slept_over_is_no_sample() {
        let start = Instant::now();
        let mut rtt = Rtt::default();
        rtt.on_ack(start + 40 * MS, start);
        let hours = 3_600_000 * MS;
        assert!(!rtt.on_ack(start + 100 * MS + hours, start + 100 * MS));
        assert_eq!((rtt.smoothed, rtt.variation), (40 * MS, 20 * MS));
        assert!(rtt.on_ack(start + hours + 240 * MS, start + hours + 200 * MS));
        assert_eq!(rtt.smoothed, 40 * MS);
    }

    #[test]
    fn a_late_acknowledgement_of_an_older_packet_is_no_sample() {
        let start = Instant::now();
        let mut rtt = Rtt::default();
        rtt.on_ack(start + 40 * MS, start + 10 * MS);
        let before = rtt.smoothed;
        assert!(!rtt.on_ack(start + 500 * MS, start));
        assert_eq!(rtt.smoothed, before);
    }
}
