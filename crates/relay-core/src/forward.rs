//! The forwarding decision: pure, shared by the relay's shards and by the simulation.
//!
//! Data of a channel goes from one end to the other, and only if it comes from where that end is bound. Whoever knows a
//! channel's number but is not bound to it can send nothing through it.

use std::net::SocketAddr;

use crate::io::{Egress, LinkId};

/// Where data came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// A plain datagram from this address.
    Udp(SocketAddr),
    /// A frame on this TLS link.
    Tls(LinkId),
}

/// What to do with data of a channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Send it there.
    Forward(Egress),
    /// The source is not bound to either side: drop it, and answer a UDP source with a rebind cookie.
    Unbound,
}

/// Decides for one run of datagrams of one channel.
pub fn decide(opener: Egress, target: Egress, source: Source) -> Decision {
    let from = match source {
        Source::Udp(addr) => Egress::Udp(addr),
        Source::Tls(link) => Egress::Tls(link),
    };
    if from == opener {
        Decision::Forward(target)
    } else if from == target {
        Decision::Forward(opener)
    } else {
        Decision::Unbound
    }
}
