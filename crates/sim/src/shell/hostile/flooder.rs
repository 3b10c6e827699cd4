//! A flooder of datagrams that sits on the path: it hears what crosses the core, and sends with any source address.
//!
//! It sends garbage of every kind, in its own name and in others'; what it heard once more, as it was; the same with a bit
//! changed; and what one said to another in somebody else's name. It cannot keep anything from arriving.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use super::HOSTILE_PORT;
use crate::net::{Happening, HostId, Network};
use crate::rng::Rng;

/// See the module's documentation.
#[derive(Debug)]
pub struct Flooder {
    host: HostId,
    victims: Vec<SocketAddr>,
    every: Duration,
    rng: Rng,
    /// Garbage it sent.
    pub garbage: u64,
    /// What it heard and sent again, changed or not.
    pub replayed: u64,
}

impl Flooder {
    /// A flooder that sends one datagram to each victim every so often, from a host without a NAT.
    pub fn new(net: &mut Network, host: HostId, victims: Vec<SocketAddr>, every: Duration) -> Self {
        net.wake_at(host, Some(net.now() + every));
        net.tap(net.site_of(host));
        Self {
            host,
            victims,
            every,
            rng: net.rng("flooder"),
            garbage: 0,
            replayed: 0,
        }
    }

    /// Something happened on the host.
    pub fn handle(&mut self, net: &mut Network, what: Happening) {
        if what != Happening::Wake {
            return;
        }
        for victim in self.victims.clone() {
            if self.rng.chance(0.4) && self.replay(net, victim) {
                self.replayed += 1;
                continue;
            }
            let datagram = self.make_garbage();
            if self.rng.chance(0.5) {
                let in_the_name_of = self.rng.pick(&self.victims);
                net.send_spoofed(self.host, in_the_name_of, victim, datagram);
            } else {
                net.send(self.host, HOSTILE_PORT, victim, datagram);
            }
            self.garbage += 1;
        }
        net.wake_at(self.host, Some(net.now() + self.every));
    }

    /// Sends something it heard; false if it has heard nothing yet.
    fn replay(&mut self, net: &mut Network, victim: SocketAddr) -> bool {
        let heard = net.tapped();
        let Some((from, to, data)) = heard
            .get(self.rng.below(heard.len() as u64) as usize)
            .map(|heard| (*heard).clone())
        else {
            return false;
        };
        let (from, to, data) = match self.rng.below(3) {
            0 => (from, to, data),
            1 => (from, to, self.damage(&data)),
            _ => (self.rng.pick(&self.victims), victim, data),
        };
        net.send_spoofed(self.host, from, to, data);
        true
    }

    fn damage(&mut self, data: &Bytes) -> Bytes {
        let mut copy = data.to_vec();
        let at = self.rng.below(copy.len() as u64) as usize;
        if let Some(byte) = copy.get_mut(at) {
            *byte ^= 1 << self.rng.below(8);
        }
        Bytes::from(copy)
    }

    fn make_garbage(&mut self) -> Bytes {
        let len = self.rng.between(1, 1452) as usize;
        let mut bytes = vec![0; len];
        self.rng.fill(&mut bytes);
        // One of every kind of first byte, and now and then anything at all.
        bytes[0] = match self.rng.below(10) {
            0 => 0x00,
            1 => 0x01,
            2 => 0x40 | (bytes[0] & 0x3f),
            3 => 0xc0 | (bytes[0] & 0x3f),
            4 | 5 => 0x80,
            6 => 0x81,
            7 => 0x82,
            8 => 0x83,
            _ => bytes[0],
        };
        if bytes[0] <= 1 && len >= 20 {
            // A STUN header that is right as far as it goes.
            bytes[1] = 1;
            bytes[2..4].copy_from_slice(&((len - 20) as u16 & !3).to_be_bytes());
            bytes[4..8].copy_from_slice(&[0x21, 0x12, 0xa4, 0x42]);
        }
        if bytes[0] == 0x80 && self.rng.chance(0.3) && len >= 8 {
            bytes[1..8].fill(0);
        }
        Bytes::from(bytes)
    }
}
