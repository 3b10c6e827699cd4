//! What every handler needs beside its own state.

use std::time::Instant;

use crate::asked::Asked;
use crate::counters::Counters;
use crate::rng::Rng;

/// Lent by the node to the part that handles an input.
#[derive(Debug)]
pub(crate) struct Cx<'a> {
    pub(crate) now: Instant,
    pub(crate) rng: &'a mut Rng,
    pub(crate) counters: &'a mut Counters,
    pub(crate) asked: &'a mut Asked,
}

/// What the node lends: a macro, because it borrows those fields alone, and the part that handles the input is another one.
macro_rules! cx {
    ($node:ident, $now:expr) => {
        $crate::cx::Cx {
            now: $now,
            rng: &mut $node.rng,
            counters: &mut $node.counters,
            asked: &mut $node.asked,
        }
    };
}
pub(crate) use cx;

/// A moment to wake up, and why.
pub(crate) type Wake = (Instant, &'static str);

/// The earlier of two wake-ups.
pub(crate) fn earliest(a: Option<Wake>, b: Option<Wake>) -> Option<Wake> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if b.0 < a.0 { b } else { a }),
        (a, b) => a.or(b),
    }
}
