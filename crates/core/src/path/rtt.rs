//! What is measured of a path: round-trip time and loss.

use std::time::Duration;

/// Smoothed round-trip time and its variation (RFC 6298 section 2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Rtt {
    pub(crate) smoothed: Duration,
    pub(crate) variation: Duration,
}

/// What an answer says of the round trip.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sample {
    /// It took so long.
    Took(Duration),
    /// So long or longer: it came when its question counted as lost. It may have been held up by a sleep, and says less than
    /// any other sample; where there is none, the path counts as that slow.
    HeldUp(Duration),
}

impl Rtt {
    /// The estimate after one more sample.
    pub(crate) fn after(before: Option<Self>, sample: Sample) -> Self {
        match (before, sample) {
            (Some(known), Sample::HeldUp(_)) => known,
            (Some(mut known), Sample::Took(sample)) => {
                known.add(sample);
                known
            }
            (None, Sample::Took(sample) | Sample::HeldUp(sample)) => Self::first(sample),
        }
    }
    pub(crate) fn first(sample: Duration) -> Self {
        Self {
            smoothed: sample,
            variation: sample / 2,
        }
    }
    fn add(&mut self, sample: Duration) {
        let deviation = self.smoothed.abs_diff(sample);
        self.variation = (self.variation * 3 + deviation) / 4;
        self.smoothed = (self.smoothed * 7 + sample) / 8;
    }
}

/// The fate of the last 128 regular pings. Fewer tell two paths of the same loss apart that are alike: of 32 pings, three
/// lost ones of the one and none of the other are everyday chance at 5 %.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Loss {
    /// One bit a ping, the newest lowest; 1 is lost.
    lost: u128,
    known: u32,
}

impl Loss {
    /// Fewer outcomes than this say nothing: one lost ping of ten would already be "10 %".
    const ENOUGH: u32 = 20;

    pub(crate) fn add(&mut self, lost: bool) {
        self.lost = (self.lost << 1) | u128::from(lost);
        self.known = (self.known + 1).min(u128::BITS);
    }
    /// Of how many pings the fate is known; 0 until it is enough.
    pub(crate) fn pings(&self) -> u32 {
        if self.known < Self::ENOUGH {
            return 0;
        }
        self.known
    }
    /// Lost pings in percent; 0 until enough is known.
    pub(crate) fn percent(&self) -> u32 {
        if self.known < Self::ENOUGH {
            return 0;
        }
        let mask = u128::MAX >> (u128::BITS - self.known);
        (self.lost & mask).count_ones() * 100 / self.known
    }
}
