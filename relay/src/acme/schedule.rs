//! When to renew, and when to try again.

use std::time::{Duration, SystemTime};

use crate::certificate::Certificate;
use crate::pause::{self, Part};

/// The longest pause between two tries: a certificate of 90 days is renewed 30 days before its end, which leaves sixty.
const LONGEST: Duration = Duration::from_secs(12 * 60 * 60);

/// After two thirds of the lifetime (the authorities' own advice: 30 of 90 days before the end), and up to a
/// twenty-fourth of it later.
pub(super) fn renewal(certificate: &Certificate, jitter: Part) -> SystemTime {
    after(certificate.not_before(), certificate.not_after(), jitter)
}

fn after(from: SystemTime, to: SystemTime, jitter: Part) -> SystemTime {
    let lifetime = to.duration_since(from).unwrap_or_default();
    from + lifetime / 3 * 2 + jitter.of(lifetime / 24)
}

/// The pause after so many failures in a row.
pub(super) fn back_off(first: Duration, failures: u32, jitter: Part) -> Duration {
    pause::back_off(first, LONGEST, failures, jitter)
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
}
