//! Wall time, CPU time and throughput of one piece of work.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Clock ticks per second in `/proc/self/stat`: Linux has reported 100 to user space on every architecture for decades.
const TICKS_PER_SECOND: f64 = 100.0;

/// One measured transfer.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Bytes carried.
    pub bytes: u64,
    /// Wall time.
    pub elapsed: Duration,
    /// User and system CPU time of the whole process (every role runs in it).
    pub cpu: Duration,
}

impl Sample {
    /// Throughput in MiB/s.
    pub fn mib_per_second(&self) -> f64 {
        self.bytes as f64 / (1024.0 * 1024.0) / self.elapsed.as_secs_f64()
    }

    /// CPU seconds of all roles together per GiB carried.
    pub fn cpu_per_gib(&self) -> f64 {
        self.cpu.as_secs_f64() / (self.bytes as f64 / (1024.0 * 1024.0 * 1024.0))
    }
}

/// Runs `work`, which carries `bytes`, and measures it.
pub async fn measure(bytes: u64, work: impl Future<Output = Result<()>>) -> Result<Sample> {
    let cpu_before = process_cpu()?;
    let start = Instant::now();
    work.await?;
    let elapsed = start.elapsed();
    Ok(Sample {
        bytes,
        elapsed,
        cpu: process_cpu()?.saturating_sub(cpu_before),
    })
}

/// User plus system time of this process so far.
fn process_cpu() -> Result<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat")
        .context("CPU time is read from /proc/self/stat")?;
    // The command's name stands in parentheses and may hold spaces: count fields behind it (proc(5): utime is field 14).
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks = |i: usize| {
        fields
            .get(i)
            .and_then(|f| f.parse::<f64>().ok())
            .context("malformed /proc/self/stat")
    };
    Ok(Duration::from_secs_f64(
        (ticks(11)? + ticks(12)?) / TICKS_PER_SECOND,
    ))
}

/// The sample of median throughput.
pub fn median(mut samples: Vec<Sample>) -> Option<Sample> {
    samples.sort_by(|a, b| a.mib_per_second().total_cmp(&b.mib_per_second()));
    let middle = samples.len().checked_sub(1)? / 2;
    samples.get(middle).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(mib: u64, ms: u64) -> Sample {
        Sample {
            bytes: mib << 20,
            elapsed: Duration::from_millis(ms),
            cpu: Duration::from_millis(ms),
        }
    }

    #[test]
    fn throughput_and_cpu_are_per_binary_unit() {
        let s = sample(512, 2_000);
        assert_eq!(s.mib_per_second(), 256.0);
        assert_eq!(s.cpu_per_gib(), 4.0);
    }

    #[test]
    fn the_median_is_the_middle_sample() {
        let m = median(vec![
            sample(100, 1_000),
            sample(300, 1_000),
            sample(200, 1_000),
        ]);
        assert_eq!(m.map(|s| s.mib_per_second()), Some(200.0));
        assert!(median(Vec::new()).is_none());
    }
}
