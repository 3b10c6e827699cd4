//! Byway beside iroh: the same transfer through a relay, in the same network, in turn, in one run.
//!
//! Both ends are behind symmetric NATs, the kind that neither library crosses against itself, so that both stay on their relay
//! by themselves; iroh does better like this than with its IP transports taken away. The relay is a host on the public segment.
//! Cables are veth pairs of 1,500 bytes without any delay, and every role shares this machine's processors: what one role
//! takes the others lack, so goodput and CPU time are two views of one thing, and the second is the steadier one.
//!
//! iroh is played as it is published, with its defaults, and twice: with TLS to its relay, as it is used, and without, which is
//! less work than anybody's relay on a real internet has. Byway is played by each kind of link. Both ends run the same code
//! over either library (`benches/transfer`), built with the same profile.
//!
//! First of all comes a reference that is nobody's: raw quinn with its defaults, through a forwarder that looks at nothing. What the
//! forwarder takes is what this network costs; the ends are no bound, for a library may hand the kernel more at a time.
//!
//! | a round, for each way | |
//! |---|---|
//! | a new world, its relay, the two ends | nothing is left of the one before |
//! | 32 MiB | congestion windows, the search for the MTU |
//! | clocks and counters are read | each thread's time on a processor, bytes by way at both hosts |
//! | 1 GiB on one stream | |
//! | they are read again | |
//!
//! A transfer that did not go where it should is a failure and no figure: both ends say which path they used, and the hosts'
//! counters must have seen all of it towards the relay, and next to nothing between the sites.

mod cpu;
mod report;
mod way;

use std::collections::BTreeMap;

use report::Report;
use way::Way;

use crate::harness::{self, Need};
use crate::programs;

const NEEDS: &[Need] = &[Need::Namespaces, Need::IrohBinaries, Need::Tool("bash")];
/// How often each is played.
const ROUNDS: usize = 5;
/// One transfer: seconds of work, so that the milliseconds around it do not count. `BYWAY_LAB_SIZE` is another one.
const SIZE: u64 = 1 << 30;

/// How the figures are told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// A table for a person.
    Table,
    /// One JSON object.
    Json,
}

/// Plays each way so many times in turn, and prints what it came to beside the targets. False if a transfer failed; a
/// target that is missed is a figure, and no failure.
pub fn beside_iroh(rounds: Option<usize>, form: Form) -> bool {
    harness::by_hand(NEEDS, || compare(rounds.unwrap_or(ROUNDS), form))
}

fn compare(rounds: usize, form: Form) -> bool {
    let mib = match programs::size_or(SIZE) {
        Ok(size) => (size >> 20).max(1),
        Err(error) => {
            eprintln!("{error:#}");
            return false;
        }
    };
    let ways = match way::chosen() {
        Ok(ways) => ways,
        Err(error) => {
            eprintln!("{error:#}");
            return false;
        }
    };
    let mut samples: BTreeMap<Way, Vec<_>> = BTreeMap::new();
    for round in 1..=rounds {
        for &way in &ways {
            match harness::quietly(move || way.play(mib)) {
                Ok(sample) => {
                    eprintln!("round {round} of {rounds}, {}: {sample}", way.title());
                    samples.entry(way).or_default().push(sample);
                }
                Err(why) => {
                    eprintln!("round {round} of {rounds}, {} FAILED: {why}", way.title());
                    return false;
                }
            }
        }
    }
    let report = Report::of(mib, &samples);
    match form {
        Form::Table => println!("{report}"),
        Form::Json => println!("{}", report.json()),
    }
    true
}
