//! The table `limits`: what can be set of it, and what it becomes.

use std::ops::RangeInclusive;
use std::time::Duration;

use clap::Args;
use serde::Deserialize;

use super::layers::layers;
use super::resolve::{Fault, fault};
use crate::limits::ranges;
use crate::{Limits, NodeRate, kpps, mbit};

/// Highest rate of a node, in megabits or in thousands of datagrams: beyond it a limit limits nothing.
const MAX_RATE: u32 = 100_000;

/// What a node, or an address that nobody knows yet, may take of the relay: the table `limits`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Args, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct LimitSettings {
    /// Channels of one node process, 1-65536. Default: 1024.
    #[arg(
        long = "max-channels",
        value_name = "N",
        env = "BYWAY_RELAY_MAX_CHANNELS"
    )]
    pub channels: Option<u32>,
    /// Links of one node, all its processes together, 1-1024. Default: 16.
    #[arg(
        long = "max-links-per-node",
        value_name = "N",
        env = "BYWAY_RELAY_MAX_LINKS_PER_NODE"
    )]
    pub links_per_node: Option<u32>,
    /// Links of one process, 2-64. Default: 4.
    #[arg(
        long = "max-links-per-process",
        value_name = "N",
        env = "BYWAY_RELAY_MAX_LINKS_PER_PROCESS"
    )]
    pub links_per_process: Option<u32>,
    /// Opens to one node that it has not answered, 1-1024. Default: 8.
    #[arg(
        long = "max-unanswered-opens",
        value_name = "N",
        env = "BYWAY_RELAY_MAX_UNANSWERED_OPENS"
    )]
    pub unanswered_opens: Option<u32>,
    /// What one node may send, in megabits a second, all its links together; 0 for no limit. Default: 100 on an open relay, else none.
    #[arg(
        long = "max-node-mbit",
        value_name = "N",
        env = "BYWAY_RELAY_MAX_NODE_MBIT"
    )]
    pub node_mbit: Option<u32>,
    /// The same in thousands of datagrams a second. Default: 20 on an open relay, else none.
    #[arg(
        long = "max-node-kpps",
        value_name = "N",
        env = "BYWAY_RELAY_MAX_NODE_KPPS"
    )]
    pub node_kpps: Option<u32>,
    /// Let nobody new in while the relay uses more of its memory or its file descriptors than this, in percent, 10-100. Default: 80.
    #[arg(long = "max-use", value_name = "PERCENT", env = "BYWAY_RELAY_MAX_USE")]
    pub shed_above: Option<u32>,
    /// New connections of one address in a second, 1-100000; twice as many at once. Default: 100.
    #[arg(
        long = "max-connections",
        value_name = "N",
        env = "BYWAY_RELAY_MAX_CONNECTIONS"
    )]
    pub connections: Option<u32>,
    /// Answers in a second to one network's bare STUN requests, 1-10000. Default: 10.
    #[arg(long = "max-stun", value_name = "N", env = "BYWAY_RELAY_MAX_STUN")]
    pub stun: Option<u32>,
    /// The same of all networks together, 1-1000000. Default: 1000.
    #[arg(
        long = "max-stun-in-all",
        value_name = "N",
        env = "BYWAY_RELAY_MAX_STUN_IN_ALL"
    )]
    pub stun_in_all: Option<u32>,
    /// Seconds that TLS or QUIC may take, 1-60. Default: 5.
    #[arg(
        long = "max-handshake-seconds",
        value_name = "N",
        env = "BYWAY_RELAY_MAX_HANDSHAKE_SECONDS"
    )]
    pub handshake_seconds: Option<u32>,
    /// Seconds until a node must be welcomed, its handshake included, 1-120. Default: 10.
    #[arg(
        long = "max-welcome-seconds",
        value_name = "N",
        env = "BYWAY_RELAY_MAX_WELCOME_SECONDS"
    )]
    pub welcome_seconds: Option<u32>,
    /// Handshakes under way at one listener, 8-65536. One host may have an eighth of them. Default: 1024.
    #[arg(
        long = "max-handshakes",
        value_name = "N",
        env = "BYWAY_RELAY_MAX_HANDSHAKES"
    )]
    pub handshakes: Option<u32>,
    /// QUIC handshakes under way, 0-65536, beyond which whoever comes must prove its address first; 0 for always. Default: 128.
    #[arg(
        long = "max-unproved",
        value_name = "N",
        env = "BYWAY_RELAY_MAX_UNPROVED"
    )]
    pub unproved: Option<u32>,
    /// What is kept of a QUIC handshake that waits, in KiB, 2-1024. Default: 128.
    #[arg(
        long = "max-handshake-kib",
        value_name = "KIB",
        env = "BYWAY_RELAY_MAX_HANDSHAKE_KIB"
    )]
    pub handshake_kib: Option<u32>,
    /// Data that waits for one node's TLS link, in KiB, 128-16384; up to four times as much for a link that takes it in ten milliseconds. Default: 256.
    #[arg(
        long = "max-egress-kib",
        value_name = "KIB",
        env = "BYWAY_RELAY_MAX_EGRESS_KIB"
    )]
    pub egress_kib: Option<u32>,
    /// How long it waits, in milliseconds, 1-10000. Default: 50.
    #[arg(
        long = "max-egress-ms",
        value_name = "MS",
        env = "BYWAY_RELAY_MAX_EGRESS_MS"
    )]
    pub egress_ms: Option<u32>,
    /// Seconds that a node's TLS link may take nothing of what is written to it, 1-60. Default: 2.
    #[arg(
        long = "max-stall-seconds",
        value_name = "N",
        env = "BYWAY_RELAY_MAX_STALL_SECONDS"
    )]
    pub stall_seconds: Option<u32>,
}

layers!(LimitSettings {
    channels,
    links_per_node,
    links_per_process,
    unanswered_opens,
    node_mbit,
    node_kpps,
    shed_above,
    connections,
    stun,
    stun_in_all,
    handshake_seconds,
    welcome_seconds,
    handshakes,
    unproved,
    handshake_kib,
    egress_kib,
    egress_ms,
    stall_seconds,
});

impl LimitSettings {
    /// `open`: of an open relay nobody knows who comes. There each node has a share unless the relay's operator says otherwise.
    pub(super) fn resolve(&self, open: bool) -> Result<Limits, Fault> {
        let seconds = |n: u32| Duration::from_secs(n.into());
        let kib = |n: u32| n * 1024;
        let mut limits = Limits::default();
        let (handshakes, egress) = (&mut limits.handshakes, &mut limits.egress);
        for (key, value, range, to) in [
            (
                "limits.channels",
                self.channels,
                ranges::CHANNELS,
                &mut limits.channels,
            ),
            (
                "limits.links_per_node",
                self.links_per_node,
                ranges::LINKS_PER_NODE,
                &mut limits.links_per_node,
            ),
            (
                "limits.links_per_process",
                self.links_per_process,
                ranges::LINKS_PER_PROCESS,
                &mut limits.links_per_process,
            ),
            (
                "limits.unanswered_opens",
                self.unanswered_opens,
                ranges::UNANSWERED_OPENS,
                &mut limits.unanswered_opens,
            ),
            (
                "limits.connections",
                self.connections,
                ranges::CONNECTIONS,
                &mut limits.connections,
            ),
            ("limits.stun", self.stun, ranges::STUN, &mut limits.stun),
            (
                "limits.stun_in_all",
                self.stun_in_all,
                ranges::STUN_IN_ALL,
                &mut limits.stun_in_all,
            ),
            (
                "limits.shed_above",
                self.shed_above,
                ranges::SHED_ABOVE,
                &mut limits.shed_above,
            ),
            (
                "limits.handshakes",
                self.handshakes,
                ranges::HANDSHAKES,
                &mut handshakes.under_way,
            ),
            (
                "limits.unproved",
                self.unproved,
                ranges::UNPROVED,
                &mut handshakes.prove_above,
            ),
        ] {
            if let Some(value) = within(key, value, range)? {
                *to = value;
            }
        }
        for (key, value, range, to) in [
            (
                "limits.handshake_seconds",
                self.handshake_seconds,
                ranges::HANDSHAKE_SECONDS,
                &mut handshakes.within,
            ),
            (
                "limits.welcome_seconds",
                self.welcome_seconds,
                ranges::WELCOME_SECONDS,
                &mut handshakes.welcome_within,
            ),
            (
                "limits.stall_seconds",
                self.stall_seconds,
                ranges::STALL_SECONDS,
                &mut egress.stall,
            ),
        ] {
            if let Some(value) = within(key, value, range)? {
                *to = seconds(value);
            }
        }
        if let Some(n) = within(
            "limits.handshake_kib",
            self.handshake_kib,
            ranges::HANDSHAKE_KIB,
        )? {
            handshakes.buffered = kib(n);
        }
        if let Some(n) = within("limits.egress_kib", self.egress_kib, ranges::EGRESS_KIB)? {
            egress.bytes = kib(n);
        }
        if let Some(n) = within("limits.egress_ms", self.egress_ms, ranges::EGRESS_MS)? {
            egress.age = Duration::from_millis(n.into());
        }
        if limits.links_per_node < limits.links_per_process {
            return fault(
                "limits.links_per_node",
                format!(
                    "is less than a single process may have ({})",
                    limits.links_per_process
                ),
                "raise it, or lower 'links_per_process'",
            );
        }
        let handshakes = limits.handshakes;
        if self.unproved.is_some() && handshakes.prove_above > handshakes.under_way / 2 {
            return fault(
                "limits.unproved",
                format!(
                    "is more than half of the handshakes that may be under way ({})",
                    handshakes.under_way
                ),
                "lower it, or raise 'handshakes': forged addresses could fill all places",
            );
        }
        if handshakes.welcome_within < handshakes.within {
            return fault(
                "limits.welcome_seconds",
                format!(
                    "is less than the handshake alone may take ({})",
                    handshakes.within.as_secs()
                ),
                "raise it, or lower 'handshake_seconds'",
            );
        }
        limits.node_rate = self.node_rate(open)?;
        Ok(limits)
    }

    fn node_rate(&self, open: bool) -> Result<NodeRate, Fault> {
        for (key, value) in [
            ("limits.node_mbit", self.node_mbit),
            ("limits.node_kpps", self.node_kpps),
        ] {
            if let Some(value) = value.filter(|n| *n > MAX_RATE) {
                let mend = format!("give 1 to {MAX_RATE}, or 0 for no limit");
                return fault(key, format!("is {value}"), mend);
            }
        }
        let usual = if open {
            Limits::public_rate()
        } else {
            NodeRate::default()
        };
        let chosen = |said: Option<u32>, unit: fn(u32) -> u64, usual| match said {
            None => usual,
            Some(0) => None,
            Some(n) => Some(unit(n)),
        };
        Ok(NodeRate {
            bytes: chosen(self.node_mbit, mbit, usual.bytes),
            datagrams: chosen(self.node_kpps, kpps, usual.datagrams),
        })
    }
}

fn within(
    key: &'static str,
    value: Option<u32>,
    range: RangeInclusive<u32>,
) -> Result<Option<u32>, Fault> {
    match value {
        Some(value) if !range.contains(&value) => {
            let mend = format!("give {} to {}", range.start(), range.end());
            fault(key, format!("is {value}"), mend)
        }
        value => Ok(value),
    }
}
