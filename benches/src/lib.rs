//! Byway's benchmarks: the same work beside raw quinn, in one run.
//!
//! A figure alone says little on a shared machine, so every benchmark measures its ceiling in the same run, alternating
//! with it, and reports ratios. CPU seconds per GiB are steadier than throughput and are reported beside it.
//!
//! `cargo run --release -p byway-benches --bin throughput` prints the table.

pub mod bare_forwarder;
pub mod fleet;
pub mod measure;
pub mod raw_quinn;
pub mod through_byway;
