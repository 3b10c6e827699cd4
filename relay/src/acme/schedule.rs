//! When to renew, and when to try again.

use std::time::{Duration, SystemTime};

use crate::certificate::Certificate;

/// The longest pause between two tries: a certificate of 90 days is renewed 30 days before its end, which leaves sixty.
const LONGEST: Duration = Duration::from_secs(12 * 60 * 60);

/// A part of a whole, so that many relays do not come at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Part(u32);

impl Part {
    pub(super) fn random() -> Self {
        // Without randomness all wait equally long, which is no harm to this one.
        Self(getrandom::u32().unwrap_or_default())
    }
    fn of(self, whole: Duration) -> Duration {
        // Divided first: no lifetime is long enough to overflow, and nanoseconds do not matter.
        whole / 1_024 * (self.0 % 1_024)
    }
}

/// After two thirds of the lifetime (the authorities' own advice: 30 of 90 days before the end), and up to a
/// twenty-fourth of it later.
pub(super) fn renewal(certificate: &Certificate, jitter: Part) -> SystemTime {
    after(certificate.not_before(), certificate.not_after(), jitter)
}

fn after(from: SystemTime, to: SystemTime, jitter: Part) -> SystemTime {
    let lifetime = to.duration_since(from).unwrap_or_default();
    from + lifetime / 3 * 2 + jitter.of(lifetime / 24)
}

/// The pause after so many failures in a row: doubling, and up to a quarter longer.
pub(super) fn back_off(first: Duration, failures: u32, jitter: Part) -> Duration {
    let doublings = failures.saturating_sub(1).min(20);
    let pause = first.saturating_mul(1 << doublings).min(LONGEST);
    pause + jitter.of(pause / 4)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    #[test]
    fn a_certificate_is_renewed_well_before_its_end() {
        let begin = UNIX_EPOCH + DAY * 20_000;
        for (days, from, to) in [(90, 60, 64), (6, 4, 5), (45, 30, 32)] {
            for part in [0, 1, 500, 1_023, u32::MAX] {
                let due = after(begin, begin + DAY * days, Part(part));
                assert!(due >= begin + DAY * from && due <= begin + DAY * to);
            }
        }
        // One that makes no sense is due at once, and in no case a reason to panic.
        assert_eq!(after(begin, begin - DAY, Part(7)), begin);
    }

    #[test]
    fn failures_wait_twice_as_long_each_but_never_longer_than_half_a_day() {
        let first = Duration::from_secs(300);
        let waits: Vec<u64> = (1..=10)
            .map(|n| back_off(first, n, Part(0)).as_secs())
            .collect();
        assert_eq!(
            waits,
            [
                300, 600, 1_200, 2_400, 4_800, 9_600, 19_200, 38_400, 43_200, 43_200
            ]
        );
        for failures in [0, 11, 100, u32::MAX] {
            let wait = back_off(first, failures, Part(1_023));
            assert!(wait <= LONGEST + LONGEST / 4 && wait >= first);
        }
    }
}
