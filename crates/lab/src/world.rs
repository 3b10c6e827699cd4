//! The internet that most scenarios are played in, and where things are in it.

pub mod internet;
pub mod ipv6;
pub mod place;
pub mod plan;
mod site;
mod vpn;

use std::net::Ipv4Addr;
use std::ops::Deref;
use std::time::Duration;

use anyhow::Result;

pub use internet::Internet;
pub use place::{Place, Traffic};
pub use plan::{Plan, Site};

use crate::kinds::Kind;

/// The relay's address.
pub const RELAY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// A second relay's address, where nothing listens unless a scenario starts it.
pub const RELAY_2: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 11);
/// Where relays are, these two and those of a [`Plan`], as the hosts' counters know them.
const RELAYS: &str = "203.0.113.8/29";
/// The first STUN server's two addresses (RFC 5780 asks for two).
pub const STUN_1: [Ipv4Addr; 2] = [
    Ipv4Addr::new(203, 0, 113, 21),
    Ipv4Addr::new(203, 0, 113, 22),
];
/// The second STUN server's address.
pub const STUN_2: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 23);
/// A public address that no host has.
pub const NOBODY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 250);
/// What the client's site looks like from outside.
pub const CLIENT_PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 65);
/// What the agent's site looks like from outside, where it has one of its own.
pub const AGENT_PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 66);

/// An internet with five hosts that every scenario knows by name: a relay's, two STUN servers', the client's and the agent's.
/// See the crate's documentation for the picture.
#[derive(Debug)]
pub struct World {
    /// The relay's host.
    pub relay: Place,
    /// The first STUN server's host, with two addresses.
    pub stun_1: Place,
    /// The second STUN server's host.
    pub stun_2: Place,
    /// The client's host.
    pub client: Place,
    /// The agent's host.
    pub agent: Place,
    // After the places, so that they are dropped first.
    internet: Internet,
}

impl World {
    /// Builds one, with the client and the agent in networks of these kinds, and no delay but the machine's own.
    pub fn new(client: impl Into<Kind>, agent: impl Into<Kind>) -> Result<Self> {
        Self::with_delay(client, agent, Duration::ZERO)
    }

    /// Builds one in which each site's access takes this long one way. Four times that is the round trip
    /// between the sites, direct or through the relay; twice that from a site to the relay.
    pub fn with_delay(
        client: impl Into<Kind>,
        agent: impl Into<Kind>,
        access: Duration,
    ) -> Result<Self> {
        Self::of(
            Self::servers()
                .site("client", Site::behind(client).access(access))
                .site("agent", Site::behind(agent).access(access)),
        )
    }

    /// The plan of its servers alone: add where `client` and `agent` are.
    pub fn servers() -> Plan {
        Plan::new()
            .host("relay", &[RELAY, RELAY_2])
            .host("stun1", &STUN_1)
            .host("stun2", &[STUN_2])
    }

    /// Builds one from [`World::servers`] and more, among which are `client` and `agent`.
    pub fn of(plan: Plan) -> Result<Self> {
        let mut internet = plan.build()?;
        Ok(Self {
            relay: internet.take("relay")?,
            stun_1: internet.take("stun1")?,
            stun_2: internet.take("stun2")?,
            client: internet.take("client")?,
            agent: internet.take("agent")?,
            internet,
        })
    }
}

/// A world is an internet, of which it has lifted the five hosts.
impl Deref for World {
    type Target = Internet;

    fn deref(&self) -> &Internet {
        &self.internet
    }
}
