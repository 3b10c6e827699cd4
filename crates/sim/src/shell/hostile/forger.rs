//! A forger off the path: it speaks to one node in another's name and address, and nobody can tell by the address.
//!
//! By turns: garbage of every kind that Byway's sockets know, and what it heard the other say to that node earlier, as it
//! was: sealed probes, their answers, and QUIC packets. The other itself may long be unable to reach the node.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use crate::net::{Happening, HostId, Network, Tapped};
use crate::rng::Rng;

/// See the module's documentation.
#[derive(Debug)]
pub struct Forger {
    host: HostId,
    /// In whose name, to whom, and what was heard going that way.
    targets: Vec<(SocketAddr, SocketAddr, Vec<Bytes>)>,
    every: Duration,
    rng: Rng,
    /// Garbage it sent.
    pub garbage: u64,
    /// Old probes and answers to probes it sent again.
    pub old_probes: u64,
    /// Old packets of the tunnel it sent again.
    pub old_packets: u64,
}

impl Forger {
    /// A forger that sends one datagram to each of these every so often: (in whose name, to whom). `heard`: what crossed the
    /// network before.
    pub fn new(
        net: &mut Network,
        host: HostId,
        targets: &[(SocketAddr, SocketAddr)],
        heard: &[Tapped],
        every: Duration,
    ) -> Self {
        net.wake_at(host, Some(net.now() + every));
        let heard = |name: SocketAddr, victim: SocketAddr| {
            let there = heard
                .iter()
                .filter(|(from, to, _)| (*from, *to) == (name, victim));
            there.map(|(.., data)| data.clone()).collect()
        };
        let targets = targets.iter();
        Self {
            host,
            targets: targets
                .map(|(name, to)| (*name, *to, heard(*name, *to)))
                .collect(),
            every,
            rng: net.rng("forger"),
            garbage: 0,
            old_probes: 0,
            old_packets: 0,
        }
    }

    /// Something happened on the host.
    pub fn handle(&mut self, net: &mut Network, what: Happening) {
        if what != Happening::Wake {
            return;
        }
        for (name, victim, heard) in &self.targets {
            let is_probe = |data: &&Bytes| data.first() == Some(&0x81);
            let (probes, packets): (Vec<&Bytes>, Vec<&Bytes>) = heard.iter().partition(is_probe);
            let old = match self.rng.below(3) {
                0 => Some((&probes, &mut self.old_probes)),
                1 => Some((&packets, &mut self.old_packets)),
                _ => None,
            };
            let datagram = match old {
                Some((old, count)) if !old.is_empty() => {
                    *count += 1;
                    self.rng.pick(old).clone()
                }
                _ => {
                    self.garbage += 1;
                    garbage(&mut self.rng)
                }
            };
            net.send_spoofed(self.host, *name, *victim, datagram);
        }
        net.wake_at(self.host, Some(net.now() + self.every));
    }
}

/// QUIC with a short header, a probe, a fragment, at random and of any length.
fn garbage(rng: &mut Rng) -> Bytes {
    let mut bytes = vec![0; rng.between(30, 1444) as usize];
    rng.fill(&mut bytes);
    bytes[0] = match rng.below(3) {
        0 => 0x40 | (bytes[0] & 0x3f),
        1 => 0x81,
        _ => 0x83,
    };
    Bytes::from(bytes)
}
