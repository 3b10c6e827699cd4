//! What many runs of the same came to.

use std::fmt;
use std::time::Duration;

/// Durations, in order of size.
#[derive(Clone, Debug, Default)]
pub struct Figures(Vec<Duration>);

impl Figures {
    /// Of these runs.
    pub fn of(mut all: Vec<Duration>) -> Self {
        all.sort();
        Self(all)
    }

    /// How many there were.
    pub fn runs(&self) -> usize {
        self.0.len()
    }

    /// How many took no longer than this.
    pub fn within(&self, limit: Duration) -> usize {
        self.0.partition_point(|took| *took <= limit)
    }

    /// The least that `percent` of the runs did not exceed (nearest rank); of no run at all, for ever.
    pub fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0.get(rank - 1).copied().unwrap_or(Duration::MAX)
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no run");
        }
        let [median, most, nearly, worst] =
            [50, 95, 99, 100].map(|percent| self.percentile(percent).as_millis());
        write!(
            f,
            "p50 {median} ms, p95 {most} ms, p99 {nearly} ms, worst {worst} ms of {} runs",
            self.runs()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let figures = Figures::of((1..=50).rev().map(Duration::from_millis).collect());
        let ms = |percent| figures.percentile(percent).as_millis();
        assert_eq!([ms(1), ms(50), ms(99), ms(100)], [1, 25, 50, 50]);
        assert_eq!(figures.within(Duration::from_millis(10)), 10);
        assert_eq!(Figures::default().percentile(50), Duration::MAX);
        let one = Figures::of(vec![Duration::from_millis(7)]);
        assert_eq!(
            one.to_string(),
            "p50 7 ms, p95 7 ms, p99 7 ms, worst 7 ms of 1 runs"
        );
    }
}
