//! Somebody on the path: hears what two ports of the switch say to each other over UDP, and puts frames of its own on their
//! cables. It cannot keep anything from arriving.
//!
//! What it heard it sends on again: as it was, back to who had sent it, in a stranger's name, and with a bit changed. It takes what
//! it heard in turn, so that all of it is repeated, and a probe each second time: of those there are few among a transfer's
//! packets, and they are what a node learns from.

use std::collections::VecDeque;
use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use byway_sim::rng::Rng;

/// Datagrams of each sort that it keeps: more than a transfer's of a second, and all probes of some minutes.
const KEEPS: usize = 4_096;
/// What it heard is repeated when it has arrived, and not before: whoever is faster than the network is another attacker.
const ARRIVED: Duration = Duration::from_millis(200);
/// First byte of a probe (docs/protocol.md).
const PROBE: u8 = 0x81;

/// Of an Ethernet frame with IPv4 and UDP.
const ETHERNET: usize = 14;
const UDP: usize = 8;

/// A datagram it heard.
struct Heard {
    at: Duration,
    from: usize,
    to: usize,
    frame: Vec<u8>,
}

/// What it sends, and how often.
struct Forging {
    every: Duration,
    next: Duration,
    stranger: Ipv4Addr,
}

/// What it made of what it heard, by how.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Made {
    repeated: u64,
    reflected: u64,
    renamed: u64,
    damaged: u64,
}

impl fmt::Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            repeated,
            reflected,
            renamed,
            damaged,
        } = self;
        write!(f, "{repeated} {reflected} {renamed} {damaged}")
    }
}

/// See the module's documentation.
pub(super) struct Attacker {
    between: (usize, usize),
    listens: bool,
    probes: VecDeque<Heard>,
    others: VecDeque<Heard>,
    turn: usize,
    forging: Option<Forging>,
    rng: Rng,
    pub(super) made: Made,
}

impl Attacker {
    /// One that listens to these two ports.
    pub(super) fn new(one: usize, other: usize, rng: Rng) -> Self {
        Self {
            between: (one, other),
            listens: true,
            probes: VecDeque::new(),
            others: VecDeque::new(),
            turn: 0,
            forging: None,
            rng,
            made: Made::default(),
        }
    }

    /// What it heard so far is all it will have.
    pub(super) fn stop_listening(&mut self) {
        self.listens = false;
    }

    /// From now on a frame each so often, to one side and the other by turns.
    pub(super) fn forge(&mut self, now: Duration, every: Duration, stranger: Ipv4Addr) {
        self.forging = Some(Forging {
            every,
            next: now + every,
            stranger,
        });
    }

    /// A frame passes.
    pub(super) fn hear(&mut self, now: Duration, from: usize, to: usize, frame: &[u8]) {
        let (one, other) = self.between;
        if !self.listens || ((from, to) != (one, other) && (from, to) != (other, one)) {
            return;
        }
        let Some(payload) = payload_at(frame) else {
            return;
        };
        let kept = if frame.get(payload) == Some(&PROBE) {
            &mut self.probes
        } else {
            &mut self.others
        };
        if kept.len() == KEEPS {
            kept.pop_front();
        }
        kept.push_back(Heard {
            at: now,
            from,
            to,
            frame: frame.to_vec(),
        });
    }

    /// When it sends next.
    pub(super) fn due(&self) -> Option<Duration> {
        self.forging.as_ref().map(|forging| forging.next)
    }

    /// What it sends when that time has come, and to which port.
    pub(super) fn send(&mut self) -> Option<(usize, Vec<u8>)> {
        let forging = self.forging.as_mut()?;
        let now = forging.next;
        forging.next += forging.every;
        let stranger = forging.stranger;
        self.turn += 1;
        let (turn, of) = (self.turn / 2, &self.probes);
        let all = if self.turn.is_multiple_of(2) && !of.is_empty() {
            of
        } else {
            &self.others
        };
        let arrived = all.partition_point(|heard| heard.at + ARRIVED <= now);
        // Four ways for each: the ways change once around.
        let which = turn.checked_rem(arrived)?;
        let heard = all.get(which)?;
        let (to, frame) = match (turn / arrived + which) % 4 {
            0 => {
                self.made.repeated += 1;
                (heard.to, heard.frame.clone())
            }
            1 => {
                self.made.reflected += 1;
                (heard.from, reflected(&heard.frame))
            }
            2 => {
                self.made.renamed += 1;
                (heard.to, renamed(&heard.frame, stranger))
            }
            _ => {
                self.made.damaged += 1;
                let mut frame = heard.frame.clone();
                let payload = payload_at(&frame)?;
                // Behind the first byte, which says what it is.
                let bits = (frame.len() - payload).saturating_sub(1).max(1) as u64;
                let at = payload + 1 + self.rng.below(bits) as usize;
                if let Some(byte) = frame.get_mut(at) {
                    *byte ^= 1 << self.rng.below(8);
                }
                without_udp_checksum(&mut frame);
                (heard.to, frame)
            }
        };
        Some((to, frame))
    }
}

/// Where the payload of a whole UDP datagram over IPv4 begins.
fn payload_at(frame: &[u8]) -> Option<usize> {
    let ip = frame.get(ETHERNET..)?;
    let is_ipv4 = frame.get(12..14)? == [0x08, 0x00] && ip.first()? >> 4 == 4;
    // More fragments, or not the first.
    let in_parts = u16::from_be_bytes([*ip.get(6)?, *ip.get(7)?]) & 0x3fff != 0;
    if !is_ipv4 || in_parts || *ip.get(9)? != 17 {
        return None;
    }
    let at = ETHERNET + header_len(ip) + UDP;
    (at < frame.len()).then_some(at)
}

fn header_len(ip: &[u8]) -> usize {
    usize::from(ip[0] & 15) * 4
}

/// Back to who sent it, as if it came from who was meant. Sums do not change when their terms change places.
fn reflected(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let udp = ETHERNET + header_len(&frame[ETHERNET..]);
    for (one, other, len) in [
        (0, 6, 6),
        (ETHERNET + 12, ETHERNET + 16, 4),
        (udp, udp + 2, 2),
    ] {
        for n in 0..len {
            frame.swap(one + n, other + n);
        }
    }
    frame
}

/// The same from another address, by the same port.
fn renamed(frame: &[u8], from: Ipv4Addr) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[ETHERNET + 12..ETHERNET + 16].copy_from_slice(&from.octets());
    let header = ETHERNET..ETHERNET + header_len(&frame[ETHERNET..]);
    frame[ETHERNET + 10..ETHERNET + 12].fill(0);
    let sum = checksum(&frame[header]);
    frame[ETHERNET + 10..ETHERNET + 12].copy_from_slice(&sum.to_be_bytes());
    without_udp_checksum(&mut frame);
    frame
}

/// Over IPv4 a datagram may do without (RFC 768).
fn without_udp_checksum(frame: &mut [u8]) {
    let udp = ETHERNET + header_len(&frame[ETHERNET..]);
    frame[udp + 6..udp + 8].fill(0);
}

/// The internet checksum (RFC 1071) of an IPv4 header, whose length is even.
fn checksum(header: &[u8]) -> u16 {
    let mut sum: u32 = header
        .chunks_exact(2)
        .map(|two| u32::from(u16::from_be_bytes([two[0], two[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv4 header without options.
    const LEAST_IP: usize = 20;
    const STRANGER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 40);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// From 203.0.113.65:5000 to 203.0.113.66:6000.
    fn datagram(payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 66, 2, 0, 0, 0, 0, 65, 0x08, 0x00];
        let total = (LEAST_IP + UDP + payload.len()) as u16;
        frame.extend([0x45, 0]);
        frame.extend(total.to_be_bytes());
        frame.extend([0, 7, 0x40, 0, 64, 17, 0, 0]);
        frame.extend([203, 0, 113, 65, 203, 0, 113, 66]);
        let sum = checksum(&frame[ETHERNET..]);
        frame[ETHERNET + 10..ETHERNET + 12].copy_from_slice(&sum.to_be_bytes());
        frame.extend(5_000_u16.to_be_bytes());
        frame.extend(6_000_u16.to_be_bytes());
        frame.extend(((UDP + payload.len()) as u16).to_be_bytes());
        frame.extend([0xab, 0xcd]);
        frame.extend(payload);
        frame
    }

    fn attacker() -> Attacker {
        Attacker::new(0, 1, Rng::new(1, "attacker"))
    }

    #[test]
    fn what_it_heard_is_sent_in_four_ways_each_when_it_has_arrived() {
        let mut attacker = attacker();
        let heard = datagram(&[PROBE, 1, 2, 3]);
        attacker.hear(ms(0), 0, 1, &heard);
        attacker.forge(ms(0), ms(50), STRANGER);
        assert_eq!(attacker.due(), Some(ms(50)));
        let sent: Vec<_> = (0..40).filter_map(|_| attacker.send()).collect();
        assert!(sent.contains(&(1, heard.clone())));
        assert!(sent.contains(&(0, reflected(&heard))));
        assert!(sent.contains(&(1, renamed(&heard, STRANGER))));
        assert!(attacker.made.damaged > 0);
        assert_eq!(attacker.due(), Some(ms(50 * 41)));
        // The first three turns came too early.
        let Made {
            repeated,
            reflected,
            renamed,
            damaged,
        } = attacker.made;
        assert_eq!(repeated + reflected + renamed + damaged, sent.len() as u64);
        assert!(sent.len() <= 37, "{}", sent.len());
    }

    #[test]
    fn all_that_was_heard_is_repeated_in_every_way() {
        let mut attacker = attacker();
        for n in 0..6 {
            attacker.hear(ms(0), 0, 1, &datagram(&[0x40, n]));
        }
        attacker.forge(ms(200), ms(1), STRANGER);
        let sent: Vec<_> = (0..200).filter_map(|_| attacker.send()).collect();
        for n in 0..6 {
            let heard = datagram(&[0x40, n]);
            for (to, frame) in [
                (1, heard.clone()),
                (0, reflected(&heard)),
                (1, renamed(&heard, STRANGER)),
            ] {
                assert!(sent.contains(&(to, frame)), "{n}");
            }
        }
    }

    #[test]
    fn only_whole_datagrams_between_the_two_are_heard_and_only_while_it_listens() {
        let mut attacker = attacker();
        let heard = datagram(b"hello");
        attacker.hear(ms(0), 0, 2, &heard);
        attacker.hear(ms(0), 2, 1, &heard);
        let mut part = heard.clone();
        part[ETHERNET + 6] = 0x20;
        attacker.hear(ms(0), 0, 1, &part);
        let mut tcp = heard.clone();
        tcp[ETHERNET + 9] = 6;
        attacker.hear(ms(0), 0, 1, &tcp);
        attacker.hear(ms(0), 0, 1, &heard[..ETHERNET + 3]);
        attacker.hear(ms(0), 0, 1, &[]);
        attacker.stop_listening();
        attacker.hear(ms(0), 0, 1, &heard);
        attacker.forge(ms(1_000), ms(1), STRANGER);
        assert!((0..100).all(|_| attacker.send().is_none()));
    }

    #[test]
    fn a_forged_header_is_as_right_as_a_real_one() {
        let frame = renamed(&datagram(b"hello"), STRANGER);
        assert_eq!(checksum(&frame[ETHERNET..ETHERNET + LEAST_IP]), 0);
        assert_eq!(frame[ETHERNET + 12..ETHERNET + 16], STRANGER.octets());
        let back = reflected(&datagram(b"hello"));
        assert_eq!(checksum(&back[ETHERNET..ETHERNET + LEAST_IP]), 0);
        assert_eq!(back[ETHERNET + 12..ETHERNET + 16], [203, 0, 113, 66]);
        assert_eq!(reflected(&back), datagram(b"hello"));
    }

    #[test]
    fn what_it_keeps_is_bounded() {
        let mut attacker = attacker();
        for n in 0..KEEPS + 10 {
            attacker.hear(ms(n as u64), 0, 1, &datagram(b"hello"));
        }
        assert_eq!(attacker.others.len(), KEEPS);
    }
}
