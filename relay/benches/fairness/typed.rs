//! What came of typing, as a line of a table.

use std::time::Duration;

use crate::shared::percentile_ms;

pub(crate) const EVERY: Duration = Duration::from_millis(50);
pub(crate) const KEYSTROKES: u32 = 400;
/// A keystroke that is not back by then is lost.
pub(crate) const LOST: Duration = Duration::from_secs(1);
/// The typist's channel, and the flooder's.
pub(crate) const TYPIST: u64 = 1;
pub(crate) const FLOOD: u64 = 2;
/// The round trip of a network that the target is for, in milliseconds. It is added to what was measured on loopback: a delay outside the relay
/// is the same with a flood and without.
const NETWORK: f64 = 20.0;

/// One measurement.
pub(crate) struct Row {
    /// How long each keystroke was away that came back.
    pub(crate) back: Vec<Duration>,
    /// Datagrams of the flood in a second: sent, forwarded, dropped by the relay.
    pub(crate) sent: f64,
    pub(crate) forwarded: f64,
    pub(crate) dropped: f64,
}

impl Row {
    /// A percentile, in milliseconds.
    fn at(&self, percent: usize) -> f64 {
        percentile_ms(&self.back, percent)
    }
}

/// A table of them.
pub(crate) struct Table {
    /// The p99 without a flood, in milliseconds.
    unloaded: f64,
}

impl Table {
    pub(crate) fn begin() -> Self {
        println!(
            "| | keystrokes lost | p50 ms | p99 ms | p99 at {NETWORK} ms, of unloaded | sent /s | forwarded /s | dropped /s |"
        );
        println!("|---|---|---|---|---|---|---|---|");
        Self { unloaded: f64::NAN }
    }
    pub(crate) fn alone(&mut self, name: &str, row: Row) {
        self.unloaded = row.at(99);
        self.beside(name, row);
    }
    pub(crate) fn beside(&self, name: &str, row: Row) {
        println!(
            "| {name} | {} of {KEYSTROKES} | {:.2} | {:.2} | {:.2} | {:.0} | {:.0} | {:.0} |",
            KEYSTROKES as usize - row.back.len(),
            row.at(50),
            row.at(99),
            (row.at(99) + NETWORK) / (self.unloaded + NETWORK),
            row.sent,
            row.forwarded,
            row.dropped,
        );
    }
}
