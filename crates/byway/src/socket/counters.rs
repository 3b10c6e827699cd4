//! What the socket drops, and why. Relaxed atomics: for showing and for tests, nothing depends on their order.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[doc = $means:literal])+ $name:ident,)+) => {
        /// Counts of the socket.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $($(#[doc = $means])+ pub(crate) $name: Counter,)+
        }
        impl Counters {
            /// Of all together: it rises when any does.
            pub(crate) fn total(&self) -> u64 {
                [$(self.$name.get()),+].into_iter().sum()
            }
            /// All that are not zero: name, meaning and count.
            pub(crate) fn nonzero(&self) -> Vec<(&'static str, &'static str, u64)> {
                [$((stringify!($name), concat!($($means),+).trim_ascii(), self.$name.get())),+]
                    .into_iter()
                    .filter(|(_, _, count)| *count > 0)
                    .collect()
            }
        }
    };
}

/// One count.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    /// So far.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

counters! {
    /// QUIC from an address that no path knows.
    unknown_source,
    /// Relay data of a channel that we do not have, or from an address that is no relay of ours.
    unknown_channel,
    /// A first byte that means nothing.
    unknown_kind,
    /// STUN, probes, cookies and first datagrams that the driver had no room for.
    driver_full,
    /// A datagram for a peer or link that is gone.
    no_route,
    /// Sends the kernel refused: evidence about a path, never an error for QUIC.
    send_refused,
    /// Sends of the driver's (probes, STUN) while the socket buffer was full.
    send_blocked,
    /// MTU probes larger than the route carries.
    probe_too_large,
    /// Datagrams sent in two parts because their path shrank.
    fragmented,
    /// Parts of datagrams whose other part never came.
    fragment_lost,
    /// Datagrams for QUIC that found no room to wait.
    spilled,
    /// Announcements said to be the gateway's that told nothing new, or were not the gateway's.
    announcement_refused,
}
