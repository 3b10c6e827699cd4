//! Since when an acknowledgement is due.
//!
//! An acknowledgement of a packet proves that the path carried that packet and its answer, and with it everything sent
//! before. What was sent *after* the newest acknowledged packet is unanswered; the oldest such send is the moment from
//! which silence counts. Finding it needs the times of the sends in flight. Their exact list would cost memory for each
//! packet, so sends close together share one span: a ring of [`SPANS`] spans of at least an eighth of a round trip
//! covers two round trips, and the answer is wrong by at most one span, always towards the earlier.

use std::time::{Duration, Instant};

/// Spans of an eighth of a round trip: twice what is normally in flight.
const SPANS: usize = 16;
/// Below this, sends are one batch.
const MIN_SPAN: Duration = Duration::from_millis(1);
/// Above this, an error of one span would be felt in the time to fail over.
const MAX_SPAN: Duration = Duration::from_millis(25);

/// The send times of what is not yet acknowledged, coarsely.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Unanswered {
    /// A ring, oldest at `head`.
    spans: [Option<Span>; SPANS],
    head: usize,
    len: usize,
}

#[derive(Clone, Copy, Debug)]
struct Span {
    first: Instant,
    last: Instant,
}

impl Unanswered {
    /// The oldest send that no later acknowledgement has answered.
    pub(crate) fn since(&self) -> Option<Instant> {
        self.spans[self.head].map(|span| span.first)
    }

    /// Something that elicits an acknowledgement was sent.
    pub(crate) fn on_sent(&mut self, now: Instant, srtt: Duration) {
        let back = (self.head + self.len.saturating_sub(1)) % SPANS;
        if let Some(span) = &mut self.spans[back] {
            let width = (srtt / 8).clamp(MIN_SPAN, MAX_SPAN);
            if self.len == SPANS || now < span.first + width {
                span.last = span.last.max(now);
                return;
            }
        }
        self.spans[(self.head + self.len) % SPANS] = Some(Span {
            first: now,
            last: now,
        });
        self.len += 1;
    }

    /// Something sent at `sent` was acknowledged.
    pub(crate) fn on_acked(&mut self, sent: Instant) {
        while let Some(span) = &mut self.spans[self.head] {
            if sent < span.last {
                span.first = span.first.max(sent);
                return;
            }
            self.spans[self.head] = None;
            self.head = (self.head + 1) % SPANS;
            self.len -= 1;
        }
    }

    /// Nothing is in flight any more, or what is says nothing about the path in use.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn silence_counts_from_the_first_send_and_a_later_send_does_not_move_it() {
        let start = Instant::now();
        let mut unanswered = Unanswered::default();
        assert_eq!(unanswered.since(), None);
        unanswered.on_sent(start, 20 * MS);
        unanswered.on_sent(start + 50 * MS, 20 * MS);
        assert_eq!(unanswered.since(), Some(start));
    }

    #[test]
    fn an_acknowledgement_answers_everything_sent_before_it() {
        let start = Instant::now();
        let mut unanswered = Unanswered::default();
        for i in 0..4 {
            unanswered.on_sent(start + 10 * i * MS, 20 * MS);
        }
        unanswered.on_acked(start + 10 * MS);
        assert_eq!(unanswered.since(), Some(start + 20 * MS));
        unanswered.on_acked(start);
        assert_eq!(
            unanswered.since(),
            Some(start + 20 * MS),
            "an older answer takes nothing back"
        );
        unanswered.on_acked(start + 30 * MS);
        assert_eq!(unanswered.since(), None);
    }

    #[test]
    fn a_busy_sender_is_remembered_to_within_one_span() {
        let start = Instant::now();
        let srtt = 80 * MS;
        let mut unanswered = Unanswered::default();
        for i in 0..80 {
            unanswered.on_sent(start + i * MS, srtt);
        }
        unanswered.on_acked(start + 33 * MS);
        let since = unanswered.since().unwrap();
        assert!(
            since >= start + 33 * MS && since <= start + 34 * MS,
            "{:?}",
            since - start
        );
    }

    #[test]
    fn a_full_ring_forgets_no_send() {
        let start = Instant::now();
        let mut unanswered = Unanswered::default();
        for i in 0..1000 {
            unanswered.on_sent(start + 5 * i * MS, MS);
        }
        unanswered.on_acked(start + 4990 * MS);
        assert!(
            unanswered.since().is_some(),
            "the last send is still unanswered"
        );
        unanswered.on_acked(start + 4995 * MS);
        assert_eq!(unanswered.since(), None);
    }
}
