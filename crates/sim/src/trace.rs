//! What happened, as a hash and as the last lines.
//!
//! Every datagram with its addresses, every wake-up with its host and reason, and everything a program notes goes into one
//! running hash: two runs of one seed must end with the same value, and a difference means that something outside the
//! seed leaked in. The last lines are kept as text for the person who reads a failure; formatting is skipped for lines
//! nobody will see.

use std::collections::VecDeque;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
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
    /// Notes an event: `kind` and each part go into the hash, the text only into the lines.
    pub fn note(
        &mut self,
        at: Duration,
        kind: &str,
        parts: &[&[u8]],
        text: impl FnOnce() -> String,
    ) {
        self.events += 1;
        let nanos = (at.as_nanos() as u64).to_le_bytes();
        self.hash = fnv(kind.as_bytes(), fnv(&nanos, self.hash));
        for part in parts {
            self.hash = fnv(part, self.hash);
        }
        if self.keep > 0 {
            if self.lines.len() == self.keep {
                self.lines.pop_front();
            }
            let line = format!("{:>12.6} {kind:<10} {}", at.as_secs_f64(), text());
            self.lines.push_back(line);
        }
    }
    /// Notes an event that is all text: the text goes into both.
    pub fn say(&mut self, at: Duration, kind: &str, text: String) {
        self.note(at, kind, &[text.as_bytes()], || text.clone());
    }
    /// The hash of everything so far.
    pub fn hash(&self) -> u64 {
        self.hash
    }
    /// How many events were noted.
    pub fn events(&self) -> u64 {
        self.events
    }
}

/// An address as bytes for [`Trace::note`].
pub(crate) fn addr_bytes(addr: SocketAddr) -> [u8; 18] {
    let mut out = [0; 18];
    let ip = match addr.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    out[..16].copy_from_slice(&ip.octets());
    out[16..].copy_from_slice(&addr.port().to_be_bytes());
    out
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
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn equal_events_give_equal_hashes_and_any_difference_shows() {
        let run = |at, kind, bytes: &[u8]| {
            let mut t = Trace::new(0);
            t.note(Duration::from_millis(at), kind, &[bytes], String::new);
            t.hash()
        };
        assert_eq!(run(1, "udp", b"x"), run(1, "udp", b"x"));
        assert_ne!(run(1, "udp", b"x"), run(2, "udp", b"x"));
        assert_ne!(run(1, "udp", b"x"), run(1, "tcp", b"x"));
        assert_ne!(run(1, "udp", b"x"), run(1, "udp", b"y"));
    }

    #[test]
    fn the_border_between_two_parts_and_a_said_text_show_in_the_hash() {
        let parts = |parts: &[&[u8]]| {
            let mut t = Trace::new(0);
            t.note(Duration::ZERO, "udp", parts, String::new);
            t.hash()
        };
        assert_ne!(parts(&[b"ab", b"c"]), parts(&[b"a", b"bc"]));
        let said = |text: &str| {
            let mut t = Trace::new(0);
            t.say(Duration::ZERO, "node", text.to_owned());
            t.hash()
        };
        assert_eq!(said("direct"), said("direct"));
        assert_ne!(said("direct"), said("relayed"));
    }

    #[test]
    fn two_addresses_that_differ_in_one_bit_differ_in_their_bytes() {
        let bytes = |text: &str| addr_bytes(text.parse().unwrap());
        assert_eq!(bytes("192.0.2.1:5"), bytes("192.0.2.1:5"));
        assert_ne!(bytes("192.0.2.1:5"), bytes("192.0.2.1:4"));
        assert_ne!(bytes("192.0.2.1:5"), bytes("192.0.2.0:5"));
        assert_ne!(bytes("[2001:db8::1]:5"), bytes("[2001:db8::]:5"));
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
