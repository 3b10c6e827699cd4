//! The scenarios, by group.

mod abuse;
mod acme;
pub mod beside;
mod broken_ipv6;
mod carry;
pub mod crossings;
mod emulator;
mod errors;
mod failover;
pub mod first_byte;
pub mod holes;
mod hostile;
mod interop;
pub mod ladder;
mod lasting;
mod links;
pub mod matrix;
mod narrow;
mod nats;
mod neighbours;
mod netcheck;
mod openssh;
mod portmap;
mod proxy;
mod regions;
pub mod roaming;
mod scene;
mod waste;

use std::time::Duration;

use crate::harness::{Need, Scenario};

/// Every scenario, the laboratory's own checks first: if a NAT is not what it claims, nothing later means much.
pub fn all() -> Vec<Scenario> {
    [
        nats::SCENARIOS,
        nats::punch::SCENARIOS,
        emulator::SCENARIOS,
        matrix::SCENARIOS,
        neighbours::SCENARIOS,
        regions::SCENARIOS,
        carry::SCENARIOS,
        first_byte::SCENARIOS,
        broken_ipv6::SCENARIOS,
        failover::SCENARIOS,
        holes::SCENARIOS,
        abuse::SCENARIOS,
        hostile::forged::SCENARIOS,
        hostile::promises::SCENARIOS,
        hostile::strangers::SCENARIOS,
        hostile::stun::SCENARIOS,
        lasting::SCENARIOS,
        roaming::SCENARIOS,
        roaming::temporary::SCENARIOS,
        links::SCENARIOS,
        beside::SCENARIOS,
        narrow::SCENARIOS,
        portmap::SCENARIOS,
        netcheck::SCENARIOS,
        proxy::SCENARIOS,
        openssh::SCENARIOS,
        interop::SCENARIOS,
        acme::SCENARIOS,
        errors::SCENARIOS,
        waste::SCENARIOS,
    ]
    .concat()
}

/// What a scenario with nothing but namespaces needs.
const NAMESPACES: &[Need] = &[Need::Namespaces];

/// What most need: namespaces and Byway's programs.
const PROGRAMS: &[Need] = &[Need::Namespaces, Need::Binaries];

/// The same and curl.
const WITH_CURL: &[Need] = &[Need::Namespaces, Need::Binaries, Need::Tool("curl")];

/// The same where the laboratory knocks at addresses, with bash.
const WITH_BASH_AND_CURL: &[Need] = &[
    Need::Namespaces,
    Need::Binaries,
    Need::Tool("curl"),
    Need::Tool("bash"),
];

/// The same and what stands before a network that has a proxy.
const WITH_PROXY: &[Need] = &[
    Need::Namespaces,
    Need::Binaries,
    Need::Tool("curl"),
    Need::Tool("tinyproxy"),
];

/// For a short exchange: thousands of the laboratory's round trips, and room for a busy machine.
const SHORT: Duration = Duration::from_secs(20);

/// For a bulk transfer, of 1 GiB too.
const LONG: Duration = Duration::from_secs(300);

/// The port of the agent's web server.
const WEB_PORT: u16 = 8080;

/// Each site's access delay, one way: 20 ms round trip between the sites, direct or relayed, 10 ms to the relay.
/// Near enough to a region's, and long beside what a busy machine adds.
const ACCESS: Duration = Duration::from_millis(5);
