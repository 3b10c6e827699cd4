//! Those that mean harm, played against the real programs: who repeats and forges datagrams, who promises paths that lead to
//! others, who calls without permission, and STUN servers that lie. What they must not bring about is judged by what arrives at
//! third parties, counted by nftables; what the programs made of it, by the log.

pub(super) mod forged;
pub(super) mod promises;
pub(super) mod strangers;
pub(super) mod stun;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context, Result, bail};
use byway_sim::model::Access;
use serde_json::Value;

use super::{ACCESS, SHORT};
use crate::netns::Namespace;
use crate::process::{Running, poll};
use crate::world::{Site, World};

/// Where whoever means harm is.
pub(super) const EVIL: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 30);
/// A third party, which has nothing to do with any of it.
pub(super) const VICTIMS: [Ipv4Addr; 4] = [
    Ipv4Addr::new(203, 0, 113, 40),
    Ipv4Addr::new(203, 0, 113, 41),
    Ipv4Addr::new(203, 0, 113, 42),
    Ipv4Addr::new(203, 0, 113, 43),
];

/// What an address gets that nobody attests (docs/protocol.md, "Limits in one place"): pings, and their bytes with the headers of IPv4
/// and UDP.
const PINGS: u64 = 3;
const PING: u64 = 120 + 28;

/// Client and agent in networks of this kind, and two hosts more: `evil` and `victim`.
fn world(access: Access) -> Result<World> {
    let site = || Site::behind(access).access(ACCESS);
    let plan = World::servers()
        .host("evil", &[EVIL])
        .host("victim", &VICTIMS)
        .site("client", site())
        .site("agent", site());
    World::of(plan)
}

/// Datagrams by their destination.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gone {
    to: SocketAddr,
    packets: u64,
    pub(super) bytes: u64,
}

/// What is counted on a host.
#[derive(Clone, Copy)]
pub(super) enum Counted {
    /// All UDP that comes in.
    Arrivals,
    /// Probes that leave by no channel (docs/protocol.md: their first byte is 0x81).
    Probes,
}

/// Counts on a host from now on, by destination.
pub(super) fn count(host: &Namespace, what: Counted) -> Result<()> {
    let (hook, which) = match what {
        Counted::Arrivals => ("input", "meta l4proto udp"),
        Counted::Probes => ("output", "udp length > 8 @th,64,8 0x81"),
    };
    host.nft(&format!(
        "table inet hostile {{\n\
         set gone {{ type ipv4_addr . inet_service; flags dynamic; size 65535; counter; }}\n\
         chain each {{ type filter hook {hook} priority -10; policy accept;\n\
         {which} update @gone {{ ip daddr . udp dport }}\n}}\n}}\n"
    ))
}

/// What was counted there so far.
pub(super) fn gone(host: &Namespace) -> Result<Vec<Gone>> {
    let list = ["-j", "list", "set", "inet", "hostile", "gone"];
    let out = host.command("nft").args(list).output()?;
    let json: Value = serde_json::from_slice(&out.stdout)
        .with_context(|| format!("counting: {}", String::from_utf8_lossy(&out.stderr)))?;
    let sets = json["nftables"].as_array().into_iter().flatten();
    let elements = sets.flat_map(|item| item["set"]["elem"].as_array().into_iter().flatten());
    elements
        .map(|item| {
            let item = &item["elem"];
            let [ip, port] = [0, 1].map(|n| &item["val"]["concat"][n]);
            let counter = |name| item["counter"][name].as_u64();
            let (Some(ip), Some(port)) = (ip.as_str(), port.as_u64()) else {
                bail!("no destination: {item}");
            };
            Ok(Gone {
                to: SocketAddr::new(ip.parse::<IpAddr>()?, u16::try_from(port)?),
                packets: counter("packets").context("no packets")?,
                bytes: counter("bytes").context("no bytes")?,
            })
        })
        .collect()
}

/// How often a program says that it dropped or refused something of that name (`-v`).
fn dropped(program: &Running, name: &str) -> u64 {
    let lines = program.lines();
    let told = lines
        .iter()
        .filter_map(|line| line.text.split_once("dropped or refused: "));
    told.filter_map(|(_, drops)| of_name(drops, name)).sum()
}

/// From `NAME +COUNT (meaning), ...`.
fn of_name(drops: &str, name: &str) -> Option<u64> {
    let at = drops.match_indices(name).find(|(at, _)| {
        // A whole name.
        *at == 0 || drops[..*at].ends_with(", ")
    })?;
    let count = drops[at.0 + name.len()..].strip_prefix(" +")?;
    count.split(' ').next()?.parse().ok()
}

/// Waits until a program says that it dropped or refused so many of that name.
fn until_dropped(program: &Running, name: &str, least: u64) -> Result<u64> {
    poll(&format!("{least} of {name} in the log"), SHORT, || {
        Ok(Some(dropped(program, name)).filter(|count| *count >= least))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_read_from_the_log() {
        let log = "unknown_source +3 (QUIC, from nobody), probe_replayed +12 (Probes seen before)";
        assert_eq!(of_name(log, "probe_replayed"), Some(12));
        assert_eq!(of_name(log, "unknown_source"), Some(3));
        assert_eq!(of_name(log, "source"), None);
        assert_eq!(of_name(log, "probe_forged"), None);
    }
}
