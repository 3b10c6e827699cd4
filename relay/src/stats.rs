//! Counters of the shell: what was forwarded, and every drop with its reason (design section 12).
//!
//! Each shard has a set of its own, so that no two cores write to one cache line; a snapshot is their sum.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// One thread's counters. Relaxed: each is read alone, and nothing is concluded from two of them.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: AtomicU64,)*
        }

        /// The data plane's counts since the start. They only rise.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        #[non_exhaustive]
        pub struct DataStats {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl DataStats {
            pub(crate) fn add(&mut self, counters: &Counters) {
                $(self.$name += counters.$name.load(Ordering::Relaxed);)*
            }
            /// Names and values, for metrics.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name)),*].into_iter()
            }
        }
    };
}

counters! {
    /// Datagrams received by the UDP shards, GRO segments counted one by one.
    udp_in,
    /// Their bytes, relay headers included.
    udp_in_bytes,
    /// Datagrams sent: forwarded, echoed, and answers.
    udp_out,
    /// Their bytes, relay headers included.
    udp_out_bytes,
    /// `sendmsg` calls that took: many fewer than datagrams when segmentation offload works.
    udp_sends,
    /// Datagrams echoed on channel 0.
    echoed,
    /// Datagrams of QUIC handed to the control endpoint.
    quic_in,
    /// Of those, dropped: the endpoint does not keep up, or they are longer than it reads.
    quic_dropped,
    /// STUN requests answered.
    stun_answered,
    /// STUN requests answered with 420, unknown attributes.
    stun_unknown_attributes,
    /// STUN requests not answered: over their prefix's or everyone's budget.
    stun_limited,
    /// STUN messages that are no requests, or malformed: never answered.
    stun_ignored,
    /// Datagrams dropped: from an address that is not bound, or for a channel that does not exist.
    dropped_unbound,
    /// Rebind cookies sent.
    cookies,
    /// Rebind cookies not sent: over the budget, or longer than what asked for them.
    cookies_limited,
    /// Datagrams dropped: longer than the relay forwards.
    dropped_oversize,
    /// Datagrams dropped: their node sends more than it may.
    dropped_rate,
    /// Times that a TLS link was not read for a while: its node sends more than it may.
    tls_held_back,
    /// Datagrams dropped: beyond their source's share, while the shard could not keep up.
    dropped_share,
    /// Datagrams dropped: of no kind a relay knows, or without a payload.
    dropped_unknown,
    /// Datagrams dropped: the egress path does not carry their size.
    dropped_mtu,
    /// Datagrams dropped: the socket's send buffer is full.
    dropped_full,
    /// Datagrams dropped: another error of the destination.
    dropped_send_error,
    /// GSO batches the kernel refused and that were sent one by one.
    gso_refused,
    /// Datagrams dropped: the far end has no link at the moment.
    dropped_gone,
    /// Datagrams that came in frames of TLS links.
    tls_in,
    /// Their bytes, without headers.
    tls_in_bytes,
    /// Datagrams queued for TLS links, those that were dropped from there later too.
    tls_out,
    /// Bytes of data frames queued for TLS links, headers included.
    tls_out_bytes,
    /// Data frames queued for TLS links.
    tls_queued,
    /// Of those, dropped: the queue was full.
    tls_dropped_full,
    /// Of those, dropped: they waited too long.
    tls_dropped_old,
    /// Connections refused before any handshake: too many from one address, or too many handshakes under way.
    connections_limited,
    /// Connections refused before any handshake: most of the relay's memory or descriptors is in use.
    refused_pressure,
    /// QUIC connections that had to prove their address first.
    retried,
    /// Handshakes that failed or took too long.
    handshakes_failed,
    /// Lines of the audit log lost: the disk does not keep up, or the file cannot be written.
    audit_dropped,
    /// Times that the files that say who comes in had changed, and could not be loaded: once at every look, until they can.
    admission_reloads_failed,
    /// Times that keys could not be fetched from a URL.
    admission_fetches_failed,
    /// Links cut: they took nothing for too long, or their control queue overflowed.
    stalled,
    /// Links whose TLS ends somewhere between the node and here.
    intercepted,
    /// Proofs refused on TLS links: not of their key, meant for another relay, or of a link whose TLS must end here.
    proofs_refused,
}

/// Adds to a counter.
pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}
/// Adds one.
pub(crate) fn bump(counter: &AtomicU64) {
    add(counter, 1);
}
