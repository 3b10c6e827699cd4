//! What the simulation's tests share.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::time::{Duration, Instant};

use byway_core::io::{LinkError, PeerError};
use byway_sim::scene::{Scene, Setup};
use byway_sim::shell::node::Note;

/// Where virtual time starts: the only clock reading of a run. Nothing depends on its value.
#[expect(
    clippy::disallowed_methods,
    reason = "an Instant has no other constructor; the run only adds to it"
)]
pub(crate) fn base() -> Instant {
    Instant::now()
}

pub(crate) fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}
pub(crate) fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub(crate) fn scene(setup: Setup) -> Scene {
    Scene::new(base(), &setup)
}

/// True if within that time the client tells of a call that reached no relay, for such a reason.
pub(crate) fn reaches_no_relay(
    s: &mut Scene,
    within: Duration,
    why: impl Fn(&LinkError) -> bool,
) -> bool {
    let client = s.client;
    let told = |note: &Note| match note {
        Note::Failed(_, PeerError::NoRelay(errors)) => errors.iter().any(|(_, error)| why(error)),
        _ => false,
    };
    s.world.run_within(within, |w| {
        let notes = &w.node(client).0.notes;
        notes.iter().any(|(_, note)| told(note))
    })
}

/// A whole number from the environment. What is no number is no reason to play something else than was asked for.
pub(crate) fn env(name: &str) -> Option<u64> {
    let text = std::env::var_os(name)?;
    let number = text.to_str().and_then(|text| text.parse().ok());
    Some(number.unwrap_or_else(|| panic!("{name}={} is no whole number", text.display())))
}

/// One of many measurements: of a hundred, the `share`th in order of size.
pub(crate) fn percentile(sorted: &[Duration], share: usize) -> Duration {
    sorted[(sorted.len() * share).div_ceil(100).max(1) - 1]
}
