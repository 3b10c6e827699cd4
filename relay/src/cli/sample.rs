//! How much is written of one kind of line.
//!
//! A line that anybody can cause, or that a broken disk causes thousands of times a second, would fill the log and hide everything else in it.
//! Of the lines that one place in the program writes the first few of each second are written; the others are counted, and a line says how
//! many were left out, of which kind, when that second is over. It is the log's own thread that says so, and it keeps a clock only while there is
//! something to say: an idle relay sleeps.
//!
//! The number of places is fixed when the program is compiled, and so is what is kept of them.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Metadata};

/// What counts as one burst.
pub(super) const WINDOW: Duration = Duration::from_secs(1);
/// Where the lines come from that say what was left out. They are written always.
pub(super) const OWN: &str = "byway_relay::log";

/// See the module.
#[derive(Debug)]
pub(super) struct Sampler {
    /// Lines of a kind in a second; 0 for all.
    most: u32,
    kinds: Mutex<HashMap<Identifier, Kind>>,
}

#[derive(Debug)]
struct Kind {
    began: Instant,
    written: u32,
    left_out: u64,
    /// What the first of those said that were left out.
    example: String,
}

/// What to do with a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    Write,
    /// The first that is left out of its second: whoever says so must hear of it.
    LeaveOutAndTell,
    LeaveOut,
}

impl Sampler {
    pub(super) fn new(most: u32) -> Self {
        Self {
            most,
            kinds: Mutex::default(),
        }
    }

    /// `message` is asked for what the line says, if it must be kept.
    pub(super) fn judge(
        &self,
        now: Instant,
        kind: &'static Metadata<'static>,
        message: impl FnOnce() -> String,
    ) -> Verdict {
        if self.most == 0 || kind.target() == OWN {
            return Verdict::Write;
        }
        let callsite = kind.callsite();
        let mut kinds = self.lock();
        let kind = kinds
            .entry(callsite.clone())
            .or_insert_with(|| Kind::at(now));
        // What was left out is said first.
        if kind.left_out == 0 && now.saturating_duration_since(kind.began) >= WINDOW {
            *kind = Kind::at(now);
        }
        if kind.written < self.most {
            kind.written += 1;
            return Verdict::Write;
        }
        kind.left_out += 1;
        if kind.left_out > 1 {
            return Verdict::LeaveOut;
        }
        drop(kinds);
        // Whatever it takes to say it, nobody else waits for it.
        let example = message();
        if let Some(kind) = self.lock().get_mut(&callsite) {
            kind.example = example;
        }
        Verdict::LeaveOutAndTell
    }

    /// The kinds of which lines were left out in a second that is over: how many, and what they are like. Begins another for them. And whether
    /// there are more whose second is not over.
    pub(super) fn left_out(&self, now: Instant) -> (Vec<(u64, String)>, bool) {
        let mut kinds = self.lock();
        let mut more = false;
        let mut over = Vec::new();
        for kind in kinds.values_mut().filter(|kind| kind.left_out > 0) {
            if now.saturating_duration_since(kind.began) < WINDOW {
                more = true;
                continue;
            }
            let said = std::mem::replace(kind, Kind::at(now));
            over.push((said.left_out, said.example));
        }
        (over, more)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Identifier, Kind>> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kind {
    fn at(now: Instant) -> Self {
        Self {
            began: now,
            written: 0,
            left_out: 0,
            example: String::new(),
        }
    }
}

/// Writes what was left out.
pub(super) fn tell(left_out: Vec<(u64, String)>) {
    for (count, like) in left_out {
        tracing::warn!(target: OWN, count, like, "so many lines of one kind were left out");
    }
}

/// What a line says, without its fields.
pub(super) fn message_of(event: &Event<'_>) -> String {
    let mut said = Message(String::new());
    event.record(&mut said);
    said.0
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on must panic")]
mod tests {
    use std::sync::OnceLock;

    use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

    use super::*;

    /// Two kinds of lines.
    fn kinds() -> [&'static Metadata<'static>; 2] {
        struct Seen(Mutex<Vec<&'static Metadata<'static>>>);
        impl<S: tracing::Subscriber> Layer<S> for &'static Seen {
            fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
                self.0.lock().unwrap().push(event.metadata());
            }
        }
        static SEEN: OnceLock<Seen> = OnceLock::new();
        let seen = SEEN.get_or_init(|| Seen(Mutex::default()));
        let subscriber = tracing_subscriber::registry().with(seen);
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("one");
            tracing::info!("another");
        });
        seen.0.lock().unwrap()[..2].try_into().unwrap()
    }

    #[test]
    fn kinds_do_not_take_each_other_s_lines() {
        let [one, another] = kinds();
        let sampler = Sampler::new(3);
        let now = Instant::now();
        let judge = |kind| sampler.judge(now, kind, || "like this".into());
        let verdicts: Vec<_> = (0..6).map(|_| judge(one)).collect();
        use Verdict::*;
        assert_eq!(
            verdicts,
            [Write, Write, Write, LeaveOutAndTell, LeaveOut, LeaveOut]
        );
        assert_eq!(judge(another), Write);
        assert_eq!(
            sampler.left_out(now),
            (vec![], true),
            "its second is not over"
        );
        let later = now + WINDOW;
        assert_eq!(
            sampler.left_out(later),
            (vec![(3, "like this".into())], false)
        );
        assert_eq!(sampler.left_out(later), (vec![], false));
        assert_eq!(sampler.judge(later, one, String::new), Write);
    }

    #[test]
    fn what_was_left_out_is_said_before_more_is_written() {
        let [one, _] = kinds();
        let sampler = Sampler::new(1);
        let now = Instant::now();
        for expected in [Verdict::Write, Verdict::LeaveOutAndTell] {
            assert_eq!(sampler.judge(now, one, String::new), expected);
        }
        let late = now + 5 * WINDOW;
        assert_eq!(sampler.judge(late, one, String::new), Verdict::LeaveOut);
        assert_eq!(sampler.left_out(late).0[0].0, 2);
        assert_eq!(sampler.judge(late, one, String::new), Verdict::Write);
    }

    #[test]
    fn none_is_all() {
        let [one, _] = kinds();
        let sampler = Sampler::new(0);
        let now = Instant::now();
        assert!((0..1_000).all(|_| sampler.judge(now, one, String::new) == Verdict::Write));
    }
}
