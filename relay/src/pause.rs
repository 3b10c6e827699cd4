//! Pauses between tries at somebody else's server: ever longer while it fails, and no two relays' alike.

use std::time::Duration;

/// A part of a whole, so that many relays do not come at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Part(pub(crate) u32);

impl Part {
    pub(crate) fn random() -> Self {
        // Without randomness all wait equally long, which is no harm to this one.
        Self(getrandom::u32().unwrap_or_default())
    }
    pub(crate) fn of(self, whole: Duration) -> Duration {
        // Divided first: no time is long enough to overflow, and nanoseconds do not matter.
        whole / 1_024 * (self.0 % 1_024)
    }
}

/// The pause after so many failures in a row: doubling from `first` to `longest`, and up to a quarter longer.
pub(crate) fn back_off(
    first: Duration,
    longest: Duration,
    failures: u32,
    jitter: Part,
) -> Duration {
    let doublings = failures.saturating_sub(1).min(20);
    let pause = first.saturating_mul(1 << doublings).min(longest);
    pause + jitter.of(pause / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_wait_twice_as_long_each_but_never_longer_than_the_longest() {
        let seconds = |first, longest, n| {
            let [first, longest] = [first, longest].map(Duration::from_secs);
            back_off(first, longest, n, Part(0)).as_secs()
        };
        let waits: Vec<u64> = (1..=10).map(|n| seconds(300, 43_200, n)).collect();
        assert_eq!(
            waits,
            [
                300, 600, 1_200, 2_400, 4_800, 9_600, 19_200, 38_400, 43_200, 43_200
            ]
        );
        let waits: Vec<u64> = (1..=8).map(|n| seconds(1, 60, n)).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        let (first, longest) = (Duration::from_secs(1), Duration::from_secs(60));
        for failures in [0, 11, 100, u32::MAX] {
            let wait = back_off(first, longest, failures, Part(1_023));
            assert!(wait >= first && wait <= longest + longest / 4);
        }
    }
}
