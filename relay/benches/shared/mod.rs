//! What the benchmarks of the relay share.

#![allow(dead_code, reason = "each benchmark uses a part")]

mod relay;

use std::time::Duration;

#[allow(unused_imports, reason = "each benchmark uses a part")]
pub(crate) use relay::{Relay, raise_descriptors};

/// Clock ticks a second in `/proc` (proc(5)).
const TICKS: f64 = 100.0;

/// CPU seconds of a process or a thread, by the text of its `stat` in `/proc`. Its name, in parentheses, may hold spaces.
pub(crate) fn cpu_seconds(stat: &str) -> f64 {
    let rest = stat.rsplit(')').next().unwrap_or_default();
    let fields = rest.split_whitespace();
    let ticks = fields.skip(11).take(2).map(|f| f.parse::<f64>().unwrap());
    ticks.sum::<f64>() / TICKS
}

/// A percentile, in milliseconds; not a number of nothing.
pub(crate) fn percentile_ms(times: &[Duration], percent: usize) -> f64 {
    let mut times = times.to_vec();
    times.sort_unstable();
    let place = times.len() * percent / 100;
    times.get(place).map_or(f64::NAN, |t| t.as_secs_f64() * 1e3)
}
