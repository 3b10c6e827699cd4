//! What the benchmarks of the relay share.

/// Clock ticks a second in `/proc` (proc(5)).
const TICKS: f64 = 100.0;

/// CPU seconds of a process or a thread, by the text of its `stat` in `/proc`. Its name, in parentheses, may hold spaces.
pub(crate) fn cpu_seconds(stat: &str) -> f64 {
    let rest = stat.rsplit(')').next().unwrap_or_default();
    let fields = rest.split_whitespace();
    let ticks = fields.skip(11).take(2).map(|f| f.parse::<f64>().unwrap());
    ticks.sum::<f64>() / TICKS
}
