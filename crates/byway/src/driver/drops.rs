//! What was dropped and refused, told in the log: seldom, however much there is of it.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use byway_core::counters;

use crate::socket;

/// Between two lines. A flood must not fill anybody's disk.
const EVERY: Duration = Duration::from_secs(5);

/// Name, meaning and count.
pub(crate) type Drop = (&'static str, &'static str, u64);

/// All that is not zero: the socket's and the node's.
pub(crate) fn all(socket: &socket::Counters, node: &counters::Counters) -> Vec<Drop> {
    let mut all = socket.nonzero();
    all.extend(node.nonzero());
    all
}

/// What has been told of already.
#[derive(Debug, Default)]
pub(super) struct Drops {
    at: Option<Instant>,
    told: Vec<Drop>,
    /// There is news that came too soon.
    waits: bool,
}

impl Drops {
    /// Something has risen since this was last said.
    pub(super) fn rose(&mut self) {
        self.waits = true;
    }

    /// What has risen since it was last told of, unless that was only now.
    pub(super) fn news(&mut self, now: Instant, all: impl FnOnce() -> Vec<Drop>) -> Option<String> {
        if !self.waits || self.due().is_some_and(|due| now < due) {
            return None;
        }
        let all = all();
        let mut news = String::new();
        for (name, means, count) in &all {
            let told = self.told.iter().find(|(known, ..)| known == name);
            let more = count - told.map_or(0, |(.., before)| *before);
            if more > 0 {
                let comma = if news.is_empty() { "" } else { ", " };
                let means = means.trim_end_matches('.');
                let _ = write!(news, "{comma}{name} +{more} ({means})");
            }
        }
        self.at = Some(now);
        self.told = all;
        self.waits = false;
        (!news.is_empty()).then_some(news)
    }

    /// When to ask again, if there is something to tell.
    pub(super) fn due(&self) -> Option<Instant> {
        self.at.filter(|_| self.waits).map(|at| at + EVERY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rose_is_told_with_its_meaning_and_seldom() {
        let mut drops = Drops::default();
        let start = Instant::now();
        assert_eq!(drops.news(start, || unreachable!("nothing rose")), None);
        let one = [("probe_replayed", "Probes seen before.", 7)];
        drops.rose();
        assert_eq!(
            drops.news(start, || one.to_vec()).unwrap(),
            "probe_replayed +7 (Probes seen before)"
        );
        assert_eq!(drops.due(), None);
        let more = [
            ("probe_forged", "Probes that do not authenticate.", 1),
            ("probe_replayed", "Probes seen before.", 9),
        ];
        // Too soon, and then all of it; and no word where there is no news.
        drops.rose();
        assert_eq!(
            drops.news(start + EVERY / 2, || unreachable!("too soon")),
            None
        );
        assert_eq!(drops.due(), Some(start + EVERY));
        assert_eq!(
            drops.news(start + EVERY, || more.to_vec()).unwrap(),
            "probe_forged +1 (Probes that do not authenticate), probe_replayed +2 (Probes seen before)"
        );
        assert_eq!(drops.news(start + 3 * EVERY, || more.to_vec()), None);
        assert_eq!(drops.due(), None);
    }
}
