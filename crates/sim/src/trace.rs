//! What happened, as a hash and as the last lines.
//!
//! Every datagram, timer and decision goes into one running hash: two runs of one seed must end with the same value, and
//! a difference means that something outside the seed leaked in. The last lines are kept as text for the person who
//! reads a failure; formatting is skipped for lines nobody will see.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use crate::rng::{FNV_OFFSET, fnv};

/// The trace of a run.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    events: u64,
    keep: usize,
    lines: VecDeque<String>,
}

impl Trace {
    /// Keeps the last `keep` lines.
    pub fn new(keep: usize) -> Self {
        Self {
            hash: FNV_OFFSET,
            events: 0,
            keep,
            lines: VecDeque::new(),
        }
    }
    /// Notes an event: `kind` and `bytes` go into the hash, the text only into the lines.
    pub fn note(&mut self, at: Duration, kind: &str, bytes: &[u8], text: impl FnOnce() -> String) {
        self.events += 1;
        let nanos = (at.as_nanos() as u64).to_le_bytes();
        self.hash = fnv(bytes, fnv(kind.as_bytes(), fnv(&nanos, self.hash)));
        if self.keep > 0 {
            if self.lines.len() == self.keep {
                self.lines.pop_front();
            }
            let line = format!("{:>12.6} {kind:<10} {}", at.as_secs_f64(), text());
            self.lines.push_back(line);
        }
    }
    /// The hash of everything so far.
    pub fn hash(&self) -> u64 {
        self.hash
    }
    /// How many events were noted.
    pub fn events(&self) -> u64 {
        self.events
    }
    /// Keeps that many lines from now on.
    pub fn keep(&mut self, lines: usize) {
        self.keep = lines;
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            writeln!(f, "{line}")?;
        }
        write!(f, "{} events, hash {:016x}", self.events, self.hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_events_give_equal_hashes_and_any_difference_shows() {
        let run = |at, kind, bytes: &[u8]| {
            let mut t = Trace::new(0);
            t.note(Duration::from_millis(at), kind, bytes, String::new);
            t.hash()
        };
        assert_eq!(run(1, "udp", b"x"), run(1, "udp", b"x"));
        assert_ne!(run(1, "udp", b"x"), run(2, "udp", b"x"));
        assert_ne!(run(1, "udp", b"x"), run(1, "tcp", b"x"));
        assert_ne!(run(1, "udp", b"x"), run(1, "udp", b"y"));
    }

    #[test]
    fn only_the_last_lines_are_kept() {
        let mut t = Trace::new(2);
        for i in 0..5 {
            t.note(Duration::ZERO, "n", &[], || format!("line {i}"));
        }
        let text = t.to_string();
        assert!(text.contains("line 4") && text.contains("line 3") && !text.contains("line 2"));
    }
}
